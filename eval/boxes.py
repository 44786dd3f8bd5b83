"""`weakray eval boxes`: average precision of a boxes file on the annotated images of one split, and what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from eval.average_precision import match
from eval.box_errors import error_table, score_errors, split_errors
from eval.box_scores import METRICS, score_matches, threshold_table
from weakray.coco import load_results
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_json


class BoxesConfig(StrictModel):
    """Settings of `weakray eval boxes`."""

    data: Path = Field(..., description="dataset folder")
    boxes: Path = Field(..., description="boxes file of camgen generate or detect predict")
    split: Literal["tune", "test"] = Field("test", description="annotated split to score on: tune or test")
    out: Path | None = Field(None, description="JSON file to write the scores to")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


class BoxesResult(StrictModel):
    """What `weakray eval boxes` found; intervals hold value, low and high in [0, 1]."""

    images: int
    predictions: int
    other_images: int  # predicted images of the dataset outside the split, left out
    ignored_predictions: int  # predictions on (image, finding) pairs that nobody annotated, left out
    ap30: dict[str, float]
    ap50: dict[str, float]
    map: dict[str, float]
    table: str
    errors: str  # dAP50 of each type of error: what mending it alone would give


def run(config: BoxesConfig) -> BoxesResult:
    """Scores a boxes file.

    Raises:
        DataError: if the boxes are of another dataset, or the split has no true box.
    """
    dataset = Dataset.load(config.data)
    truth = dataset.truth_of(config.split)
    predicted = load_results(config.boxes)
    strangers = sorted(predicted.keys() - set(dataset.image_ids))
    if strangers:
        raise DataError(
            f"{config.boxes}: {len(strangers)} images are not in {config.data}, e.g. {strangers[0]!r}; "
            "name the dataset that the boxes were made on"
        )
    if not truth.annotated:
        raise DataError(f"{config.data}: split {config.split!r} has no annotated image; nothing can be scored")
    scored = {*truth.boxes, *truth.image_ids}
    kept = {image_id: found for image_id, found in predicted.items() if image_id in scored}
    names = dataset.taxonomy.names
    matches = match(kept, truth, len(names))
    patient_of = {image_id: dataset.patient_of(image_id) for image_id in matches.image_ids}
    scores = score_matches(matches, patient_of, names, config.draws, config.seed)
    table = threshold_table(matches, names)
    errors = score_errors(split_errors(kept, truth, len(names)), patient_of, names, config.draws, config.seed)
    if config.out is not None:
        thresholds: dict[str, Any] = {
            str(name): {str(column): float(value) for column, value in row.items() if column != "positives"}
            for name, row in table[table["positives"] > 0].iterrows()
        }
        told = {"split": config.split, "images": len(scored)}
        write_json(config.out, {**told, **scores, "thresholds": thresholds, "errors": errors})
    return BoxesResult(
        images=len(scored),
        predictions=sum(len(found) for found in kept.values()),
        other_images=len(predicted) - len(kept),
        ignored_predictions=matches.ignored_predictions,
        table="\n" + table.to_string(float_format="{:.3f}".format, na_rep="-"),
        errors="\n" + error_table(errors).to_string(float_format="{:.3f}".format),
        **{metric: scores[metric] for metric in METRICS},
    )
