"""`weakray ingest vindr` on made data in VinDr-CXR's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.vindr import VindrConfig, run
from tests.ingest.layouts import make_vindr, table
from tests.ingest.readers.reading import about, rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset

HEART = ("Cardiomegaly", (10.0, 4.0, 20.0, 14.0))
NEAR = ("Cardiomegaly", (12.0, 4.0, 22.0, 14.0))  # IoU with HEART 80 / 120
FAR = ("Cardiomegaly", (26.0, 4.0, 34.0, 14.0))
Readings = dict[str, dict[str, list[tuple[str, tuple[float, ...]]]]]


def _train() -> Readings:
    normal: Readings = {f"n{at}": {f"R{8 + (at + r) % 3}": [] for r in range(3)} for at in range(8)}
    return {
        "two": {"R8": [HEART], "R9": [NEAR], "R10": []},
        "one": {"R8": [HEART], "R9": [], "R10": []},
        "apart": {"R8": [HEART], "R9": [FAR], "R10": []},
        "all": {"R8": [HEART, ("Nodule/Mass", (1.0, 1.0, 5.0, 5.0))], "R9": [HEART], "R10": [HEART]},
        **normal,
    }


def _config(files: dict[str, Path], root: Path, **changes: Any) -> VindrConfig:
    return validate(VindrConfig, {**files, "out": root / "out", "tune_images": 3, "test_images": 4, **changes})


def _all_boxes(data: Dataset) -> dict[str, list[list[float]]]:
    ceiling = data.ceiling_truth()
    found = {**data.truth.boxes, **(ceiling.boxes if ceiling else {})}
    return {image: boxes.boxes_xyxy_px.tolist() for image, boxes in found.items()}


def test_a_majority_of_readers_makes_labels_and_boxes(tmp_path: Path) -> None:
    test = {f"t{at}": [HEART] if at % 2 else [] for at in range(6)}
    files = make_vindr(tmp_path / "in", _train(), {("two", "R8"): ["Pneumonia"]}, test)
    data = Dataset.load(run(_config(files, tmp_path)).out)
    heart = {image: said(data, image)["Cardiomegaly"] for image in ("two", "one", "apart", "all", "n0", "t1", "t0")}
    assert heart == {"two": 1, "one": -1, "apart": 1, "all": 1, "n0": 0, "t1": 1, "t0": 0}
    assert said(data, "two")["Pneumonia"] == -1
    assert said(data, "all")["Nodule/Mass"] == -1
    assert about(data, "two", "patient_id", "view", "path") == ("two", "", "train/two.png")
    split = sides(data)
    assert {split[f"t{at}"] for at in range(6)} == {"tune", "test"}
    assert {split[image] for image in _train()} <= {"train", "val"}
    boxes = _all_boxes(data)
    # the mean of HEART and NEAR; those far apart are one reader's each and do not stay
    assert boxes.get("two", [[11, 4, 21, 14]]) == [[11, 4, 21, 14]]
    assert boxes["t1"] == [[10, 4, 20, 14]]
    assert not boxes.get("one")
    assert not boxes.get("apart")
    absent = {image for image, k in data.truth.annotated if k == data.taxonomy.index["Cardiomegaly"]}
    assert absent == {f"t{at}" for at in range(6)}
    assert rejected(data.root) == []


def test_fusion_keeps_what_any_reader_saw(tmp_path: Path) -> None:
    files = make_vindr(tmp_path / "in", _train())
    data = Dataset.load(run(_config(files, tmp_path, consensus="fusion", test_images=8, tune_images=2)).out)
    assert data.info["counts"]["splits"] == {"train": 1, "val": 1, "tune": 2, "test": 8}
    assert {said(data, image)["Cardiomegaly"] for image in ("two", "one", "apart", "all")} == {1}
    boxes = _all_boxes(data) | {"val": []}
    expected = {
        "two": [[11, 4, 21, 14]],
        "one": [[10, 4, 20, 14]],
        "apart": [[10, 4, 20, 14], [26, 4, 34, 14]],
        "all": [[10, 4, 20, 14], [1, 1, 5, 5]],
    }
    for image in set(expected) & set(boxes):
        assert sorted(boxes[image]) == sorted(expected[image])


def test_how_readers_agree_stands_in_the_dataset(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_vindr(tmp_path / "in", _train()), tmp_path)).out)
    readers = data.info["readers"]
    assert (readers["readers"], readers["images_of_several_readers"]) == (3, 12)
    heart = readers["findings"]["Cardiomegaly"]
    # yes of 3: 2, 1, 2, 3 and 8 × 0. P_i: 1/3, 1/3, 1/3, 1, 8 × 1 → 10/12; share 8/36; P_e = (4 + 49)/81;
    # kappa = (10/12 - 53/81) / (1 - 53/81) = 0.51786
    assert heart["kappa"] == pytest.approx(0.5179, abs=1e-4)
    # pairs of readers that match: two 1, all 3; boxes of all pairs: two 2 + 1 + 1, one 1 + 1, apart 2 + 1 + 1, all 6
    assert heart["f1_iou50"] == pytest.approx(8 / (4 + 2 + 4 + 6), abs=1e-4)
    assert readers["findings"]["Nodule/Mass"]["f1_iou50"] == 0
    assert readers["findings"]["COPD"]["kappa"] is None


def test_the_challenges_table_and_films_made_smaller(tmp_path: Path) -> None:
    files = make_vindr(tmp_path / "in", _train())
    header = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    rows = [
        [image, "Cardiomegaly", 3, reader, 1000, 400, 2000, 1400] for image in ("all", "two") for reader in ("R8", "R9")
    ]
    rows += [[f"n{at}", "No finding", 14, f"R{r}", "", "", "", ""] for at in range(8) for r in (8, 9, 10)]
    rows += [
        ["two", "Cardiomegaly", 3, "R10", 5, 5, 5, 9],
        ["two", "Gout", 3, "R10", 5, 5, 6, 9],
        ["", "Gout", 1, "R8", 1, 1, 1, 1],
    ]
    table(files["annotations"], header, rows)
    sizes = table(tmp_path / "train_meta.csv", ["image_id", "dim0", "dim1"], [["all", 2400, 3600], ["two", 2400, 3600]])
    plain = {"images": files["images"], "annotations": files["annotations"], "sizes_csv": sizes}
    data = Dataset.load(run(_config(plain, tmp_path, test_images=6, tune_images=2)).out)
    boxes = _all_boxes(data)
    assert boxes.get("all", [[10, 4, 20, 14]]) == [[10, 4, 20, 14]]
    assert boxes.get("two", [[10, 4, 20, 14]]) == [[10, 4, 20, 14]]
    found = [(item.split(" ")[0], reason) for item, reason in rejected(data.root)]
    assert found[:3] == [
        ("annotations_train.csv:32", "bad_row"),
        ("annotations_train.csv:30", "no_area"),
        ("annotations_train.csv:31", "unknown_class"),
    ]
    assert {reason for _, reason in found[3:]} == {"no_row"}  # films that this table does not name


def test_labels_of_two_data_sets_in_one_tree(tmp_path: Path) -> None:
    files = make_vindr(tmp_path / "in", _train())
    data = Dataset.load(run(_config(files, tmp_path, taxonomy="chexpert")).out)
    assert said(data, "all")["Lung Lesion"] == -1
    assert said(data, "all")["Enlarged Cardiomediastinum"] == 1  # above Cardiomegaly
    dropped = {row["label"] for row in data.info["coverage"]["dropped"]}
    assert {"Aortic enlargement", "Other lesion", "COPD"} <= dropped
