from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from camgen.layers import LAST
from camgen.maps import MapName, raw_maps
from classify.checkpoint import weights_of
from classify.ensemble import Ensemble, EnsembleConfig
from classify.ensemble import run as make_ensemble
from classify.export import OPSET, export_ensemble
from classify.heads import HeadConfig, HeadKind, MapLinear, PixelSequence, lse_pool, make_scorer, noisy_or_pool, pool
from classify.member import load_member, save_member
from classify.model import Classifier, ModelConfig
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.taxonomy import Finding, Taxonomy

KINDS: tuple[HeadKind, ...] = get_args(HeadKind)
POOLED: tuple[HeadKind, ...] = ("gap", "gmp", "lse", "noisy_or", "pcam")
THREE = math.log(3)


def build(kind: HeadKind, findings: int = 2, uncertain: bool = False, **head: Any) -> Classifier:
    config = validate(
        ModelConfig,
        {
            "backbone": "small_cnn",
            "small_cnn": {"channels": 2},
            "input": {"size_px": 48},
            "head": {"kind": kind, "hidden": 6, **head},
        },
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(config, findings, uncertain).eval()
        for parameter in model.scorer.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("gap", 0.0),
        ("gmp", THREE),
        ("lse", math.log(5 / 3)),  # r = 2: ½ log((1 + 9 + 1/9 + 1) / 4)
        ("noisy_or", math.log(61 / 3)),  # 1 - P = ½ · ¼ · ¾ · ½ = 3/64
        ("pcam", 0.25 * THREE),  # σ = ½, ¾, ¼, ½
        ("fc", 0.0),
    ],
)
def test_pooling_by_hand(kind: HeadKind, expected: float) -> None:
    logit_map = torch.tensor([[[[0.0, THREE], [-THREE, 0.0]]]])
    found = pool(HeadConfig(kind=kind, lse_sharpness=2.0), logit_map)
    assert found.shape == (1, 1)
    assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_the_last_place_is_the_logit_of_a_recurrent_head(kind: HeadKind) -> None:
    maps = torch.arange(30.0).reshape(1, 2, 3, 5)
    assert pool(HeadConfig(kind=kind), maps).tolist() == [[14.0, 29.0]]


@pytest.mark.parametrize("batch", [1, 3])
def test_pooling_equals_its_formula(batch: int) -> None:
    torch.manual_seed(1)
    maps = torch.randn(batch, 4, 3, 5) * 2
    flat = maps.double().flatten(2)
    p = flat.sigmoid()
    absent = (1 - p).prod(-1)
    expected = {
        "gap": flat.mean(-1),
        "gmp": flat.max(-1).values,
        "lse": (0.7 * flat).exp().mean(-1).log() / 0.7,
        "noisy_or": ((1 - absent) / absent).log(),
        "pcam": (p * flat).sum(-1) / p.sum(-1),
    }
    for kind in POOLED:
        found = pool(HeadConfig(kind=kind, lse_sharpness=0.7), maps)
        assert found.shape == (batch, 4)
        torch.testing.assert_close(found.double(), expected[kind], rtol=1e-5, atol=1e-5)


def test_log_sum_exp_goes_from_mean_to_max() -> None:
    torch.manual_seed(2)
    maps = torch.randn(3, 2, 3, 5)
    torch.testing.assert_close(lse_pool(maps, 1e-3), maps.mean((2, 3)), rtol=0, atol=2e-3)
    torch.testing.assert_close(lse_pool(maps, 1e3), maps.amax((2, 3)), rtol=0, atol=5e-3)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-300.0, -300 + math.log(15)), (-80.0, -80 + math.log(15)), (80.0, 15 * 80.0), (300.0, 15 * 300.0)],
)
def test_noisy_or_saturates_on_neither_side(value: float, expected: float) -> None:
    assert noisy_or_pool(torch.full((1, 1, 3, 5), value)).item() == pytest.approx(expected, rel=1e-6)


