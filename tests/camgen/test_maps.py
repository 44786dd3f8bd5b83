"""Maps against autograd in float64, closed forms and pytorch-grad-cam; backbone passes counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camgen.maps import is_empty, raw_maps, to_grid
from camgen.methods.gradient import gradient_maps
from tests.camgen.makers import Output, TinyClassifier
from weakray.errors import DataError

ALL = ("pcam", "logit", "gradcam", "hirescam")


def batch(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 1, 20, 28, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(dtype)


class AverageHead(nn.Module):
    """A linear head on averages, with known weights, over features that are the input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def features(self, x: Tensor) -> Tensor:
        return x

    def head(self, features: Tensor) -> Output:
        maps = torch.einsum("kd,ndhw->nkhw", self.weight, features)
        return Output(maps.mean((2, 3)), maps)


def test_hand_computed_two_by_two() -> None:
    features = torch.tensor([[[[1.0, 2.0], [0.0, 4.0]], [[3.0, 0.0], [1.0, 0.0]]]])  # (1, 2, 2, 2)
    found = raw_maps(AverageHead(torch.tensor([[2.0, -1.0], [-1.0, 0.5]])), features, ALL).maps
    # s_0 = 2 a - b, s_1 = -a + b / 2; the head averages over 4 places, so its gradients are weights / 4.
    logit_map = torch.tensor([[[[-1.0, 4.0], [-1.0, 8.0]], [[0.5, -2.0], [0.5, -4.0]]]])
    assert torch.equal(found["logit"], logit_map.relu())
    assert torch.allclose(found["pcam"], 1 / (1 + torch.exp(-logit_map)))
    assert torch.equal(found["gradcam"], logit_map.relu() / 4)
    assert torch.equal(found["hirescam"], logit_map.relu() / 4)


@pytest.mark.parametrize("n", [1, 3])
def test_one_backbone_pass_whatever_the_number_of_findings_and_methods(n: int) -> None:
    for findings in (1, 7):
        model = TinyClassifier(findings).eval()
        found = raw_maps(model, batch(n), ALL)
        assert model.passes == 1
        assert set(found.maps) == set(ALL)
        assert all(maps.shape == (n, findings, 5, 7) for maps in found.maps.values())
        assert not any(maps.requires_grad for maps in found.maps.values())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_gradcam_equals_finite_differences_in_float64() -> None:
    model = TinyClassifier(3).double().eval()
    with torch.no_grad():
        features = model.features(batch(3, torch.float64))
        step, slopes = 1e-6, torch.zeros(3, *features.shape, dtype=torch.float64)  # (k, n, d, h, w)
        for place in np.ndindex(*features.shape[1:]):
            nudge = torch.zeros_like(features)
            nudge[(slice(None), *place)] = step
            rise = (model.head(features + nudge).logits - model.head(features - nudge).logits) / (2 * step)
            slopes[(slice(None), slice(None), *place)] = rise.T
        for method, weights in (("gradcam", slopes.mean((3, 4), keepdim=True)), ("hirescam", slopes)):
            expected = torch.relu((weights * features).sum(2)).transpose(0, 1)
            found = gradient_maps(lambda a: model.head(a).logits, features, [method])[method]
            assert torch.allclose(found, expected, rtol=1e-5, atol=1e-9)
            assert (found > 0).any()


@pytest.mark.parametrize("n", [1, 3])
def test_gradcam_equals_pytorch_grad_cam_after_its_scaling(n: int) -> None:
    model = TinyClassifier(5, seed=n).eval()
    ours = raw_maps(model, batch(n), ["gradcam"]).maps["gradcam"]
    low, high = ours.amin((2, 3), keepdim=True), ours.amax((2, 3), keepdim=True)
    scaled = torch.where(high > low, (ours - low) / (high - low).clamp(min=1e-12), torch.zeros(()))
    peer = raw_maps(model, batch(n), ["gradcam"], engine="pytorch_grad_cam").maps["gradcam"]
    assert peer.shape == ours.shape
    assert (scaled.amax((2, 3)) == 1).sum() >= 4  # there is something to compare
    assert torch.allclose(scaled, peer, rtol=1e-4, atol=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_do_not_mix() -> None:
    model, images = TinyClassifier(4).double().eval(), batch(3, torch.float64)
    together, alone = raw_maps(model, images, ALL).maps, raw_maps(model, images[1:2], ALL).maps
    for method in ALL:
        assert torch.allclose(together[method][1:2], alone[method], rtol=1e-9, atol=1e-12)


def test_a_map_without_evidence_is_empty_and_not_nan() -> None:
    found = raw_maps(AverageHead(torch.tensor([[-1.0], [1.0]])), torch.rand(3, 1, 4, 6) + 0.1, ["gradcam"]).maps
    assert torch.isfinite(found["gradcam"]).all()
    assert is_empty(found["gradcam"].numpy()).tolist() == [[True, False]] * 3
    assert is_empty(np.full((2, 3, 4), 0.5)).all()  # flat: points nowhere either


def test_nan_maps_are_refused() -> None:
    with pytest.raises(DataError, match=r"pcam maps: expected finite values, got NaN or infinity"):
        raw_maps(AverageHead(torch.tensor([[float("nan")]])), torch.ones(1, 1, 2, 3), ["pcam"])


def test_members_of_different_resolution_meet_on_one_grid() -> None:
    ramp = torch.tensor([[[[0.0, 1.0]]]])  # (1, 1, 1, 2)
    assert to_grid(ramp, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    assert to_grid(ramp, (1, 2)) is ramp
