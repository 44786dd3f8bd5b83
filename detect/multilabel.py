"""The detection loss: classes that share a place, boxes that are only likely, and findings nobody has placed.

A pneumonia is a consolidation is an opacity: three boxes in one place. Ultralytics' assigner gives each anchor to one
true box alone, so that of identical boxes only the first is learnt. Here an anchor is a positive of *every* true box
that chose it, each for its own class; it regresses the one it overlaps most, as before.

A pseudo-box has a weight w in [0, 1]. Its class target is w times that of a true box, and with it, as ultralytics
weighs boxes by their target, its part of the box loss. Binary cross-entropy is linear in the target, so the class loss
lies between that with the box (w = 1) and that without it (w = 0): the detector learns how sure to be.

A finding that the label says is there but that no box places must not be taught as background. Where an image has an
`elsewhere` weight below 1 for a class, the class loss of anchors that belong to none of its boxes counts that much.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from detect.quiet_import import import_ultralytics


def detection_loss(module: Any) -> Any:
    """Ultralytics' loss of a `DetectionModel` (box, class and distribution parts) with the rules above.

    Called with the network's raw outputs and a batch (`detect.batches.collate`), it returns the parts summed over the
    batch, and their names. A batch without `weights` and `elsewhere` is one of true boxes: both are 1.
    """
    return _loss_class()(module)


@cache
def _loss_class() -> Any:
    """The loss's class; made on demand, for its base must not be imported with this module."""
    import_ultralytics()
    from ultralytics.utils.loss import v8DetectionLoss

    class NoisyLabelLoss(v8DetectionLoss):  # type: ignore[misc, unused-ignore]
        """Hands the batch's weights to the two places that need them."""

        assigner: Any
        bce: Any

        def __init__(self, module: Any) -> None:
            super().__init__(module)
            theirs = self.assigner
            self.assigner = assigner_class()(
                topk=theirs.topk,
                num_classes=theirs.num_classes,
                alpha=theirs.alpha,
                beta=theirs.beta,
                stride=theirs.stride,
            )
            self.bce = WeighedCrossEntropy()

        def loss(self, preds: dict[str, torch.Tensor], batch: dict[str, torch.Tensor]) -> Any:
            weights = batch.get("weights")
            self.assigner.weights = (
                None if weights is None else padded(weights, batch["batch_idx"], len(preds["scores"]))
            )
            self.bce.elsewhere = batch.get("elsewhere")
            return super().loss(preds, batch)

    return NoisyLabelLoss


class WeighedCrossEntropy:
    """Binary cross-entropy of anchors; of those that are a positive of no box, times the image's weight `elsewhere`.

    Attributes:
        elsewhere: `(n, k)`, [0, 1]; None counts as 1.
    """

    elsewhere: torch.Tensor | None = None

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Losses `(n, anchors, k)` of logits and targets of that shape."""
        losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.elsewhere is None:
            return losses
        return losses * torch.where(targets > 0, 1.0, self.elsewhere[:, None, :])


def padded(values: torch.Tensor, image_of: torch.Tensor, images: int) -> torch.Tensor:
    """A value a box, `(b,)`, → `(images, most boxes of an image)`, filled up with 0, in ultralytics' order of boxes."""
    index = image_of.long()
    counts = torch.bincount(index, minlength=images)
    first = counts.cumsum(0) - counts
    out = values.new_zeros(images, int(counts.max()) if len(values) else 0)
    out[index, torch.arange(len(values), device=values.device) - first[index]] = values
    return out


@cache
def assigner_class() -> Any:
    """The assigner's class; made on demand, for its base must not be imported with this module."""
    import_ultralytics()
    from ultralytics.utils.tal import TaskAlignedAssigner

    class MultiLabelAssigner(TaskAlignedAssigner):  # type: ignore[misc, unused-ignore]
        """Task-aligned assignment (Feng 2021) in which classes do not compete for anchors, and boxes have weights.

        Attributes:
            weights: `(n, boxes)`, [0, 1]; None counts as 1. A box of weight 0 is absent.
        """

        weights: torch.Tensor | None = None

        def _forward(
            self,
            pd_scores: torch.Tensor,
            pd_bboxes: torch.Tensor,
            anc_points: torch.Tensor,
            gt_labels: torch.Tensor,
            gt_bboxes: torch.Tensor,
            mask_gt: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            if self.weights is not None:
                mask_gt = mask_gt * (self.weights[..., None] > 0)
            chosen, alignment, overlaps = self.get_pos_mask(
                pd_scores, pd_bboxes, gt_labels, gt_bboxes, anc_points, mask_gt
            )  # each (n, boxes, anchors)
            targets = class_targets(chosen, alignment, overlaps, gt_labels, self.num_classes, self.eps, self.weights)
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
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Target scores `(n, anchors, classes)`: a box's best overlap, shared among its anchors by their alignment.

    Args:
        chosen: `(n, boxes, anchors)`, 1 where a true box chose an anchor.
        alignment: `(n, boxes, anchors)`, score^α · overlap^β.
        overlaps: `(n, boxes, anchors)`, [0, 1].
        labels: `(n, boxes, 1)`, class ids as floats.
        classes: number of classes.
        eps: keeps the quotient finite where a box's alignment is 0 everywhere.
        weights: `(n, boxes)`, [0, 1], factors on the boxes' targets; None: 1.
    """
    alignment, overlaps = alignment * chosen, overlaps * chosen
    best_alignment, best_overlap = alignment.amax(dim=-1, keepdim=True), overlaps.amax(dim=-1, keepdim=True)
    value = alignment * best_overlap / (best_alignment + eps)  # (n, boxes, anchors)
    value = value if weights is None else value * weights[..., None]
    of_class = labels.long().clamp(min=0).expand(-1, -1, value.shape[-1])
    targets = torch.zeros(len(value), classes, value.shape[-1], dtype=value.dtype, device=value.device)
    return targets.scatter_reduce(1, of_class, value, "amax").transpose(1, 2)
