"""Several classifiers of the same images in one table, each against one of them on the same bootstrap draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.classification import FigureDraws
from eval.intervals import comparison_of, interval_of
from weakray.errors import DataError

SHOWN = ("auroc", "auprc", "f1_at_fitted", "pf1", "brier", "calibration_error", "log_loss")
LOWER_IS_BETTER = frozenset({"brier", "calibration_error", "log_loss"})


def side_by_side(rows: Mapping[str, FigureDraws], reference: str, min_positives: int) -> dict[str, Any]:
    """Macro figures of each row, and their differences from the reference row's.

    Args:
        rows: name → figures; all of the same images, on the same draws.
        reference: the row that the others are compared with.
        min_positives: a finding enters the means with at least as many positives, and as many negatives.

    Returns:
        `{"reference", "rows": {NAME: {FIGURE: {"value", "low", "high", "difference": {"value", "low", "high", "tie"}}
        or None where no finding has enough positives}}}`, FIGURE among `SHOWN` as far as they were computed. The
        reference has no "difference"; a tie is a difference whose interval holds 0.

    Raises:
        DataError: if the reference is not among the rows, or they are of different images.
    """
    if reference not in rows:
        raise DataError(f"expected the reference among the rows {', '.join(rows)}, got {reference!r}")
    first = rows[reference]
    table: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
        if row.paired.image_ids != first.paired.image_ids:
            raise DataError(f"{name} and {reference}: expected figures of the same images, got those of different ones")
        table[name] = {}
        for figure in (figure for figure in SHOWN if figure in row.whole):
            if not any(row.in_mean(min_positives)):
                table[name][figure] = None
                continue
            own, other = (scored.mean(figure, min_positives) for scored in (row, first))
            table[name][figure] = dict(interval_of(*own).to_dict())
            if name != reference:
                compared = comparison_of(*own, *other)
                table[name][figure]["difference"] = compared.interval.to_dict() | {"tie": compared.tie}
    return {"reference": reference, "rows": table}
