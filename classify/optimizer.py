"""Optimizers, and which parameters decay."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import nn

from weakray.config import StrictModel

OptimizerName = Literal["adamw", "adam", "sgd", "nesterov", "adamax", "rmsprop", "adagrad"]


class OptimizerConfig(StrictModel):
    """What follows the gradient, and how far."""

    name: OptimizerName = Field(
        "adamw", description="adamw, adam, sgd (with momentum), nesterov, adamax, rmsprop or adagrad, as torch has them"
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    lr_batch_size: int | None = Field(
        None, ge=1, description="images a step that lr is meant for: the peak is lr × images a step / this; null: lr"
    )
    weight_decay: float = Field(
        1e-2, ge=0, description="of adamw decoupled, of the others added to the gradient; biases and norms do not decay"
    )
    backbone_lr_factor: float = Field(1.0, gt=0, description="the backbone's learning rate over the head's")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd, nesterov and rmsprop")
    beta1: float = Field(0.9, ge=0, lt=1, description="memory of adamw's, adam's and adamax's gradient")
    beta2: float = Field(0.999, ge=0, lt=1, description="memory of its square (adamax: of its largest size)")
    smoothing: float = Field(0.99, ge=0, lt=1, description="memory of rmsprop's squared gradient")

    @field_validator("momentum")
    @classmethod
    def _nesterov_moves(cls, momentum: float, info: ValidationInfo) -> float:
        if info.data.get("name") == "nesterov" and momentum == 0:
            raise ValueError("nesterov looks ahead along its momentum; expected more than 0, or set name to sgd")
        return momentum


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters that are not frozen; biases and norms (one axis) do not decay.

    Each group's `lr_factor` is what its rate is of the schedule's: who sets the rates must multiply by it.
    """
    kinds: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            factor = config.backbone_lr_factor if "backbone" in name.split(".") else 1.0
            kinds.setdefault((decay, factor), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": own, "weight_decay": decay, "lr_factor": factor} for (decay, factor), own in kinds.items()
    ]
    lr, betas = config.lr, (config.beta1, config.beta2)
    match config.name:
        case "adamw":
            return torch.optim.AdamW(groups, betas=betas, fused=True, lr=lr)
        case "adam":
            return torch.optim.Adam(groups, betas=betas, fused=True, lr=lr)
        case "sgd" | "nesterov":
            nesterov = config.name == "nesterov"
            return torch.optim.SGD(groups, momentum=config.momentum, nesterov=nesterov, fused=True, lr=lr)
        case "adamax":
            return torch.optim.Adamax(groups, betas=betas, lr=lr)
        case "rmsprop":
            return torch.optim.RMSprop(groups, alpha=config.smoothing, momentum=config.momentum, lr=lr)
        case "adagrad":
            return torch.optim.Adagrad(groups, lr=lr)


def scaled_rate(lr: float, base_batch: int | None, batch_size: int) -> float:
    """Peak rate for the images that a step really sees: lr · batch_size / base_batch (Goyal et al. 2017).

    Args:
        lr: rate that was found good.
        base_batch: images a step when it was found; None leaves `lr` as it is.
        batch_size: images of a step, whoever shares it: `batch_size` says so whatever the number of processes.
    """
    return lr if base_batch is None else lr * batch_size / base_batch
