"""Listing an images folder, and reading tables."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ingest.listing import list_folder, printable
from ingest.persons import age_in_years, patients_of, sex_of
from ingest.tables import ITEM, LINE, RAGGED, label_values, read_frame, read_header, read_names, read_table
from weakray.errors import DataError


def test_files_below_links_are_listed_once_and_circles_end(tmp_path: Path) -> None:
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    for path in (images / "b" / "2.png", images / "1.png", images / "labels.csv", elsewhere / "3.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (images / "a").symlink_to(elsewhere)
    (images / "z").symlink_to(elsewhere)
    (images / "b" / "up").symlink_to(images)
    folder = list_folder(images, besides=[tmp_path / "images" / "labels.csv"])
    assert folder.paths == ["1.png", "a/3.png", "b/2.png"]
    assert (folder.at("3.png"), folder.at("b/2.png")) == (None, "b/2.png")
    assert (folder.named("3.png"), folder.named("2.jpg"), folder.named("4.png")) == ("a/3.png", "b/2.png", None)


def test_a_name_that_is_not_utf8_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"film\xff.png")).write_bytes(b"x")
    folder = list_folder(tmp_path)
    assert (folder.paths, folder.undecodable) == ([], ["film\\udcff.png"])
    assert printable("röntgen") == "röntgen"


def test_the_exact_name_goes_before_the_stem(tmp_path: Path) -> None:
    for name in ("1.jpg", "1.png"):
        (tmp_path / name).write_bytes(b"x")
    folder = list_folder(tmp_path)
    assert (folder.named("1.png"), folder.named("1.tif")) == ("1.png", "1.jpg")


def test_tables_of_any_shape(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffName , Value\r\n\r\n a,"b,\nc"\r\nd\r\n'.encode())
    table = read_table(path)
    assert table.header == ["Name", "Value"]
    assert [cells for _, cells in table.rows] == [["a", "b,\nc"], ["d"]]
    assert table.column("value") == 1
    assert table.item(4, "") == "t.csv:4"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.csv: expected a header and rows, got an empty file"),
        (b"a,b\n\xff\xfe,1\n", "t.csv: expected CSV in UTF-8, got something else .* save it again"),
        (b'a,b\n"' + b"x" * 200_000 + b'",1\n', "t.csv: expected CSV in UTF-8, got something else .field larger"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / "t.csv")


def test_lists_of_names(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes("\ufeff1.png\r\n\r\n 2.png".encode())
    assert read_names(tmp_path / "l.txt") == ["1.png", "2.png"]
    with pytest.raises(DataError, match="none.txt: expected a list of file names, got No such file"):
        read_names(tmp_path / "none.txt")
    (tmp_path / "l.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"l\.txt: expected a list of file names in UTF-8"):
        read_names(tmp_path / "l.txt")


def test_a_path_is_found_from_any_folder_along_it_whatever_its_extension(tmp_path: Path) -> None:
    for path in ("train/p1/a.jpg", "train/p2/a.jpg", "b.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    folder = list_folder(tmp_path)
    assert folder.ending("Small/train/p2/a.jpg") == "train/p2/a.jpg"
    assert folder.ending("Small/train/p1/a.png") == "train/p1/a.jpg"
    assert folder.ending("p3/a.jpg") is None
    assert folder.ending("x/y/b.png") == "b.png"
    assert folder.find("b.png", "path") == "b.png"


def test_frames_hold_the_columns_that_are_wanted(tmp_path: Path) -> None:
    text = '\ufeffName,x,Value\n a ,1,"b,c"\n\nd,2\ne,3,f,g\nh,4,i,\n'
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode()))
    frame = read_frame(tmp_path / "t.csv.gz", ["name"], ["VALUE", "none"])
    assert frame["name"].tolist() == ["a", "d", "e", "h"]
    assert frame["VALUE"].tolist() == ["b,c", "", "f", "i"]
    assert frame[RAGGED].tolist() == [False, False, True, False]  # an empty cell too many is no cell
    assert frame[LINE].tolist() == [2, 4, 5, 6]
    assert frame[ITEM].tolist()[0] == "t.csv.gz:2"
    assert list(frame) == ["name", "VALUE", LINE, ITEM, RAGGED]
    assert read_header(tmp_path / "t.csv.gz") == ["Name", "x", "Value"]
    with pytest.raises(DataError, match=r"t.csv.gz: expected the columns 'age', got Name, x, Value"):
        read_frame(tmp_path / "t.csv.gz", ["age", "x"])
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(text.encode() * 50)[:-9])
    with pytest.raises(DataError, match=r"cut.csv.gz: expected CSV in UTF-8, got something else \(Compressed file"):
        read_frame(tmp_path / "cut.csv.gz", ["name"])


def test_cells_of_labels() -> None:
    values, odd = label_values(pd.Series(["1.0", "", "-1", "0", "2", "x", "nan", "1e400"]))
    assert [None if np.isnan(v) else v for v in values.tolist()] == [1, None, -1, 0, None, None, None, None]
    assert odd.tolist() == [False, False, False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("cell", "years"),
    [("58", 58), ("058Y", 58), ("006M", 0.5), ("010D", 0.03), ("61.0", 61), ("414", None), ("", None), ("old", None)],
)
def test_ages(cell: str, years: float | None) -> None:
    assert age_in_years(cell) == years


def test_people() -> None:
    assert [sex_of(cell) for cell in ("Female", " m", "Homme", "O", "Unknown", "")] == ["F", "M", "M", "O", "", ""]
    assert patients_of(["a/p1_0.png", "b.png"], ["i", "j"], r"(p\d+)_") == ["p1", "j"]
    assert patients_of(["a", "b"], ["i", "j"], None) == ["i", "j"]
