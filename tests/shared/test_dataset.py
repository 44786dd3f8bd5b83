from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from weakray.coco import BoxTruth, load_results, save_results
from weakray.dataset import Dataset, Rejection, write_dataset
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.taxonomy import Finding, Taxonomy

TAXONOMY = Taxonomy((Finding("Opacity"), Finding("Nodule", "Opacity")))
BOX = Detections(np.array([[1, 2, 11, 22]], np.float32), np.array([1]), np.array([1.0]))


def tables(splits: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    n = len(splits)
    images = pd.DataFrame(
        {
            "image_id": [f"i{row}" for row in range(n)],
            "path": [f"images/i{row}.png" for row in range(n)],
            "patient_id": [f"p{row}" for row in range(n)],
            "study_id": [f"s{row}" for row in range(n)],
            "view": "PA",
            "height": 40,
            "width": 30,
            "split": splits,
            "sha256": "00",
            "source": "made",
        }
    )
    labels = pd.DataFrame(
        {"Opacity": [1.0, 0.0, -1.0, np.nan][:n], "Nodule": [1.0, 0.0, 0.0, np.nan][:n]}, index=images["image_id"]
    )
    return images, labels


def write(root: Path, images: pd.DataFrame, labels: pd.DataFrame, truth: BoxTruth, **more: object) -> Dataset:
    settings: dict[str, object] = {"ceiling": None, "rejected": [], "info": {"origin": "made"}} | more
    return write_dataset(root, images=images, labels=labels, taxonomy=TAXONOMY, truth=truth, **settings)  # type: ignore[arg-type]


TRUTH = BoxTruth({"i2": BOX, "i3": Detections.empty()}, frozenset({("i2", 0), ("i2", 1), ("i3", 0)}))


def test_round_trip(tmp_path: Path) -> None:
    ceiling = BoxTruth({"i0": BOX}, frozenset({("i0", 1)}))
    write(
        tmp_path,
        *tables(["train", "val", "tune", "test"]),
        TRUTH,
        ceiling=ceiling,
        rejected=[Rejection("x.png", "missing", "gone")],
    )
    data = Dataset.load(tmp_path)
    assert data.image_ids == ["i0", "i1", "i2", "i3"]
    assert data.ids_of("tune") == ["i2"]
    assert data.size_hw("i2") == (40, 30)
    assert data.path_of("i2") == tmp_path / "images/i2.png"
    assert data.truth.annotated == TRUTH.annotated
    assert data.truth_of("tune").boxes["i2"].boxes_xyxy_px.tolist() == [[1, 2, 11, 22]]
    assert len(data.truth_of("test").boxes["i3"]) == 0
    found = data.ceiling_truth()
    assert found is not None
    assert found.image_ids == ["i0"]
    assert data.info["counts"]["labels"]["tune"]["Opacity"] == {
        "positive": 0,
        "negative": 0,
        "uncertain": 1,
        "blank": 0,
    }
    with (tmp_path / "rejected.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"item": "x.png", "reason": "missing", "detail": "gone"}]


def test_coco_ids_start_at_one(tmp_path: Path) -> None:
    write(tmp_path, *tables(["tune", "val", "train", "train"]), BoxTruth({"i0": BOX}, frozenset({("i0", 1)})))
    coco = json.loads((tmp_path / "boxes.json").read_text())
    assert coco["images"][0]["id"] == coco["annotations"][0]["id"] == coco["categories"][0]["id"] == 1
    assert coco["annotated"] == [[1, 2]]


def test_deleting_the_ceiling_changes_no_hash(tmp_path: Path) -> None:
    data = write(
        tmp_path,
        *tables(["train", "val", "tune", "test"]),
        TRUTH,
        ceiling=BoxTruth({"i0": BOX}, frozenset({("i0", 1)})),
    )
    (tmp_path / "ceiling_boxes.json").unlink()
    assert Dataset.load(tmp_path).sha256 == data.sha256
    assert Dataset.load(tmp_path).ceiling_truth() is None


def test_refuses_leaks_and_mispairing(tmp_path: Path) -> None:
    images, labels = tables(["train", "val", "tune", "test"])
    with pytest.raises(DataError, match="patient 'p0' stands in two splits"):
        write(tmp_path, images.assign(patient_id=["p0", "p1", "p2", "p0"]), labels, TRUTH)
    with pytest.raises(DataError, match="do not hold the same image ids in the same order"):
        write(tmp_path, images, labels.iloc[::-1], TRUTH)
    with pytest.raises(DataError, match="tune and test images only; 'i0' is neither"):
        write(tmp_path, images, labels, BoxTruth({"i0": BOX}, frozenset({("i0", 1)})))
    with pytest.raises(DataError, match=r"unknown splits \['dev'\]"):
        write(tmp_path, images.assign(split=["dev", "val", "tune", "test"]), labels, TRUTH)
    with pytest.raises(DataError, match="found no dataset.json"):
        Dataset.load(tmp_path)


def test_results_round_trip_best_first(tmp_path: Path) -> None:
    found = Detections(
        np.array([[0, 0, 5, 5], [1.25, 2, 9, 8]], np.float32), np.array([0, 1]), np.array([0.25, 0.75], np.float32)
    )
    save_results(tmp_path / "boxes.json", {"b": found, "a": Detections.empty()}, ["a", "b", "c"], "ff")
    back = load_results(tmp_path / "boxes.json")
    assert set(back) == {"a", "b"}
    assert back["b"].score.tolist() == [0.75, 0.25]
    assert back["b"].boxes_xyxy_px.tolist() == [[1.25, 2, 9, 8], [0, 0, 5, 5]]
    with pytest.raises(DataError, match="1 predicted images are not in the dataset, e.g. 'z'"):
        save_results(tmp_path / "boxes.json", {"z": found}, ["a"])
