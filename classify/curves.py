"""`curves.png`: losses, validation scores and learning rate of a training, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weakray.files import replacing

_PANELS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("loss", (("train_loss", "train", "#2a6f97"), ("val_loss", "val", "#d1495b"))),
    ("val, macro", (("val_macro_auroc", "AUROC", "#2a6f97"), ("val_macro_auprc", "AUPRC", "#d1495b"))),
    ("learning rate", (("lr", "", "#5f6b73"),)),
)


def curves(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one quantity; NaN, a gap in the line, where an epoch has none."""
    epochs = [row for row in rows if isinstance(row.get("epoch"), int)]
    values = [row.get(key) for row in epochs]
    return [float(row["epoch"]) for row in epochs], [math.nan if value is None else float(value) for value in values]


def draw_curves(rows: Sequence[Mapping[str, Any]], best_epoch: int, path: Path) -> None:
    """Draws the lines of `metrics.jsonl`; a thin line marks the epoch that was kept."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10.5, 3.1), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, lines) in zip(figure.subplots(1, len(_PANELS)), _PANELS, strict=True):
        axes.axvline(best_epoch, color="#c9d1d6", linewidth=1)
        for key, label, colour in lines:
            xs, ys = curves(rows, key)
            axes.plot(xs, ys, color=colour, linewidth=1.6, marker="o", markersize=2.5, label=label)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=8, length=0)
        axes.grid(color="#eceff1", linewidth=0.8)
        axes.spines[:].set_visible(False)
        axes.set_axisbelow(True)
        if len(lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