def test_noisy_or_of_one_place_is_that_place_and_has_no_seams() -> None:
    places = torch.linspace(-40, 40, 16001)
    torch.testing.assert_close(noisy_or_pool(places[None, :, None, None])[0], places, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("value", [-300.0, -2.0, 0.0, 300.0])
@pytest.mark.parametrize("kind", ["gap", "gmp", "lse", "pcam", "fc", "rnn", "lstm"])
def test_the_logit_of_a_constant_map_is_the_constant(kind: HeadKind, value: float) -> None:
    assert pool(HeadConfig(kind=kind), torch.full((1, 1, 3, 5), value)).item() == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("low", [-300.0, -80.0])
@pytest.mark.parametrize("kind", POOLED)
def test_gradients_of_the_pooling_are_right_far_from_zero(kind: HeadKind, low: float) -> None:
    maps = torch.stack([torch.full((3, 5), low), torch.full((3, 5), -low), torch.full((3, 5), low)])[None]
    maps[0, 2, 1, 3] = -low
    maps.requires_grad_(True)
    pool(HeadConfig(kind=kind), maps).sum().backward()
    assert maps.grad is not None
    share = torch.full((3, 5), 1 / 15)
    torch.testing.assert_close(maps.grad[0, 0], share)
    torch.testing.assert_close(maps.grad[0, 1], torch.ones(3, 5) if kind == "noisy_or" else share)
    peak = torch.zeros(3, 5)
    peak[1, 3] = 1.0
    torch.testing.assert_close(maps.grad[0, 2], share if kind == "gap" else peak, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [-80.0, 80.0])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_whole_head_are_finite(kind: HeadKind, bias: float) -> None:
    model = build(kind)
    last = model.scorer.readout if isinstance(model.scorer, PixelSequence) else model.scorer
    nn.init.constant_(cast("Tensor", last.bias), bias)
    features = torch.randn(3, 16, 3, 3, requires_grad=True)
    output = model.head(features)
    targets = torch.tensor([[0.0, 1.0]]).expand(3, 2)
    nn.functional.binary_cross_entropy_with_logits(output.logits, targets).backward()  # type: ignore[no-untyped-call]
    for tensor in (features, *model.scorer.parameters()):
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("batch", [1, 3])
def test_pcam_is_the_weighted_pooled_feature_under_the_same_convolution(batch: int) -> None:
    model = build("pcam", findings=4)
    features = torch.randn(batch, 16, 3, 5)
    output = model.head(features)
    assert output.logit_maps.shape == (batch, 4, 3, 5)
    weight, bias = model.conv.weight[:, :, 0, 0], cast("Tensor", model.conv.bias)
    for k in range(4):
        p = torch.sigmoid(output.logit_maps[:, k])
        share = p / p.sum((1, 2), keepdim=True)
        pooled = (share[:, None] * features).sum((2, 3))
        torch.testing.assert_close(output.logits[:, k], pooled @ weight[k] + bias[k], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_heads_give_logits_and_maps_in_float32_under_autocast(kind: HeadKind) -> None:
    model = build(kind, uncertain=True)
    for batch in (1, 3):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = model.features(torch.rand(batch, 1, 48, 48))
            output = model.head(features)
        assert features.dtype == torch.bfloat16
        assert output.uncertain is not None
        assert output.logits.dtype == output.logit_maps.dtype == output.uncertain.dtype == torch.float32
        assert output.logits.shape == output.uncertain.shape == (batch, 2)
        assert output.logit_maps.shape == (batch, 2, 3, 3)
        torch.testing.assert_close(output.logits, model.head(features.float()).logits, rtol=0, atol=0)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_fully_connected_head_is_a_linear_layer_taken_apart_by_place(batch: int) -> None:
    torch.manual_seed(3)
    head = MapLinear(4, (2, 3), 5)
    whole = nn.Linear(24, 5)
    with torch.no_grad():
        whole.weight.copy_(head.weight.flatten(1))
        whole.bias.copy_(head.bias)
    features = torch.randn(batch, 4, 2, 3)
    maps = head(features)
    torch.testing.assert_close(maps.mean((2, 3)), whole(features.flatten(1)), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pool(HeadConfig(kind="fc"), maps), maps.mean((2, 3)), rtol=0, atol=0)
    kept = torch.zeros_like(features)
    kept[:, :, 1, 2] = features[:, :, 1, 2]
    share = whole(kept.flatten(1)) - whole.bias
    torch.testing.assert_close(maps[:, :, 1, 2], 6 * share + whole.bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_recurrent_heads_read_the_map_row_by_row(kind: Any, batch: int) -> None:
    torch.manual_seed(4)
    head = PixelSequence(kind, 4, 6, 2)
    features = torch.randn(batch, 4, 2, 3)
    cell = nn.RNNCell(4, 6) if kind == "rnn" else nn.LSTMCell(4, 6)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in head.cell.state_dict().items()})
    state = None
    expected = torch.zeros(batch, 2, 2, 3)
    for y in range(2):
        for x in range(3):
            state = cell(features[:, :, y, x], state)
            expected[:, :, y, x] = head.readout(state if kind == "rnn" else state[0])
    maps = head(features)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pool(HeadConfig(kind=kind), maps), expected[:, :, 1, 2], rtol=1e-5, atol=1e-6)


