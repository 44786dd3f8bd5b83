"""What does each ingredient of the recipe add? One is left out at a time, and each recipe is scored on *test*.

`python -m bench.ablation RUN` takes a finished run of the pipeline: its dataset, its classifiers, its settings of
`camgen search`. It computes the maps of *tune* once, scores every candidate once, and picks recipes: the full one, and
one without each ingredient, chosen again on *tune* among what is left. All are applied to the *test* images in one pass
over the maps, and scored with the full recipe on the same bootstrap draws of patients. A row's ratio is the full
recipe's AP over the other's: above 1 the ingredient helps. Differences, and each finding's figures, stand in
`OUT/ablation.json`. Killed and run again it goes on where it stopped. `--quick` makes a run of `configs/micro.yaml`
first: the same rows, figures without meaning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from bench.finished_run import RunBenchConfig, arguments, compared, in_parts, search_config, settings, tried_once
from bench.printing import Row, answer
from camgen.calibration import Extra
from camgen.fusion import Fusion
from camgen.maps import MapSet
from camgen.recipe import Recipe
from camgen.rivals import gradcam_single
from camgen.search import SearchConfig, choose, tune_images, tune_maps
from camgen.search_report import Mask, Tried, without
from camgen.tuning import tune_findings
from classify.compute import torch_device
from classify.ensemble import Ensemble, check_findings
from classify.inference import batches
from eval.average_precision import match
from weakray.coco import Predictions
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.files import read_json, write_json
from weakray.runs import RunFolder, open_run
from weakray.stack import silence

FULL = "full"
HIERARCHY = "hierarchy"  # probabilities without the class tree
NAMES = {
    "members_mean": "mean-over-members",
    "fusion": "fusion-of-boxes",
    "views": "views",
    "target": "maps-of-probabilities",
    "layers": "early-layers",
    "own_threshold": "per-finding-threshold",
    "prior": "prior",
    "merging": "merging",
    "calibration": "calibration",
}
BEST_MEMBER, PLAIN = "best-single-member", "plain-gradcam"
RIVALS = (BEST_MEMBER, PLAIN)
Array = npt.NDArray[np.float64]


class AblationConfig(RunBenchConfig):
    """What is measured."""

    extra_sources: tuple[str, ...] = Field(
        ("pcam~flip", "gradcam~flip", "gradcam:probability"), description="sources tried beside the search's own"
    )
    merge_gaps: tuple[float, ...] = Field((0.0, 0.05), description="gaps tried, below which components are one box")
    fusions: tuple[Fusion, ...] = Field(("maps", "boxes"), description="ways tried to join several members")
    extra_features: tuple[Extra, ...] = Field(
        ("contrast", "agreement"), description="what calibration looks at beside the search's own"
    )


def main() -> None:
    """Runs and prints."""
    given = arguments(__doc__, "ablation").parse_args()
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        values = settings(given, "ablation", Path(temporary))
        if given.quick:
            values["extra_sources"] = ["gradcam:probability~flip"]  # both rows from one source
        rows = run(validate(AblationConfig, values))
    answer("ablation", rows)


def run(config: AblationConfig) -> list[Row]:
    """Chooses the recipes, applies and scores them; what is done already is read."""
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    ensemble.to(torch_device(config.device))
    recipes = _recipes(config, folder, dataset, ensemble)
    truth = dataset.truth_of("test")
    boxes = _boxes(config, folder, dataset, ensemble, recipes)
    matches = {name: match(found, truth, len(dataset.taxonomy)) for name, found in boxes.items()}
    table, rows = compared(config, dataset, matches, FULL, _case)
    content = {"recipes": table, "images": len(matches[FULL].image_ids), "draws": config.draws}
    write_json(folder.root / "ablation.json", content)
    return rows


def _case(metric: str, name: str) -> str:
    return f"ablation/full/{metric}/vs-{name if name in RIVALS else f'without-{name}'}"


def _recipes(config: AblationConfig, folder: RunFolder, dataset: Dataset, ensemble: Ensemble) -> dict[str, Recipe]:
    """Name → recipe; `full` first, each other named by what it lacks, or what it is."""
    listed = folder.root / "recipes.json"
    if not listed.is_file():
        made = _chosen(config, folder, dataset, ensemble)
        for name, recipe in made.items():
            recipe.save(folder.root / "recipes" / f"{name}.yaml")
        write_json(listed, list(made))
    return {name: Recipe.load(folder.root / "recipes" / f"{name}.yaml") for name in read_json(listed)}


def _chosen(config: AblationConfig, folder: RunFolder, dataset: Dataset, ensemble: Ensemble) -> dict[str, Recipe]:
    searched = _search_config(config, len(ensemble.members))
    truth, image_ids = tune_images(dataset)
    maps = tune_maps(searched, ensemble, dataset, image_ids)
    findings = tune_findings(dataset, truth, image_ids, searched.folds, searched.seed)
    names = dataset.taxonomy.names

    def pick(tried: Tried, maps: MapSet, among: Mask | None = None, **changes: Any) -> Recipe:
        changed = searched.model_copy(update=changes)
        return choose(changed, ensemble.sha256, names, maps, findings, tried, among)[0]

    tried = tried_once(folder, "tree", searched, maps, findings)
    recipes = {FULL: pick(tried, maps)}
    for name, among in without(tried).items():
        if among.any() and not among.all():
            recipes[NAMES[name]] = pick(tried, maps, among)
    recipes["gate"] = pick(tried, maps, gates=(0.0,))
    for extra in searched.extra_features if searched.calibrate else ():
        fewer = tuple(name for name in searched.extra_features if name != extra)
        blind = searched.model_copy(update={"extra_features": fewer})
        blindly = tried_once(folder, f"without_{extra}", blind, maps, findings)
        recipes[extra] = pick(blindly, maps, extra_features=fewer)
    if maps.offsets:
        straight = dataclasses.replace(maps, offsets={})
        recipes["centring"] = pick(tried_once(folder, "straight", searched, straight, findings), straight)
    if ensemble.hierarchy != "none":
        flat = dataclasses.replace(maps, probabilities=_flat_probabilities(config, dataset, ensemble, image_ids))
        recipes[HIERARCHY] = pick(tried_once(folder, "flat", searched, flat, findings), flat)
    if len(ensemble.members) > 1:
        recipes[BEST_MEMBER] = _best_member(tried, maps, pick)
    recipes[PLAIN] = gradcam_single(recipes[FULL], maps, findings, max(searched.max_boxes), lambda: None)
    return recipes


def _search_config(config: AblationConfig, members: int) -> SearchConfig:
    """The run's settings, with single members and all that is not tried unless one asks for it."""
    own = search_config(config)
    more: dict[str, Any] = {
        "sources": tuple(dict.fromkeys((*own.sources, *config.extra_sources))),
        "merge_gaps": tuple(sorted({*own.merge_gaps, *config.merge_gaps})),
        "fusions": tuple(dict.fromkeys((*own.fusions, *config.fusions))),
        "extra_features": tuple(dict.fromkeys((*own.extra_features, *config.extra_features))),
    }
    return own.model_copy(update={**more, "single_members": members > 1, "rivals": True})


