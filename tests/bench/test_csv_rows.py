from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.csv_rows import csv_rows
from ingest.tables import read_frame


def test_a_small_table_is_read_mapped_and_split_far_below_the_limits(tmp_path: Path) -> None:
    ballast = np.ones(64 << 20)  # 512 MiB of this process, which are not the work's
    seconds, memory = csv_rows(3_000, tmp_path)
    assert memory.ours < ballast.nbytes / 2**20
    assert (seconds.case, seconds.unit) == ("csv/chexpert-3000-rows/vs-limit", "s")
    assert (memory.case, memory.unit) == ("csv-memory/chexpert-3000-rows/vs-limit", "MiB")
    assert seconds.ours < 0.5 * seconds.peer  # 3 % of the rows of the bench
    assert 20 < memory.ours < memory.peer
    table = read_frame(tmp_path / "train.csv", ["Path", "Edema"])
    assert len(table) == table["Path"].nunique() == 3_000
    assert set(table["Edema"]) == {"1.0", "0.0", "-1.0", ""}
