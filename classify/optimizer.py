"""Optimizers, and which parameters decay."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import nn

from weakray.config import StrictModel


class OptimizerConfig(StrictModel):
    """AdamW."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay; biases and norms do not decay")


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of all parameters; biases and norms (one axis) do not decay."""
    kinds: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in model.parameters():
        kinds[parameter.ndim > 1].append(parameter)
    groups: list[dict[str, Any]] = [{"params": kinds[0], "weight_decay": 0.0}, {"params": kinds[1]}]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)
