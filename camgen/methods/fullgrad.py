"""FullGrad: what the input and every bias of the network add to a logit, place by place.

Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", 2019. A network of layers that
are linear piece by piece has logit = Σ x·∂logit/∂x + Σ b·∂logit/∂b, over all places and all biases b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from camgen.layers import as_maps, frozen, grad_of, tapped

STRIDE = 4  # pixels per cell of the map


class Terms(NamedTuple):
    """A finding's terms, signed: of the input `(n, c, s, s)`, and of each bias layer `(n, d, h, w)`."""

    input: Tensor
    biases: list[Tensor]


class BiasLayer(NamedTuple):
    """A layer that adds a bias: the module whose output is its sum, the bias `(d,)`, and the axis of its channels."""

    tap: nn.Module
    bias: Tensor
    axis: int


def full_gradient(model: Any, batch: Tensor, class_ids: Sequence[int], grid_hw: tuple[int, int]) -> dict[int, Tensor]:
    """FullGrad of some findings: Σ|terms| over channels and layers; one forward, and one whole backward a finding.

    Layers of one resolution are added before they are resized, each place's share spread over its area, so that a map
    adds up to the terms' sizes. Nothing is scaled channel by channel: that counts a channel that adds next to
    nothing as much as the strongest.

    Args:
        model: an `nn.Module` with `features` and `head`, in eval mode.
        batch: `(n, c, s, s)`.
        class_ids: of the findings.
        grid_hw: of the last map, by which tokens are laid out.

    Returns:
        `(n, s / 4, s / 4)` by class id, >= 0, in parts of a logit.
    """
    size_hw = (-(-batch.shape[2] // STRIDE), -(-batch.shape[3] // STRIDE))
    found = {}
    for class_id, terms in zip(class_ids, full_terms(model, batch, class_ids, grid_hw), strict=True):
        by_size: dict[torch.Size, Tensor] = {}
        for term in (terms.input, *terms.biases):
            own = term.abs().sum(1)
            by_size[own.shape] = by_size[own.shape] + own if own.shape in by_size else own
        found[class_id] = torch.stack([_spread(own, size_hw) for own in by_size.values()]).sum(0)
    return found


def full_terms(model: Any, batch: Tensor, class_ids: Sequence[int], grid_hw: tuple[int, int]) -> Iterator[Terms]:
    """Each finding's terms in turn; biases without a place, of the head or of squeezed maps, are left out."""
    layers = bias_layers(model)
    with frozen(model):
        with torch.enable_grad(), tapped({path: layer.tap for path, layer in layers.items()}, leaf=False) as kept:
            images = batch.detach().requires_grad_(True)
            features = model.features(images)
        with torch.enable_grad():
            logits = model.head(features).logits
        used = {path: out for path, out in kept.items() if _has_place(out, len(batch), grid_hw)}
        for turn, k in enumerate(class_ids, 1):
            slopes = grad_of(logits[:, k].sum(), {"": images, **used}, keep=turn < len(class_ids))
            biases = [_placed(slopes[path], layers[path], grid_hw) for path in used]
            yield Terms(slopes[""] * batch, biases)


def bias_layers(model: nn.Module) -> dict[str, BiasLayer]:
    """Every layer that adds a bias to maps or tokens, by path.

    A batch norm adds β − μ·γ/√(σ² + ε). A norm that has its activation inside, as timm's may, is tapped before it.
    """
    found: dict[str, BiasLayer] = {}
    for path, module in model.named_modules():
        inside: Any = getattr(module, "drop", None) if hasattr(module, "act") else None
        tap = inside if isinstance(inside, nn.Module) else module
        if isinstance(module, nn.BatchNorm2d):
            if module.running_mean is not None and module.running_var is not None:
                scale = (module.running_var + module.eps).rsqrt()
                scale = scale if module.weight is None else scale * module.weight.detach()
                shift = 0 if module.bias is None else module.bias.detach()
                found[path] = BiasLayer(tap, shift - module.running_mean * scale, 1)
        elif isinstance(module, (nn.Conv2d, nn.Linear, nn.LayerNorm)) and module.bias is not None:
            first = isinstance(module, nn.Conv2d) or type(module).__name__.endswith(
                "2d"
            )  # timm's norms of (n, d, h, w)
            found[path] = BiasLayer(tap, module.bias.detach(), 1 if first else -1)
    return found


def _has_place(out: Tensor, n: int, grid_hw: tuple[int, int]) -> bool:
    """Whether an output lies on the image: maps, or one token a cell of the last map's grid at least."""
    if len(out) != n:
        return False
    cells = grid_hw[0] * grid_hw[1]
    return out.ndim == 4 or (out.ndim == 3 and out.shape[1] >= cells)


def _placed(slope: Tensor, layer: BiasLayer, grid_hw: tuple[int, int]) -> Tensor:
    """The layer's terms `(n, d, h, w)`; those of squeezed maps, one value for the whole image, become zeros."""
    if slope.ndim == 3:
        return as_maps(slope * layer.bias, grid_hw=grid_hw)
    terms = slope.movedim(layer.axis, 1) * layer.bias[:, None, None]
    return terms if tuple(terms.shape[2:]) != (1, 1) else torch.zeros_like(terms)


def _spread(own: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """`(n, h, w)` → `(n, *size_hw)`: bilinear to more places, means to fewer; the sum stays."""
    smaller = own.shape[1] > size_hw[0]
    how: dict[str, Any] = {"mode": "area"} if smaller else {"mode": "bilinear", "align_corners": False}
    places = own.shape[1] * own.shape[2] / (size_hw[0] * size_hw[1])
    return functional.interpolate(own[:, None], size=size_hw, **how)[:, 0] * places
