"""`weakray ingest csv`: a table of one's own, declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.plain_csv import PlainCsvConfig, run
from tests.ingest.layouts import film, table
from tests.ingest.readers.reading import about, rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError

HEADER = ["path", "subject", "exam", "projection", "gender", "age", "date", "Épanchement", "masse", "comment"]


def _rows() -> list[list[Any]]:
    return [
        [
            f"a/{at:02d}.png",
            f"s{at // 2}",
            f"e{at}",
            "PA",
            "femme",
            f"0{40 + at}Y",
            "2024-03-01",
            word,
            ["", "0"][at % 2],
            "-",
        ]
        for at, word in enumerate(["oui", "NON", "incertain", "1", "0.0", "", "yes", "no", "1", "0", "++", "?"])
    ]


COLUMNS = {
    "file_name": "path",
    "patient_id": "subject",
    "study_id": "exam",
    "view": "projection",
    "sex": "gender",
    "age_years": "age",
    "acquired": "date",
}


def _files(root: Path, rows: list[list[Any]] | None = None, header: list[str] = HEADER) -> dict[str, Path]:
    for at in range(12):
        film(root / "films" / "a" / f"{at:02d}.png", at)
    return {"images": root / "films", "table": table(root / "mine.csv", header, _rows() if rows is None else rows)}


def _config(files: dict[str, Path], root: Path, **changes: Any) -> PlainCsvConfig:
    plain = {**files, "out": root / "out", "columns": COLUMNS, "labels": ["Épanchement", "masse"]}
    return validate(PlainCsvConfig, {**plain, "values": {"++": 1, "?": -1}, "val_fraction": 0.2, **changes})


def test_a_declared_table_in_french_words(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(_files(tmp_path), tmp_path, taxonomy="hospital", test_fraction=0.2)).out)
    assert about(data, "a__00", "patient_id", "study_id", "view", "sex", "age_years", "acquired", "path") == (
        *("s0", "e0", "PA", "F", 40.0, "2024-03-01", "a/00.png"),
    )
    effusion = [said(data, f"a__{at:02d}").get("Pleural Effusion") for at in range(12)]
    assert effusion == [1, 0, -1, 1, 0, None, 1, 0, 1, 0, 1, -1]
    assert said(data, "a__01") == {"Pleural Effusion": 0, "Mass": 0}
    counts = data.info["counts"]["splits"]
    assert counts["tune"] == 0
    assert min(counts["train"], counts["val"], counts["test"]) > 0
    assert data.info["coverage"]["taken"][0] == {
        "label": "Épanchement",
        "finding": "Pleural Effusion",
        "positive": 5,
        "negative": 4,
        "uncertain": 2,
        "boxes": 0,
    }


def test_a_few_boxes_make_tune_and_test_and_a_view_of_the_rest(tmp_path: Path) -> None:
    files = _files(tmp_path)
    rows = [[f"{at:02d}.png", "épanchement", 2, 3, 12, 13] for at in (0, 2, 4, 6)]
    own = table(tmp_path / "boxes.csv", ["file_name", "finding", "x_min", "y_min", "x_max", "y_max"], rows)
    data = Dataset.load(run(_config(files, tmp_path, boxes=own, tune_images=2)).out)
    assert data.taxonomy.names == ["Épanchement", "masse"]
    # patients s0…s3 have two films each; the second of each is no annotated image and follows
    assert data.info["counts"]["splits"]["tune"] + data.info["counts"]["splits"]["test"] == 8
    assert set(data.truth.boxes) == {"a__00", "a__02", "a__04", "a__06"}
    assert data.truth.boxes["a__02"].boxes_xyxy_px.tolist() == [[2, 3, 12, 13]]


def test_names_in_one_column(tmp_path: Path) -> None:
    rows = [[f"a/{at:02d}.png", ["Mass; Edema", "Edema", "", "Normal"][at % 4]] for at in range(12)]
    files = _files(tmp_path, rows, ["image", "said"])
    changes = {
        "columns": {"file_name": "image"},
        "labels": None,
        "label_list": "said",
        "separator": ";",
        "taxonomy": "nih",
    }
    data = Dataset.load(run(_config(files, tmp_path, **changes)).out)
    assert said(data, "a__00") == {"Mass": 1, "Edema": 1}
    assert said(data, "a__01") == {"Mass": 0, "Edema": 1}
    assert said(data, "a__02") == {}
    assert said(data, "a__03") == {"Mass": 0, "Edema": 0}
    assert any("each image counts as one, so a patient may stand in two splits" in w for w in data.info["warnings"])


def test_a_split_column_decides(tmp_path: Path) -> None:
    parts = ["train"] * 6 + ["valid"] * 2 + ["TEST"] * 3 + ["later"]
    rows = [[f"{at:02d}", f"p{at}", part, at % 2] for at, part in enumerate(parts)]
    files = _files(tmp_path, rows, ["image_id", "patient_id", "split", "masse"])
    data = Dataset.load(
        run(_config({**files, "images": tmp_path / "films" / "a"}, tmp_path, columns={}, labels=None)).out
    )
    assert list(sides(data).values()) == ["train"] * 6 + ["val"] * 2 + ["test"] * 3
    assert [reason for _, reason in rejected(data.root)] == ["not_in_lists"]


def test_rows_and_cells_that_mean_nothing_are_named(tmp_path: Path) -> None:
    rows = _rows()
    rows[1][7], rows[2][0] = "perhaps", ""
    rows.append([*rows[3], "more"])
    data = Dataset.load(run(_config(_files(tmp_path, rows), tmp_path)).out)
    assert sorted((item.split(" ")[0], reason) for item, reason in rejected(data.root)) == [
        ("a/02.png", "no_row"),
        ("mine.csv:14", "bad_row"),
        ("mine.csv:3", "bad_row"),
        ("mine.csv:4", "bad_row"),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"taxonomy": "chexpert"}, r"unknown findings 'masse', 'Épanchement'; known are Enlarged"),
        ({"columns": {"view": "projection"}}, "expected a column file_name or image_id, got path, subject"),
        ({"labels": ["nodule"]}, r"mine.csv: expected the columns 'nodule', got path"),
        ({"columns": {**COLUMNS, "sex": "sexe"}}, "expected the columns 'sexe', got path"),
    ],
)
def test_what_does_not_fit_the_table_says_so(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(_config(_files(tmp_path), tmp_path, **changes))


def test_what_no_column_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="columns.colour"):
        _config({}, tmp_path, columns={"colour": "a"})
