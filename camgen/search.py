"""`weakray camgen search`: fits the recipe, and its rivals, on *tune*.

Maps and probabilities of the tune images are computed once; then every finding tries members x their fusion x method
and layer x location prior x threshold x number of boxes x calibration strength, and a gate for what won. Prior and
calibration of an image are fitted without its patient's fold. Never reads the boxes of test or train. Without annotated
images there is nothing to choose by: `defaults` then writes the recipe of `camgen.default_recipe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator
from tqdm import tqdm

from camgen.calibration import STRENGTHS, Extra, fit, matched_pairs, with_extra
from camgen.candidates import Cutter, Option
from camgen.components import Components
from camgen.default_recipe import default_maps, default_recipe
from camgen.fusion import Fusion
from camgen.mapper import Making, map_dataset
from camgen.maps import UNIT_RANGE, Engine, MapName, MapSet
from camgen.methods.masked import MaskedPasses
from camgen.offsets import LayerOffset, measure_all
from camgen.prior import Prior, fit_prior
from camgen.recipe import FindingRecipe, Recipe, Threshold, TuneScores
from camgen.rivals import PLAIN_GRADCAM, gradcam_single, random_map
from camgen.search_report import Gated, Mask, Tried, as_markdown, told
from camgen.sources import MapSource
from camgen.tuning import IOUS, Array, TuneFinding, first_near_best, judge, strengths_for, tune_findings
from classify.compute import DeviceName, torch_device
from classify.ensemble import Ensemble, check_findings
from weakray.coco import BoxTruth
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import write_json, write_text
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
        description="maps to try, METHOD[@LAYER][:TARGET][~VIEWS]: gradcam@stage2, gradcam:probability, pcam~flip",
    )
    engine: Engine = Field("ours", description="who computes Grad-CAM: ours, or pytorch_grad_cam")
    masked_bf16: bool = Field(False, description="run the further passes of scorecam and ablationcam under bfloat16")
    masked_memory_mib: int = Field(
        64, ge=1, description="MiB of masked images or ablated layers that scorecam and ablationcam hold at a time"
    )
    single_members: bool = Field(False, description="try each member's maps alone too, not only the members' mean")
    fusions: tuple[Fusion, ...] = Field(
        ("maps", "boxes"),
        min_length=1,
        description="how to join several members: maps, their mean is cut; boxes, each is cut and the boxes are fused",
    )
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
    merge_gaps: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        description="gaps to try below which components are one box, as fractions of the image's longer side; 0: none",
    )
    gates: tuple[float, ...] = Field(
        (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5), min_length=1, description="probability gates to try"
    )
    calibrate: bool = Field(True, description="fit box calibration where cross-validation says that it helps")
    extra_features: tuple[Extra, ...] = Field(
        (), description="what calibration looks at beside the box and its component: contrast, agreement of members"
    )
    min_boxes: int = Field(6, ge=2, description="no calibration for findings with fewer true boxes on tune")
    folds: int = Field(5, ge=2, description="folds of the cross-validation, patients kept together")
    resolution: int = Field(96, ge=1, description="grid samples along a map's side on which components are found")
    min_area: float = Field(0.0005, ge=0, lt=1, description="smallest component, as a fraction of the image")
    centre_maps: bool = Field(True, description="measure where the cells of maps look, and move the maps there")
    rivals: bool = Field(True, description="fit the rivals' recipes too")
    defaults: bool = Field(
        False,
        description="look at no box, for a dataset without annotated images: write a recipe of published defaults "
        "(mean PCAM map, one cut, gates at the ensemble's decision thresholds); nothing is searched, no rival fitted",
    )
    map_batch: int = Field(16, ge=1, description="images a forward pass")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    seed: int = Field(0, ge=0, description="of the folds and the random maps")

    @field_validator("sources")
    @classmethod
    def _known(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for source in sources:
            MapSource.parse(source)
        return sources


class SearchResult(StrictModel):
    """What the search left."""

    recipe: Path
    recipe_sha256: str
    tune_images: int = 0
    tune_boxes: int = 0
    ap50: float | None = None  # mean over findings with boxes, cross-validated on tune
    ap50_uncalibrated: float | None = None
    calibrated_findings: int = 0


def run(config: SearchConfig) -> SearchResult:
    """Fits and writes `recipe.yaml`, the rivals' recipes, and what was tried: `search.json`, `search.md` to read.

    With `defaults`, `recipe.yaml` alone.

    Raises:
        DataError: if there is no annotated tune image to choose by, and `defaults` is not set.
    """
    dataset = Dataset.load(config.data)
    ensemble = Ensemble.load(config.ensemble)
    check_findings(dataset, ensemble.taxonomy)
    folder = open_run(config.out, config, {"dataset": dataset.sha256, "ensemble": ensemble.sha256})
    done = folder.finished()
    if done is not None:
        return SearchResult.model_validate({**done, "recipe": config.out / "recipe.yaml"})  # it may have been moved
    ensemble.to(torch_device(config.device))
    if config.defaults:
        offsets = measure_all(ensemble, default_maps(ensemble)) if config.centre_maps else {}
        plain = default_recipe(ensemble, offsets, config.resolution, config.min_area)
        plain.save(folder.root / "recipe.yaml")
        result = SearchResult(recipe=config.out / "recipe.yaml", recipe_sha256=plain.sha256)
        folder.finish(result.model_dump(mode="json"))
        return result
    truth, image_ids = tune_images(dataset)
    maps = tune_maps(config, ensemble, dataset, image_ids)
    findings = tune_findings(dataset, truth, image_ids, config.folds, config.seed)
    recipe, tried = search(config, ensemble.sha256, dataset.taxonomy.names, maps, findings)
    recipes = [recipe]
    if config.rivals:
        members = len(maps.member_probabilities)
        with tqdm(total=(members + 1) * len(findings), desc="rivals", disable=None) as bar:
            most = max(config.max_boxes)
            recipes.append(gradcam_single(recipe, maps, findings, most, bar.update))
            recipes.append(random_map(recipe, maps, findings, most, bar.update))
    for made in recipes:
        made.save(folder.root / f"{made.source}.yaml")
    report = {made.source: {"sha256": made.sha256, "ap50": _mean(made, "ap50")} for made in recipes}
    content = {"recipes": report, "images": len(image_ids), **tried}
    write_json(folder.root / "search.json", content)
    write_text(folder.root / "search.md", as_markdown(content))
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


def tune_images(dataset: Dataset) -> tuple[BoxTruth, list[str]]:
    """The true boxes of *tune*, and its annotated images.

    Raises:
        DataError: if there is none.
    """
    truth = dataset.truth_of("tune")
    annotated = set(truth.image_ids)
    image_ids = [image_id for image_id in dataset.ids_of("tune") if image_id in annotated]
    if not image_ids:
        raise DataError(
            f"{dataset.root}: expected annotated tune images, found none; ingest with a tune part, or set "
            "defaults: true for a recipe that is fitted to no box"
        )
    return truth, image_ids


def tune_maps(config: SearchConfig, ensemble: Ensemble, dataset: Dataset, image_ids: Sequence[str]) -> MapSet:
    """All that the search looks at of the images."""
    wanted = _wanted(config, len(ensemble.members), len(dataset.taxonomy))
    passes = MaskedPasses(config.masked_memory_mib * 2**20, config.masked_bf16)
    making = Making(config.engine, passes)
    offsets = measure_all(ensemble, wanted) if config.centre_maps else {}
    stream = map_dataset(ensemble, dataset, image_ids, wanted, making, config.map_batch, config.workers)
    parts = list(tqdm(stream, total=-(-len(image_ids) // config.map_batch), desc="maps", disable=None))
    return replace(MapSet.concat(parts), offsets=offsets)


def search(
    config: SearchConfig, ensemble_sha256: str, names: Sequence[str], maps: MapSet, findings: Sequence[TuneFinding]
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe, and what was tried as JSON-able values."""
    tried = try_all(config, maps, findings)
    recipe, gates = choose(config, ensemble_sha256, names, maps, findings, tried)
    return recipe, {"options": len(tried.options), "criterion_ious": list(IOUS), **told(recipe, tried, gates)}


