"""One training by several processes, on one machine or many: who takes what, and what they tell each other.

`torchrun` (or `accelerate launch`) starts the processes; accelerate joins them, by gloo on CPU and NCCL on CUDA. Each
step's images are what they are with one process: the draws of sampler and augmentation know no process. Of b images the
processes take parts in order, the first b mod p of p one image more. What counts in the loss is summed up over all
(`classify.loss`) and gradients are averaged, so that weights, averages, checkpoints and every decision are the same in
all. The first process alone writes, and tells the others what it read: the run folder need be on its machine only, the
dataset (and `init`) on every one.

Dropout and stochastic depth draw from (seed, phase, epoch, batch, process): no state of random numbers need be kept,
and a run may go on with another number of processes, but with dropout that number changes the result.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from classify.loss import Criterion, Loss, LossKind
from classify.sampler import Rows
from classify.study_network import ByView, Network, classifiers_of
from weakray.errors import ConfigError, WeakrayError
from weakray.stack import silence

T = TypeVar("T")
_DROPOUT = 4  # stream of random numbers drawn from the seed
_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what a launcher tells each process


class Processes:
    """A training by one process alone: nothing to share out, nobody to ask.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
    """

    rank = 0
    count = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def part(self, rows: Rows) -> Rows:
        """What this process takes of rows `(n,)`."""
        return np.array_split(rows, self.count)[self.rank]

    def share(self, rows: Rows) -> float:
        """What a mean over this process's part weighs in the mean over all rows, times the number of processes."""
        return len(self.part(rows)) * self.count / len(rows)

    def by_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, which alone does it.

        Raises:
            WeakrayError: in every process, if the first one's work does.
        """
        return work()

    def mean(self, values: Tensor) -> Tensor:
        """Means `(n,)` over the processes; what is not finite in one is not finite in all."""
        return values

    def gathered(self, own: Tensor, total: int) -> Tensor:
        """The parts `(n_r, …)` of all processes in order, `(total, …)`, none twice."""
        return own[:total]

    def criterion(self, whole: Loss) -> Criterion:
        """The loss of a part, of which the gradients' mean over the processes is the gradient of the whole."""
        return whole

    def synchronised(self, model: Network) -> Network:
        """The model, its batch statistics those of all processes, where its device can."""
        return model

    def wrapped(self, model: Network) -> Callable[[Tensor], Any]:
        """The forward after which `backward` averages gradients."""
        return model

    def agree(self, model: Network) -> None:
        """Makes the running statistics the same in all processes: their means."""

    def seed_step(self, *place: int) -> None:
        """Seeds what a step draws in the model: from the training's seed and the step's place."""


