"""Predictions → the answer: study, agreement, maps cut to the film, PNGs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from serve.answers import Agreement, Box, Heat, ImageAnswer, ImageFinding, Source, Study, StudyFinding
from serve.engine import Loaded
from serve.films import Film
from weakray.bundle.runtime import Prediction
from weakray.detections import Detections, FloatArray
from weakray.imaging import Image, Placement

_LEAST = 1e-7  # float32 probabilities of exactly 0 and 1 have no finite logit


@dataclass(frozen=True)
class FilmFacts:
    """What the answer says of a film once its pixels are gone."""

    height: int
    width: int
    source: Source
    notes: tuple[str, ...]
    png: str | None

    @classmethod
    def of(cls, film: Film, *, with_png: bool) -> FilmFacts:
        """Takes down a film, its pixels as a PNG where they are asked for."""
        height, width = film.image.shape[:2]
        return cls(height, width, film.source, film.notes, as_png(film.image) if with_png else None)


def study_of(loaded: Loaded, predictions: Sequence[Prediction]) -> Study:
    """The study's probabilities: σ of the mean over its images of logit(p), for each finding.

    Each image has been calibrated as a film of its own, so that evidence is averaged and not summed. The mean of logits
    keeps a child's probability at or below its parent's, as they are in every image; a study of one image has that
    image's probabilities.
    """
    each = np.stack([prediction.probabilities for prediction in predictions]).astype(np.float64)
    if len(each) == 1:
        joined = each[0]
    else:
        clipped = np.clip(each, _LEAST, 1 - _LEAST)
        joined = 1 / (1 + np.exp(-np.log(clipped / (1 - clipped)).mean(axis=0)))
    thresholds = loaded.bundle.manifest.classifiers.decision_thresholds
    return Study(
        findings=[
            StudyFinding(
                finding=name,
                probability=float(joined[k]),
                threshold=thresholds[name],
                decision=bool(np.float32(joined[k]) >= np.float32(thresholds[name])),
            )
            for k, name in enumerate(loaded.bundle.taxonomy.names)
        ]
    )


def image_of(loaded: Loaded, index: int, film: FilmFacts, prediction: Prediction) -> ImageAnswer:
    """What is said of one image; with maps where the prediction has them."""
    thresholds = loaded.bundle.manifest.classifiers.decision_thresholds
    boxes = _boxes_of_class(prediction.detections)
    findings: list[ImageFinding] = []
    for k, finding in enumerate(loaded.bundle.taxonomy.findings):
        own = boxes.get(k, [])
        decision = bool(prediction.decision[k])
        findings.append(
            ImageFinding(
                finding=finding.name,
                parent=finding.parent,
                probability=float(prediction.probabilities[k]),
                threshold=thresholds[finding.name],
                decision=decision,
                agreement=agreement(decision=decision, boxes=len(own)),
                boxes=own,
                map=None if prediction.maps is None else heat(prediction.maps[k], prediction.placement, loaded),
            )
        )
    return ImageAnswer(
        index=index,
        height=film.height,
        width=film.width,
        source=film.source,
        notes=list(film.notes),
        findings=findings,
        film=film.png,
    )


def _boxes_of_class(found: Detections) -> dict[int, list[Box]]:
    """The boxes of each class that has any, best first."""
    ranked = found.best_first()
    boxes: dict[int, list[Box]] = {}
    rows = zip(ranked.class_id.tolist(), ranked.boxes_xyxy_px.tolist(), ranked.score.tolist(), strict=True)
    for class_id, (x0, y0, x1, y1), score in rows:
        boxes.setdefault(class_id, []).append(Box(xyxy_px=(x0, y0, x1, y1), score=score))
    return boxes


def agreement(*, decision: bool, boxes: int) -> Agreement:
    """Whether the classifiers' decision and the detector's boxes say the same."""
    if decision == bool(boxes):
        return "agree"
    return "decision_without_box" if decision else "box_without_decision"


def heat(raw: FloatArray, placement: Placement, loaded: Loaded) -> Heat:
    """A map as a PNG over the film alone, stretched from its own lowest value to its highest."""
    cut = over_film(raw, placement, loaded.bundle.manifest.classifiers.input.size_px)
    low, high = float(cut.min()), float(cut.max())
    grey = np.rint((cut - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    return Heat(png=as_png(grey), low=low, high=high)


def over_film(raw: FloatArray, placement: Placement, size_px: int) -> FloatArray:
    """The part of a map that lies over the film, without the letterbox's padding.

    Args:
        raw: `(h, w)`, over the whole square.
        placement: where the film lies in the square.
        size_px: side of the square.

    Returns:
        `(h', w')`, cells as large as the map's, as nearly as whole cells fit the film; without padding the map
        itself. Between cell centres bilinear, beyond the outermost ones constant.
    """
    rows, columns = placement.inner()
    if (rows, columns) == (slice(0, size_px), slice(0, size_px)):
        return raw
    down, across = _sampling(rows, raw.shape[0], size_px), _sampling(columns, raw.shape[1], size_px)
    return np.asarray(down @ raw @ across.T, np.float32)


def _sampling(inner: slice, cells: int, size_px: int) -> FloatArray:
    """The matrix `(cells over the film, cells of the map)` that interpolates along an axis; its rows sum to 1."""
    cell_px = size_px / cells
    count = max(1, round((inner.stop - inner.start) / cell_px))
    centre_px = inner.start + (np.arange(count) + 0.5) * ((inner.stop - inner.start) / count)
    at = np.clip(centre_px / cell_px - 0.5, 0, cells - 1)
    return np.asarray(np.clip(1 - np.abs(at[:, None] - np.arange(cells)), 0, None))


def as_png(image: Image) -> str:
    """Base64 of an image as an 8-bit PNG."""
    shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    done, content = cv2.imencode(".png", shown, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise RuntimeError(f"could not encode an image of shape {image.shape}")
    return base64.b64encode(content.tobytes()).decode("ascii")
