"""A detector under given settings: the stages that train it and find its boxes on *test*, and its figures there.

What the benches of detectors share. Stages are those of the pipeline: what is done is found, what was interrupted is
gone on with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.pooling import Figure
from detect import predict as detect_predict
from detect import train as detect_train
from eval.average_precision import match
from eval.box_errors import score_errors, split_errors
from eval.box_scores import macro_draws, score_matches
from eval.intervals import PatientDraws
from weakray.coco import load_results
from weakray.config import load, validate
from weakray.dataset import Dataset, Split
from weakray.files import sha256_json
from weakray.pipeline import PipelineConfig, Section, plan
from weakray.stages import Stage

CONFIGS = Path(__file__).parents[1] / "configs"
_CLASSIFIERS = ("ingest", "classify.member", "classify.ensemble")


def micro(out: Path) -> PipelineConfig:
    """`configs/micro.yaml`, for a quick form; detectors so small learn fastest on one thread."""
    config = load(PipelineConfig, CONFIGS / "micro.yaml")
    train, predict = ({**section, "threads": 1} for section in (config.detect.train, config.detect.predict))
    return config.model_copy(
        update={"out": out, "detect": config.detect.model_copy(update={"train": train, "predict": predict})}
    )


def up_to_ensemble(config: PipelineConfig) -> list[Stage]:
    """A run's stages that make its dataset, first, and its classifiers; all its settings are checked.

    Raises:
        ConfigError: naming the dotted path of a wrong setting.
    """
    return [stage for stage in plan(config) if stage.name.startswith(_CLASSIFIERS)]


def with_annotated(config: PipelineConfig, images: int, root: Path) -> Stage:
    """Makes a run's phantom anew, in `root/dataset`, with so many annotated images to choose on and learn from.

    The splits of a phantom do not depend on each other's sizes: this *tune* is the first part of the run's, where it is
    the smaller one, and all else is the same.
    """
    stage = plan(config.model_copy(update={"out": root, "ingest": {**config.ingest, "tune": images}}))[0]
    return replace(stage, name="ingest.annotated")


def detector_stages(
    config: PipelineConfig, data: Path, folder: Path, own: Section, splits: Sequence[Split] = ("test",)
) -> list[Stage]:
    """Training, and prediction into `FOLDER_boxes`.

    Args:
        config: the run whose `detect.train` and `detect.predict` are meant.
        data: dataset folder.
        folder: run folder of the training.
        own: what this detector changes in `detect.train`.
        splits: the images to find boxes on.

    Raises:
        ConfigError: naming the dotted path of a wrong setting.
    """
    settings = {**config.detect.train, **own, "data": data, "out": folder}
    train = validate(detect_train.DetectTrainConfig, settings, "detect.train")
    boxes = folder.with_name(f"{folder.name}_boxes")
    paths = {"data": data, "detector": folder, "out": boxes, "splits": splits}
    predict = validate(detect_predict.DetectPredictConfig, {**config.detect.predict, **paths}, "detect.predict")
    return [
        Stage(f"detect.{folder.name}", detect_train.run, train, folder),
        Stage(f"detect.{folder.name}.predict", detect_predict.run, predict, boxes),
    ]


def run_all(stages: Sequence[Stage]) -> None:
    """Runs the stages in order."""
    for number, stage in enumerate(stages, 1):
        stage.run(number)


@dataclass(frozen=True, eq=False)
class Scored:
    """A detector's figures on *test*, and what a comparison with another on the same draws needs.

    Attributes:
        scores: as an entry of `summary.json`'s `scores`: AP with intervals, per finding, and the errors.
        ap50: macro AP50, [0, 1], and the same on every draw of patients; NaN on one without a true box.
        images: how many were scored.
        patients: whose they are.
        test_sha256: names images and patients in their order: equal ones have the same draws under the same seed.
    """

    scores: dict[str, Any]
    ap50: Figure
    images: int
    patients: int
    test_sha256: str


def score(boxes: Path, dataset: Dataset, draws: int, seed: int) -> Scored:
    """Scores a boxes file on the annotated images of *test*.

    Args:
        boxes: boxes.json.
        dataset: the dataset that it was made on.
        draws: of the bootstrap over patients.
        seed: of the bootstrap.
    """
    names, truth, patients = dataset.taxonomy.names, dataset.truth_of("test"), dataset.patients
    wanted = {*truth.boxes, *truth.image_ids}
    found = {image_id: own for image_id, own in load_results(boxes).items() if image_id in wanted}
    matches = match(found, truth, len(names))
    whole, drawn = macro_draws(matches, PatientDraws.of(matches.image_ids, patients, draws, seed))
    how = (patients, names, draws, seed)
    errors = score_errors(split_errors(found, truth, len(names)), *how)
    rows = [[image_id, patients[image_id]] for image_id in matches.image_ids]
    return Scored(
        scores={**score_matches(matches, *how), "errors": errors},
        ap50=Figure(whole["ap50"], drawn["ap50"]),
        images=len(rows),
        patients=len({patient for _, patient in rows}),
        test_sha256=sha256_json(rows),
    )