def try_all(config: SearchConfig, maps: MapSet, findings: Sequence[TuneFinding]) -> Tried:
    """Every candidate of every finding, scored."""
    options = all_options(config, len(maps.member_probabilities))
    tables = []
    with tqdm(total=len(findings) * len(options), desc="search", disable=None) as bar:
        for k, finding in enumerate(findings):
            tables.append(_tried(config, options, _cutter(config, maps, finding, k), finding, bar.update))
    criterion, ap50, trusted = (np.stack(column) for column in zip(*tables, strict=True))
    boxes = np.array([finding.truth.count for finding in findings])
    return Tried(options, criterion, ap50, trusted.astype(bool), boxes)


def choose(
    config: SearchConfig,
    ensemble_sha256: str,
    names: Sequence[str],
    maps: MapSet,
    findings: Sequence[TuneFinding],
    tried: Tried,
    among: Mask | None = None,
) -> tuple[Recipe, list[Gated]]:
    """The recipe of the best candidates, of those that `among` `(o, s)` admits; and each finding's scores."""
    entries, gates = [], []
    for k, finding in enumerate(findings):
        o, s = tried.pick(k, among)
        option, strength = tried.options[o], STRENGTHS[s]
        cutter = _cutter(config, maps, finding, k)
        found = cutter.components(option)
        gate, gated = _gate(config, found, cutter.probability, finding, strength)
        gates.append(gated)
        entry = FindingRecipe(
            name=names[k],
            members=option.members,
            fusion=option.fusion,
            **option.source._asdict(),
            prior=_prior(option.exponent, finding),
            threshold=option.threshold,
            max_boxes=option.max_boxes,
            merge_gap=option.merge_gap,
            gate=gate,
            calibration=fit(matched_pairs(found, finding.truth, with_extra(config.extra_features)), strength),
            tune=TuneScores(
                boxes=finding.truth.count,
                images=len(finding.rows),
                ap50=finding.rounded(gated.ap50),
                ap50_uncalibrated=finding.rounded(float(tried.ap50[k, o, 0])),
            ),
        )
        entries.append(entry)
    recipe = Recipe(
        ensemble_sha256=ensemble_sha256,
        engine=config.engine,
        masked_bf16=config.masked_bf16,
        resolution=config.resolution,
        min_area=config.min_area,
        seed=config.seed,
        offsets=tuple(
            LayerOffset(member=member, layer=layer, down=down, right=right)
            for (member, layer), (down, right) in maps.offsets.items()
        ),
        findings=tuple(entries),
    )
    return recipe, gates


