"""The search on drawn maps whose best recipe is known, and the verb on a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from camgen.explain import ExplainConfig
from camgen.explain import run as explain
from camgen.generate import GenerateConfig
from camgen.generate import run as generate
from camgen.mapper import map_dataset
from camgen.maps import MapSet
from camgen.recipe import Recipe
from camgen.rivals import THRESHOLDS, gradcam_single, random_map
from camgen.search import SearchConfig, run, search
from camgen.sources import MapSource
from camgen.tuning import TuneFinding, borrow, patient_folds, tune_findings
from classify.ensemble import Ensemble
from eval.average_precision import match
from tests.camgen.makers import NAMES, blob_maps, films
from weakray.coco import BoxTruth, load_results
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import read_json, sha256_file, write_json

SHA = "a" * 64
SIZE = (60, 90)


def boxed_films(
    root: Path, tune: int = 30, test: int = 4, seed: int = 0
) -> tuple[Dataset, dict[tuple[str, int], list[float]]]:
    """Nodules where the maps see them, effusions half a width to the right and lower, and not one mass."""
    rng = np.random.default_rng(seed)
    boxes: dict[str, Detections] = {}
    seen: dict[tuple[str, int], list[float]] = {}
    for i in range(tune + test):
        true, classes = [], []
        for k in (0, 1):
            if rng.random() < 0.6:
                x, y = rng.uniform(25, 60), rng.uniform(20, 40)
                w, h = rng.uniform(14, 26), rng.uniform(12, 24)
                seen[f"i{i:03d}", k] = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
                move = 9 * k
                true.append([x - w / 2 + move, y - h / 2 + move, x + w / 2 + move, y + h / 2 + move])
                classes.append(k)
        boxes[f"i{i:03d}"] = Detections(np.array(true).reshape(-1, 4), np.array(classes, np.int64), np.ones(len(true)))
    dataset = films(root, ["tune"] * tune + ["test"] * test, boxes, images_a_patient=2, size_hw=SIZE)
    return dataset, seen


SOURCES = ("pcam", "gradcam")  # what `blob_maps` draws
QUICK: dict[str, Any] = {"range_thresholds": (0.2, 0.4, 0.6), "value_thresholds": (0.3,), "max_boxes": (2,)}


def config(**changes: Any) -> SearchConfig:
    return SearchConfig(**({"data": Path("d"), "ensemble": Path("e"), "out": Path("o"), "sources": SOURCES} | changes))


def problem(tmp_path: Path) -> tuple[Dataset, Any, list[TuneFinding]]:
    dataset, seen = boxed_films(tmp_path / "data")
    ids = dataset.ids_of("tune")
    return dataset, blob_maps(dataset, ids, seen, 16), tune_findings(dataset, dataset.truth_of("tune"), ids, 5, 0)


def test_finds_thresholds_and_calibrates_only_where_it_helps(tmp_path: Path) -> None:
    dataset, maps, findings = problem(tmp_path)
    recipe, tried = search(config(), SHA, NAMES, maps, findings)
    nodule, effusion, mass = recipe.findings
    assert nodule.tune.ap50 is not None
    assert nodule.tune.ap50 > 0.9
    assert effusion.tune.ap50 is not None
    assert effusion.tune.ap50_uncalibrated is not None
    assert effusion.tune.ap50 > 0.8
    assert effusion.calibration is not None
    assert effusion.tune.ap50_uncalibrated < 0.4
    assert mass.tune == mass.tune.model_copy(update={"boxes": 0, "images": 30, "ap50": None, "ap50_uncalibrated": None})
    assert mass.calibration is None
    assert [row["name"] for row in tried["findings"]] == NAMES
    assert all(row["best_to_median"] >= 0 for row in tried["findings"])
    # The recipe is fitted on all of tune and applied through another path: the evaluator must agree that it works.
    found = dict(
        zip(maps.image_ids, recipe.apply(recipe.maps(maps), recipe.probabilities(maps), maps.placements), strict=True)
    )
    scored = match(found, dataset.truth_of("tune"), 3, [0.5]).average_precision()[:, 0]
    assert scored[0] == pytest.approx(nodule.tune.ap50, abs=0.05)
    assert scored[1] > 0.8


def test_merging_is_chosen_where_findings_are_seen_in_two_parts(tmp_path: Path) -> None:
    _, maps, findings = problem(tmp_path)
    for name, own in maps.maps.items():
        if name.class_id == 0:  # each hill is cut in two by dark columns
            peaks = own.max(axis=1).argmax(axis=1)
            for i, column in enumerate(peaks):
                own[i, :, column] = 0
    settings: dict[str, Any] = {**QUICK, "merge_gaps": (0.0, 0.12), "calibrate": False, "priors": (0.0,)}
    merged, tried = search(config(**settings), SHA, NAMES, maps, findings)
    plain, _ = search(config(**(settings | {"merge_gaps": (0.0,)})), SHA, NAMES, maps, findings)
    assert merged.findings[0].merge_gap == 0.12
    assert (merged.findings[0].tune.ap50 or 0) > (plain.findings[0].tune.ap50 or 0) + 0.1
    gain = tried["findings"][0]["ingredients"]["merging"]["ap50"]
    assert gain[0] > gain[1] == plain.findings[0].tune.ap50


def test_search_without_calibration_and_the_same_twice(tmp_path: Path) -> None:
    _, maps, findings = problem(tmp_path)
    one, _ = search(config(calibrate=False, **QUICK), SHA, NAMES, maps, findings)
    two, _ = search(config(calibrate=False, **QUICK), SHA, NAMES, maps, findings)
    assert one.sha256 == two.sha256
    assert all(entry.calibration is None for entry in one.findings)
    few, _ = search(config(min_boxes=100, **QUICK), SHA, NAMES, maps, findings)
    assert all(entry.calibration is None for entry in few.findings)


def test_the_tune_score_is_the_evaluators_where_nothing_is_fitted(tmp_path: Path) -> None:
    dataset, maps, findings = problem(tmp_path)
    recipe, _ = search(config(calibrate=False, priors=(0.0,)), SHA, NAMES, maps, findings)
    boxes = recipe.apply(recipe.maps(maps), recipe.probabilities(maps), maps.placements)
    scored = match(
        dict(zip(maps.image_ids, boxes, strict=True)), dataset.truth_of("tune"), 3, [0.5]
    ).average_precision()
    for entry, ap in zip(recipe.findings[:2], scored[:2, 0], strict=True):
        assert entry.tune.ap50 == pytest.approx(ap, abs=1e-4)  # scores are float32 there


def test_rivals_have_one_threshold_and_no_calibration(tmp_path: Path) -> None:
    dataset, maps, findings = problem(tmp_path)
    base, _ = search(config(**QUICK), SHA, NAMES, maps, findings)
    ticks: list[None] = []
    plain = gradcam_single(base, maps, findings, 3, lambda: ticks.append(None))
    blind = random_map(base, maps, findings, 3, lambda: ticks.append(None))
    assert len(ticks) == 3 * len(findings)
    for rival, method in ((plain, "gradcam"), (blind, "random")):
        assert len({entry.threshold.value for entry in rival.findings}) == 1
        assert all(entry.method == method for entry in rival.findings)
        assert all(entry.calibration is None and entry.gate == 0 for entry in rival.findings)
        assert len({base.sha256, rival.sha256}) == 2
        assert Recipe.model_validate(rival.model_dump(mode="json")) == rival
    assert plain.probability == "members"
    assert {entry.members for entry in plain.findings} == {(0,)}  # equal maps, so the first of the two
    # The threshold is the best one: try them all through the evaluator.
    for rival in (plain, blind):
        truth, mean = dataset.truth_of("tune"), {}
        for value in THRESHOLDS:
            entries = [
                entry.model_copy(update={"threshold": entry.threshold.model_copy(update={"value": value})})
                for entry in rival.findings
            ]
            tried = rival.model_copy(update={"findings": tuple(entries)})
            boxes = tried.apply(tried.maps(maps), tried.probabilities(maps), maps.placements)
            found = dict(zip(maps.image_ids, boxes, strict=True))
            mean[value] = float(np.nanmean(match(found, truth, 3, [0.5]).average_precision()))
        assert mean[rival.findings[0].threshold.value] == pytest.approx(max(mean.values()), abs=1e-4)
    assert (plain.findings[0].tune.ap50 or 0) > (blind.findings[0].tune.ap50 or 0)


def test_patients_share_a_fold_and_boxes_are_spread() -> None:
    patients = ["a", "b", "a", "c", "d", "e", "f", "d"]
    boxes = [1, 0, 2, 1, 0, 1, 3, 1]
    folds = patient_folds(patients, boxes, 3, seed=0)
    assert folds[0] == folds[2]
    assert folds[4] == folds[7]
    assert {int(folds[i]) for i in (0, 3, 5, 6, 7)} == {0, 1, 2}
    order = [5, 3, 1, 0, 7, 6, 4, 2]
    shuffled = patient_folds([patients[i] for i in order], [boxes[i] for i in order], 3, seed=0)
    assert shuffled.tolist() == folds[order].tolist()


def test_few_boxes_borrow_from_the_other_findings() -> None:
    criterion = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.6]])
    steadied = borrow(criterion, np.array([30, 10, 0]))
    assert steadied[0] == pytest.approx([0.75, 0.25])  # 30 / 40 its own, the rest from finding 1 alone
    assert steadied[1] == pytest.approx([0.5, 0.5])
    assert steadied[2] == pytest.approx([0.5, 0.5])  # no box of its own: the mean of the two others
    assert (borrow(criterion, np.zeros(3, np.int64)) == criterion).all()


def verb(tmp_path: Path, ensemble: Path, out: str = "search", **changes: Any) -> SearchConfig:
    values = {
        "data": tmp_path / "data",
        "ensemble": ensemble,
        "out": tmp_path / out,
        "device": "cpu",
        "range_thresholds": (0.3, 0.6),
        "value_thresholds": (0.5,),
        "max_boxes": (1, 2),
        "map_batch": 4,
    }
    return SearchConfig(**(values | changes))


def test_the_verb_never_reads_test_boxes(
    tmp_path: Path, ensemble_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = boxed_films(tmp_path / "data", tune=9, test=3)
    real = Dataset.truth_of

    def tune_only(self: Dataset, split: Literal["tune", "test"]) -> BoxTruth:
        if split == "test":
            raise AssertionError("the search read test boxes")
        return real(self, split)

    def no_ceiling(self: Dataset) -> BoxTruth | None:
        raise AssertionError("the search read train boxes")

    monkeypatch.setattr(Dataset, "truth_of", tune_only)
    monkeypatch.setattr(Dataset, "ceiling_truth", no_ceiling)
    result = run(verb(tmp_path, ensemble_folder))
    files = {
        name: sha256_file(tmp_path / "search" / name)
        for name in ("recipe.yaml", "gradcam_single.yaml", "random_map.yaml", "search.json", "search.md")
    }
    assert result.recipe_sha256 == Recipe.load(result.recipe).sha256
    assert result.tune_images == 9
    assert run(verb(tmp_path, ensemble_folder)) == result

    # With other test boxes on disk, everything comes out the same to the byte.
    content = read_json(dataset.root / "boxes.json")
    test_ids = {image["id"] for image in content["images"] if image["file_name"] in dataset.ids_of("test")}
    for annotation in content["annotations"]:
        if annotation["image_id"] in test_ids:
            annotation["bbox"] = [0, 0, 5, 5]
    write_json(dataset.root / "boxes.json", content, indent=None)
    run(verb(tmp_path, ensemble_folder, "again"))
    assert files == {name: sha256_file(tmp_path / "again" / name) for name in files}
    report = read_json(tmp_path / "search" / "search.json")
    assert set(report["recipes"]) == {"recipe", "gradcam_single", "random_map"}


def test_the_engine_does_not_change_boxes_of_one_member(tmp_path: Path, ensemble_folder: Path) -> None:
    boxed_films(tmp_path / "data", tune=9, test=0)
    changes: dict[str, Any] = {"sources": ("gradcam",), "single_members": True}
    run(verb(tmp_path, ensemble_folder, "ours", **changes))
    run(verb(tmp_path, ensemble_folder, "peer", engine="pytorch_grad_cam", **changes))
    one, two = (Recipe.load(tmp_path / name / "gradcam_single.yaml") for name in ("ours", "peer"))
    for a, b in zip(one.findings, two.findings, strict=True):
        assert a.threshold == b.threshold
        assert a.tune.ap50 == pytest.approx(b.tune.ap50, abs=1e-3)


def test_views_targets_and_masked_passes_are_searched_and_carried(tmp_path: Path, ensemble_folder: Path) -> None:
    dataset, _ = boxed_films(tmp_path / "data", tune=6, test=3)
    sources = ("gradcam:probability", "gradcam~flip", "ablationcam")
    few: dict[str, Any] = {"range_thresholds": (0.4,), "max_boxes": (2,), "priors": (0.0,), "rivals": False}
    result = run(verb(tmp_path, ensemble_folder, sources=sources, masked_bf16=True, **few))
    tried = read_json(tmp_path / "search" / "search.json")["findings"][0]["best_criterion"]
    assert {name.split("/")[0] for name in tried} == set(sources)
    recipe = Recipe.load(result.recipe)
    assert recipe.masked_bf16
    assert {one.member for one in recipe.offsets} == {0, 1}
    assert recipe.making(1).passes.budget_bytes == 2**20
    # Whatever was chosen for a finding, search, generate and explain make the same boxes of it.
    kinds = [MapSource.parse(source) for source in sources]
    changed = [
        entry.model_copy(update={**kind._asdict(), "gate": 0.0, "calibration": None})
        for entry, kind in zip(recipe.findings, kinds, strict=True)
    ]
    recipe = recipe.model_copy(update={"findings": tuple(changed)})
    recipe.save(tmp_path / "recipe.yaml")
    known = {"ensemble": ensemble_folder, "recipe": tmp_path / "recipe.yaml", "device": "cpu"}
    boxes = load_results(
        generate(GenerateConfig(**known, data=dataset.root, out=tmp_path / "b", splits=("tune",))).boxes
    )
    image_ids = dataset.ids_of("tune")
    stream = map_dataset(Ensemble.load(ensemble_folder), dataset, image_ids, recipe.wanted, recipe.making(64), 4, 1)
    maps = MapSet.concat(list(stream))
    assert {name.views for name in maps.maps} == {None, "flip"}
    for i, found in enumerate(recipe.apply(recipe.maps(maps), recipe.probabilities(maps), maps.placements)):
        assert boxes[image_ids[i]].boxes_xyxy_px == pytest.approx(found.boxes_xyxy_px, abs=0.5)  # bf16
    shown: dict[str, Any] = {"image": dataset.path_of(image_ids[0]), "findings": tuple(NAMES)}
    told = explain(ExplainConfig(**known, **shown, out=tmp_path / "seen.png"))
    assert list(told.boxes.values()) == np.bincount(boxes[image_ids[0]].class_id, minlength=3).tolist()


def test_a_set_without_tune_images_is_refused(tmp_path: Path, ensemble_folder: Path) -> None:
    films(tmp_path / "data", ["train"] * 3, {})
    with pytest.raises(DataError, match="expected annotated tune images, found none; ingest with a tune part"):
        run(verb(tmp_path, ensemble_folder))
