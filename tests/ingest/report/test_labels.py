from __future__ import annotations

from math import nan, sqrt

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import matthews_corrcoef

from ingest.report.labels import Counts, closest, correlation, finding_rows, share_also, together
from weakray.taxonomy import Finding, Taxonomy


def test_values_and_ratios_by_hand() -> None:
    counts = Counts.of(pd.Series([1, 1, -1, 0, 0, 0, 0, 0, nan, nan]))
    assert counts == Counts(positive=2, uncertain=1, negative=5, blank=2)
    assert counts.total == 10
    assert counts.negatives_a_positive == 2.5
    assert counts.negatives_a_possible == pytest.approx(5 / 3)
    assert counts.uncertainty == pytest.approx(1 / 3)
    empty = Counts.of(pd.Series([0, nan]))
    assert (empty.negatives_a_positive, empty.negatives_a_possible, empty.uncertainty) == (None, None, None)


@pytest.mark.parametrize(
    ("positive", "negative", "uncertain", "ratio"),
    [  # of 223,648 CheXpert images
        (33456, 156453, 33739, 2.32834288),
        (27068, 188493, 8087, 5.36176931),
        (19841, 176610, 27197, 3.75462392),
        (52291, 158373, 12984, 2.42624282),
        (6047, 198831, 18770, 8.01188701),
    ],
)
def test_published_ratios_of_chexpert(positive: int, negative: int, uncertain: int, ratio: float) -> None:
    assert Counts(positive, uncertain, negative, 0).negatives_a_possible == pytest.approx(ratio, abs=5e-9)


LABELS = pd.DataFrame(
    [[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, nan], [-1, 1, 0]], columns=["A", "B", "C"], dtype=float
)


def test_findings_are_counted_for_each_split_in_the_order_of_the_tree() -> None:
    taxonomy = Taxonomy((Finding("A"), Finding("B", "A"), Finding("C", "B")))
    splits = pd.Series(["train", "train", "val", "val", "train", "test"])
    rows = finding_rows(LABELS, splits, ["train", "val", "test"], taxonomy)
    assert [(row.name, row.depth, row.counts) for row in rows] == [
        ("A", 0, Counts(3, 1, 2, 0)),
        ("B", 1, Counts(4, 0, 2, 0)),
        ("C", 2, Counts(0, 0, 5, 1)),
    ]
    assert rows[0].by_split == {"train": Counts(3, 0, 0, 0), "val": Counts(0, 0, 2, 0), "test": Counts(0, 1, 0, 0)}


def test_what_comes_together_by_hand() -> None:
    counts = together(LABELS)
    assert counts.tolist() == [[3, 2, 0], [2, 4, 0], [0, 0, 0]]
    share = share_also(counts)
    assert share[0].tolist() == [1, pytest.approx(2 / 3), 0]
    assert share[1].tolist() == [0.5, 1, 0]
    assert np.isnan(share[2]).all()  # nobody has C
    phi = correlation(LABELS)
    # A and B are both known in the first five images: n11 = 2, A 3 of 5, B 3 of 5
    assert phi[0, 1] == pytest.approx((5 * 2 - 3 * 3) / sqrt(3 * 2 * 3 * 2)) == phi[1, 0]
    assert np.isnan(phi[2]).all()


def test_correlation_is_that_of_a_peer_on_pairs_that_are_known() -> None:
    draw = np.random.default_rng(0)
    values = draw.choice([1.0, 0.0, -1.0, nan], (200, 4), p=[0.3, 0.5, 0.1, 0.1])
    phi = correlation(pd.DataFrame(values))
    for i in range(4):
        for j in range(4):
            known = np.isin(values[:, i], (0, 1)) & np.isin(values[:, j], (0, 1))
            assert phi[i, j] == pytest.approx(matthews_corrcoef(values[known, i], values[known, j]), abs=1e-12)


def test_the_closest_pair_is_none_that_the_tree_ties_together() -> None:
    labels = pd.DataFrame([[1, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 0]], columns=["A", "B", "C"], dtype=float)
    flat = closest(correlation(labels), Taxonomy.flat(["A", "B", "C"]))
    assert flat is not None
    assert flat[:2] == ("A", "B")
    tree = closest(correlation(labels), Taxonomy((Finding("A"), Finding("B", "A"), Finding("C"))))
    assert tree is not None
    assert tree[:2] == ("B", "C")
    assert closest(np.full((3, 3), nan), Taxonomy.flat(["A", "B", "C"])) is None
