"""Iterative stratification over patients (Sechidis, Tsoumakas, Vlahavas 2011), with sizes that hold and quotas.

Only integers are compared; ties go to the split named first, so that there is one answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from weakray.dataset import Split

_Row = tuple[int, Mapping[int, int]]  # a patient: images, and class id → how many of them are positive


def stratify(
    rows: Sequence[_Row], wanted: Mapping[Split, int], rest: Split, quotas: Mapping[Split, int]
) -> list[Split]:
    """The split of each patient.

    The rarest finding first, its patients in the order given, each to the split that lacks that finding most in
    proportion to its size; then the patients without findings, each to the split that lacks images most. At the end,
    splits that are still short get patients of `rest`, those first that bring its findings closest to their share.

    Args:
        rows: the patients, in random order.
        wanted: split → images; a split other than `rest` stays within them unless its quota of a finding is not met.
        rest: the split that takes what fits nowhere.
        quotas: split → positives it shall hold of every finding; at most half of a finding's positives go to quotas.
    """
    greedy = _Greedy(rows, wanted, rest, quotas)
    greedy.assign()
    greedy.fill()
    return [greedy.splits[at] for at in greedy.of]


class _Greedy:
    """The state of one split in the making. Splits and findings are numbers here; `rest` is a split like the others."""

    def __init__(
        self, rows: Sequence[_Row], wanted: Mapping[Split, int], rest: Split, quotas: Mapping[Split, int]
    ) -> None:
        classes = sorted({class_id for _, positives in rows for class_id in positives})
        number = {class_id: at for at, class_id in enumerate(classes)}
        self.splits = list(wanted)
        self.wanted = list(wanted.values())
        self.rest = self.splits.index(rest)
        self.total = sum(self.wanted)
        self.images: npt.NDArray[np.int64] = np.array([images for images, _ in rows], np.int64)
        self.positives: npt.NDArray[np.int64] = np.zeros((len(rows), len(classes)), np.int64)
        for row, (_, positives) in enumerate(rows):
            for class_id, count in positives.items():
                self.positives[row, number[class_id]] = count
        self.all_positives: list[int] = self.positives.sum(axis=0).tolist()
        self.floor = self._floors([quotas.get(split, 0) for split in self.splits])
        self.lack = self._targets()  # positives that a split lacks, times all images (to stay with integers)
        self.has = [[0] * len(classes) for _ in self.splits]
        self.room = list(self.wanted)
        self.of = [self.rest] * len(rows)

    def _floors(self, quotas: Sequence[int]) -> list[list[int]]:
        """Positives that each split shall hold at least: its quota, or its part of half of all where they are few."""
        floors: list[list[int]] = [[] for _ in quotas]
        for count in self.all_positives:
            asked = sum(quota for at, quota in enumerate(quotas) if at != self.rest)
            for at, quota in enumerate(quotas):
                fair = quota if 2 * asked <= count else quota * count // (2 * asked)
                floors[at].append(0 if at == self.rest else fair)
        return floors

    def _targets(self) -> list[list[int]]:
        targets = [
            [max(count * size, floor * self.total) for count, floor in zip(self.all_positives, floors, strict=True)]
            for size, floors in zip(self.wanted, self.floor, strict=True)
        ]
        for finding, count in enumerate(self.all_positives):
            others = sum(target[finding] for at, target in enumerate(targets) if at != self.rest)
            targets[self.rest][finding] = count * self.total - others
        return targets

    def assign(self) -> None:
        """Gives every patient a split."""
        free = np.ones(len(self.of), bool)
        left = self.positives.sum(axis=0)
        while left.any():
            rarest = int(np.argmin(np.where(left > 0, left, np.iinfo(np.int64).max)))
            group = np.flatnonzero(free & (self.positives[:, rarest] > 0))
            for row, images in zip(group.tolist(), self.images[group].tolist(), strict=True):
                self._give(row, images, self._neediest(images, rarest))
            free[group] = False
            left = left - self.positives[group].sum(axis=0)
        for row in np.flatnonzero(free).tolist():
            images = int(self.images[row])
            self._give(row, images, max(self._open(images), key=self._emptiness))

    def _open(self, images: int, finding: int | None = None) -> list[int]:
        return [
            at
            for at, room in enumerate(self.room)
            if at == self.rest
            or room >= images
            or (finding is not None and self.has[at][finding] < self.floor[at][finding])
        ]

    def _emptiness(self, at: int) -> int:
        return self.room[at] * self.total // self.wanted[at]

    def _neediest(self, images: int, finding: int) -> int:
        # by what is lacking in proportion to the split's size, so that a small split is not served last
        return max(
            self._open(images, finding),
            key=lambda at: (self.lack[at][finding] // self.wanted[at], self._emptiness(at)),
        )

    def _give(self, row: int, images: int, split: int) -> None:
        self.of[row] = split
        self.room[split] -= images
        self._count(row, split, 1)

    def _count(self, row: int, split: int, times: int) -> None:
        found = np.flatnonzero(self.positives[row])
        for finding, count in zip(found.tolist(), self.positives[row, found].tolist(), strict=True):
            self.has[split][finding] += times * count
            self.lack[split][finding] -= times * count * self.total

    def fill(self) -> None:
        """Moves patients from `rest` into splits that are short, the best fitting first."""
        in_rest = np.array(self.of, np.int64) == self.rest
        for split in range(len(self.splits)):
            while split != self.rest and self.room[split] > 0:
                rows = np.flatnonzero(in_rest & (self.images <= self.room[split]))
                if not len(rows):
                    break
                lack: npt.NDArray[np.int64] = np.array(self.lack[split], np.int64)
                after = np.abs(lack - self.positives[rows] * self.total).sum(axis=1)
                row = int(rows[np.argmin(after // self.images[rows])])
                in_rest[row] = False
                images = int(self.images[row])
                self.room[self.rest] += images
                self._count(row, self.rest, -1)
                self._give(row, images, split)
