"""Where training stands, in memory: everything that an interrupted run needs to end as an undisturbed one."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from classify.learner import Learner

Tensors = dict[str, Tensor]


@dataclass
class Progress:
    """What training counts.

    Attributes:
        phase: which phase of training, from 0.
        phase_epoch: epochs that had ended when it began.
        epoch: epochs that ended, of all phases.
        batch: batches of the running epoch that are done or left out: the sampler's place.
        steps: steps taken in the running epoch.
        loss_sum: sum of their losses.
        disagreement_sum: sum of their disagreements with the teacher.
        updates: how often the weights were updated in this phase.
        best_epoch: epoch (from 1) with the best score so far, 0 before the first.
        best_score: that score, None before the first.
        epochs_since_best: the early stop's counter.
        waited: epochs that the plateau schedule waited for a gain.
        drops: how often it lowered the rate.
        rows: lines of `metrics.jsonl`.
        rollbacks: how often a figure that was not finite sent training back.
        returned_to: phase, epoch and batch that it was sent back to last.
        left_out: epoch and batch of each batch that is left out for it.
        rate_factor: what the learning rate is multiplied by since.
        overflows: steps of fp16 that overflowed and changed nothing.
        unusable: checkpoints that could not be used.
    """

    phase: int = 0
    phase_epoch: int = 0
    epoch: int = 0
    batch: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    disagreement_sum: float = 0.0
    updates: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    epochs_since_best: int = 0
    waited: int = 0
    drops: int = 0
    rows: int = 0
    rollbacks: int = 0
    returned_to: list[int] | None = None
    left_out: list[list[int]] = field(default_factory=list)
    rate_factor: float = 1.0
    overflows: int = 0
    unusable: int = 0

    @property
    def place(self) -> list[int]:
        """Phase, epoch and batch."""
        return [self.phase, self.epoch, self.batch]


@dataclass(frozen=True)
class Checkpoint:
    """A state of training, its own copy on CPU.

    Attributes:
        progress: the counts.
        tensors: weights, moments, averages, moving targets and random numbers.
        scaler: the loss scale of fp16 and its counts; empty in any other precision.
    """

    progress: Progress
    tensors: Tensors
    scaler: dict[str, float]


def weights_of(model: nn.Module) -> Tensors:
    """A copy of parameters and buffers, on CPU, contiguous, as safetensors wants them."""
    return {name: _plain(value) for name, value in model.state_dict().items()}


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().clone(memory_format=torch.contiguous_format)


def capture(learner: Learner, progress: Progress) -> Checkpoint:
    """A copy of all that a step changes; of the optimizer the moments alone, its settings come from the config."""
    tensors = {f"model.{name}": value for name, value in weights_of(learner.model).items()}
    for row, values in learner.optimizer.state_dict()["state"].items():
        kept = {name: value for name, value in values.items() if value is not None}
        tensors |= {f"optimizer.{row}.{name}": _plain(value) for name, value in kept.items()}
    if learner.ema is not None:
        tensors |= {f"ema.{name}": value for name, value in weights_of(learner.ema.model).items()}
    tensors |= {f"targets.{name}": _plain(value) for name, value in learner.targets.state().items()}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    return Checkpoint(deepcopy(progress), tensors, dict(learner.scaler.state_dict()))


def put_back(checkpoint: Checkpoint, learner: Learner) -> Progress:
    """Puts a state back into a learner and torch's random numbers; returns the counts, a copy of their own.

    Raises:
        RuntimeError: if it is another model's.
    """
    tensors = checkpoint.tensors
    learner.model.load_state_dict(_under("model.", tensors))
    if learner.ema is not None:
        learner.ema.model.load_state_dict(_under("ema.", tensors))
    _put_moments_back(learner.optimizer, _under("optimizer.", tensors))
    learner.targets.load_state(_under("targets.", tensors))
    if learner.scaler.is_enabled():
        learner.scaler.load_state_dict(checkpoint.scaler)
    torch.set_rng_state(tensors["rng.cpu"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    return deepcopy(checkpoint.progress)


def _put_moments_back(optimizer: torch.optim.Optimizer, kept: Tensors) -> None:
    settings = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, Tensors] = {}
    for name, value in kept.items():
        row, key = name.split(".", 1)
        parameter = parameters[int(row)]
        # Moments must lie in memory as their parameter does: the fused step walks both side by side. A copy in any
        # case, for the optimizer writes into what it is given.
        moments.setdefault(int(row), {})[key] = (
            torch.empty_like(parameter, dtype=value.dtype).copy_(value)
            if value.shape == parameter.shape
            else value.clone()
        )
    optimizer.load_state_dict({"state": moments, "param_groups": settings})


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
