"""What a step of training minimises: a network's loss on a batch, whichever family its architecture is of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from detect.batches import Batch
from detect.multilabel import detection_loss
from detect.network import Network
from detect.set_loss import set_loss, targets_of

Criterion = Callable[[Batch, int], tuple[torch.Tensor, dict[str, torch.Tensor]]]


def criterion_of(network: Network, *, bf16: bool) -> Criterion:
    """The loss as a function of a batch and of the seed of what it draws by chance, for a network that stays in place.

    It gives the loss to be minimised and its parts by name, detached. The forward pass is in bfloat16 where `bf16`; the
    loss is worked out in float32 even then.
    """
    family = _of_queries if network.queries else _of_anchors
    criterion, device = family(network, bf16=bf16), network.device

    def placed(batch: Batch, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        images = batch["img"].contiguous(memory_format=torch.channels_last)
        return criterion({name: values.to(device) for name, values in {**batch, "img": images}.items()}, seed)

    return placed


def _of_anchors(network: Network, *, bf16: bool) -> Criterion:
    module, loss = network.module, detection_loss(network.module)

    def criterion(batch: Batch, _: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.autocast(batch["img"].device.type, dtype=torch.bfloat16, enabled=bf16):
            outputs = module(batch["img"])
        total, parts = loss(_float32(outputs), batch)
        return total.sum(), parts

    return criterion


def _of_queries(network: Network, *, bf16: bool) -> Criterion:
    """Beside its own queries it is given boxes moved by chance, to move back (contrastive denoising, Zhang 2022)."""
    module, loss = network.module, set_loss(len(network.names))

    def criterion(batch: Batch, seed: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        device, targets = batch["img"].device, targets_of(batch)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                outputs = module.predict(batch["img"], batch=targets)
        boxes, scores, first_boxes, first_scores, denoising = _float32(outputs)
        moved: dict[str, Any] = {}
        if denoising is not None:
            moved_boxes, boxes = torch.split(boxes, denoising["dn_num_split"], dim=2)
            moved_scores, scores = torch.split(scores, denoising["dn_num_split"], dim=2)
            moved = {"dn_bboxes": moved_boxes, "dn_scores": moved_scores, "dn_meta": denoising}
        layers = torch.cat([first_boxes[None], boxes]), torch.cat([first_scores[None], scores])
        parts = loss(layers, targets, **moved)
        told = {"box": "loss_bbox", "giou": "loss_giou", "cls": "loss_class"}  # of the last layer
        return sum(parts.values(), torch.zeros((), device=device)), {
            f"{name}_loss": parts[part].detach() for name, part in told.items()
        }

    return criterion


def _float32(outputs: Any) -> Any:
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    if isinstance(outputs, tuple):
        return tuple(_float32(value) for value in outputs)
    if isinstance(outputs, dict):
        return {name: value.float() if isinstance(value, torch.Tensor) else value for name, value in outputs.items()}
    return outputs
