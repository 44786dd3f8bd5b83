"""`weakray classify train`: one multi-label classifier from a dataset's train labels; val chooses the best epoch."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from classify.compute import DeviceName, bf16_pays, torch_device, torch_threads
from classify.data import AugmentConfig, PreparedImages
from classify.hierarchy import Hierarchy
from classify.labels import Blanks, Uncertainty, conditional, lift_ancestors, policies, positive_weights, targets
from classify.loop import Metric, Part, Plan, Trainer
from classify.member import save_member
from classify.model import Classifier, ModelConfig
from classify.tracking import Tracking, tracked
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.runs import open_run


class OptimizerConfig(StrictModel):
    """AdamW."""

    lr: float = Field(1e-3, gt=0, description="peak learning rate")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay; biases and norms do not decay")


class OneCycleConfig(StrictModel):
    """The learning rate's course over all epochs."""

    warmup_fraction: float = Field(0.3, ge=0, le=1, description="part of the steps in which the rate rises")


class EarlyStopConfig(StrictModel):
    """What chooses the best epoch, and when to give up."""

    metric: Metric = Field("val_macro_auroc", description="figure on val that chooses the epoch that is kept")
    patience_epochs: int | None = Field(None, ge=1, description="stop after as many epochs without a better one")


class TrainConfig(StrictModel):
    """Settings of `weakray classify train`."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"data", "out", "cache_images", "workers", "threads", "checkpoint_every_steps", "wandb"}
    )

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder")
    seed: int = Field(0, ge=0, description="of the weights, the order and the augmentation")
    model: ModelConfig = Field(ModelConfig(), description="architecture")
    epochs: int = Field(10, ge=1, description="passes over the train images")
    batch_size: int = Field(16, ge=2, description="images a step; what does not fill a batch is left out of the epoch")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="AdamW")
    one_cycle: OneCycleConfig = Field(OneCycleConfig(), description="learning rate's course")
    clip_norm: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null: not clipped")
    early_stop: EarlyStopConfig = Field(EarlyStopConfig(), description="choice of the epoch")
    hierarchy: Hierarchy = Field("conditional", description="how a child's probability depends on its parent's")
    uncertainty: Uncertainty = Field("ignore", description="what an uncertain label counts as in training")
    uncertainty_of: dict[str, Uncertainty] = Field({}, description="exceptions to `uncertainty` by finding")
    blanks: Blanks = Field("zeros", description="what a label that was not mentioned counts as")
    pos_weight_cap: float = Field(10.0, ge=1, description="largest weight of the positives of a rare finding")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes of the train images")
    bf16: bool | Literal["auto"] = Field(
        "auto", description="autocast to bf16; auto: where device and backbone are faster so"
    )
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    cache_images: bool = Field(True, description="keep prepared images in memory")
    workers: int = Field(2, ge=1, description="threads that decode and augment; does not change the result")
    threads: int | None = Field(None, ge=1, description="torch's threads on CPU; null: torch's own choice")
    checkpoint_every_steps: int | None = Field(None, ge=1, description="checkpoints inside an epoch; null: at its end")
    wandb: Tracking = Field("disabled", description="Weights & Biases; offline writes into the run folder alone")


class TrainResult(StrictModel):
    """What a trained classifier reached."""

    best_epoch: int
    epochs: int
    metric: Metric
    score: float
    lifted_labels: int  # train labels raised because a child was present or uncertain
    model_sha256: str


def run(config: TrainConfig) -> TrainResult:
    """Trains, or goes on from the last checkpoint, or returns what a finished run reached.

    Raises:
        DataError: if the dataset has no train or val image.
        RunError: if the loss is not finite, or the metric is undefined on val.
    """
    dataset = Dataset.load(config.data)
    uncertainty = policies(dataset.taxonomy.names, config.uncertainty, config.uncertainty_of)
    folder = open_run(config.out, config, {"dataset": dataset.sha256})
    done = folder.finished()
    if done is not None:
        return TrainResult(**done)
    train, lifted = _part(dataset, "train", config, uncertainty)
    val, _ = _part(dataset, "val", config, ["ignore"] * len(uncertainty))
    device = torch_device(config.device)
    weight = torch.from_numpy(positive_weights(train.counted, config.pos_weight_cap)).to(device)
    devices = [device] if device.type == "cuda" else []
    with (
        torch_threads(config.threads),
        torch.random.fork_rng(devices=devices),
        tracked(config.wandb, folder.root, to_plain(config)) as report,
    ):
        torch.manual_seed(config.seed)
        model = Classifier(config.model, len(dataset.taxonomy)).to(device)
        plan = _plan(config, device, model)
        trainer = Trainer(model, plan, train, val, dataset.taxonomy, weight, folder, report)
        progress, best = trainer.fit()
    sha256 = save_member(folder.root, best, config.model, dataset.taxonomy, config.hierarchy, config.blanks)
    result = TrainResult(
        best_epoch=progress.best_epoch,
        epochs=progress.epoch,
        metric=config.early_stop.metric,
        score=progress.best_score if progress.best_score is not None else float("nan"),
        lifted_labels=lifted,
        model_sha256=sha256,
    )
    folder.finish(to_plain(result))
    shutil.rmtree(folder.checkpoints)  # several times the model's size, and of no more use
    return result


def _plan(config: TrainConfig, device: torch.device, model: Classifier) -> Plan:
    return Plan(
        seed=config.seed,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.optimizer.lr,
        weight_decay=config.optimizer.weight_decay,
        warmup_fraction=config.one_cycle.warmup_fraction,
        clip_norm=config.clip_norm,
        metric=config.early_stop.metric,
        patience_epochs=config.early_stop.patience_epochs,
        augment=config.augment,
        hierarchy=config.hierarchy,
        bf16=bf16_pays(device, model) if config.bf16 == "auto" else config.bf16,
        workers=config.workers,
        checkpoint_every_steps=config.checkpoint_every_steps,
    )


def _part(
    dataset: Dataset, split: Literal["train", "val"], config: TrainConfig, uncertainty: list[Uncertainty]
) -> tuple[Part, int]:
    """A split's images and targets, and how many labels were raised to agree with the class tree."""
    image_ids = dataset.ids_of(split)
    if not image_ids:
        raise DataError(f"{dataset.root}: expected images in split {split}, got none; ingest with a {split} part")
    labels = dataset.labels.loc[image_ids].to_numpy()
    lifted = lift_ancestors(labels, dataset.taxonomy)
    full = targets(lifted, uncertainty, config.blanks)
    counted = conditional(full, dataset.taxonomy) if config.hierarchy == "conditional" else full
    changed = int((~np.isclose(labels, lifted, equal_nan=True)).sum())
    images = PreparedImages(dataset, image_ids, config.model.input, config.cache_images)
    return Part(images, counted, full), changed
