"""`weakray ingest coco` on made data."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.coco import CocoConfig, run
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.files import sha256_file

Make = Callable[..., Any]


def _config(files: Any, **changes: Any) -> CocoConfig:
    sizes = {"tune_images": 3, "test_images": 4, "val_images": 2}
    plain = {"images": files.images, "out": files.root / "out", **sizes, **files.tables}
    return validate(CocoConfig, plain | changes)


def _labels(data: Dataset, image_id: str) -> list[float]:
    return [float(value) for value in data.labels.loc[[image_id]].to_numpy()[0]]


def _rejected(root: Path) -> list[tuple[str, str]]:
    with (root / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return [(row["item"].split(" ")[0], row["reason"]) for row in csv.DictReader(file)]


def test_labels_come_from_categories_and_boxes_go_where_their_split_may_see_them(
    tmp_path: Path, make_coco: Make
) -> None:
    result = run(_config(make_coco(tmp_path, 15)))
    assert result.model_dump(exclude={"out", "warnings"}) == {
        "images": 15,
        "patients": 15,
        "rejected": 0,
        "splits": {"train": 6, "val": 2, "tune": 3, "test": 4},
    }
    data = Dataset.load(result.out)
    assert data.taxonomy.names == ["cat", "dog", "hen"]
    assert _labels(data, "deep__004") == [0, 1, 0]
    assert data.images.at["deep__004", "path"] == "deep/004.png"
    assert data.images.at["deep__004", "patient_id"] == "deep__004"
    scored = set(data.ids_of("tune")) | set(data.ids_of("test"))
    assert set(data.truth.boxes) == scored
    assert data.truth.annotated == {(image_id, class_id) for image_id in scored for class_id in range(3)}
    ceiling = data.ceiling_truth()
    assert ceiling is not None
    assert set(ceiling.boxes) == set(data.ids_of("train"))
    some = min(scored)
    number = int(some[-3:])
    assert data.truth.boxes[some].boxes_xyxy_px.tolist() == [[4, 3, 14 + number % 7, 11]]
    assert data.truth.boxes[some].class_id.tolist() == [number % 3]
    assert data.info["boxes"] == {"tune_and_test": 7, "ceiling": 6, "val_unused": 2, "clipped": 0}


def test_patients_are_images_unless_the_json_names_them(tmp_path: Path, make_coco: Make) -> None:
    def name_patients(content: dict[str, Any]) -> None:
        for at, image in enumerate(content["images"]):
            image["who"] = at // 3

    files = make_coco(tmp_path, 18, name_patients)
    data = Dataset.load(run(_config(files, patient_key="who", tune_images=3, test_images=6, val_images=3)).out)
    assert data.info["counts"]["patients"] == 6
    assert data.patient_of("deep__004") == "1"
    assert data.info["counts"]["splits"] == {"train": 6, "val": 3, "tune": 3, "test": 6}


def test_entries_that_do_not_fit_are_rejected_by_name(tmp_path: Path, make_coco: Make) -> None:
    def damage(content: dict[str, Any]) -> None:
        images, boxes = content["images"], content["annotations"]
        images[2]["width"] = 35
        images[3]["file_name"] = "deep/none.png"
        images.append({"id": 3, "file_name": "deep/extra.png"})
        images.append({"id": 98, "file_name": "deep/005.jpg"})
        images.append({"id": 99, "file_name": "../secret.png"})
        images.append({"id": 97, "file_name": "odd\ud800.png"})
        images.append({"file_name": "deep/noid.png"})
        images.append("rubbish")
        boxes[7]["bbox"] = [30, 3, 10, 8]  # cut at the border
        boxes[8]["bbox"] = [36, 3, 10, 8]
        boxes[9]["bbox"] = [1, 2, 0, 8]
        boxes[10]["bbox"] = [1, 2, None, 8]
        boxes[11]["iscrowd"] = 1
        boxes[12]["category_id"] = 44
        boxes[13]["image_id"] = 1234
        boxes.append({**boxes[0], "id": 100})
        boxes.append({"id": 101, "image_id": 98, "category_id": 5, "bbox": [1, 1, 4, 4]})
        boxes.append(7)

    files = make_coco(tmp_path, 18, damage)
    (files.images / "deep" / "extra.png").write_bytes(b"x")
    (files.images / "stray.png").write_bytes(b"x")
    data = Dataset.load(run(_config(files)).out)
    assert sorted(_rejected(data.root)) == sorted(
        [
            ("instances.json:images[2]", "size_mismatch"),
            ("instances.json:images[3]", "missing"),
            ("instances.json:images[18]", "duplicated"),
            ("instances.json:images[19]", "duplicated"),
            ("instances.json:images[20]", "missing"),
            ("instances.json:images[21]", "bad_row"),
            ("instances.json:images[22]", "bad_row"),
            ("instances.json:images[23]", "bad_row"),
            ("stray.png", "no_row"),
            ("deep/003.png", "no_row"),
            ("instances.json:annotations[2]", "image_rejected"),
            ("instances.json:annotations[3]", "image_rejected"),
            ("instances.json:annotations[8]", "outside"),
            ("instances.json:annotations[9]", "no_area"),
            ("instances.json:annotations[10]", "bad_number"),
            ("instances.json:annotations[11]", "crowd"),
            ("instances.json:annotations[12]", "unknown_class"),
            ("instances.json:annotations[13]", "no_image"),
            ("instances.json:annotations[18]", "duplicated"),
            ("instances.json:annotations[19]", "image_rejected"),
            ("instances.json:annotations[20]", "bad_row"),
        ]
    )
    assert data.info["boxes"]["clipped"] == 1
    assert _labels(data, "deep__008") == [0, 0, 1]  # present, whatever became of its box
    assert _labels(data, "deep__012") == [0, 0, 0]


def test_a_pair_whose_box_was_refused_is_not_scored(tmp_path: Path, make_coco: Make) -> None:
    def crowd(content: dict[str, Any]) -> None:
        for box in content["annotations"]:
            box["iscrowd"] = 1

    data = Dataset.load(run(_config(make_coco(tmp_path, 15, crowd))).out)
    scored = set(data.ids_of("tune")) | set(data.ids_of("test"))
    absent = {(i, c) for i in scored for c in range(3) if c != int(i[-3:]) % 3}
    assert data.truth.annotated == absent
    assert _labels(data, "deep__001") == [0, 1, 0]
    assert data.ceiling_truth() is None


@pytest.mark.parametrize("key", ["image_id", "file_name"])
def test_labels_of_a_table_go_before_the_boxes(tmp_path: Path, make_coco: Make, key: str) -> None:
    files = make_coco(tmp_path, 15)
    name = {"image_id": "{}", "file_name": "deep/{:03d}.png"}[key]
    first = 1 if key == "image_id" else 0
    rows = [f"{name.format(at + first)},{['', '1', '-1'][at % 3]},0" for at in range(13)]
    rows += [f"{name.format(13 + first)},maybe,0", f"{name.format(77)},1,1", f"{name.format(first)},1,1"]
    (tmp_path / "labels.csv").write_text("\n".join([f"{key},hen,cat", *rows]), encoding="utf-8")
    data = Dataset.load(run(_config(files, labels=tmp_path / "labels.csv")).out)
    assert np.isnan(_labels(data, "deep__000")).tolist() == [False, True, True]
    assert _labels(data, "deep__001")[::2] == [0, 1]
    assert _labels(data, "deep__002")[::2] == [0, -1]
    assert sorted(_rejected(data.root)) == sorted(
        [
            ("labels.csv:15", "bad_row"),
            ("labels.csv:16", "no_image"),
            ("labels.csv:17", "duplicated"),
            ("instances.json:images[13]", "no_labels"),
            ("instances.json:images[14]", "no_labels"),
            ("instances.json:annotations[13]", "image_rejected"),
            ("instances.json:annotations[14]", "image_rejected"),
        ]
    )


def test_unknown_names_are_refused_and_a_taxonomy_maps_them(tmp_path: Path, make_coco: Make) -> None:
    files = make_coco(tmp_path, 15)
    (tmp_path / "labels.csv").write_text("image_id,cow,pig\n1,1,0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"labels\.csv: unknown findings 'cow', 'pig'; known are cat, dog, hen\. Give"):
        run(_config(files, labels=tmp_path / "labels.csv"))
    (tmp_path / "own.yaml").write_text(
        "findings:\n- name: animal\n- {name: mammal, parent: animal, synonyms: [cat, dog]}\nignored: [hen]\n",
        encoding="utf-8",
    )
    data = Dataset.load(run(_config(files, taxonomy=str(tmp_path / "own.yaml"))).out)
    assert _labels(data, "deep__000") == [1, 1]
    assert _labels(data, "deep__002")[1] == 0
    assert np.isnan(_labels(data, "deep__002")[0])
    assert {class_id for _, class_id in data.truth.annotated} == {1}
    assert {reason for _, reason in _rejected(data.root)} == {"ignored_class"}


def test_a_parent_category_seen_only_through_its_child_is_not_scored(tmp_path: Path, make_coco: Make) -> None:
    files = make_coco(tmp_path, 15)
    (tmp_path / "own.yaml").write_text(
        "findings:\n- name: cat\n- {name: dog, parent: cat}\n- name: hen\n", encoding="utf-8"
    )
    data = Dataset.load(run(_config(files, taxonomy=str(tmp_path / "own.yaml"))).out)
    dogs = {i for i in data.truth.image_ids if int(i[-3:]) % 3 == 1}
    assert dogs
    assert {i for i in data.truth.image_ids if (i, 0) not in data.truth.annotated} == dogs
    assert [_labels(data, dog)[0] for dog in sorted(dogs)] == [1] * len(dogs)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "expected a COCO file with the lists images, annotations and categories"),
        ("{", "expected JSON, got something else"),
        ('{"images": [], "annotations": [], "categories": []}', "expected categories, each with id and name, got 0"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "with an id of their own and a name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "not one image could be taken"),
    ],
)
def test_a_file_that_is_no_coco_file(tmp_path: Path, make_coco: Make, content: str, message: str) -> None:
    files = make_coco(tmp_path, 0)
    files.tables["annotations"].write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        run(_config(files))


def test_too_few_images_name_the_sizes(tmp_path: Path, make_coco: Make) -> None:
    with pytest.raises(
        DataError, match=r"tune 3 \+ test 4 \+ val 2 images, but 9 are there and train needs at least one"
    ):
        run(_config(make_coco(tmp_path, 9)))


def test_the_ceiling_is_the_only_file_that_train_boxes_change(tmp_path: Path, make_coco: Make) -> None:
    files = make_coco(tmp_path / "a", 15)
    out = run(_config(files)).out
    before = {path.name: sha256_file(path) for path in out.iterdir()}
    train = {int(image_id[-3:]) for image_id in Dataset.load(out).ids_of("train")}

    def shift(content: dict[str, Any]) -> None:
        for at in train:
            content["annotations"][at]["bbox"] = [1, 1, 5, 5]

    moved = make_coco(tmp_path / "b", 15, shift)
    out = run(_config(moved)).out
    after = {path.name: sha256_file(path) for path in out.iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"ceiling_boxes.json", "dataset.json"}
