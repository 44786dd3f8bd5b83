from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from classify.backbone import LastMap
from classify.compute import bf16_pays, torch_device, torch_threads
from classify.ensemble import Ensemble, EnsembleConfig
from classify.ensemble import run as make_ensemble
from classify.export import export_ensemble
from classify.heads import HeadKind
from classify.member import load_weights
from classify.model import Classifier, ModelConfig
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, RunError
from weakray.imaging import InputSpec

TINY = [
    "test_byobnet",
    "test_coatnet",
    "test_convnext",
    "test_convnext2",
    "test_convnext3",
    "test_efficientnet",
    "test_efficientnet_evos",
    "test_efficientnet_gn",
    "test_efficientnet_ln",
    "test_mambaout",
    "test_maxvit",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit2",
    "test_vit3",
    "test_vit4",
    "test_vit_relpos",
]


def build(
    backbone: str = "test_resnet",
    findings: int = 2,
    stride: int | None = 16,
    settings: dict[str, Any] | None = None,
    **spec: int,
) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"backbone": backbone, "output_stride": stride, "input": {"size_px": 64, **spec}, **(settings or {})}
        return Classifier(validate(ModelConfig, config), findings).eval()


@pytest.mark.parametrize(
    ("backbone", "stride", "grid"),
    [
        ("test_resnet", 8, (8, 8)),
        ("test_resnet", None, (2, 2)),
        ("test_convnext", 16, (4, 4)),
        ("test_efficientnet", 16, (4, 4)),
        ("resnet10t", 16, (4, 4)),
        ("mobilenetv3_small_050", None, (2, 2)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_backbones_give_spatial_features(
    backbone: str, stride: int | None, grid: tuple[int, int], channels: int
) -> None:
    model = build(backbone, stride=stride, channels=channels)
    assert model.grid_hw == grid
    for batch in (1, 3):
        features = model.features(torch.rand(batch, channels, 64, 64))
        assert features.shape == (batch, model.conv.in_channels, *grid)
        assert model.head(features).logits.shape == (batch, 2)


def test_the_tiny_backbones_are_all_that_timm_has() -> None:
    import timm

    assert timm.list_models("test_*") == TINY


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "backbone",
    [*TINY, "swin_tiny_patch4_window7_224", "deit_tiny_patch16_224", "xcit_nano_12_p16_224", "mvitv2_tiny"],
)
def test_maps_are_those_that_timm_itself_puts_on_a_grid(backbone: str, channels: int) -> None:
    model = build(backbone, stride=None, size_px=96, channels=channels)
    coarse = 3 if model.backbone.feature_info[-1]["reduction"] == 32 else 6
    assert model.grid_hw == (coarse, coarse)
    with torch.no_grad():
        for batch in (1, 3):
            images = torch.rand(batch, channels, 96, 96)
            features = model.features(images)
            assert features.shape == (batch, model.conv.in_channels, coarse, coarse)
            assert model.head(features).logits.shape == (batch, 2)
            if "efficientnet" in backbone or "nfnet" in backbone:
                continue  # timm's list of maps ends before their last convolution
            theirs = model.backbone.forward_intermediates(
                (images - model.mean) / model.std, indices=1, output_fmt="NCHW", norm=True, intermediates_only=True
            )
            torch.testing.assert_close(features, theirs[-1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "layout", "prefix"),
    [
        ("test_resnet", "channels_first", 0),
        ("test_mambaout", "channels_last", 0),
        ("test_vit", "tokens", 1),
        ("test_vit_relpos", "tokens", 0),
    ],
)
def test_the_layout_of_the_last_map_is_found(backbone: str, layout: str, prefix: int) -> None:
    model = build(backbone, stride=None)
    found = model.backbone.forward_features(torch.zeros(3, 1, 64, 64))
    features = model.features(model.mean.expand(3, 1, 64, 64))
    if layout == "tokens":
        assert found.shape[1] == prefix + 16
        torch.testing.assert_close(features[:, :, 1, 2], found[:, prefix + 6])
    elif layout == "channels_last":
        torch.testing.assert_close(features[:, :, 1, 0], found[:, 1, 0])
    else:
        torch.testing.assert_close(features, found)


def test_tokens_are_read_row_by_row() -> None:
    tokens = torch.arange(14.0).reshape(1, 7, 2)  # a prefix and a 2 × 3 grid of 2 channels
    expected = [[[2.0, 4.0, 6.0], [8.0, 10.0, 12.0]], [[3.0, 5.0, 7.0], [9.0, 11.0, 13.0]]]
    assert LastMap(2, (2, 3), "tokens", prefix=1).read(tokens).tolist() == [expected]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_maxvit", "test_convnext", "test_efficientnet"])
def test_stochastic_depth_is_given_to_the_backbone(backbone: str) -> None:
    model = build(backbone, stride=None, settings={"drop_path_rate": 0.4})
    shares = [float(part.drop_prob) for part in model.backbone.modules() if type(part).__name__ == "DropPath"]
    assert max(shares) == pytest.approx(0.4, abs=0.15)  # some count from the stem on
    own = build(backbone, stride=None)
    assert not any(type(part).__name__ == "DropPath" for part in own.backbone.modules())
    assert own.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(("backbone", "grid"), [("test_vit", (4, 4)), ("test_maxvit", (4, 4))])
def test_transformers_can_lose_their_last_stages(backbone: str, grid: tuple[int, int]) -> None:
    whole, cut = (build(backbone, stride=None, settings={"drop_stages": n}) for n in (0, 1))
    assert cut.grid_hw == grid
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())
    assert cut(torch.rand(3, 1, 64, 64)).logit_maps.shape == (3, 2, *grid)


@pytest.mark.parametrize(
    ("backbone", "size", "text"),
    [
        (
            "test_vit",
            72,
            r"72 px and 1 channel \(.*patch size \(16\).*\); set .*size_px to a multiple of 16, such as 64 or 80",
        ),
        (
            "test_vit_relpos",
            72,
            r"\(its patches of 16 would leave out the last 8\); .* multiple of 16, such as 64 or 80",
        ),
        ("test_maxvit", 72, r"divisible by window.* multiple of 32, such as 64 or 96"),
        ("test_convnext", 72, r"\(it would leave out the last 8\); .* multiple of 32, such as 64 or 96"),
        ("mvitv2_tiny", 20, r"must be non-negative\.\); set model\.input\.size_px to its own 224"),
        ("mvitv2_tiny", 48, r"multiple of 32, such as 32 or 64"),
        (
            "swin_tiny_patch4_window7_224",
            70,
            r"patches of 4 would leave out the last 2.* multiple of 4, such as 68 or 72",
        ),
        ("nest_tiny", 72, r"blocks don't fit evenly.*; set model\.input\.size_px to its own 224"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_those_that_do(backbone: str, size: int, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.backbone: {backbone} does not take images of .*{text}"):
        build(backbone, stride=None, size_px=size)


@pytest.mark.parametrize("backbone", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_sizes_that_a_backbone_pads_are_taken(backbone: str) -> None:
    model = build(backbone, stride=None, size_px=72)
    assert model(torch.rand(1, 1, 72, 72)).logit_maps.shape == (1, 2, 3, 3)


@pytest.mark.parametrize("stride", [8, 16])
def test_densenet_takes_a_stride_and_keeps_its_weights(stride: int) -> None:
    dilated, plain = build("densenet121", stride=stride), build("densenet121", stride=None)
    assert dilated.grid_hw == (64 // stride, 64 // stride)
    assert plain.grid_hw == (2, 2)
    assert dilated.state_dict().keys() == plain.state_dict().keys()
    assert dilated.features(torch.rand(1, 1, 64, 64)).shape == (1, 1024, 64 // stride, 64 // stride)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    model = build()
    images = torch.rand(3, 1, 64, 64)
    together = model(images).logits
    alone = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)


def test_normalisation_is_inside_and_grey_takes_the_mean_over_colours() -> None:
    grey, colour = build("resnet10t"), build("resnet10t", channels=3)
    assert grey.mean.flatten().tolist() == pytest.approx([(0.485 + 0.456 + 0.406) / 3])
    assert grey.std.flatten().tolist() == pytest.approx([(0.229 + 0.224 + 0.225) / 3])
    assert colour.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    grey.backbone.forward_features = lambda images: images
    torch.testing.assert_close(
        grey.features(torch.full((1, 1, 64, 64), 0.449)), torch.zeros(1, 1, 64, 64), atol=1e-3, rtol=0
    )


def test_building_leaves_batch_norm_and_mode_untouched() -> None:
    model = Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=64)), 2)
    assert model.training
    assert all(module.training for module in model.backbone.modules())
    assert float(model.backbone.bn1.running_mean.abs().sum()) == 0


@pytest.mark.parametrize(
    ("backbone", "stride", "text"),
    [
        (
            "pit_ti_224",
            None,
            r"has no spatial last map; expected features \(n, 256, h, w\) or tokens .*got \(1, 1, 256",
        ),
        ("volo_d1_224", None, r"volo_d1_224 has no spatial last map; .*, got \(1, 17, 384\)"),
        ("coat_lite_tiny", None, r"coat_lite_tiny cannot give a spatial last map \(Only token or avg"),
        ("test_vit", 16, r"test_vit cannot be built with output stride 16 .*set it to null"),
        ("swin_tiny_patch4_window7_224", 16, r"cannot be built with output stride 16 .*set it to null"),
        ("test_maxvit", 16, r"test_maxvit cannot be built with output stride 16 .*set it to null"),
        ("mobilenetv3_small_050", 16, r"mobilenetv3_small_050 cannot be built with output stride 16 .*set it to null"),
        ("ghostnet_050", 16, r"ghostnet_050 cannot be built with output stride 16 .*only output_stride==32"),
        ("resnet19", 16, r"has no model 'resnet19'; did you mean "),
    ],
)
def test_unfit_backbones_are_named(backbone: str, stride: int | None, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(backbone, stride=stride)


@pytest.mark.parametrize("backbone", ["densenet121", "vgg11"])
def test_a_backbone_without_stochastic_depth_is_named(backbone: str) -> None:
    text = rf"model\.drop_path_rate: {backbone} has no stochastic depth .*; set it to null"
    with pytest.raises(ConfigError, match=text):
        build(backbone, stride=None, settings={"drop_path_rate": 0.1})


def test_pretrained_weights_that_do_not_exist_or_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def refuse(name: str, **_: object) -> None:
        raise RuntimeError(f"No pretrained weights exist for {name}.")

    monkeypatch.setattr(timm, "create_model", refuse)
    text = (
        r"timm's weights of test_vit cannot be used \(No .*\); set model\.input\.size_px to its own 160, or pretrained"
    )
    with pytest.raises(ConfigError, match=text):
        build("test_vit", stride=None, settings={"pretrained": True})
    with pytest.raises(RuntimeError, match="No pretrained weights exist for resnet18"):
        build("resnet18")  # not about our settings: a fault, shown as one


def test_pretrained_weights_are_asked_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    asked: list[bool] = []

    def refuse(name: str, pretrained: bool, **_: object) -> None:
        asked.append(pretrained)
        raise OSError("no route to the hub")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ConfigError, match=r"could not read timm's weights of resnet18 \(no route to the hub\)"):
        Classifier(ModelConfig(pretrained=True), 2)
    assert asked == [True]


def test_bf16_pays_where_the_processor_has_it_and_convolutions_are_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    dense, depthwise = build("test_resnet"), build("mobilenetv3_small_050", stride=None)
    cpu = torch.device("cpu")
    for found, expected in (({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", found.copy)
        assert bf16_pays(cpu, dense) is expected
        assert bf16_pays(cpu, depthwise) is False


def test_threads_are_put_back_and_a_missing_device_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert torch_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="device: expected a CUDA device, torch finds none"):
        torch_device("cuda")


@pytest.mark.parametrize(("dropped", "channels"), [(0, 512), (1, 256), (2, 128)])
def test_dropping_stages_keeps_the_stride_and_narrows_the_map(dropped: int, channels: int) -> None:
    spec = InputSpec(size_px=64, channels=1)
    model = Classifier(ModelConfig(backbone="resnet10t", output_stride=8, drop_stages=dropped, input=spec), findings=3)
    assert model.grid_hw == (8, 8)
    assert model.conv.in_channels == channels
    for n in (1, 3):
        assert model(torch.zeros(n, 1, 64, 64)).logit_maps.shape == (n, 3, 8, 8)


def test_a_stride_that_the_kept_stages_do_not_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gives a 28×28 map of 224 px, expected 7×7 for stride 32"):
        Classifier(ModelConfig(backbone="resnet10t", output_stride=32, drop_stages=2), findings=3)


def test_the_parameters_of_the_default_head_keep_their_names() -> None:
    model = build()
    assert [name for name in model.state_dict() if not name.startswith("backbone.")] == [
        "mean",
        "std",
        "conv.weight",
        "conv.bias",
    ]


@pytest.mark.parametrize(
    ("backbone", "findings", "head", "text"),
    [
        ("test_resnet", 3, "pcam", r"2 tensors differ \(conv\.weight: \(2, 96, 1, 1\) expected, \(3, 96, 1, 1\) found"),
        (
            "test_vit",
            2,
            "pcam",
            r"conv\.weight: .2, 96, 1, 1. expected, .2, 64, 1, 1. found; .*backbone\.norm\.bias: none expected",
        ),
        (
            "test_resnet",
            2,
            "lstm",
            r"conv\.bias: \(2,\) expected, none found; .*lstm\.readout\.bias: none expected, \(2,\)",
        ),
    ],
)
def test_weights_of_another_model_are_refused_and_both_sides_named(
    backbone: str, findings: int, head: HeadKind, text: str
) -> None:
    model = build(stride=None)
    other = build(backbone, findings, None, {"head": {"kind": head}})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = (
        r"x\.safetensors: expected weights of test_resnet with head pcam for 2 findings \(A, B\), got another model's: "
    )
    with pytest.raises(RunError, match=f"{start}.*{text}"):
        load_weights(model, dict(other.state_dict()), Path("x.safetensors"), ["A", "B"])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_token_backbones_are_exported_for_any_batch(
    dataset: Dataset, make_member: Callable[..., Path], tmp_path: Path
) -> None:
    import onnxruntime

    names = ("test_vit", "test_vit_relpos", "test_mambaout", "test_maxvit")
    members = [make_member(tmp_path / name, i, backbone=name, output_stride=None) for i, name in enumerate(names)]
    make_ensemble(EnsembleConfig(data=dataset.root, members=members, out=tmp_path / "all", threads=1))
    export_ensemble(tmp_path / "all", tmp_path / "all.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "all.onnx"), providers=["CPUExecutionProvider"])
    ensemble = Ensemble.load(tmp_path / "all")
    for batch in (1, 3):
        images = torch.rand(batch, 1, 64, 64, generator=torch.Generator().manual_seed(batch))
        for found, expected in zip(session.run(None, {"images": images.numpy()}), ensemble.both(images), strict=True):
            np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=2.5e-6)  # a mean of four
