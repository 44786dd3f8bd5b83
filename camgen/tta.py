"""Test-time averaging: maps of an image as it is, mirrored, and at other sizes, on the plain grid."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from camgen.maps import PER_PLACE, MapName, Mappable, RawMaps, Views, raw_maps, to_grid
from weakray.errors import ConfigError


class View(NamedTuple):
    """A way to look at an image: mirrored left to right or not, and its side as a multiple of the plain one's."""

    flip: bool = False
    scale: float = 1.0


PLAIN = View()
_SMALL, _LARGE = View(scale=2 / 3), View(scale=4 / 3)
VIEWS: dict[Views | None, tuple[View, ...]] = {
    None: (PLAIN,),
    "flip": (PLAIN, View(flip=True)),
    "scales": (PLAIN, _SMALL, _LARGE),
    "flip_scales": tuple(View(flip, scale) for scale in (1.0, _SMALL.scale, _LARGE.scale) for flip in (False, True)),
}
_MULTIPLE = 32  # sides of scaled images, in pixels: no backbone halves more than five times


def averaged_maps(model: Mappable, batch: Tensor, wanted: Collection[MapName], **settings: Any) -> RawMaps:
    """`raw_maps`, each averaged over its views; mirrored maps are turned back, scaled ones resized to the plain grid.

    Views of one scale go through the network as one batch where the same maps are wanted of them. Where a map's values
    are shares of a logit, which shrink as places become more, they are put on the plain grid's scale first. Logits stay
    those of the plain image: what calibrates them saw no others.

    Args:
        model: as `raw_maps` wants it; other scales than 1 need one that takes any size.
        batch: `(n, c, s, s)`.
        wanted: names of the maps.
        settings: further arguments of `raw_maps`.

    Raises:
        ConfigError: if the model does not take an image of another size.
    """
    passes: dict[tuple[float, tuple[MapName, ...]], list[bool]] = {(1.0, tuple(wanted)): [False]}
    for view in dict.fromkeys(view for name in wanted for view in VIEWS[name.views] if view != PLAIN):
        own = tuple(name for name in wanted if view in VIEWS[name.views])
        passes.setdefault((view.scale, own), []).append(view.flip)
    grids: dict[MapName, tuple[int, int]] = {}
    sums: dict[MapName, Tensor] = {}
    logits, flat = torch.zeros(()), 0
    for (scale, own), flips in passes.items():
        images = batch if scale == 1 else _resized(batch, scale)
        both = torch.cat([images.flip(3) if flip else images for flip in flips])
        found = raw_maps(model, both, own, **settings) if scale == 1 else _of_other_size(model, both, own, settings)
        if PLAIN in (View(flip, scale) for flip in flips):
            logits = found.logits[: len(batch)]  # the plain view comes first
        flat += found.flat_channels
        for name, maps in found.maps.items():
            grid = grids.setdefault(name, (maps.shape[1], maps.shape[2]))
            places = maps.shape[1] * maps.shape[2] / (grid[0] * grid[1]) if name.method in PER_PLACE else 1
            turned = [part.flip(2) if flip else part for part, flip in zip(maps.chunk(len(flips)), flips, strict=True)]
            total = to_grid(torch.stack(turned).sum(0), grid) * places
            sums[name] = sums[name] + total if name in sums else total
    return RawMaps({name: total / len(VIEWS[name.views]) for name, total in sums.items()}, logits, flat)


def _of_other_size(model: Mappable, batch: Tensor, wanted: Collection[MapName], settings: dict[str, Any]) -> RawMaps:
    try:
        return raw_maps(model, batch, wanted, **settings)
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:  # a size is refused in any of these ways
        raise ConfigError(
            f"views: a member does not take images of {batch.shape[2]}×{batch.shape[3]} pixels beside its own size "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); leave scales out"
        ) from None


def _resized(batch: Tensor, scale: float) -> Tensor:
    sides = [max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in batch.shape[2:]]
    return functional.interpolate(batch, size=sides, mode="bilinear", align_corners=False, antialias=scale < 1)
