"""Where cells look, on networks whose geometry is known, and maps that are moved there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camgen.layers import LAST
from camgen.maps import MapName, MapSet, moved
from camgen.offsets import measure
from classify.model import Classifier, ModelConfig
from tests.camgen.makers import placed
from weakray.imaging import InputSpec


class Even(nn.Module):
    """One convolution of equal weights."""

    def __init__(self, **geometry: Any) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(1, 3, bias=False, **geometry)
        nn.init.constant_(self.backbone.weight, 0.1)

    def features(self, x: Tensor) -> Tensor:
        found: Tensor = self.backbone(x)
        return found


@pytest.mark.parametrize(
    ("geometry", "px"),
    [
        ({"kernel_size": 4, "stride": 4}, (0, 0)),
        # Cell i sees samples 4i - 1 to 4i + 1, whose middle is 4i + 0.5; its place is 4i to 4i + 4.
        ({"kernel_size": 3, "stride": 4, "padding": 1}, (-1.5, -1.5)),
        ({"kernel_size": (4, 3), "stride": 4, "padding": (0, 1)}, (0, -1.5)),
        ({"kernel_size": 1, "stride": 4}, (-1.5, -1.5)),
    ],
)
def test_one_convolution_by_hand(geometry: dict[str, Any], px: tuple[float, float]) -> None:
    down, right = measure(Even(**geometry), [LAST], (1, 32, 48))[LAST]
    assert (down * 32, right * 48) == pytest.approx(px, abs=0.003)  # fractions have four digits


def dilated(backbone: str = "resnet10t") -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(ModelConfig(backbone=backbone, output_stride=8, input=InputSpec(size_px=96)), 2).eval()


def test_a_dilated_resnet_is_off_by_what_its_pooling_pads() -> None:
    model = dilated()
    for name, module in model.backbone.named_modules():  # the skips alone are left
        if name.endswith("bn2"):
            nn.init.zeros_(module.weight)
        if isinstance(module, nn.MaxPool2d):
            module.kernel_size, module.padding = 1, 0  # takes every second sample
        if isinstance(module, nn.Conv2d) and name.startswith("conv1"):
            nn.init.constant_(module.weight, 0.05)
    found = measure(model, [LAST, "stage2"], (1, 96, 96))
    # The stem's convolution of 3 with stride 2 looks half a pixel up and left, every second sample of its output one
    # pixel more. Each of the last two stages then averages cells i and i + 1 of 8 pixels, which is 4 down and right.
    assert [side * 96 for side in found["stage2"]] == pytest.approx([-1.5, -1.5], abs=0.3)
    assert [side * 96 for side in found[LAST]] == pytest.approx([6.5, 6.5], abs=0.3)


def test_the_same_twice_and_the_model_is_left_alone() -> None:
    model = dilated()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, two = (measure(model, [LAST, "stage1"], (1, 96, 96)) for _ in range(2))
    assert one == two
    assert list(one) == [LAST, "stage1"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_tokens_look_straight() -> None:
    model = Classifier(ModelConfig(backbone="test_vit", output_stride=None, input=InputSpec(size_px=160)), 2).eval()
    assert measure(model, [LAST], (1, 160, 160)) == {LAST: (0.0, 0.0)}


@pytest.mark.parametrize("n", [1, 3])
def test_a_moved_map_is_the_bilinear_map_elsewhere(n: int) -> None:
    maps = torch.rand(n, 5, 7, generator=torch.Generator().manual_seed(n))
    still = moved(maps, (0.0, 0.0), (40, 56))
    expected = torch.nn.functional.interpolate(maps[:, None], size=(40, 56), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(still, expected, atol=1e-6)
    away = moved(maps, (3 / 40, -5 / 56), (40, 56))
    assert torch.allclose(away[:, 3:, :-5], still[:, :-3, 5:], atol=1e-6)
    assert torch.allclose(away[:, :3], away[:, 3:4].expand(-1, 3, -1), atol=1e-6)  # the border is carried on


def test_members_are_put_where_they_look_before_they_are_averaged() -> None:
    """A spot that two members see a cell apart, one of them because its cells look a cell to the right."""
    own = np.zeros((1, 8, 8), np.float32)
    other = np.zeros((1, 8, 8), np.float32)
    own[0, 3, 4], other[0, 3, 3] = 1, 1
    names = [MapName(m, "pcam", LAST, 0) for m in (0, 1)]
    maps = MapSet(
        *(["a"], [placed(40, 40, 64)], dict(zip(names, (own, other), strict=True))),
        *(np.ones((1, 1)), np.ones((2, 1, 1)), (8, 8)),
    )
    assert maps.mean(names, 32).shape == (1, 8, 8)
    assert maps.mean(names, 32).max() == 0.5
    maps = MapSet(**{**vars(maps), "offsets": {(1, LAST): (0.0, 1 / 8)}})
    mean = maps.mean(names, 32)
    assert mean.shape == (1, 32, 32)
    assert mean == pytest.approx(moved(torch.from_numpy(own), (0, 0), (32, 32)).numpy(), abs=1e-6)
    assert maps.mean(names[:1], 32).shape == (1, 8, 8)  # this member looks straight
