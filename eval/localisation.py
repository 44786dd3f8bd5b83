"""`weakray eval localisation`: diagnostics of a boxes file, and of the maps beside it, on one annotated split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from eval.average_precision import match
from eval.intervals import PatientDraws, interval_of
from eval.localisation_scores import (
    ACCURACY_OVERLAPS,
    FROC_RATES,
    Float64Array,
    ImageMaps,
    count_boxes,
    count_maps,
    froc,
)
from weakray.coco import load_results
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_json
from weakray.imaging import letterbox

Figure = Callable[[Float64Array], Float64Array]  # weights (n_draws, n_images) → (n_draws, n_classes)


class LocalisationConfig(StrictModel):
    """Settings of `weakray eval localisation`."""

    data: Path = Field(..., description="dataset folder")
    boxes: Path = Field(..., description="boxes file of camgen generate or detect predict")
    maps: Path | None = Field(None, description="folder of maps that camgen generate saved; null: boxes alone")
    split: Literal["tune", "test"] = Field("test", description="annotated split to score on: tune or test")
    froc_iou: float = Field(0.5, gt=0, le=1, description="overlap from which a box counts as found in the FROC")
    tolerance: float = Field(
        0.03, ge=0, lt=1, description="pointing game: distance to a true box that still hits, of the longer side"
    )
    out: Path | None = Field(None, description="JSON file to write the scores to")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


class LocalisationResult(StrictModel):
    """What was found: diagnostics; average precision is the headline."""

    images: int
    mapped_pairs: int | None  # positive pairs with a map
    empty_maps: int | None  # of these with a map that points nowhere: they count as misses
    max_box_acc_v2: dict[str, float] | None  # a diagnostic: its cut is picked on the images that it scores
    pointing: dict[str, float] | None
    table: str


def run(config: LocalisationConfig) -> LocalisationResult:
    """Scores a boxes file, and maps where they are named.

    Raises:
        DataError: if the boxes are of another dataset, the split has no true box, or no map fits.
    """
    dataset = Dataset.load(config.data)
    truth = dataset.truth_of(config.split)
    names = dataset.taxonomy.names
    predicted = load_results(config.boxes)
    strangers = sorted(predicted.keys() - set(dataset.image_ids))
    if strangers:
        raise DataError(
            f"{config.boxes}: {len(strangers)} images are not in {config.data}, e.g. {strangers[0]!r}; "
            "name the dataset that the boxes were made on"
        )
    scored = {*truth.boxes, *truth.image_ids}
    kept = {image_id: found for image_id, found in predicted.items() if image_id in scored}
    matches = match(kept, truth, len(names), [config.froc_iou])
    if not matches.positives.any():
        raise DataError(f"{config.data}: split {config.split!r} has no true box; nothing can be scored")
    patient_of = {image_id: dataset.patient_of(image_id) for image_id in matches.image_ids}
    draws = PatientDraws.of(matches.image_ids, patient_of, config.draws, config.seed)
    counted = count_boxes(kept, truth, matches.image_ids, len(names))
    figures: dict[str, Figure] = {}
    for column, overlap in enumerate(ACCURACY_OVERLAPS):
        for name, counts in (
            (f"T(IoU {overlap:g})", counted.iou),
            (f"T(IoBB {overlap:g})", counted.iobb),
            (f"false boxes an image (IoU {overlap:g})", counted.false_iou),
            (f"false boxes an image (IoBB {overlap:g})", counted.false_iobb),
        ):
            figures[name] = lambda w, c=counts, q=column: c.rates(w)[..., q]  # type: ignore[misc]
    for column, rate in enumerate(FROC_RATES):
        figures[f"FROC {rate:g}"] = lambda w, q=column: froc(matches, truth, 0, w)[..., q]  # type: ignore[misc]
    mapped = None
    if config.maps is not None:
        maps = _Maps(config.maps, dataset, len(names))
        mapped = count_maps(maps, truth, matches.image_ids, len(names), config.tolerance)
        if not mapped.pairs.any():
            raise DataError(f"{config.maps}: expected maps of images with true boxes of {config.split!r}, found none")
        pointing = mapped.pointing
        figures["pointing game"] = lambda w: pointing.rates(w)[..., 0]
        figures["MaxBoxAccV2 (diagnostic)"] = mapped.max_box_acc
    has_box = matches.positives > 0
    scores = {name: _score(figure, draws, has_box, names) for name, figure in figures.items()}
    if config.out is not None:
        write_json(config.out, {"split": config.split, "images": len(scored), "diagnostics": scores})
    return LocalisationResult(
        images=len(scored),
        mapped_pairs=None if mapped is None else int(mapped.pairs.sum()),
        empty_maps=None if mapped is None else int(mapped.empty.sum()),
        max_box_acc_v2=_macro(scores.get("MaxBoxAccV2 (diagnostic)")),
        pointing=_macro(scores.get("pointing game")),
        table="\n" + _table(scores),
    )


def _score(figure: Figure, draws: PatientDraws, has_box: Any, names: list[str]) -> dict[str, Any]:
    """Macro figure with its interval, and each finding's; a finding without a true box is left out."""

    def macro(rates: Float64Array) -> Float64Array:
        kept = rates[:, has_box]
        known = ~np.isnan(kept)
        total, count = np.where(known, kept, 0).sum(axis=1), known.sum(axis=1)
        return np.asarray(np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0))

    whole = figure(np.ones((1, len(draws.patient))))
    drawn = np.concatenate([macro(figure(weights)) for weights in draws.chunks()])
    own = {name: float(value) for name, value, has in zip(names, whole[0], has_box, strict=True) if has}
    return {
        **interval_of(float(macro(whole)[0]), drawn).to_dict(),
        "per_finding": {name: None if np.isnan(value) else value for name, value in own.items()},
    }


def _macro(score: dict[str, Any] | None) -> dict[str, float] | None:
    return None if score is None else {end: score[end] for end in ("value", "low", "high")}


def _table(scores: Mapping[str, dict[str, Any]]) -> str:
    rows = {
        name: {"macro": f"{s['value']:.3f}", "interval": f"[{s['low']:.3f}, {s['high']:.3f}]"}
        | {finding: "-" if value is None else f"{value:.3f}" for finding, value in s["per_finding"].items()}
        for name, s in scores.items()
    }
    return pd.DataFrame(rows).T.to_string()


class _Maps(Mapping[str, ImageMaps]):
    """`maps/<image_id>.npz`, one image in memory at a time."""

    def __init__(self, folder: Path, dataset: Dataset, n_classes: int) -> None:
        self._paths = {path.stem: path for path in sorted(folder.glob("*.npz"))}
        self._dataset, self._n_classes = dataset, n_classes

    def __getitem__(self, image_id: str) -> ImageMaps:
        path, size_hw = self._paths[image_id], self._dataset.size_hw(image_id)
        with np.load(path) as stored:
            if "maps" not in stored or stored["maps"].ndim != 3 or len(stored["maps"]) != self._n_classes:
                raise DataError(f"{path}: expected an array `maps` ({self._n_classes}, h, w), found {stored.files}")
            maps = stored["maps"].astype(np.float32)
        return ImageMaps(maps, letterbox(np.zeros(size_hw, np.uint8), max(size_hw))[1])

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