def _tried(
    config: SearchConfig, options: Sequence[Option], cutter: Cutter, finding: TuneFinding, tick: Callable[[int], object]
) -> tuple[Array, Array, Array]:
    """Criterion, AP50 and trust `(options, strengths)` of one finding; strengths not tried count as the identity."""
    strengths = strengths_for(finding.truth.count, config.min_boxes, config.calibrate)
    features = with_extra(config.extra_features)
    criterion, ap50 = (np.zeros((len(options), len(STRENGTHS))) for _ in range(2))
    trusted = np.zeros((len(options), len(STRENGTHS)), bool)
    for index, found in cutter.candidates(options):
        judged = judge(found, cutter.probability, finding, gate=0, strengths=strengths, features=features)
        for table, values in ((criterion, judged.criterion), (ap50, judged.ap50)):
            table[index] = values[:, :1]
            table[index, : len(strengths)] = values
        trusted[index, : len(strengths)] = judged.trusted
        tick(len(index))
    return criterion, ap50, trusted


def all_options(config: SearchConfig, members: int) -> list[Option]:
    """All ways to cut, those that make fewer boxes first. One member alone has nothing to fuse."""
    together, fusions = tuple(range(members)), config.fusions if members > 1 else ("maps",)
    sets: list[tuple[tuple[int, ...], Fusion]] = [(together, "maps")] if "maps" in fusions else []
    if config.single_members and members > 1:
        sets += [((member,), "maps") for member in range(members)]
    sets += [(together, "boxes")] if "boxes" in fusions else []
    options = []
    sources = [MapSource.parse(source) for source in config.sources]
    gaps, priors = sorted(config.merge_gaps), sorted(config.priors)
    for boxes, gap, chosen, source, exponent in product(sorted(config.max_boxes), gaps, sets, sources, priors):
        cuts = [Threshold(kind="range", value=value) for value in config.range_thresholds]
        if source.method in UNIT_RANGE:
            cuts += [Threshold(kind="value", value=value) for value in config.value_thresholds]
        options += [Option(chosen[0], source, exponent, cut, boxes, gap, chosen[1]) for cut in cuts]
    return options


def _wanted(config: SearchConfig, members: int, findings: int) -> list[MapName]:
    sources = [MapSource.parse(source) for source in config.sources]
    if config.rivals and PLAIN_GRADCAM not in sources:
        sources.append(PLAIN_GRADCAM)
    return [source.name(m, k) for m, source, k in product(range(members), sources, range(findings))]


def _cutter(config: SearchConfig, maps: MapSet, finding: TuneFinding, class_id: int) -> Cutter:
    agreement = "agreement" in config.extra_features
    return Cutter(maps, finding, class_id, config.resolution, config.min_area, agreement)


def _prior(exponent: float, finding: TuneFinding) -> Prior | None:
    """The prior of all true boxes, or none where there is none to fit."""
    if exponent == 0 or finding.truth.count == 0:
        return None
    grid = fit_prior(finding.truth.boxes_rel[finding.truth.valid])
    return Prior(exponent=exponent, grid=tuple(tuple(row) for row in grid.tolist()))


def _gate(
    config: SearchConfig, found: Components, probability: Array, finding: TuneFinding, strength: float
) -> tuple[float, Gated]:
    """The highest gate that costs nothing, and the scores with it: as good with fewer boxes is the better recipe."""
    strengths = (math.inf,) if math.isinf(strength) else (math.inf, strength)
    gates = sorted({0.0, *config.gates}, reverse=True) if finding.truth.count else [0.0]
    features = with_extra(config.extra_features)
    judged = [
        judge(found.with_options, probability, finding, gate=gate, strengths=strengths, features=features)
        for gate in gates
    ]
    best = first_near_best(np.array([one.criterion[0, -1] for one in judged]))
    return gates[best], Gated(float(judged[best].criterion[0, -1]), float(judged[best].ap50[0, -1]))


def _mean(recipe: Recipe, score: str) -> float | None:
    """A tune score, averaged over findings with boxes."""
    values = [getattr(entry.tune, score) for entry in recipe.findings if entry.tune.boxes]
    return round(float(np.mean(values)), 6) if values else None