def test_a_noisy_or_begins_at_one_half_and_others_at_logit_zero() -> None:
    for kind in POOLED:
        conv = make_scorer(HeadConfig(kind=kind), 4, (3, 5), 2)
        logits = pool(HeadConfig(kind=kind), conv(torch.zeros(1, 4, 3, 5)))
        torch.testing.assert_close(logits, torch.zeros(1, 2), rtol=0, atol=1e-5)


def test_dropout_takes_whole_channels_in_training_alone() -> None:
    model = build("gap", dropout=0.5)
    features = torch.ones(3, 16, 3, 3)
    weight, bias = model.conv.weight[:, :, 0, 0], cast("Tensor", model.conv.bias)
    torch.testing.assert_close(model.head(features).logits, (weight.sum(1) + bias).expand(3, 2))
    model.train()
    torch.manual_seed(5)
    maps = model.head(features).logit_maps
    torch.manual_seed(5)
    kept = torch.nn.functional.dropout2d(features, 0.5)[:, :, 0, 0]
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(maps, (kept @ weight.T + bias)[:, :, None, None].expand(3, 2, 3, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_the_uncertain_head_is_a_second_one_of_the_same_kind(kind: HeadKind) -> None:
    model, plain = build(kind, uncertain=True), build(kind)
    second = model.uncertain
    assert second is not None
    assert {name for name in model.state_dict() if name not in plain.state_dict()} == {
        f"uncertain.{name}" for name in model.scorer.state_dict()
    }
    features = torch.randn(3, 16, 3, 3)
    assert plain.head(features).uncertain is None
    apart = model.head(features).uncertain
    assert apart is not None
    assert not torch.allclose(apart, model.head(features).logits)
    second.load_state_dict(model.scorer.state_dict())
    torch.testing.assert_close(model.head(features).uncertain, model.head(features).logits, rtol=0, atol=0)


def test_a_saved_member_leaves_the_uncertain_head_out(tmp_path: Path) -> None:
    model = build("lse", uncertain=True)
    taxonomy = Taxonomy((Finding("A"), Finding("B")))
    save_member(tmp_path, weights_of(model), model.config, taxonomy, "none", "zeros")
    loaded = load_member(tmp_path).model
    assert loaded.uncertain is None
    assert loaded.config == model.config
    images = torch.rand(3, 1, 48, 48)
    torch.testing.assert_close(loaded(images).logits, model(images).logits, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_by_gradient_go_through_every_head(kind: HeadKind) -> None:
    model = build(kind)
    images = torch.rand(3, 1, 48, 48)
    methods = ("pcam", "logit", "gradcam", "hirescam")
    found = raw_maps(model, images, [MapName(0, method, LAST, k) for method in methods for k in range(2)])
    output = model(images)
    torch.testing.assert_close(found.logits, output.logits)
    assert {maps.shape for maps in found.maps.values()} == {(3, 3, 3)}
    if kind in ("gap", "fc"):  # the gradient at a place is its weight over h·w: HiResCAM is the map without its bias
        bias = cast("Tensor", model.scorer.bias)[:, None, None]
        own = torch.stack([found.maps[MapName(0, "hirescam", LAST, k)] for k in range(2)], 1)
        torch.testing.assert_close(own, ((output.logit_maps - bias) / 9).relu(), rtol=1e-4, atol=1e-5)


class _HeadAlone(nn.Module):
    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        found = self.model.head(features)
        return found.logits, found.logit_maps


class _PoolingAlone(nn.Module):
    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, maps: Tensor) -> Tensor:
        return pool(self.config, maps)


def exported(module: nn.Module, example: Tensor, outputs: list[str], path: Path) -> Any:
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as `classify export` does
        torch.onnx.export(
            module,
            (example,),
            path,
            input_names=["x"],
            output_names=outputs,
            dynamic_axes={name: {0: "n"} for name in ("x", *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", KINDS)
def test_exported_heads_equal_torch_for_any_batch(kind: HeadKind, tmp_path: Path) -> None:
    model = build(kind)
    session = exported(_HeadAlone(model), torch.randn(2, 16, 3, 3), ["logits", "logit_maps"], tmp_path / "head.onnx")
    torch.manual_seed(6)
    for batch, scale in ((1, 1.0), (3, 1.0), (3, 10.0)):
        features = scale * torch.randn(batch, 16, 3, 3)
        with torch.no_grad():
            expected = model.head(features)
        logits, maps = session.run(None, {"x": features.numpy()})
        np.testing.assert_allclose(logits, expected.logits.numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(maps, expected.logit_maps.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", POOLED)
def test_exported_poolings_hold_far_from_zero(kind: HeadKind, tmp_path: Path) -> None:
    config = HeadConfig(kind=kind)
    session = exported(_PoolingAlone(config), torch.randn(2, 1, 3, 5), ["logits"], tmp_path / "pool.onnx")
    for value in (-300.0, -80.0, -18.0, -14.0, -3.001, -2.999, 18.0, 80.0, 300.0):
        maps = torch.full((3, 1, 3, 5), value)
        maps[1, 0, 1, 3] += 1.0
        maps[2, 0, 1, 3] = 0.3
        (found,) = session.run(None, {"x": maps.numpy()})
        np.testing.assert_allclose(found, pool(config, maps).numpy(), rtol=1e-5, atol=1e-5)


def test_an_ensemble_of_all_pooling_heads_is_exported(
    dataset: Dataset, make_member: Callable[..., Path], tmp_path: Path
) -> None:
    import onnxruntime

    members = [make_member(tmp_path / kind, i, head={"kind": kind}) for i, kind in enumerate(POOLED)]
    make_ensemble(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "all", threads=1))
    export_ensemble(tmp_path / "all", tmp_path / "all.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), providers=["CPUExecutionProvider"])
    ensemble = Ensemble.load(tmp_path / "all")
    assert [member.config.head.kind for member in ensemble.members] == list(POOLED)
    for batch in (1, 3):
        images = torch.rand(batch, 1, 64, 64, generator=torch.Generator().manual_seed(batch))
        for found, expected in zip(session.run(None, {"images": images.numpy()}), ensemble.both(images), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2e-6)  # a fifth of 1e-5: a mean of five
