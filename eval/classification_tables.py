"""Figures of classifiers as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.report.wording import figure

NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "pf1": "pF1",
    "f1_at_half": "F1 at .5",
    "sensitivity_at_half": "sensitivity at .5",
    "specificity_at_half": "specificity at .5",
    "f1_at_fitted": "F1 at fitted",
    "sensitivity_at_fitted": "sensitivity at fitted",
    "specificity_at_fitted": "specificity at fitted",
    "brier": "Brier",
    "calibration_error": "ECE",
    "log_loss": "log loss",
}
_RANKING = ("auroc", "auprc", "pf1")
_CALIBRATION = ("brier", "calibration_error", "log_loss")
_KINDS = ("tp", "fp", "fn", "tn")
NONE = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines) + "\n"


def estimate(entry: Mapping[str, float] | None) -> str:
    """`.871 [.842, .901]`; a dash where there is none."""
    if entry is None:
        return NONE
    low, high = figure(entry["low"], 3), figure(entry["high"], 3)
    return f"{figure(entry['value'], 3)} [{low}, {high}]"


def against(entry: Mapping[str, Any] | None) -> str:
    """` (+.012)`, ` (tie)`, or nothing where there is no difference."""
    if entry is None or "difference" not in entry:
        return ""
    if entry["difference"]["tie"]:
        return " (tie)"
    gap = entry["difference"]["value"]
    sign = "+" if gap > 0 else ""
    return f" ({sign}{figure(gap, 3)})" if abs(gap) >= 0.0005 else f" ({sign}{gap:.0e})"


def side_by_side_markdown(table: Mapping[str, Any]) -> str:
    """The table of `eval.side_by_side.side_by_side`, with `split`, `images`, and `folds` where it was cross-fitted."""
    rows: Mapping[str, Mapping[str, Any]] = table["rows"]
    shown = list(next(iter(rows.values())))
    how = f", cross-fitted over {table['folds']} parts of the patients" if "folds" in table else ""
    members = "".join(f"- member_{i}: {text}\n" for i, text in enumerate(table.get("members", ())))
    cells = [[name, *(estimate(row[key]) + against(row[key]) for key in shown)] for name, row in rows.items()]
    return (
        f"# Members and rules\n\n{table['images']} images of {table['split']}{how}. Macro means over findings with "
        "95 % intervals (bootstrap over patients). In parentheses the difference from "
        f"`{table['reference']}` on the same draws, `tie` where its interval holds 0.\n\n"
        + (f"{members}\n" if members else "")
        + markdown_table(["", *(NAMES[key] for key in shown)], cells)
    )


def evaluation_markdown(content: Mapping[str, Any]) -> str:
    """The tables of `evaluation.json`: ranking, decisions, calibration, confusion, and members beside rules."""
    scores: Mapping[str, Any] = content["ensemble"]
    published: Mapping[str, Any] = content["published"]
    sources = [name for name, figures in published["auroc"].items() if figures]
    out_of = sum(not entry["in_mean"] for entry in scores["per_finding"].values())
    head = (
        f"# Classifiers on {content['split']}\n\n{content['images']} images, {content['patients']} patients of "
        f"{content['dataset']}. Intervals of 95 % by bootstrap over patients. {out_of} of "
        f"{len(scores['per_finding'])} findings, marked *, have too few positives or negatives to enter the means.\n"
    )
    parts = [
        head,
        *(f"- {event}\n" for event in content["events"]),
        "\n## Ranking\n\n",
        _figures_table(scores, _RANKING, {name: published["auroc"][name] for name in sources}),
        _caveat(published, sources),
    ]
    for at, told in (("half", "at .5"), ("fitted", "at the thresholds of highest F1 on val")):
        names = tuple(f"{name}_at_{at}" for name in ("f1", "sensitivity", "specificity"))
        parts += [f"\n## Decisions {told}\n\n", _figures_table(scores, names, {}), "\n", _confusions(scores, at)]
    parts += ["\n## Calibration\n\n", _figures_table(scores, _CALIBRATION, {})]
    table = content["side_by_side"] | {name: content[name] for name in ("split", "images")}
    return "".join(parts) + "\n" + side_by_side_markdown(table).replace("# Members", "## Members", 1)


def _figures_table(
    scores: Mapping[str, Any], names: Sequence[str], landmarks: Mapping[str, Mapping[str, float]]
) -> str:
    per_finding: Mapping[str, Mapping[str, Any]] = scores["per_finding"]
    header = ["finding", "positives", "negatives", *(NAMES[name] for name in names)]
    header += [f"AUROC, {source} †" for source in landmarks]
    rows = [
        [
            finding + ("" if entry["in_mean"] else " *"),
            str(entry["positives"]),
            str(entry["negatives"]),
            *(estimate(entry[name]) for name in names),
            *(figure(theirs[finding], 3) if finding in theirs else NONE for theirs in landmarks.values()),
        ]
        for finding, entry in per_finding.items()
    ]
    for kind, told in (("macro", "macro mean"), ("weighted", "mean weighted by positives")):
        means = [estimate(scores[f"{kind}_{name}"]) for name in names]
        rows.append([told, "", "", *means, *[""] * len(landmarks)])
    return markdown_table(header, rows)


def _caveat(published: Mapping[str, Any], sources: Sequence[str]) -> str:
    if not sources:
        return ""
    means = "; ".join(
        f"{mean['who']}: mean {NAMES[mean['figure']] if mean['figure'] in NAMES else mean['figure'].upper()} "
        f"{figure(mean['value'], 3)} over {mean['over']}"
        for mean in published["means"]
    )
    return f"\n† {published['caveat']}." + (f" Likewise {means}." if means else "") + "\n"


def _confusions(scores: Mapping[str, Any], at: str) -> str:
    key = f"confusion_at_{at}"
    rows = []
    for finding, entry in scores["per_finding"].items():
        threshold = 0.5 if at == "half" else entry.get("threshold")
        cells = [NONE if threshold is None else figure(threshold, 3)]
        rows.append([finding, *cells, *(str(entry[key][kind]) for kind in _KINDS)])
    rows.append(["sum", "", *(str(scores[key][kind]) for kind in _KINDS)])
    return markdown_table(["finding", "threshold", "true +", "false +", "false –", "true –"], rows)


def calibration_markdown(content: Mapping[str, Any]) -> str:
    """The tables of `calibration.json`: means of each row and calibration, then each finding's calibration error."""
    head = (
        f"# Calibration on {content['split']}\n\n{content['images']} images, cross-fitted over {content['folds']} "
        "parts of the patients: nobody is judged by what their own labels fitted. Intervals of 95 % by bootstrap over "
        "patients; in parentheses the difference from no calibration, `tie` where its interval holds 0. "
        "Drawing patients anew adds noise that an ECE counts as error: its interval lies high.\n\n"
    )
    parts = [
        head,
        *(f"- member_{i}: {text}\n" for i, text in enumerate(content["members"])),
        *(f"- {event}\n" for event in content["events"]),
    ]
    for row, methods in content["means"].items():
        cells = [
            [method, *(estimate(e[key]) + against(e[key]) for key in _CALIBRATION)] for method, e in methods.items()
        ]
        parts += [f"\n## {row}\n\n", markdown_table(["", *(f"macro {NAMES[key]}" for key in _CALIBRATION)], cells)]
        scored: Mapping[str, Mapping[str, Any]] = content["rows"][row]
        findings: Mapping[str, Any] = next(iter(scored.values()))["per_finding"]
        lines = [
            [
                name + ("" if entry["in_mean"] else " *"),
                str(entry["positives"]),
                *(estimate(figures["per_finding"][name]["calibration_error"]) for figures in scored.values()),
            ]
            for name, entry in findings.items()
        ]
        parts += ["\n", markdown_table(["finding", "positives", *(f"ECE, {method}" for method in scored)], lines)]
    return "".join(parts)
