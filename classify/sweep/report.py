"""What a sweep leaves for people: a table, a plot, and the best settings."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from classify.sweep.record import Direction
from classify.sweep.space import Parameter
from classify.sweep.trial import Outcome
from weakray.files import replacing, write_text

_IMPORTANCE_TRIALS = 10  # with fewer, a parameter's importance is luck


@dataclass(frozen=True)
class Row:
    """A trial as the table shows it.

    Attributes:
        number: from 0.
        outcome: how it ended.
        score: None unless done.
        best_epoch: the epoch that the score is of.
        values: dotted path → value, as the record names it.
        message: what an unsuccessful trial said.
    """

    number: int
    outcome: Outcome
    score: float | None
    best_epoch: int | None
    values: dict[str, Any]
    message: str


def row_of(trial: Any) -> Row:
    """A row from a trial of the record."""
    told = trial.user_attrs
    score = trial.value if told["outcome"] == "done" else None
    return Row(trial.number, told["outcome"], score, told["best_epoch"], dict(trial.params), told["message"])


def ranked(rows: Sequence[Row], direction: Direction) -> list[Row]:
    """Rows by score, the best first and equal ones by number; behind them those without a score."""
    sign = -1 if direction == "maximize" else 1
    return sorted(rows, key=lambda row: (row.score is None, sign * (row.score or 0.0), row.number))


def importances(study: Any) -> dict[str, float]:
    """Each parameter's part of what sets the best trials apart (PED-ANOVA, Watanabe et al. 2023), summing to 1.

    Empty where too few trials have a score, or all have the same.
    """
    import optuna

    scores = [trial.value for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(scores) < _IMPORTANCE_TRIALS or len(set(scores)) == 1:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return {
        name: float(value)
        for name, value in optuna.importance.get_param_importances(study, evaluator=evaluator).items()
    }


def write_tables(folder: Path, rows: Sequence[Row], metric: str, importance: dict[str, float]) -> None:
    """Writes `trials.csv` and `table.md`, rows in the order given."""
    paths = list(dict.fromkeys(path for row in rows for path in row.values))
    head = ["trial", "outcome", metric, "best_epoch", *paths, "message"]
    lines = [
        [row.number, row.outcome, row.score, row.best_epoch, *(row.values.get(path) for path in paths), row.message]
        for row in rows
    ]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([head, *([_cell(one, ".10g") for one in line] for line in lines)])
    write_text(folder / "trials.csv", table.getvalue())
    shown = [head, ["---"] * len(head), *([_cell(one, ".4g").replace("|", "\\|") for one in line] for line in lines)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in shown) + "\n"
    if importance:
        text += "\nImportance: " + ", ".join(f"{path} {value:.2f}" for path, value in importance.items()) + "\n"
    write_text(folder / "table.md", text)


def _cell(value: Any, digits: str) -> str:
    if value is None:
        return ""
    return format(value, digits) if isinstance(value, float) else " ".join(str(value).split())


def write_plot(
    path: Path, rows: Sequence[Row], parameters: Sequence[Parameter], metric: str, direction: Direction
) -> None:
    """Writes a PNG: the score of each trial with the best so far, and the score against each parameter."""
    from matplotlib.figure import Figure

    panels = 1 + len(parameters)
    columns = min(3, panels)
    height, width = -(-panels // columns) * 3.2, columns * 4.2  # inches
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.8 / width, 0.6 / height, 1 - 0.1 / width, 1 - 0.35 / height, 0.3, 0.35)
    axes = figure.subplots(-(-panels // columns), columns, squeeze=False).ravel()
    scored = sorted((row for row in rows if row.score is not None), key=lambda row: row.number)
    numbers, scores = [row.number for row in scored], [row.score for row in scored]
    best = (np.maximum if direction == "maximize" else np.minimum).accumulate(np.array(scores, float))
    axes[0].plot(numbers, scores, "o", ms=4)
    axes[0].step(numbers, best, where="post", lw=1, label="best so far")
    failed = [row.number for row in rows if row.score is None]
    if failed:
        axes[0].plot(
            failed, [np.min(np.array(scores, float))] * len(failed), "x", color="tab:red", ms=5, label="no score"
        )
    axes[0].legend(fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    axes[0].set(xlabel="trial", ylabel=metric)
    for axis, one in zip(axes[1:], parameters, strict=False):
        values = [row.values[one.path] for row in scored]
        if one.by_label:
            labels = list(one.by_label)
            axis.plot([labels.index(value) for value in values], scores, "o", ms=4, alpha=0.7)
            axis.set_xticks(range(len(labels)), [text[:16] for text in labels], fontsize=7)
            axis.set_xlim(-0.5, len(labels) - 0.5)
        else:
            axis.plot(values, scores, "o", ms=4, alpha=0.7)
            axis.set_xscale("log" if one.dimension.log else "linear")
        axis.set(xlabel=one.path, ylabel=metric)
    for axis in axes[panels:]:
        axis.set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
