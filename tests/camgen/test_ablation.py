"""The ablation bench on a handful of films: which recipes, the same boxes as `generate`, killed and gone on with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import bench.ablation as module
import bench.finished_run as shared
from bench.ablation import AblationConfig, run
from camgen.generate import GenerateConfig
from camgen.generate import run as generate
from camgen.mapper import Making, map_dataset
from camgen.maps import MapSet
from camgen.recipe import Recipe
from classify.ensemble import Ensemble
from eval.boxes import BoxesConfig
from eval.boxes import run as score
from tests.camgen.test_search import boxed_films
from weakray.dataset import Dataset
from weakray.files import read_json
from weakray.taxonomy import Finding, Taxonomy

LEFT_OUT = {"mean-over-members", "views", "early-layers", "per-finding-threshold", "prior"}
LEFT_OUT |= {"centring", "merging", "calibration", "gate", "fusion-of-boxes", "contrast", "agreement"}


@pytest.fixture
def config(tmp_path: Path, ensemble_folder: Path) -> AblationConfig:
    boxed_films(tmp_path / "data", tune=9, test=7)
    search = {
        "sources": ("pcam", "layercam@stage2"),
        "range_thresholds": (0.3, 0.6),
        "value_thresholds": (0.5,),
        "priors": (0.0, 1.0),
        "max_boxes": (1,),
        "folds": 3,
    }
    paths = {"data": tmp_path / "data", "ensemble": ensemble_folder, "out": tmp_path / "out"}
    return AblationConfig(**paths, search=search, extra_sources=("pcam~flip",), draws=20, device="cpu", workers=1)


def test_one_ingredient_is_left_out_at_a_time(
    config: AblationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_CHUNK", 3)
    rows = run(config)
    names = {row.case.rsplit("/vs-", 1)[1] for row in rows}
    assert names == {f"without-{name}" for name in LEFT_OUT} | {"best-single-member", "plain-gradcam"}
    assert {row.case.split("/")[2] for row in rows} == {"ap50", "ap30"}
    recipes = {path.stem: Recipe.load(path) for path in (tmp_path / "out" / "recipes").glob("*.yaml")}
    lacks: dict[str, Any] = {
        "mean-over-members": lambda entry: len(entry.members) == 1,
        "views": lambda entry: entry.views is None,
        "early-layers": lambda entry: entry.layer == "last",
        "merging": lambda entry: entry.merge_gap == 0,
        "prior": lambda entry: entry.prior is None,
        "calibration": lambda entry: entry.calibration is None,
        "fusion-of-boxes": lambda entry: entry.fusion == "maps",
        "contrast": lambda entry: entry.calibration is None or "contrast" not in entry.calibration.features,
        "agreement": lambda entry: entry.calibration is None or "agreement" not in entry.calibration.features,
        "gate": lambda entry: entry.gate == 0,
    }
    for name, without in lacks.items():
        assert all(without(entry) for entry in recipes[name].findings), name
    assert recipes["full"].offsets
    assert not recipes["centring"].offsets
    assert len({entry.threshold for entry in recipes["per-finding-threshold"].findings}) == 1
    assert len({entry.members for entry in recipes["best-single-member"].findings}) == 1
    assert recipes["best-single-member"].probability == "members"
    table = read_json(tmp_path / "out" / "ablation.json")["recipes"]
    for row in rows:
        assert row.ours == table["full"][row.case.split("/")[2]]["value"]

    # A recipe scores as the boxes that `generate` makes of it.
    for name in ("full", "best-single-member"):
        made = {"recipe": tmp_path / "out" / "recipes" / f"{name}.yaml", "out": tmp_path / name}
        boxes = generate(
            GenerateConfig(data=config.data, ensemble=config.ensemble, device="cpu", splits=("test",), **made)
        ).boxes
        assert score(BoxesConfig(data=config.data, boxes=boxes, draws=2)).ap30["value"] == pytest.approx(
            table[name]["ap30"]["value"], abs=1e-6
        )

    # A chunk that was lost is made again, and nothing else.
    first = sorted((tmp_path / "out" / "parts").glob("*.json"))
    assert [path.name for path in first] == ["000000.json", "000003.json", "000006.json"]
    content = read_json(first[1])
    first[1].unlink()
    calls: list[int] = []

    def watched(ensemble: Any, dataset: Any, image_ids: Any, *rest: Any) -> Any:
        calls.append(len(image_ids))
        return map_dataset(ensemble, dataset, image_ids, *rest)

    monkeypatch.setattr(shared, "map_dataset", watched)
    monkeypatch.setattr(shared, "try_all", None)
    assert run(config) == rows
    assert calls == [3]
    assert read_json(first[1]) == content


def test_without_the_class_tree_probabilities_are_each_findings_own(config: AblationConfig) -> None:
    dataset, ensemble = Dataset.load(config.data), Ensemble.load(config.ensemble)
    ids, names = dataset.ids_of("test"), dataset.taxonomy.names
    tree = Taxonomy(tuple(Finding(name, parent=names[0] if i else None) for i, name in enumerate(names)))
    members = [dataclasses.replace(member, taxonomy=tree, hierarchy="conditional") for member in ensemble.members]
    grown = Ensemble.of(members, ensemble.fitted, ensemble.rule, ensemble.calibration)
    whole, kept = (
        MapSet.concat(list(map_dataset(one, dataset, ids, [], Making(), 4, 1))).probabilities
        for one in (ensemble, grown)
    )
    assert (kept[:, 1:] < whole[:, 1:]).all()  # times the parent's
    assert module._flat_probabilities(config, dataset, grown, ids) == pytest.approx(whole, abs=1e-6)
