"""Class activation maps of all findings from one backbone pass, raw: `(n, k, h, w)` at the features' resolution.

Raw means not scaled in each image: scaling destroys comparability between findings, images and members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from camgen.methods.activation import logit, pcam
from camgen.methods.gradient import gradient_maps
from camgen.methods.peer import peer_gradcam
from weakray.errors import DataError
from weakray.imaging import Placement

Method = Literal["pcam", "logit", "gradcam", "hirescam"]
Engine = Literal["ours", "pytorch_grad_cam"]
UNIT_RANGE: frozenset[str] = frozenset({"pcam", "random"})  # maps whose values lie in [0, 1] and mean the same anywhere
MapArray = npt.NDArray[np.float32]


class Mappable(Protocol):
    """What a map needs of a classifier."""

    def features(self, x: Tensor) -> Tensor:
        """Images `(n, c, s, s)` → features `(n, d, h, w)`."""

    @property
    def head(self) -> Any:
        """Features → an object with `logits` `(n, k)` and `logit_maps` `(n, k, h, w)`."""


@dataclass(frozen=True)
class RawMaps:
    """What one backbone pass gives: method → `(n, k, h, w)`, and the logits `(n, k)`."""

    maps: dict[str, Tensor]
    logits: Tensor


@dataclass(frozen=True)
class MapSet:
    """Maps of some images by all members of an ensemble, on one grid.

    Attributes:
        image_ids: n ids.
        placements: where each image lies in the letterboxed square that the maps cover.
        maps: method → `(m, n, k, h, w)` float32.
        probabilities: `(n, k)`, the ensemble's, calibrated, in [0, 1].
        member_probabilities: `(m, n, k)`, each member's own.
        grid_hw: height and width of the maps.
    """

    image_ids: list[str]
    placements: list[Placement]
    maps: dict[str, MapArray]
    probabilities: npt.NDArray[np.float64]
    member_probabilities: npt.NDArray[np.float64]
    grid_hw: tuple[int, int]

    @classmethod
    def concat(cls, parts: Sequence[MapSet]) -> MapSet:
        """The images of all `parts`, in order."""
        return cls(
            [image_id for part in parts for image_id in part.image_ids],
            [placement for part in parts for placement in part.placements],
            {method: np.concatenate([part.maps[method] for part in parts], axis=1) for method in parts[0].maps},
            np.concatenate([part.probabilities for part in parts]),
            np.concatenate([part.member_probabilities for part in parts], axis=1),
            parts[0].grid_hw,
        )


def raw_maps(model: Mappable, batch: Tensor, methods: Sequence[str], engine: Engine = "ours") -> RawMaps:
    """Maps of all findings by several methods from one backbone pass.

    Args:
        model: a classifier in eval mode.
        batch: `(n, c, s, s)` in [0, 1], on the model's device.
        methods: among `Method`.
        engine: who computes `gradcam`.

    Raises:
        DataError: if the model yields NaN or infinity: a map without any value > 0 is a fair answer, a NaN is not.
    """
    with torch.no_grad():
        features = model.features(batch)
        out = model.head(features)
    maps: dict[str, Tensor] = {}
    if "pcam" in methods:
        maps["pcam"] = pcam(out.logit_maps)
    if "logit" in methods:
        maps["logit"] = logit(out.logit_maps)
    by_gradient = [m for m in methods if m == "hirescam" or (m == "gradcam" and engine == "ours")]
    if by_gradient:
        maps |= gradient_maps(lambda a: model.head(a).logits, features, by_gradient)
    if "gradcam" in methods and engine == "pytorch_grad_cam":
        maps["gradcam"] = peer_gradcam(model, features)
    for method, found in maps.items():
        if not torch.isfinite(found).all():
            raise DataError(
                f"{method} maps: expected finite values, got NaN or infinity; the member's weights are broken"
            )
    return RawMaps(maps, out.logits)


def to_grid(maps: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """`(n, k, h, w)` → `(n, k, *size_hw)`, bilinear, half-pixel centres; the same size comes back unchanged."""
    if tuple(maps.shape[2:]) == size_hw:
        return maps
    return functional.interpolate(maps, size=size_hw, mode="bilinear", align_corners=False)


def is_empty(maps: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which maps `(..., h, w)` point nowhere: no value > 0, or the same value everywhere."""
    high, low = maps.max(axis=(-2, -1)), maps.min(axis=(-2, -1))
    return np.asarray((high <= 0) | (high == low))
