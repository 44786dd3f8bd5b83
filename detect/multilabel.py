"""The detection loss, with class targets of their own for findings that share a place.

A pneumonia is a consolidation is an opacity: three boxes in one place. Ultralytics' assigner gives each anchor to one
true box alone, so that of identical boxes only the first is learnt. Here an anchor is a positive of *every* true box
that chose it, each for its own class; it regresses the one it overlaps most, as before.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from detect.quiet_import import import_ultralytics


def detection_loss(module: Any) -> Any:
    """Ultralytics' loss of a `DetectionModel` (box, class and distribution parts) with the assigner above.

    Called with the network's raw outputs and a batch, it returns the parts summed over the batch, and their names.
    """
    import_ultralytics()
    from ultralytics.utils.loss import v8DetectionLoss

    loss = v8DetectionLoss(module)
    theirs = loss.assigner
    loss.assigner = assigner_class()(
        topk=theirs.topk, num_classes=theirs.num_classes, alpha=theirs.alpha, beta=theirs.beta, stride=theirs.stride
    )
    return loss


@cache
def assigner_class() -> Any:
    """The assigner's class; made on demand, for its base must not be imported with this module."""
    import_ultralytics()
    from ultralytics.utils.tal import TaskAlignedAssigner

    class MultiLabelAssigner(TaskAlignedAssigner):  # type: ignore[misc, unused-ignore]
        """Task-aligned assignment (Feng 2021) in which classes do not compete for anchors."""

        def _forward(
            self,
            pd_scores: torch.Tensor,
            pd_bboxes: torch.Tensor,
            anc_points: torch.Tensor,
            gt_labels: torch.Tensor,
            gt_bboxes: torch.Tensor,
            mask_gt: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            chosen, alignment, overlaps = self.get_pos_mask(
                pd_scores, pd_bboxes, gt_labels, gt_bboxes, anc_points, mask_gt
            )  # each (n, boxes, anchors)
            targets = class_targets(chosen, alignment, overlaps, gt_labels, self.num_classes, self.eps)
            box_of_anchor, taken, _ = self.select_highest_overlaps(chosen, overlaps, self.n_max_boxes, alignment)
            labels, boxes, _ = self.get_targets(gt_labels, gt_bboxes, box_of_anchor, taken)
            return labels, boxes, targets, taken.bool(), box_of_anchor

    return MultiLabelAssigner


def class_targets(
    chosen: torch.Tensor,
    alignment: torch.Tensor,
    overlaps: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    eps: float,
) -> torch.Tensor:
    """Target scores `(n, anchors, classes)`: a true box's best overlap, shared among its anchors by their alignment.

    Args:
        chosen: `(n, boxes, anchors)`, 1 where a true box chose an anchor.
        alignment: `(n, boxes, anchors)`, score^α · overlap^β.
        overlaps: `(n, boxes, anchors)`, [0, 1].
        labels: `(n, boxes, 1)`, class ids as floats.
        classes: number of classes.
        eps: keeps the quotient finite where a box's alignment is 0 everywhere.
    """
    alignment, overlaps = alignment * chosen, overlaps * chosen
    best_alignment, best_overlap = alignment.amax(dim=-1, keepdim=True), overlaps.amax(dim=-1, keepdim=True)
    value = alignment * best_overlap / (best_alignment + eps)  # (n, boxes, anchors)
    of_class = labels.long().clamp(min=0).expand(-1, -1, value.shape[-1])
    targets = torch.zeros(len(value), classes, value.shape[-1], dtype=value.dtype, device=value.device)
    return targets.scatter_reduce(1, of_class, value, "amax").transpose(1, 2)
