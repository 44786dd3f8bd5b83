"""Boxes of several members fused into one set (weighted box fusion, Solovyev et al. 2021), many candidates at once.

The rule for one image stands in `weakray.boxes.fusion`; this is the same on padded arrays (a test holds them together),
with what else a box of a map has: a peak, and what the map looks like inside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from camgen.components import Components
from camgen.scoring import DUPLICATE_IOU, pair_iou

Array = npt.NDArray[np.float64]
Fusion = Literal["maps", "boxes"]  # members' maps are averaged and cut; or each is cut, and their boxes are fused
FUSION_IOU = DUPLICATE_IOU  # what would go as a duplicate is fused instead


def fuse(members: Sequence[Components], places: int, iou_above: float = FUSION_IOU) -> Components:
    """One set of boxes an image, of at most `places`, best peak first.

    Boxes and shapes are means over a group's boxes, weighted by their peaks. Its peak is the plain mean of theirs times
    the share of members that have a box in the group, so it lies in [0, 1] and falls where some members found nothing:
    where each has one box at most, the sum of the peaks over the number of members (`box_and_model_avg`).

    Args:
        members: each member's boxes of the same images; under the same options, or all without.
        places: at most so many boxes an image.
        iou_above: a box joins the group whose mean it overlaps most, if by more than this.
    """
    if len(members) == 1:
        return members[0].first(places)
    lead, width = members[0].valid.shape[:-1], sum(one.valid.shape[-1] for one in members)
    flat, looks = (math.prod(lead), width), members[0].shape.shape[-1]
    valid = np.concatenate([one.valid for one in members], axis=-1).reshape(flat)
    boxes = np.concatenate([one.boxes_rel for one in members], axis=-2).reshape(*flat, 4)
    peak = np.concatenate([one.peak for one in members], axis=-1).reshape(flat)
    shape = np.concatenate([one.shape for one in members], axis=-2).reshape(*flat, looks)
    whose = np.repeat(np.arange(len(members)), [one.valid.shape[-1] for one in members])
    peak = np.where(valid, peak, 0.0)
    # Equal peaks go by their corners, so that the order of the members does not matter.
    order = np.lexsort((*boxes.transpose(2, 0, 1)[::-1], -peak), axis=-1)
    valid, peak = _in_order(valid, order), _in_order(peak, order)
    boxes, shape = _in_order(boxes, order), _in_order(shape, order)
    joined = _groups(boxes, peak, valid, iou_above)  # (r, b, g)
    number, weight = joined.sum(axis=1), joined * peak[..., None]
    held = [(joined & (whose[order] == m)[..., None]).any(axis=1) for m in range(len(members))]
    fused_peak = weight.sum(axis=1) / np.maximum(number, 1) * np.sum(held, axis=0) / len(members)
    total = np.where(number > 0, weight.sum(axis=1), 1.0)[..., None]
    turned = weight.transpose(0, 2, 1)
    best = np.argsort(-fused_peak, axis=-1, kind="stable")[:, :places]
    made = (turned @ boxes / total, number > 0, fused_peak, turned @ shape / total)
    kept = [_in_order(one, best) for one in made]
    lead = (*lead, best.shape[1])
    return Components(
        kept[0].reshape(*lead, 4),
        kept[1].reshape(lead),
        kept[2].reshape(lead),
        kept[3].reshape(*lead, looks),
        np.logical_and.reduce([one.empty for one in members]),
    )


def _in_order(values: npt.NDArray[Any], order: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """`(r, b, …)` with each row's b in an order of its own."""
    return np.take_along_axis(values, order.reshape(*order.shape, *[1] * (values.ndim - 2)), axis=1)


def _groups(boxes: Array, weight: Array, valid: npt.NDArray[np.bool_], iou_above: float) -> npt.NDArray[np.bool_]:
    """Which box is in which group `(r, b, g)`, of boxes `(r, b, 4)` in falling order of their weights."""
    rows, width = valid.shape
    joined = np.zeros((rows, width, width), bool)
    total, sums, means = np.zeros((rows, width)), np.zeros((rows, width, 4)), np.zeros((rows, width, 4))
    groups = np.zeros(rows, np.intp)
    for b in range(width):
        here = np.flatnonzero(valid[:, b])
        own, at = boxes[here, b], groups[here]
        if b and len(here):
            overlap = pair_iou(own[:, None], means[here, :b])
            best = overlap.argmax(axis=1)
            at = np.where(overlap[np.arange(len(here)), best] > iou_above, best, at)
        groups[here] += at == groups[here]
        joined[here, b, at] = True
        total[here, at] += weight[here, b]
        sums[here, at] += weight[here, b, None] * own
        means[here, at] = sums[here, at] / total[here, at, None]
    return joined
