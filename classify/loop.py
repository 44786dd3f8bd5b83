"""The training loop: epochs, validation, early stop, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from classify.checkpoint import Progress, Tensors, restore, save, weights_of
from classify.compute import precision
from classify.data import AugmentConfig, PreparedImages, epoch_batches, plain_batches, training_batches
from classify.hierarchy import Hierarchy, along_paths
from classify.labels import Targets
from classify.loss import masked_bce, one_cycle
from classify.model import Classifier
from classify.scores import finding_areas
from weakray.errors import RunError
from weakray.runs import RunFolder
from weakray.taxonomy import Taxonomy

Metric = Literal["val_macro_auroc", "val_macro_auprc", "val_loss"]


@dataclass(frozen=True)
class Part:
    """Images of one split with their labels.

    Attributes:
        images: by row.
        counted: what the loss sees, the conditional mask of the hierarchy applied.
        full: what the scores see.
    """

    images: PreparedImages
    counted: Targets
    full: Targets


@dataclass(frozen=True)
class Plan:
    """How to train; the settings of `TrainConfig` with every choice made."""

    seed: int
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup_fraction: float
    clip_norm: float | None
    metric: Metric
    patience_epochs: int | None
    augment: AugmentConfig
    hierarchy: Hierarchy
    bf16: bool
    workers: int
    checkpoint_every_steps: int | None


@dataclass
class Trainer:
    """One classifier in training.

    Attributes:
        model: on its device.
        plan: how to train.
        train: what it learns from.
        val: what chooses the best epoch.
        taxonomy: the findings.
        positive_weight: `(k,)`, of the loss.
        folder: where checkpoints and figures go.
        report: takes each epoch's figures.
    """

    model: Classifier
    plan: Plan
    train: Part
    val: Part
    taxonomy: Taxonomy
    positive_weight: torch.Tensor
    folder: RunFolder
    report: Callable[[Mapping[str, Any]], None]

    def fit(self) -> tuple[Progress, Tensors]:
        """Trains from the last checkpoint on; returns the counts and the best epoch's weights.

        Raises:
            RunError: if the loss is not finite, or the metric is undefined on the validation images.
        """
        plan, optimizer = self.plan, self._optimizer()
        progress, best = restore(self.folder.checkpoints, self.model, optimizer)
        self.folder.keep_metrics(self.folder.metrics()[: progress.epoch])
        per_epoch = len(epoch_batches(len(self.train.images), plan.batch_size, plan.seed, 0))
        done = progress.epoch * per_epoch + progress.batch
        with tqdm(total=plan.epochs * per_epoch, initial=done, desc="train", unit="batch", disable=None) as bar:
            while progress.epoch < plan.epochs and not self._stopped(progress):
                self._train_epoch(progress, optimizer, best, bar)
                row = {
                    "epoch": progress.epoch + 1,
                    "lr": one_cycle(
                        (progress.epoch + 1) * per_epoch - 1, plan.epochs * per_epoch, plan.lr, plan.warmup_fraction
                    ),
                    "train_loss": progress.loss_sum / per_epoch,
                    **self._validate(progress.epoch),
                }
                progress.epoch, progress.batch, progress.loss_sum = progress.epoch + 1, 0, 0.0
                if self._better(progress, row[plan.metric]):
                    progress.best_score, progress.best_epoch = row[plan.metric], progress.epoch
                    progress.epochs_since_best, best = 0, weights_of(self.model)
                else:
                    progress.epochs_since_best += 1
                self.folder.log(**row)
                self.report(row)
                save(self.folder.checkpoints, progress, self.model, optimizer, best)
                bar.set_postfix({plan.metric: f"{row[plan.metric]:.4f}", "best": f"{progress.best_score:.4f}"})
        if best is None:
            raise RunError(f"{self.folder.root}: training ended without an epoch; expected epochs >= 1")
        return progress, best

    def _optimizer(self) -> torch.optim.Optimizer:
        """AdamW; biases and norms do not decay."""
        kinds: tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]] = ([], [])
        for parameter in self.model.parameters():
            kinds[parameter.ndim > 1].append(parameter)
        groups: list[dict[str, Any]] = [{"params": kinds[0], "weight_decay": 0.0}, {"params": kinds[1]}]
        return torch.optim.AdamW(groups, lr=self.plan.lr, weight_decay=self.plan.weight_decay, fused=True)

    def _stopped(self, progress: Progress) -> bool:
        patience = self.plan.patience_epochs
        return patience is not None and progress.epochs_since_best >= patience

    def _better(self, progress: Progress, score: float | None) -> bool:
        if score is None:
            raise RunError(
                f"{self.plan.metric}: undefined, no finding has both positive and negative validation images; "
                "set early_stop.metric to val_loss, or make a larger val split"
            )
        if progress.best_score is None:
            return True
        return score < progress.best_score if self.plan.metric == "val_loss" else score > progress.best_score

    def _train_epoch(
        self, progress: Progress, optimizer: torch.optim.Optimizer, best: Tensors | None, bar: tqdm[Any]
    ) -> None:
        plan, epoch = self.plan, progress.epoch
        device = self.positive_weight.device
        values, mask = torch.from_numpy(self.train.counted.values), torch.from_numpy(self.train.counted.mask)
        batches = epoch_batches(len(self.train.images), plan.batch_size, plan.seed, epoch)
        left = batches[progress.batch :]
        made = training_batches(self.train.images, left, plan.augment, plan.seed, epoch, plan.workers)
        self.model.train()
        for rows, pixels in zip(left, made, strict=True):
            step = epoch * len(batches) + progress.batch
            rate = one_cycle(step, plan.epochs * len(batches), plan.lr, plan.warmup_fraction)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            with precision(device, plan.bf16):
                logits = self.model(_on(pixels, device)).logits
            picked = torch.from_numpy(rows)
            loss = masked_bce(logits, values[picked].to(device), mask[picked].to(device), self.positive_weight)
            loss_value = self._finite(loss, f"epoch {epoch + 1}, step {step + 1}")
            loss.backward()  # type: ignore[no-untyped-call]
            if plan.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), plan.clip_norm)
            optimizer.step()
            progress.batch += 1
            progress.loss_sum += loss_value
            bar.update()
            every = plan.checkpoint_every_steps
            if every is not None and progress.batch % every == 0 and progress.batch < len(batches):
                save(self.folder.checkpoints, progress, self.model, optimizer, best)

    def _finite(self, loss: torch.Tensor, place: str) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise RunError(
                f"{self.folder.root}: the loss became {value} in {place}; lower optimizer.lr (now {self.plan.lr:g}), "
                f"or set bf16 to false (now {str(self.plan.bf16).lower()})"
            )
        return value

    def _validate(self, epoch: int) -> dict[str, Any]:
        """Loss and areas on the validation images; the areas are of probabilities that respect the class tree."""
        device = self.positive_weight.device
        self.model.eval()
        made = plain_batches(self.val.images, self.plan.batch_size, self.plan.workers)
        with torch.inference_mode(), precision(device, self.plan.bf16):
            logits = torch.cat([self.model(_on(pixels, device)).logits.cpu() for pixels in made])
        counted = self.val.counted
        loss = masked_bce(
            logits, torch.from_numpy(counted.values), torch.from_numpy(counted.mask), self.positive_weight.cpu()
        )
        probability = along_paths(logits.sigmoid(), self.taxonomy, self.plan.hierarchy).numpy()
        areas = finding_areas(probability, self.val.full, self.taxonomy.names)
        return {
            "val_loss": self._finite(loss, f"the validation of epoch {epoch + 1}"),
            **{f"val_{name}": value for name, value in areas.items()},
        }


def _on(pixels: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
    return torch.from_numpy(pixels).to(device, memory_format=torch.channels_last)
