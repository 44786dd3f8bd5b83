from __future__ import annotations

from pathlib import Path

import pytest

from ingest.reports.columns import Columns, labels_csv
from ingest.reports.sources import Report, read_reports
from weakray.errors import DataError
from weakray.taxonomy import Finding, Taxonomy


def test_csv_with_texts_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('study_id,report\ns1,"No effusion.\nNormal heart."\ns2,\n,x\ns1,again\n', encoding="utf-8")
    found = read_reports(path, None, None)
    assert found.key == "study_id"
    assert found.reports == [Report("s1", "No effusion.\nNormal heart.")]
    assert [(r.item, r.reason) for r in found.rejected] == [
        ("r.csv:4", "no_text"),
        ("r.csv:5", "bad_row"),
        ("r.csv:6", "duplicated"),
    ]


def test_jsonl_with_broken_lines(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"id": 7, "text": "ok"}\n{broken\n[1]\n\xff\n{"id": 8, "text": 3}\n\n')
    found = read_reports(path, None, None)
    assert found.reports == [Report("7", "ok")]
    assert [r.reason for r in found.rejected] == ["bad_row", "bad_row", "bad_row", "no_text"]


def test_a_folder_of_texts_of_two_encodings(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.txt").write_text("Épanchement", encoding="utf-8")
    (tmp_path / "two.TXT").write_bytes("Épanchement".encode("cp1252"))
    (tmp_path / "empty.txt").write_text(" ", encoding="utf-8")
    (tmp_path / "notes.pdf").write_bytes(b"%PDF")
    found = read_reports(tmp_path, None, None)
    assert found.reports == [Report("a/one", "Épanchement"), Report("two", "Épanchement")]
    assert (found.key, found.repaired) == ("image_id", 1)
    assert [(r.item, r.reason) for r in found.rejected] == [("empty.txt", "no_text"), ("notes.pdf", "not_text")]


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("id,words\n1,x\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected a column report or text or .*got id, words; name it by text_column"):
        read_reports(path, None, None)
    assert read_reports(path, None, "words").reports == [Report("1", "x")]
    with pytest.raises(DataError, match="expected a column nr, got id, words; name it by id_column"):
        read_reports(path, "nr", "words")


def test_columns_of_a_dataset_are_met_by_name_and_synonym() -> None:
    taxonomy = Taxonomy(
        (Finding("Opacity of lung", synonyms=("Lung Opacity",)), Finding("Effusion"), Finding("Nodule/Mass")),
        ("No Finding",),
    )
    columns = Columns.for_taxonomy(taxonomy)
    assert columns.names == ("Opacity of lung", "Effusion", "Nodule/Mass")
    assert columns.of == {
        "Lung Opacity": "Opacity of lung",
        "Lung Lesion": "Nodule/Mass",
        "Pleural Effusion": "Effusion",
    }
    assert "No Finding" in columns.without
    assert "Nodule" in columns.without
    assert columns.row({"Pleural Effusion": -1, "Lung Opacity": 0, "Hernia": 1}) == {
        "Opacity of lung": 0,
        "Effusion": -1,
    }


def test_two_findings_in_one_column_and_ancestors() -> None:
    lesion = Finding("Lesion", "Anything", ("Nodule", "Mass"))
    columns = Columns.for_taxonomy(Taxonomy((Finding("Anything"), lesion)))
    assert columns.row({"Nodule": 0, "Mass": -1}) == {"Anything": -1, "Lesion": -1}


def test_the_table() -> None:
    rows = [("a,b", {"Nodule": 1}), ("c", {"Mass": -1, "Nodule": 0})]
    assert labels_csv("image_id", ["Nodule", "Mass"], rows) == 'image_id,Nodule,Mass\n"a,b",1,\nc,0,-1\n'
