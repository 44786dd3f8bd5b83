"""`weakray detect train`: one detector from pseudo-boxes, tune's true boxes, both in turn, or the ceiling's boxes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from detect.augment import AugmentConfig
from detect.compute import DeviceName, bf16_pays, torch_device, torch_threads
from detect.course import CourseConfig, Source, course
from detect.detector import Detector
from detect.holding_out import HeldOutConfig, held_out_ids
from detect.loop import LoopConfig, OptimizerConfig, Phase, train
from detect.network import Network, new_network, save_network
from detect.pasting import cut_regions
from detect.rounds import RoundKeeper, RoundResult
from detect.self_training import OwnBoxConfig, own_boxes
from detect.training_folders import TrainingFolders
from detect.training_set import (
    BoxCounts,
    PseudoBoxConfig,
    TrainingBoxes,
    ceiling_training_boxes,
    pseudo_training_boxes,
    tune_training_boxes,
)
from weakray.coco import Predictions, load_results
from weakray.config import StrictModel, validate
from weakray.cores import usable_cores
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.files import read_yaml, sha256_file
from weakray.imaging import InputSpec
from weakray.runs import open_run


class DetectTrainConfig(StrictModel):
    """Settings of `weakray detect train`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "boxes", "choice", "device"})

    data: Path = Field(..., description="dataset folder")
    out: Path = Field(..., description="run folder; receives detector.safetensors, detector.json and rounds.jsonl")
    choice: Path | None = Field(
        None, description="chosen.yaml of `detect choose`: all settings but data, out and boxes are read there"
    )
    source: Source = Field(
        "pseudo",
        description="boxes to learn from: pseudo (of train images) | tune (true boxes of tune images) | "
        "pseudo_then_tune | ceiling (true boxes of train and tune images)",
    )
    boxes: Path | None = Field(
        None, description="boxes.json of `camgen generate`; for sources with pseudo-boxes, and own.fuse: recipe"
    )
    held_out: HeldOutConfig | None = Field(
        None,
        description="a part of tune {folds, fold} that is not learnt from, but measured on after each round; null: no",
    )
    pseudo: PseudoBoxConfig = PseudoBoxConfig()
    own: OwnBoxConfig = OwnBoxConfig()
    course: CourseConfig = CourseConfig()
    architecture: str = Field(
        "yolo11n.yaml", description="a YAML that ultralytics ships, or a path to a .yaml or .pt file; no downloads"
    )
    input: InputSpec = InputSpec(size_px=256)
    steps: int = Field(2000, ge=1, description="optimizer steps in all, whatever the source")
    batch_size: int = Field(16, ge=1, description="images a step")
    optimizer: OptimizerConfig = OptimizerConfig()
    augment: AugmentConfig = AugmentConfig()
    seed: int = Field(0, ge=0, description="of weights, order and augmentation")
    bf16: bool | Literal["auto"] = Field("auto", description="bfloat16 autocast; auto where the device has it")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, description="threads of torch; all cores when not given")
    log_every_steps: int = Field(50, ge=1, description="steps a row of metrics.jsonl")
    checkpoint_every_steps: int = Field(200, ge=1, description="steps a checkpoint; a multiple of log_every_steps")


class DetectTrainResult(StrictModel):
    """What a training left."""

    steps: int
    parameters: int
    bf16: bool
    weights_sha256: str
    training_sets: dict[str, BoxCounts]
    rounds: tuple[RoundResult, ...] = ()


def run(config: DetectTrainConfig) -> DetectTrainResult:
    """Trains a detector; a finished run is not done again, an interrupted one goes on at its last checkpoint.

    Raises:
        ConfigError: if settings contradict each other.
    """
    config = resolved(config)
    check(config)
    device = torch_device(config.device)
    whole = Dataset.load(config.data)
    folder = open_run(config.out, config, inputs_of(config, whole))
    if (done := folder.finished()) is not None:
        return DetectTrainResult.model_validate(done)
    held_out = [] if config.held_out is None else held_out_ids(whole, config.held_out)
    dataset = whole.without(held_out)  # nothing below can see them but what measures on them
    recipe = None if config.boxes is None else load_results(config.boxes)
    fused = recipe if config.own.fuse == "recipe" else None

    bf16 = bf16_pays(device) if config.bf16 == "auto" else config.bf16

    def of_its_own(network: Network) -> TrainingBoxes:
        return own_boxes(dataset, Detector(network.folded(), bf16), config.own, config.batch_size, config.seed, fused)

    root = folder.root / "training_set"
    sets = TrainingFolders(root, dataset, config.input, config.course, config.seed, of_its_own)
    stretches = course(config.source, config.steps, config.course)
    for name in dict.fromkeys(stretch.name for stretch in stretches if not stretch.own):
        sets.write(name, _training_boxes(name, config, dataset, recipe))
    keeper = RoundKeeper(folder, whole, held_out, stretches, sets.counts, config.batch_size)
    phases = [Phase(stretch, sets.maker(stretch), keeper.after(index)) for index, stretch in enumerate(stretches)]
    network = new_network(config.architecture, dataset.taxonomy.names, config.input, config.seed).to(device)
    loop = LoopConfig(
        optimizer=config.optimizer,
        augment=config.augment,
        batch_size=config.batch_size,
        seed=config.seed,
        bf16=bf16,
        makers=1 if device.type == "cpu" else config.threads or usable_cores(),
        log_every_steps=config.log_every_steps,
        checkpoint_every_steps=config.checkpoint_every_steps,
    )
    pasting = config.augment.paste
    regions = cut_regions(sets.true_examples() if pasting.probability else (), pasting, config.seed)
    with torch_threads(config.threads):
        train(network, phases, regions, loop, folder)
    counts = {stretch.name: sets.counts(stretch.name) for stretch in stretches}
    told = {name: count.model_dump() for name, count in counts.items()}
    weights_sha256 = save_network(
        folder.root, network, {"source": config.source, "steps": config.steps, "training_sets": told}
    )
    result = DetectTrainResult(
        steps=config.steps,
        parameters=network.parameters,
        bf16=bf16,
        weights_sha256=weights_sha256,
        training_sets=counts,
        rounds=keeper.results(),
    )
    folder.finish(result.model_dump(mode="json"))
    shutil.rmtree(folder.checkpoints)
    return result


