"""Average precision of boxes: pycocotools' figures, fast enough to bootstrap and to search with.

`match` pairs boxes with truth once; `Matches` then gives average precision under any weighting of the images at
the cost of a few sums, so that a bootstrap of a thousand draws takes about a second instead of an hour.

The rules are those of Microsoft's COCO evaluation (area "all", at most 100 boxes an image and class, 101 recall
points), and of LVIS in that only annotated (image, class) pairs count. Boxes of equal score rank by the image's
place in the truth, then by place in their `Detections`: COCO's rule, and luck. A method whose scores are often
equal has a figure that means little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from weakray.boxes.geometry import iou
from weakray.coco import BoxTruth, Predictions
from weakray.detections import BoolArray, Detections, FloatArray, IntArray
from weakray.errors import DataError

Float64Array = npt.NDArray[np.float64]

LOOSE_IOUS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
COCO_IOUS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())  # to the last bit those of pycocotools
ALL_IOUS: tuple[float, ...] = tuple(sorted({*LOOSE_IOUS, *COCO_IOUS}))
MAX_BOXES = 100  # an image and class; the best ones count
_RECALLS = np.linspace(0.0, 1.0, 101)
_DRAWS_AT_ONCE = 128  # keeps the working arrays in the processor's cache


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The scored boxes of one class over all images, best first.

    Attributes:
        score: `(n,)` float32, falling.
        image: `(n,)` row of `Matches.image_ids`.
        hit: `(n_iou, n)` whether the box found a true box that no better box had taken.
        positives: `(n_images,)` number of true boxes in each image.
    """

    score: FloatArray
    image: IntArray
    hit: BoolArray
    positives: IntArray


@dataclass(frozen=True, eq=False)
class Matches:
    """Predicted boxes paired with true boxes, at every IoU asked for.

    Attributes:
        image_ids: the images of the truth, in its order.
        ious: the IoU thresholds.
        classes: one entry a class.
        ignored_predictions: predicted boxes left out because their (image, class) pair is not annotated.
        ignored_truth: true boxes left out for the same reason.
    """

    image_ids: list[str]
    ious: tuple[float, ...]
    classes: tuple[ClassMatches, ...]
    ignored_predictions: int = 0
    ignored_truth: int = 0

    @property
    def positives(self) -> IntArray:
        """Number of true boxes of each class `(n_classes,)`."""
        return np.array([found.positives.sum() for found in self.classes], dtype=np.int64)

    def columns(self, ious: Iterable[float]) -> list[int]:
        """Where the given thresholds stand in `ious` (and in the last axis of average precision).

        Raises:
            ValueError: on a threshold that was not matched at.
        """
        found = []
        for wanted in ious:
            near = [i for i, have in enumerate(self.ious) if abs(have - wanted) < 1e-9]
            if not near:
                raise ValueError(f"expected an IoU among {self.ious}, got {wanted}; give it to `match`")
            found.append(near[0])
        return found

    def average_precision(self, image_weights: npt.ArrayLike | None = None) -> Float64Array:
        """Average precision `(n_classes, n_iou)`, [0, 1]; NaN for a class without a true box.

        Args:
            image_weights: `(n_images,)` whole numbers ≥ 0, how often each image counts (a bootstrap's
                multiplicities); None counts each once. The result is that of physically repeating the images
                (but for boxes of one image and class that share their score, whose copies would interleave).

        Raises:
            ValueError: on a wrong shape, or weights that are negative or not whole.
        """
        weights = np.ones(len(self.image_ids)) if image_weights is None else np.asarray(image_weights)
        if weights.ndim != 1:
            raise ValueError(f"image_weights: expected shape ({len(self.image_ids)},), got {weights.shape}")
        return np.asarray(self.average_precisions(weights[None])[0])

    def average_precisions(self, image_weights: npt.ArrayLike) -> Float64Array:
        """`average_precision` of many weightings `(n_draws, n_images)` at once: `(n_draws, n_classes, n_iou)`."""
        weights = np.asarray(image_weights, dtype=np.float64)
        if weights.ndim != 2 or weights.shape[1] != len(self.image_ids):
            raise ValueError(f"image_weights: expected shape (n_draws, {len(self.image_ids)}), got {weights.shape}")
        if (weights < 0).any() or (weights != np.floor(weights)).any():
            raise ValueError("image_weights: expected whole numbers >= 0")
        result = np.empty((len(weights), len(self.classes), len(self.ious)))
        for start in range(0, len(weights), _DRAWS_AT_ONCE):
            part = np.ascontiguousarray(weights[start : start + _DRAWS_AT_ONCE].T)
            for class_id, found in enumerate(self.classes):
                result[start : start + _DRAWS_AT_ONCE, class_id] = _class_precision(found, part).T
        return result


