"""Writes `report.html`: gathers the views of each section and fills the templates."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.report.charts import run_charts
from eval.report.content import KINDS, GalleryCase, ReportContent
from eval.report.errors import ERROR_BAR_PX, errors_by_source
from eval.report.panels import CaseView, case_view
from eval.report.tables import (
    BAR_PX,
    METRICS,
    WIDE_BAR_PX,
    classify_table,
    export_table,
    facts,
    finding_table,
    recipe_table,
    score_table,
    split_table,
    stage_times,
)
from eval.report.wording import headline, standfirst
from weakray.files import write_text
from weakray.pages.rendering import template

__all__ = ["GalleryCase", "ReportContent", "write_report"]


def write_report(path: Path, content: ReportContent) -> None:
    """Writes the report of a pipeline as one HTML file that needs nothing else; same content, same bytes.

    Args:
        path: file to write, atomically.
        content: what to print. What is empty or None gets no section.

    Raises:
        DataError: if the summary names an unknown source, a figure lacks its interval, or a case does not fit.
    """
    write_text(path, template("eval.report", "report.html.j2").render(_view(content)))


def _view(content: ReportContent) -> dict[str, Any]:
    """Everything the templates name."""
    summary = content.summary
    counts: Mapping[str, Any] = content.dataset.get("counts", content.dataset)
    drawn = {name: run_charts(rows, summary["findings"]) for name, rows in content.curves.items()}
    curves = [(name, charts) for name, charts in drawn.items() if charts]
    view: dict[str, Any] = {
        "title": content.title,
        "headline": headline(summary, _test_images(content)),
        "standfirst": standfirst(summary),
        "notes": list(content.notes),
        "scores": score_table(summary),
        "metrics": [name for _, name in METRICS],
        "bar_px": BAR_PX,
        "wide_bar_px": WIDE_BAR_PX,
        "findings": finding_table(summary),
        "errors": errors_by_source(summary),
        "error_bar_px": ERROR_BAR_PX,
        "classify": classify_table(summary, content.per_finding_classify),
        "curves": curves,
        "recipe": recipe_table(content.recipe),
        "kinds": KINDS,
        "gallery": _gallery(content),
        "splits": split_table(counts),
        "counted": facts({key: counts[key] for key in ("images", "patients", "rejected") if key in counts}),
        "rejected": sorted(counts.get("rejected_by_reason", {}).items(), key=lambda item: (-item[1], item[0])),
        "origin": facts({key: content.dataset[key] for key in ("origin", "licence") if key in content.dataset}),
        "times": stage_times(summary),
        "made_by": facts({key: summary[key] for key in ("commit", "config_sha256", "dataset") if key in summary}),
        "environment": facts(content.environment),
        "parity": facts(content.parity),
        "exports": export_table(content.exports),
    }
    view["sections"] = [
        (anchor, name)
        for anchor, name, present in (
            ("scores", "Scores", view["scores"]),
            ("findings", "Findings", view["findings"]),
            ("errors", "Errors", view["errors"]),
            ("gallery", "Gallery", view["gallery"]),
            ("classifiers", "Classifiers", view["classify"]),
            ("recipe", "Recipe", view["recipe"]),
            ("training", "Training", view["curves"]),
            ("data", "Data", view["splits"]),
            ("exports", "Exports", view["exports"]),
            ("run", "Run", view["times"] or view["made_by"]),
            ("limits", "Limits", True),
        )
        if present
    ]
    return view


def _test_images(content: ReportContent) -> int | None:
    """Images that were scored: as the summary says, else all of split test; None where neither is known."""
    dataset = content.summary.get("dataset")
    counts: Mapping[str, Any] = content.dataset.get("counts", content.dataset)
    told: Any = dataset.get("test_images") if isinstance(dataset, Mapping) else None
    images = counts.get("splits", {}).get("test") if told is None else told
    return None if images is None else int(images)


def _gallery(content: ReportContent) -> list[tuple[str, list[CaseView]]]:
    """Cases grouped by finding in class-id order, best first, worst last."""
    names: list[str] = list(content.summary.get("findings", ()))
    place = {name: i for i, name in enumerate(names)}
    ranked = sorted(content.gallery, key=lambda case: (place.get(case.finding, 0), KINDS.index(case.kind)))
    groups: dict[str, list[CaseView]] = {}
    for number, case in enumerate(ranked):
        groups.setdefault(case.finding, []).append(case_view(case, names, number))
    return list(groups.items())
