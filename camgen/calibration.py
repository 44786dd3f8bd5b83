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
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from camgen.components import SHAPE_NAMES, Components
from camgen.scoring import PaddedTruth, pair_iou
from weakray.config import StrictModel

Array = npt.NDArray[np.float64]
Extra = Literal["contrast", "agreement"]  # features that are looked at where one asks for them
FEATURES: tuple[str, ...] = ("cx", "cy", "log_w", "log_h", *SHAPE_NAMES)
PLAIN: tuple[str, ...] = tuple(name for name in FEATURES if name not in get_args(Extra))
STRENGTHS: tuple[float, ...] = (math.inf, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
_SHIFT_PENALTY, _OWN_PENALTY = 0.02, 0.1  # of the strength; all other weights pay it in full
_REACH = 3.0  # features are cut at so many standard deviations: no extrapolation far from what was fitted
_SMALLEST = 1e-3  # side of the smallest box, relative to the image


class Calibration(StrictModel):
    """A fitted correction, as plain numbers.

    With z = clip((features - centre) / spread, -3, 3), `coefficients[0] + z @ coefficients[1:]` is added to
    (cx, cy, log w, log h).
    """

    features: tuple[str, ...] = Field(PLAIN, description="what it looks at, the box's own coordinates first")
    strength: float = Field(..., gt=0, description="ridge strength that cross-validation chose")
    centre: tuple[float, ...] = Field(..., description="mean of each feature over the matched pairs")
    spread: tuple[float, ...] = Field(..., description="standard deviation of each feature over the matched pairs")
    coefficients: tuple[tuple[float, ...], ...] = Field(..., description="shift, then a row a feature; 4 columns")

    @model_validator(mode="after")
    def _whole(self) -> Calibration:
        names = self.features
        if names[:4] != FEATURES[:4] or len(set(names)) < len(names) or not set(names) <= set(FEATURES):
            raise ValueError(
                f"features: expected {', '.join(FEATURES[:4])} and some of {', '.join(FEATURES[4:])}; "
                f"got {', '.join(names)}"
            )
        rows = (len(self.centre), len(self.spread), len(self.coefficients) - 1)
        if set(rows) != {len(names)}:
            raise ValueError(
                f"expected centre, spread and coefficients of its {len(names)} features, got those of "
                f"{rows[0]}, {rows[1]} and {rows[2]}; search again"
            )
        return self


@dataclass(frozen=True)
class Pairs:
    """Pseudo-boxes with the true box each should have been.

    Attributes:
        features: `(m, f)`, the columns of `names`.
        target: `(m, 4)`, the true box as (cx, cy, log w, log h), relative.
        image: `(m,)`, the row of the image, to keep patients apart.
        names: f of `FEATURES`.
    """

    features: Array
    target: Array
    image: npt.NDArray[np.int64]
    names: tuple[str, ...] = PLAIN


def with_extra(extra: Sequence[Extra]) -> tuple[str, ...]:
    """The plain features, and of the others those asked for."""
    return (*PLAIN, *(name for name in get_args(Extra) if name in extra))


def to_centre_log(boxes_rel: Array) -> Array:
    """Corners `(..., 4)` → (cx, cy, log w, log h)."""
    sides = np.maximum(boxes_rel[..., 2:] - boxes_rel[..., :2], _SMALLEST)
    return np.concatenate([(boxes_rel[..., :2] + boxes_rel[..., 2:]) / 2, np.log(sides)], axis=-1)


def from_centre_log(values: Array) -> Array:
    """Centre and logarithms of the sides `(..., 4)` → corners, cut at the image's border, never without area."""
    half = np.exp(np.clip(values[..., 2:], math.log(_SMALLEST), 0)) / 2
    centre = np.clip(values[..., :2], _SMALLEST, 1 - _SMALLEST)
    return np.clip(np.concatenate([centre - half, centre + half], axis=-1), 0, 1)


def features_of(found: Components, names: tuple[str, ...] = FEATURES) -> Array:
    """`(..., n, p, f)`, the columns of `names`, whose first four are the box's own coordinates."""
    shape = [SHAPE_NAMES.index(name) for name in names[4:]]
    return np.concatenate([to_centre_log(found.boxes_rel), found.shape[..., shape]], axis=-1)


def matched_pairs(found: Components, truth: PaddedTruth, names: tuple[str, ...] = PLAIN) -> Pairs:
    """For each true box the pseudo-box of its image with the highest IoU, else the nearest centre.

    True boxes in images without a pseudo-box have no pair.
    """
    matched = _match(found.with_options, features_of(found, names)[None], truth)
    seen = matched.present[0]
    return Pairs(matched.features[0, seen], matched.target[seen], matched.image[seen], names)


@dataclass(frozen=True)
class _Matched:
    """`Pairs` under o options; `present` `(o, m)` is False for true boxes in images without a pseudo-box."""

    features: Array
    target: Array
    image: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]


def _match(found: Components, features: Array, truth: PaddedTruth) -> _Matched:
    """The pairs of components with an axis of options, whose features are `(o, n, p, f)`."""
    image, place = np.nonzero(truth.valid)
    wanted, boxes, valid = truth.boxes_rel[image, place], found.boxes_rel[:, image], found.valid[:, image]
    overlap = pair_iou(boxes, wanted[:, None])  # (o, m, p)
    apart = (boxes[..., :2] + boxes[..., 2:]) / 2 - ((wanted[:, :2] + wanted[:, 2:]) / 2)[:, None]
    distance = np.sqrt((apart**2).sum(axis=-1))  # at most sqrt(2)
    closeness = np.where(valid, np.where(overlap > 0, 2 + overlap, -distance), -np.inf)
    if boxes.shape[2] == 0:
        return _Matched(np.zeros((len(boxes), 0, features.shape[-1])), wanted[:0], image[:0], valid[:, :0, 0])
    chosen = closeness.argmax(axis=2)[..., None, None]
    own = np.take_along_axis(features[:, image], chosen, axis=2)[:, :, 0]
    return _Matched(own, to_centre_log(wanted), image, np.asarray(valid.any(axis=2)))


