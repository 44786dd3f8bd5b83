"""`weakray eval summary`: every source of boxes scored on *test* with the same bootstrap draws.

It writes `scores.json`, all of `summary.json` but the wall times, which the pipeline knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from eval.average_precision import Matches, match
from eval.box_errors import score_errors, split_errors
from eval.box_scores import compare_boxes, recovered_fraction, score_matches
from eval.classification import score_classification
from eval.intervals import PatientDraws
from eval.rivals import centre_box, mean_box
from weakray.coco import Predictions, load_results
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import sha256_file, write_json
from weakray.runs import environment, open_run

Source = Literal[
    "random_map",
    "centre_box",
    "mean_box",
    "gradcam_single",
    "recipe",
    "few_shot",
    "weak_detector",
    "supervised_detector",
]
_FIXED = {"centre_box": centre_box, "mean_box": mean_box}


class SummaryConfig(StrictModel):
    """What is scored, and on which draws."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "probabilities", "boxes", "out"})

    data: Path = Field(description="dataset folder")
    probabilities: Path = Field(description="probabilities.parquet of the ensemble (classify predict)")
    boxes: dict[Source, Path] = Field(description="source → its boxes file on test images")
    fixed: tuple[Literal["centre_box", "mean_box"], ...] = Field(
        ("centre_box", "mean_box"), description="rivals without a model, computed here from tune boxes"
    )
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients, the same for all sources")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    out: Path = Field(description="run folder")


class SummaryResult(StrictModel):
    """Where the scores stand, and the headline: AP50 of each source."""

    scores: Path
    ap50: dict[str, float]
    recovered_fraction: float | None


def run(config: SummaryConfig) -> SummaryResult:
    """Scores all sources; a finished run folder is left as it is.

    Raises:
        DataError: if test has no true box, or a boxes file is of another dataset.
    """
    dataset = Dataset.load(config.data)
    hashes: dict[str, str] = {name: sha256_file(path) for name, path in config.boxes.items()}
    inputs = {"dataset": dataset.sha256, "probabilities": sha256_file(config.probabilities)} | hashes
    folder = open_run(config.out, config, inputs)
    done = folder.finished()
    if done is not None:
        return SummaryResult.model_validate({**done, "scores": config.out / "scores.json"})
    names = dataset.taxonomy.names
    truth = dataset.truth_of("test")
    probabilities, test_ids = pd.read_parquet(config.probabilities).set_index("image_id")[names], dataset.ids_of("test")
    unread = [image_id for image_id in test_ids if image_id not in probabilities.index]
    if unread:
        raise DataError(
            f"{config.probabilities}: {len(unread)} test images have no probabilities, e.g. {unread[0]!r}; predict "
            "this dataset, by classifiers that read its studies: those trained with studies frontal leave some out"
        )
    scored_ids = sorted({*truth.boxes, *truth.image_ids})
    predicted: dict[str, Predictions] = {name: load_results(path) for name, path in config.boxes.items()}
    for name in config.fixed:
        predicted[name] = _FIXED[name](dataset.truth_of("tune"), dataset.sizes_hw, probabilities, scored_ids)
    scored = {name: _only(found, scored_ids, dataset, name) for name, found in predicted.items()}
    matches = {name: match(found, truth, len(names)) for name, found in scored.items()}
    drawn = (dataset.patients, names, config.draws, config.seed)
    scores = {
        name: score_matches(matches[name], *drawn)
        | {"errors": score_errors(split_errors(found, truth, len(names)), *drawn)}
        for name, found in scored.items()
    }
    for other, lead in _leads(matches, dataset.patients, config).items():
        scores[other]["lead"] = lead
    classify = score_classification(
        probabilities.loc[test_ids],
        dataset.labels.loc[test_ids],
        dataset.patients,
        draws=config.draws,
        seed=config.seed,
    )
    recovered = _recovered(matches, dataset.patients, config)
    write_json(
        config.out / "scores.json",
        {
            "commit": environment()["commit"],
            "dataset": f"{dataset.info.get('origin', 'unnamed')}, sha256 {dataset.sha256}",
            "findings": names,
            "classify": classify,
            "scores": {name: scores[name] for name in sorted(scores)},
            "recovered_fraction": recovered,
        },
    )
    result = SummaryResult(
        scores=config.out / "scores.json",
        ap50={name: round(score["ap50"]["value"], 4) for name, score in sorted(scores.items())},
        recovered_fraction=None if recovered is None else recovered["value"],
    )
    folder.finish(result.model_dump(mode="json", exclude={"scores"}))
    return result


def _only(found: Predictions, image_ids: list[str], dataset: Dataset, name: str) -> Predictions:
    strangers = sorted(found.keys() - set(dataset.image_ids))
    if strangers:
        raise DataError(
            f"{name}: {len(strangers)} images are not in {dataset.root}, e.g. {strangers[0]!r}; "
            "name the dataset that the boxes were made on"
        )
    kept = set(image_ids)
    return {image_id: boxes for image_id, boxes in found.items() if image_id in kept}


def _leads(matches: dict[str, Matches], patients: dict[str, str], config: SummaryConfig) -> dict[str, dict[str, float]]:
    """AP50 of the weak detector, else of the recipe, less that of each other source, on the same draws."""
    first = next((matches[name] for name in ("weak_detector", "recipe") if name in matches), None)
    if first is None:
        return {}
    drawn = PatientDraws.of(first.image_ids, patients, config.draws, config.seed)
    return {
        name: compare_boxes(first, other, drawn).interval.to_dict()
        for name, other in matches.items()
        if other is not first
    }


def _recovered(matches: dict[str, Matches], patients: dict[str, str], config: SummaryConfig) -> dict[str, Any] | None:
    if not {"weak_detector", "supervised_detector"} <= set(matches):
        return None
    return recovered_fraction(
        matches["weak_detector"], matches["supervised_detector"], patients, config.draws, config.seed
    )
