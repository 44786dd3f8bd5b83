"""Maps against autograd in float64, closed forms and pytorch-grad-cam; backbone passes counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camgen.layers import LAST, stage_paths
from camgen.maps import MapName, is_empty, raw_maps, to_grid
from camgen.methods.gradient import GradientMethod, gradient_map
from classify.model import Classifier, ModelConfig
from tests.camgen.makers import Output, TinyClassifier
from tests.camgen.referee import GRADIENT_PEERS, off, peer_map
from weakray.errors import ConfigError, DataError
from weakray.imaging import InputSpec

METHODS = ("pcam", "logit", *get_args(GradientMethod), "eigencam", "eigengradcam", "dff")  # one pass, last layer


def names(methods: Sequence[str], findings: int, layer: str = LAST) -> list[MapName]:
    return [MapName(0, method, layer, k) for method in methods for k in range(findings)]


def maps_of(model: Any, images: Tensor, methods: Sequence[str], findings: int, layer: str = LAST) -> dict[str, Tensor]:
    """Method → `(n, k, h, w)`."""
    found = raw_maps(model, images, names(methods, findings, layer)).maps
    return {
        method: torch.stack([found[MapName(0, method, layer, k)] for k in range(findings)], 1) for method in methods
    }


def batch(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(n, 1, 20, 28, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(dtype)


def scaled(maps: Tensor) -> Tensor:
    """Min–max in each image, as the peer does."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=1e-30), torch.zeros(()).to(maps))


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
    found = maps_of(AverageHead(torch.tensor([[2.0, -1.0], [-1.0, 0.5]])), features, METHODS, 2)
    # s_0 = 2 a - b, s_1 = -a + b / 2; the head averages over 4 places, so its gradients are weights / 4.
    logit_map = torch.tensor([[[[-1.0, 4.0], [-1.0, 8.0]], [[0.5, -2.0], [0.5, -4.0]]]])
    a, b = features[:, 0], features[:, 1]
    assert torch.equal(found["logit"], logit_map.relu())
    assert torch.allclose(found["pcam"], 1 / (1 + torch.exp(-logit_map)))
    assert torch.equal(found["gradcam"], logit_map.relu() / 4)
    assert torch.equal(found["hirescam"], logit_map.relu() / 4)
    assert torch.allclose(found["xgradcam"], logit_map.relu() / 4)  # the gradient is the same at each place
    positive = torch.stack([a / 2, b / 8], 1)  # only the weight above 0 is left
    assert torch.equal(found["layercam"], positive)
    assert torch.equal(found["elementwise"], positive)
    # sums of A: 7 and 4. α = g² / (2g² + sum·g³ + 1e-6), summed over the 4 places, times relu(g).
    alpha_a = 0.25 / (0.5 + 7 * 0.125 + 1e-6)
    alpha_b = 0.015625 / (0.03125 + 4 * 0.001953125 + 1e-6)
    assert torch.allclose(found["gradcam++"], torch.stack([4 * alpha_a * 0.5 * a, 4 * alpha_b * 0.125 * b], 1))


@pytest.mark.parametrize("n", [1, 3])
def test_one_backbone_pass_whatever_the_number_of_findings_and_methods(n: int) -> None:
    for findings in (1, 7):
        model = TinyClassifier(findings).eval()
        found = raw_maps(model, batch(n), names(METHODS, findings))
        assert model.passes == 1
        assert set(found.maps) == set(names(METHODS, findings))
        assert all(maps.shape == (n, 5, 7) for maps in found.maps.values())
        assert not any(maps.requires_grad for maps in found.maps.values())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_equal_finite_differences_in_float64() -> None:
    model = TinyClassifier(3).double().eval()
    with torch.no_grad():
        features = model.features(batch(3, torch.float64))
        step, slopes = 1e-6, torch.zeros(3, *features.shape, dtype=torch.float64)  # (k, n, d, h, w)
        for place in np.ndindex(*features.shape[1:]):
            nudge = torch.zeros_like(features)
            nudge[(slice(None), *place)] = step
            rise = (model.head(features + nudge).logits - model.head(features - nudge).logits) / (2 * step)
            slopes[(slice(None), slice(None), *place)] = rise.T
    found = maps_of(model, batch(3, torch.float64), METHODS, 3)
    methods: list[Any] = ["gradcam", "hirescam", "layercam", "elementwise", "xgradcam"]
    for method in methods:
        expected = torch.stack([gradient_map(method, features, slopes[k]) for k in range(3)], 1)
        assert torch.allclose(found[method], expected, rtol=1e-4, atol=1e-7), method
        assert (expected > 0).any()


