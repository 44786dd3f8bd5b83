"""`weakray ingest yolo` on made data in YOLO's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.yolo import YoloConfig, image_id_of, run
from tests.ingest.layouts import film, make_yolo
from tests.ingest.readers.reading import about, rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError

PARTS = {"train": 6, "val": 3, "test": 4}


def _config(files: dict[str, Path], root: Path, **changes: Any) -> YoloConfig:
    return validate(YoloConfig, {**files, "out": root / "out", "tune_images": 2, "test_images": 3, **changes})


def test_folders_split_and_relative_boxes_become_pixels(tmp_path: Path) -> None:
    lines = {
        "test/000": "1 0.25 0.5 0.5 0.25\n0 0.5 0.5 1.2 0.5\n\n",
        "test/001": "",
        "train/002": "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5",
    }
    files = make_yolo(tmp_path / "in", PARTS, lines)
    (tmp_path / "in/labels/test/003.txt").unlink()
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert data.taxonomy.names == ["cat", "dog"]
    assert data.info["counts"]["splits"] == {"train": 6, "val": 3, "tune": 2, "test": 2}
    split = sides(data)
    assert {split[f"test__{at:03d}"] for at in range(4)} == {"tune", "test"}
    assert {split[f"val__{at:03d}"] for at in range(3)} == {"val"}
    assert about(data, "test__000", "path", "patient_id") == ("images/test/000.jpg", "test__000")
    # of 36 × 24 px; the second reaches beyond the border by a tenth on either side
    assert data.truth.boxes["test__000"].boxes_xyxy_px.tolist() == [[0, 9, 18, 15], [0, 6, 36, 18]]
    assert data.truth.boxes["test__000"].class_id.tolist() == [1, 0]
    assert (said(data, "test__001"), said(data, "test__003")) == ({"cat": 0, "dog": 0},) * 2
    assert data.truth.annotated == {(f"test__{at:03d}", k) for at in range(4) for k in range(2)}
    ceiling = data.ceiling_truth()
    assert ceiling is not None
    # a polygon's extent: .1….5 of 36 and of 24
    assert ceiling.boxes["train__002"].boxes_xyxy_px[0].tolist() == pytest.approx([3.6, 2.4, 18, 12])
    assert rejected(data.root) == []
    assert data.info["boxes"]["clipped"] == 1


def test_without_a_test_folder_val_is_scored_and_train_gives_val(tmp_path: Path) -> None:
    data = Dataset.load(
        run(_config(make_yolo(tmp_path / "in", {"train": 8, "val": 4}, {}), tmp_path, val_fraction=0.25)).out
    )
    assert data.info["counts"]["splits"] == {"train": 6, "val": 2, "tune": 2, "test": 2}
    assert {i for i, s in sides(data).items() if s in ("tune", "test")} == {f"val__{at:03d}" for at in range(4)}


def test_all_images_at_random_by_patients_named_in_the_paths(tmp_path: Path) -> None:
    files = make_yolo(tmp_path / "in", {"train": 12}, {})
    pattern = r"/(\d\d)\d\.jpg$"
    data = Dataset.load(run(_config(files, tmp_path, lists=False, patient_pattern=pattern, test_images=2)).out)
    assert data.info["counts"]["patients"] == 2
    for wrong, message in (("(", "expected a regular expression, got"), ("a", "expected a group in round brackets")):
        with pytest.raises(DataError, match=message):
            run(_config(files, tmp_path, patient_pattern=wrong))


def test_lines_that_are_no_boxes_are_named(tmp_path: Path) -> None:
    lines = {"train/000": "7 0.5 0.5 0.1 0.1\nx\n0 0.5 0.5\n0 0.5 0.5 0 0.1\n1 0.5 0.5 0.5 0.5"}
    files = make_yolo(tmp_path / "in", PARTS, lines)
    (tmp_path / "in/labels/train/001.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "in/labels/train/stray.txt").write_text("0 0.5 0.5 0.5 0.5", encoding="utf-8")
    film(tmp_path / "in/images/other/1.jpg", 77)
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert sorted(rejected(data.root)) == [
        ("images/other/1.jpg", "no_row"),
        ("labels/train/000.txt:1", "unknown_class"),
        ("labels/train/000.txt:2", "unknown_class"),
        ("labels/train/000.txt:3", "bad_number"),
        ("labels/train/000.txt:4", "no_area"),
        ("labels/train/001.txt", "bad_row"),
        ("labels/train/stray.txt", "no_row"),
    ]
    assert said(data, "train__000") == {"cat": 1, "dog": 1}  # a cat is said to be there, wherever it is


def test_lists_of_paths_and_names_as_a_list(tmp_path: Path) -> None:
    files = make_yolo(tmp_path / "in", PARTS, {})
    for part, count in PARTS.items():
        listed = "".join(f"./images/{part}/{at:03d}.jpg\n" for at in range(count))
        (tmp_path / f"in/{part}.txt").write_text(listed, encoding="utf-8")
    files["data"].write_text("train: train.txt\nval: [val.txt]\ntest: test.txt\nnames: [cat, dog]\n", encoding="utf-8")
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert data.info["counts"]["splits"] == {"train": 6, "val": 3, "tune": 2, "test": 2}


def test_classes_must_be_known_to_a_taxonomy(tmp_path: Path) -> None:
    files = make_yolo(tmp_path / "in", PARTS, {}, names=("Mass", "Gout"))
    with pytest.raises(DataError, match="yolo: unknown findings 'Gout'; known are Atelectasis"):
        run(_config(files, tmp_path, taxonomy="nih"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\n", "expected `names:`, a list of classes or number → class, got None"),
        ("names: [cat]\n", "expected `train:`, a folder of images"),
        ("names: [cat]\ntrain: pictures\n", "train: pictures names no image below"),
        ("names: {a: cat}\ntrain: images/train\n", "expected the numbers of classes in `names:`"),
    ],
)
def test_a_data_yaml_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    files = make_yolo(tmp_path / "in", PARTS, {})
    files["data"].write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        run(_config(files, tmp_path))


def test_the_layout_with_images_below_each_part() -> None:
    assert image_id_of("train/images/a.b.jpg") == "train__a.b"
    assert image_id_of("images/a.jpg") == "a"
