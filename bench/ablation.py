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

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from bench.detector_cells import run_all, up_to_ensemble
from bench.printing import Row, answer, paired
from camgen.mapper import map_dataset
from camgen.maps import MapSet
from camgen.recipe import Recipe
from camgen.rivals import gradcam_single
from camgen.search import SearchConfig, all_options, choose, try_all, tune_images, tune_maps
from camgen.search_report import Mask, Tried, without
from camgen.tuning import TuneFinding, tune_findings
from classify.compute import DeviceName, torch_device
from classify.ensemble import Ensemble, check_findings
from classify.inference import batches
from eval.average_precision import Matches, match
from eval.box_scores import Metric, compare_boxes, score_matches
from eval.intervals import PatientDraws
from weakray.coco import Predictions
from weakray.config import StrictModel, load, to_plain, validate
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.files import read_json, read_yaml, replacing, write_json, write_yaml
from weakray.pipeline import PipelineConfig
from weakray.runs import RunFolder, open_run
from weakray.stack import silence

CONFIGS = Path(__file__).parents[1] / "configs"
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
_CHUNK = 64  # test images a file
_METRICS: tuple[Metric, ...] = ("ap50", "ap30")
Array = npt.NDArray[np.float64]


class AblationConfig(StrictModel):
    """What is measured."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "workers"})

    data: Path = Field(description="dataset folder")
    ensemble: Path = Field(description="folder of the ensemble")
    out: Path = Field(description="run folder")
    search: dict[str, Any] = Field({}, description="settings of camgen search")
    extra_sources: tuple[str, ...] = Field(
        ("pcam~flip", "gradcam~flip", "gradcam:probability"), description="sources tried beside the search's own"
    )
    merge_gaps: tuple[float, ...] = Field((0.0, 0.05), description="gaps tried, below which components are one box")
    batch_size: int = Field(16, ge=1, description="images a forward pass")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/phantom"), help="a finished run's folder")
    parser.add_argument("--out", type=Path, help="where recipes, boxes and ablation.json go; RUN/ablation")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws over patients")
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    given = parser.parse_args()
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        root = given.run
        if given.quick:
            root = Path(temporary) / "run"
            _made(load(PipelineConfig, CONFIGS / "micro.yaml").model_copy(update={"out": root}))
        values = {
            "data": root / "dataset",
            "ensemble": root / "classify" / "ensemble",
            "out": given.out or root / "ablation",
            "search": read_yaml(root / "config.yaml")["camgen"]["search"],
            "draws": 50 if given.quick else given.draws,
        }
        rows = run(validate(AblationConfig, values))
    answer("ablation", rows)


def _made(config: PipelineConfig) -> None:
    """As much of a run as is looked at here: dataset and classifiers."""
    run_all(up_to_ensemble(config))
    write_yaml(config.root / "config.yaml", to_plain(config))


def run(config: AblationConfig) -> list[Row]:
    """Chooses the recipes, applies and scores them; what is done already is read."""
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    ensemble.to(torch_device(config.device))
    recipes = _recipes(config, folder, dataset, ensemble)
    truth = dataset.truth_of("test")
    boxes = _boxes(config, folder, dataset, ensemble, recipes, sorted({*truth.boxes, *truth.image_ids}))
    matches = {name: match(found, truth, len(dataset.taxonomy)) for name, found in boxes.items()}
    return _scored(config, folder, dataset, matches)


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
        settings = searched.model_copy(update=changes)
        return choose(settings, ensemble.sha256, names, maps, findings, tried, among)[0]

    tried = _tried(folder, "tree", searched, maps, findings)
    recipes = {FULL: pick(tried, maps)}
    for name, among in without(tried).items():
        if among.any() and not among.all():
            recipes[NAMES[name]] = pick(tried, maps, among)
    recipes["gate"] = pick(tried, maps, gates=(0.0,))
    if maps.offsets:
        straight = dataclasses.replace(maps, offsets={})
        recipes["centring"] = pick(_tried(folder, "straight", searched, straight, findings), straight)
    if ensemble.hierarchy != "none":
        flat = dataclasses.replace(maps, probabilities=_flat_probabilities(config, dataset, ensemble, image_ids))
        recipes[HIERARCHY] = pick(_tried(folder, "flat", searched, flat, findings), flat)
    if len(ensemble.members) > 1:
        recipes[BEST_MEMBER] = _best_member(tried, maps, pick)
    recipes[PLAIN] = gradcam_single(recipes[FULL], maps, findings, max(searched.max_boxes), lambda: None)
    return recipes


def _search_config(config: AblationConfig, members: int) -> SearchConfig:
    """The run's settings, with single members and the further sources."""
    paths = {name: getattr(config, name) for name in ("data", "ensemble", "out", "device", "workers")}
    settings = validate(SearchConfig, {**config.search, **paths, "map_batch": config.batch_size}, "search")
    sources = tuple(dict.fromkeys((*settings.sources, *config.extra_sources)))
    gaps = {"merge_gaps": tuple(sorted({*settings.merge_gaps, *config.merge_gaps}))}
    return settings.model_copy(update={**gaps, "sources": sources, "single_members": members > 1, "rivals": True})


