"""The loss of a detector whose queries answer for one box or none (RT-DETR), with the rules of `detect.multilabel`.

Each box is given one query (Hungarian matching), so classes that share a place do not compete: each has a query of its
own. A pseudo-box of weight w counts w times in the box loss; its query's class loss is w times that of a true box, and
1 - w times that of background: linear between presence (w = 1) and absence (w = 0). Where an image has an `elsewhere`
weight below 1 for a class, what background costs a query in that class counts that much.

In one thing it is not ultralytics' own: a batch without any box is taught background as all others are, where theirs
changes to a focal loss that weighs it three times as much.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F

from detect.quiet_import import import_ultralytics

Targets = dict[str, Any]  # as ultralytics' decoder and loss take boxes, with `weights` and `elsewhere`


def targets_of(batch: dict[str, torch.Tensor]) -> Targets:
    """Boxes of a batch (`detect.batches.collate`) that weigh anything, as RT-DETR's decoder and loss take them.

    A batch without `weights` and `elsewhere` is one of true boxes: both are 1.
    """
    images = len(batch["img"])
    weights = batch.get("weights", torch.ones_like(batch["batch_idx"]))
    there = weights > 0
    image_of = batch["batch_idx"][there].long()
    return {
        "cls": batch["cls"][there].long().view(-1),
        "bboxes": batch["bboxes"][there],
        "batch_idx": image_of,
        "gt_groups": torch.bincount(image_of, minlength=images).tolist(),
        "weights": weights[there],
        "elsewhere": batch.get("elsewhere"),
    }


def set_loss(classes: int) -> Any:
    """Ultralytics' `RTDETRDetectionLoss` with the rules above; it is called as theirs is, with `targets_of` a batch."""
    return _loss_class()(nc=classes, use_vfl=True)


@cache
def _loss_class() -> Any:
    """The loss's class; made on demand, for its base must not be imported with this module."""
    import_ultralytics()
    from ultralytics.models.utils.loss import RTDETRDetectionLoss
    from ultralytics.utils.metrics import bbox_iou

    class NoisySetLoss(RTDETRDetectionLoss):  # type: ignore[misc, unused-ignore]
        """Weighs boxes and background in the loss of one decoder layer; layers and denoising are its base's."""

        targets: Targets

        def forward(self, preds: Any, batch: Targets, **denoising: Any) -> Any:
            self.targets = batch
            return super().forward(preds, batch, **denoising)

        def _get_loss(
            self,
            pred_bboxes: torch.Tensor,
            pred_scores: torch.Tensor,
            gt_bboxes: torch.Tensor,
            gt_cls: torch.Tensor,
            gt_groups: list[int],
            postfix: str = "",
            match_indices: list[tuple[torch.Tensor, torch.Tensor]] | None = None,
        ) -> dict[str, torch.Tensor]:
            if match_indices is None:
                match_indices = self.matcher(pred_bboxes, pred_scores, gt_bboxes, gt_cls, gt_groups)
            query, box = self._get_index(match_indices)
            found, true, weight = pred_bboxes[query], gt_bboxes[box], self.targets["weights"][box]
            counted, gain = max(len(true), 1), self.loss_gain
            overlap = bbox_iou(found.detach(), true, xywh=True).view(-1)
            matched = (query[0].to(found.device), query[1].to(found.device), gt_cls[box])
            cost = class_losses(pred_scores, matched, overlap, weight, self.targets["elsewhere"], self.vfl)
            apart = F.l1_loss(found, true, reduction="none").sum(dim=1)
            outside = 1 - bbox_iou(found, true, xywh=True, GIoU=True).view(-1)
            return {
                f"loss_class{postfix}": gain["class"] * cost.sum() / counted,
                f"loss_bbox{postfix}": gain["bbox"] * (weight * apart).sum() / counted,
                f"loss_giou{postfix}": gain["giou"] * (weight * outside).sum() / counted,
            }

    return NoisySetLoss


def class_losses(
    logits: torch.Tensor,
    matched: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    overlap: torch.Tensor,
    weight: torch.Tensor,
    elsewhere: torch.Tensor | None,
    focus: Any,
) -> torch.Tensor:
    """Varifocal losses `(n, queries, k)` (Zhang 2021): a box's query learns its overlap, all else is background.

    Args:
        logits: `(n, queries, k)`.
        matched: `(b,)` each: image, query and class of every matched box.
        overlap: `(b,)`, IoU of the query's box with the true one, the score it should give.
        weight: `(b,)`, (0, 1], of the boxes.
        elsewhere: `(n, k)`, [0, 1], how much background counts; None: 1.
        focus: has `alpha` and `gamma`, how little a low score costs that should be 0.
    """
    background = focus.alpha * logits.sigmoid().pow(focus.gamma) * F.softplus(logits)
    if elsewhere is not None:
        background = background * elsewhere[:, None, :]
    own = logits[matched]
    presence = overlap * F.binary_cross_entropy_with_logits(own, overlap, reduction="none")
    return background.index_put(matched, weight * presence + (1 - weight) * background[matched])
