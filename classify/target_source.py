"""Where the loss gets its targets from: fixed labels, or labels that move while training goes on."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from classify.labels import Targets
from classify.moving_labels import MovingLabels
from classify.sampler import Rows


class TargetSource(Protocol):
    """Targets by row. What moves must lie in the state: a rollback or a resumed run puts it back."""

    def targets_for(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Values `(b, k)` float32 in [0, 1] and mask `(b, k)` bool of these rows, on CPU."""

    def update(self, rows: Rows, probabilities: Tensor) -> None:
        """Takes in the model's own outputs `(b, k)` float32 in [0, 1], on its device, after a step on these rows."""

    def state(self) -> dict[str, Tensor]:
        """Everything that `update` changes."""

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts back what `state` gave."""


class FixedTargets:
    """The labels as they are."""

    def __init__(self, given: Targets) -> None:
        self._values, self._mask = torch.from_numpy(given.values), torch.from_numpy(given.mask)

    def targets_for(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Values and mask of these rows."""
        picked = torch.from_numpy(rows)
        return self._values[picked], self._mask[picked]

    def update(self, rows: Rows, probabilities: Tensor) -> None:
        """Fixed labels do not listen."""

    def state(self) -> dict[str, Tensor]:
        """Nothing moves."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to put back."""


class MovingTargets:
    """Labels that follow the model."""

    def __init__(self, start: Targets, alpha: float) -> None:
        self._labels, self._mask = MovingLabels(start, alpha), torch.from_numpy(start.mask)

    def targets_for(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Running values and mask of these rows."""
        picked = torch.from_numpy(rows)
        return self._labels.of(picked), self._mask[picked]

    def update(self, rows: Rows, probabilities: Tensor) -> None:
        """Moves the labels of these rows."""
        self._labels.update(torch.from_numpy(rows), probabilities)

    def state(self) -> dict[str, Tensor]:
        """The running labels of all rows."""
        return {"labels": self._labels.state}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Puts them back."""
        self._labels.restore(state["labels"])