def _tried(folder: RunFolder, name: str, config: SearchConfig, maps: MapSet, findings: Sequence[TuneFinding]) -> Tried:
    """All candidates, scored; from its file where it stands."""
    path = folder.checkpoints / f"tried_{name}.npz"
    if not path.is_file():
        tried = try_all(config, maps, findings)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, criterion=tried.criterion, ap50=tried.ap50, allowed=tried.allowed)
    options = all_options(config, len(maps.member_probabilities))
    boxes = np.array([finding.truth.count for finding in findings])
    with np.load(path) as held:
        return Tried(options, held["criterion"], held["ap50"], held["allowed"], boxes)


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
    config: AblationConfig,
    folder: RunFolder,
    dataset: Dataset,
    ensemble: Ensemble,
    recipes: Mapping[str, Recipe],
    image_ids: Sequence[str],
) -> dict[str, Predictions]:
    """Every recipe's boxes of the images, from one pass over the maps; finished chunks are read."""
    wanted = list(dict.fromkeys(name for recipe in recipes.values() for name in recipe.wanted))
    making = recipes[FULL].making(64)
    found: dict[str, Predictions] = {name: {} for name in recipes}
    starts = range(0, len(image_ids), _CHUNK)
    for start in tqdm(starts, desc="test", unit="chunk", disable=None):
        path, part = folder.root / "parts" / f"{start:06d}.json", image_ids[start : start + _CHUNK]
        if not path.is_file():
            stream = map_dataset(ensemble, dataset, part, wanted, making, config.batch_size, config.workers)
            maps = MapSet.concat(list(stream))
            content: dict[str, Any] = {}
            for name, recipe in recipes.items():
                own = maps
                if name == HIERARCHY:
                    own = dataclasses.replace(maps, probabilities=_flat_probabilities(config, dataset, ensemble, part))
                made = recipe.apply(recipe.maps(own), recipe.probabilities(own), own.placements)
                content[name] = [_plain(boxes) for boxes in made]
            write_json(path, content, indent=None)
        for name, rows in read_json(path).items():
            found[name] |= {image_id: _read(row) for image_id, row in zip(part, rows, strict=True)}
    return found


def _plain(boxes: Detections) -> list[list[Any]]:
    return [boxes.boxes_xyxy_px.tolist(), boxes.class_id.tolist(), boxes.score.tolist()]


def _read(row: Sequence[Any]) -> Detections:
    boxes, class_id, score = row
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(class_id, np.int64), np.array(score, np.float32)
    )


def _scored(config: AblationConfig, folder: RunFolder, dataset: Dataset, matches: Mapping[str, Matches]) -> list[Row]:
    """A row a recipe and metric; `ablation.json` has the differences and each finding's figures too."""
    full = matches[FULL]
    drawn = PatientDraws.of(full.image_ids, dataset.patients, config.draws, config.seed)
    table: dict[str, Any] = {}
    rows = []
    for name, own in tqdm(matches.items(), desc="bootstrap", disable=None):
        table[name] = score_matches(own, dataset.patients, dataset.taxonomy.names, config.draws, config.seed)
        for metric in _METRICS if name != FULL else ():
            gain = compare_boxes(full, own, drawn, metric)
            table[name][f"{metric}_gain"] = gain.interval.to_dict() | {"tie": gain.tie}
            ratio = compare_boxes(full, own, drawn, metric, "ratio").interval
            ours, peer = table[FULL][metric]["value"], table[name][metric]["value"]
            case = f"ablation/full/{metric}/vs-{name if name in RIVALS else f'without-{name}'}"
            rows.append(paired(case, ours, peer, f"{metric.upper()} on test", ratio, config.draws))
    write_json(folder.root / "ablation.json", {"recipes": table, "images": len(full.image_ids), "draws": config.draws})
    return rows


if __name__ == "__main__":
    main()
