"""`camgen search` with `defaults`: a recipe that no box has a say in, for datasets without annotated images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from camgen.generate import GenerateConfig
from camgen.generate import run as generate
from camgen.recipe import Recipe, Threshold, TuneScores
from camgen.search import SearchConfig, run
from classify.ensemble import Ensemble
from tests.camgen.makers import NAMES, films
from tests.camgen.test_search import boxed_films
from weakray.coco import load_results
from weakray.errors import DataError
from weakray.files import sha256_file


def config(tmp_path: Path, ensemble: Path, out: str = "search", **changes: Any) -> SearchConfig:
    paths = {"data": tmp_path / "data", "ensemble": ensemble, "out": tmp_path / out}
    return SearchConfig(**{"defaults": True, "device": "cpu", **paths, **changes})


def test_nothing_of_it_is_chosen_on_boxes(tmp_path: Path, ensemble_folder: Path) -> None:
    dataset = films(tmp_path / "data", ["train"] * 3, {})
    result = run(config(tmp_path, ensemble_folder))
    recipe, ensemble = Recipe.load(result.recipe), Ensemble.load(ensemble_folder)
    assert result.recipe_sha256 == recipe.sha256
    assert (result.tune_images, result.tune_boxes, result.ap50, result.calibrated_findings) == (0, 0, None, 0)
    assert recipe.names == NAMES
    assert recipe.ensemble_sha256 == ensemble.sha256
    assert recipe.offsets  # the maps of dilated stages look past their cells, with or without boxes
    for entry in recipe.findings:
        assert (entry.method, entry.layer, entry.members, entry.max_boxes) == ("pcam", "last", (0, 1), 2)
        assert entry.threshold == Threshold(kind="range", value=0.4)
        assert entry.gate == ensemble.thresholds[entry.name]
        assert entry.prior is None
        assert entry.calibration is None
        assert entry.tune == TuneScores()
    assert len({entry.gate for entry in recipe.findings}) > 1
    made = {"recipe": result.recipe, "out": tmp_path / "boxes", "splits": ("train", "tune")}
    told = generate(GenerateConfig(data=dataset.root, ensemble=ensemble_folder, device="cpu", **made))
    assert set(load_results(told.boxes)) == set(dataset.ids_of("train"))
    assert run(config(tmp_path, ensemble_folder)) == result
    straight = run(config(tmp_path, ensemble_folder, "straight", centre_maps=False))
    assert not Recipe.load(straight.recipe).offsets


def test_boxes_that_are_there_are_not_looked_at(tmp_path: Path, ensemble_folder: Path) -> None:
    films(tmp_path / "data", ["train"] * 3, {})
    run(config(tmp_path, ensemble_folder))
    (tmp_path / "boxed").mkdir()
    boxed_films(tmp_path / "boxed" / "data", tune=5, test=2)
    run(config(tmp_path / "boxed", ensemble_folder))
    files = [path.relative_to(tmp_path / "search") for path in (tmp_path / "search").glob("*.yaml")]
    assert {str(path) for path in files} == {"recipe.yaml", "config.yaml"}
    plain, boxed = (root / "search" / "recipe.yaml" for root in (tmp_path, tmp_path / "boxed"))
    assert sha256_file(plain) == sha256_file(boxed)


def test_without_being_asked_for_it_is_not_made(tmp_path: Path, ensemble_folder: Path) -> None:
    films(tmp_path / "data", ["train"] * 3, {})
    with pytest.raises(DataError, match="found none; ingest with a tune part, or set defaults: true for a recipe"):
        run(config(tmp_path, ensemble_folder, defaults=False))
    assert not (tmp_path / "search" / "recipe.yaml").exists()
