"""Box calibration: a classifier looks at the telling part, a radiologist boxes the whole finding.

The difference is systematic in each finding, so a small ridge regression, fitted on *tune*, maps the box that the map
gives to the box that a radiologist draws. It predicts the *correction* of (cx, cy, log w, log h), so that infinite
strength leaves boxes as they are. Penalties differ: a constant shift is nearly free, the weight of a coordinate on
itself is cheap, everything else is dear. As the strength falls the calibration thus goes from the identity to a shift,
to shrinkage towards the mean box (a weight of -1 on itself *is* the mean box), to a full regression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import Field

from camgen.components import SHAPE_NAMES, Components
from camgen.scoring import PaddedTruth, padded_iou
from weakray.config import StrictModel

Array = npt.NDArray[np.float64]
FEATURES: tuple[str, ...] = ("cx", "cy", "log_w", "log_h", *SHAPE_NAMES)
STRENGTHS: tuple[float, ...] = (math.inf, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
_SHIFT_PENALTY, _OWN_PENALTY = 0.02, 0.1  # of the strength; all other weights pay it in full
_REACH = 3.0  # features are cut at so many standard deviations: no extrapolation far from what was fitted
_SMALLEST = 1e-3  # side of the smallest box, relative to the image


class Calibration(StrictModel):
    """A fitted correction, as plain numbers.

    With z = clip((features - centre) / spread, -3, 3), `coefficients[0] + z @ coefficients[1:]` is added to
    (cx, cy, log w, log h).
    """

    strength: float = Field(..., gt=0, description="ridge strength that cross-validation chose")
    centre: tuple[float, ...] = Field(..., description="mean of each feature over the matched pairs")
    spread: tuple[float, ...] = Field(..., description="standard deviation of each feature over the matched pairs")
    coefficients: tuple[tuple[float, ...], ...] = Field(..., description="shift, then a row a feature; 4 columns")


@dataclass(frozen=True)
class Pairs:
    """Pseudo-boxes with the true box each should have been.

    Attributes:
        features: `(m, f)`, see `FEATURES`.
        target: `(m, 4)`, the true box as (cx, cy, log w, log h), relative.
        image: `(m,)`, the row of the image, to keep patients apart.
    """

    features: Array
    target: Array
    image: npt.NDArray[np.int64]


def to_centre_log(boxes_rel: Array) -> Array:
    """Corners `(..., 4)` → (cx, cy, log w, log h)."""
    sides = np.maximum(boxes_rel[..., 2:] - boxes_rel[..., :2], _SMALLEST)
    return np.concatenate([(boxes_rel[..., :2] + boxes_rel[..., 2:]) / 2, np.log(sides)], axis=-1)


def from_centre_log(values: Array) -> Array:
    """Centre and logarithms of the sides `(..., 4)` → corners, cut at the image's border, never without area."""
    half = np.exp(np.clip(values[..., 2:], math.log(_SMALLEST), 0)) / 2
    centre = np.clip(values[..., :2], _SMALLEST, 1 - _SMALLEST)
    return np.clip(np.concatenate([centre - half, centre + half], axis=-1), 0, 1)


def features_of(found: Components) -> Array:
    """`(n, p, f)`, see `FEATURES`."""
    return np.concatenate([to_centre_log(found.boxes_rel), found.shape], axis=-1)


def matched_pairs(found: Components, truth: PaddedTruth) -> Pairs:
    """For each true box the pseudo-box of its image with the highest IoU, else the nearest centre.

    True boxes in images without a pseudo-box have no pair.
    """
    overlap = padded_iou(found.boxes_rel, truth.boxes_rel)
    centres = (found.boxes_rel[..., :2] + found.boxes_rel[..., 2:]) / 2
    wanted = (truth.boxes_rel[..., :2] + truth.boxes_rel[..., 2:]) / 2
    distance = np.linalg.norm(centres[:, :, None] - wanted[:, None], axis=-1)  # at most sqrt(2)
    closeness = np.where(found.valid[:, :, None], np.where(overlap > 0, 2 + overlap, -distance), -np.inf)
    image, place = np.nonzero(truth.valid & found.valid.any(axis=1, keepdims=True))
    chosen = closeness[image, :, place].argmax(axis=1) if len(image) else np.zeros(0, np.int64)
    return Pairs(features_of(found)[image, chosen], to_centre_log(truth.boxes_rel[image, place]), image)


