"""The training loop: epochs, validation, early stop, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from classify.batches import epoch_batches, plain_batches, training_batches
from classify.checkpoint import Progress, Tensors, restore, save, weights_of
from classify.compute import precision
from classify.hierarchy import along_paths
from classify.images import Images
from classify.labels import Targets
from classify.loss import Criterion
from classify.model import Classifier
from classify.optimizer import make_optimizer
from classify.schedule import learning_rate
from classify.scores import finding_areas
from classify.settings import TrainConfig
from weakray.errors import DivergedError, RunError
from weakray.runs import RunFolder
from weakray.taxonomy import Taxonomy


@dataclass(frozen=True)
class Part:
    """Images of one split with their labels.

    Attributes:
        images: by row.
        counted: what the loss sees, the conditional mask of the hierarchy applied.
        full: what the scores see.
    """

    images: Images
    counted: Targets
    full: Targets


@dataclass
class Trainer:
    """One classifier in training.

    Attributes:
        model: on its device.
        config: how to train.
        train: what it learns from.
        val: what chooses the best epoch.
        taxonomy: the findings.
        criterion: the loss.
        device: where the model is.
        bf16: autocast to it.
        folder: where checkpoints and figures go.
        report: takes each epoch's figures.
    """

    model: Classifier
    config: TrainConfig
    train: Part
    val: Part
    taxonomy: Taxonomy
    criterion: Criterion
    device: torch.device
    bf16: bool
    folder: RunFolder
    report: Callable[[Mapping[str, Any]], None]

    def fit(self) -> tuple[Progress, Tensors]:
        """Trains from the last checkpoint on; returns the counts and the best epoch's weights.

        Raises:
            RunError: if the loss is not finite, or the metric is undefined on the validation images.
        """
        config, metric = self.config, self.config.early_stop.metric
        optimizer = make_optimizer(self.model, config.optimizer)
        progress, best = restore(self.folder.checkpoints, self.model, optimizer)
        self.folder.keep_metrics(self.folder.metrics()[: progress.epoch])
        per_epoch = len(epoch_batches(len(self.train.images), config.batch_size, config.seed, 0))
        done = progress.epoch * per_epoch + progress.batch
        with tqdm(total=config.epochs * per_epoch, initial=done, desc="train", unit="batch", disable=None) as bar:
            while progress.epoch < config.epochs and not self._stopped(progress):
                self._train_epoch(progress, optimizer, best, bar)
                row = {
                    "epoch": progress.epoch + 1,
                    "lr": self._rate((progress.epoch + 1) * per_epoch - 1, per_epoch),
                    "train_loss": progress.loss_sum / per_epoch,
                    **self._validate(progress.epoch),
                }
                progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
                if self._better(progress, row[metric]):
                    progress.best_score, progress.best_epoch = row[metric], progress.epoch
                    progress.epochs_since_best, best = 0, weights_of(self.model)
                else:
                    progress.epochs_since_best += 1
                self.folder.log(**row)
                self.report(row)
                save(self.folder.checkpoints, progress, self.model, optimizer, best)
                bar.set_postfix(
                    {
                        config.early_stop.metric: f"{row[config.early_stop.metric]:.4f}",
                        "best": f"{progress.best_score:.4f}",
                    }
                )
        if best is None:
            raise RunError(f"{self.folder.root}: training ended without an epoch; expected epochs >= 1")
        return progress, best

    def _rate(self, step: int, per_epoch: int) -> float:
        return learning_rate(self.config.schedule, self.config.optimizer.lr, step, self.config.epochs * per_epoch)

    def _stopped(self, progress: Progress) -> bool:
        patience = self.config.early_stop.patience_epochs
        return patience is not None and progress.epochs_since_best >= patience

    def _better(self, progress: Progress, score: float | None) -> bool:
        metric = self.config.early_stop.metric
        if score is None:
            raise RunError(
                f"{metric}: undefined, no finding has both positive and negative validation images; "
                "set early_stop.metric to val_loss, or make a larger val split"
            )
        if progress.best_score is None:
            return True
        return score < progress.best_score if metric == "val_loss" else score > progress.best_score

    def _train_epoch(
        self, progress: Progress, optimizer: torch.optim.Optimizer, best: Tensors | None, bar: tqdm[Any]
    ) -> None:
        config, epoch = self.config, progress.epoch
        values, mask = torch.from_numpy(self.train.counted.values), torch.from_numpy(self.train.counted.mask)
        batches = epoch_batches(len(self.train.images), config.batch_size, config.seed, epoch)
        left = batches[progress.batch :]
        made = training_batches(self.train.images, left, config.augment, config.seed, epoch, config.workers)
        self.model.train()
        for rows, pixels in zip(left, made, strict=True):
            step = epoch * len(batches) + progress.batch
            for group in optimizer.param_groups:
                group["lr"] = self._rate(step, len(batches)) * group["lr_factor"]
            optimizer.zero_grad(set_to_none=True)
            with precision(self.device, self.bf16):
                logits = self.model(_on(pixels, self.device)).logits
            picked = torch.from_numpy(rows)
            loss = self.criterion(logits, values[picked].to(self.device), mask[picked].to(self.device))
            loss_value = self._finite(loss, f"epoch {epoch + 1}, step {step + 1}")
            loss.backward()  # type: ignore[no-untyped-call]
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            optimizer.step()
            progress.batch += 1
            progress.loss_sum += loss_value
            bar.update()
            every = config.checkpoint_every_steps
            if every is not None and progress.batch % every == 0 and progress.batch < len(batches):
                save(self.folder.checkpoints, progress, self.model, optimizer, best)

    def _finite(self, loss: torch.Tensor, place: str) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise DivergedError(
                f"{self.folder.root}: the loss became {value} in {place}; lower optimizer.lr "
                f"(now {self.config.optimizer.lr:g}), or set bf16 to false (now {str(self.bf16).lower()})"
            )
        return value

    def _validate(self, epoch: int) -> dict[str, Any]:
        """Loss and areas on the validation images; the areas are of probabilities that respect the class tree."""
        self.model.eval()
        made = plain_batches(self.val.images, self.config.batch_size, self.config.workers)
        with torch.inference_mode(), precision(self.device, self.bf16):
            logits = torch.cat([self.model(_on(pixels, self.device)).logits for pixels in made])
        values, mask = torch.from_numpy(self.val.counted.values), torch.from_numpy(self.val.counted.mask)
        loss = self.criterion(logits, values.to(self.device), mask.to(self.device))
        probability = along_paths(logits.sigmoid().cpu(), self.taxonomy, self.config.hierarchy).numpy()
        areas = finding_areas(probability, self.val.full, self.taxonomy.names)
        return {
            "val_loss": self._finite(loss, f"the validation of epoch {epoch + 1}"),
            **{f"val_{name}": value for name, value in areas.items()},
        }


def _on(pixels: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
