"""Class activation maps of all findings from one backbone pass, raw: at their layer's own resolution.

Raw means not scaled in each image: scaling destroys comparability between findings, images and members.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from camgen.layers import LAST, as_maps, frozen, grad_of, layer_module, stage_channels, tapped
from camgen.methods.activation import logit, pcam
from camgen.methods.gradient import GradientMethod, gradient_map
from camgen.methods.peer import peer_gradcam
from weakray.errors import DataError
from weakray.imaging import Placement

Method = Literal["pcam", "logit"] | GradientMethod
METHODS: tuple[str, ...] = ("pcam", "logit", *get_args(GradientMethod))
Engine = Literal["ours", "pytorch_grad_cam"]
FROM_HEAD: frozenset[str] = frozenset({"pcam", "logit"})  # stand in the head's output: of the last layer only
UNIT_RANGE: frozenset[str] = frozenset({"pcam", "random"})  # maps whose values lie in [0, 1] and mean the same anywhere
MapArray = npt.NDArray[np.float32]


class MapName(NamedTuple):
    """One map of each image: whose, how made, where taken, of which finding."""

    member: int
    method: str
    layer: str
    class_id: int


class Mappable(Protocol):
    """What a map needs of a classifier; maps of layers other than the last need its `backbone` too."""

    def features(self, x: Tensor) -> Tensor:
        """Images `(n, c, s, s)` → features `(n, d, h, w)`."""

    @property
    def head(self) -> Any:
        """Features → an object with `logits` `(n, k)` and `logit_maps` `(n, k, h, w)`."""


@dataclass(frozen=True)
class RawMaps:
    """What one backbone pass gives: maps `(n, h, w)` by name, and the logits `(n, k)`."""

    maps: dict[MapName, Tensor]
    logits: Tensor


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
    """

    image_ids: list[str]
    placements: list[Placement]
    maps: dict[MapName, MapArray]
    probabilities: npt.NDArray[np.float64]
    member_probabilities: npt.NDArray[np.float64]
    grid_hw: tuple[int, int]

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
        )

    def mean(self, members: Sequence[int], method: str, layer: str, class_id: int) -> MapArray:
        """One finding's raw map `(n, h, w)`, averaged over members on the finest one's grid."""
        own = [torch.from_numpy(self.maps[MapName(member, method, layer, class_id)]) for member in members]
        grid = max((tuple(one.shape[1:]) for one in own), key=lambda size: size[0] * size[1])
        mean: MapArray = torch.stack([to_grid(one, grid) for one in own]).mean(0).numpy()
        return mean


def raw_maps(model: Mappable, batch: Tensor, wanted: Collection[MapName], engine: Engine = "ours") -> RawMaps:
    """Maps from one backbone pass.

    Gradients at the last layer pass through the head alone; at an earlier layer through what follows it, once a
    finding.

    Args:
        model: a classifier in eval mode.
        batch: `(n, c, s, s)` in [0, 1], on the model's device.
        wanted: names of the maps; their members are not looked at.
        engine: who computes `gradcam` of the last layer.

    Raises:
        ConfigError: if a layer is not there, or gives no maps.
        DataError: if the model yields NaN or infinity: a map without any value > 0 is a fair answer, a NaN is not.
    """
    early = {name.layer for name in wanted if name.layer != LAST}
    features, layers = _pass(model, batch, early)
    with torch.no_grad():
        out = model.head(features.detach())
    maps: dict[MapName, Tensor] = {}
    by_peer = peer_gradcam(model, features.detach()) if engine != "ours" and _last_gradcam(wanted) else None
    by_class: dict[int, list[MapName]] = {}
    for name in wanted:
        if name.method == "pcam":
            maps[name] = pcam(out.logit_maps[:, name.class_id])
        elif name.method == "logit":
            maps[name] = logit(out.logit_maps[:, name.class_id])
        elif by_peer is not None and (name.method, name.layer) == ("gradcam", LAST):
            maps[name] = by_peer[:, name.class_id]
        else:
            by_class.setdefault(name.class_id, []).append(name)
    maps |= _by_gradient(model, features, layers, by_class)
    for name, found in maps.items():
        if not torch.isfinite(found).all():
            raise DataError(
                f"{name.method} maps: expected finite values, got NaN or infinity; the member's weights are broken"
            )
    return RawMaps(maps, out.logits)


def _pass(model: Mappable, batch: Tensor, early: Collection[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Features, and the outputs of earlier layers; with a graph from the first of these on."""
    if not early:
        with torch.no_grad():
            return model.features(batch), {}
    whole: Any = model
    modules: dict[str, nn.Module] = {layer: layer_module(whole.backbone, layer) for layer in sorted(early)}
    with frozen(whole), torch.enable_grad(), tapped(modules, leaf=True) as kept:
        features = model.features(batch)
    return features, kept


def _by_gradient(
    model: Mappable, features: Tensor, layers: Mapping[str, Tensor], by_class: Mapping[int, Sequence[MapName]]
) -> dict[MapName, Tensor]:
    """Maps of the gradient methods; one backward pass a finding, as far down as it is needed."""
    if not by_class:
        return {}
    whole: Any = model
    channels = stage_channels(whole.backbone) if layers else set()
    leaf = features if features.requires_grad else features.detach().requires_grad_(True)
    places = {LAST: leaf, **layers}
    found: dict[MapName, Tensor] = {}
    with torch.enable_grad():
        logits = model.head(leaf).logits
        for turn, (class_id, names) in enumerate(by_class.items(), 1):
            used = {layer: a for layer, a in places.items() if any(name.layer == layer for name in names)}
            slopes = grad_of(logits[:, class_id].sum(), used, keep=turn < len(by_class))
            for name in names:
                a, g = (as_maps(x.detach(), channels) for x in (used[name.layer], slopes[name.layer]))
                method: Any = name.method
                found[name] = gradient_map(method, a, g)
    return found


def _last_gradcam(wanted: Collection[MapName]) -> bool:
    return any((name.method, name.layer) == ("gradcam", LAST) for name in wanted)


def to_grid(maps: Tensor, size_hw: tuple[int, ...]) -> Tensor:
    """`(n, h, w)` → `(n, *size_hw)`, bilinear, half-pixel centres; the same size comes back unchanged."""
    if tuple(maps.shape[1:]) == size_hw:
        return maps
    return functional.interpolate(maps[:, None], size=size_hw, mode="bilinear", align_corners=False)[:, 0]


def is_empty(maps: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which maps `(..., h, w)` point nowhere: no value > 0, or the same value everywhere."""
    high, low = maps.max(axis=(-2, -1)), maps.min(axis=(-2, -1))
    return np.asarray((high <= 0) | (high == low))
