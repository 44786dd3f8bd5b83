"""Which calibration of boxes, and with how many annotated images? Alternatives are fitted on *tune*, scored on *test*.

`python -m bench.calibration RUN [--tune-images 100,25]` takes a finished run of the pipeline: its dataset, its
classifiers, its settings of `camgen search`. The recipe is chosen on *tune*, and each alternative (`bench.corrections`)
is fitted there to the boxes that the recipe's maps and cuts give: as they are, a ridge regression a finding (the
recipe's own way), affine a finding, shared over findings with shrinkage, gradient boosting. Strengths are chosen by
patient-wise cross-validation inside *tune*. All are applied to the same boxes of the *test* images, and scored on the
same bootstrap draws of patients, with plain Grad-CAM and with the recipe that was chosen without any calibration. A
row's ratio is the recipe's AP over the other's.

`--tune-images` repeats the whole choice with the first so many annotated images of *tune* alone. The cuts were chosen
with the ridge in view, which favours it a little. What is to become the default is decided by the held-out figures of
*tune* in `OUT/calibration.json`, never by *test*. Killed and run again it goes on where it stopped. `--quick` makes a
run of `configs/micro.yaml` first: the same rows, figures without meaning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from bench.corrections import WAYS, Array, Chosen, chosen
from bench.finished_run import RunBenchConfig, arguments, compared, in_parts, search_config, settings, tried_once
from bench.printing import Row, answer
from camgen.calibration import corrected, features_of, with_extra
from camgen.candidates import Cutter, Option
from camgen.components import Components
from camgen.maps import MapSet
from camgen.recipe import FindingRecipe, Recipe
from camgen.rivals import gradcam_single
from camgen.search import SearchConfig, choose, tune_images, tune_maps
from camgen.search_report import without
from camgen.tuning import TuneFinding, patient_folds, tune_findings
from classify.compute import torch_device
from classify.ensemble import Ensemble, check_findings
from eval.average_precision import match
from weakray.coco import BoxTruth, Predictions
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.files import write_json
from weakray.runs import RunFolder, open_run
from weakray.stack import silence

RECIPE, UNCALIBRATED, PLAIN_MAP = "recipe", "uncalibrated-recipe", "plain-gradcam"
_PARTS = ("boxes_rel", "valid", "peak", "shape", "empty")


class CalibrationConfig(RunBenchConfig):
    """What is compared."""

    tune_images: tuple[int, ...] = Field((), description="choose with the first so many tune images; (): with all")


class Choice(NamedTuple):
    """What was chosen with so many tune images: the recipes, and of each way the corrections of the first's boxes."""

    recipes: dict[str, Recipe]
    ways: dict[str, Chosen]


def main() -> None:
    """Runs and prints."""
    parser = arguments(__doc__, "calibration")
    parser.add_argument("--tune-images", default="", help="numbers of tune images to choose with: 100,25; all of them")
    given = parser.parse_args()
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        values = settings(given, "calibration", Path(temporary))
        values["tune_images"] = [int(number) for number in given.tune_images.split(",") if number]
        if given.quick and not values["tune_images"]:
            values["tune_images"] = [24, 12]
        rows = run(validate(CalibrationConfig, values))
    answer("calibration", rows)


def run(config: CalibrationConfig) -> list[Row]:
    """Chooses on *tune*, applies to *test*, scores; maps and candidates that are done already are read."""
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    ensemble.to(torch_device(config.device))
    choices = _choices(config, folder, dataset, ensemble)
    truth = dataset.truth_of("test")
    predictions = _predictions(config, folder, dataset, ensemble, choices)
    rows: list[Row] = []
    content: dict[str, Any] = {"draws": config.draws}
    for name, choice in choices.items():
        found = {source: match(own, truth, len(dataset.taxonomy)) for source, own in predictions[name].items()}
        table, own = compared(
            config, dataset, found, RECIPE, lambda metric, source, name=name: _case(name, metric, source)
        )
        rows += own
        content[name] = {"recipes": table, "tune": _told(choice, dataset.taxonomy.names)}
    write_json(folder.root / "calibration.json", content)
    return rows


def _case(choice: str, metric: str, source: str) -> str:
    return f"calibration/{choice}/{metric}/vs-{source}"


def _choices(config: CalibrationConfig, folder: RunFolder, dataset: Dataset, ensemble: Ensemble) -> dict[str, Choice]:
    """`tune-N` → what was chosen with N images."""
    searched = search_config(config).model_copy(update={"rivals": True})
    truth, image_ids = tune_images(dataset)
    numbers = config.tune_images or (len(image_ids),)
    if max(numbers) > len(image_ids) or min(numbers) < 1:
        raise ConfigError(f"tune_images: expected 1 to {len(image_ids)} annotated images, got {list(numbers)}")
    maps = tune_maps(searched, ensemble, dataset, image_ids)
    return {
        f"tune-{number}": _choice(searched, folder, dataset, ensemble.sha256, _first(maps, number), truth)
        for number in dict.fromkeys(numbers)
    }


def _first(maps: MapSet, number: int) -> MapSet:
    """The first images' maps."""
    return dataclasses.replace(
        maps,
        image_ids=maps.image_ids[:number],
        placements=maps.placements[:number],
        maps={name: own[:number] for name, own in maps.maps.items()},
        probabilities=maps.probabilities[:number],
        member_probabilities=maps.member_probabilities[:, :number],
    )