class _Several(Processes):
    """This process and others, joined."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count

    def by_first(self, work: Callable[[], T]) -> T:
        from accelerate.utils import broadcast_object_list

        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = work()
            except WeakrayError as error:
                told[1] = error
        made, failure = broadcast_object_list(told, from_process=0)
        if failure is not None:
            raise failure
        return made

    def mean(self, values: Tensor) -> Tensor:
        from accelerate.utils import reduce

        return reduce(values, "mean")

    def gathered(self, own: Tensor, total: int) -> Tensor:
        from accelerate.utils import gather

        sizes = [len(part) for part in np.array_split(np.arange(total), self.count)]
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = gather(padded).split(max(sizes))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def criterion(self, whole: Loss) -> Criterion:
        from accelerate.utils import reduce

        def of_part(logits: Tensor, values: Tensor, mask: Tensor, uncertain: Tensor | None) -> Tensor:
            terms = whole.terms(logits, values, mask, uncertain)
            return terms.total * self.count / reduce(terms.counted, "sum").clamp(min=1)

        return of_part

    def synchronised(self, model: Network) -> Network:
        return model if next(model.parameters()).device.type == "cpu" else shared_statistics(model)

    def wrapped(self, model: Network) -> Callable[[Tensor], Any]:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs, DistributedType

        how = DistributedDataParallelKwargs(find_unused_parameters=_has_unused(model))
        cpu = next(model.parameters()).device.type == "cpu"
        joined = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[how])
        if joined.distributed_type not in (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
            raise ConfigError(
                f"accelerate launch: expected processes that hold the whole model each (MULTI_CPU or MULTI_GPU), got "
                f"{joined.distributed_type.value}; change accelerate's config, or start by torchrun"
            )
        return joined.prepare_model(model, device_placement=False)

    @torch.no_grad()
    def agree(self, model: Network) -> None:
        own = [
            statistic
            for part in _norms(model)
            if not isinstance(part, nn.SyncBatchNorm)
            for statistic in (part.running_mean, part.running_var)
            if statistic is not None
        ]
        if own:
            means = self.mean(torch.cat(own)).split([len(statistic) for statistic in own])
            for statistic, mean in zip(own, means, strict=True):
                statistic.copy_(mean)

    def seed_step(self, *place: int) -> None:
        drawn = np.random.SeedSequence([*place, _DROPOUT, self.rank]).generate_state(1, np.uint64)[0]
        torch.manual_seed(int(drawn))


def shared_statistics(model: Network) -> Network:
    """The model with batch norms that take their statistics from all processes; they compute on CUDA alone."""
    silence()
    from timm.layers import convert_sync_batchnorm

    return convert_sync_batchnorm(model)  # torch's own loses the activation inside timm's norms


def differences(processes: Processes, model: Network, kind: LossKind, images: int) -> list[str]:
    """What the number of processes changes in a training with steps of so many images, a sentence each.

    Raises:
        ConfigError: if a step has too few images for these processes, or a process may have none of a view.
    """
    count = processes.count
    if count == 1:
        return []
    if isinstance(model, ByView):
        raise ConfigError(
            f"studies: by_view trains in one process, got {count}: the part of one may hold no image of a view, and "
            "the others would wait for it; start one process, or set studies to sum"
        )
    own = any(not isinstance(part, nn.SyncBatchNorm) for part in _norms(model))
    least = 2 * count if own else count
    if images < least:
        raise ConfigError(
            f"batch_size: expected at least {least} images a step for {count} processes"
            + (" (batch norm learns from 2 or more each)" if own else "")
            + f", got {images}; raise it, or start fewer processes"
        )
    found = []
    if own:
        found.append(
            f"batch norm on CPU takes its statistics from the {images // count} or more images of one process, not "
            f"from all {images} of a step, so the weights differ from those of one process; on CUDA they are shared"
        )
    if kind == "auc_margin":
        found.append("loss.kind auc_margin compares the images of one process with each other, not all of a step")
    return found


def joined_processes(cpu: bool) -> Processes:
    """Joins the processes that a launcher started with this one; alone where there was none.

    They stay joined until they end: a second training in them finds them so.

    Args:
        cpu: train on CPU, whatever else is there.

    Raises:
        ConfigError: if the launcher's variables do not fit together, a CUDA device each is not there, or accelerate is
            not installed.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return Processes()
    local = _told()
    if not cpu and local >= torch.cuda.device_count():
        raise ConfigError(
            f"device: expected a CUDA device for each process of a machine, got {torch.cuda.device_count()} for "
            f"{local + 1} or more; start no more processes than devices, or set device to cpu"
        )
    silence()
    try:
        from accelerate import PartialState
    except ImportError:
        raise ConfigError(
            "WORLD_SIZE: training by several processes needs the package accelerate; install it, or start one process"
        ) from None
    # Where nobody set it, accelerate sets torch's threads itself, and warns.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    state = PartialState(cpu=cpu)
    atexit.register(state.destroy_process_group)
    return _Several(state.process_index, state.num_processes)


def _told() -> int:
    """Number of this process on its machine, once all that a launcher tells was looked at."""
    told = {name: os.environ.get(name, "") for name in _LAUNCHED}
    missing = [name for name, text in told.items() if not text]
    hint = "start by `torchrun --nproc-per-node 2 -m weakray.cli classify train …`, or unset WORLD_SIZE"
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {told['WORLD_SIZE']!r} in the environment, expected {', '.join(missing)} beside it, "
            f"as a launcher sets them; {hint}"
        )
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        if not told[name].isdecimal():
            raise ConfigError(f"{name}: expected a whole number in the environment, got {told[name]!r}; {hint}")
    if int(told["RANK"]) >= int(told["WORLD_SIZE"]):
        raise ConfigError(f"RANK: expected less than WORLD_SIZE {told['WORLD_SIZE']}, got {told['RANK']}; {hint}")
    return int(told["LOCAL_RANK"])


def _norms(model: nn.Module) -> list[_NormBase]:
    return [part for part in model.modules() if isinstance(part, _NormBase) and part.track_running_stats]


def _has_unused(model: Network) -> bool:
    """Whether parameters that learn take no part in the logits: gradients are then waited for in vain."""
    trial = deepcopy(model).train()
    (classifier,) = classifiers_of(trial)
    spec = classifier.config.input
    found = classifier(torch.zeros(2, spec.channels, spec.size_px, spec.size_px, device=classifier.mean.device))
    (found.logits.sum() if found.uncertain is None else found.logits.sum() + found.uncertain.sum()).backward()
    return any(weight.requires_grad and weight.grad is None for weight in trial.parameters())
