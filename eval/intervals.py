"""Intervals by bootstrap over patients, and paired comparisons that may end in a tie.

Images of one patient resemble each other, so whole patients are drawn with replacement, as many as there are. A
draw is a multiplicity for every image; a statistic is whatever turns multiplicities into a number. Two methods
are compared on the same draws: what makes a draw hard for one makes it hard for the other, and cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from weakray.detections import IntArray
from weakray.errors import DataError

Float64Array = npt.NDArray[np.float64]
Statistic = Callable[[Float64Array], float]  # (n_images,) multiplicities → number, NaN where it is undefined
Kind = Literal["difference", "ratio"]

PERCENTILES = (2.5, 97.5)
_DRAWS_AT_ONCE = 128


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % percentile interval.

    Attributes:
        value: the figure on the images as they are.
        low: 2.5th percentile of the draws.
        high: 97.5th percentile of the draws.
        undefined: draws on which the figure was undefined (e.g. no positive drawn); they are left out.
    """

    value: float
    low: float
    high: float
    undefined: int = 0

    def to_dict(self) -> dict[str, float]:
        """The form of `summary.json`.

        Raises:
            DataError: if the figure or its interval is undefined, for JSON has no NaN.
        """
        if not np.isfinite([self.value, self.low, self.high]).all():
            raise DataError(
                f"a figure ({self.value}) is undefined on all {self.undefined} bootstrap draws; "
                "take more draws, or score more patients"
            )
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Comparison:
    """One method against another on the same draws.

    Attributes:
        kind: first - second, or first / second.
        interval: of the difference or ratio.
    """

    kind: Kind
    interval: Interval

    @property
    def tie(self) -> bool:
        """Whether the interval holds what equal methods give: 0 for a difference, 1 for a ratio."""
        equal = 0.0 if self.kind == "difference" else 1.0
        return self.interval.low <= equal <= self.interval.high


@dataclass(frozen=True, eq=False)
class PatientDraws:
    """Bootstrap draws of patients; the same seed and patients give the same draws, whatever is computed on them.

    Attributes:
        patient: `(n_images,)` number of each image's patient, 0…n_patients - 1.
        n_patients: how many there are.
        n_draws: number of draws.
        seed: of the random numbers.
    """

    patient: IntArray
    n_patients: int
    n_draws: int = 1000
    seed: int = 0

    @classmethod
    def of(
        cls, image_ids: Sequence[str], patient_of: Mapping[str, str], n_draws: int = 1000, seed: int = 0
    ) -> PatientDraws:
        """Draws for images whose patients `patient_of` names.

        Raises:
            DataError: if an image has no patient, or there is no image.
            ValueError: if `n_draws` < 1.
        """
        if n_draws < 1:
            raise ValueError(f"n_draws: expected at least 1, got {n_draws}")
        if not image_ids:
            raise DataError("expected at least one image to draw patients from, got none")
        orphans = [image_id for image_id in image_ids if image_id not in patient_of]
        if orphans:
            raise DataError(
                f"{len(orphans)} images have no patient, e.g. {orphans[0]!r}; add them to the image → patient mapping"
            )
        number: dict[str, int] = {}
        patient = [number.setdefault(patient_of[image_id], len(number)) for image_id in image_ids]
        return cls(np.array(patient, dtype=np.int64), len(number), n_draws, seed)

    def chunks(self) -> Iterator[Float64Array]:
        """Multiplicities of the images, `(≤ 128, n_images)` at a time, `n_draws` rows in all."""
        rng = np.random.default_rng(self.seed)
        chance = np.full(self.n_patients, 1 / self.n_patients)
        for start in range(0, self.n_draws, _DRAWS_AT_ONCE):
            drawn = rng.multinomial(self.n_patients, chance, size=min(_DRAWS_AT_ONCE, self.n_draws - start))
            yield drawn[:, self.patient].astype(np.float64)

    def values(self, statistic: Statistic) -> Float64Array:
        """The statistic on every draw `(n_draws,)`."""
        return np.array([statistic(weights) for chunk in self.chunks() for weights in chunk], dtype=np.float64)


def bootstrap(statistic: Statistic, draws: PatientDraws) -> Interval:
    """A statistic with its interval."""
    return interval_of(statistic(np.ones(len(draws.patient))), draws.values(statistic))


def compare(first: Statistic, second: Statistic, draws: PatientDraws, kind: Kind = "difference") -> Comparison:
    """Two statistics of the same images, on the same draws."""
    once = np.ones(len(draws.patient))
    return comparison_of(first(once), draws.values(first), second(once), draws.values(second), kind)


def interval_of(value: float, drawn: npt.ArrayLike) -> Interval:
    """The interval of a figure whose draws `(n_draws,)` are known; where none is defined, low and high are NaN."""
    values = np.asarray(drawn, dtype=np.float64)
    defined = values[np.isfinite(values)]
    undefined = len(values) - len(defined)
    if len(defined) == 0:
        return Interval(float(value), float("nan"), float("nan"), undefined)
    low, high = np.percentile(defined, PERCENTILES)
    return Interval(float(value), float(low), float(high), undefined)


def comparison_of(
    first: float, first_drawn: npt.ArrayLike, second: float, second_drawn: npt.ArrayLike, kind: Kind = "difference"
) -> Comparison:
    """The comparison of two figures whose draws, the same ones, are known.

    A ratio with a divisor of 0 is undefined: NaN as the value, left out and counted among the draws.
    """
    a, b = (
        np.append(np.asarray(drawn, np.float64), value)
        for value, drawn in ((first, first_drawn), (second, second_drawn))
    )
    both = a - b if kind == "difference" else np.divide(a, b, out=np.full_like(a, np.nan), where=b != 0)
    return Comparison(kind, interval_of(float(both[-1]), both[:-1]))
