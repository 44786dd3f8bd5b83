"""Prepared images by row: what batches are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from weakray.dataset import Dataset
from weakray.imaging import Image, InputSpec, prepare, read_image


class Images(Protocol):
    """Images as the model sees them, by row; several threads may read at once."""

    def __len__(self) -> int:
        """How many."""
        ...

    def __getitem__(self, row: int) -> Image:
        """The image of a row, `(s, s)` or `(s, s, 3)` uint8; not to be written into."""
        ...


@dataclass
class PreparedImages:
    """Images of a dataset, kept in memory once prepared, or decoded at each use.

    Attributes:
        dataset: where they come from.
        image_ids: a row each.
        spec: what the model sees.
        cache: keep `rows × size² × channels` bytes in memory.
    """

    dataset: Dataset
    image_ids: Sequence[str]
    spec: InputSpec
    cache: bool
    _kept: dict[int, Image] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, row: int) -> Image:
        """The image of a row, `(s, s)` or `(s, s, 3)` uint8; not to be written into."""
        kept = self._kept.get(row)
        if kept is not None:
            return kept
        image, _ = prepare(read_image(self.dataset.path_of(self.image_ids[row])), self.spec)
        if self.cache:
            self._kept[row] = image
        return image
