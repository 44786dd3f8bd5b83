"""The calibration bench on a handful of films: which rows, the boxes of `generate`, and no look at further images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bench.finished_run as shared
from bench.calibration import CalibrationConfig, run
from bench.corrections import WAYS
from camgen.generate import GenerateConfig
from camgen.generate import run as generate
from camgen.mapper import map_dataset
from camgen.recipe import Recipe
from eval.boxes import BoxesConfig
from eval.boxes import run as score
from tests.camgen.test_search import boxed_films
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.files import read_json, write_json

SOURCES = {*WAYS, "uncalibrated-recipe", "plain-gradcam"}


@pytest.fixture
def config(tmp_path: Path, ensemble_folder: Path) -> CalibrationConfig:
    boxed_films(tmp_path / "data", tune=12, test=7)
    search = {
        "sources": ("pcam",),
        "range_thresholds": (0.3, 0.6),
        "value_thresholds": (),
        "priors": (0.0, 1.0),
        "max_boxes": (2,),
        "folds": 3,
        "min_boxes": 4,
        "extra_features": ("agreement",),
    }
    paths = {"data": tmp_path / "data", "ensemble": ensemble_folder, "out": tmp_path / "out"}
    return CalibrationConfig(**paths, search=search, tune_images=(12, 8), draws=20, device="cpu", workers=1)


def test_each_way_is_compared_with_the_recipe_at_each_number_of_images(
    config: CalibrationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_CHUNK", 4)
    rows = run(config)
    assert {row.case for row in rows} == {
        f"calibration/tune-{number}/{metric}/vs-{source}"
        for number in (12, 8)
        for metric in ("ap50", "ap30")
        for source in SOURCES
    }
    content = read_json(tmp_path / "out" / "calibration.json")
    for row in rows:
        _, number, metric, source = row.case.split("/")
        assert row.ours == content[number]["recipes"]["recipe"][metric]["value"]
        assert row.peer == content[number]["recipes"][source.removeprefix("vs-")][metric]["value"]
    assert set(content["tune-8"]["tune"]) == set(WAYS)
    assert set(content["tune-8"]["tune"]["identity"]["chosen"].values()) == {0}

    # The recipe scores as the boxes that `generate` makes of it; identity as the same without its calibrations.
    for number in ("tune-12", "tune-8"):
        recipe = Recipe.load(tmp_path / "out" / "recipes" / number / "recipe.yaml")
        plain = tuple(entry.model_copy(update={"calibration": None}) for entry in recipe.findings)
        for source, own in (("recipe", recipe), ("identity", recipe.model_copy(update={"findings": plain}))):
            own.save(tmp_path / "used.yaml")
            known: dict[str, Any] = {"data": config.data, "ensemble": config.ensemble, "recipe": tmp_path / "used.yaml"}
            made = generate(GenerateConfig(**known, out=tmp_path / number / source, device="cpu", splits=("test",)))
            assert score(BoxesConfig(data=config.data, boxes=made.boxes, draws=2)).ap30["value"] == pytest.approx(
                content[number]["recipes"][source]["ap30"]["value"], abs=1e-6
            )

    # Test maps of a chunk that was lost are made again, and no candidate is scored anew.
    (tmp_path / "out" / "parts" / "000004.json").unlink()
    calls: list[int] = []

    def watched(ensemble: Any, dataset: Any, image_ids: Any, *rest: Any) -> Any:
        calls.append(len(image_ids))
        return map_dataset(ensemble, dataset, image_ids, *rest)

    monkeypatch.setattr(shared, "map_dataset", watched)
    monkeypatch.setattr(shared, "try_all", None)
    assert run(config) == rows
    assert calls == [3]


def test_with_fewer_images_the_boxes_of_the_others_play_no_part(config: CalibrationConfig, tmp_path: Path) -> None:
    config = config.model_copy(update={"tune_images": (8,)})
    rows = run(config)
    dataset = Dataset.load(config.data)
    content = read_json(dataset.root / "boxes.json")
    later = {image["id"] for image in content["images"] if image["file_name"] in dataset.ids_of("tune")[8:]}
    changed = 0
    for annotation in content["annotations"]:
        if annotation["image_id"] in later:
            annotation["bbox"], changed = [0, 0, 5, 5], changed + 1
    assert changed > 0
    write_json(dataset.root / "boxes.json", content, indent=None)
    assert run(config.model_copy(update={"out": tmp_path / "again"})) == rows


@pytest.mark.parametrize("numbers", [(13,), (12, 0)])
def test_more_images_than_there_are_are_refused(config: CalibrationConfig, numbers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"tune_images: expected 1 to 12 annotated images, got \["):
        run(config.model_copy(update={"tune_images": numbers}))
