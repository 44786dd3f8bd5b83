"""An exponential moving average of a model's weights: the average is validated, and kept."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from weakray.config import StrictModel

Model = TypeVar("Model", bound=nn.Module)


class EmaConfig(StrictModel):
    """The average over the steps that is validated and kept in the place of the last step's weights."""

    decay: float | None = Field(None, gt=0, lt=1, description="share of the average that a step keeps; null: off")
    warmup: bool = Field(True, description="start with a smaller share, that the first steps' weights fade soon")


def decay_at(decay: float, warmup: bool, update: int) -> float:
    """Share that the average keeps at an update (from 0): `decay`, or min(decay, 1 - (1 + n)^(-2/3)) with warm-up.

    The first update copies. With warm-up, 0.9 is reached after 31 updates, 0.99 after 1,000 and 0.999 after 31,600.
    """
    if update == 0:
        return 0.0
    return min(decay, 1 - (1 + update) ** (-2 / 3)) if warmup else decay


class Ema(Generic[Model]):
    """The average, a model of its own in eval mode.

    Attributes:
        model: holds the averaged parameters and buffers; what counts in whole numbers is copied.
    """

    def __init__(self, model: Model, decay: float, warmup: bool) -> None:
        self.model: Model = deepcopy(model).eval().requires_grad_(False)
        self._decay, self._warmup = decay, warmup

    @torch.no_grad()
    def update(self, model: Model, update: int) -> None:
        """Takes in the weights after the update with this number (from 0)."""
        kinds: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for mine, now in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                averages, values = kinds.setdefault(mine.dtype, ([], []))
                averages.append(mine)
                values.append(now)
            else:
                mine.copy_(now)
        average = get_ema_multi_avg_fn(decay_at(self._decay, self._warmup, update))
        for averages, values in kinds.values():
            average(averages, values, 0)