class Logits(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("layer", ["stage1", "stage3", LAST])
def test_every_gradient_method_equals_pytorch_grad_cam_at_every_layer(layer: str, n: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=64)), 3).eval()
        nn.init.normal_(model.conv.weight, std=0.5)
        images = torch.rand(n, 1, 64, 96)
    found = maps_of(model, images, list(GRADIENT_PEERS), 3, layer)
    stages = stage_paths(model.backbone)
    target = model.backbone.get_submodule(stages[4 if layer == LAST else int(layer[5:])])
    for method, kind in GRADIENT_PEERS.items():
        shown = 0
        for k in range(3):
            theirs = peer_map(kind, Logits(model), target, images, k)
            assert off(found[method][:, k], theirs) < 1e-4, (method, k)
            shown += int((theirs.amax((1, 2)) > 0).sum())
        assert shown >= n, method  # there is something to compare
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("n", [1, 3])
def test_gradcam_equals_the_peer_as_engine(n: int) -> None:
    model, wanted = TinyClassifier(5, seed=n).eval(), names(["gradcam"], 5)
    ours = raw_maps(model, batch(n), wanted).maps
    peer = raw_maps(model, batch(n), wanted, engine="pytorch_grad_cam").maps
    for name in wanted:
        assert torch.allclose(scaled(ours[name]), peer[name], rtol=1e-4, atol=1e-4)
    assert sum(bool(scaled(maps).max() == 1) for maps in ours.values()) >= 4  # there is something to compare
    assert all(parameter.grad is None for parameter in model.parameters())


def test_images_do_not_mix() -> None:
    model, images = TinyClassifier(4).double().eval(), batch(3, torch.float64)
    together, alone = maps_of(model, images, METHODS, 4), maps_of(model, images[1:2], METHODS, 4)
    for method in METHODS:
        assert torch.allclose(together[method][1:2], alone[method], rtol=1e-9, atol=1e-12)


def test_several_layers_come_from_one_pass_and_equal_those_asked_alone() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=64)), 2).eval()
        nn.init.normal_(model.conv.weight, std=0.5)
        images = torch.rand(3, 1, 64, 64)
    wanted = [MapName(0, "layercam", layer, k) for layer in ("stage1", "stage2", LAST) for k in range(2)]
    together = raw_maps(model, images, [*wanted, MapName(0, "pcam", LAST, 1)])
    assert [tuple(together.maps[name].shape[1:]) for name in wanted[::2]] == [(16, 16), (8, 8), (4, 4)]
    for name in wanted:
        alone = raw_maps(model, images, [name])
        assert torch.allclose(together.maps[name], alone.maps[name], rtol=1e-5, atol=1e-9)
        assert torch.equal(together.logits, alone.logits)
    with torch.no_grad():
        assert torch.allclose(model(images).logits, together.logits, rtol=1e-5, atol=1e-6)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    model = Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=64)), 2).eval()
    images = torch.rand(1, 1, 64, 64)
    for layer in ("stage9", "neck"):
        message = rf"expected one of last, stage0, .*stage4, or a module's path such as .*layer1.*; got '{layer}'"
        with pytest.raises(ConfigError, match=message):
            raw_maps(model, images, [MapName(0, "layercam", layer, 0)])
    model.backbone.flat = nn.Flatten(1)
    model.backbone.act1 = nn.Sequential(model.backbone.act1)
    by_path = raw_maps(model, images, [MapName(0, "layercam", "layer1.0", 0)]).maps
    assert by_path[MapName(0, "layercam", "layer1.0", 0)].shape == (1, 16, 16)


def test_a_map_without_evidence_is_empty_and_not_nan() -> None:
    head, images = AverageHead(torch.tensor([[-1.0], [1.0]])), torch.rand(3, 1, 4, 6) + 0.1
    found = maps_of(head, images, ["gradcam", "xgradcam", "layercam", "gradcam++"], 2)
    for maps in found.values():
        assert torch.isfinite(maps).all()
        assert is_empty(maps.numpy()).tolist() == [[True, False]] * 3
    dark = maps_of(head, torch.zeros(3, 1, 4, 6), ["xgradcam", "gradcam++"], 2)  # sums of A are 0
    assert all(is_empty(maps.numpy()).all() for maps in dark.values())
    assert is_empty(np.full((2, 3, 4), 0.5)).all()  # flat: points nowhere either


def test_nan_maps_are_refused() -> None:
    with pytest.raises(DataError, match=r"pcam maps: expected finite values, got NaN or infinity"):
        maps_of(AverageHead(torch.tensor([[float("nan")]])), torch.ones(1, 1, 2, 3), ["pcam"], 1)


def test_members_of_different_resolution_meet_on_one_grid() -> None:
    ramp = torch.tensor([[[0.0, 1.0]]])  # (1, 1, 2)
    assert to_grid(ramp, (1, 4)).flatten().tolist() == [0.0, 0.25, 0.75, 1.0]
    assert to_grid(ramp, (1, 2)) is ramp
