"""One step of learning: forward, loss, gradient, update; and the check that all of it is finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from classify.compute import Precision, autocast
from classify.distributed import Processes
from classify.ema import Ema
from classify.heads import HeadOutput
from classify.loss import Criterion
from classify.mean_teacher import disagreement
from classify.sampler import Rows
from classify.studies import StudyBatch
from classify.study_network import Network, StudyOutput, read_images, summed
from classify.target_source import TargetSource


class NotFiniteError(ArithmeticError):
    """A loss or gradient became infinite or not a number. The loop catches it.

    Attributes:
        what: the quantity.
        value: what came.
    """

    def __init__(self, what: str, value: float) -> None:
        super().__init__(f"the {what} became {value}")
        self.what, self.value = what, value


@dataclass(frozen=True)
class Step:
    """What a step made.

    Attributes:
        loss: of the labels.
        disagreement: with the teacher, [0, 1]; 0 without one.
        updated: False where fp16 overflowed, so that the weights stayed as they were.
    """

    loss: float
    disagreement: float
    updated: bool


@dataclass
class Learner:
    """Everything that a step changes, and how.

    Attributes:
        model: on its device.
        optimizer: of its parameters that are not frozen.
        ema: the average of the weights, or None.
        scaler: of the loss, so that gradients do not vanish in fp16; idle in any other precision.
        targets: what the loss compares with.
        criterion: the loss.
        precision: of the forward.
        clip_norm: largest norm of the gradient, None: not clipped.
        device: where the model is.
        processes: who shares a step; each computes on its part of the rows.
    """

    model: Network
    optimizer: torch.optim.Optimizer
    ema: Ema[Network] | None
    scaler: GradScaler
    targets: TargetSource
    criterion: Criterion
    precision: Precision
    clip_norm: float | None
    device: torch.device
    processes: Processes = field(default_factory=Processes)
    _forward: Callable[..., HeadOutput] = field(init=False)

    def __post_init__(self) -> None:
        self._forward = self.processes.wrapped(self.model)

    @property
    def judged(self) -> Network:
        """The model that is validated and kept: the average where there is one."""
        return self.model if self.ema is None else self.ema.model

    def learn(
        self, rows: Rows, batch: StudyBatch, rate: float, updates: int, view: StudyBatch | None, weight: float
    ) -> Step:
        """Takes a step.

        Args:
            rows: of the step's studies, `(n,)`, the same in all processes.
            batch: the images of this process's part of them.
            rate: learning rate.
            updates: how often the weights were updated before.
            view: the same images as the teacher sees them; None without a teacher.
            weight: of the disagreement with the teacher.

        Raises:
            NotFiniteError: if the loss or the gradient is not finite, in all processes alike; the weights are still
                those from before, running statistics may not be.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_factor"]
        self.optimizer.zero_grad(set_to_none=True)
        own = self.processes.part(rows)
        studies = len(own)
        with autocast(self.device, self.precision):
            output = self._read(self._forward, batch, studies)
        logits = output.logits
        values, mask = self.targets.targets_for(own)
        loss = self.criterion(logits, values.to(self.device), mask.to(self.device), output.uncertain)
        apart = loss.new_zeros(())
        if view is not None and self.ema is not None:
            with torch.no_grad(), autocast(self.device, self.precision):
                taught = self._read(self.ema.model, view, studies).logits
            apart = disagreement(logits, taught) * self.processes.share(rows)
        self.scaler.scale(loss + weight * apart if weight else loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        norm = self._clipped_norm()
        # Asked for all at once: each question to a GPU waits for all that it was given to do.
        figures = self.processes.mean(torch.stack([loss.detach(), apart.detach(), norm]))
        loss_value, apart_value, norm_value = figures.tolist()
        finite(loss_value, "loss")
        finite(apart_value, "disagreement with the teacher")
        updated = math.isfinite(norm_value)
        if not self.scaler.is_enabled() or self.scaler.get_scale() < 1:  # else a smaller scale may help
            finite(norm_value, "gradient")
        self.scaler.step(self.optimizer)  # leaves the weights alone where fp16 overflowed
        self.scaler.update()
        self.processes.agree(self.model)
        if updated and self.ema is not None:
            self.ema.update(self.model, updates)
        seen = self.processes.gathered(logits.detach().float().sigmoid(), len(rows))
        self.targets.update(rows, seen)
        return Step(loss_value, apart_value, updated)

    def _read(self, network: Callable[..., HeadOutput], batch: StudyBatch, studies: int) -> StudyOutput:
        output = read_images(network, self.on_device(batch.pixels), batch.frontal.to(self.device))
        return summed(output, batch.study_index.to(self.device), studies)

    def _clipped_norm(self) -> Tensor:
        """Norm `()` of the gradient, which is clipped."""
        if self.clip_norm is not None:
            return torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        return torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def on_device(self, pixels: np.ndarray[Any, Any]) -> Tensor:
        """A batch where the model is, in the layout that it takes best."""
        return torch.from_numpy(pixels).to(self.device, memory_format=torch.channels_last)


def finite(value: float, what: str) -> float:
    """The value.

    Raises:
        NotFiniteError: if it is infinite or not a number.
    """
    if not math.isfinite(value):
        raise NotFiniteError(what, value)
    return value
