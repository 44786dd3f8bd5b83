"""Optimizers, and which parameters decay."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from weakray.config import StrictModel


class OptimizerConfig(StrictModel):
    """AdamW."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay; biases and norms do not decay")
    backbone_lr_factor: float = Field(1.0, gt=0, description="the backbone's learning rate over the head's")


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters; biases and norms (one axis) do not decay.

    Each group's `lr_factor` is what its rate is of the schedule's: who sets the rates must multiply by it.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        factor = config.backbone_lr_factor if "backbone" in name.split(".") else 1.0
        groups.setdefault((decay, factor), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": own, "weight_decay": decay, "lr_factor": factor} for (decay, factor), own in groups.items()],
        lr=config.lr,
        fused=True,
    )
