"""The training loop: an exact number of steps, learning rate by step, EMA in float32, checkpoints of our own.

Ultralytics gives the network, its loss and its EMA. Its own trainer counts epochs, validates at the end whatever it
is told, writes half-precision pickles without RNG state, and cannot resume to the same weights: so the loop is here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from pydantic import Field
from tqdm import tqdm

from detect.augment import AugmentConfig
from detect.batches import batches
from detect.course import Stretch
from detect.criterion import Criterion, criterion_of
from detect.network import Network
from detect.pasting import Regions
from detect.quiet_import import import_ultralytics
from detect.yolo_folder import Example
from weakray.config import StrictModel
from weakray.errors import RunError
from weakray.files import write_bytes
from weakray.runs import RunFolder


class OptimizerConfig(StrictModel):
    """AdamW with linear warm-up and cosine decay."""

    lr: float = Field(2e-3, gt=0, description="highest learning rate")
    last_lr_fraction: float = Field(0.01, ge=0, le=1, description="learning rate of the last step, as share of lr")
    warmup_steps: int = Field(100, ge=0, description="steps in which the learning rate rises from 0")
    weight_decay: float = Field(0.01, ge=0, description="decay of convolution weights")
    clip_norm: float = Field(10.0, gt=0, description="gradients are scaled down to this norm")
    ema_decay: float = Field(0.998, ge=0, lt=1, description="decay a step of the averaged weights that are kept")
    ema_warmup_steps: int = Field(200, ge=1, description="steps in which that decay rises from 0 to 63 % of it")


@dataclass(frozen=True)
class Phase:
    """A stretch of training, with what it learns from.

    Attributes:
        stretch: its steps and learning rate; one that goes on from others does so with their weights, optimizer and
            learning rate, any other begins with the averaged weights and a fresh optimizer.
        examples: makes the training set, given the network as the phase before left it; given None it reads back the
            one made before training was interrupted.
        after: is given the network with the averaged weights that the phase ended with; an interrupted training may
            call it again, with the same weights. None: nothing is to be done.
    """

    stretch: Stretch
    examples: Callable[[Network | None], Sequence[Example]]
    after: Callable[[Network], None] | None = None

    def learning_rate(self, step: int, config: OptimizerConfig) -> float:
        """Rate of its step 0…steps-1."""
        own = self.stretch
        return own.lr_factor * learning_rate(own.before + step, own.before + own.steps + own.after, config)


@dataclass(frozen=True)
class LoopConfig:
    """What the loop needs besides network and data; see `DetectTrainConfig`."""

    optimizer: OptimizerConfig
    augment: AugmentConfig
    batch_size: int
    seed: int
    bf16: bool
    makers: int
    log_every_steps: int
    checkpoint_every_steps: int

    def chance(self, phase: int, step: int) -> int:
        """Seed of what a network draws in a step: a function of the training's seed and the step alone."""
        return int(np.random.SeedSequence([self.seed, phase, step]).generate_state(1)[0])


@dataclass
class _State:
    """All that a step changes, apart from `metrics.jsonl`."""

    phase: int
    step: int
    network: Any
    criterion: Criterion
    ema: Any
    optimizer: torch.optim.Optimizer
    losses: dict[str, float] = field(default_factory=dict)  # summed since the last row of metrics

    def save(self, path: Path) -> None:
        tensors = {f"network/{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"ema/{name}": tensor for name, tensor in self.ema.ema.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": value for name, value in values.items()}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_bytes(path, safetensors.torch.save(tensors, {"phase": str(self.phase), "step": str(self.step)}))

    def load(self, path: Path, stretch: Stretch) -> None:
        """Takes on what `save` wrote in that stretch."""
        tensors = safetensors.torch.load_file(path)
        self.network.load_state_dict(_under("network", tensors))
        self.ema.ema.load_state_dict(_under("ema", tensors))
        values: dict[int, dict[str, torch.Tensor]] = {}
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for name, tensor in _under("optimizer", tensors).items():
            index, _, key = name.partition("/")
            # the fused kernel walks memory: its averages must lie as the weights do, channels last
            like = weights[int(index)]
            laid = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
            values.setdefault(int(index), {})[key] = laid
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": values})
        self.phase, self.step = _position(path)
        self.ema.updates = stretch.averaged + self.step


