"""Score-CAM and Ablation-CAM against pytorch-grad-cam, loops in float64 and closed forms; passes and memory counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from camgen.layers import layer_module
from camgen.maps import MapName, is_empty, raw_maps
from camgen.methods.masked import MaskedPasses, ablation_cam, drops_at_head
from tests.camgen.makers import Averaged, TinyClassifier
from tests.camgen.referee import off, our_maps, peer_map


def images_of(n: int, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("backbone", "layer"), [("test_resnet", "stage2"), ("test_efficientnet", "stage3")])
def test_scorecam_equals_the_peers(backbone: str, layer: str, n: int) -> None:
    model, images = Averaged(backbone, 2), images_of(n, 32, 64)
    found = our_maps(model, images, ["scorecam"], 2, layer)["scorecam"]
    for k in range(2):
        theirs = peer_map("ScoreCAM", model, layer_module(model.backbone, layer), images, k)
        assert (theirs.amax((1, 2)) > 0).all()
        # Dark channels take a share of the peer's softmax, which dims its map; over their peaks the two are equal.
        assert off(found[:, k], theirs, scaled=True) < 1e-4


@pytest.mark.parametrize("n", [1, 3])
def test_scorecam_equals_a_loop_over_channels_in_float64(n: int) -> None:
    model, images = TinyClassifier(3).double(), images_of(n, 20, 28).double()
    found = our_maps(model, images, ["scorecam"], 3)["scorecam"]
    with torch.no_grad():
        a = model.features(images)
        for i in range(n):
            up = nn.functional.interpolate(a[i : i + 1], size=(20, 28), mode="bilinear", align_corners=True)[0]
            scores = []
            for mask in up:
                scaled = (mask - mask.min()) / (mask.max() - mask.min())
                scores.append(model.head(model.features(images[i : i + 1] * scaled)).logits[0])
            weights = torch.stack(scores).exp()
            weights = weights / weights.sum(0)  # (d, k)
            expected = torch.einsum("dk,dhw->khw", weights, a[i]).relu()
            assert torch.allclose(found[i], expected, rtol=1e-6)


@pytest.mark.parametrize("budget_bytes", [1, 3 * 2 * 20 * 28 * 4, 2**20])
def test_masked_passes_serve_all_findings_within_the_budget(budget_bytes: int) -> None:
    model, images = TinyClassifier(4).eval(), images_of(3, 20, 28)
    whole = our_maps(model, images, ["scorecam"], 4)["scorecam"]
    seen: list[int] = []
    model.body.register_forward_hook(lambda _m, given, _o: seen.append(len(given[0])))
    chunked = our_maps(model, images, ["scorecam"], 4, passes=MaskedPasses(budget_bytes))["scorecam"]
    most = max(1, budget_bytes // (2 * 20 * 28 * 4))
    assert seen[0] == 3
    assert max(seen[1:]) == min(most, 15)
    assert sum(seen[1:]) == 15  # 3 images, 5 channels, whatever the number of findings
    assert torch.allclose(chunked, whole, rtol=1e-4, atol=1e-6)


def test_flat_channels_are_left_out_and_counted() -> None:
    model, images = TinyClassifier(2).eval(), images_of(3, 20, 28)
    with torch.no_grad():
        weight = dict(model.named_parameters())["body.2.weight"]
        weight[1] = 0
        assert raw_maps(model, images, [MapName(0, "scorecam", "last", 1)]).flat_channels == 3
        weight.zero_()
    found = raw_maps(model, images, [MapName(0, "scorecam", "last", 1)])
    assert found.flat_channels == 15
    assert is_empty(found.maps[MapName(0, "scorecam", "last", 1)].numpy()).all()


def test_bf16_passes_give_nearly_the_same_maps() -> None:
    model, images = Averaged("test_resnet", 2), images_of(3, 32, 64)
    exact = our_maps(model, images, ["scorecam"], 2, "stage2")["scorecam"]
    rough = our_maps(model, images, ["scorecam"], 2, "stage2", passes=MaskedPasses(bf16=True))["scorecam"]
    assert 0 < off(rough, exact) < 0.05


def drops_one_by_one(model: Averaged | TinyClassifier, features: Tensor) -> Tensor:
    with torch.no_grad():
        whole, drops = model.head(features).logits, []
        for c in range(features.shape[1]):
            without = features.clone()
            without[:, c] = 0
            drops.append(whole - model.head(without).logits)
    return torch.stack(drops, 1)


@pytest.mark.parametrize("n", [1, 3])
def test_ablation_at_the_head_equals_a_loop_over_channels_in_float64(n: int) -> None:
    for model, closed in ((Averaged("test_efficientnet", 3).double(), True), (TinyClassifier(3).double(), False)):
        images = images_of(n).double()
        with torch.no_grad():
            a = model.features(images)
            logits = model.head(a).logits
        asked: list[int] = []
        head = model.head

        def counted(features: Tensor, head: object = head, asked: list[int] = asked) -> object:
            asked.append(len(features))
            return head(features)  # type: ignore[operator]

        drops = drops_one_by_one(model, a)
        assert torch.allclose(drops_at_head(counted, a, MaskedPasses(3 * a[0].numel() * 8)), drops, atol=1e-9)
        assert (len(asked) == 3) == closed  # a head that averages a linear map is asked and proved, never looped over
        assert a.min() < 0
        found = our_maps(model, images, ["ablationcam"], 3)["ablationcam"]
        expected = torch.einsum("ndk,ndhw->nkhw", drops / logits.abs()[:, None], a).relu()
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-9)
        assert (found.amax((2, 3)) > 0).any()


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("layer", ["stage2", "layer3.0.act1"])  # one that all goes through, and one that is passed by
def test_ablation_behind_a_layer_equals_the_peers_where_it_is_right(layer: str, n: int) -> None:
    """timm begins with the last norm of a block at 0: nothing would hang on what lies inside, nothing be compared."""
    model, images = Averaged("test_resnet", 8), images_of(n)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.weight, 1.0)
    module = layer_module(model.backbone, layer)
    found = our_maps(model, images, ["ablationcam"], 8, layer)["ablationcam"]
    with torch.no_grad():
        logits = model(images)
    compared = 0
    for k in range(8):
        theirs = peer_map("AblationCAM", model, module, images, k)
        for i in range(n):
            if logits[i, k] > 0:
                assert off(found[i, k], theirs[i]) < 1e-3
                compared += int(theirs[i].max() > 1e-3 * logits[i, k])  # far above rounding errors
    assert compared > 0


def test_a_logit_below_0_does_not_turn_the_map_upside_down() -> None:
    a = torch.tensor([[[[4.0, 0.0, 0.0]], [[0.0, 0.0, 2.0]]]])  # (1, 2, 1, 3)
    drops = torch.tensor([[[0.5], [-3.0]]])  # the first channel speaks for the finding, the second against it
    assert torch.allclose(ablation_cam(drops, torch.tensor([[2.0]]), a), torch.tensor([[[[1.0, 0.0, 0.0]]]]))
    assert torch.allclose(ablation_cam(drops, torch.tensor([[-2.0]]), a), torch.tensor([[[[1.0, 0.0, 0.0]]]]))
    published = torch.einsum("ndk,ndhw->nkhw", drops / -2.0, a).relu()
    assert torch.allclose(published, torch.tensor([[[[0.0, 0.0, 3.0]]]]))  # what speaks against it


def test_the_peers_ablation_is_wrong_where_activations_are_below_0() -> None:
    model, images = Averaged("test_efficientnet", 3), images_of(3)
    with torch.no_grad():
        a, logits = model.features(images), model(images)
    truth = torch.einsum(
        "ndk,ndhw->nkhw", drops_one_by_one(model.double(), a.double()) / logits[:, None].abs(), a.double()
    ).relu()
    model.float()
    found = our_maps(model, images, ["ablationcam"], 3)["ablationcam"].double()
    assert off(found, truth, scaled=True) < 1e-4
    wrong = 0
    for k in range(3):
        theirs = peer_map("AblationCAM", model, model.backbone.bn2, images, k)
        for i in range(3):
            if logits[i, k] > 0 and truth[i, k].max() > 0:
                wrong += int(off(theirs[i].double(), truth[i, k], scaled=True) > 0.1)
    assert wrong > 0
