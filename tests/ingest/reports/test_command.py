from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.label_csv import read_labels
from ingest.plain_csv import PlainCsvConfig, read_source
from ingest.reports import command
from ingest.reports.command import ReportsConfig, run
from ingest.reports.labeller import ReadReport, read_report
from ingest.reports.lexicon import Language
from ingest.taxonomies import SHIPPED, load_taxonomy
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy

TEXTS = {
    "i1": "Petit épanchement pleural gauche. <script>alert('x')</script>",
    "i2": "No pneumothorax. Possible pneumonia & edema.",
    "i3": "Cliché de face.",
    "i4": "Pas d'epanchment ; hernie hiatale.",
    "i5": "Unremarkable chest.",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "reports.jsonl"
    lines = [json.dumps({"image_id": name, "report": text}) for name, text in TEXTS.items()]
    path.write_text("\n".join([*lines, "{"]), encoding="utf-8")
    return path


def test_labels_evidence_page_and_counts(source: Path, tmp_path: Path) -> None:
    result = run(ReportsConfig(reports=source, out=tmp_path / "out"))
    assert (result.reports, result.rejected, result.nothing_said, result.mended) == (5, 1, 1, 1)
    assert result.languages == {"en": 2, "fr": 3}
    table = read_labels(result.labels)
    assert (table.key, table.rejected) == ("image_id", [])
    assert table.rows["i1"].values == {"Pleural Effusion": 1}
    assert table.rows["i2"].values == {
        "Pneumothorax": 0,
        "Pneumonia": -1,
        "Consolidation": -1,
        "Edema": -1,
        "Lung Opacity": -1,
    }
    assert table.rows["i5"].values == {"No Finding": 1}
    evidence = [json.loads(line) for line in (tmp_path / "out/evidence.jsonl").read_text("utf-8").splitlines()]
    start, end = evidence[0]["evidence"][0]["span"]
    assert TEXTS["i1"][start:end] == "épanchement pleural"
    assert "bad_row" in (tmp_path / "out/rejected.csv").read_text("utf-8")


def test_the_page_is_escaped_and_needs_nothing_else(source: Path, tmp_path: Path) -> None:
    page = run(ReportsConfig(reports=source, out=tmp_path / "out")).page.read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert "prefers-color-scheme: dark" in page
    assert '<span class="w present" title="Pleural Effusion: present (stated)">épanchement pleural</span>' in page
    assert "read as &#39;epanchement&#39;" in page
    few = run(ReportsConfig(reports=source, out=tmp_path / "few", shown=2)).page.read_text("utf-8")
    assert few.count("<article") == 2
    assert "2 of 5 reports" in few


def test_killed_between_parts_it_goes_on_and_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_PART", 2)
    whole = ReportsConfig(reports=source, out=tmp_path / "whole")
    run(whole)
    read = list[str]()

    def counted(text: str, language: Language | None) -> ReadReport:
        if len(read) == stop_at:
            raise KeyboardInterrupt
        read.append(text)
        return read_report(text, language)

    stop_at = 3
    monkeypatch.setattr(command, "read_report", counted)
    cut = ReportsConfig(reports=source, out=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        run(cut)
    assert not (tmp_path / "cut/labels.csv").exists()
    stop_at = -1
    run(cut)
    assert len(read) == 3 + 3  # the whole part of the first attempt was not read again
    for name in ("labels.csv", "evidence.jsonl", "reports.html", "rejected.csv", "counts.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert run(cut).reports == 5
    assert len(read) == 6  # a finished run is returned as it is


def test_a_taxonomy_gives_the_columns_and_what_it_lacks_is_counted(source: Path, tmp_path: Path) -> None:
    Taxonomy.flat(["Effusion", "Pneumonia"]).save(tmp_path / "taxonomy.yaml")
    result = run(ReportsConfig(reports=source, out=tmp_path / "out", taxonomy=str(tmp_path / "taxonomy.yaml")))
    assert result.labels.read_text("utf-8").splitlines()[:3] == ["image_id,Effusion,Pneumonia", "i1,1,", "i2,,-1"]
    assert result.without_column["Hernia"] == 1
    assert result.without_column["Edema"] == 1
    assert "Effusion" not in result.without_column


@pytest.mark.parametrize("taxonomy", SHIPPED)
def test_ingest_csv_reads_the_table(source: Path, tmp_path: Path, taxonomy: str) -> None:
    result = run(ReportsConfig(reports=source, out=tmp_path / "out", taxonomy=taxonomy))
    read = read_source(PlainCsvConfig(table=result.labels, images=tmp_path, out=tmp_path / "d", taxonomy=taxonomy))
    names = load_taxonomy(taxonomy).names
    assert result.labels.read_text("utf-8").splitlines()[0].split(",") == ["image_id", *names]
    assert read.taxonomy.names == names
    assert sum(result.positives.values()) > 0


def test_labels_by_hand_give_a_score(source: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("image_id,Pleural Effusion,Hernia\ni1,1,\ni4,0,0\nother,1,1\n", encoding="utf-8")
    result = run(ReportsConfig(reports=source, out=tmp_path / "out", truth=truth))
    assert result.macro_f1 == 0.5  # the effusions are right, the hernia is not
    assert "macro F1 0.500 against 2 labelled by hand" in result.page.read_text("utf-8")
    truth.write_text("image_id,Hernia\nother,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected labels of the reports by image_id, and no id there is a report's"):
        run(ReportsConfig(reports=source, out=tmp_path / "none", truth=truth))


@pytest.mark.soak
def test_any_number_of_workers_gives_the_same_bytes(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_PART", 2)
    for workers in (1, 3):
        run(ReportsConfig(reports=source, out=tmp_path / str(workers), workers=workers))
    assert (tmp_path / "1/labels.csv").read_bytes() == (tmp_path / "3/labels.csv").read_bytes()
    assert (tmp_path / "1/reports.html").read_bytes() == (tmp_path / "3/reports.html").read_bytes()
