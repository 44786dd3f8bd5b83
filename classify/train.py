"""`weakray classify train`: one multi-label classifier from a dataset's train labels; val chooses the best epoch."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from classify.cache import cached_images
from classify.checkpoint_files import writing
from classify.compute import torch_device, torch_precision, torch_threads
from classify.curves import draw_curves
from classify.distributed import differences, joined_processes
from classify.images import Images, PreparedImages
from classify.label_statistics import REPORT, label_report, warn
from classify.labels import (
    UNSURE,
    SoftLabels,
    Targets,
    Uncertainty,
    constant_findings,
    lift_ancestors,
    policies,
    targets,
    without,
)
from classify.loop import Trainer
from classify.loss import counted_targets, criterion
from classify.member import Member, load_member, save_member
from classify.phase import Phase
from classify.sampler import Sampler
from classify.settings import Metric, TrainConfig
from classify.studies import StudyCounts, group
from classify.study_network import Network, classifiers_of, make_network
from classify.target_source import FixedTargets, MovingTargets, TargetSource
from classify.tracking import tracked
from classify.transfer import Transfer, take_weights
from classify.validation import Part
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.files import sha256_json, write_json
from weakray.runs import RunFolder, open_run
from weakray.taxonomy import Taxonomy


class TrainResult(StrictModel):
    """What a trained classifier reached."""

    best_epoch: int
    epochs: int
    metric: Metric
    score: float
    lifted_labels: int  # train labels raised because a child was present or uncertain
    untaught: list[str]  # findings without a present or without an absent train label: left out of the loss
    unscored: list[str] = Field([])  # findings without a present or without an absent val label: left out of the score
    studies: dict[str, StudyCounts] = Field({})  # what became of the train and val images, where studies are learned
    left_out_images: int = 0  # images (or studies) drawn for an epoch that filled no batch
    rollbacks: int = 0  # times that a loss or gradient was not finite and training went back
    left_out_batches: int = 0  # batches left out for it
    fp16_overflows: int = 0  # steps that changed nothing while the loss scale was found
    unusable_checkpoints: int = 0  # broken files passed over on resuming
    model_sha256: str
    transfer: Transfer | None = None  # what came from `init`


def run(config: TrainConfig) -> TrainResult:
    """Trains, or goes on from the last checkpoint, or returns what a finished run reached.

    Started by `torchrun`, as many processes as it starts share each step's images and make one classifier.

    Raises:
        ConfigError: if the settings do not go together, or `init` is a classifier of another backbone.
        DataError: if the dataset has no train or val image, no finding that could be learned, or none to score on val.
        DivergedError: if losses are not finite again and again.
        RunError: if a file cannot be written, or no checkpoint can be used.
    """
    return train(config, watch=None)


def train(config: TrainConfig, watch: Callable[[Mapping[str, Any]], None] | None) -> TrainResult:
    """As `run`; `watch` takes each new epoch's figures and may end the training by raising: one process's alone."""
    device = torch_device(config.device)
    processes = joined_processes(cpu=device.type == "cpu")
    if watch is not None and processes.count > 1:
        raise ConfigError(
            f"WORLD_SIZE: a search trains in one process, got {processes.count}; start it without a launcher"
        )
    dataset = Dataset.load(config.data)
    uncertainty = policies(dataset.taxonomy.names, config.uncertainty, config.uncertainty_of)
    source = _source(config)
    inputs = {"dataset": dataset.sha256} | ({} if source is None else {"init": source.sha256})

    def opened() -> tuple[RunFolder, dict[str, Any] | None]:
        folder = open_run(config.out, config, inputs)
        return folder, folder.finished()

    folder, done = processes.by_first(opened)
    if done is not None:
        return TrainResult(**done)
    taught, lifted = _part(dataset, "train", config, uncertainty)
    val, _ = _part(dataset, "val", config, ["ignore"] * len(uncertainty))
    untaught, unscored = _untaught(dataset, taught), _unscored(dataset, val, config)
    taught, val = (replace(part, counted=without(part.counted, untaught)) for part in (taught, val))
    parts = {"train": taught, "val": val}
    names = [dataset.taxonomy.names[k] for k in untaught]
    labels = label_report(dataset, ("train", "val"), config.consistency, config.blanks)
    told = [f"{split}: {line}" for split, part in parts.items() for line in part.studies.counts.lines]
    untold = [f"train: {name}: left out of the loss, for nothing would teach it" for name in names]
    if processes.first:
        write_json(folder.root / REPORT, to_plain(labels))
        warn([*labels.warnings, *told, *untold])
    sampler = Sampler.make(config.sampler, taught.full.values, config.batch_size, config.seed)
    run_id = sha256_json([str(folder.root.resolve()), folder.key])[:16]
    devices = [device] if device.type == "cuda" else []
    with (
        torch_threads(config.threads),
        torch.random.fork_rng(devices=devices),
        tracked(config.wandb if processes.first else "disabled", folder.root, run_id, to_plain(config)) as report,
    ):
        torch.manual_seed(config.seed)
        unsure = bool((taught.full.values == UNSURE).any())
        model = make_network(config.model, len(dataset.taxonomy), config.studies, uncertain=unsure)
        transfer = None if source is None else _take(model, dataset.taxonomy, source)
        if transfer is not None and processes.first:
            write_json(folder.root / "transfer.json", to_plain(transfer))
            tqdm.write(transfer.line, file=sys.stderr)
        model = processes.synchronised(model.to(device))
        changed = differences(processes, model, config.loss.kind, min(config.batch_size, sampler.count))
        for line in changed if processes.first else []:
            tqdm.write(f"warning: {processes.count} processes: {line}", file=sys.stderr)
        precision = torch_precision(config.precision, device, model)
        phases = _phases(config, taught, val, untaught, device, dataset.taxonomy)

        def epoch_ended(row: Mapping[str, Any]) -> None:
            report(row)
            if watch is not None:
                watch(row)

        trainer = Trainer(
            model,
            config,
            phases,
            taught,
            sampler,
            val,
            dataset.taxonomy,
            device,
            precision,
            processes,
            folder,
            epoch_ended,
        )
        progress, best = trainer.fit()

    def ended() -> TrainResult:
        with writing(folder.root, "the checkpoint at the end of training is whole"):
            draw_curves(folder.metrics(), progress.best_epoch, folder.root / "curves.png")
            sha256 = save_member(
                folder.root, best, config.model, dataset.taxonomy, config.hierarchy, config.blanks, config.studies
            )
            result = TrainResult(
                best_epoch=progress.best_epoch,
                epochs=progress.epoch,
                metric=config.early_stop.metric,
                score=progress.best_score if progress.best_score is not None else float("nan"),
                lifted_labels=lifted,
                untaught=names,
                unscored=[dataset.taxonomy.names[k] for k in unscored],
                studies={} if config.studies == "images" else {name: of.studies.counts for name, of in parts.items()},
                left_out_images=sampler.left_out,
                rollbacks=progress.rollbacks,
                left_out_batches=len(progress.left_out),
                fp16_overflows=progress.overflows,
                unusable_checkpoints=progress.unusable,
                model_sha256=sha256,
                transfer=transfer,
            )
            folder.finish(to_plain(result))
        shutil.rmtree(folder.checkpoints)  # several times the model's size, and of no more use
        return result

    return processes.by_first(ended)


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
    studies = group(dataset, split, config.studies)
    if config.studies == "by_view" and split == "train" and studies.frontal.all() == studies.frontal.any():
        raise DataError(
            f"{dataset.root}: by_view expects frontal and other images in split train, got "
            f"{int(studies.frontal.sum())} and {int((~studies.frontal).sum())}; set studies to sum"
        )
    labels = studies.labels
    lifted = lift_ancestors(labels, dataset.taxonomy, config.consistency if split == "train" else "order")
    soft = SoftLabels(config.soft_labels, config.seed, studies.names, dataset.taxonomy.names)
    full = targets(lifted, uncertainty, config.blanks, soft)
    counted = counted_targets(config.loss.kind, full, dataset.taxonomy, config.hierarchy)
    changed = int((~np.isclose(labels, lifted, equal_nan=True)).sum())
    return Part(_images(dataset, studies.image_ids, config), studies, counted, full), changed


def _take(model: Network, taxonomy: Taxonomy, source: Member) -> Transfer:
    """Puts the first weights into every classifier of a network; each takes those of its own view where there are."""
    first, *other = classifiers_of(model)
    for classifier in other:
        take_weights(classifier, taxonomy, source if source.other is None else replace(source, model=source.other))
    return take_weights(first, taxonomy, source)


def _untaught(dataset: Dataset, taught: Part) -> list[int]:
    """Class ids of the findings that the train labels cannot teach."""
    found = constant_findings(taught.full)
    if len(found) == len(dataset.taxonomy):
        raise DataError(
            f"{dataset.root}: no finding has both present and absent train labels that count, nothing can be learned; "
            "see `weakray classify labels`, and set uncertainty or blanks so that some count"
        )
    return found


def _unscored(dataset: Dataset, val: Part, config: TrainConfig) -> list[int]:
    """Class ids of the findings that the val labels cannot score."""
    found = constant_findings(val.full)
    if len(found) == len(dataset.taxonomy) and config.early_stop.metric != "val_loss":
        raise DataError(
            f"{dataset.root}: {config.early_stop.metric} is undefined, no finding is present in some val images and "
            "absent in others; set early_stop.metric to val_loss, or make a larger val split"
        )
    return found


def _phases(
    config: TrainConfig, taught: Part, val: Part, untaught: list[int], device: torch.device, taxonomy: Taxonomy
) -> list[Phase]:
    """What is trained one after the other."""

    def source(given: Targets) -> TargetSource:
        return FixedTargets(given) if config.moving_labels is None else MovingTargets(given, config.moving_labels)

    lr, second = config.optimizer.lr, config.second_phase
    loss = criterion(config.loss, taught.counted, device, taxonomy)
    phases = [Phase(config.epochs, lr, source(taught.counted), val.counted, loss)]
    if second.epochs is not None and second.child_mask:
        phases.append(replace(phases[0], epochs=second.epochs, lr=second.lr or lr, last_layer_only=True))
    elif second.epochs is not None:
        learnt, checked = without(taught.full, untaught), without(val.full, untaught)
        loss = criterion(config.loss, learnt, device, taxonomy)
        phases.append(Phase(second.epochs, second.lr or lr, source(learnt), checked, loss, last_layer_only=True))
    return phases


def _images(dataset: Dataset, image_ids: list[str], config: TrainConfig) -> Images:
    if config.cache_images and config.cache_folder is not None:
        return cached_images(config.cache_folder, dataset, image_ids, config.model.input, config.workers)
    return PreparedImages(dataset, image_ids, config.model.input, config.cache_images)
