"""What both parity checks need: a spread of images to compare on, and a clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from weakray.detections import FloatArray
from weakray.errors import RunError
from weakray.imaging import Image, to_batch

BATCH = 8  # images of one pass of a check; any number but the one the graph was exported with would do
_TIMED = 16


def spread(ids: Sequence[str], limit: int) -> list[str]:
    """At most `limit` of the ids, evenly spread from the first to the last, in order."""
    rows = np.linspace(0, len(ids) - 1, min(limit, len(ids))).round().astype(int)
    return [ids[row] for row in rows]


def check_finite(outputs: Mapping[str, npt.NDArray[Any]]) -> None:
    """Refuses numbers that compare with nothing.

    Args:
        outputs: whose output → the output.

    Raises:
        RunError: if one holds NaN or infinity.
    """
    for whose, values in outputs.items():
        if not np.isfinite(values).all():
            raise RunError(f"parity: {whose} gives NaN or infinity on a val image; its weights are broken, train again")


def median_ms(call: Callable[[FloatArray], Any], prepared: Sequence[Image]) -> float:
    """Median wall time of `call` on one image at a time, milliseconds, over at most 16 of them after one to warm up."""
    batches = [to_batch([image]) for image in prepared[:_TIMED]]
    call(batches[0])
    times: list[float] = []
    for batch in batches:
        start = time.perf_counter()
        call(batch)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)) * 1000, 3)