def train(network: Network, phases: Sequence[Phase], regions: Regions, config: LoopConfig, run: RunFolder) -> None:
    """Trains `network`, where it is, in place through all phases; it ends with the averaged weights of the last one.

    Each phase starts from the averaged weights of the one before, with a fresh optimizer, unless it goes on from that
    one. An interrupted run goes on from its last checkpoint and ends with the same weights as an undisturbed one: on a
    CPU bit for bit, on CUDA as far as its sums, whose order is chance, let two runs agree.

    Raises:
        RunError: if the loss is no longer finite.
    """
    checkpoint = run.checkpoints / "last.safetensors"
    resumed = checkpoint.is_file()
    first, done = _position(checkpoint) if resumed else (0, 0)
    run.keep_metrics([row for row in run.metrics() if (row["phase"], row["step"]) <= (first, done)])
    state: _State | None = None
    averaged = network
    for number, phase in enumerate(phases):
        if number < first:
            continue
        going_on = resumed and number == first
        examples = phase.examples(None if going_on else averaged)
        if state is None or not phase.stretch.before:
            network.module.load_state_dict(averaged.module.state_dict())
            state = _start(network, number, phase.stretch, config)
            averaged = replace(network, module=state.ema.ema)
        state.phase, state.step = number, 0
        if going_on:
            state.load(checkpoint, phase.stretch)
        _train_phase(state, phase, examples, regions, config, run, checkpoint)
        if phase.after is not None:
            phase.after(averaged)
    network.module.load_state_dict(averaged.module.state_dict())


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Rate of step 0…steps-1: rises linearly over the warm-up, then falls to the last one along half a cosine."""
    warmup = min(config.warmup_steps, steps // 2)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    last = config.lr * config.last_lr_fraction
    return last + (config.lr - last) * (1 + math.cos(math.pi * progress)) / 2


def _start(network: Network, number: int, stretch: Stretch, config: LoopConfig) -> _State:
    import_ultralytics()
    from ultralytics.utils.torch_utils import ModelEMA

    settings = config.optimizer
    decayed = [weight for weight in network.module.parameters() if weight.requires_grad and weight.ndim > 1]
    plain = [weight for weight in network.module.parameters() if weight.requires_grad and weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return _State(
        phase=number,
        step=0,
        network=network.module,
        criterion=criterion_of(network, bf16=config.bf16),
        ema=ModelEMA(network.module, settings.ema_decay, settings.ema_warmup_steps, stretch.averaged),
        optimizer=torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.999), fused=True),
    )


def _train_phase(
    state: _State,
    phase: Phase,
    examples: Sequence[Example],
    regions: Regions,
    config: LoopConfig,
    run: RunFolder,
    checkpoint: Path,
) -> None:
    state.network.train()
    key = (config.seed, state.phase)
    name, steps = phase.stretch.name, phase.stretch.steps
    made = batches(examples, regions, config.augment, config.batch_size, key, range(state.step, steps), config.makers)
    bar = tqdm(made, f"detector on {name} boxes", steps, initial=state.step, unit="step", disable=None)
    for batch in bar:
        rate = phase.learning_rate(state.step, config.optimizer)
        _step(state, batch, rate, config)
        state.step += 1
        logged = state.step % config.log_every_steps == 0 or state.step == steps
        if logged:
            run.log(phase=state.phase, boxes=name, step=state.step, lr=rate, **_mean_losses(state))
        if state.step % config.checkpoint_every_steps == 0 or state.step == steps:
            state.save(checkpoint)


def _step(state: _State, batch: dict[str, torch.Tensor], rate: float, config: LoopConfig) -> None:
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    total, parts = state.criterion(batch, config.chance(state.phase, state.step))
    if not torch.isfinite(total):
        raise RunError(
            f"the loss became {total.item()} at step {state.step + 1}; lower optimizer.lr"
            + (" or set bf16: false" if config.bf16 else "")
        )
    total.backward()
    torch.nn.utils.clip_grad_norm_(state.network.parameters(), config.optimizer.clip_norm)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.ema.update(state.network)
    for name, value in parts.items():
        state.losses[name] = state.losses.get(name, 0.0) + float(value)
    state.losses["steps"] = state.losses.get("steps", 0.0) + 1


def _mean_losses(state: _State) -> dict[str, float]:
    steps = state.losses.pop("steps")
    means = {name: round(total / steps, 6) for name, total in state.losses.items()}
    state.losses.clear()
    return means


def _position(checkpoint: Path) -> tuple[int, int]:
    with safetensors.safe_open(checkpoint, "pt") as file:
        stamp = file.metadata()
    return int(stamp["phase"]), int(stamp["step"])


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
