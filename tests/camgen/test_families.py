"""Every gradient and eigen method against pytorch-grad-cam, on every family of backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from camgen.layers import as_maps, layer_module
from tests.camgen.makers import Averaged
from tests.camgen.referee import PEERS, off, our_maps, peer_map
from weakray.errors import ConfigError

FAMILIES = [
    ("test_resnet", "stage2", 1, 4),
    ("test_resnet", "stage2", 3, 4),
    ("test_convnext", "stage1", 3, 8),
    ("test_efficientnet", "stage2", 3, 8),
    ("densenet121", "stage3", 2, 2),
    ("test_vit", "stage0", 3, 12),
]


@pytest.mark.parametrize(("backbone", "layer", "n", "findings"), FAMILIES)
def test_maps_of_a_middle_layer_equal_the_peers(backbone: str, layer: str, n: int, findings: int) -> None:
    model = Averaged(backbone, findings).double()  # in float32 rounding alone makes 1e-4
    size = (64, 64) if backbone == "test_vit" else (64, 96)
    images = torch.rand(n, 1, *size, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    ours = our_maps(model, images, list(PEERS), findings, layer)
    module = layer_module(model.backbone, layer)
    tokens = 4 if backbone == "test_vit" else None
    for method, kind in PEERS.items():
        shown = 0
        for k in range(findings):
            theirs = peer_map(kind, model, module, images, k, tokens)
            for i in range(n):
                pair = ours[method][i, k], theirs[i]
                if method.startswith("eigen") and float((pair[0] * pair[1]).sum()) == 0:
                    continue  # the peer took the other sign, see test_eigen
                assert off(*pair) < 1e-5, (method, k, i, off(*pair))
                shown += int(theirs[i].max() > 0)
        assert shown > 0 or method.startswith("eigen"), method  # there is something to compare


def test_tokens_are_read_behind_their_prefix_and_others_refused() -> None:
    tokens = torch.arange(2 * 7 * 3.0).reshape(2, 7, 3)
    maps = as_maps(tokens, grid_hw=(2, 3))
    assert maps.shape == (2, 3, 2, 3)
    assert maps[0, 0].tolist() == [[3, 6, 9], [12, 15, 18]]  # token 0 is the prefix
    with pytest.raises(
        ConfigError, match=r"expected a module that gives maps .*tokens of the grid 3×3, got \(2, 7, 3\)"
    ):
        as_maps(tokens, grid_hw=(3, 3))
    with pytest.raises(ConfigError, match=r"got \(2, 7, 3\); take another layer"):
        as_maps(tokens)


def test_the_peer_gives_no_maps_for_images_beyond_its_targets() -> None:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    from tests.camgen.referee import unscaled

    model, images = Averaged("test_resnet", 2), torch.rand(3, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    ours: Any = our_maps(model, images, ["layercam"], 2, "stage2")["layercam"]
    module = layer_module(model.backbone, "stage2")
    with unscaled() as peer, peer.LayerCAM(model=model, target_layers=[module]) as engine:
        theirs = engine(images, [ClassifierOutputTarget(0)])
    assert theirs.shape[0] == 3
    assert theirs[0].max() > 0
    assert theirs[1:].max() == 0  # one target for three images: nothing is said, and two maps are empty
    assert (ours[:, 0].amax((1, 2)) > 0).all()
