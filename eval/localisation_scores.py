"""How well boxes and maps point: diagnostics beside average precision, never a headline.

All count annotated (image, finding) pairs alone. Every figure is a ratio of sums over images, so that a bootstrap over
patients is a weighting of images; macro figures average the findings that have a true box.

- *Localisation accuracy* T(IoU), T(IoBB) (Wang et al., "ChestX-ray8", 2017): the share of positive pairs in which some
  box reaches an overlap T with some true box. IoBB divides by the predicted box, so it rewards tiny boxes: it stands
  beside the false boxes an image.
- *FROC*: the share of true boxes found at so many false boxes an image, all findings' cut-offs apart.
- *Pointing game* (Zhang et al., "Top-down neural attention by excitation backprop", 2018): the map's peak lies in a
  true box, or within a tolerance of one.
- *MaxBoxAccV2* (Choe et al., "Evaluating weakly supervised object localization methods right", 2020): the share of
  positive pairs in which the components of the map above one cut include a box of IoU δ, at the best cut, averaged over
  δ. The cut is picked on the images that are scored, so the figure is an upper bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from eval.average_precision import Matches
from weakray.boxes.geometry import iou
from weakray.coco import BoxTruth, Predictions
from weakray.detections import Detections, FloatArray
from weakray.imaging import Placement

Float64Array = npt.NDArray[np.float64]
ACCURACY_OVERLAPS: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
FROC_RATES: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false boxes an image
MAX_BOX_IOUS: tuple[float, ...] = (0.3, 0.5, 0.7)
CUTS: tuple[float, ...] = tuple(np.linspace(0, 0.98, 50).round(2).tolist())  # of a map's range
_HAIR = 1e-9  # an overlap that should be equal to T may come out as a rounding below


@dataclass(frozen=True)
class ImageMaps:
    """One image's maps `(k, h, w)` over the letterboxed square, and where the image lies in it."""

    maps: FloatArray
    placement: Placement


@dataclass(frozen=True)
class Counts:
    """Per-image sums, and what divides them: a figure is Σ w·`over` / Σ w·`under`.

    Attributes:
        over: `(n_images, n_classes, q)`.
        under: `(n_images, n_classes)`.
    """

    over: Float64Array
    under: Float64Array

    def rates(self, weights: Float64Array) -> Float64Array:
        """`(n_draws, n_classes, q)` under weightings `(n_draws, n_images)`; NaN where nothing divides."""
        over, under = np.einsum("di,icq->dcq", weights, self.over), (weights @ self.under)[..., None]
        return np.asarray(np.divide(over, under, out=np.full_like(over, np.nan), where=under > 0))


@dataclass(frozen=True)
class BoxCounts:
    """What boxes give at each overlap T of `ACCURACY_OVERLAPS`.

    Attributes:
        iou: positive pairs with a box of IoU T, of positive pairs.
        iobb: the same for IoBB.
        false_iou: boxes below IoU T with every true box, of annotated pairs: false boxes an image.
        false_iobb: the same for IoBB.
    """

    iou: Counts
    iobb: Counts
    false_iou: Counts
    false_iobb: Counts


@dataclass(frozen=True)
class MapCounts:
    """What maps give, on images that have them.

    Attributes:
        pointing: positive pairs whose peak hits, of positive pairs; q = 1.
        cut: positive pairs with a box of IoU δ above a cut; q = δ x cut.
        pairs: `(n_classes,)`, positive pairs with a map.
        empty: `(n_classes,)`, of these with a map that points nowhere.
    """

    pointing: Counts
    cut: Counts
    pairs: npt.NDArray[np.int64]
    empty: npt.NDArray[np.int64]

    def max_box_acc(self, weights: Float64Array) -> Float64Array:
        """MaxBoxAccV2 `(n_draws, n_classes)`: at the best cut for each δ, averaged over δ."""
        rates = self.cut.rates(weights)
        return np.asarray(rates.reshape(*rates.shape[:2], len(MAX_BOX_IOUS), len(CUTS)).max(axis=-1).mean(axis=-1))