def _best_member(tried: Tried, maps: MapSet, pick: Any) -> Recipe:
    """The recipe of one member alone, its maps and its probabilities: the member that does best on *tune*."""
    candidates: list[tuple[float, Recipe]] = []
    every = np.ones_like(tried.allowed[0])
    for member in range(len(maps.member_probabilities)):
        among = every & np.array([option.members == (member,) for option in tried.options])[:, None]
        picked = [(k, *tried.pick(k, among)) for k in np.flatnonzero(tried.boxes).tolist()]
        mean = float(np.mean([tried.criterion[k, o, s] for k, o, s in picked]))
        alone = dataclasses.replace(maps, probabilities=maps.member_probabilities[member])
        recipe: Recipe = pick(tried, alone, among)
        candidates.append((mean, recipe.model_copy(update={"probability": "members"})))
    return max(candidates, key=lambda pair: pair[0])[1]


def _flat_probabilities(
    config: AblationConfig, dataset: Dataset, ensemble: Ensemble, image_ids: Sequence[str]
) -> Array:
    """The ensemble's probabilities `(n, k)` as if findings did not depend on each other."""
    members = [dataclasses.replace(member, hierarchy="none") for member in ensemble.members]
    flat = Ensemble.of(members, ensemble.fitted, ensemble.rule, ensemble.calibration).graph
    device = torch_device(config.device)
    flat.to(device)
    stream = batches(dataset, image_ids, ensemble.inputs, config.batch_size, config.workers)
    found = [flat.probabilities(ensemble.logits([one.to(device) for one in seen])) for seen in stream]
    return np.concatenate([one.double().cpu().numpy() for one in found])


def _boxes(
    config: AblationConfig, folder: RunFolder, dataset: Dataset, ensemble: Ensemble, recipes: Mapping[str, Recipe]
) -> dict[str, Predictions]:
    """Every recipe's boxes of the test images, from one pass over the maps."""
    wanted = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe.wanted))

    def content_of(maps: MapSet) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, recipe in recipes.items():
            own = maps
            if name == HIERARCHY:
                flat = _flat_probabilities(config, dataset, ensemble, maps.image_ids)
                own = dataclasses.replace(maps, probabilities=flat)
            made = recipe.apply(recipe.maps(own), recipe.probabilities(own), own.placements)
            content[name] = [_plain(boxes) for boxes in made]
        return content

    found: dict[str, Predictions] = {name: {} for name in recipes}
    for part, content in in_parts(config, folder, dataset, ensemble, wanted, recipes[FULL].making(64), content_of):
        for name, rows in content.items():
            found[name] |= {image_id: _read(row) for image_id, row in zip(part, rows, strict=True)}
    return found


def _plain(boxes: Detections) -> list[list[Any]]:
    return [boxes.boxes_xyxy_px.tolist(), boxes.class_id.tolist(), boxes.score.tolist()]


def _read(row: Sequence[Any]) -> Detections:
    boxes, class_id, score = row
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(class_id, np.int64), np.array(score, np.float32)
    )


if __name__ == "__main__":
    main()
