"""`weakray ingest reports`: the labels of many radiology reports, and a page that shows where they come from."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field
from tqdm import tqdm

from ingest.reports.columns import Columns, labels_csv
from ingest.reports.findings import COLUMNS
from ingest.reports.labeller import ReadReport, read_report
from ingest.reports.lexicon import LANGUAGES, Language
from ingest.reports.page import ShownReport, write_page
from ingest.reports.scores import agreement
from ingest.reports.sources import Report, ReportSet, read_reports
from ingest.settings import TAXONOMY
from ingest.tables import read_table
from ingest.taxonomies import load_taxonomy
from weakray.config import StrictModel
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import read_json, sha256_file, sha256_json, write_json, write_text
from weakray.runs import RunFolder, open_run

_PART = 500  # reports done between two writes: what a kill can cost
_VALUES = {1: "present", 0: "absent", -1: "uncertain"}


class ReportsConfig(StrictModel):
    """Reports in, labels out."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"out", "reports", "taxonomy", "truth", "workers"})

    reports: Path = Field(description="CSV, JSONL, or folder of .txt files")
    out: Path = Field(description="run folder: labels.csv, evidence.jsonl, reports.html, counts.json, rejected.csv")
    language: Literal["fr", "en", "auto"] = Field("auto", description="of the reports; auto tells it for each report")
    id_column: str | None = Field(
        None, description="column of the ids; null: the first of image_id, file_name, study_id, report_id, id"
    )
    text_column: str | None = Field(
        None, description="column of the texts; null: the first of report, text, report_text, findings"
    )
    taxonomy: str | None = Field(None, description=f"whose findings are the columns: {TAXONOMY}; null: the reports'")
    truth: Path | None = Field(None, description="CSV of labels given by hand to some of the reports, to score against")
    shown: int = Field(300, ge=0, description="reports on the page, the first of each kind of label among them")
    workers: int = Field(1, ge=1, description="processes; any number gives the same bytes")


class ReportsResult(StrictModel):
    """What was read."""

    reports: int = Field(description="reports read")
    rejected: int = Field(description="inputs not taken; rejected.csv says which and why")
    nothing_said: int = Field(description="reports that name no finding")
    languages: dict[str, int] = Field(description="reports read in each language")
    mended: int = Field(description="misspelt words that were mended")
    repaired: int = Field(description="texts that were no UTF-8 and were read as Windows-1252")
    positives: dict[str, int] = Field(description="reports in which each column is present")
    without_column: dict[str, int] = Field(description="labels whose finding the taxonomy does not know")
    macro_f1: float | None = Field(None, description="against `truth`, over its findings")
    labels: Path = Field(description="the table of labels")
    page: Path = Field(description="the page that shows which words gave which label")


def run(config: ReportsConfig) -> ReportsResult:
    """Reads the reports; killed and run again it goes on where it stopped.

    Raises:
        DataError: if the reports, the taxonomy or the truth cannot be read.
    """
    source = read_reports(config.reports, config.id_column, config.text_column)
    taxonomy = None if config.taxonomy is None else load_taxonomy(config.taxonomy)
    columns = Columns.for_taxonomy(taxonomy)
    inputs = {
        "reports": sha256_json([[report.report_id, report.text] for report in source.reports]),
        "key": source.key,
        "rejected": sha256_json([[r.item, r.reason] for r in source.rejected]),
        "rules": sha256_json([sha256_file(Path(__file__).with_name(f"{name}.yaml")) for name in LANGUAGES]),
        "taxonomy": "" if taxonomy is None else sha256_json(taxonomy.to_dict()),
        "truth": "" if config.truth is None else sha256_file(config.truth),
    }
    folder = open_run(config.out, config, inputs)
    done = folder.finished()
    if done is not None:
        return _result(folder, done)
    language = None if config.language == "auto" else config.language
    read = list(_all_read(folder, source.reports, language, config.workers))
    rows = [(entry["id"], columns.row(entry["labels"])) for entry in read]
    counts = _counts(source, read, rows, columns)
    if config.truth is not None:
        counts["agreement"] = _agreement(config.truth, source.key, dict(rows))
    write_text(folder.root / "labels.csv", labels_csv(source.key, columns.names, rows))
    write_text(folder.root / "evidence.jsonl", "".join(json.dumps(e, ensure_ascii=False) + "\n" for e in read))
    write_text(folder.root / "rejected.csv", _rejected_csv(source.rejected))
    write_json(folder.root / "counts.json", counts)
    texts = {report.report_id: report.text for report in source.reports}
    chosen = _chosen(rows, config.shown)
    shown = [ShownReport.of(texts[read[i]["id"]], read[i], rows[i][1]) for i in chosen]
    write_page(folder.root / "reports.html", shown, counts, source.key)
    folder.finish(counts)
    return _result(folder, counts)