def match(predictions: Predictions, truth: BoxTruth, n_classes: int, ious: Sequence[float] = ALL_IOUS) -> Matches:
    """Pairs predicted with true boxes: greedily, best score first, each with the free true box it overlaps most.

    Args:
        predictions: image_id → scored boxes; images of the truth may be absent.
        truth: true boxes and annotated pairs; all else is left out, and counted in the result.
        n_classes: number of findings.
        ious: thresholds in (0, 1].

    Raises:
        DataError: on predictions for an image that the truth does not know, or a class id ≥ `n_classes`.
        ValueError: on a threshold outside (0, 1], or none.
    """
    thresholds = np.asarray(ious, dtype=np.float64)
    if thresholds.ndim != 1 or len(thresholds) == 0 or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ValueError(f"ious: expected thresholds in (0, 1], got {ious}")
    scored = scored_boxes(predictions, truth, n_classes)
    found, true = scored.found, scored.true
    hit = np.zeros((len(thresholds), len(found)), dtype=bool)
    keys, first, count = np.unique(scored.true_key, return_index=True, return_counts=True)
    low, high = np.searchsorted(scored.found_key, keys, side="left"), np.searchsorted(scored.found_key, keys, "right")
    for i in np.flatnonzero(high > low):
        overlap = iou(found.boxes_xyxy_px[low[i] : high[i]], true.boxes_xyxy_px[first[i] : first[i] + count[i]])
        hit[:, low[i] : high[i]] = assign(np.asarray(overlap, np.float64), thresholds) >= 0

    classes = []
    n_images = len(scored.image_ids)
    for class_id in range(n_classes):
        start, stop = np.searchsorted(scored.found_key, [class_id * n_images, (class_id + 1) * n_images])
        order = start + np.argsort(-found.score[start:stop], kind="stable")
        of_class = scored.true_image[true.class_id == class_id]
        classes.append(
            ClassMatches(
                score=found.score[order],
                image=scored.found_image[order],
                hit=hit[:, order],
                positives=np.bincount(of_class, minlength=n_images).astype(np.int64),
            )
        )
    return Matches(
        scored.image_ids,
        tuple(thresholds.tolist()),
        tuple(classes),
        scored.ignored_predictions,
        scored.ignored_truth,
    )


@dataclass(frozen=True, eq=False)
class ScoredBoxes:
    """The boxes that count: those of annotated (image, class) pairs, by class, then image, then falling score.

    Attributes:
        image_ids: the images of the truth, in the order of their COCO ids.
        found: predicted boxes, at most `MAX_BOXES` a pair.
        found_key: `(n_found,)` class · n_images + row of the image.
        true: true boxes.
        true_key: `(n_true,)` the same of them.
        ignored_predictions: predicted boxes of pairs that are not annotated.
        ignored_truth: true boxes of such pairs.
    """

    image_ids: list[str]
    found: Detections
    found_key: IntArray
    true: Detections
    true_key: IntArray
    ignored_predictions: int
    ignored_truth: int

    @property
    def found_image(self) -> IntArray:
        """Row of each predicted box's image in `image_ids`."""
        return self.found_key - self.found.class_id * len(self.image_ids)

    @property
    def true_image(self) -> IntArray:
        """Row of each true box's image in `image_ids`."""
        return self.true_key - self.true.class_id * len(self.image_ids)


def scored_boxes(predictions: Predictions, truth: BoxTruth, n_classes: int) -> ScoredBoxes:
    """The boxes that `match` pairs.

    Raises:
        DataError: on predictions for an image that the truth does not know, or a class id ≥ `n_classes`.
    """
    # The truth's own order is that of COCO ids, so that equal scores rank as pycocotools ranks them.
    image_ids = [*truth.boxes, *sorted({image_id for image_id, _ in truth.annotated} - truth.boxes.keys())]
    row = {image_id: i for i, image_id in enumerate(image_ids)}
    unknown = sorted(predictions.keys() - row.keys())
    if unknown:
        raise DataError(
            f"{len(unknown)} predicted images are not in the truth, e.g. {unknown[0]!r}; "
            "keep the predictions of the split that is scored, or check the image ids"
        )
    annotated = np.zeros((len(image_ids), n_classes), dtype=bool)
    for image_id, class_id in truth.annotated:
        if not 0 <= class_id < n_classes:
            raise DataError(f"annotated: expected class ids below {n_classes}, got {class_id} for image {image_id!r}")
        annotated[row[image_id], class_id] = True
    true, true_key, ignored_truth = _flat(truth.boxes, row, annotated)
    found, found_key, ignored_predictions = _flat(predictions, row, annotated, MAX_BOXES)
    return ScoredBoxes(image_ids, found, found_key, true, true_key, ignored_predictions, ignored_truth)


