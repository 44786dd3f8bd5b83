"""One fine map from the maps of several layers: coarse ones know what, fine ones know where.

In the spirit of Poly-CAM (Englebert et al., "Poly-CAM: High resolution class activation map for convolutional neural
networks", 2022), which multiplies its way up the stages; here the layers' LayerCAM maps are joined at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def fuse(maps: Sequence[Tensor]) -> Tensor:
    """Geometric mean of the maps, each over its peak and on the finest grid, times the last map's peak.

    The product keeps what all layers point at, its root keeps fractions of the peak what they were in one map, and the
    last layer's peak keeps images comparable. An early map without a value > 0 says nothing and is left out.

    Args:
        maps: one finding's maps `(n, h, w)`, >= 0, finest first, the last layer's last.

    Returns:
        `(n, h, w)` on the first one's grid, >= 0; empty where the last layer's map is.
    """
    size_hw = maps[0].shape[1:]
    product, counted = torch.ones_like(maps[0]), torch.zeros_like(maps[0][:, :1, :1])
    for one in maps:
        peak = one.amax((1, 2), keepdim=True)
        own = functional.interpolate(one[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]
        speaks = peak > 0
        product = product * torch.where(speaks, own / torch.where(speaks, peak, 1), 1)
        counted = counted + speaks
    return peak * product ** (1 / counted.clamp(min=1))
