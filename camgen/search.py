"""`weakray camgen search`: fits the recipe, and its rivals, on *tune*.

Maps and probabilities of the tune images are computed once; then every finding tries members x method and layer x
location prior x threshold x number of boxes x calibration strength, and a gate for what won. Prior and calibration of
an image are fitted without its patient's fold. Never reads the boxes of test or train.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator
from tqdm import tqdm

from camgen.calibration import fit, matched_pairs
from camgen.components import Components, FineMap, find_components, fine_map
from camgen.layers import LAST
from camgen.mapper import map_dataset
from camgen.maps import FROM_HEAD, METHODS, UNIT_RANGE, Engine, MapArray, MapName, MapSet
from camgen.prior import Prior, fit_prior, weight
from camgen.recipe import FindingRecipe, Recipe, Threshold, TuneScores
from camgen.rivals import THRESHOLDS as RIVAL_THRESHOLDS
from camgen.rivals import gradcam_single, random_map
from camgen.tuning import IOUS, Judged, TuneFinding, borrow, first_near_best, judge, strengths_for, tune_findings
from classify.compute import DeviceName, torch_device
from classify.ensemble import Ensemble, check_findings
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_json
from weakray.runs import open_run


class SearchConfig(StrictModel):
    """What is tried. Thresholds, gates and box numbers are tried per finding."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "workers"})

    data: Path = Field(..., description="dataset folder with annotated tune images")
    ensemble: Path = Field(..., description="folder of a trained ensemble")
    out: Path = Field(..., description="run folder; recipe.yaml, gradcam_single.yaml and random_map.yaml end up there")
    sources: tuple[str, ...] = Field(
        ("pcam", "gradcam", "layercam", "layercam@stage2", "layercam@stage1"),
        min_length=1,
        description="maps to try: a method, at a layer other than the last after an @",
    )
    engine: Engine = Field("ours", description="who computes Grad-CAM: ours, or pytorch_grad_cam")
    single_members: bool = Field(False, description="try each member's maps alone too, not only the members' mean")
    range_thresholds: tuple[float, ...] = Field(
        (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        min_length=1,
        description="cuts to try, as fractions of a map's range in its image",
    )
    value_thresholds: tuple[float, ...] = Field(
        (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8), description="cuts to try, as values of PCAM maps"
    )
    priors: tuple[float, ...] = Field(
        (0.0, 0.5, 1.0), min_length=1, description="powers of the location prior to try; 0 leaves maps as they are"
    )
    max_boxes: tuple[int, ...] = Field((1, 2, 3), min_length=1, description="numbers of boxes an image to try")
    gates: tuple[float, ...] = Field(
        (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5), min_length=1, description="probability gates to try"
    )
    calibrate: bool = Field(True, description="fit box calibration where cross-validation says that it helps")
    min_boxes: int = Field(6, ge=2, description="no calibration for findings with fewer true boxes on tune")
    folds: int = Field(5, ge=2, description="folds of the cross-validation, patients kept together")
    resolution: int = Field(96, ge=1, description="grid samples along a map's side on which components are found")
    min_area: float = Field(0.0005, ge=0, lt=1, description="smallest component, as a fraction of the image")
    rivals: bool = Field(True, description="fit the rivals' recipes too")
    map_batch: int = Field(16, ge=1, description="images a forward pass")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    seed: int = Field(0, ge=0, description="of the folds and the random maps")

    @field_validator("sources")
    @classmethod
    def _known(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            method, layer = _split(source)
            if method not in METHODS:
                raise ValueError(f"expected METHOD or METHOD@LAYER, METHOD among {', '.join(METHODS)}; got {source!r}")
            if method in FROM_HEAD and layer != LAST:
                raise ValueError(f"{method} maps are of the last layer only; got {source!r}")
        return sources


class SearchResult(StrictModel):
    """What the search left."""

    recipe: Path
    recipe_sha256: str
    tune_images: int
    tune_boxes: int
    ap50: float | None  # mean over findings with boxes, cross-validated on tune
    ap50_uncalibrated: float | None
    calibrated_findings: int


@dataclass(frozen=True)
class _Option:
    """One way to cut one kind of map."""

    members: tuple[int, ...]
    method: str
    layer: str
    exponent: float
    threshold: Threshold
    max_boxes: int


def run(config: SearchConfig) -> SearchResult:
    """Fits and writes `recipe.yaml`, the rivals' recipes, and `search.json` (what was tried)."""
    dataset = Dataset.load(config.data)
    ensemble = Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = folder.finished()
    if done is not None:
        return SearchResult.model_validate({**done, "recipe": config.out / "recipe.yaml"})  # it may have been moved
    truth = dataset.truth_of("tune")
    image_ids = [image_id for image_id in dataset.ids_of("tune") if image_id in set(truth.image_ids)]
    if not image_ids:
        raise DataError(f"{config.data}: expected annotated tune images, found none; ingest with a tune part")
    ensemble.to(torch_device(config.device))
    wanted = _wanted(config, len(ensemble.members), len(dataset.taxonomy))
    stream = map_dataset(ensemble, dataset, image_ids, wanted, config.engine, config.map_batch, config.workers)
    maps = MapSet.concat(list(tqdm(stream, total=-(-len(image_ids) // config.map_batch), desc="maps", disable=None)))
    findings = tune_findings(dataset, truth, image_ids, config.folds, config.seed)
    recipe, tried = search(config, ensemble.sha256, dataset.taxonomy.names, maps, findings)
    recipes = [recipe]
    if config.rivals:
        members = len(maps.member_probabilities)
        with tqdm(total=(members + 1) * len(RIVAL_THRESHOLDS), desc="rivals", disable=None) as bar:
            most = max(config.max_boxes)
            recipes.append(gradcam_single(recipe, maps, findings, most, bar.update))
            recipes.append(random_map(recipe, maps, findings, most, bar.update))
    for made in recipes:
        made.save(folder.root / f"{made.source}.yaml")
    report = {made.source: {"sha256": made.sha256, "ap50": _mean(made, "ap50")} for made in recipes}
    write_json(folder.root / "search.json", {"recipes": report, "images": len(image_ids), **tried})
    result = SearchResult(
        recipe=config.out / "recipe.yaml",
        recipe_sha256=recipe.sha256,
        tune_images=len(image_ids),
        tune_boxes=sum(finding.truth.count for finding in findings),
        ap50=_mean(recipe, "ap50"),
        ap50_uncalibrated=_mean(recipe, "ap50_uncalibrated"),
        calibrated_findings=sum(entry.calibration is not None for entry in recipe.findings),
    )
    folder.finish(result.model_dump(mode="json"))
    return result


def search(
    config: SearchConfig, ensemble_sha256: str, names: Sequence[str], maps: MapSet, findings: Sequence[TuneFinding]
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe, and what was tried as JSON-able values."""
    options = _options(config, len(maps.member_probabilities))
    strengths = [strengths_for(finding.truth.count, config.min_boxes, config.calibrate) for finding in findings]
    width = max(len(s) for s in strengths)
    criterion = np.zeros((len(findings), len(options), width))
    allowed = np.zeros(criterion.shape, bool)
    found: list[list[Components]] = []
    judged: list[list[Judged]] = []
    with tqdm(total=len(findings) * len(options), desc="search", disable=None) as bar:
        for k, finding in enumerate(findings):
            found.append(_candidates(config, options, maps, finding, k))
            probability = maps.probabilities[finding.rows, k]
            row = []
            for components in found[k]:
                row.append(judge(components, probability, finding, gate=0, strengths=strengths[k]))
                bar.update()
            judged.append(row)
            for o, one in enumerate(row):
                criterion[k, o] = one.criterion[0]  # strengths not tried count as the identity for the others
                criterion[k, o, : len(strengths[k])] = one.criterion
                allowed[k, o, : len(strengths[k])] = one.trusted
    steadied = borrow(criterion, np.array([finding.truth.count for finding in findings]))
    entries, table = [], []
    for k, finding in enumerate(findings):
        usable = np.where(allowed[k], steadied[k], -np.inf)
        # Options stand in order of doing less; a strength nearer infinity does less.
        s, o = divmod(first_near_best(usable.T.ravel()), len(options))
        strength = strengths[k][s]
        gate, at_gate = _gate(config, found[k][o], maps.probabilities[finding.rows, k], finding, strength)
        entry = FindingRecipe(
            name=names[k],
            members=options[o].members,
            method=options[o].method,
            layer=options[o].layer,
            prior=_prior(options[o].exponent, finding),
            threshold=options[o].threshold,
            max_boxes=options[o].max_boxes,
            gate=gate,
            calibration=fit(matched_pairs(found[k][o], finding.truth), strength),
            tune=TuneScores(
                boxes=finding.truth.count,
                images=len(finding.rows),
                ap50=finding.rounded(at_gate),
                ap50_uncalibrated=finding.rounded(float(judged[k][o].ap50[0])),
            ),
        )
        entries.append(entry)
        table.append(_report(entry, options, criterion[k]))
    recipe = Recipe(
        ensemble_sha256=ensemble_sha256,
        engine=config.engine,
        resolution=config.resolution,
        min_area=config.min_area,
        seed=config.seed,
        findings=tuple(entries),
    )
    return recipe, {"options": len(options), "criterion_ious": list(IOUS), "findings": table}


def _options(config: SearchConfig, members: int) -> list[_Option]:
    """All ways to cut, those that make fewer boxes first."""
    sets = [tuple(range(members))]
    if config.single_members and members > 1:
        sets += [(member,) for member in range(members)]
    options = []
    kinds = product(sorted(config.max_boxes), sets, config.sources, sorted(config.priors))
    for boxes, chosen, source, exponent in kinds:
        method, layer = _split(source)
        cuts = [Threshold(kind="range", value=value) for value in config.range_thresholds]
        if method in UNIT_RANGE:
            cuts += [Threshold(kind="value", value=value) for value in config.value_thresholds]
        options += [_Option(chosen, method, layer, exponent, cut, boxes) for cut in cuts]
    return options


def _split(source: str) -> tuple[str, str]:
    """Method and layer of `METHOD` or `METHOD@LAYER`."""
    method, _, layer = source.partition("@")
    return method, layer or LAST


def _wanted(config: SearchConfig, members: int, findings: int) -> list[MapName]:
    kinds = [_split(source) for source in config.sources]
    if config.rivals and ("gradcam", LAST) not in kinds:
        kinds.append(("gradcam", LAST))
    return [MapName(m, *kind, k) for m, kind, k in product(range(members), kinds, range(findings))]


def _candidates(
    config: SearchConfig, options: Sequence[_Option], maps: MapSet, finding: TuneFinding, class_id: int
) -> list[Components]:
    """The finding's boxes before calibration under each option; maps and cuts are shared where they can be."""
    fine: dict[tuple[Any, ...], list[FineMap]] = {}
    cut: dict[tuple[Any, ...], Components] = {}
    weighted = _Weighted(maps, finding)
    found = []
    for option in options:
        kind = (option.members, option.method, option.layer, option.exponent)
        if kind not in fine:
            mapped = maps.mean(option.members, option.method, option.layer, class_id)[finding.rows]
            mapped = weighted(mapped, option.exponent)
            fine[kind] = [
                fine_map(own, maps.placements[i], config.resolution)
                for own, i in zip(mapped, finding.rows, strict=True)
            ]
        key = (*kind, option.threshold.kind, option.threshold.value)
        if key not in cut:
            cut[key] = find_components(
                fine[kind],
                value=option.threshold.value,
                relative=option.threshold.kind == "range",
                unit_range=option.method in UNIT_RANGE,
                min_area=config.min_area,
                places=max(config.max_boxes),
            )
        found.append(cut[key].first(option.max_boxes))
    return found


class _Weighted:
    """Maps of a finding's images under its location prior, each image's fitted without its patient's fold."""

    def __init__(self, maps: MapSet, finding: TuneFinding) -> None:
        self._placements = [maps.placements[i] for i in finding.rows]
        folds = np.unique(finding.fold_of)
        outside = {fold: finding.fold_of != fold for fold in folds}
        self._grids = {f: fit_prior(_boxes(finding, rows)) for f, rows in outside.items()}
        self._fold_of = finding.fold_of
        self._made: dict[tuple[Any, ...], MapArray] = {}

    def __call__(self, mapped: MapArray, exponent: float) -> MapArray:
        if exponent == 0 or len(mapped) == 0:
            return mapped
        size_hw = (mapped.shape[1], mapped.shape[2])
        if (exponent, size_hw) not in self._made:
            own = zip(self._fold_of.tolist(), self._placements, strict=True)
            self._made[exponent, size_hw] = np.stack(
                [weight(self._grids[fold], exponent, place, size_hw) for fold, place in own]
            )
        return mapped * self._made[exponent, size_hw]


def _boxes(finding: TuneFinding, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """True boxes `(m, 4)` of some of the finding's images."""
    return np.asarray(finding.truth.boxes_rel[rows][finding.truth.valid[rows]])


def _prior(exponent: float, finding: TuneFinding) -> Prior | None:
    """The prior of all true boxes, or none."""
    if exponent == 0:
        return None
    grid = fit_prior(_boxes(finding, np.ones(len(finding.rows), bool)))
    return Prior(exponent=exponent, grid=tuple(tuple(row) for row in grid.tolist()))


def _gate(
    config: SearchConfig, found: Components, probability: npt.NDArray[np.float64], finding: TuneFinding, strength: float
) -> tuple[float, float]:
    """The highest gate that costs nothing, and AP50 with it: the same score with fewer boxes is the better recipe."""
    strengths = (math.inf,) if math.isinf(strength) else (math.inf, strength)
    gates = sorted({0.0, *config.gates}, reverse=True) if finding.truth.count else [0.0]
    judged = [judge(found, probability, finding, gate=gate, strengths=strengths) for gate in gates]
    best = first_near_best(np.array([one.criterion[-1] for one in judged]))
    return gates[best], float(judged[best].ap50[-1])


def _report(entry: FindingRecipe, options: Sequence[_Option], criterion: npt.NDArray[np.float64]) -> dict[str, Any]:
    """One finding's line of `search.json`."""
    by_method: dict[str, float] = {}
    for option, values in zip(options, criterion, strict=True):
        members = ",".join(map(str, option.members))
        name = f"{option.method}@{option.layer}/prior {option.exponent:g}/{option.threshold.kind}/members {members}"
        by_method[name] = max(by_method.get(name, 0.0), round(float(values.max()), 6))
    best_of_option = criterion.max(axis=1)
    return {
        "name": entry.name,
        "boxes": entry.tune.boxes,
        "images": entry.tune.images,
        "chosen": {
            "members": list(entry.members),
            "method": entry.method,
            "layer": entry.layer,
            "prior": entry.prior.exponent if entry.prior else 0,
            "threshold": [entry.threshold.kind, entry.threshold.value],
            "max_boxes": entry.max_boxes,
            "gate": entry.gate,
            "strength": entry.calibration.strength if entry.calibration else None,
        },
        "ap50": entry.tune.ap50,
        "ap50_uncalibrated": entry.tune.ap50_uncalibrated,
        "best_to_median": round(float(best_of_option.max() - np.median(best_of_option)), 6),
        "best_criterion": by_method,
    }


def _mean(recipe: Recipe, score: str) -> float | None:
    """A tune score, averaged over findings with boxes."""
    values = [getattr(entry.tune, score) for entry in recipe.findings if entry.tune.boxes]
    return round(float(np.mean(values)), 6) if values else None
