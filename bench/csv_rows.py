"""A hundred thousand rows in CheXpert's layout, read, mapped into the taxonomy and split: time and memory.

The image pass is left out: it has its own rows in `bench/ingest.py`. Run in a process of its own, whose peak memory is
that of the work alone.
"""

from __future__ import annotations

import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bench.printing import Row, at_most
from ingest.assign import assign
from ingest.chexpert import OBSERVATIONS, ChexpertConfig, read_source
from ingest.splits import SplitSettings
from weakray.config import validate
from weakray.memory import peak_mib

MOST_SECONDS, MOST_MIB = 20.0, 2048.0
# Shares of 1, 0 and -1 of the published table, roughly: the others are blank.
_SHARES = (0.12, 0.05, 0.03)


def csv_rows(rows: int, root: Path) -> list[Row]:
    """Seconds and MiB of one run over `rows` rows, against the limits for 100,000."""
    path = root / "train.csv"
    write_table(path, rows)
    with get_context("spawn").Pool(1) as pool:
        seconds, mib = pool.apply(_work, (path,))
    return [
        at_most(f"csv/chexpert-{rows}-rows", seconds, MOST_SECONDS, "s"),
        at_most(f"csv-memory/chexpert-{rows}-rows", mib, MOST_MIB, "MiB"),
    ]


def write_table(path: Path, rows: int) -> None:
    """A seeded `train.csv`: three rows a patient, frontal and lateral, labels drawn independently."""
    rng = np.random.default_rng(0)
    drawn = rng.random((rows, len(OBSERVATIONS)))
    edges = np.cumsum(_SHARES)
    cells = np.select([drawn < edges[0], drawn < edges[1], drawn < edges[2]], ["1.0", "0.0", "-1.0"], "")
    with path.open("w", encoding="utf-8") as file:
        file.write(f"Path,Sex,Age,Frontal/Lateral,AP/PA,{','.join(OBSERVATIONS)}\n")
        for at, labels in enumerate(cells.tolist()):
            side = ("frontal", "lateral")[at % 2]
            film = f"CheXpert-v1.0-small/train/patient{at // 3:05d}/study{at % 3 + 1}/view1_{side}.jpg"
            about = f"Female,{20 + at % 70},{side.title()},{'AP' if side == 'frontal' else ''}"
            file.write(f"{film},{about},{','.join(labels)}\n")


def _work(path: Path) -> tuple[float, float]:
    started = time.perf_counter()
    config = validate(ChexpertConfig, {"train": path, "images": path.parent, "out": path.parent / "out"})
    source = read_source(config)
    rows = {row.image_id: row for row in source.rows}
    split_of, _ = assign(rows, {}, source.sides, config.sizes, config.seed, SplitSettings())
    if len(split_of) != len(source.rows) or set(split_of.values()) != {"train", "val", "test"}:
        raise ArithmeticError(f"{len(source.rows)} rows gave {len(split_of)} images; a wrong split may not be timed")
    return time.perf_counter() - started, peak_mib()
