"""Test-time averaging: maps and logits of an image as it is, mirrored, and at other sizes, on the plain grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from camgen.maps import PER_PLACE, MapName, Mappable, RawMaps, raw_maps, to_grid
from weakray.errors import ConfigError


class View(NamedTuple):
    """A way to look at an image: mirrored left to right or not, and its side as a multiple of the plain one's."""

    flip: bool = False
    scale: float = 1.0


PLAIN = View()
_MULTIPLE = 32  # sides of scaled images, in pixels: no backbone halves more than five times


def averaged_maps(
    model: Mappable, batch: Tensor, wanted: Collection[MapName], views: Sequence[View], **settings: Any
) -> RawMaps:
    """`raw_maps` averaged over views; mirrored maps are turned back, scaled ones are resized to the plain grid.

    Views of one scale go through the network as one batch. Where a map's values are shares of a logit, which
    shrink as places become more, they are put on the plain grid's scale first.

    Args:
        model: as `raw_maps` wants it; other scales than 1 need one that takes any size.
        batch: `(n, c, s, s)`.
        wanted: names of the maps.
        views: the plain one among them; that one alone gives what `raw_maps` gives.
        settings: further arguments of `raw_maps`.

    Raises:
        ConfigError: if the plain view is missing, or a scale is not above 0.
    """
    if PLAIN not in views or any(view.scale <= 0 for view in views):
        raise ConfigError(f"tta: expected views with scales above 0, the plain {PLAIN} among them; got {list(views)}")
    scales = dict.fromkeys([1.0, *(view.scale for view in views)])
    grids: dict[MapName, tuple[int, int]] = {}
    sums: dict[MapName, Tensor] = {}
    logits, flat = torch.zeros(()), 0
    for scale in scales:
        flips = [view.flip for view in views if view.scale == scale]
        images = batch if scale == 1 else _resized(batch, scale)
        both = torch.cat([images.flip(3) if flip else images for flip in flips])
        found = raw_maps(model, both, wanted, **settings)
        logits = logits.to(found.logits) + torch.stack(found.logits.chunk(len(flips))).sum(0)
        flat += found.flat_channels
        for name, maps in found.maps.items():
            grid = grids.setdefault(name, (maps.shape[1], maps.shape[2]))
            places = maps.shape[1] * maps.shape[2] / (grid[0] * grid[1]) if name.method in PER_PLACE else 1
            turned = [part.flip(2) if flip else part for part, flip in zip(maps.chunk(len(flips)), flips, strict=True)]
            total = to_grid(torch.stack(turned).sum(0), grid) * places
            sums[name] = sums[name] + total if name in sums else total
    return RawMaps({name: total / len(views) for name, total in sums.items()}, logits / len(views), flat)


def _resized(batch: Tensor, scale: float) -> Tensor:
    sides = [max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in batch.shape[2:]]
    return functional.interpolate(batch, size=sides, mode="bilinear", align_corners=False, antialias=scale < 1)
