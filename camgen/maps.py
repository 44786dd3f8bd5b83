"""Class activation maps of all findings from one backbone pass, raw: at their layer's own resolution.

Raw means not scaled in each image: scaling destroys comparability between findings, images and members.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from camgen.layers import (
    LAST,
    as_maps,
    from_stage,
    frozen,
    grad_of,
    is_stage,
    layer_module,
    stage_channels,
    tapped,
)
from camgen.methods.activation import logit, pcam
from camgen.methods.eigen import principal_map
from camgen.methods.factors import concept_map, factorise
from camgen.methods.fullgrad import full_gradient
from camgen.methods.fused import fuse
from camgen.methods.gradient import LINEAR, GradientMethod, signed_map
from camgen.methods.masked import MaskedPasses, ablation_cam, drops_at_head, drops_behind, score_cam
from camgen.methods.peer import peer_gradcam
from camgen.methods.target import Target, Tree, explained_by, slopes
from weakray.errors import ConfigError, DataError
from weakray.imaging import Placement

_Other = Literal[
    "pcam", "logit", "eigencam", "eigengradcam", "scorecam", "ablationcam", "fullgrad", "dff", "layercam-fused"
]
Method = GradientMethod | _Other
METHODS: tuple[str, ...] = (*get_args(GradientMethod), *get_args(_Other))
Engine = Literal["ours", "pytorch_grad_cam"]
Views = Literal["flip", "scales", "flip_scales"]  # what a map is averaged over beside the plain image, see `camgen.tta`
LAST_ONLY: frozenset[str] = frozenset({"pcam", "logit", "fullgrad"})  # of the head's output, or of the whole network
UNIT_RANGE: frozenset[str] = frozenset({"pcam", "random"})  # maps whose values lie in [0, 1] and mean the same anywhere
# Maps whose values are shares of a logit: with the places of the grid doubled, each is half as large.
PER_PLACE: frozenset[str] = frozenset(
    {"gradcam", "hirescam", "elementwise", "xgradcam", "layercam", "eigengradcam", "fullgrad", "dff", "layercam-fused"}
)
OWN_GRID: frozenset[str] = frozenset({"fullgrad", "layercam-fused"})  # maps made of several layers, at none's places
_NO_GRADIENT = frozenset({"eigencam", "scorecam", "ablationcam"})
_Part = tuple[str, str, int]  # method, layer, finding
MapArray = npt.NDArray[np.float32]


class MapName(NamedTuple):
    """One map of each image: whose, how made, where taken, of which finding, what of it is explained, in which views.

    The layer of `layercam-fused` is the finest of the stages that it joins.
    """

    member: int
    method: str
    layer: str
    class_id: int
    target: Target = "logit"
    views: Views | None = None


class Mappable(Protocol):
    """What a map needs of a classifier; maps of layers other than the last need its `backbone` too.

    Images must not mix, and a batch may be of any size.
    """

    def features(self, x: Tensor) -> Tensor:
        """Images `(n, c, s, s)` → features `(n, d, h, w)`."""

    @property
    def head(self) -> Any:
        """Features → an object with `logits` `(n, k)` and `logit_maps` `(n, k, h, w)`."""


@dataclass(frozen=True)
class RawMaps:
    """Maps `(n, h, w)` by name, the logits `(n, k)`, and how many flat channels Score-CAM left out."""

    maps: dict[MapName, Tensor]
    logits: Tensor
    flat_channels: int = 0


@dataclass(frozen=True)
class MapSet:
    """Maps of some images by all members of an ensemble.

    Attributes:
        image_ids: n ids.
        placements: where each image lies in the letterboxed square that the maps cover.
        maps: `(n, h, w)` float32 by name, each at its own resolution.
        probabilities: `(n, k)`, the ensemble's, calibrated, in [0, 1].
        member_probabilities: `(m, n, k)`, each member's own.
        grid_hw: height and width of the finest member's last map.
        flat_channels: how many of the images' and members' channels Score-CAM left out.
        offsets: how far down and right of its own place a cell of a member's layer looks, as fractions of the square's
            side; a layer that is not there looks straight.
    """

    image_ids: list[str]
    placements: list[Placement]
    maps: dict[MapName, MapArray]
    probabilities: npt.NDArray[np.float64]
    member_probabilities: npt.NDArray[np.float64]
    grid_hw: tuple[int, int]
    flat_channels: int = 0
    offsets: Mapping[tuple[int, str], tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def concat(cls, parts: Sequence[MapSet]) -> MapSet:
        """The images of all `parts`, in order."""
        return cls(
            [image_id for part in parts for image_id in part.image_ids],
            [placement for part in parts for placement in part.placements],
            {name: np.concatenate([part.maps[name] for part in parts]) for name in parts[0].maps},
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.member_probabilities for part in parts], axis=1),
            parts[0].grid_hw,
            sum(part.flat_channels for part in parts),
            parts[0].offsets,
        )

    def mean(self, names: Sequence[MapName], resolution: int) -> MapArray:
        """Raw maps averaged: one finding's of several members.

        Args:
            names: whose maps.
            resolution: grid samples along a side at least, of maps whose cells do not look straight: they are moved to
                where they look, and between coarse cells that would blur them.

        Returns:
            `(n, h, w)` on the finest one's grid, or on a whole multiple of it that has the resolution.
        """
        own = [torch.from_numpy(self.maps[name]) for name in names]
        offsets = [self._offset(name) for name in names]
        grid = max((tuple(one.shape[1:]) for one in own), key=lambda size: size[0] * size[1])
        if any(offset != (0.0, 0.0) for offset in offsets):
            finer = max(1, math.ceil(resolution / min(grid)))
            grid = tuple(finer * side for side in grid)
            own = [moved(one, offset, grid) for one, offset in zip(own, offsets, strict=True)]
        mean: MapArray = torch.stack([to_grid(one, grid) for one in own]).mean(0).numpy()
        return mean

    def _offset(self, name: MapName) -> tuple[float, float]:
        return (0.0, 0.0) if name.method in OWN_GRID else self.offsets.get((name.member, name.layer), (0.0, 0.0))


def raw_maps(
    model: Mappable,
    batch: Tensor,
    wanted: Collection[MapName],
    engine: Engine = "ours",
    *,
    tree: Tree | None = None,
    passes: MaskedPasses | None = None,
) -> RawMaps:
    """Maps from one backbone pass; Score-CAM, Ablation-CAM and FullGrad add passes that serve all findings.

    Gradients at the last layer pass through the head alone; at an earlier layer through what follows it, once a
    finding.

    Args:
        model: a classifier in eval mode.
        batch: `(n, c, s, s)` in [0, 1], on the model's device.
        wanted: names of the maps; their members and views are not looked at.
        engine: who computes `gradcam` of the last layer.
        tree: how logits become probabilities, for maps of those; None: each is the sigmoid of its logit.
        passes: memory and precision of the further passes.

    Raises:
        ConfigError: if a layer is not there, or gives no maps, or a method does not go with a layer or a target.
        DataError: if the model yields NaN or infinity: a map without any value > 0 is a fair answer, a NaN is not.
    """
    for name in wanted:
        _check(name)
    seen = _look(model, batch, wanted)
    settings, whole, flat = passes or MaskedPasses(), {}, 0

    def logits_of(images: Tensor) -> Tensor:
        logits: Tensor = model.head(model.features(images)).logits
        return logits

    for method, layer in {(name.method, name.layer): None for name in wanted if name.target == "logit"}:
        if method == "scorecam":
            whole[method, layer], skipped = score_cam(logits_of, batch, seen.maps(layer), settings)
            flat += skipped
        elif (method, layer, engine) == ("gradcam", LAST, "pytorch_grad_cam"):
            whole[method, layer] = peer_gradcam(model, seen.last)
        else:
            found = _whole(model, batch, seen, method, layer, settings)
            if found is not None:
                whole[method, layer] = found
    maps = {
        name: whole[name.method, name.layer][:, name.class_id]
        for name in wanted
        if name.target == "logit" and (name.method, name.layer) in whole
    }
    maps |= _by_gradient(model, seen, [name for name in wanted if name not in maps], tree)
    maps |= _by_full_gradient(model, batch, seen, [name for name in wanted if name.method == "fullgrad"])
    for name, own in maps.items():
        if not torch.isfinite(own).all():
            raise DataError(
                f"{name.method} maps: expected finite values, got NaN or infinity; the member's weights are broken"
            )
    return RawMaps(maps, seen.out.logits, flat)


@dataclass(frozen=True)
class _Seen:
    """What one pass leaves: features, the head's answer to them, outputs of earlier layers, and how to read these."""

    features: Tensor
    out: Any
    outputs: dict[str, Tensor]
    channels: set[int]

    @property
    def last(self) -> Tensor:
        return self.features.detach()

    @property
    def grid_hw(self) -> tuple[int, int]:
        return self.features.shape[2], self.features.shape[3]

    def read(self, out: Tensor) -> Tensor:
        """An earlier layer's output, or its gradient, as maps."""
        return as_maps(out.detach(), self.channels, self.grid_hw)

    def maps(self, layer: str) -> Tensor:
        """Activations `(n, d, h, w)` of a layer."""
        return self.last if layer == LAST else self.read(self.outputs[layer])


