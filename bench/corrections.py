"""Ways to learn on *tune* how boxes of maps become the boxes that radiologists draw, behind one interface.

A way takes the matched pairs of all findings and gives corrections, what does least first; `chosen` picks one a
finding, by the rule of the search: best held-out criterion, patients kept apart, and boxes stay where held-out IoU does
not rise by more than its standard error. A way may learn from all findings at once, so all must share their folds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
import numpy.typing as npt

from camgen.calibration import (
    PLAIN,
    STRENGTHS,
    Pairs,
    corrected,
    features_of,
    fit,
    from_centre_log,
    matched_pairs,
    to_centre_log,
)
from camgen.components import Components
from camgen.tuning import TuneFinding, borrow, first_near_best, judge_boxes

Array = npt.NDArray[np.float64]
Correct = Callable[[int, Components], Array]  # a finding's number and its boxes → boxes `(n, p, 4)`
Way = Callable[[Sequence[Pairs]], list[Correct]]
SHARED: tuple[tuple[float, float], ...] = tuple(product((300.0, 100.0, 30.0, 10.0, 3.0), (10.0, 3.0, 1.0)))
ROUNDS = (10, 30, 100)  # of boosting
_SHIFT_PENALTY, _OWN_PENALTY = 0.02, 0.1  # as in `camgen.calibration`
_REACH = 3.0
_LEAF = 3  # pairs in a leaf at least


def identity(_: Sequence[Pairs]) -> list[Correct]:
    """Boxes as the maps give them: there is nothing to choose."""
    return []


def ridge(pairs: Sequence[Pairs]) -> list[Correct]:
    """A ridge regression a finding, as `camgen search` fits it, at each strength."""

    def at(strength: float) -> Correct:
        fitted = [fit(own, strength) for own in pairs]
        return lambda k, found: corrected(fitted[k], found.boxes_rel, features_of(found))

    return [at(strength) for strength in STRENGTHS[1:]]


def affine(pairs: Sequence[Pairs]) -> list[Correct]:
    """Scale and shift a finding and coordinate of (cx, cy, log w, log h), by least squares.

    Without spread in a coordinate it is shifted alone; without a pair boxes stay.
    """
    scale, shift = np.ones((len(pairs), 4)), np.zeros((len(pairs), 4))
    for k, own in enumerate(pairs):
        if len(own.image) == 0:
            continue
        seen = own.features[:, :4]
        apart, wanted = seen - seen.mean(axis=0), own.target - own.target.mean(axis=0)
        spread = (apart**2).sum(axis=0)
        np.divide((apart * wanted).sum(axis=0), spread, out=scale[k], where=spread > 1e-9)
        shift[k] = own.target.mean(axis=0) - scale[k] * seen.mean(axis=0)
    return [lambda k, found: from_centre_log(to_centre_log(found.boxes_rel) * scale[k] + shift[k])]


def shared(pairs: Sequence[Pairs]) -> list[Correct]:
    """One ridge regression over all findings, and each finding's deviations, which pay more: `SHARED`.

    A finding's weights are those of all plus its own; both are drawn to 0, its own by so many times the strength. With
    few pairs a finding thus takes what the others learnt, with many its own.
    """
    names, sizes = pairs[0].names, [len(own.image) for own in pairs]
    features, target = (np.concatenate([getattr(own, part) for own in pairs]) for part in ("features", "target"))
    if len(features) == 0:
        return [lambda _, found: found.boxes_rel for _ in SHARED]
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)

    def standard(values: Array) -> Array:
        return np.concatenate(
            [np.ones((*values.shape[:-1], 1)), np.clip((values - centre) / spread, -_REACH, _REACH)], axis=-1
        )

    z, residual = standard(features), target - features[:, :4]
    width = z.shape[1]
    design = np.zeros((len(z), (len(pairs) + 1) * width))
    design[:, :width] = z
    for k, (end, size) in enumerate(zip(np.cumsum(sizes), sizes, strict=True)):
        design[end - size : end, (k + 1) * width : (k + 2) * width] = z[end - size : end]
    gram, right = design.T @ design, design.T @ residual

    def at(strength: float, dearer: float) -> Correct:
        weights = np.zeros((len(pairs), width, 4))
        for t in range(4):
            penalty = np.ones(width)
            penalty[0], penalty[1 + t] = _SHIFT_PENALTY, _OWN_PENALTY
            whole = strength * np.concatenate([penalty, np.tile(dearer * penalty, len(pairs))])
            solved = np.linalg.solve(gram + np.diag(whole), right[:, t]).reshape(-1, width)
            weights[:, :, t] = solved[0] + solved[1:]

        def correct(k: int, found: Components) -> Array:
            moved = standard(features_of(found, names)) @ weights[k]
            return from_centre_log(to_centre_log(found.boxes_rel) + moved)

        return correct

    return [at(strength, dearer) for strength, dearer in SHARED]


def boosting(pairs: Sequence[Pairs]) -> list[Correct]:
    """Gradient-boosted trees of two levels a finding and coordinate, on what the box lacks, after so many `ROUNDS`."""
    from sklearn.ensemble import GradientBoostingRegressor

    def grown(own: Pairs, t: int) -> Any:
        if len(own.image) < 2 * _LEAF:
            return None
        model = GradientBoostingRegressor(
            n_estimators=max(ROUNDS), max_depth=2, learning_rate=0.1, min_samples_leaf=_LEAF, random_state=0
        )
        return model.fit(own.features, own.target[:, t] - own.features[:, t])

    models = [[grown(own, t) for t in range(4)] for own in pairs]

    def after(rounds: int) -> Correct:
        def correct(k: int, found: Components) -> Array:
            if models[k][0] is None or found.boxes_rel.size == 0:
                return found.boxes_rel
            features = features_of(found, pairs[k].names)
            flat = features.reshape(-1, features.shape[-1])
            moved = [next(islice(model.staged_predict(flat), rounds - 1, None)) for model in models[k]]
            lead = features.shape[:-1]
            return from_centre_log(features[..., :4] + np.stack(moved, axis=-1).reshape(*lead, 4))

        return correct

    return [after(rounds) for rounds in ROUNDS]


WAYS: dict[str, Way] = {
    "identity": identity,
    "ridge": ridge,
    "affine": affine,
    "shared": shared,
    "boosting": boosting,
}


@dataclass(frozen=True)
class Chosen:
    """What was chosen of a way on *tune*.

    Attributes:
        corrections: of each finding; None leaves its boxes as they are.
        at: of each finding, which of the way's corrections, from 1; 0 is none.
        criterion: held-out, the mean over findings with boxes.
        ap50: the same, in [0, 1].
    """

    corrections: list[Correct | None]
    at: list[int]
    criterion: float
    ap50: float

    def boxes(self, found: Sequence[Components]) -> list[Array]:
        """Corrected boxes `(n, p, 4)` of each finding."""
        return [
            own.boxes_rel if correct is None else correct(k, own)
            for k, (correct, own) in enumerate(zip(self.corrections, found, strict=True))
        ]


def chosen(
    way: Way,
    found: Sequence[Components],
    probability: Sequence[Array],
    findings: Sequence[TuneFinding],
    min_boxes: int,
    names: tuple[str, ...] = PLAIN,
) -> Chosen:
    """Fits a way, and picks a correction a finding, by patient-wise cross-validation.

    Args:
        way: what to fit.
        found: each finding's boxes on *tune*, as the maps give them.
        probability: each finding's `(n,)`, what scores them.
        findings: truth and folds; a patient's fold is the same for all findings.
        min_boxes: findings with fewer true boxes keep their boxes.
        names: features to look at.
    """
    pairs = [matched_pairs(own, finding.truth, names) for own, finding in zip(found, findings, strict=True)]
    final = way(pairs)
    boxes = [np.repeat(own.boxes_rel[None, None], 1 + len(final), axis=1) for own in found]
    for fold in sorted({int(fold) for finding in findings for fold in finding.fold_of}):
        seen = [_apart(own, finding, fold) for own, finding in zip(pairs, findings, strict=True)]
        for s, correct in enumerate(way(seen), 1):
            for k, finding in enumerate(findings):
                here = finding.fold_of == fold
                if seen[k].image.size:  # without a pair to fit on, boxes stay, as in the search
                    boxes[k][0, s, here] = correct(k, found[k].rows(here))
    criterion, ap50 = (np.zeros((len(findings), 1 + len(final))) for _ in range(2))
    allowed = np.zeros(criterion.shape, bool)
    allowed[:, 0] = True
    for k, finding in enumerate(findings):
        if finding.truth.count:
            judged = judge_boxes(found[k].with_options, boxes[k], probability[k], finding, gate=0)
            criterion[k], ap50[k] = judged.criterion[0], judged.ap50[0]
            allowed[k] = judged.trusted[0] if finding.truth.count >= min_boxes else allowed[k]
    counts = np.array([finding.truth.count for finding in findings])
    steadied = np.where(allowed, borrow(criterion, counts), -np.inf)
    at = [first_near_best(own) for own in steadied]
    boxed = np.flatnonzero(counts)
    mean = [float(np.mean([table[k, at[k]] for k in boxed])) if len(boxed) else 0.0 for table in (criterion, ap50)]
    return Chosen([final[s - 1] if s else None for s in at], at, *mean)


def _apart(pairs: Pairs, finding: TuneFinding, fold: int) -> Pairs:
    """The pairs of the other folds."""
    seen = finding.fold_of[pairs.image] != fold
    return Pairs(pairs.features[seen], pairs.target[seen], pairs.image[seen], pairs.names)
