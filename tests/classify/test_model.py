from __future__ import annotations

import math

import pytest
import torch

from classify.compute import bf16_pays, torch_device, torch_threads
from classify.model import Classifier, ModelConfig, pcam_pool
from weakray.config import validate
from weakray.errors import ConfigError
from weakray.imaging import InputSpec


def build(backbone: str = "test_resnet", findings: int = 2, stride: int | None = 16, **spec: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"backbone": backbone, "output_stride": stride, "input": {"size_px": 64, **spec}}
        return Classifier(validate(ModelConfig, config), findings).eval()


def test_pcam_pool_by_hand() -> None:
    three = math.log(3)  # σ = 0.5, 0.75, 0.25, 0.5 → Σσ = 2, Σs·σ = 0.5 log 3
    logit_map = torch.tensor([[[[0.0, three, -three, 0.0]]]])
    assert pcam_pool(logit_map).item() == pytest.approx(0.25 * three, abs=1e-7)


def test_pcam_pool_of_a_constant_map_is_the_constant_even_where_the_sigmoid_underflows() -> None:
    for value in (-300.0, -2.0, 0.0, 300.0):
        assert pcam_pool(torch.full((1, 1, 3, 5), value)).item() == pytest.approx(value)


def test_pcam_gradient_is_finite_far_below_zero() -> None:
    logit_map = torch.full((1, 1, 3, 5), -300.0, requires_grad=True)
    pcam_pool(logit_map).sum().backward()
    assert logit_map.grad is not None
    torch.testing.assert_close(logit_map.grad, torch.full((1, 1, 3, 5), 1 / 15))


@pytest.mark.parametrize("batch", [1, 3])
def test_head_is_the_weighted_pooled_feature_under_the_same_convolution(batch: int) -> None:
    model = build(findings=4)
    with torch.no_grad():
        model.conv.weight.normal_()
        bias = torch.nn.init.normal_(model.conv.bias)  # type: ignore[arg-type]
    features = torch.randn(batch, model.conv.in_channels, 3, 5)
    output = model.head(features)
    assert output.logits.shape == (batch, 4)
    assert output.logit_maps.shape == (batch, 4, 3, 5)
    weight = model.conv.weight[:, :, 0, 0]
    for k in range(4):
        p = torch.sigmoid(output.logit_maps[:, k])
        share = p / p.sum((1, 2), keepdim=True)
        pooled = (share[:, None] * features).sum((2, 3))
        torch.testing.assert_close(output.logits[:, k], pooled @ weight[k] + bias[k], rtol=1e-4, atol=1e-4)


def test_head_computes_in_float32_under_autocast() -> None:
    model = build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = model.features(torch.rand(1, 1, 64, 64))
        output = model.head(features)
    assert features.dtype == torch.bfloat16
    assert output.logits.dtype == output.logit_maps.dtype == torch.float32


@pytest.mark.parametrize(
    ("backbone", "stride", "grid"),
    [
        ("test_resnet", 8, (8, 8)),
        ("test_resnet", None, (2, 2)),
        ("test_convnext", 16, (4, 4)),
        ("test_efficientnet", 16, (4, 4)),
        ("test_mambaout", None, (2, 2)),  # its features have channels last
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
        ("test_vit", None, r"test_vit has no spatial last map; expected features \(n, 64, h, w\), got \(1, "),
        ("mobilenetv3_small_050", 16, r"mobilenetv3_small_050 cannot be built with output stride 16 .*set it to null"),
        ("ghostnet_050", 16, r"ghostnet_050 cannot be built with output stride 16 .*only output_stride==32"),
        ("vit_tiny_patch16_224", None, r"vit_tiny_patch16_224 does not take images of 64 px"),
        ("resnet19", 16, r"has no model 'resnet19'; did you mean "),
    ],
)
def test_unfit_backbones_are_named(backbone: str, stride: int | None, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        build(backbone, stride=stride)


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
