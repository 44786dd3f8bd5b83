"""The rows of the report's tables: figures placed, formatted and put in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.charts import IntervalBar, figure_axis, interval_bar
from eval.report.sources import Source, scored_sources
from eval.report.wording import Estimate, duration, figure
from weakray.dataset import SPLITS
from weakray.errors import DataError
from weakray.pages.axes import Axis, Tick

BAR_PX, WIDE_BAR_PX = 200.0, 320.0  # widths of an interval bar's drawing: scores, classifiers
PAD_PX = 5.0  # free at both ends of a bar
METRICS = (("ap30", "AP30"), ("ap50", "AP50"), ("map", "mAP"))


@dataclass(frozen=True)
class Cell:
    """A figure with its interval, in words and as a bar."""

    text: str
    interval: str
    bar: IntervalBar


@dataclass(frozen=True)
class ScoreTable:
    """Sources × AP30, AP50, mAP on one common axis."""

    sources: list[Source]
    cells: list[list[Cell]]
    ticks: list[Tick]


def score_table(summary: Mapping[str, Any]) -> ScoreTable | None:
    """The table of macro scores; None where nothing was scored."""
    sources = scored_sources(summary)
    if not sources:
        return None
    read = [[Estimate.read(summary["scores"][source.key][key]) for key, _ in METRICS] for source in sources]
    axis, ticks = figure_axis(max(e.high for row in read for e in row), PAD_PX, BAR_PX - PAD_PX)
    return ScoreTable(sources, [[figure_cell(estimate, axis) for estimate in row] for row in read], ticks)


def figure_cell(estimate: Estimate, axis: Axis) -> Cell:
    """A figure in words and as a bar on its column's axis."""
    interval = f"[{figure(estimate.low, 3)}, {figure(estimate.high, 3)}]"
    return Cell(figure(estimate.value, 3), interval, interval_bar(estimate, axis))


@dataclass(frozen=True)
class Shade:
    """A cell of the per-finding table: AP50, and how deep its background is (0…1); `text` is "–" where not scored."""

    text: str
    depth: float


@dataclass(frozen=True)
class FindingRow:
    """A finding's AP50 from every source."""

    name: str
    positives: str
    shades: list[Shade]


@dataclass(frozen=True)
class FindingTable:
    """Findings × sources, AP50; the last row is the macro mean."""

    sources: list[Source]
    rows: list[FindingRow]
    macro: FindingRow


def finding_table(summary: Mapping[str, Any]) -> FindingTable | None:
    """AP50 per finding and source; None where nothing was scored."""
    sources = scored_sources(summary)
    if not sources:
        return None
    scores: Mapping[str, Any] = summary["scores"]
    tables = [scores[source.key].get("per_finding", {}) for source in sources]
    listed = [*summary.get("findings", ()), *(name for table in tables for name in table)]
    rows = []
    for name in dict.fromkeys(listed):
        entries = [table.get(name, {}) for table in tables]
        positives = next((entry["positives"] for entry in entries if entry.get("positives") is not None), None)
        shown = "–" if positives is None else f"{positives:,}"
        rows.append(FindingRow(name, shown, [shade(entry.get("ap50")) for entry in entries]))
    macro = [shade(Estimate.read(scores[source.key]["ap50"]).value) for source in sources]
    return FindingTable(sources, rows, FindingRow("Macro mean", "", macro))


def shade(value: float | None) -> Shade:
    """A figure of [0, 1] and how deep its background is."""
    return Shade("–", 0.0) if value is None else Shade(figure(value, 3), round(min(max(value, 0.0), 1.0), 3))


@dataclass(frozen=True)
class ClassifyRow:
    """A finding's AUROC with interval and bar, AUPRC, and positives; no AUROC without both kinds of labels."""

    name: str
    positives: str
    auroc: Cell | None
    auprc: str


@dataclass(frozen=True)
class ClassifyTable:
    """Findings × AUROC, AUPRC; `chance` is where an AUROC of .5 stands on the bars."""

    rows: list[ClassifyRow]
    macro: ClassifyRow | None
    ticks: list[Tick]
    chance: float