def iobb(found: FloatArray, true: FloatArray) -> Float64Array:
    """Shared area over the area of the found box, `(n, m)` for boxes `(n, 4)` and `(m, 4)`."""
    low = np.maximum(found[:, None, :2], true[None, :, :2]).astype(np.float64)
    high = np.minimum(found[:, None, 2:], true[None, :, 2:]).astype(np.float64)
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    area = (found[:, 2:] - found[:, :2]).astype(np.float64).prod(axis=-1)
    return np.asarray(shared / area[:, None])


def count_boxes(predictions: Predictions, truth: BoxTruth, image_ids: Sequence[str], n_classes: int) -> BoxCounts:
    """Localisation accuracy and false boxes of every annotated pair.

    Args:
        predictions: image_id → scored boxes.
        truth: true boxes and annotated pairs.
        image_ids: the images of the truth, in the order of the weights.
        n_classes: number of findings.
    """
    at = np.array(ACCURACY_OVERLAPS) - _HAIR
    shape = (len(image_ids), n_classes)
    positive, looked = np.zeros(shape), np.zeros(shape)
    hit, false = (np.zeros((2, *shape, len(at))) for _ in range(2))
    for i, image_id in enumerate(image_ids):
        found, true = (boxes.get(image_id, Detections.empty()) for boxes in (predictions, truth.boxes))
        for k in (k for k in range(n_classes) if (image_id, k) in truth.annotated):
            own, wanted = found.of_class(k).boxes_xyxy_px, true.of_class(k).boxes_xyxy_px
            looked[i, k], positive[i, k] = 1, len(wanted) > 0
            for measure, overlap in enumerate((iou(own, wanted), iobb(own, wanted))):
                best = np.asarray(overlap, np.float64).max(axis=1, initial=0.0)
                near = best[:, None] >= at
                hit[measure, i, k], false[measure, i, k] = near.any(axis=0), (~near).sum(axis=0)
    return BoxCounts(*(Counts(one, positive) for one in hit), *(Counts(one, looked) for one in false))


def froc(matches: Matches, truth: BoxTruth, column: int, weights: Float64Array) -> Float64Array:
    """Share of true boxes found `(n_draws, n_classes, 7)` at the false boxes an image of `FROC_RATES`.

    A score cut-off keeps or drops boxes of equal score together. NaN for a finding without a true box.

    Args:
        matches: boxes paired with truth.
        truth: what they were paired with.
        column: which IoU of `matches`.
        weights: `(n_draws, n_images)`.
    """
    result = np.full((len(weights), len(matches.classes), len(FROC_RATES)), np.nan)
    for k, one in enumerate(matches.classes):
        looked = np.array([(image_id, k) in truth.annotated for image_id in matches.image_ids], np.float64)
        positives = weights @ one.positives
        limit = (weights @ looked)[:, None] * np.array(FROC_RATES)
        ends = np.flatnonzero(np.append(np.diff(one.score) != 0, [True] * (len(one.score) > 0)))
        drawn, hit = weights[:, one.image], one.hit[column]
        true = np.cumsum(drawn * hit, axis=1)[:, ends]
        false = np.cumsum(drawn * ~hit, axis=1)[:, ends]
        kept = (false[:, None] <= limit[..., None] + _HAIR).sum(axis=2)  # cut-offs that are allowed
        found = np.take_along_axis(np.concatenate([np.zeros((len(weights), 1)), true], axis=1), kept, axis=1)
        np.divide(found, positives[:, None], out=result[:, k], where=positives[:, None] > 0)
    return result


