"""`weakray classify train`: one multi-label classifier from a dataset's train labels; val chooses the best epoch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from classify.cache import cached_images
from classify.compute import bf16_pays, torch_device, torch_threads
from classify.images import Images, PreparedImages
from classify.label_statistics import REPORT, label_report, warn
from classify.labels import SoftLabels, Uncertainty, constant_findings, lift_ancestors, policies, targets, without
from classify.loop import Part, Trainer
from classify.loss import counted_targets, criterion
from classify.member import Member, load_member, save_member
from classify.model import Classifier
from classify.settings import Metric, TrainConfig
from classify.tracking import tracked
from classify.transfer import Transfer, take_weights
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.files import write_json
from weakray.runs import open_run


class TrainResult(StrictModel):
    """What a trained classifier reached."""

    best_epoch: int
    epochs: int
    metric: Metric
    score: float
    lifted_labels: int  # train labels raised because a child was present or uncertain
    untaught: list[str]  # findings without a present or without an absent train label: left out of the loss
    model_sha256: str
    transfer: Transfer | None = None  # what came from `init`


def run(config: TrainConfig) -> TrainResult:
    """Trains, or goes on from the last checkpoint, or returns what a finished run reached.

    Raises:
        ConfigError: if the settings do not go together, or `init` is a classifier of another backbone.
        DataError: if the dataset has no train or val image, or no finding that could be learned.
        RunError: if the loss is not finite, or the metric is undefined on val.
    """
    return train(config, watch=None)


def train(config: TrainConfig, watch: Callable[[Mapping[str, Any]], None] | None) -> TrainResult:
    """As `run`; `watch` takes each new epoch's figures and may end the training by raising."""
    dataset = Dataset.load(config.data)
    uncertainty = policies(dataset.taxonomy.names, config.uncertainty, config.uncertainty_of)
    source = _source(config)
    inputs = {"dataset": dataset.sha256} | ({} if source is None else {"init": source.sha256})
    folder = open_run(config.out, config, inputs)
    done = folder.finished()
    if done is not None:
        return TrainResult(**done)
    taught, lifted = _part(dataset, "train", config, uncertainty)
    val, _ = _part(dataset, "val", config, ["ignore"] * len(uncertainty))
    untaught = _untaught(dataset, taught)
    taught, val = (replace(part, counted=without(part.counted, untaught)) for part in (taught, val))
    names = [dataset.taxonomy.names[k] for k in untaught]
    labels = label_report(dataset, ("train", "val"), config.consistency, config.blanks)
    write_json(folder.root / REPORT, to_plain(labels))
    warn([*labels.warnings, *(f"train: {name}: left out of the loss, for nothing would teach it" for name in names)])
    device = torch_device(config.device)
    devices = [device] if device.type == "cuda" else []
    with (
        torch_threads(config.threads),
        torch.random.fork_rng(devices=devices),
        tracked(config.wandb, folder.root, to_plain(config)) as report,
    ):
        torch.manual_seed(config.seed)
        model = Classifier(config.model, len(dataset.taxonomy))
        transfer = None if source is None else take_weights(model, dataset.taxonomy, source)
        if transfer is not None:
            write_json(folder.root / "transfer.json", to_plain(transfer))
            tqdm.write(transfer.line, file=sys.stderr)
        model.to(device)
        bf16 = bf16_pays(device, model) if config.bf16 == "auto" else config.bf16
        loss = criterion(config.loss, taught.counted, device, dataset.taxonomy)

        def epoch_ended(row: Mapping[str, Any]) -> None:
            report(row)
            if watch is not None:
                watch(row)

        trainer = Trainer(model, config, taught, val, dataset.taxonomy, loss, device, bf16, folder, epoch_ended)
        progress, best = trainer.fit()
    sha256 = save_member(folder.root, best, config.model, dataset.taxonomy, config.hierarchy, config.blanks)
    result = TrainResult(
        best_epoch=progress.best_epoch,
        epochs=progress.epoch,
        metric=config.early_stop.metric,
        score=progress.best_score if progress.best_score is not None else float("nan"),
        lifted_labels=lifted,
        untaught=names,
        model_sha256=sha256,
        transfer=transfer,
    )
    folder.finish(to_plain(result))
    shutil.rmtree(folder.checkpoints)  # several times the model's size, and of no more use
    return result


def _source(config: TrainConfig) -> Member | None:
    if config.init is None:
        return None
    if config.model.pretrained:
        raise ConfigError(
            "init, model.pretrained: both name the first weights; set init to null or pretrained to false"
        )
    if config.out.resolve() in (config.init.resolve(), *config.init.resolve().parents):
        raise ConfigError(f"out: {config.out} holds the classifier that init names; name another folder")
    return load_member(config.init)


def _part(
    dataset: Dataset, split: Literal["train", "val"], config: TrainConfig, uncertainty: list[Uncertainty]
) -> tuple[Part, int]:
    """A split's images and targets, and how many labels were raised to agree with the class tree."""
    image_ids = dataset.ids_of(split)
    if not image_ids:
        raise DataError(f"{dataset.root}: expected images in split {split}, got none; ingest with a {split} part")
    labels = dataset.labels.loc[image_ids].to_numpy()
    lifted = lift_ancestors(labels, dataset.taxonomy, config.consistency if split == "train" else "order")
    soft = SoftLabels(config.soft_labels, config.seed, image_ids, dataset.taxonomy.names)
    full = targets(lifted, uncertainty, config.blanks, soft)
    counted = counted_targets(config.loss.kind, full, dataset.taxonomy, config.hierarchy)
    changed = int((~np.isclose(labels, lifted, equal_nan=True)).sum())
    return Part(_images(dataset, image_ids, config), counted, full), changed


def _untaught(dataset: Dataset, taught: Part) -> list[int]:
    """Class ids of the findings that the train labels cannot teach."""
    found = constant_findings(taught.full)
    if len(found) == len(dataset.taxonomy):
        raise DataError(
            f"{dataset.root}: no finding has both present and absent train labels that count, nothing can be learned; "
            "see `weakray classify labels`, and set uncertainty or blanks so that some count"
        )
    return found


def _images(dataset: Dataset, image_ids: list[str], config: TrainConfig) -> Images:
    if config.cache_images and config.cache_folder is not None:
        return cached_images(config.cache_folder, dataset, image_ids, config.model.input, config.workers)
    return PreparedImages(dataset, image_ids, config.model.input, config.cache_images)
