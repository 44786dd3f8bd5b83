"""ROC, precision–recall and reliability sheets of classifiers: a chart a finding."""

from __future__ import annotations

from collections.abc import Mapping

from eval.classification import FigureDraws, Float64Array, LabelledScores
from eval.curves import pr_points, roc_points
from eval.reliability import reliability_bins
from eval.report.sheet import Chart, Curve, sheet
from eval.report.wording import figure
from weakray.detections import BoolArray


def roc_sheet(main: FigureDraws, others: Mapping[str, LabelledScores], title: str) -> str:
    """The ROC curve of each finding, those of `others` in thin grey; SVG text."""
    charts = [
        Chart(
            name,
            _told(main, "auroc", "AUROC", k),
            [
                Curve(who, roc_points(*scored), colour)
                for who, colour, scored in _scored(main, others, k)
                if _both(main.paired, k)
            ],
            ((0.0, 0.0), (1.0, 1.0)),
        )
        for k, name in enumerate(main.paired.names)
    ]
    return sheet(title, "1 – specificity", "sensitivity", charts)


def pr_sheet(main: FigureDraws, others: Mapping[str, LabelledScores], title: str) -> str:
    """The precision–recall curve of each finding, over the share of positives as a dashed line; SVG text."""
    charts: list[Chart] = []
    for k, name in enumerate(main.paired.names):
        positives, known = main.paired.positives[k], main.paired.positives[k] + main.paired.negatives[k]
        share = positives / known if known else 0.0
        curves = [
            Curve(who, pr_points(*scored), colour)
            for who, colour, scored in _scored(main, others, k)
            if _both(main.paired, k)
        ]
        charts.append(Chart(name, _told(main, "auprc", "AUPRC", k), curves, ((0.0, share), (1.0, share))))
    return sheet(title, "recall", "precision", charts)


def reliability_sheet(rows: Mapping[str, FigureDraws], title: str) -> str:
    """Share of positives over mean probability in 15 bins, for each finding and row; SVG text.

    A dot's area is the share of images in its bin. Calibration errors are told in the rows' order.
    """
    first = next(iter(rows.values()))
    charts: list[Chart] = []
    for k, name in enumerate(first.paired.names):
        curves: list[Curve] = []
        for colour, (who, row) in enumerate(rows.items()):
            known = row.paired.known[:, k]
            bins = reliability_bins(row.paired.probability[known, k], row.paired.positive[known, k])
            if bins:
                points = [(one.probability, one.share) for one in bins]
                curves.append(Curve(who, points, colour % 6, [one.images / int(known.sum()) for one in bins]))
        told = _told(first, "calibration_error", "ECE", k)
        if len(rows) > 1 and curves:
            errors = " · ".join(figure(float(row.whole["calibration_error"][k])) for row in rows.values())
            told = f"ECE {errors}, {first.paired.positives[k]} +"
        charts.append(Chart(name, told, curves, ((0.0, 0.0), (1.0, 1.0))))
    return sheet(title, "mean probability", "share of positives", charts)


def _scored(
    main: FigureDraws, others: Mapping[str, LabelledScores], k: int
) -> list[tuple[str, int | None, tuple[Float64Array, BoolArray]]]:
    rows: list[tuple[str, int | None, LabelledScores]] = [("ensemble", 0, main.paired)]
    rows += [("members", None, paired) for paired in others.values()]
    return [
        (who, colour, (paired.probability[paired.known[:, k], k], paired.positive[paired.known[:, k], k]))
        for who, colour, paired in rows
    ]


def _both(paired: LabelledScores, k: int) -> bool:
    return paired.positives[k] > 0 and paired.negatives[k] > 0


def _told(row: FigureDraws, key: str, name: str, k: int) -> str:
    found = row.interval(key, k)
    if not _both(row.paired, k):
        return f"{row.paired.positives[k]} +, {row.paired.negatives[k]} –"
    low, high = figure(found.low), figure(found.high)
    return f"{name} {figure(found.value)} [{low}, {high}], {row.paired.positives[k]} +"
