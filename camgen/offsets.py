"""Where the cells of a map really look: the centre of what they see, measured once a member and layer.

A map is laid over the image cell by cell, as if each cell looked at its own part of the square. Strided convolutions of
odd kernels look a little up and left of it, and the pooling that pads one side alone, in dilated ResNets, half a cell
down and right: together up to a cell.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from camgen.layers import LAST, as_maps, frozen, layer_module, stage_channels, tapped
from camgen.maps import OWN_GRID, MapName
from classify.ensemble import Ensemble
from weakray.config import StrictModel

DRAWS = 8  # of noise images and directions
_LEAST = 0.1  # of a cell: less is the measurement's own error
_DIGITS = 4


class LayerOffset(StrictModel):
    """How far the cells of a member's layer look from the places that they are laid over."""

    member: int = Field(..., ge=0, description="member of the ensemble")
    layer: str = Field(..., description="layer that the map is taken from")
    down: float = Field(..., description="so far below, as a fraction of the square's side")
    right: float = Field(..., description="so far to the right, likewise")


Offsets = dict[tuple[int, str], tuple[float, float]]  # member and layer → down and right


def measure_all(ensemble: Ensemble, wanted: Iterable[MapName]) -> Offsets:
    """The offsets of the layers of the maps, those of a tenth of a cell or more."""
    layers = sorted({(name.member, name.layer) for name in wanted if name.method not in OWN_GRID})
    found: Offsets = {}
    for i, member in enumerate(ensemble.members):
        size_px = member.input.size_px
        shape = (member.input.channels, size_px, size_px)
        own = [layer for m, layer in layers if m == i]
        measured = measure(member.model, own, shape)
        found |= {(i, layer): offset for layer, offset in measured.items() if offset != (0.0, 0.0)}
    return found


def measure(
    model: Any, layers: Collection[str], shape: tuple[int, int, int], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Layer → how far down and right of its own place a cell looks, as fractions of the input's height and width.

    What a cell sees is the size of the gradient of its activations, in a random direction, by the input, on noise; the
    offset is its centre of mass less the cell's centre. It is measured at the cells around the middle, so that what
    lies beyond the border, and what looks everywhere alike, draws to no side. Less than a tenth of a cell is 0.

    Args:
        model: with `features` and `backbone`, in eval mode, on one device.
        layers: `last`, stages or modules' paths.
        shape: channels, height and width of the input.
        seed: of noise and directions.
    """
    sums: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    device = next(iter(model.parameters())).device
    modules = {layer: layer_module(model.backbone, layer) for layer in layers if layer != LAST}
    channels = stage_channels(model.backbone) if modules else set()
    for _ in range(DRAWS if layers else 0):
        noise = torch.rand(1, *shape, generator=generator).to(device).expand(4, -1, -1, -1)
        with frozen(model), torch.enable_grad(), tapped(modules, leaf=False) as kept:
            images = noise.clone().requires_grad_(True)
            features = model.features(images)
            grid = (features.shape[2], features.shape[3])
            outs = {layer: features if layer == LAST else as_maps(kept[layer], channels, grid) for layer in layers}
            for layer, maps in outs.items():
                direction = torch.randn(maps.shape[1], generator=generator).to(maps)
                rows, columns = (((n - 1) // 2, n // 2) for n in maps.shape[2:])
                cells = [(row, column) for row in rows for column in columns]
                picked = torch.stack([maps[i, :, row, column] for i, (row, column) in enumerate(cells)])
                (slope,) = torch.autograd.grad((picked @ direction).sum(), images, retain_graph=True)
                sums[layer].append(_apart(slope.abs().sum(1), cells, maps.shape[2:]))
    found = {}
    for layer, apart in sums.items():
        mean, grid_hw = torch.cat(apart).mean(0), torch.tensor(outs[layer].shape[2:])
        down, right = torch.where((mean * grid_hw).abs() < _LEAST, 0.0, mean).tolist()
        found[layer] = (round(down, _DIGITS), round(right, _DIGITS))
    return found


def _apart(seen: Tensor, cells: list[tuple[int, int]], grid_hw: torch.Size) -> Tensor:
    """How far `(4, 2)` the centre of mass of what each cell sees `(4, h, w)` lies from the cell's own, relative."""
    seen = seen.double().cpu()
    found = []
    for axis, (pixels, places) in enumerate(zip(seen.shape[1:], grid_hw, strict=True)):
        at = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
        mass = seen.sum(2 - axis)
        own = torch.tensor([(cell[axis] + 0.5) / places for cell in cells], dtype=torch.float64)
        found.append((mass @ at) / mass.sum(1) - own)
    return torch.stack(found, 1)
