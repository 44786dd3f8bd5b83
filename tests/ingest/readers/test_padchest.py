"""`weakray ingest padchest` on made data in PadChest's layout: films of 16 bits, lists as Python writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ingest.padchest import PadchestConfig, run
from tests.ingest.layouts import make_padchest, table
from tests.ingest.readers.reading import about, rejected, said
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.imaging import read_image

ROWS: list[dict[str, Any]] = [
    {"image": "216840111_02-094-102.png", "labels": "['cardiomegaly', ' pleural effusion']"},
    {"image": "216840112_02-094-102.png", "labels": "['normal']", "projection": "L", "patient": "8000"},
    {"image": "216840113.png", "labels": "['unchanged', 'pneumonia', 'gynecomastia']", "method": "RNN_model"},
    {"image": "216840114.png", "labels": "['rib fracture', 'loculated pleural effusion', 'callus rib fracture']"},
    {"image": "216840115.png", "labels": "['exclude']"},
    {"image": "216840116.png", "labels": "['normal']", "projection": "EXCLUDE"},
    {"image": "216840117.png", "labels": ""},
    {"image": "216840118.png", "labels": "not a list"},
    {"image": "216840119.png", "labels": "['suboptimal study', 'laminar atelectasis']", "projection": "AP_horizontal"},
    *({"image": f"3{at}.png", "labels": ["['normal']", "['pneumonia', 'infiltrates']"][at % 2]} for at in range(10)),
]


def _config(files: dict[str, Path], root: Path, **changes: Any) -> PadchestConfig:
    return validate(PadchestConfig, {**files, "out": root / "out", "tune_images": 1, **changes})


def test_lists_become_labels_and_statements_do_not(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_padchest(tmp_path / "in", ROWS), tmp_path)).out)
    first = "216840111_02-094-102"
    assert about(data, first, "patient_id", "view", "sex", "age_years", "acquired", "path") == (
        *("8000", "PA", "M", 84.0, "2014-09-15", "0/216840111_02-094-102.png"),
    )
    assert about(data, "216840112_02-094-102", "view") == ("LATERAL",)
    labels = said(data, first)
    assert {name for name, value in labels.items() if value == 1} == {"Cardiomegaly", "Pleural Effusion"}
    assert labels["Pneumonia"] == 0
    assert "Emphysema" not in labels  # no row of this table names it
    assert said(data, "216840113") == {"Pneumonia": 1}  # of an unchanged film nothing else is said
    fracture = said(data, "216840114")
    assert {n for n, v in fracture.items() if v == 1} == {"Rib Fracture", "Fracture", "Pleural Effusion"}
    tree = said(data, "216840119")
    assert (tree["Laminar Atelectasis"], tree["Atelectasis"]) == (1, 1)
    assert [(item.split(" ")[0].split(":")[1], reason) for item, reason in rejected(data.root)] == [
        ("6", "excluded"),
        ("7", "excluded"),
        ("8", "no_labels"),
        ("9", "bad_row"),
    ]
    assert data.info["statements"] == {"exclude": 1, "unchanged": 1, "suboptimal study": 1}
    coverage = data.info["coverage"]
    dropped = {row["label"]: (row["why"], row["positive"]) for row in coverage["dropped"]}
    assert dropped == {"gynecomastia": ("unknown", 1), "normal": ("none", 7)}
    merged = {entry["finding"]: entry["labels"] for entry in coverage["merged"]}
    assert merged == {
        "Pleural Effusion": ["loculated pleural effusion", "pleural effusion"],
        "Rib Fracture": ["callus rib fracture", "rib fracture"],
    }


def test_its_films_of_16_bits_are_read_by_every_later_stage(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_padchest(tmp_path / "in", ROWS), tmp_path)).out)
    image = read_image(data.path_of("216840114"))
    assert image.shape == (24, 36)
    assert image.dtype == np.uint8


def test_physicians_rows_alone_and_a_flat_folder(tmp_path: Path) -> None:
    files = make_padchest(tmp_path / "in", [{**row, "folder": "54"} for row in ROWS])
    flat = {**files, "images": tmp_path / "in" / "54"}
    data = Dataset.load(run(_config(flat, tmp_path, labelled_by="physician", taxonomy="chexpert")).out)
    assert "216840113.png" in {item.split("/")[-1] for item, reason in rejected(data.root) if reason == "not_physician"}
    assert said(data, "31")["Pneumonia"] == 1
    assert said(data, "31")["Lung Opacity"] == 1
    assert data.info["coverage"]["taxonomy"] == "chexpert"


def test_boxes_of_ones_own_in_a_frame_of_another_size(tmp_path: Path) -> None:
    files = make_padchest(tmp_path / "in", ROWS)
    header = ["image_id", "finding", "x", "y", "width", "height", "frame_width", "frame_height"]
    rows = [[f"3{at}", "pneumonia", 100, 50, 200, 100, 3600, 2400] for at in (1, 3, 5)]
    data = Dataset.load(run(_config(files, tmp_path, boxes=table(tmp_path / "b.csv", header, rows))).out)
    assert data.info["counts"]["splits"]["tune"] == 1
    assert data.info["counts"]["splits"]["test"] == 2
    assert data.truth.boxes["33"].boxes_xyxy_px.tolist() == [[1, 0.5, 3, 1.5]]
