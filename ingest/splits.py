"""A random split by patient that keeps the share of each finding: iterative stratification (Sechidis 2011), greedy.

Only integers are compared and the order comes from SHA-256, so a seed gives the same split on every machine and with
every version of every library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from weakray.dataset import Split
from weakray.errors import DataError
from weakray.files import sha256_bytes


@dataclass(frozen=True)
class Patient:
    """What a split needs to know of a patient.

    Attributes:
        images: how many images count towards a split's size, 1 or more.
        positives: class_id → how many of them are positive.
    """

    images: int
    positives: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PatientSplit:
    """Who went where.

    Attributes:
        of: patient → split.
        short: split → images that it lacks to its size, because patients are not cut. Empty when all sizes are met.
    """

    of: dict[str, Split]
    short: dict[Split, int]


def split_patients(
    patients: Mapping[str, Patient], sizes: Mapping[Split, float], rest: Split, seed: int
) -> PatientSplit:
    """Splits patients.

    The rarest finding first, its patients in random order, each to the split that lacks that finding most; then the
    patients without findings, each to the split that lacks images most. A split never grows past its size: what fits
    nowhere goes to `rest`. At the end, splits that are still short get patients of `rest`, those first that bring
    its findings closest to their share.

    Args:
        patients: patient id → images and positives.
        sizes: split → images it shall hold (int) or its share of all images (float, 0…1), `rest` left out.
        rest: the split that takes all others.
        seed: another seed, another split.

    Raises:
        DataError: if the sizes leave `rest` without an image, or a size is not above 0.
    """
    total = sum(patient.images for patient in patients.values())
    wanted = {split: _images(size, total) for split, size in sizes.items()}
    text = " + ".join(f"{split} {count}" for split, count in wanted.items())
    if min(wanted.values(), default=1) < 1:
        raise DataError(f"splits: expected at least one image in each, got {text} of {total} images; ask for more")
    if sum(wanted.values()) >= total:
        raise DataError(
            f"splits: asked for {text} images, but {total} are there and {rest} needs at least one; ask for fewer"
        )
    wanted[rest] = total - sum(wanted.values())
    order = sorted(patients, key=lambda patient: (sha256_bytes(f"{seed}:{patient}".encode()), patient))
    greedy = _Greedy(patients, order, wanted, rest, total)
    greedy.assign()
    greedy.fill()
    short = {split: count for split, count in greedy.room.items() if split != rest and count > 0}
    return PatientSplit({patient: greedy.of[patient] for patient in sorted(greedy.of)}, short)


def _images(size: float, total: int) -> int:
    return size if isinstance(size, int) else max(1, round(size * total))


class _Greedy:
    """The state of one split in the making. Row i of a table is patient `order[i]`."""

    def __init__(
        self, patients: Mapping[str, Patient], order: list[str], wanted: dict[Split, int], rest: Split, total: int
    ) -> None:
        classes = sorted({class_id for patient in patients.values() for class_id in patient.positives})
        self.order, self.wanted, self.rest, self.total = order, wanted, rest, total
        self.images: npt.NDArray[np.int64] = np.array([patients[p].images for p in order], np.int64)
        self.positives: npt.NDArray[np.int64] = np.array(
            [[patients[p].positives.get(class_id, 0) for class_id in classes] for p in order], np.int64
        ).reshape(len(order), len(classes))
        self.all_positives = self.positives.sum(axis=0)
        self.room = dict(wanted)
        self.has = {split: np.zeros(len(classes), np.int64) for split in wanted}
        self.of: dict[str, Split] = {}

    def lack(self, split: Split) -> npt.NDArray[np.int64]:
        """Positives `(k,)` that a split lacks to its share, times all images (to stay with integers)."""
        return np.asarray(self.all_positives * self.wanted[split] - self.has[split] * self.total)

    def assign(self) -> None:
        """Gives every patient a split."""
        free = np.ones(len(self.order), bool)
        while free.any():
            left = (self.positives * free[:, None]).sum(axis=0)
            if left.any():
                rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
                group = np.flatnonzero(free & (self.positives[:, rarest] > 0))
            else:
                rarest, group = None, np.flatnonzero(free)
            for row in group.tolist():
                self._give(row, self._neediest(row, rarest))
            free[group] = False

    def _neediest(self, row: int, finding: int | None) -> Split:
        open_to = [s for s in self.wanted if s == self.rest or self.room[s] >= self.images[row]]
        if finding is None:
            return max(open_to, key=lambda s: self.room[s] * self.total // self.wanted[s])
        # by what is lacking in proportion to the split's size, so that a small split is not served last
        return max(
            open_to,
            key=lambda s: (int(self.lack(s)[finding]) // self.wanted[s], self.room[s] * self.total // self.wanted[s]),
        )

    def _give(self, row: int, split: Split) -> None:
        self.of[self.order[row]] = split
        self.room[split] -= int(self.images[row])
        self.has[split] += self.positives[row]

    def fill(self) -> None:
        """Moves patients from `rest` into splits that are short, the best fitting first."""
        for split in self.wanted:
            while split != self.rest and self.room[split] > 0:
                rows = np.array([i for i, p in enumerate(self.order) if self.of[p] == self.rest], np.int64)
                rows = rows[self.images[rows] <= self.room[split]]
                if not len(rows):
                    break
                after = np.abs(self.lack(split) - self.positives[rows] * self.total).sum(axis=1)
                row = int(rows[np.argmin(after // self.images[rows])])
                self.room[self.rest] += int(self.images[row])
                self.has[self.rest] -= self.positives[row]
                self._give(row, split)