def _flat(
    boxes: Mapping[str, Detections], row: Mapping[str, int], annotated: BoolArray, limit: int | None = None
) -> tuple[Detections, IntArray, int]:
    """Boxes of annotated pairs sorted by class, image and falling score, at most `limit` a pair.

    Returns:
        the boxes; their sorted keys class · n_images + image; how many boxes stand outside annotated pairs.
    """
    n_images, n_classes = annotated.shape
    every = Detections.concat(boxes.values())
    counts = np.array([len(found) for found in boxes.values()], dtype=np.int64)
    image = np.repeat(np.array([row[image_id] for image_id in boxes], dtype=np.int64), counts)
    if len(every) and every.class_id.max() >= n_classes:
        raise DataError(f"boxes: expected class ids below {n_classes}, got {int(every.class_id.max())}")
    inside = annotated[image, every.class_id]
    every, image = every.where(inside), image[inside]
    key = every.class_id * n_images + image
    order = np.lexsort((-every.score, key))  # stable
    key = key[order]
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    rank = np.arange(len(key)) - np.repeat(first, count)
    kept = rank < (len(key) if limit is None else limit)
    return every.where(order[kept]), key[kept], int((~inside).sum())


def assign(overlap: Float64Array, thresholds: Float64Array) -> IntArray:
    """Which true box each box takes, `(n_iou, n)`, -1 for none, for one image and class, best score first.

    Args:
        overlap: IoU of each box with each true box, `(n, n_true)`.
        thresholds: lowest IoU that counts, `(n_iou,)`.
    """
    at_least = np.minimum(thresholds, 1 - 1e-10)[:, None]  # an IoU of 1 may come out as a rounding below 1
    n_boxes, n_true = overlap.shape
    if n_true == 1:
        near = overlap[:, 0] >= at_least
        return np.asarray(np.where(near & (near.cumsum(axis=1) == 1), 0, -1))
    taken = np.full((len(thresholds), n_boxes), -1)
    free = np.ones((len(thresholds), n_true), dtype=bool)
    for i in np.flatnonzero(overlap.max(axis=1, initial=-1) >= at_least.min()):
        usable = np.where(free & (overlap[i] >= at_least), overlap[i], -1.0)
        best = n_true - 1 - usable[:, ::-1].argmax(axis=1)  # of equal overlaps the last, as in pycocotools
        took = np.flatnonzero(usable[np.arange(len(thresholds)), best] >= 0)
        taken[took, i] = best[took]
        free[took, best[took]] = False
    return taken


def _class_precision(found: ClassMatches, weights: Float64Array) -> Float64Array:
    """Average precision `(n_iou, n_draws)` of one class; `weights` is `(n_images, n_draws)`.

    Precision falls at every false box, so its envelope over recall needs only the ranks where a true box was
    found. The weights between those ranks are summed by a sparse product; nothing is as long as the boxes.
    """
    positives = found.positives.astype(np.float64) @ weights  # (n_draws,)
    result = np.zeros((len(found.hit), weights.shape[1]))
    ends = np.flatnonzero(found.hit.any(axis=0))  # ranks that are a hit at some IoU
    if len(ends):
        upto = np.arange(ends[-1] + 1)
        between = csr_array(
            (np.ones(len(upto)), (np.searchsorted(ends, upto), found.image[upto])), shape=(len(ends), len(weights))
        )
        ranked = np.cumsum(between @ weights, axis=0)  # (n_ends, n_draws): boxes down to and with each rank
        divisor = np.maximum(positives, 1)
        for level, hits_at in enumerate(found.hit[:, ends]):
            at = np.flatnonzero(hits_at)
            if not len(at):
                continue
            hits = np.cumsum(weights[found.image[ends[at]]], axis=0)
            precision = hits / np.maximum(ranked[at], 1)
            envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            # A recall point belongs to the first rank that reaches it.
            reached = np.searchsorted(_RECALLS, hits / divisor, side="right")
            result[level] = (np.diff(reached, axis=0, prepend=0) * envelope).sum(axis=0) / len(_RECALLS)
    result[:, positives == 0] = np.nan
    return result
