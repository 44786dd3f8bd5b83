"""`camgen generate`: killed and resumed, streamed, with maps for the gallery."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import camgen.generate as module
from camgen.generate import GenerateConfig, run
from camgen.mapper import map_dataset
from camgen.maps import MapSet
from camgen.recipe import Recipe, Threshold
from classify.ensemble import Ensemble
from tests.camgen.makers import NAMES, films
from tests.camgen.test_recipe import entry, wild_calibration
from weakray.coco import load_results
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError, RunError
from weakray.files import read_json
from weakray.runs import open_run

SPLITS = ["train"] * 7 + ["val"] * 2 + ["test"] * 4
FEW = {"batch_size": 3, "gallery_images": 2, "device": "cpu"}


@pytest.fixture
def made(tmp_path: Path, ensemble_folder: Path) -> Callable[..., GenerateConfig]:
    films(tmp_path / "data", SPLITS, {})
    recipe = Recipe(
        ensemble_sha256=Ensemble.load(ensemble_folder).sha256,
        findings=(
            entry(NAMES[0], calibration=wild_calibration()),
            entry(NAMES[1], method="gradcam", members=(1,), threshold=Threshold(kind="range", value=0.4)),
            entry(NAMES[2], method="random", members=()),
        ),
    )
    recipe.save(tmp_path / "recipe.yaml")

    def config(out: str = "out", **changes: Any) -> GenerateConfig:
        paths = {"data": tmp_path / "data", "ensemble": ensemble_folder, "recipe": tmp_path / "recipe.yaml"}
        return GenerateConfig(**(paths | {"out": tmp_path / out} | FEW | changes))

    return config


def outputs(folder: Path) -> dict[str, bytes]:
    files = [folder / "boxes.json", *sorted((folder / "maps").glob("*"))]
    return {file.name: file.read_bytes() for file in files}


def test_boxes_maps_and_counts(made: Callable[..., GenerateConfig], tmp_path: Path) -> None:
    result = run(made())
    assert result.images == 11  # train and test, not val
    content = read_json(result.boxes)
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    assert content["recipe_sha256"] == result.recipe_sha256 == recipe.sha256
    found = load_results(result.boxes)
    dataset = Dataset.load(tmp_path / "data")
    assert sorted(found) == sorted([*dataset.ids_of("train"), *dataset.ids_of("test")])
    assert sum(result.boxes_per_finding.values()) == sum(len(boxes) for boxes in found.values()) > 11
    assert result.images_without_boxes == sum(len(boxes) == 0 for boxes in found.values())
    for boxes in found.values():
        assert (boxes.boxes_xyxy_px[:, 2] <= 44).all()
        assert (boxes.boxes_xyxy_px[:, 3] <= 30).all()
    assert sorted(outputs(tmp_path / "out")) == ["boxes.json", "i009.npz", "i010.npz"]
    with np.load(tmp_path / "out" / "maps" / "i009.npz") as saved:
        assert saved["maps"].dtype == np.float16
        assert saved["maps"].shape == (3, 8, 8)
        assert saved["scale"][[0, 2]].tolist() == [1, 1]
        assert saved["maps"][1].max() in (0, 1)  # Grad-CAM's raw values would vanish in float16
    assert not list((tmp_path / "out" / "checkpoints").iterdir())
    assert run(made()) == result


class KilledError(Exception):
    pass


@pytest.mark.parametrize("after", [0, 1, 3])
def test_killed_in_the_middle_and_run_again_gives_the_same_bytes(
    made: Callable[..., GenerateConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    run(made("whole"))
    real, calls = module._append, 0

    def append_and_die(lines: Any, image_ids: Sequence[str], boxes: Any, empty: Any) -> None:
        nonlocal calls
        if calls == after:  # one image of the batch is on disk, and half of the next one's line
            real(lines, image_ids[:1], boxes[:1], empty[:1])
            lines.write(json.dumps({"image_id": image_ids[-1]})[:9])
            lines.flush()
            raise KilledError
        calls += 1
        real(lines, image_ids, boxes, empty)

    monkeypatch.setattr(module, "_append", append_and_die)
    with pytest.raises(KilledError):
        run(made("cut"))
    assert not (tmp_path / "cut" / "boxes.json").exists()
    monkeypatch.setattr(module, "_append", real)

    seen: list[str] = []

    def watched(ensemble: Any, dataset: Any, image_ids: Sequence[str], *rest: Any) -> Any:
        seen.extend(image_ids)
        return map_dataset(ensemble, dataset, image_ids, *rest)

    monkeypatch.setattr(module, "map_dataset", watched)
    run(made("cut"))
    assert len(seen) == 11 - 3 * after  # whole batches are not done again
    assert outputs(tmp_path / "cut") == outputs(tmp_path / "whole")


def test_several_processes_make_the_same_bytes_and_share_what_a_killed_one_left(
    made: Callable[..., GenerateConfig], tmp_path: Path
) -> None:
    """One process was killed in its second batch; two go on with the three batches that are left."""
    first = run(made("one", threads=1))
    part = tmp_path / "two" / "checkpoints" / "boxes.0.part.jsonl"
    config = made("two", threads=1, processes=2)
    folder = open_run(config.out, config, read_json(tmp_path / "one" / "stage.json")["inputs"])
    dataset = Dataset.load(tmp_path / "data")
    ids = [*dataset.ids_of("train"), *dataset.ids_of("test")]
    assert module._batches_to_do(folder, ids, 3) == [ids[:3], ids[3:6], ids[6:9], ids[9:]]
    tools = module._Tools(
        dataset, Ensemble.load(config.ensemble), Recipe.load(config.recipe), frozenset({"i009", "i010"})
    )
    module._work(config.model_copy(update={"processes": 1}), folder, tools, [ids[:3]], 0)
    with part.open("a") as lines:
        lines.write(json.dumps({"image_id": ids[4]})[:9])
    assert module._batches_to_do(folder, ids, 3) == [ids[3:6], ids[6:9], ids[9:]]
    second = run(config)
    assert second == first.model_copy(update={"boxes": second.boxes})
    assert outputs(tmp_path / "two") == outputs(tmp_path / "one")
    assert not list((tmp_path / "two" / "checkpoints").iterdir())


class EndsUnlooked:
    """A process that has ended by the time anybody asks whether it lives for the second time."""

    def __init__(self, exitcode: int) -> None:
        self.sentinel, writing = os.pipe()
        os.close(writing)  # ready to be read, as the sentinel of a process that ended is
        self.exitcode = exitcode
        self._asked = False

    def is_alive(self) -> bool:
        asked, self._asked = self._asked, True
        return not asked

    def join(self) -> None:
        os.close(self.sentinel)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(("codes", "expected"), [((0, 0), None), ((0, -9), 1), ((0,), None)])
def test_processes_that_end_between_two_looks_are_not_waited_for_without_end(
    codes: Sequence[int], expected: int | None
) -> None:
    """Asked for the living and then for their sentinels, it waited for none of them, for ever."""
    assert module._first_broken([cast("BaseProcess", EndsUnlooked(code)) for code in codes]) == expected


@pytest.mark.soak
def test_a_process_that_breaks_off_is_named(made: Callable[..., GenerateConfig], tmp_path: Path) -> None:
    (tmp_path / "data" / "images" / "i003.png").write_bytes(b"no image")
    with pytest.raises(RunError, match=r"processes: number 1 of 2, counted from 0, ended with code 1, as said above"):
        run(made(processes=2, threads=1))
    assert not (tmp_path / "out" / "boxes.json").exists()


def test_killed_before_done_is_written_loses_nothing(
    made: Callable[..., GenerateConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(made())
    before = outputs(tmp_path / "out")
    (tmp_path / "out" / "done.json").unlink()
    assert run(made()) == first
    assert outputs(tmp_path / "out") == before


def test_batches_are_streamed(made: Callable[..., GenerateConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = Recipe.maps

    def watched(self: Recipe, maps: MapSet) -> Any:
        sizes.append(len(maps.image_ids))
        return real(self, maps)

    monkeypatch.setattr(Recipe, "maps", watched)
    run(made())
    assert sizes == [3, 3, 3, 2]


def test_gallery_ids_are_named_or_refused(made: Callable[..., GenerateConfig], tmp_path: Path) -> None:
    run(made(gallery_ids=("i000", "i012")))
    assert sorted(outputs(tmp_path / "out")) == ["boxes.json", "i000.npz", "i012.npz"]
    with pytest.raises(ConfigError, match="gallery_ids: expected ids of images that are boxed, got 'i008'"):
        run(made("other", gallery_ids=("i000", "i008")))  # i008 is of split val


def test_a_recipe_of_another_ensemble_is_refused(made: Callable[..., GenerateConfig], tmp_path: Path) -> None:
    recipe = Recipe.load(tmp_path / "recipe.yaml")
    recipe.model_copy(update={"ensemble_sha256": "0" * 64}).save(tmp_path / "recipe.yaml")
    with pytest.raises(DataError, match="fitted with another ensemble"):
        run(made())


def test_a_finished_run_that_was_moved_is_found_where_it_lies(
    made: Callable[..., GenerateConfig], tmp_path: Path
) -> None:
    first = run(made())
    (tmp_path / "out").rename(tmp_path / "moved")
    assert run(made("moved")) == first.model_copy(update={"boxes": tmp_path / "moved" / "boxes.json"})
