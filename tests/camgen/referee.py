"""pytorch-grad-cam's maps as they are before it scales them, to hold ours against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from camgen.maps import MapName, raw_maps
from weakray.stack import silence

# our method → the peer's class
GRADIENT_PEERS = {
    "gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "elementwise": "GradCAMElementWise",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
}
PEERS = {**GRADIENT_PEERS, "eigencam": "EigenCAM", "eigengradcam": "EigenGradCAM"}


@contextmanager
def unscaled() -> Iterator[Any]:
    """The peer's package, whose maps stay raw and on their own grid."""
    silence()
    import pytorch_grad_cam
    from pytorch_grad_cam import base_cam

    with mock.patch.object(base_cam, "scale_cam_image", lambda maps, *_: maps):
        yield pytorch_grad_cam


def peer_map(
    kind: str, model: nn.Module, module: nn.Module, images: Tensor, class_id: int, tokens_hw: int | None = None
) -> Tensor:
    """One finding's raw map `(n, h, w)`, one call of the peer as its users make it."""
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def as_grid(out: Tensor) -> Tensor:
        side = tokens_hw or 0
        return out[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))

    reshape = {} if tokens_hw is None else {"reshape_transform": as_grid}
    with unscaled() as peer, getattr(peer, kind)(model=model, target_layers=[module], **reshape) as engine:
        return torch.from_numpy(engine(images, [ClassifierOutputTarget(class_id)] * len(images)))


def our_maps(
    model: Any, images: Tensor, methods: Sequence[str], findings: int, layer: str = "last", **settings: Any
) -> dict[str, Tensor]:
    """Method → `(n, k, h, w)`."""
    wanted = [MapName(0, method, layer, k) for method in methods for k in range(findings)]
    found = raw_maps(model, images, wanted, **settings).maps
    return {
        method: torch.stack([found[MapName(0, method, layer, k)] for k in range(findings)], 1) for method in methods
    }


def off(ours: Tensor, theirs: Tensor, scaled: bool = False) -> float:
    """Largest difference over the largest value, image by image; `scaled` divides both by their peak first."""
    if scaled:
        ours, theirs = (one / one.amax((-2, -1), keepdim=True).clamp(min=1e-30) for one in (ours, theirs))
    high = theirs.abs().amax((-2, -1)).clamp(min=1e-30)
    return float(((ours - theirs).abs().amax((-2, -1)) / high).max())
