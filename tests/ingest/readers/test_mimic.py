"""`weakray ingest mimic` on made data in MIMIC-CXR-JPG's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.mimic import MimicConfig, run
from tests.ingest.layouts import OBSERVATIONS, make_mimic, observations, table
from tests.ingest.readers.reading import about, rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError


def _rows() -> list[dict[str, Any]]:
    parts = ["train"] * 8 + ["validate"] * 2 + ["test"] * 3
    rows = [
        {
            "subject": f"{10000032 + 1000 * at}",
            "study": f"{50414267 + at}",
            "dicom": f"02aa804e-{at:08d}",
            "view": ("AP", "PA", "LATERAL", "LL", "")[at % 5],
            "split": part,
            "labels": {"Edema": (at % 3) - 1, "Fracture": at % 2},
        }
        for at, part in enumerate(parts)
    ]
    return [*rows, {**rows[0], "dicom": "ffff-second", "view": "LATERAL"}]


def _config(files: dict[str, Path], root: Path, **changes: Any) -> MimicConfig:
    return validate(MimicConfig, {**files, "out": root / "out", "tune_images": 2, **changes})


def test_studies_give_their_images_labels_and_the_official_list_splits(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_mimic(tmp_path / "in", _rows()), tmp_path)).out)
    first, second = "02aa804e-00000000", "ffff-second"
    assert about(data, first, "patient_id", "study_id", "view", "acquired", "path") == (
        *("10000032", "50414267", "AP", "2180-05-06"),
        "files/p10/p10000032/s50414267/02aa804e-00000000.jpg",
    )
    assert about(data, second, "study_id", "view") == ("50414267", "LATERAL")
    assert said(data, first) == said(data, second) == {"Edema": -1, "Lung Opacity": -1, "Fracture": 0}
    split = sides(data)
    assert [split[f"02aa804e-{at:08d}"] for at in range(13)] == ["train"] * 8 + ["val"] * 2 + ["test"] * 3
    assert split[second] == "train"
    assert rejected(data.root) == []
    taken = {
        row["label"]: (row["positive"], row["negative"], row["uncertain"]) for row in data.info["coverage"]["taken"]
    }
    assert taken["Edema"] == (4, 4, 6)  # of 14 images: at % 3 - 1, the second film of study 0 again


def test_a_radiologists_table_goes_before_the_labeller(tmp_path: Path) -> None:
    files = make_mimic(tmp_path / "in", _rows())
    header = ["study_id", *OBSERVATIONS]
    header[header.index("Lung Opacity")] = "Airspace Opacity"
    rows = [["s50414277", *observations(Lung_Opacity=1, Edema=0)], ["99", *observations()]]
    mine = table(tmp_path / "mimic-cxr-2.1.0-test-set-labeled.csv", header, rows)
    data = Dataset.load(run(_config(files, tmp_path, test_labels=mine)).out)
    assert said(data, "02aa804e-00000010") == {"Lung Opacity": 1, "Edema": 0}  # not Fracture, which the labeller gives
    assert said(data, "02aa804e-00000011")["Edema"] == 1
    assert rejected(data.root) == [("mimic-cxr-2.1.0-test-set-labeled.csv:3 99", "no_image")]
    assert data.info["coverage"]["merged"] == [
        {"finding": "Lung Opacity", "labels": ["Airspace Opacity", "Lung Opacity"]}
    ]


def test_boxes_of_test_films_are_split_into_tune_and_test(tmp_path: Path) -> None:
    files = make_mimic(tmp_path / "in", _rows())
    rows = [[f"02aa804e-{at:08d}.jpg", "Fracture", 1, 1, 11, 9] for at in (10, 11, 12, 3)]
    own = table(tmp_path / "b.csv", ["file_name", "finding", "x_min", "y_min", "x_max", "y_max"], rows)
    data = Dataset.load(run(_config(files, tmp_path, boxes=own)).out)
    assert data.info["counts"]["splits"] == {"train": 9, "val": 2, "tune": 2, "test": 1}
    assert data.info["boxes"] == {"tune_and_test": 3, "ceiling": 1, "val_unused": 0, "clipped": 0}
    # a box makes its label 1 in tune and test, never in train
    assert data.info["labels_raised_by_a_box"] == 2
    assert {said(data, f"02aa804e-{at:08d}")["Fracture"] for at in (10, 11, 12)} == {1}


def test_rows_that_do_not_meet_are_named(tmp_path: Path) -> None:
    rows = [*_rows(), {"subject": "19999999", "study": "7", "dicom": "nolabels", "split": "train", "labels": None}]
    rows[4]["split"] = "holdout"
    files = make_mimic(tmp_path / "in", rows)
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert rejected(data.root) == [
        ("mimic-cxr-2.0.0-split.csv.gz:6 02aa804e-00000004", "bad_row"),
        ("mimic-cxr-2.0.0-metadata.csv.gz:16 files/p19/p19999999/s7/nolabels.jpg", "no_labels"),
        ("mimic-cxr-2.0.0-metadata.csv.gz:6 files/p10/p10004032/s50414271/02aa804e-00000004.jpg", "not_in_lists"),
    ]


def test_a_gzip_that_is_none(tmp_path: Path) -> None:
    files = make_mimic(tmp_path / "in", _rows())
    files["labels"].write_bytes(b"subject_id,study_id\n")
    with pytest.raises(DataError, match=r"chexpert.csv.gz: expected CSV in UTF-8, got something else \(Not a gzipped"):
        run(_config(files, tmp_path))