def _choice(
    searched: SearchConfig, folder: RunFolder, dataset: Dataset, sha256: str, maps: MapSet, truth: BoxTruth
) -> Choice:
    findings = tune_findings(dataset, truth, maps.image_ids, searched.folds, searched.seed)
    names = dataset.taxonomy.names
    tried = tried_once(folder, str(len(maps.image_ids)), searched, maps, findings)
    recipe = choose(searched, sha256, names, maps, findings, tried)[0]
    plainly = choose(searched, sha256, names, maps, findings, tried, without(tried)["calibration"])[0]
    plain = gradcam_single(recipe, maps, findings, max(searched.max_boxes), lambda: None)
    apart = _shared_folds(dataset, maps.image_ids, findings, searched)
    cutters = [
        Cutter(maps, own, k, searched.resolution, searched.min_area, "agreement" in searched.extra_features)
        for k, own in enumerate(apart)
    ]
    found = [cutter.components(_option(entry)) for cutter, entry in zip(cutters, recipe.findings, strict=True)]
    probability = [cutter.probability for cutter in cutters]
    features = with_extra(searched.extra_features)
    ways = {name: chosen(way, found, probability, apart, searched.min_boxes, features) for name, way in WAYS.items()}
    recipes = {RECIPE: recipe, UNCALIBRATED: plainly, PLAIN_MAP: plain}
    for name, own in recipes.items():
        own.save(folder.root / "recipes" / f"tune-{len(maps.image_ids)}" / f"{name}.yaml")
    return Choice(recipes, ways)


def _option(entry: FindingRecipe) -> Option:
    """How a finding's maps are cut."""
    if entry.wanted is None:
        raise ValueError(f"{entry.name}: expected maps of a model, got random ones")
    exponent = entry.prior.exponent if entry.prior else 0.0
    return Option(
        entry.members, entry.wanted, exponent, entry.threshold, entry.max_boxes, entry.merge_gap, entry.fusion
    )


def _shared_folds(
    dataset: Dataset, image_ids: Sequence[str], findings: Sequence[TuneFinding], searched: SearchConfig
) -> list[TuneFinding]:
    """The findings, with each patient in the same fold for all of them."""
    count = np.zeros(len(image_ids), np.int64)
    for finding in findings:
        count[finding.rows] += finding.truth.valid.sum(axis=1)
    patients = [dataset.patient_of(image_id) for image_id in image_ids]
    folds = patient_folds(patients, count.tolist(), searched.folds, searched.seed)
    return [dataclasses.replace(finding, fold_of=folds[finding.rows]) for finding in findings]


def _predictions(
    config: CalibrationConfig,
    folder: RunFolder,
    dataset: Dataset,
    ensemble: Ensemble,
    choices: Mapping[str, Choice],
) -> dict[str, dict[str, Predictions]]:
    """Choice → source → boxes of the test images: of the recipes, and of the first one's boxes after each way."""
    recipes = {(name, kind): own for name, choice in choices.items() for kind, own in choice.recipes.items()}
    wanted = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe.wanted))
    making = next(iter(recipes.values())).making(64)

    def content_of(maps: MapSet) -> dict[str, Any]:
        return {"/".join(key): _plain(recipe, maps) for key, recipe in recipes.items()}

    made: dict[str, dict[str, Predictions]] = {name: {} for name in choices}
    for part, content in in_parts(config, folder, dataset, ensemble, wanted, making, content_of):
        sizes = [dataset.size_hw(image_id) for image_id in part]
        for (name, kind), recipe in recipes.items():
            held = content[f"{name}/{kind}"]
            found = [_read(one) for one in held["found"]]
            sources = {kind: _calibrated(recipe, found)}
            if kind == RECIPE:
                sources |= {way: own.boxes(found) for way, own in choices[name].ways.items()}
            for source, boxes in sources.items():
                detections = recipe.detections(found, boxes, np.array(held["probabilities"]), sizes)
                made[name].setdefault(source, {}).update(zip(part, detections, strict=True))
    return made


def _plain(recipe: Recipe, maps: MapSet) -> dict[str, Any]:
    """A recipe's boxes before calibration, and its probabilities, for JSON."""
    mapped = zip(recipe.findings, recipe.maps(maps), strict=True)
    found = [recipe.components(finding, own, maps.placements) for finding, own in mapped]
    return {
        "probabilities": recipe.probabilities(maps).tolist(),
        "found": [{part: getattr(one, part).tolist() for part in _PARTS} for one in found],
    }


def _read(plain: Mapping[str, Any]) -> Components:
    return Components(**{part: np.array(plain[part]) for part in _PARTS})


def _calibrated(recipe: Recipe, found: Sequence[Components]) -> list[Array]:
    return [
        corrected(finding.calibration, own.boxes_rel, features_of(own))
        for finding, own in zip(recipe.findings, found, strict=True)
    ]


def _told(choice: Choice, names: Sequence[str]) -> dict[str, Any]:
    """Held-out figures of each way on *tune*, chosen by, and which of its corrections each finding took."""
    return {
        way: {
            "criterion": round(own.criterion, 6),
            "ap50": round(own.ap50, 6),
            "chosen": dict(zip(names, own.at, strict=True)),
        }
        for way, own in choice.ways.items()
    }


if __name__ == "__main__":
    main()