def _check(name: MapName) -> None:
    """Refuses what does not go together."""
    if name.method not in METHODS:
        raise ConfigError(f"method: expected one of {', '.join(METHODS)}; got {name.method!r}")
    if name.method in LAST_ONLY and name.layer != LAST:
        raise ConfigError(f"{name.method}: its maps are of layer {LAST} only; got {name.layer!r}")
    if name.target != "logit" and name.method not in LINEAR:
        raise ConfigError(
            f"{name.method}: expected target logit; maps of the {name.target} are sums of logit maps, which "
            f"{', '.join(sorted(LINEAR))} have"
        )


def _look(model: Mappable, batch: Tensor, wanted: Collection[MapName]) -> _Seen:
    """One pass; with a graph from the first earlier layer on whose gradient is wanted."""
    whole: Any = model
    early: dict[str, bool] = {}  # layer → whether its gradient is wanted
    for name in wanted:
        for layer in _layers_of(model, name):
            if layer != LAST:
                early[layer] = early.get(layer, False) or name.method not in _NO_GRADIENT
    channels = stage_channels(whole.backbone) if early else set()
    graph = any(early.values())
    modules: dict[str, nn.Module] = {layer: layer_module(whole.backbone, layer) for layer in sorted(early)}
    with frozen(whole) if graph else nullcontext(), torch.set_grad_enabled(graph), tapped(modules, leaf=graph) as kept:
        features = model.features(batch)
    with torch.no_grad():
        out = model.head(features.detach())
    return _Seen(features, out, kept, channels)


