"""`Detections`: the one record that crosses the stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from weakray.errors import DataError

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of one image, each with a class and a score.

    Attributes:
        boxes_xyxy_px: `(n, 4)` float32, pixels of the stored image, half-open: width = x1 - x0 > 0.
        class_id: `(n,)` int64, index into the taxonomy's findings.
        score: `(n,)` float32 in [0, 1]; 1 for true boxes.

    Raises:
        DataError: on a wrong shape, an empty or inverted box, a negative class or a score outside [0, 1].

    Example:
        >>> found = Detections([[10, 20, 30, 60]], [2], [0.9])
        >>> len(found), found.of_class(2).score.tolist()
        (1, [0.8999999761581421])
    """

    boxes_xyxy_px: FloatArray
    class_id: IntArray
    score: FloatArray

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes_xyxy_px, dtype=np.float32)
        class_id = np.asarray(self.class_id, dtype=np.int64)
        score = np.asarray(self.score, dtype=np.float32)
        if boxes.size == 0:
            boxes = boxes.reshape(0, 4)
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DataError(f"boxes_xyxy_px: expected shape (n, 4), got {boxes.shape}")
        for name, values in (("class_id", class_id), ("score", score)):
            if values.shape != (len(boxes),):
                raise DataError(f"{name}: expected shape ({len(boxes)},) to match the boxes, got {values.shape}")
        if not np.isfinite(boxes).all():
            raise DataError("boxes_xyxy_px: expected finite coordinates, got NaN or infinity")
        bad = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
        if bad.any():
            raise DataError(f"boxes_xyxy_px: expected x0 < x1 and y0 < y1, got {boxes[bad][0].tolist()}")
        if (class_id < 0).any():
            raise DataError(f"class_id: expected values >= 0, got {int(class_id.min())}")
        if not ((score >= 0) & (score <= 1)).all():
            raise DataError(f"score: expected values in [0, 1], got {score[~((score >= 0) & (score <= 1))][0]}")
        object.__setattr__(self, "boxes_xyxy_px", boxes)
        object.__setattr__(self, "class_id", class_id)
        object.__setattr__(self, "score", score)

    def __len__(self) -> int:
        return len(self.boxes_xyxy_px)

    @classmethod
    def empty(cls) -> Detections:
        """No box at all."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32))

    @classmethod
    def concat(cls, parts: Iterable[Detections]) -> Detections:
        """All boxes of `parts`, in order."""
        kept = [part for part in parts if len(part)]
        if not kept:
            return cls.empty()
        return cls(
            np.concatenate([part.boxes_xyxy_px for part in kept]),
            np.concatenate([part.class_id for part in kept]),
            np.concatenate([part.score for part in kept]),
        )

    def where(self, keep: BoolArray | IntArray) -> Detections:
        """The boxes that a boolean mask `(n,)` or an index array keeps, in that order."""
        return Detections(self.boxes_xyxy_px[keep], self.class_id[keep], self.score[keep])

    def of_class(self, class_id: int) -> Detections:
        """The boxes of one class."""
        return self.where(self.class_id == class_id)

    def best_first(self, limit: int | None = None) -> Detections:
        """Sorted by falling score (stable), at most `limit` of them."""
        return self.where(np.argsort(-self.score, kind="stable")[:limit])