def resolved(config: DetectTrainConfig) -> DetectTrainConfig:
    """The settings with those of `choice` read in, where one is given: they are then part of the run's key.

    Raises:
        ConfigError: if settings stand beside `choice`, or it holds what is none.
    """
    if config.choice is None:
        return config
    beside = sorted(config.model_fields_set - {"data", "out", "boxes", "choice"})
    if beside:
        raise ConfigError(f"{beside[0]}: is read from choice ({config.choice}); leave it out, or leave choice out")
    values = {**(read_yaml(config.choice) or {}), "data": config.data, "out": config.out}
    chosen = validate(DetectTrainConfig, values, str(config.choice))
    return chosen.model_copy(update={"boxes": config.boxes}) if wants_boxes(chosen) else chosen


def check(config: DetectTrainConfig) -> None:
    """Refuses settings that contradict each other.

    Raises:
        ConfigError: naming them.
    """
    for name, sources in (("rounds", {"ceiling"}), ("tune_mixed", {"pseudo", "ceiling"})):
        if getattr(config.course, name) and config.source in sources:
            raise ConfigError(
                f"course.{name}: of no use to source={config.source}; leave it out, or choose pseudo_then_tune or tune"
            )
    if config.course.continued and not config.course.rounds:
        raise ConfigError("course.continued: of no use without rounds; set course.rounds, or leave it out")
    if config.course.first_share is not None and not config.course.continued:
        raise ConfigError("course.first_share: of no use without continued; set course.continued, or leave it out")
    if config.checkpoint_every_steps % config.log_every_steps:
        raise ConfigError(
            f"checkpoint_every_steps: expected a multiple of log_every_steps ({config.log_every_steps}), "
            f"got {config.checkpoint_every_steps}"
        )
    if config.own.mirrored and not config.augment.flip:
        raise ConfigError(
            "own.mirrored: of no use to a detector that learns from no mirror image; set augment.flip, or leave it out"
        )
    wanted = wants_boxes(config)
    if wanted != (config.boxes is not None):
        raise ConfigError(
            f"boxes: {'required for' if wanted else 'of no use to'} source={config.source}"
            + ("; give the boxes.json of `camgen generate`" if wanted else "; leave it out")
        )
    if config.boxes is not None and not config.boxes.is_file():
        raise ConfigError(f"boxes: expected a file, found none at {config.boxes}")


def wants_boxes(config: DetectTrainConfig) -> bool:
    """Whether the recipe's boxes have a part in the training."""
    fuses = config.own.fuse == "recipe" and config.course.rounds > 0
    return config.source in {"pseudo", "pseudo_then_tune"} or (config.source == "tune" and fuses)


def inputs_of(config: DetectTrainConfig, dataset: Dataset) -> dict[str, str]:
    """Hashes of what a training reads."""
    inputs = {"dataset": dataset.sha256}
    if config.boxes is not None:
        inputs["boxes"] = sha256_file(config.boxes)
    ceiling = dataset.root / "ceiling_boxes.json"
    if config.source == "ceiling" and ceiling.is_file():
        inputs["ceiling"] = sha256_file(ceiling)
    if Path(config.architecture).is_file():
        inputs["architecture"] = sha256_file(Path(config.architecture))
    return inputs


def _training_boxes(
    name: str, config: DetectTrainConfig, dataset: Dataset, recipe: Predictions | None
) -> TrainingBoxes:
    if name == "ceiling":
        return ceiling_training_boxes(dataset)
    if name == "tune" or recipe is None:
        return tune_training_boxes(dataset)
    return pseudo_training_boxes(dataset, recipe, config.pseudo, config.seed)