def count_maps(
    maps: Mapping[str, ImageMaps], truth: BoxTruth, image_ids: Sequence[str], n_classes: int, tolerance: float
) -> MapCounts:
    """Pointing game and components of every positive annotated pair whose image has maps.

    Args:
        maps: by image; loaded one at a time if the mapping does so.
        truth: true boxes and annotated pairs.
        image_ids: the images of the truth, in the order of the weights.
        n_classes: number of findings.
        tolerance: how far from a true box a peak may lie, as a fraction of the image's longer side.
    """
    shape = (len(image_ids), n_classes)
    positive, hit = np.zeros(shape), np.zeros((*shape, 1))
    cut = np.zeros((*shape, len(MAX_BOX_IOUS) * len(CUTS)))
    empty = np.zeros(n_classes, np.int64)
    for i, image_id in enumerate(image_ids):
        true = truth.boxes.get(image_id, Detections.empty())
        wanted = [k for k in set(true.class_id.tolist()) if (image_id, k) in truth.annotated]
        if not wanted or image_id not in maps:
            continue
        own = maps[image_id]
        for k in wanted:
            positive[i, k] = 1
            heat, boxes = np.asarray(own.maps[k], np.float64), true.of_class(k).boxes_xyxy_px
            if not np.isfinite(heat).all() or heat.max() <= 0 or heat.max() == heat.min():
                empty[k] += 1
                continue
            hit[i, k] = points_at(heat, own.placement, boxes, tolerance)
            best = best_iou_at_cuts(heat, own.placement, boxes)
            cut[i, k] = (best >= np.array(MAX_BOX_IOUS)[:, None] - _HAIR).ravel()
    pairs = positive.sum(axis=0).astype(np.int64)
    return MapCounts(Counts(hit, positive), Counts(cut, positive), pairs, empty)


def points_at(heat: FloatArray, placement: Placement, boxes_xyxy_px: FloatArray, tolerance: float) -> bool:
    """Whether the peak of a map `(h, w)` over the letterboxed square lies in a box, or near one.

    Cells whose centre lies over the padding do not count.
    """
    inside = _over_image(heat, placement)
    y, x = np.unravel_index(int(np.argmax(np.where(inside, heat, -np.inf))), heat.shape)
    at_x, at_y = _centres(heat.shape, placement)
    px, py = at_x[x], at_y[y]
    away_x = np.maximum(np.maximum(boxes_xyxy_px[:, 0] - px, px - boxes_xyxy_px[:, 2]), 0)
    away_y = np.maximum(np.maximum(boxes_xyxy_px[:, 1] - py, py - boxes_xyxy_px[:, 3]), 0)
    return bool((np.hypot(away_x, away_y) <= tolerance * max(placement.source_hw)).any())


def best_iou_at_cuts(
    heat: FloatArray, placement: Placement, boxes_xyxy_px: FloatArray, grid_px: int = 256
) -> Float64Array:
    """Best IoU `(len(CUTS),)` of any component of a map, above each cut of its range, with any true box.

    Args:
        heat: `(h, w)` over the letterboxed square.
        placement: where the image lies in it.
        boxes_xyxy_px: true boxes, pixels of the image.
        grid_px: samples along the square's longer side on which components are found.
    """
    up = max(1, round(grid_px / max(heat.shape)))
    fine = cv2.resize(heat.astype(np.float32), (heat.shape[1] * up, heat.shape[0] * up), interpolation=cv2.INTER_LINEAR)
    inside = _over_image(fine, placement)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    fine = np.ascontiguousarray(fine[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    low, high = float(fine.min()), float(fine.max())
    height, width = placement.source_hw
    scale = np.array([width / fine.shape[1], height / fine.shape[0]] * 2)
    best = np.zeros(len(CUTS))
    for c, value in enumerate(CUTS):
        above = (fine > low + value * (high - low)).view(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
        if count > 1:
            corners = stats[1:, :4].astype(np.float64)
            corners[:, 2:] += corners[:, :2]
            best[c] = iou((corners * scale).astype(np.float32), boxes_xyxy_px).max()
    return best


def _centres(shape: tuple[int, ...], placement: Placement) -> tuple[Float64Array, Float64Array]:
    """Where a grid's columns and rows lie, in pixels of the image."""
    rows, columns = placement.inner()
    side = max(rows.stop - rows.start, columns.stop - columns.start)  # letterbox: the longer side fills the square
    (height, width), (sx, sy) = shape, placement.scale_xy
    x = ((np.arange(width) + 0.5) * side / width - placement.left_px) / sx
    y = ((np.arange(height) + 0.5) * side / height - placement.top_px) / sy
    return x, y


def _over_image(heat: FloatArray, placement: Placement) -> npt.NDArray[np.bool_]:
    """Which cells `(h, w)` have their centre over the image."""
    x, y = _centres(heat.shape, placement)
    height, width = placement.source_hw
    return np.asarray(((y > 0) & (y < height))[:, None] & ((x > 0) & (x < width))[None])
