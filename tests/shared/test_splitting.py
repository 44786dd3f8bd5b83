"""The proof of disjoint splits is counted from the table, and names what is shared."""

from __future__ import annotations

import pandas as pd

from weakray.dataset import SPLITS
from weakray.files import sha256_json
from weakray.splitting import split_proof


def _table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d", "e"],
            "patient_id": ["1", "1", "2", "3", "1"],
            "sha256": ["x", "y", "z", "z", "u"],
            "split": ["train", "train", "val", "test", "test"],
            "acquired": ["2015-01-02", "2014-05-06", "", "2018-01-01", "2019-01-01"],
        }
    )


def test_counts_and_intersections_by_hand() -> None:
    proof = split_proof(_table(), SPLITS)
    assert proof["patients"] == {"train": 1, "val": 1, "tune": 0, "test": 2}
    assert proof["shared_patients"] == {
        "train/val": 0,
        "train/tune": 0,
        "train/test": 1,
        "val/tune": 0,
        "val/test": 0,
        "tune/test": 0,
    }
    assert {pair: count for pair, count in proof["shared_files"].items() if count} == {"val/test": 1}
    assert proof["acquired"] == {"train": ["2014-05-06", "2015-01-02"], "test": ["2018-01-01", "2019-01-01"]}
    rows = [["a", "1", "train"], ["b", "1", "train"], ["c", "2", "val"], ["d", "3", "test"], ["e", "1", "test"]]
    assert proof["assignment_sha256"] == sha256_json(rows)


def test_the_hash_knows_the_split_and_not_the_order_of_rows() -> None:
    table = _table()
    assert split_proof(table.iloc[::-1], SPLITS) == split_proof(table, SPLITS)
    moved = table.assign(split=["val", "train", "val", "test", "test"])
    assert split_proof(moved, SPLITS)["assignment_sha256"] != split_proof(table, SPLITS)["assignment_sha256"]
    assert "acquired" not in split_proof(table.drop(columns="acquired"), SPLITS)