def fit(pairs: Pairs, strength: float) -> Calibration | None:
    """Fits the correction; None (the identity) at infinite strength, or without pairs."""
    if not math.isfinite(strength) or len(pairs.image) == 0:
        return None
    seen = np.ones((1, len(pairs.image)), bool)
    centre, spread, weights = _solve(_Matched(pairs.features[None], pairs.target, pairs.image, seen), seen, [strength])
    return Calibration(
        features=pairs.names,
        strength=strength,
        centre=tuple(centre[0].tolist()),
        spread=tuple(spread[0].tolist()),
        coefficients=tuple(tuple(row) for row in weights[0, 0].tolist()),
    )


def _solve(pairs: _Matched, seen: npt.NDArray[np.bool_], strengths: Sequence[float]) -> tuple[Array, Array, Array]:
    """Fits under every option and strength.

    The penalties of the four targets differ in one weight alone, that of a coordinate on itself; so the normal
    equations are solved once, with that weight dear, and mended by the Sherman-Morrison formula.

    Args:
        pairs: of o options.
        seen: `(o, m)`, those to fit on.
        strengths: s finite ones.

    Returns:
        centre and spread of the features `(o, f)`, weights `(o, s, f + 1, 4)`.
    """
    weight = seen[..., None].astype(np.float64)
    number = np.maximum(weight.sum(axis=1), 1)
    centre = (pairs.features * weight).sum(axis=1) / number
    spread = np.sqrt((((pairs.features - centre[:, None]) * weight) ** 2).sum(axis=1) / number)
    spread = np.where(spread > 1e-6, spread, 1.0)
    z = _standard(pairs.features, centre[:, None], spread[:, None])
    design = np.concatenate([np.ones_like(weight), z], axis=2) * weight
    residual = pairs.target - pairs.features[..., :4]
    turned = design.transpose(0, 2, 1)
    gram, right = turned @ design, turned @ residual
    size, own = gram.shape[1], np.arange(4)
    penalty = np.diag(np.array([_SHIFT_PENALTY, *[1.0] * (size - 1)]))
    dear = gram[:, None] + np.asarray(strengths)[:, None, None] * penalty  # (o, s, f + 1, f + 1)
    given = np.concatenate([right, np.broadcast_to(np.eye(size)[:, 1:5], right.shape)], axis=2)
    solved = np.linalg.solve(dear, np.broadcast_to(given[:, None], (*dear.shape[:2], size, 8)))
    plain, unit = solved[..., :4], solved[..., 4:]  # M⁻¹ b and M⁻¹ e of each target
    less = (1 - _OWN_PENALTY) * np.asarray(strengths)[:, None]
    mend = less * plain[..., 1 + own, own] / (1 - less * unit[..., 1 + own, own])
    return centre, spread, plain + unit * mend[..., None, :]


def corrected(calibration: Calibration | None, boxes_rel: Array, features: Array) -> Array:
    """Boxes `(..., 4)` after the correction, from all `FEATURES` `(..., f)`; None leaves them as they are."""
    if calibration is None:
        return boxes_rel
    coefficients = np.asarray(calibration.coefficients)
    own = features[..., [FEATURES.index(name) for name in calibration.features]]
    z = _standard(own, np.asarray(calibration.centre), np.asarray(calibration.spread))
    return from_centre_log(to_centre_log(boxes_rel) + coefficients[0] + z @ coefficients[1:])


def held_out(
    found: Components,
    truth: PaddedTruth,
    fold_of: npt.NDArray[np.int64],
    strengths: Sequence[float],
    names: tuple[str, ...] = PLAIN,
) -> Array:
    """Boxes `(o, s, n, p, 4)`, every image's corrected by a fit that did not see its fold.

    Args:
        found: pseudo-boxes of n images under o options.
        truth: their true boxes.
        fold_of: `(n,)`, the fold of each image; a patient's images share one.
        strengths: s to fit with; infinity leaves boxes as they are.
        names: features to look at.
    """
    boxes = np.repeat(found.boxes_rel[:, None], len(strengths), axis=1)
    finite = np.array([math.isfinite(s) for s in strengths])
    if not finite.any() or truth.count == 0:
        return boxes
    features = features_of(found, names)
    pairs = _match(found, features, truth)
    options, _, places = found.valid.shape
    for fold in np.unique(fold_of):
        seen, here = pairs.present & (fold_of[pairs.image] != fold), np.flatnonzero(fold_of == fold)
        centre, spread, weights = _solve(pairs, seen, [s for s in strengths if math.isfinite(s)])
        z = _standard(features[:, here], centre[:, None, None], spread[:, None, None])
        shift = z.reshape(options, 1, len(here) * places, -1) @ weights[:, :, 1:] + weights[:, :, None, 0]
        moved = features[:, None, here, :, :4] + shift.reshape(options, -1, len(here), places, 4)
        # Without a pair to fit on, boxes stay.
        moved = np.where(
            seen.any(axis=1)[:, None, None, None, None], from_centre_log(moved), boxes[:, finite][:, :, here]
        )
        boxes[np.ix_(np.arange(options), np.flatnonzero(finite), here)] = moved
    return boxes


def _standard(features: Array, centre: Array, spread: Array) -> Array:
    return np.asarray(np.clip((features - centre) / spread, -_REACH, _REACH))
