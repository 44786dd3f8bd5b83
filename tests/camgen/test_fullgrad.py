"""FullGrad against the logit that its terms must add up to, in float64, and against pytorch-grad-cam's terms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from camgen.maps import MapName, raw_maps
from camgen.methods.fullgrad import bias_layers, full_terms
from tests.camgen.makers import Averaged
from tests.camgen.referee import our_maps
from weakray.errors import ConfigError
from weakray.stack import silence


def images_of(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 64, 96, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 3])
def test_terms_add_up_to_the_logit(n: int) -> None:
    model, images = Averaged("test_resnet", 3).double(), images_of(n)
    with torch.no_grad():
        logits = model(images)
    for k, terms in enumerate(full_terms(model, images, range(3), (2, 3))):
        own = terms.input.sum((1, 2, 3)) + torch.stack([bias.sum((1, 2, 3)) for bias in terms.biases]).sum(0)
        assert torch.allclose(own + model.fc.bias[k], logits[:, k], rtol=1e-9)
        assert float(terms.input.sum().abs()) > 0
        assert len(terms.biases) == len(bias_layers(model)) - 1  # that of the head has no place


def test_norms_with_their_activation_inside_count_too() -> None:
    """Those of timm's DenseNet; the peer finds no bias at all there."""
    silence()
    import pytorch_grad_cam

    model, images = Averaged("densenet121", 1).double(), images_of(1)
    with torch.no_grad():
        logit = model(images)[0, 0]
    terms = next(iter(full_terms(model, images, [0], (2, 3))))
    biases = torch.stack([bias.sum() for bias in terms.biases]).sum()
    assert torch.allclose(terms.input.sum() + biases + model.fc.bias[0], logit, rtol=1e-9)
    assert len(terms.biases) == 121
    with pytorch_grad_cam.FullGrad(model=model, target_layers=[]) as engine:
        assert engine.bias_data == []


def test_terms_equal_the_peers() -> None:
    silence()
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, images = Averaged("test_resnet", 2).double(), images_of(3)
    ours = next(iter(full_terms(model, images, [1], (2, 3))))
    with pytorch_grad_cam.FullGrad(model=model, target_layers=[]) as engine:
        engine(images, [ClassifierOutputTarget(1)] * 3)
        slopes = engine.activations_and_grads.gradients
        assert len(slopes) == len(ours.biases) == len(engine.bias_data)
        for slope, bias, own in zip(slopes, engine.bias_data, ours.biases, strict=True):
            assert torch.allclose(own, slope * torch.from_numpy(bias)[None, :, None, None], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_efficientnet"])
def test_a_map_adds_up_to_its_terms_at_a_quarter_of_the_images_side(backbone: str) -> None:
    model, images = Averaged(backbone, 2).double(), images_of(3)
    found = our_maps(model, images, ["fullgrad"], 2)["fullgrad"]
    assert found.shape == (3, 2, 16, 24)
    for k, terms in enumerate(full_terms(model, images, [0, 1], (2, 3))):
        total = torch.stack([term.abs().sum((1, 2, 3)) for term in (terms.input, *terms.biases)]).sum(0)
        assert torch.allclose(found[:, k].sum((1, 2)), total, rtol=1e-6)
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_tokens_count_and_other_layers_are_refused() -> None:
    model = Averaged("test_vit", 2).double()
    found = raw_maps(model, images_of(1)[..., :64], [MapName(0, "fullgrad", "last", 1)]).maps
    assert found[MapName(0, "fullgrad", "last", 1)].shape == (1, 16, 16)
    with pytest.raises(ConfigError, match=r"fullgrad: its maps are of layer last only; got 'stage1'"):
        raw_maps(model, images_of(1), [MapName(0, "fullgrad", "stage1", 1)])


def test_layers_without_a_bias_have_no_term() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2, track_running_stats=False), nn.Conv2d(2, 3, 1)
    )
    assert list(bias_layers(layers)) == ["2"]
