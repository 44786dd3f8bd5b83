"""The training loop: phases, epochs, validation, early stop, rollback, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from tqdm import tqdm

from classify.batches import turns
from classify.checkpoint import Checkpoint, Progress, Tensors, capture, put_back, weights_of
from classify.checkpoint_files import CheckpointFiles, Found
from classify.compute import Precision
from classify.distributed import Processes
from classify.ema import Ema
from classify.learner import Learner, NotFiniteError
from classify.mean_teacher import ramped, view_seed
from classify.optimizer import make_optimizer, scaled_rate
from classify.phase import Phase
from classify.rollback import after_rollback, due
from classify.sampler import Rows, Sampler
from classify.schedule import after_epoch, learning_rate
from classify.settings import TrainConfig
from classify.studies import StudyBatch, StudyBatches
from classify.study_network import Network
from classify.validation import Part, val_figures
from weakray.errors import DivergedError, RunError
from weakray.runs import RunFolder
from weakray.taxonomy import Taxonomy


@dataclass
class Trainer:
    """One classifier in training.

    Attributes:
        model: on its device.
        config: how to train.
        phases: what is trained one after the other.
        train: what it learns from.
        sampler: which of them an epoch shows.
        val: what chooses the best epoch.
        taxonomy: the findings.
        device: where the model is.
        precision: of the forward.
        processes: who shares the training; all of them know the same, the first one writes.
        folder: where checkpoints and figures go.
        report: takes each epoch's figures.
    """

    model: Network
    config: TrainConfig
    phases: Sequence[Phase]
    train: Part
    sampler: Sampler
    val: Part
    taxonomy: Taxonomy
    device: torch.device
    precision: Precision
    processes: Processes
    folder: RunFolder
    report: Callable[[Mapping[str, Any]], None]

    progress: Progress = field(init=False, default_factory=Progress)
    best: Tensors | None = field(init=False, default=None)
    _learner: Learner = field(init=False)
    _good: Checkpoint = field(init=False)  # what a figure that is not finite sends training back to
    _files: CheckpointFiles = field(init=False)
    _bar: tqdm[Any] = field(init=False)

    def fit(self) -> tuple[Progress, Tensors]:
        """Trains from the last checkpoint on; returns the counts and the best epoch's weights.

        Raises:
            DivergedError: if losses are not finite again and again.
            RunError: if a checkpoint cannot be written, or none of those there can be used.
        """
        self._files = self.processes.by_first(lambda: CheckpointFiles(self.folder.checkpoints))
        self._begin(self.processes.by_first(self._files.load))
        per_epoch = self.sampler.batches_per_epoch
        total = sum(phase.epochs for phase in self.phases) * per_epoch
        done = self.progress.epoch * per_epoch + self.progress.batch
        quiet = None if self.processes.first else True
        with tqdm(total=total, initial=done, desc="train", unit="batch", disable=quiet) as self._bar:
            while True:
                while not self._ended():
                    self._epoch()
                if self.progress.phase + 1 == len(self.phases):
                    break
                self._next_phase()
        if self.best is None:
            raise RunError(f"{self.folder.root}: training ended without an epoch; expected epochs >= 1")
        return self.progress, self.best

    @property
    def _phase(self) -> Phase:
        return self.phases[self.progress.phase]

    def _begin(self, found: Found | None) -> None:
        """Takes up training where the checkpoint found it, or at its start."""
        if found is not None:
            self.progress = found.now.progress  # the phase decides what is built
        self._learner = self._new_learner()
        if found is None:
            self._good = capture(self._learner, self.progress)
            self.processes.by_first(lambda: self.folder.keep_metrics([]))
            return
        try:
            self.progress = put_back(found.now, self._learner)
        except (RuntimeError, IndexError, KeyError) as error:
            raise RunError(
                f"{self._files.folder}: the checkpoint cannot be used ({error}); remove the run folder"
            ) from None
        self._good, self.best = found.earlier, found.best
        self.processes.by_first(lambda: self.folder.keep_metrics(self.folder.metrics()[: self.progress.rows]))
        for name, reason in found.unusable:
            self.progress.unusable += 1
            self._log(event="unusable checkpoint", file=name, reason=reason)

    def _new_learner(self) -> Learner:
        """What a phase starts with; only its weights come from before."""
        phase, config, ema = self._phase, self.config, self.config.ema
        phase.freeze(self.model)
        return Learner(
            self.model,
            make_optimizer(self.model, config.optimizer),
            None if ema.decay is None else Ema(self.model, ema.decay, ema.warmup),
            GradScaler(self.device.type, enabled=self.precision == "fp16"),
            phase.targets,
            self.processes.criterion(phase.criterion),
            self.precision,
            config.clip_norm,
            self.device,
            self.processes,
        )

    def _next_phase(self) -> None:
        """Goes on to the next phase with the best weights so far."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        now = self.progress
        self.progress = replace(
            now, phase=now.phase + 1, phase_epoch=now.epoch, updates=0, epochs_since_best=0, waited=0, drops=0
        )
        self._learner = self._new_learner()

    def _ended(self) -> bool:
        """Whether the phase is over."""
        now, patience = self.progress, self.config.early_stop.patience_epochs
        stopped = patience is not None and now.epochs_since_best >= patience
        return stopped or now.epoch - now.phase_epoch >= self._phase.epochs

    def _epoch(self) -> None:
        """Trains an epoch, validates it, writes its figures and a checkpoint."""
        figures = self._learn_and_validate()
        config, metric, now = self.config, self.config.early_stop.metric, self.progress
        row: dict[str, Any] = {
            "epoch": now.epoch + 1,
            "lr": self._rate(self.sampler.batches_per_epoch - 1),
            "train_loss": now.loss_sum / now.steps if now.steps else None,
        }
        if config.mean_teacher.weight is not None:
            row["train_disagreement"] = now.disagreement_sum / now.steps if now.steps else None
        if len(self.phases) > 1:
            row["phase"] = now.phase + 1
        row |= figures
        better = self._better(row[metric])
        now.epoch, now.batch, now.steps, now.loss_sum, now.disagreement_sum = now.epoch + 1, 0, 0, 0.0, 0.0
        now.waited, now.drops = after_epoch(config.schedule, now.waited, now.drops, better)
        if better:
            now.best_score, now.best_epoch, now.epochs_since_best = row[metric], now.epoch, 0
            self.best = weights_of(self._learner.judged)
        else:
            now.epochs_since_best += 1
        self._log(**row)
        self.report(row)
        self._good = capture(self._learner, now)
        self._save(self._good)
        self._bar.set_postfix({metric: f"{row[metric]:.4f}", "best": f"{now.best_score:.4f}"})

    def _learn_and_validate(self) -> dict[str, Any]:
        config = self.config
        while True:
            try:
                self._train_epoch()
                return val_figures(
                    self._learner,
                    self._phase,
                    self.val,
                    self.taxonomy,
                    config.hierarchy,
                    config.batch_size,
                    config.workers,
                )
            except NotFiniteError as event:
                self._go_back(event, None)

    def _rate(self, batch: int) -> float:
        """Learning rate at a batch of the running epoch."""
        phase, now, per_epoch = self._phase, self.progress, self.sampler.batches_per_epoch
        peak = scaled_rate(phase.lr, self.config.optimizer.lr_batch_size, self.config.batch_size)
        step = (now.epoch - now.phase_epoch) * per_epoch + batch
        rate = learning_rate(self.config.schedule, peak, step, phase.epochs * per_epoch, per_epoch, now.drops)
        return rate * now.rate_factor

    def _better(self, score: float) -> bool:
        best = self.progress.best_score
        return best is None or (score < best if self.config.early_stop.metric == "val_loss" else score > best)

    def _train_epoch(self) -> None:
        """What is left of the running epoch."""
        batches = self.sampler.batches(self.progress.epoch)
        self._phase.set_mode(self.model)
        while self.progress.batch < len(batches):
            try:
                for number, rows, batch, view in self._batches(batches):
                    self.progress.batch = number
                    self._step(len(batches), rows, batch, view)
                self.progress.batch = len(batches)
            except NotFiniteError as event:
                self._go_back(event, self.progress.batch)

    def _batches(self, batches: Sequence[Rows]) -> Iterator[tuple[int, Rows, StudyBatch, StudyBatch | None]]:
        """Number and study rows of each batch to come, its images, and the same images as the teacher sees them.

        Rows are those of all processes, images those of this one's part.
        """
        config, now = self.config, self.progress
        numbers = [b for b in range(now.batch, len(batches)) if [now.epoch, b] not in now.left_out]
        left, turn = [batches[b] for b in numbers], turns(batches)
        own, own_turns = ([self.processes.part(rows) for rows in each] for each in (left, [turn[b] for b in numbers]))

        def made(seed: int) -> Iterator[StudyBatch]:
            batches = StudyBatches(self.train.images, self.train.studies, own, own_turns)
            return batches.augmented(config.augment, seed, now.epoch, config.workers)

        taught = self._teacher_weight(0) > 0
        yield from zip(
            numbers, left, made(config.seed), made(view_seed(config.seed)) if taught else repeat(None), strict=False
        )

    def _teacher_weight(self, batch: int) -> float:
        """Weight of agreeing with the teacher at a batch of the running epoch; 0 without one."""
        teacher, now = self.config.mean_teacher, self.progress
        if teacher.weight is None or self._phase.last_layer_only:
            return 0.0
        return ramped(teacher.weight, now.epoch + batch / self.sampler.batches_per_epoch, teacher.ramp_epochs)

    def _step(self, batches: int, rows: Rows, batch: StudyBatch, view: StudyBatch | None) -> None:
        """One batch of the running epoch's."""
        now, every = self.progress, self.config.checkpoint_every_steps
        if due(self.config.rollback, now, self._good.progress):
            self._good = capture(self._learner, now)
        rate, weight = self._rate(now.batch), self._teacher_weight(now.batch)
        self.processes.seed_step(self.config.seed, now.phase, now.epoch, now.batch)
        step = self._learner.learn(rows, batch, rate, now.updates, view, weight)
        now.updates += step.updated
        now.overflows += not step.updated
        now.batch, now.steps = now.batch + 1, now.steps + 1
        now.loss_sum += step.loss
        now.disagreement_sum += step.disagreement
        self._bar.update()
        if every is not None and now.batch % every == 0 and now.batch < batches:
            self._save(capture(self._learner, now))

    def _go_back(self, event: NotFiniteError, batch: int | None) -> None:
        """Back to the last good state, past the batch that was to blame (None: the validation).

        Raises:
            DivergedError: if training went back often enough.
        """
        config, failed = self.config, self.progress
        place = f"epoch {failed.epoch + 1}, " + ("validation" if batch is None else f"step {batch + 1}")
        if failed.rollbacks >= config.rollback.limit:
            raise DivergedError(
                f"{self.folder.root}: {event} in {place}, after {failed.rollbacks} times back to the last good state; "
                f"lower optimizer.lr (now {config.optimizer.lr:g})"
                + (f", or set precision to fp32 (now {self.precision})" if self.precision != "fp32" else "")
            )
        counts = after_rollback(config.rollback, failed, self._good, batch)
        self.progress = replace(put_back(self._good, self._learner), **counts)
        self._log(
            event="rollback",
            what=event.what,
            value=str(event.value),
            at=place,
            back_to=f"epoch {self.progress.epoch + 1}, step {self.progress.batch + 1}",
            rate_factor=self.progress.rate_factor,
        )
        self._bar.n = self.progress.epoch * self.sampler.batches_per_epoch + self.progress.batch
        self._bar.refresh()

    def _save(self, now: Checkpoint) -> None:
        self.processes.by_first(lambda: self._files.save(now, self._good, self.best))

    def _log(self, **values: Any) -> None:
        def write() -> None:
            with self._files.writing():
                self.folder.log(**values)

        self.processes.by_first(write)
        self.progress.rows += 1