def _layers_of(model: Mappable, name: MapName) -> list[str]:
    """The layers that a map is made of, finest first."""
    whole: Any = model
    return from_stage(whole.backbone, name.layer) if name.method == "layercam-fused" else [name.layer]


def _whole(model: Mappable, batch: Tensor, seen: _Seen, method: str, layer: str, passes: MaskedPasses) -> Tensor | None:
    """Maps `(n, k, h, w)` of the methods that make all findings at once; None for others."""
    match method:
        case "pcam":
            return pcam(seen.out.logit_maps)
        case "logit":
            return logit(seen.out.logit_maps)
        case "eigencam":
            return principal_map(seen.maps(layer))[:, None].expand(-1, seen.out.logits.shape[1], -1, -1)
        case "ablationcam" if layer == LAST:
            drops = drops_at_head(model.head, seen.last, passes)
        case "ablationcam":
            network: Any = model
            drops = drops_behind(
                *(model, batch, layer_module(network.backbone, layer), seen.outputs[layer].detach(), passes),
                channels=seen.channels,
                alone=is_stage(layer),
            )
        case _:
            return None
    return ablation_cam(drops, seen.out.logits, seen.maps(layer))


def _by_gradient(model: Mappable, seen: _Seen, wanted: Sequence[MapName], tree: Tree | None) -> dict[MapName, Tensor]:
    """Maps of the gradient methods; one backward pass a finding, as far down as it is needed.

    Each map is made of parts (method, layer, finding), which maps share.
    """
    findings = tree or Tree.flat(seen.out.logits.shape[1])
    parts: dict[MapName, list[_Part]] = {}
    for name in wanted:
        if name.method == "layercam-fused":
            parts[name] = [("layercam", layer, name.class_id) for layer in _layers_of(model, name)]
        elif name.method != "fullgrad":
            explained = explained_by(name.target, name.class_id, findings)
            parts[name] = [(name.method, name.layer, k) for k in explained]
    made = _parts(model, seen, list(dict.fromkeys(part for own in parts.values() for part in own)))
    maps: dict[MapName, Tensor] = {}
    for name, own in parts.items():
        if name.method == "layercam-fused":
            maps[name] = fuse([made[part].relu() for part in own])
        elif name.target == "logit":
            maps[name] = made[own[0]].relu()
        else:
            slope = slopes(name.target, seen.out.logits, name.class_id, findings)
            maps[name] = torch.stack([slope[:, part[2], None, None] * made[part] for part in own]).sum(0).relu()
    return maps


