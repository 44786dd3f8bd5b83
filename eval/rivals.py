"""Rivals that look at no pixel: one box a finding, the same on every image. A method must beat them to mean anything.

They are no strawmen: the box is fitted on *tune*, and its score is the classifier's probability of the finding,
so that they rank the images as well as any method built on the same classifier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd

from eval.average_precision import match
from weakray.boxes.geometry import iou
from weakray.coco import BoxTruth, Predictions
from weakray.detections import Detections
from weakray.errors import DataError

Float64Array = npt.NDArray[np.float64]
Sizes = Mapping[str, tuple[int, int]]  # image_id → (height, width) in pixels

_SIDES = tuple(i / 10 for i in range(1, 11))  # relative widths and heights that are tried


def centre_box(
    truth: BoxTruth,
    sizes_hw: Sizes,
    probabilities: pd.DataFrame,
    image_ids: Sequence[str],
) -> Predictions:
    """A box in the middle of the image; its relative width and height per finding have the best AP50 on *tune*.

    Sizes tried: 0.1, 0.2, … 1 for either side. Equal AP50 (often 0) is decided by the mean IoU with the true boxes.

    Args:
        truth: of the *tune* images.
        sizes_hw: sizes of the *tune* images and of `image_ids`.
        probabilities: image_id × findings in class-id order, [0, 1], of the *tune* images and of `image_ids`.
        image_ids: images to predict.

    Returns:
        one box an image and finding, score = probability. A finding without a box on *tune* gets none.

    Raises:
        DataError: if an image lacks its size or probabilities, or a probability is outside [0, 1].
    """
    tune_ids = [*truth.boxes]
    n_classes = probabilities.shape[1]
    relative = _relative_boxes(truth, sizes_hw)
    best: dict[int, tuple[float, float]] = {}
    chosen: dict[int, Float64Array] = {}
    for width, height in product(_SIDES, _SIDES):
        box = np.array([1 - width, 1 - height, 1 + width, 1 + height]) / 2
        tried = _everywhere(dict.fromkeys(relative, box), sizes_hw, probabilities, tune_ids)
        precision = match(tried, truth, n_classes, ious=[0.5]).average_precision()[:, 0]
        for class_id, true in relative.items():
            # In relative units both sides shrink alike, so the IoU is that of the pixels.
            merit = (float(precision[class_id]), float(iou(box[None], true).mean()))
            if class_id not in best or merit > best[class_id]:
                best[class_id], chosen[class_id] = merit, box
    return _everywhere(chosen, sizes_hw, probabilities, image_ids)


def mean_box(
    truth: BoxTruth,
    sizes_hw: Sizes,
    probabilities: pd.DataFrame,
    image_ids: Sequence[str],
) -> Predictions:
    """The mean of the finding's *tune* boxes, edge by edge, relative to the image. Arguments as for `centre_box`."""
    means = {class_id: boxes.mean(axis=0) for class_id, boxes in _relative_boxes(truth, sizes_hw).items()}
    return _everywhere(means, sizes_hw, probabilities, image_ids)


def _relative_boxes(truth: BoxTruth, sizes_hw: Sizes) -> dict[int, Float64Array]:
    """Class id → true boxes `(n, 4)` xyxy relative to their image; only classes that have one."""
    rows: dict[int, list[Float64Array]] = {}
    for image_id, found in truth.boxes.items():
        height, width = _size(sizes_hw, image_id)
        relative = found.boxes_xyxy_px / np.array([width, height, width, height], np.float64)
        for box, class_id in zip(relative, found.class_id.tolist(), strict=True):
            if (image_id, class_id) in truth.annotated:
                rows.setdefault(class_id, []).append(box)
    return {class_id: np.stack(rows[class_id]) for class_id in sorted(rows)}


def _everywhere(
    boxes_rel: Mapping[int, Float64Array], sizes_hw: Sizes, probabilities: pd.DataFrame, image_ids: Sequence[str]
) -> Predictions:
    """Each class's relative box on every image, scored by the probability of the class."""
    missing = [image_id for image_id in image_ids if image_id not in probabilities.index]
    if missing:
        raise DataError(
            f"probabilities: {len(missing)} images are missing, e.g. {missing[0]!r}; predict them with the classifier"
        )
    classes = np.array(sorted(boxes_rel), dtype=np.int64)
    if not len(classes):
        return {image_id: Detections.empty() for image_id in image_ids}
    boxes = np.stack([boxes_rel[class_id] for class_id in classes.tolist()])
    scores = probabilities.loc[list(image_ids)].to_numpy(np.float64)[:, classes]
    predictions: Predictions = {}
    for image_id, score in zip(image_ids, scores, strict=True):
        height, width = _size(sizes_hw, image_id)
        predictions[image_id] = Detections(boxes * [width, height, width, height], classes, score)
    return predictions


def _size(sizes_hw: Sizes, image_id: str) -> tuple[int, int]:
    try:
        return sizes_hw[image_id]
    except KeyError:
        raise DataError(f"sizes: image {image_id!r} is missing; give (height, width) of every image") from None
