from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from classify.ensemble import Ensemble, EnsembleConfig
from classify.ensemble import run as make_ensemble
from classify.export import export_ensemble
from classify.model import Classifier, ModelConfig
from classify.small_cnn import SmallCnn, SmallCnnConfig
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError


def build(**settings: Any) -> Classifier:
    given = {"backbone": "small_cnn", "small_cnn": {"channels": 3}, "input": {"size_px": 64}} | settings
    return Classifier(validate(ModelConfig, given), 2).eval()


def test_four_layers_double_their_channels_and_halve_the_map() -> None:
    network = SmallCnn(SmallCnnConfig(channels=5), in_channels=3)
    convolutions = [part for part in network.modules() if isinstance(part, nn.Conv2d)]
    assert [(part.in_channels, part.out_channels, part.kernel_size) for part in convolutions] == [
        (3, 5, (3, 3)),
        (5, 10, (3, 3)),
        (10, 20, (3, 3)),
        (20, 40, (3, 3)),
    ]
    for batch in (1, 3):
        assert network.eval().forward_features(torch.rand(batch, 3, 32, 48)).shape == (batch, 40, 2, 3)
    assert SmallCnnConfig().channels == 80
    assert SmallCnnConfig().dropout == 0.3


def test_a_layer_is_convolution_norm_relu_and_pool() -> None:
    network = SmallCnn(SmallCnnConfig(channels=2), in_channels=1).eval()
    images = torch.randn(3, 1, 32, 48)
    first = network.layers[:4](images)
    weight = next(network.parameters())
    normed = nn.functional.conv2d(images, weight, padding=1) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(first, nn.functional.max_pool2d(normed.relu(), 2), rtol=1e-5, atol=1e-6)


def test_dropout_is_of_single_values_and_in_training_alone() -> None:
    network = SmallCnn(SmallCnnConfig(channels=2, dropout=0.5), in_channels=1)
    images = torch.randn(3, 1, 64, 96)
    torch.manual_seed(0)
    dropped = network.forward_features(images)
    torch.manual_seed(0)
    whole = network.layers[:-1](images)
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])
    assert 0.4 < kept[whole != 0].float().mean() < 0.6
    lost = ~kept & (whole != 0)
    assert (lost.any(dim=3).any(dim=2) & kept.any(dim=3).any(dim=2)).all()  # every channel keeps some and loses some
    network.eval()
    torch.testing.assert_close(network.forward_features(images), network.layers[:-1](images), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_takes_it_as_its_backbone(channels: int) -> None:
    model = build(input={"size_px": 64, "channels": channels})
    assert model.grid_hw == (4, 4)
    for batch in (1, 3):
        images = torch.rand(batch, channels, 64, 64)
        assert model.features(images).shape == (batch, 24, 4, 4)
        assert model(images).logit_maps.shape == (batch, 2, 4, 4)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"pretrained": True}, r"model\.pretrained: small_cnn has none, got True; leave it out, or take a timm"),
        ({"drop_stages": 1}, r"model\.drop_stages: small_cnn has none, got 1"),
        ({"drop_path_rate": 0.1}, r"model\.drop_path_rate: small_cnn has none, got 0\.1"),
        (
            {"output_stride": 8},
            r"small_cnn gives a 4×4 map of 64 px, expected 8×8 for stride 8; set output_stride to null",
        ),
        ({"input": {"size_px": 72}}, r"it would leave out the last 8\); .* a multiple of 16, such as 64 or 80"),
    ],
)
def test_what_it_has_not_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(**settings)


def test_the_three_heads_of_the_baseline_are_exported_as_an_ensemble(
    dataset: Dataset, make_member: Callable[..., Path], tmp_path: Path
) -> None:
    import onnxruntime

    kinds = ("fc", "rnn", "lstm")
    settings = {"backbone": "small_cnn", "small_cnn": {"channels": 4}}
    members = [make_member(tmp_path / kind, i, head={"kind": kind}, **settings) for i, kind in enumerate(kinds)]
    make_ensemble(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "all", threads=1))
    export_ensemble(tmp_path / "all", tmp_path / "all.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), providers=["CPUExecutionProvider"])
    ensemble = Ensemble.load(tmp_path / "all")
    for batch in (1, 3):
        images = torch.rand(batch, 1, 64, 64, generator=torch.Generator().manual_seed(batch))
        for found, expected in zip(session.run(None, {"images": images.numpy()}), ensemble.both(images), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=3e-6)  # a third of 1e-5: a mean of three
