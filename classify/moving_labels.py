"""Labels that follow the model: L ← αL + (1 - α)p after every look at an image.

Where labels are noisy, the model's opinion corrects them little by little. Reported to overfit, the labels drifting to
whatever the model says, even at α = 0.999; a share of the original label is not kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from classify.labels import UNSURE, Targets
from weakray.errors import ConfigError, RunError


def moved(labels: Tensor, probability: Tensor, alpha: float) -> Tensor:
    """αL + (1 - α)p, both of one shape and in [0, 1], α in [0, 1]."""
    return alpha * labels + (1 - alpha) * probability


class MovingLabels:
    """The running labels of all training images, by row; on CPU, in float32.

    Only labels that count move: what is masked has no label to start from. In training by several processes each sees
    the rows of its own batches alone; to be the same everywhere, `update` wants the rows and probabilities of all.

    Args:
        start: the targets as given, `(n, k)`.
        alpha: α, the share of a label that one look keeps; 1 would never move.

    Raises:
        ConfigError: if a finding has a third class, which no probability moves.
        ValueError: if `alpha` does not lie in [0, 1).
    """

    def __init__(self, start: Targets, alpha: float) -> None:
        if not 0 <= alpha < 1:
            raise ValueError(f"alpha: expected 0 <= alpha < 1, got {alpha:g}")
        if (start.values == UNSURE).any():
            raise ConfigError("uncertainty: multiclass labels cannot move towards a probability; choose another policy")
        self.alpha = alpha
        self._running = torch.from_numpy(start.values.copy())
        self._mask = torch.from_numpy(start.mask.copy())

    def of(self, rows: Tensor) -> Tensor:
        """The running labels `(b, k)` of some rows `(b,)`."""
        return self._running[rows]

    def update(self, rows: Tensor, probability: Tensor) -> None:
        """Moves the labels of rows `(b,)` towards the model's probabilities `(b, k)`; a row given twice moves twice."""
        seen = probability.detach().to("cpu", torch.float32)
        for row, found in zip(rows.tolist(), seen, strict=True):
            label = self._running[row]
            self._running[row] = torch.where(self._mask[row], moved(label, found, self.alpha), label)

    @property
    def state(self) -> Tensor:
        """A copy of all running labels `(n, k)`, for a checkpoint."""
        return self._running.clone()

    def restore(self, state: Tensor) -> None:
        """Goes on from a `state`.

        Raises:
            RunError: if it is of other images or findings.
        """
        if state.shape != self._running.shape:
            raise RunError(
                f"moving labels: expected shape {tuple(self._running.shape)}, got {tuple(state.shape)}; "
                "the checkpoint is of another dataset, remove the run folder"
            )
        self._running = state.to("cpu", torch.float32).clone()