def classify_table(summary: Mapping[str, Any], per_finding: Mapping[str, Mapping[str, Any]]) -> ClassifyTable | None:
    """AUROC and AUPRC per finding; None where no classifier was scored."""
    classify: Mapping[str, Any] = summary.get("classify", {})
    read = {name: _estimate(entry.get("auroc")) for name, entry in per_finding.items()}
    macro = _estimate(classify.get("macro_auroc"))
    known = [estimate for estimate in (*read.values(), macro) if estimate is not None]
    if not known:
        return None
    lowest = min(0.5, *(estimate.low for estimate in known))
    axis, ticks = figure_axis(1.0, PAD_PX, WIDE_BAR_PX - PAD_PX, lowest)
    rows = [
        _classify_row(name, f"{entry['positives']:,}", read[name], entry.get("auprc"), axis)
        for name, entry in per_finding.items()
    ]
    last = None if macro is None else _classify_row("Macro mean", "", macro, classify.get("macro_auprc"), axis)
    return ClassifyTable(rows, last, ticks, axis.at(0.5))


def _estimate(entry: Mapping[str, Any] | None) -> Estimate | None:
    return None if entry is None else Estimate.read(entry)


def _classify_row(name: str, positives: str, auroc: Estimate | None, auprc: Any, axis: Axis) -> ClassifyRow:
    return ClassifyRow(name, positives, None if auroc is None else figure_cell(auroc, axis), _plain(auprc))


def _plain(entry: Any) -> str:
    """A figure that may come with an interval or without; "–" where there is none."""
    if entry is None:
        return "–"
    if isinstance(entry, Mapping):
        estimate = Estimate.read(entry)
        return f"{figure(estimate.value, 3)} [{figure(estimate.low, 3)}, {figure(estimate.high, 3)}]"
    return figure(float(entry), 3)


@dataclass(frozen=True)
class Grid:
    """A plain table of texts: the first column names the row, `numeric` says which columns are figures."""

    columns: list[str]
    rows: list[list[str]]
    numeric: list[bool]


_RECIPE = (
    ("members", "Members"),
    ("map", "Map"),
    ("prior", "Prior"),
    ("threshold", "Threshold"),
    ("gate", "Gate"),
    ("max_boxes", "At most"),
    ("calibration", "Calibration"),
)
_TUNE = (("boxes", "Tune boxes"), ("ap50", "Tune AP50"), ("ap50_uncalibrated", "as mapped"))


def recipe_table(recipe: Mapping[str, Any]) -> Grid | None:
    """What was fitted for each finding, a column a setting that any of them has; None where there is no recipe.

    Raises:
        DataError: if `findings` is neither a mapping nor a list of settings with `name`.
    """
    found = recipe.get("findings")
    if not found:
        return None
    try:
        entries: dict[str, Mapping[str, Any]] = (
            dict(found) if isinstance(found, Mapping) else {str(entry["name"]): entry for entry in found}
        )
        settings = {
            name: {**entry, **_map(entry), **{f"tune {k}": v for k, v in (entry.get("tune") or {}).items()}}
            for name, entry in entries.items()
        }
    except (KeyError, TypeError, AttributeError):
        raise DataError("recipe: expected `findings`, name → settings or a list of settings with `name`") from None
    columns = [
        (key, title)
        for key, title in (*_RECIPE, *((f"tune {key}", title) for key, title in _TUNE))
        if any(key in entry for entry in settings.values())
    ]
    rows = [[name, *(_setting(key, entry.get(key)) for key, _ in columns)] for name, entry in settings.items()]
    numeric = [key == "max_boxes" or key in ("gate", "threshold") or key.startswith("tune ") for key, _ in columns]
    return Grid(["Finding", *(title for _, title in columns)], rows, [False, *numeric])


def _map(entry: Mapping[str, Any]) -> dict[str, str]:
    """The kind of map in a few words: a method; its layer, target and views where they are not the plain ones."""
    if "method" not in entry:
        return {}
    layer = entry.get("layer", "last")
    target, views = entry.get("target", "logit"), entry.get("views")
    said = entry["method"] if layer == "last" else f"{entry['method']} @ {layer}"
    said += "" if target == "logit" else f" of the {target}"
    return {"map": said if views is None else f"{said}, {views.replace('_', ' and ')}"}


def _setting(key: str, value: Any) -> str:
    """A recipe's setting in words. A calibration is fitted, or the identity; its coefficients stand in the recipe."""
    if key == "calibration":
        return "identity" if value in (None, "identity") else "fitted"
    if key == "prior":
        return "–" if value is None else f"^{value['exponent']:g}"
    if key == "threshold" and isinstance(value, Mapping):
        cut = figure(float(value["value"]), 3)
        return f"{cut} of range" if value.get("kind") == "range" else cut
    if key in ("tune ap50", "tune ap50_uncalibrated") and value is not None:
        return figure(float(value), 3)
    return _text(value)