def _result(folder: RunFolder, counts: dict[str, Any]) -> ReportsResult:
    return ReportsResult(
        reports=counts["reports"],
        rejected=counts["rejected"],
        nothing_said=counts["nothing_said"],
        languages=counts["languages"],
        mended=counts["mended"],
        repaired=counts["repaired"],
        positives={name: values["present"] for name, values in counts["labels"].items()},
        without_column=counts["without_column"],
        macro_f1=counts.get("agreement", {}).get("macro_f1"),
        labels=folder.root / "labels.csv",
        page=folder.root / "reports.html",
    )


def _all_read(
    folder: RunFolder, reports: Sequence[Report], language: Language | None, workers: int
) -> Iterator[dict[str, Any]]:
    """What was read of every report, in order; parts that an earlier attempt wrote are taken as they are."""
    parts = [
        (folder.checkpoints / f"{start:08d}.json", [(r.report_id, r.text) for r in reports[start : start + _PART]])
        for start in range(0, len(reports), _PART)
    ]
    missing = [(path, part, language) for path, part in parts if not path.is_file()]
    if workers == 1 or len(missing) < 2:
        for job in tqdm(missing, "reports", unit_scale=_PART, disable=None):
            _read_part(job)
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            list(tqdm(pool.map(_read_part, missing), "reports", len(missing), unit_scale=_PART, disable=None))
    for path, _ in parts:
        yield from read_json(path)


def _read_part(job: tuple[Path, list[tuple[str, str]], Language | None]) -> None:
    path, part, language = job
    write_json(path, [entry(report_id, read_report(text, language)) for report_id, text in part], indent=None)


def entry(report_id: str, read: ReadReport) -> dict[str, Any]:
    """A line of `evidence.jsonl`."""
    return {
        "id": report_id,
        "language": read.language,
        "labels": read.labels,
        "evidence": [
            {
                "finding": e.finding,
                "value": e.value,
                "span": list(e.span),
                "cues": [list(cue) for cue in e.cues],
                "section": e.section,
                "why": e.why,
            }
            for e in read.evidence
        ],
        "mended": [[*span, word] for span, word in read.mended.items()],
    }


def _counts(
    source: ReportSet, read: list[dict[str, Any]], rows: list[tuple[str, dict[str, int]]], columns: Columns
) -> dict[str, Any]:
    said = {name: Counter(row.get(name) for _, row in rows) for name in columns.names}
    given_up = Counter(name for e in read for name in e["labels"] if name in columns.without)
    return {
        "reports": len(read),
        "rejected": len(source.rejected),
        "rejected_by_reason": dict(sorted(Counter(r.reason for r in source.rejected).items())),
        "nothing_said": sum(not e["labels"] for e in read),
        "languages": dict(sorted(Counter(e["language"] for e in read).items())),
        "mended": sum(len(e["mended"]) for e in read),
        "repaired": source.repaired,
        "labels": {
            name: {word: values[value] for value, word in _VALUES.items()} | {"blank": values[None]}
            for name, values in said.items()
        },
        "without_column": {name: given_up[name] for name in COLUMNS if given_up[name]},
    }


def _agreement(path: Path, key: str, rows: dict[str, dict[str, int]]) -> dict[str, Any]:
    """Scores against labels by hand, for the reports and the columns that the table has."""
    table = read_table(path)
    at, given, read = table.column(key), [], []
    places = {i: name for i, name in enumerate(table.header) if i != at and name}
    for line, cells in table.rows:
        row = rows.get(cells[at] if at < len(cells) else "")
        if row is None:
            continue
        wanted: dict[str, int] = {}
        for i, name in places.items():
            cell = cells[i] if i < len(cells) else ""
            if cell not in ("", "1", "0", "-1", "1.0", "0.0", "-1.0"):
                raise DataError(f"{table.item(line)}: expected 1, 0, -1 or nothing for {name}, got {cell!r}")
            if cell:
                wanted[name] = int(float(cell))
        given.append(wanted)
        read.append({name: value for name, value in row.items() if name in places.values()})
    if not given:
        raise DataError(f"{path}: expected labels of the reports by {key}, and no id there is a report's")
    score = agreement(given, read)
    return {
        "reports": score.texts,
        "macro_f1": round(score.macro_f1, 4),
        "micro_f1": round(score.micro_f1, 4),
        "exact": round(score.exact, 4),
        "f1": {name: round(value, 4) for name, value in score.f1.items()},
    }


def _chosen(rows: list[tuple[str, dict[str, int]]], most: int) -> list[int]:
    """Which reports the page shows: the first that has each label of each column, then the first of all; in order."""
    firsts: dict[tuple[str, int], int] = {}
    for i, (_, row) in enumerate(rows):
        for label in row.items():
            firsts.setdefault(label, i)
    wanted = dict.fromkeys([*firsts.values(), *range(min(len(rows), most))])
    return sorted(list(wanted)[:most])


def _rejected_csv(rejected: Sequence[Rejection]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["item", "reason", "detail"])
    writer.writerows((r.item, r.reason, r.detail) for r in rejected)
    return table.getvalue()
