"""`weakray detect train`: one detector from pseudo-boxes, tune's true boxes, both in turn, or the ceiling's boxes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from detect.augment import AugmentConfig
from detect.course import CourseConfig, Source, Stretch, course, mixed, repeated
from detect.loop import LoopConfig, OptimizerConfig, Phase, train
from detect.network import Network, new_network, save_network
from detect.quiet_import import torch_threads
from detect.self_training import OwnBoxConfig, own_boxes
from detect.training_set import (
    BoxCounts,
    PseudoBoxConfig,
    TrainingBoxes,
    ceiling_training_boxes,
    pseudo_training_boxes,
    tune_training_boxes,
)
from detect.yolo_folder import Example, read_yolo_folder, write_yolo_folder
from weakray.coco import load_results
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.files import read_json, sha256_file, write_json
from weakray.imaging import InputSpec
from weakray.runs import open_run


class DetectTrainConfig(StrictModel):
    """Settings of `weakray detect train`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "boxes"})

    data: Path = Field(..., description="dataset folder")
    out: Path = Field(..., description="run folder; receives detector.safetensors and detector.json")
    source: Source = Field(
        "pseudo",
        description="boxes to learn from: pseudo (of train images) | tune (true boxes of tune images) | "
        "pseudo_then_tune | ceiling (true boxes of train and tune images)",
    )
    boxes: Path | None = Field(None, description="boxes.json of `camgen generate`; for sources with pseudo-boxes")
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
    bf16: bool | Literal["auto"] = Field("auto", description="bfloat16 autocast; auto where the processor has it")
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


def run(config: DetectTrainConfig) -> DetectTrainResult:
    """Trains a detector; a finished run is not done again, an interrupted one goes on at its last checkpoint.

    Raises:
        ConfigError: if settings contradict each other.
    """
    for name, sources in (("rounds", {"ceiling"}), ("tune_mixed", {"pseudo", "ceiling"})):
        if getattr(config.course, name) and config.source in sources:
            raise ConfigError(
                f"course.{name}: of no use to source={config.source}; leave it out, or choose pseudo_then_tune or tune"
            )
    if config.checkpoint_every_steps % config.log_every_steps:
        raise ConfigError(
            f"checkpoint_every_steps: expected a multiple of log_every_steps ({config.log_every_steps}), "
            f"got {config.checkpoint_every_steps}"
        )
    dataset = Dataset.load(config.data)
    folder = open_run(config.out, config, _inputs(config, dataset))
    if (done := folder.finished()) is not None:
        return DetectTrainResult.model_validate(done)
    sets = _TrainingSets(config, dataset, folder.root / "training_set")
    stretches = course(config.source, config.steps, config.course)
    for name in dict.fromkeys(stretch.name for stretch in stretches if not stretch.own):
        sets.write(name, _training_boxes(name, config, dataset))
    phases = [Phase(stretch.name, stretch.steps, stretch.lr_factor, sets.maker(stretch)) for stretch in stretches]
    network = new_network(config.architecture, dataset.taxonomy.names, config.input, config.seed)
    bf16 = bf16_pays() if config.bf16 == "auto" else config.bf16
    loop = LoopConfig(
        optimizer=config.optimizer,
        augment=config.augment,
        batch_size=config.batch_size,
        seed=config.seed,
        bf16=bf16,
        log_every_steps=config.log_every_steps,
        checkpoint_every_steps=config.checkpoint_every_steps,
    )
    with torch_threads(config.threads):
        train(network, phases, loop, folder)
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
    )
    folder.finish(result.model_dump(mode="json"))
    shutil.rmtree(folder.checkpoints)
    return result


def bf16_pays() -> bool:
    """Whether the processor multiplies bfloat16 itself; elsewhere autocast only costs."""
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _inputs(config: DetectTrainConfig, dataset: Dataset) -> dict[str, str]:
    inputs = {"dataset": dataset.sha256}
    wants_boxes = config.source in {"pseudo", "pseudo_then_tune"}
    if wants_boxes != (config.boxes is not None):
        raise ConfigError(
            f"boxes: {'required for' if wants_boxes else 'of no use to'} source={config.source}"
            + ("; give the boxes.json of `camgen generate`" if wants_boxes else "; leave it out")
        )
    if config.boxes is not None:
        if not config.boxes.is_file():
            raise ConfigError(f"boxes: expected a file, found none at {config.boxes}")
        inputs["boxes"] = sha256_file(config.boxes)
    ceiling = dataset.root / "ceiling_boxes.json"
    if config.source == "ceiling" and ceiling.is_file():
        inputs["ceiling"] = sha256_file(ceiling)
    if Path(config.architecture).is_file():
        inputs["architecture"] = sha256_file(Path(config.architecture))
    return inputs


@dataclass(frozen=True)
class _TrainingSets:
    """The folders that hold what each phase learns from."""

    config: DetectTrainConfig
    dataset: Dataset
    root: Path

    def write(self, name: str, training: TrainingBoxes) -> None:
        write_yolo_folder(self.root / name, self.dataset, training, self.config.input)
        write_json(self.root / name / "counts.json", training.counts.model_dump())

    def counts(self, name: str) -> BoxCounts:
        return BoxCounts.model_validate(read_json(self.root / name / "counts.json"))

    def maker(self, stretch: Stretch) -> Callable[[Network | None], list[Example]]:
        """Reads a set; one of the detector's own boxes is first made by the network that is given."""
        config = self.config

        def make(network: Network | None) -> list[Example]:
            if network is not None and stretch.own:
                self.write(stretch.name, own_boxes(self.dataset, network, config.own, config.batch_size, config.seed))
            examples = self._read(stretch.name)
            if config.course.repeat_below:
                examples = repeated(examples, config.course.repeat_below, config.seed)
            if config.course.tune_mixed and not stretch.true:
                examples = mixed(examples, self._read("tune"), config.course.tune_mixed)
            return examples

        return make

    def _read(self, name: str) -> list[Example]:
        return read_yolo_folder(self.root / name, self.config.input.channels)


def _training_boxes(name: str, config: DetectTrainConfig, dataset: Dataset) -> TrainingBoxes:
    if name == "ceiling":
        return ceiling_training_boxes(dataset)
    if name == "tune" or config.boxes is None:
        return tune_training_boxes(dataset)
    return pseudo_training_boxes(dataset, load_results(config.boxes), config.pseudo, config.seed)
