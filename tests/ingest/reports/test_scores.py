from __future__ import annotations

import pytest

from ingest.reports.scores import agreement


def test_a_wrong_value_counts_against_precision_and_recall() -> None:
    given = [{"A": 1, "B": 0}, {"A": 1}, {"A": -1}, {}]
    read = [{"A": 1, "B": 0}, {"A": 0}, {}, {"A": 1}]
    score = agreement(given, read)
    assert score.f1 == {"A": pytest.approx(2 * 1 / (3 + 3)), "B": 1.0}
    assert score.macro_f1 == pytest.approx((1 / 3 + 1) / 2)
    assert score.micro_f1 == pytest.approx(2 * 2 / (4 + 4))
    assert score.value_f1 == {"present": pytest.approx(2 * 1 / (2 + 2)), "absent": 1.0, "uncertain": 0.0}
    assert (score.exact, score.texts) == (0.25, 4)


def test_findings_that_are_never_given_count_in_micro_alone() -> None:
    score = agreement([{"A": 1}], [{"A": 1, "C": 1}])
    assert score.macro_f1 == 1.0
    assert score.micro_f1 == pytest.approx(2 / 3)
