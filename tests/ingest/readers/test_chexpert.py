"""`weakray ingest chexpert` on made data in CheXpert's and CheXlocalize's layout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.chexpert import ChexpertConfig, run
from tests.ingest.layouts import CHEXPERT_HEADER, chexpert_row, film, make_chexpert, observations, table
from tests.ingest.readers.reading import about, rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import sha256_file

SMALL = "CheXpert-v1.0-small"


def _path(split: str, patient: int, view: str = "view1_frontal.jpg", study: int = 1) -> str:
    return f"{SMALL}/{split}/patient{patient:05d}/study{study}/{view}"


TRAIN = [
    chexpert_row(_path("train", 1), sex="Male", age=68, Lung_Opacity=1, Edema=-1, Support_Devices=1, No_Finding=0),
    chexpert_row(_path("train", 1, "view2_lateral.jpg"), sex="Male", age=68, Lung_Opacity=1, Edema=-1),
    chexpert_row(_path("train", 2), sex="Unknown", age=0, ap_pa="PA", Pneumonia=-1, Consolidation=0, Lung_Opacity=0),
    chexpert_row(_path("train", 3), ap_pa="RL", Cardiomegaly=1),
    *[
        chexpert_row(_path("train", at, study=at % 3 + 1), Pleural_Effusion=at % 2, Atelectasis=(at % 3) - 1)
        for at in range(4, 16)
    ],
]
ALL = [name.replace(" ", "_") for name in CHEXPERT_HEADER[5:]]
VALID: list[list[Any]] = [
    [_path("valid", 64541 + at), "Male", 50 + at, "Frontal", "AP", *observations(**dict.fromkeys(ALL, at % 2))]
    for at in range(6)
]


def _config(files: dict[str, Path], root: Path, **changes: Any) -> ChexpertConfig:
    return validate(ChexpertConfig, {**files, "out": root / "out", "tune_images": 2, "val_fraction": 0.2, **changes})


def test_labels_views_people_and_splits_come_from_the_tables(tmp_path: Path) -> None:
    files = make_chexpert(tmp_path / "in", TRAIN, VALID)
    result = run(_config(files, tmp_path))
    assert (result.images, result.patients, result.rejected) == (22, 21, 0)
    data = Dataset.load(result.out)
    assert len(data.taxonomy) == 13
    one = "patient00001_study1_view1_frontal"
    assert about(data, one, "patient_id", "study_id", "view", "sex", "age_years", "source") == (
        *("patient00001", "patient00001_study1", "AP", "M", 68.0, "chexpert"),
    )
    assert data.path_of(one) == files["images"] / _path("train", 1)
    # uncertain stays -1 and lifts no further than -1; a positive lifts; blank stays blank
    assert said(data, one) == {"Lung Opacity": 1, "Edema": -1, "Support Devices": 1}
    two = "patient00002_study1_view1_frontal"
    assert said(data, two) == {"Pneumonia": -1, "Consolidation": -1, "Lung Opacity": -1}
    assert about(data, two, "view", "sex") == ("PA", "")
    assert data.images.at[two, "age_years"] != 0
    assert about(data, "patient00003_study1_view1_frontal", "view") == ("FRONTAL",)
    assert said(data, "patient00003_study1_view1_frontal") == {"Cardiomegaly": 1, "Enlarged Cardiomediastinum": 1}
    assert about(data, "patient00001_study1_view2_lateral", "view") == ("LATERAL",)
    split = sides(data)
    assert {split[i] for i in split if i.startswith("patient645")} == {"val"}
    assert set(split.values()) == {"train", "val"}
    assert split[one] == split["patient00001_study1_view2_lateral"]
    assert not (data.labels.loc[data.ids_of("val")] == -1).any().any()


def test_the_coverage_counts_the_tables_own_cells(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_chexpert(tmp_path / "in", TRAIN, VALID), tmp_path)).out)
    coverage = data.info["coverage"]
    assert (coverage["source"], coverage["taxonomy"]) == ("chexpert", "chexpert")
    taken = {row["label"]: (row["positive"], row["negative"], row["uncertain"]) for row in coverage["taken"]}
    assert len(taken) == 13
    # of the twelve: six effusions and six without; atelectasis at % 3 - 1 is -1, 0, 1 four times each; valid 3 and 3
    assert taken["Pleural Effusion"] == (9, 9, 0)
    assert taken["Atelectasis"] == (7, 7, 4)
    assert taken["Edema"] == (3, 3, 2)
    assert [(row["label"], row["why"]) for row in coverage["dropped"]] == [("No Finding", "none")]
    assert coverage["unnamed"] == []
    text = (data.root / "coverage.md").read_text(encoding="utf-8")
    assert "| Atelectasis | 7 | 7 | 4 | 0 | Atelectasis |" in text


def test_another_taxonomy_takes_merges_and_drops(tmp_path: Path) -> None:
    files = make_chexpert(tmp_path / "in", TRAIN, VALID)
    data = Dataset.load(run(_config(files, tmp_path, taxonomy="nih")).out)
    coverage = data.info["coverage"]
    assert "Lung Lesion" in [row["label"] for row in coverage["dropped"]]
    assert {"Mass", "Nodule", "Hernia"} <= set(coverage["unnamed"])
    assert any("the taxonomy has no place for 6 labels of chexpert" in text for text in data.info["warnings"])
    assert data.labels["Mass"].isna().all()


def test_contours_of_valid_and_test_make_tune_and_test(tmp_path: Path) -> None:
    files = make_chexpert(tmp_path / "in", TRAIN, VALID)
    tests = [_path("test", 70000 + at) for at in range(3)]
    for seed, path in enumerate(tests):
        film(files["images"] / path.replace(f"{SMALL}/", ""), 50 + seed)
    rows = [[path.replace(f"{SMALL}/", ""), *observations(Cardiomegaly=1, Edema=0)] for path in tests]
    header = ["Path", *CHEXPERT_HEADER[5:]]
    header[header.index("Lung Opacity")] = "Airspace Opacity"  # as CheXlocalize writes it
    files["test"] = table(tmp_path / "in" / "test_labels.csv", header, rows)
    valid = {
        "patient64542_study1_view1_frontal": {
            "img_size": [2400, 3600],  # height, width: 100 times the film's
            "Cardiomegaly": [[[400, 300], [1200, 900.5], [800, 1800]], [[0, 0], [100.0, 100.0]]],
            "Airspace Opacity": [[[3000, 2000], [5000, 2300]]],
        },
        "patient64543_study1_view1_frontal": {"img_size": [2400, 3600]},
    }
    drawn = {
        "patient70000_study1_view1_frontal": {"img_size": [24, 36], "Cardiomegaly": [[[4, 3], [12, 18]]], "Gout": [[]]}
    }
    for name, content in (("gt_annotations_val.json", valid), ("gt_annotations_test.json", drawn)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    contours = [tmp_path / "gt_annotations_val.json", tmp_path / "gt_annotations_test.json"]
    data = Dataset.load(run(_config(files, tmp_path, valid_as="tune", contours=contours)).out)
    split = sides(data)
    assert sorted(set(split.values())) == ["test", "train", "tune", "val"]
    assert {split[i] for i in split if i.startswith("patient645")} == {"tune"}
    assert {split[i] for i in split if i.startswith("patient7")} == {"test"}
    boxes = data.truth.boxes["patient64542_study1_view1_frontal"]
    # 400…1200 × 300…1800 of 3600 × 2400 on 36 × 24 px; 3000…5000 is cut at the border
    assert boxes.boxes_xyxy_px.tolist() == [[4, 3, 12, 18], [0, 0, 1, 1], [30, 20, 36, 23]]
    pairs = {class_id for image, class_id in data.truth.annotated if image == "patient64542_study1_view1_frontal"}
    # every label of this row is 1: only what has a box of its own is a pair; opacity is there by its own box
    assert {data.taxonomy.names[k] for k in pairs} == {"Cardiomegaly", "Lung Opacity"}
    empty = {class_id for image, class_id in data.truth.annotated if image == "patient64543_study1_view1_frontal"}
    assert len(empty) == 13  # all absent, looked at
    assert rejected(data.root) == [
        ("gt_annotations_test.json:patient70000_study1_view1_frontal Gout[0]", "unknown_class")
    ]
    assert data.info["boxes"]["clipped"] == 1
    assert set(data.info["inputs_sha256"]) >= {"train", "valid", "test"}


def test_boxes_of_ones_own_make_tune_and_test_of_train_images(tmp_path: Path) -> None:
    files = make_chexpert(tmp_path / "in", TRAIN, VALID)
    boxed = [f"patient{at:05d}_study{at % 3 + 1}_view1_frontal" for at in (5, 7, 9, 11)]
    rows = [[name, "Pleural Effusion", 2, 3, 10, 8] for name in boxed]
    rows += [
        [boxed[0], "Gout", 1, 1, 5, 5],
        ["patient00004_study2_view1_frontal", "", "", "", "", ""],
        ["", "Edema", 1, 1, 2, 2],
    ]
    own = table(tmp_path / "boxes.csv", ["image_id", "finding", "x", "y", "width", "height"], rows)
    with pytest.raises(DataError, match="not one of 4 boxes is of an image that tune or test could take"):
        run(_config(files, tmp_path, boxes=own))
    data = Dataset.load(run(_config(files, tmp_path, boxes=own, lists=False)).out)
    split = sides(data)
    scored = {*boxed, "patient00004_study2_view1_frontal"}
    assert {i for i, s in split.items() if s in ("tune", "test")} == scored
    assert data.info["counts"]["splits"]["tune"] == 2
    assert data.truth.boxes[boxed[0]].boxes_xyxy_px.tolist() == [[2, 3, 12, 11]]
    assert ("patient00004_study2_view1_frontal", data.taxonomy.index["Pleural Effusion"]) in data.truth.annotated
    assert rejected(data.root) == [
        ("boxes.csv:6 patient00005_study3_view1_frontal", "unknown_class"),
        ("boxes.csv:8", "bad_row"),
    ]
    taken = {row["label"]: row["boxes"] for row in data.info["coverage"]["taken"]}
    assert taken["Pleural Effusion"] == 4


def test_rows_that_cannot_be_used_are_named_and_counted(tmp_path: Path) -> None:
    bad = [
        chexpert_row("CheXpert-v1.0-small/train/x/view1_frontal.jpg"),
        [*chexpert_row(_path("train", 90), Edema=0)[:-1], "2.0"],
        [*chexpert_row(_path("train", 91)), "more"],
        chexpert_row(_path("train", 5, study=3), Edema=1),  # stands there already
        chexpert_row(_path("train", 92)),
    ]
    files = make_chexpert(tmp_path / "in", [*TRAIN, *bad], VALID)
    (files["images"] / _path("train", 92)).unlink()
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert [(item.split(" ")[0], reason) for item, reason in rejected(data.root)] == [
        ("train.csv:18", "bad_row"),
        ("train.csv:19", "bad_row"),
        ("train.csv:20", "bad_row"),
        ("train.csv:21", "duplicated"),
        ("train.csv:22", "missing"),
    ]
    assert len(data.images) == 22


def test_frontal_films_alone(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_chexpert(tmp_path / "in", TRAIN, VALID), tmp_path, views="frontal")).out)
    assert [reason for _, reason in rejected(data.root)] == ["other_view"]
    assert "LATERAL" not in set(data.images["view"])


def test_the_images_setting_may_name_any_folder_along_the_paths_and_files_may_be_png(tmp_path: Path) -> None:
    files = make_chexpert(tmp_path / "in", TRAIN, VALID)
    first = files["images"] / _path("train", 1)
    first.unlink()
    film(first.with_suffix(".png"), 99)
    data = Dataset.load(run(_config({**files, "images": tmp_path / "in" / SMALL}, tmp_path)).out)
    assert len(data.images) == 22
    assert about(data, "patient00001_study1_view1_frontal", "path") == ("train/patient00001/study1/view1_frontal.png",)
    assert data.info["paired_by_stem"] == 1


def test_without_lists_and_boxes_a_share_becomes_test(tmp_path: Path) -> None:
    config = _config(make_chexpert(tmp_path / "in", TRAIN, VALID), tmp_path, lists=False, test_fraction=0.25)
    data = Dataset.load(run(config).out)
    counts = data.info["counts"]["splits"]
    assert counts["tune"] == 0
    assert min(counts["train"], counts["val"], counts["test"]) > 0
    before = {path.name: sha256_file(path) for path in data.root.iterdir()}
    run(config.model_copy(update={"workers": 1}))
    assert {path.name: sha256_file(path) for path in data.root.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        ("train", ["Sex", *CHEXPERT_HEADER[5:]], "train.csv: expected the columns 'Path', got Sex, No Finding"),
        ("valid", ["Path", "Sex"], "expected columns of observations such as 'Enlarged Cardiomediastinum', got none"),
    ],
)
def test_a_table_of_another_kind(tmp_path: Path, name: str, header: list[str], message: str) -> None:
    files = make_chexpert(tmp_path / "in", TRAIN, VALID)
    table(files[name], header, [["a"] * len(header)])
    with pytest.raises(DataError, match=message):
        run(_config(files, tmp_path))