def _text(value: Any) -> str:
    """A plain value in words; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return figure(value, 3) if 0.001 <= abs(value) < 1 else f"{value:.4g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(inner) for inner in value)
    return str(value)


def split_table(counts: Mapping[str, Any]) -> Grid | None:
    """Images and labels per split: first a row of images, then the positives of each finding."""
    splits: Mapping[str, int] = counts.get("splits", {})
    shown = [split for split in SPLITS if split in splits]
    if not shown:
        return None
    labels: Mapping[str, Mapping[str, Mapping[str, int]]] = counts.get("labels", {})
    rows = [["Images", *(f"{splits[split]:,}" for split in shown)]]
    names = dict.fromkeys(name for split in shown for name in labels.get(split, {}))
    rows += [[name, *(_positives(labels.get(split, {}).get(name)) for split in shown)] for name in names]
    return Grid(["", *shown], rows, [False, *(True for _ in shown)])


def _positives(values: Mapping[str, int] | None) -> str:
    if values is None:
        return "–"
    uncertain = values.get("uncertain", 0)
    return f"{values.get('positive', 0):,}" + (f" (+{uncertain:,})" if uncertain else "")


@dataclass(frozen=True)
class StageTime:
    """A stage's wall time, in words and as its share of the whole, per cent."""

    name: str
    text: str
    percent: float


def stage_times(summary: Mapping[str, Any]) -> list[StageTime]:
    """Wall times of the stages, in the order they ran, and their sum last; empty where none was recorded."""
    seconds: Mapping[str, float] = summary.get("seconds", {})
    total = sum(seconds.values())
    if total <= 0:
        return []
    rows = [StageTime(stage, duration(s), round(100 * s / total, 1)) for stage, s in seconds.items()]
    return [*rows, StageTime("all stages", duration(total), 100.0)]


def facts(value: Mapping[str, Any] | None, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (name, text) lines, names joined by blanks; what is None is left out."""
    lines: list[tuple[str, str]] = []
    for key, inner in (value or {}).items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(inner, Mapping) and set(inner) == {"value", "low", "high"}:
            lines.append((name, _plain(inner)))
        elif isinstance(inner, Mapping):
            lines += facts(inner, f"{prefix}{key} ")
        elif inner is not None:
            lines.append((name, _text(inner)))
    return lines


def export_table(exports: Sequence[Mapping[str, Any]]) -> Grid | None:
    """Size, agreement with torch and speed of each export; None where nothing but the bundle's own graph was made.

    AP50 is told as what the export gains over torch on the same images: a loss is negative.
    """
    if len(exports) < 2:
        return None
    timed = any(row.get("speed") for row in exports)
    columns = ["Export", "Size, MB", "Boxes as in torch", "in place", "Score differs by", "AP50 on tune", "on test"]
    columns += ["p50, ms", "p95, ms", "Images/s", "Peak memory, MiB"] if timed else []
    rows = []
    for row in exports:
        parity: Mapping[str, Any] = row.get("parity") or {}
        compared = parity.get("boxes", 0) > 0
        state = " (refused)" if row.get("refused") else "" if row.get("parity_passed", True) else " (forced)"
        texts = [
            f"{row['format']}{state}",
            f"{row['bytes'] / 1e6:.1f}" if "bytes" in row else "–",
            *(f"{100 * parity[key]:.1f} %" if compared else "–" for key in ("matched_fraction", "placed_fraction")),
            f"{parity['mean_score_difference']:.2g}" if compared else "–",
            *(_gained(parity.get(f"ap50_loss_{split}")) for split in ("tune", "test")),
        ]
        speed: Mapping[str, Any] = row.get("speed") or {}
        if timed:
            keys = (("p50_ms", ".1f"), ("p95_ms", ".1f"), ("images_per_s", ".1f"), ("peak_mib", ",.0f"))
            texts += [format(speed[key], form) if speed else "–" for key, form in keys]
        rows.append(texts)
    return Grid(columns, rows, [False, *(True for _ in columns[1:])])


def _gained(loss: float | None) -> str:
    return "–" if loss is None else "0" if abs(loss) < 5e-5 else f"{-loss:+.4f}".replace("0.", ".", 1)
