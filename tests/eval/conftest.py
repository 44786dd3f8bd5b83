"""Seeded makers of truth and predictions, and pycocotools as referee."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.eval.makers import made_dataset
from weakray.coco import BoxTruth, Predictions
from weakray.dataset import Dataset
from weakray.detections import Detections

World = tuple[Predictions, BoxTruth]
SIZE_HW = (120, 200)


def _boxes(rng: np.random.Generator, n: int) -> npt.NDArray[np.float64]:
    height, width = SIZE_HW
    low = rng.uniform(0, [width * 0.7, height * 0.7], (n, 2))
    return np.concatenate([low, low + rng.uniform(10, 60, (n, 2))], axis=1)


def _make_world(
    seed: int, n_images: int = 7, n_classes: int = 3, extra: int = 12, score_decimals: int | None = None
) -> World:
    """Several true boxes an image and class, near misses of them, noise, and pairs that nobody annotated."""
    rng = np.random.default_rng(seed)
    boxes: dict[str, Detections] = {}
    predictions: Predictions = {}
    annotated: set[tuple[str, int]] = set()
    for i in range(n_images):
        image_id = f"image-{i}"
        looked_for = [k for k in range(n_classes) if rng.random() < 0.8]
        annotated |= {(image_id, k) for k in looked_for}
        class_id = np.repeat(looked_for, rng.integers(0, 4, len(looked_for))).astype(np.int64)
        true = _boxes(rng, len(class_id))
        boxes[image_id] = Detections(true, class_id, np.ones(len(true)))
        copies = rng.integers(0, 3, len(true))
        near = np.repeat(true, copies, axis=0) + rng.normal(0, 5, (copies.sum(), 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 3)
        found = np.concatenate([near, _boxes(rng, extra)])
        score = rng.random(len(found))
        if score_decimals is not None:
            score = score.round(score_decimals)
        classes = np.concatenate([np.repeat(class_id, copies), rng.integers(0, n_classes, extra)])
        if i % 3 != 2:  # every third image is left without predictions
            predictions[image_id] = Detections(found, classes, score)
    return predictions, BoxTruth(boxes, frozenset(annotated))


def _referee(
    predictions: Predictions, truth: BoxTruth, n_classes: int, ious: Sequence[float], first_annotation_id: int = 1
) -> npt.NDArray[np.float64]:
    """AP `(n_classes, n_iou)` by pycocotools, class by class on the annotated images; NaN without a true box."""
    result = np.full((n_classes, len(ious)), np.nan)
    numbers = {image_id: i + 1 for i, image_id in enumerate(truth.boxes)}

    def rows(boxes: dict[str, Detections], class_id: int) -> list[dict[str, object]]:
        return [
            {
                "image_id": numbers[image_id],
                "category_id": 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
                "score": score,
            }
            for image_id, found in boxes.items()
            if (image_id, class_id) in truth.annotated
            for (x0, y0, x1, y1), score in zip(
                found.of_class(class_id).boxes_xyxy_px.tolist(), found.of_class(class_id).score.tolist(), strict=True
            )
        ]

    for class_id in range(n_classes):
        true, found = rows(truth.boxes, class_id), rows(predictions, class_id)
        if not true:
            continue
        if not found:  # pycocotools fails on an empty result list
            result[class_id] = 0
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": i} for i in numbers.values()],
                "categories": [{"id": 1}],
                "annotations": [{**row, "id": first_annotation_id + i} for i, row in enumerate(true)],
            }
            coco.createIndex()
            evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
            evaluation.params.iouThrs = np.array(ious)
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [100]
            evaluation.evaluate()
            evaluation.accumulate()
        result[class_id] = evaluation.eval["precision"][:, :, 0, 0, 0].mean(axis=1)
    return result


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return _make_world


@pytest.fixture(scope="session")
def referee() -> Callable[..., npt.NDArray[np.float64]]:
    return _referee


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return made_dataset(tmp_path / "data")
