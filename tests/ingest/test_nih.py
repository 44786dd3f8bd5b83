"""`weakray ingest nih` on made data in NIH's files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest.nih import NihConfig, check_frame, run
from ingest.nih_csv import BoxEntry, read_boxes, read_entries
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.files import sha256_file

Make = Callable[..., Any]

# Images are 24 × 36 px, boxes refer to a frame of 512: x · 36/512, y · 24/512.
BOX = (128, 128, 256, 128)
ENTRIES = [
    ("00000001_000.png", "Mass|Effusion", "1"),
    ("00000001_001.png", "No Finding", "1"),  # no box, follows its patient
    ("00000002_000.png", "Mass", "2"),
    ("00000003_000.png", "Nodule", "3"),
    ("00000004_000.png", "Infiltration", "4"),
    *[
        (f"{10 + at:08d}_000.png", ["No Finding", "Mass", "Pleural_Thickening"][at % 3], str(10 + at))
        for at in range(12)
    ],
]
BOXES = [
    ("00000001_000.png", "Mass", BOX),
    ("00000002_000.png", "Mass", BOX),
    ("00000003_000.png", "Nodule", BOX),
    ("00000004_000.png", "Infiltrate", BOX),
]


def _config(files: Any, **changes: Any) -> NihConfig:
    plain = {"images": files.images, "out": files.root / "out", "box_frame_px": 512, "tune_images": 2, **files.tables}
    return validate(NihConfig, plain | changes)


def _rejected(root: Path) -> list[tuple[str, str]]:
    with (root / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return [(row["item"], row["reason"]) for row in csv.DictReader(file)]


def _labels(data: Dataset, image_id: str) -> list[float]:
    return [float(value) for value in data.labels.loc[[image_id]].to_numpy()[0]]


def _hashes(root: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in sorted(root.iterdir())}


def test_a_dataset_folder_with_labels_boxes_and_splits_by_patient(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    result = run(_config(files, val_fraction=0.25))
    assert result.model_dump(exclude={"out", "warnings"}) == {
        "images": 17,
        "patients": 16,
        "rejected": 0,
        "splits": {
            "train": 9,
            "val": 3,
            "tune": result.splits["tune"],
            "test": 5 - result.splits["tune"],
        },
    }
    data = Dataset.load(result.out)
    assert data.info["images_root"] == str(files.images)
    assert data.path_of("00000001_000").read_bytes() == (files.images / "00000001_000.png").read_bytes()
    row = data.images.loc["00000001_000"]
    assert (row["study_id"], row["view"], row["height"], row["width"], row["source"]) == ("1_0", "PA", 24, 36, "nih")
    positive = [data.taxonomy.names[at] for at, value in enumerate(_labels(data, "00000001_000")) if value == 1]
    assert positive == ["Pleural Effusion", "Mass"]
    assert (data.labels.loc["00000010_000"] == 0).all()
    # a 512 frame on 24 × 36 px: x 128 → 9, y 128 → 6, right 384 → 27, bottom 256 → 12
    assert data.truth.boxes["00000001_000"].boxes_xyxy_px.tolist() == [[9, 6, 27, 12]]
    boxed = {name[:-4] for name, _, _ in BOXES}
    assert set(data.truth.boxes) == boxed == set(data.truth.image_ids)
    split_of = {image_id: str(split) for image_id, split in data.images["split"].items()}
    assert [split_of[image_id] for image_id in boxed].count("tune") == 2
    assert split_of["00000001_001"] == split_of["00000001_000"]
    assert data.ceiling_truth() is None


def test_annotated_pairs_are_boxes_and_absences_never_a_positive_without_box(tmp_path: Path, make_nih: Make) -> None:
    data = Dataset.load(run(_config(make_nih(tmp_path, ENTRIES, BOXES))).out)
    index = data.taxonomy.index
    pairs = data.truth.annotated
    assert ("00000001_000", index["Mass"]) in pairs
    assert ("00000001_000", index["Pleural Effusion"]) not in pairs  # positive, and nobody drew its box
    assert ("00000001_000", index["Nodule"]) in pairs
    assert len(pairs) == 13 + 14 + 14 + 14


def test_age_and_sex_are_kept_where_the_table_has_them(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    text = files.tables["labels"].read_text(encoding="utf-8").splitlines()
    for at, (age, sex) in enumerate([("414", "F"), ("058Y", "m"), ("006M", "X"), ("", "F"), ("61", "")], start=1):
        text[at] = text[at].replace(",50,F,", f",{age},{sex},")
    files.tables["labels"].write_text("\n".join(text), encoding="utf-8")
    images = Dataset.load(run(_config(files)).out).images
    ids = [name[:-4] for name, _, _ in ENTRIES[:6]]
    assert images.loc[ids, "sex"].tolist() == ["F", "M", "", "F", "", "F"]
    assert images.loc[ids, "age_years"].fillna(-1).tolist() == [-1, 58, 0.5, -1, 61, 50]
    assert "acquired" not in images
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,x,y,View Position"
    bare = Dataset.load(run(_config(make_nih(tmp_path / "b", ENTRIES, BOXES, header=header))).out)
    assert not {"sex", "age_years", "acquired"} & set(bare.images)


def test_two_headers_of_two_copies_read_alike(tmp_path: Path, make_nih: Make) -> None:
    plain = make_nih(tmp_path / "a", ENTRIES, BOXES)
    quoted = make_nih(
        tmp_path / "b",
        ENTRIES,
        BOXES,
        header="\ufeffImage Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        '"OriginalImage[Width,Height]","OriginalImagePixelSpacing[x,y]",',
        box_header='Image Index,Finding Label,"Bbox [x,y,w,h]"',
    )
    assert read_boxes(plain.tables["boxes"]) == read_boxes(quoted.tables["boxes"])
    assert read_boxes(plain.tables["boxes"])[0] == BoxEntry(
        "boxes.csv:2 00000001_000.png", "00000001_000.png", "Mass", (128.0, 128.0, 256.0, 128.0)
    )
    assert read_entries(plain.tables["labels"]) == read_entries(quoted.tables["labels"])


def test_file_names_that_differ_in_their_extension_are_paired_and_counted(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    text = files.tables["labels"].read_text(encoding="utf-8")
    files.tables["labels"].write_text(text.replace("00000002_000.png", "00000002_000.jpg"), encoding="utf-8")
    (files.images / "images_001").mkdir()
    (files.images / "00000003_000.png").rename(files.images / "images_001" / "00000003_000.png")
    data = Dataset.load(run(_config(files)).out)
    assert data.info["paired_by_stem"] == 1
    assert data.info["counts"]["rejected"] == 0
    assert data.images.at["00000003_000", "path"] == "images_001/00000003_000.png"
    assert data.images.at["00000002_000", "path"] == "00000002_000.png"


def test_rows_files_and_boxes_that_do_not_fit_are_rejected_by_name(tmp_path: Path, make_nih: Make) -> None:
    entries = [
        *ENTRIES,
        ("00000030_000.png", "Mass", "30"),
        ("00000031_000.png", "Mass", "31"),
        ("00000032_000.png", "", "32"),
        ("00000033_000.png", "Mass", "33"),
    ]
    boxes = [
        *BOXES,
        *BOXES[:1],
        ("00000030_000.png", "Mass", BOX),
        ("00000099_000.png", "Mass", BOX),
        ("00000002_000.png", "Gout", BOX),
        ("00000002_000.png", "Cardiomegaly", (600, 20, 30, 30)),
        ("00000002_000.png", "Edema", ("?", 20, 30, 30)),
        ("00000002_000.png", "Hernia", (1, 20, 0, 30)),
        ("00000003_000.png", "Mass", (400, 20, 200, 60)),
    ]
    files = make_nih(tmp_path, entries, boxes)
    with files.tables["labels"].open("a", encoding="utf-8") as file:
        file.write("00000002_000.png,Mass,0,2,50,F,PA,1,1,1,1\n00000040_000.png,Mass\n")
    (files.images / "00000030_000.png").unlink()
    (files.images / "00000031_000.png").write_bytes(b"")
    (files.images / "00000033_000.png").write_bytes((files.images / "00000004_000.png").read_bytes())
    (files.images / "holiday.png").write_bytes(b"x")
    result = run(_config(files))
    assert sorted(_rejected(result.out)) == sorted(
        [
            ("entries.csv:19 00000030_000.png", "missing"),
            ("entries.csv:20 00000031_000.png", "zero_byte"),
            ("entries.csv:21 00000032_000.png", "bad_row"),
            ("entries.csv:22 00000033_000.png", "same_content"),
            ("entries.csv:23 00000002_000.png", "duplicated"),
            ("entries.csv:24 00000040_000.png", "bad_row"),
            ("holiday.png", "no_row"),
            ("boxes.csv:6 00000001_000.png", "duplicated"),
            ("boxes.csv:7 00000030_000.png", "image_rejected"),
            ("boxes.csv:8 00000099_000.png", "no_image"),
            ("boxes.csv:9 00000002_000.png", "unknown_class"),
            ("boxes.csv:10 00000002_000.png", "outside"),
            ("boxes.csv:11 00000002_000.png", "bad_number"),
            ("boxes.csv:12 00000002_000.png", "no_area"),
        ]
    )
    data = Dataset.load(result.out)
    # the box of Mass on 00000003_000 is cut at the border, and proves a finding that text mining missed
    assert data.info["boxes"] == {"tune_and_test": 5, "ceiling": 0, "val_unused": 0, "clipped": 1}
    assert data.labels.at["00000003_000", "Mass"] == 1
    assert data.info["labels_raised_by_a_box"] == 1
    # a refused box leaves its pair without a truth
    index = data.taxonomy.index
    open_pairs = {index[name] for name in ("Cardiomegaly", "Edema", "Hernia")}
    assert {c for image, c in data.truth.annotated if image == "00000002_000"} == set(range(14)) - open_pairs


def test_labels_without_a_place_are_dropped_aloud_and_counted(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, [*ENTRIES, ("00000050_000.png", "Gout|Mass|Ulcer", "50")], BOXES)
    data = Dataset.load(run(_config(files)).out)
    assert (
        "the taxonomy has no place for 2 labels of nih: Gout (1), Ulcer (1); see coverage.md" in data.info["warnings"]
    )
    coverage = data.info["coverage"]
    assert [(row["label"], row["why"]) for row in coverage["dropped"]] == [
        ("Gout", "unknown"),
        ("No Finding", "none"),
        ("Ulcer", "unknown"),
    ]
    taken = {row["label"]: row for row in coverage["taken"]}
    # of 18 rows: Mass of patients 1, 2 and 50, and of every third of the twelve
    assert taken["Mass"] == {
        "label": "Mass",
        "finding": "Mass",
        "positive": 7,
        "negative": 11,
        "uncertain": 0,
        "boxes": 2,
    }
    assert coverage["merged"] == [{"finding": "Infiltration", "labels": ["Infiltrate", "Infiltration"]}]
    assert "| Infiltrate | 0 | 0 | 0 | 1 | Infiltration |" in (data.root / "coverage.md").read_text(encoding="utf-8")


def test_a_taxonomy_of_ones_own_maps_labels_and_boxes(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, [*ENTRIES, ("00000050_000.png", "Gout|Mass|Ulcer", "50")], BOXES)
    (tmp_path / "own.yaml").write_text(
        "findings:\n- name: Lesion\n- {name: Lung Mass, parent: Lesion, synonyms: [Mass]}\n"
        "- {name: Nodule, parent: Lesion}\n"
        "ignored: [No Finding, Gout, Ulcer, Effusion, Infiltration, Pleural Thickening]\n",
        encoding="utf-8",
    )
    data = Dataset.load(run(_config(files, taxonomy=str(tmp_path / "own.yaml"))).out)
    assert data.taxonomy.names == ["Lesion", "Lung Mass", "Nodule"]
    assert _labels(data, "00000050_000") == [1, 1, 0]
    assert np.isnan(_labels(data, "00000004_000")).tolist() == [True, False, False]  # NIH never names Lesion
    assert _rejected(data.root) == [("boxes.csv:5 00000004_000.png", "unknown_class")]
    # Lesion is positive through Mass and has no box of its own: not a pair
    assert {c for image, c in data.truth.annotated if image == "00000001_000"} == {1, 2}


def test_chosen_findings_leave_the_other_boxes_out_by_name(tmp_path: Path, make_nih: Make) -> None:
    data = Dataset.load(
        run(_config(make_nih(tmp_path, ENTRIES, BOXES), findings=["Mass", "Effusion"], tune_images=1)).out
    )
    assert data.taxonomy.names == ["Pleural Effusion", "Mass"]
    assert [reason for _, reason in _rejected(data.root)] == ["not_chosen", "not_chosen"]
    assert set(data.truth.boxes) == {"00000001_000", "00000002_000"}


def _lists(files: Any, train: list[str], test: list[str]) -> dict[str, Path]:
    (files.root / "train.txt").write_text("\n".join(train), encoding="utf-8")
    (files.root / "test.txt").write_text("\n".join(test) + "\n", encoding="utf-8")
    return {"train_list": files.root / "train.txt", "test_list": files.root / "test.txt"}


def test_official_lists_decide_and_boxes_on_the_train_side_go_to_the_ceiling(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    names = [name for name, _, _ in ENTRIES]
    train, test = [*names[4:10], names[0], names[1]], [*names[2:4], *names[10:16]]
    lists = _lists(files, [name.replace(".png", ".jpg") for name in train], test)
    data = Dataset.load(run(_config(files, tune_images=1, val_fraction=0.3, **lists)).out)
    ids = lambda *splits: {i for split in splits for i in data.ids_of(split)}  # noqa: E731  # one name for four uses
    assert ids("train", "val") == {name[:-4] for name in train}
    assert ids("tune", "test") == {name[:-4] for name in test}
    assert _rejected(data.root) == [("entries.csv:18 00000021_000.png", "not_in_lists")]
    assert len(ids("tune")) == 1
    assert set(data.truth.boxes) == {"00000002_000", "00000003_000"}
    ceiling = data.ceiling_truth()
    assert ceiling is not None
    assert set(ceiling.boxes) == {"00000001_000", "00000004_000"} & ids("train")
    one_list = Dataset.load(run(_config(files, tune_images=1, test_list=lists["test_list"])).out)
    assert one_list.images.at["00000021_000", "split"] in ("train", "val")
    other = Dataset.load(run(_config(files, tune_images=1, train_list=lists["train_list"])).out)
    assert other.images.at["00000021_000", "split"] == "test"


def test_train_labels_are_never_raised_by_boxes(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, [*BOXES, ("00000010_000.png", "Mass", BOX), ("00000013_000.png", "Mass", BOX)])
    names = [name for name, _, _ in ENTRIES]
    lists = _lists(files, names[5:], names[:5])
    data = Dataset.load(run(_config(files, val_fraction=0.2, **lists)).out)
    assert data.labels.loc[["00000010_000", "00000013_000"], "Mass"].tolist() == [0, 0]
    assert data.info["labels_raised_by_a_box"] == 0


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([0, 1, 2], [2, 3], r"00000002_000\.png stands in .*test\.txt too; keep it in one list"),
        (
            [0, 4, 5],
            [1, 2, 3],
            r"patient 1 is cut in two: 00000001_000\.png is on the train side and 00000001_001\.png",
        ),
    ],
)
def test_lists_that_would_leak_are_refused(
    tmp_path: Path, make_nih: Make, train: list[int], test: list[int], message: str
) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    names = [name for name, _, _ in ENTRIES]
    lists = _lists(files, [names[at] for at in train], [names[at] for at in test])
    with pytest.raises(DataError, match=message):
        run(_config(files, **lists))


def test_the_frame_has_no_default_and_a_wrong_one_is_noticed(tmp_path: Path, make_nih: Make) -> None:
    with pytest.raises(ConfigError, match="box_frame_px: required, but not given"):
        validate(NihConfig, {"images": "a", "labels": "b", "boxes": "c", "out": "d"})
    files = make_nih(tmp_path, ENTRIES, BOXES)
    with pytest.raises(DataError, match=r"4 of 4 boxes reach beyond the frame of box_frame_px=300 \(to 384\).*1024"):
        run(_config(files, box_frame_px=300))
    wide = [BoxEntry("", "", "", (0.0, 0.0, 500.0, 500.0))] * 50
    assert check_frame(wide, 512, Path("b.csv")) == []
    assert check_frame(wide, 1024, Path("b.csv")) == [
        "no box reaches beyond 500 of box_frame_px=1024: is the frame really that large?"
    ]
    stray = [BoxEntry("", "", "", (0.0, 0.0, 900.0, 5.0))] * 2
    assert check_frame([*wide, *stray], 512, Path("b.csv")) == []  # a few: rejected or cut one by one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune_images": 4}, "asked for tune 4 images, but 4 are there and test needs at least one"),
        ({"images": "nowhere"}, "expected the folder that holds the images, found none; check the setting `images`"),
        ({"labels": "nowhere.csv"}, "nowhere.csv: expected a CSV file, got No such file"),
    ],
)
def test_what_cannot_be_done_says_so(tmp_path: Path, make_nih: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(_config(make_nih(tmp_path, ENTRIES, BOXES), **changes))


def test_no_image_at_all_and_a_nested_folder(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    with pytest.raises(DataError, match=r"out: .* lies inside the images folder .*; name a folder outside of it"):
        run(_config(files, out=files.images / "out"))
    for path in files.images.iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"not one image could be taken \(17 zero_byte\); first: entries\.csv:2"):
        run(_config(files))


def test_a_missing_column_is_named(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES, header="Image Index,Labels,Follow-up #,Patient ID")
    with pytest.raises(DataError, match="expected a column 'Finding Labels', got Image Index, Labels, Follow-up #"):
        run(_config(files))
    files = make_nih(tmp_path / "b", ENTRIES, BOXES, box_header="Image Index,Finding Label,left,,,")
    with pytest.raises(DataError, match=r"expected a column 'Bbox \[x,y,w,h\]', got Image Index, Finding Label, left"):
        run(_config(files))


def test_running_again_over_a_killed_run_gives_the_same_bytes(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    config = _config(files)
    out = run(config).out
    before = _hashes(out)
    (out / "dataset.json").unlink()
    (out / "labels.parquet").write_bytes(b"half")
    run(_config(files, workers=4))
    assert _hashes(out) == before
    shuffled = files.tables["labels"].read_text(encoding="utf-8").splitlines()
    files.tables["labels"].write_text("\n".join([shuffled[0], *reversed(shuffled[1:])]), encoding="utf-8")
    run(config)
    after = _hashes(out)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"dataset.json"}  # it holds the table's hash; nothing else depends on the order of rows
    assert json.loads((out / "dataset.json").read_text(encoding="utf-8"))["settings"]["box_frame_px"] == 512
