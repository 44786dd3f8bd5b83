"""Mean teacher: a model learns from labels, and from agreeing with its own average (Tarvainen and Valpola 2017).

The teacher is the exponential moving average of the student. Both see the same images under two augmentations drawn
apart; the student is also pulled towards the teacher's probabilities, on every finding, whatever its label says or
leaves open: a wrong label then has a witness against it.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field
from torch import Tensor

from weakray.config import StrictModel

_VIEW = 2  # stream of random numbers drawn from the seed: the teacher's augmentation


class MeanTeacherConfig(StrictModel):
    """Agreement with a teacher, for noisy labels; the teacher is the average of `ema`."""

    weight: float | None = Field(None, gt=0, description="of the agreement beside the loss of the labels; null: off")
    ramp_epochs: float = Field(
        5.0, gt=0, description="epochs in which the weight rises: a teacher is no wiser at first"
    )


def ramped(weight: float, epochs_done: float, ramp_epochs: float) -> float:
    """Weight at a point of training: weight · e^(-5 (1 - t)²), t = min(epochs done / ramp, 1) (Laine and Aila 2017)."""
    return weight * math.exp(-5 * (1 - min(epochs_done / ramp_epochs, 1)) ** 2)


def disagreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two models' probabilities, from their logits, both `(n, k)`; a scalar in [0, 1]."""
    return (student.float().sigmoid() - teacher.float().sigmoid()).square().mean()


def view_seed(seed: int) -> int:
    """Seed of the teacher's augmentation."""
    return int(np.random.SeedSequence([seed, _VIEW]).generate_state(1)[0])