def fit(pairs: Pairs, strength: float) -> Calibration | None:
    """Fits the correction; None (the identity) at infinite strength, or without pairs."""
    if not math.isfinite(strength) or len(pairs.image) == 0:
        return None
    centre, spread, (weights,) = _solve(pairs, [strength])
    return Calibration(
        strength=strength,
        centre=tuple(centre.tolist()),
        spread=tuple(spread.tolist()),
        coefficients=tuple(tuple(row) for row in weights.tolist()),
    )


def _solve(pairs: Pairs, strengths: Sequence[float]) -> tuple[Array, Array, Array]:
    """Centre and spread `(f,)` of the features, weights `(len(strengths), f + 1, 4)`. Strengths are finite."""
    centre, spread = pairs.features.mean(axis=0), pairs.features.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    design = np.concatenate([np.ones((len(pairs.image), 1)), _standard(pairs.features, centre, spread)], axis=1)
    residual = pairs.target - pairs.features[:, :4]
    penalty = np.ones((4, design.shape[1]))
    penalty[:, 0] = _SHIFT_PENALTY
    penalty[range(4), range(1, 5)] = _OWN_PENALTY
    left = design.T @ design + np.einsum("s,tf,fg->stfg", np.asarray(strengths), penalty, np.eye(design.shape[1]))
    right = np.broadcast_to((design.T @ residual).T[None, :, :, None], (*left.shape[:3], 1))
    return centre, spread, np.linalg.solve(left, right)[..., 0].transpose(0, 2, 1)


def corrected(calibration: Calibration | None, boxes_rel: Array, features: Array) -> Array:
    """Boxes `(..., 4)` after the correction; None leaves them as they are."""
    if calibration is None:
        return boxes_rel
    coefficients = np.asarray(calibration.coefficients)
    z = _standard(features, np.asarray(calibration.centre), np.asarray(calibration.spread))
    return from_centre_log(to_centre_log(boxes_rel) + coefficients[0] + z @ coefficients[1:])


def held_out(found: Components, pairs: Pairs, fold_of: npt.NDArray[np.int64], strengths: Sequence[float]) -> Array:
    """Boxes `(len(strengths), n, p, 4)`, every image's corrected by a fit that did not see its fold.

    Args:
        found: pseudo-boxes of n images.
        pairs: their matched pairs.
        fold_of: `(n,)`, the fold of each image; a patient's images share one.
        strengths: to fit with; infinity leaves boxes as they are.
    """
    boxes = np.repeat(found.boxes_rel[None], len(strengths), axis=0)
    finite = np.array([math.isfinite(s) for s in strengths])
    if not finite.any():
        return boxes
    features = features_of(found)
    for fold in np.unique(fold_of):
        train, here = fold_of[pairs.image] != fold, fold_of == fold
        if not train.any():
            continue
        seen = Pairs(pairs.features[train], pairs.target[train], pairs.image[train])
        centre, spread, weights = _solve(seen, [s for s in strengths if math.isfinite(s)])
        z = _standard(features[here], centre, spread)
        moved = to_centre_log(found.boxes_rel[here]) + weights[:, None, None, 0]
        moved = moved + np.einsum("npf,sft->snpt", z, weights[:, 1:])
        boxes[np.ix_(finite, here)] = from_centre_log(moved)
    return boxes


def _standard(features: Array, centre: Array, spread: Array) -> Array:
    return np.asarray(np.clip((features - centre) / spread, -_REACH, _REACH))
