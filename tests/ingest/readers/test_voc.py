"""`weakray ingest voc` on made data in VOC's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.voc import VocConfig, run
from tests.ingest.layouts import make_voc, voc_xml
from tests.ingest.readers.reading import rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError


def _config(files: dict[str, Path], root: Path, **changes: Any) -> VocConfig:
    return validate(VocConfig, {**files, "out": root / "out", "tune_images": 2, "test_images": 3, **changes})


def test_pixels_counted_from_one_become_half_open_boxes(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_voc(tmp_path / "in", 12), tmp_path)).out)
    assert data.taxonomy.names == ["cat", "dog"]
    assert data.info["counts"]["splits"] == {"train": 4, "val": 4, "tune": 2, "test": 2}
    split = sides(data)
    assert [split[f"2008_{at:06d}"] for at in range(8)] == ["train"] * 4 + ["val"] * 4
    # pixels 5…14 × 3…12, counted from 1, the last included: ten of each
    assert data.truth.boxes["2008_000009"].boxes_xyxy_px.tolist() == [[4, 2, 14, 12]]
    assert said(data, "2008_000009") == {"cat": 0, "dog": 1}
    assert data.truth.annotated == {(f"2008_{at:06d}", k) for at in range(8, 12) for k in range(2)}
    assert rejected(data.root) == []
    assert data.info["label_files"]["files"] == 12
    again = Dataset.load(run(_config(make_voc(tmp_path / "b", 12), tmp_path, one_based=False)).out)
    assert again.truth.boxes["2008_000009"].boxes_xyxy_px.tolist() == [[5, 3, 14, 12]]


def test_difficult_boxes_are_present_and_not_scored(tmp_path: Path) -> None:
    hard = voc_xml("2008_000009.jpg", [("cat", (1, 1, 9, 9))], difficult=1)
    data = Dataset.load(run(_config(make_voc(tmp_path / "in", 12, {"2008_000009": hard}), tmp_path)).out)
    assert said(data, "2008_000009") == {"cat": 1, "dog": 0}
    assert ("2008_000009", 0) not in data.truth.annotated
    assert ("2008_000009", 1) in data.truth.annotated
    assert rejected(data.root) == [("2008_000009.xml object[0]", "crowd")]


def test_annotations_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    changes = {
        "2008_000000": "<annotation><object>",
        "2008_000001": "<other/>",
        "2008_000002": voc_xml("2008_000002.jpg", [("", (1, 1, 2, 2))]),
        "2008_000003": voc_xml("2008_000003.jpg", [("cat", (1, 1, 9, 9))], size_hw=(24, 37)),
        "2008_000004": voc_xml("2008_000004.jpg", [("cat", (40, 1, 50, 9))]),
        "2008_000005": voc_xml("2008_000005.jpg", []).replace("<width>36</width>", ""),
    }
    files = make_voc(tmp_path / "in", 12, changes)
    data = Dataset.load(run(_config(files, tmp_path, lists=None, val_fraction=0.2)).out)
    assert sorted((item.split(" ")[0], reason) for item, reason in rejected(data.root)) == [
        ("2008_000000.jpg", "no_row"),
        ("2008_000000.xml", "bad_row"),
        ("2008_000001.jpg", "no_row"),
        ("2008_000001.xml", "bad_row"),
        ("2008_000002.jpg", "no_row"),
        ("2008_000002.xml", "bad_row"),
        ("2008_000003.xml", "image_rejected"),
        ("2008_000003.xml", "size_mismatch"),
        ("2008_000004.xml", "outside"),
    ]
    assert said(data, "2008_000005") == {"cat": 0, "dog": 0}


def test_lists_with_strays_contradictions_and_trainval(tmp_path: Path) -> None:
    files = make_voc(tmp_path / "in", 12)
    lists = files["lists"]
    (lists / "val.txt").write_text("2008_000004\n2008_999999\n", encoding="utf-8")
    data = Dataset.load(run(_config(files, tmp_path)).out)
    # the three that no list names any more, and a box of each
    expected = ["no_image", *["not_in_lists"] * 3, *["image_rejected"] * 3]
    assert [reason for _, reason in rejected(data.root)] == expected
    (lists / "val.txt").write_text("2008_000000\n", encoding="utf-8")
    with pytest.raises(DataError, match="val.txt: 2008_000000 stands in another list too; keep it in one"):
        run(_config(files, tmp_path))
    for name in ("train", "val"):
        (lists / f"{name}.txt").unlink()
    (lists / "trainval.txt").write_text("".join(f"2008_{at:06d}  1\n" for at in range(8)), encoding="utf-8")
    data = Dataset.load(run(_config(files, tmp_path, val_fraction=0.25)).out)
    assert data.info["counts"]["splits"] == {"train": 6, "val": 2, "tune": 2, "test": 2}
    (lists / "test.txt").unlink()
    with pytest.raises(DataError, match=r"expected train.txt \(or trainval.txt\) and val.txt or test.txt, found"):
        run(_config(files, tmp_path))


def test_no_annotations_at_all(tmp_path: Path) -> None:
    files = make_voc(tmp_path / "in", 3)
    with pytest.raises(DataError, match="expected a folder of XML files, found none"):
        run(_config({**files, "annotations": tmp_path / "none"}, tmp_path))