def _parts(model: Mappable, seen: _Seen, wanted: Collection[_Part]) -> dict[_Part, Tensor]:
    """Maps before their last ReLU."""
    if not wanted:
        return {}
    leaf = seen.features if seen.features.requires_grad else seen.last.requires_grad_(True)
    places = {LAST: leaf, **seen.outputs}
    factors = {layer: factorise(seen.maps(layer)) for method, layer, _ in wanted if method == "dff"}
    found: dict[_Part, Tensor] = {}
    class_ids = sorted({part[2] for part in wanted})
    with torch.enable_grad():
        logits = model.head(leaf).logits
        for turn, class_id in enumerate(class_ids, 1):
            own = [part for part in wanted if part[2] == class_id]
            used = {layer: places[layer] for layer in {part[1]: None for part in own}}
            for layer, slope in grad_of(logits[:, class_id].sum(), used, keep=turn < len(class_ids)).items():
                a, g = seen.maps(layer), slope if layer == LAST else seen.read(slope)
                for method in [part[0] for part in own if part[1] == layer]:
                    found[method, layer, class_id] = _part(method, a, g, factors.get(layer))
    return found


def _part(method: Any, a: Tensor, g: Tensor, factors: tuple[Tensor, Tensor] | None) -> Tensor:
    if method == "eigengradcam":
        return principal_map(g * a)
    return signed_map(method, a, g) if factors is None or method != "dff" else concept_map(factors, g)


def _by_full_gradient(model: Mappable, batch: Tensor, seen: _Seen, wanted: Sequence[MapName]) -> dict[MapName, Tensor]:
    if not wanted:
        return {}
    found = full_gradient(model, batch, sorted({name.class_id for name in wanted}), seen.grid_hw)
    return {name: found[name.class_id] for name in wanted}


def to_grid(maps: Tensor, size_hw: tuple[int, ...]) -> Tensor:
    """`(n, h, w)` → `(n, *size_hw)`, bilinear, half-pixel centres; the same size comes back unchanged."""
    if tuple(maps.shape[1:]) == size_hw:
        return maps
    return functional.interpolate(maps[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]


def moved(maps: Tensor, offset: tuple[float, float], size_hw: tuple[int, ...]) -> Tensor:
    """`(n, h, w)` → `(n, *size_hw)`, bilinear, each cell's value put where the cell looks; borders are carried on.

    Args:
        maps: over a square.
        offset: how far down and right of its own place a cell looks, as fractions of the square's sides.
        size_hw: of the finer grid.
    """
    sides = []
    for cells, samples, shift in zip(maps.shape[1:], size_hw, offset, strict=True):
        at = ((torch.arange(samples, dtype=torch.float64) + 0.5) / samples - shift) * cells - 0.5
        # A sample takes from each cell what its tent leaves at that distance.
        tent = 1 - (at.clamp(0, cells - 1)[:, None] - torch.arange(cells)).abs()
        sides.append(tent.clamp(min=0).to(maps))
    return torch.einsum("yh,nhw,xw->nyx", sides[0], maps, sides[1])


def is_empty(maps: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which maps `(..., h, w)` point nowhere: no value > 0, or the same value everywhere."""
    high, low = maps.max(axis=(-2, -1)), maps.min(axis=(-2, -1))
    return np.asarray((high <= 0) | (high == low))
