"""Labels mined from simulated reports: rates, tree, independence of the films."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ingest.phantom import FINDINGS, PARENTS, noisy_labels, simulate_patient
from ingest.phantom.difficulty import Difficulty, difficulty_named
from ingest.phantom.labels import ReportLabels, labels_of, report_labels
from ingest.phantom.taxonomy import leaves_first, lineage

N = 6000
EFFUSION, PNEUMONIA, OPACITY = (FINDINGS.index(name) for name in ("Pleural Effusion", "Pneumonia", "Lung Opacity"))


def _reports(level: Difficulty, boxes: list[list[float]], class_id: list[int]) -> ReportLabels:
    """`N` reports `(N, findings)` on a 100 x 200 film with these boxes."""
    rng = np.random.default_rng(5)
    ids = np.array(class_id, np.int64)
    box_array = np.array(boxes, np.float32).reshape(-1, 4)
    truth = labels_of(ids)
    return np.stack([report_labels(truth, box_array, ids, (100, 200), rng, level) for _ in range(N)])


@pytest.mark.parametrize("difficulty", ["easy", "standard", "hard"])
def test_rates_of_a_large_finding(difficulty: str) -> None:
    level = difficulty_named(difficulty)
    said = _reports(level, [[0, 0, 100, 100]], [EFFUSION])[:, EFFUSION]
    hedged = level.uncertain_positive_rate
    assert np.mean(said == -1) == pytest.approx(hedged, abs=0.015)
    assert np.mean(said == 0) == pytest.approx((1 - hedged) * level.missed_rate, abs=0.015)
    assert np.mean(said == 1) == pytest.approx((1 - hedged) * (1 - level.missed_rate), abs=0.02)
    assert not np.isnan(said).any()


def test_small_findings_are_missed_more_often() -> None:
    level = difficulty_named("standard")
    tiny = _reports(level, [[50, 50, 53, 54]], [EFFUSION])[:, EFFUSION]
    expected = (1 - level.uncertain_positive_rate) * level.missed_rate * level.missed_small_times
    assert np.mean(tiny == 0) == pytest.approx(expected, abs=0.02)


def test_rates_of_an_absent_finding() -> None:
    level = difficulty_named("standard")
    said = _reports(level, [], [])[:, EFFUSION]
    hedged = level.uncertain_negative_rate
    assert np.mean(said == -1) == pytest.approx(hedged, abs=0.01)
    assert np.mean(said == 1) == pytest.approx((1 - hedged) * level.invented_rate, abs=0.01)
    silent = (1 - hedged) * (1 - level.invented_rate) * level.blank_rate
    assert np.mean(np.isnan(said)) == pytest.approx(silent, abs=0.02)


def test_without_mistakes_the_report_is_the_truth() -> None:
    level = replace(
        difficulty_named("hard"),
        missed_rate=0,
        invented_rate=0,
        uncertain_positive_rate=0,
        uncertain_negative_rate=0,
        blank_rate=0,
    )
    chain = [FINDINGS.index(name) for name in lineage("Pneumonia")]
    said = _reports(level, [[1, 1, 4, 4]] * 3, chain)[0]
    assert said.tolist() == [1.0 if i in chain else 0.0 for i in range(len(FINDINGS))]


def test_an_ancestor_says_at_least_what_its_child_says() -> None:
    order = {0.0: 0, -1.0: 1, 1.0: 2}
    chain = [FINDINGS.index(name) for name in lineage("Pneumonia")]
    said = _reports(difficulty_named("hard"), [[0, 0, 60, 60]] * 3, chain)
    for row in np.nan_to_num(said, nan=0.0)[:1500]:
        for child, parent in PARENTS.items():
            assert order[row[FINDINGS.index(parent)]] >= order[row[FINDINGS.index(child)]]
    missed = said[:, PNEUMONIA] == 0
    assert missed.any()
    assert np.mean(said[missed][:, OPACITY] == 0) > 0.6  # who overlooks the child overlooks what it implies


def test_labels_of_sets_all_ancestors() -> None:
    present = labels_of(np.array([PNEUMONIA]))
    assert [FINDINGS[i] for i in np.flatnonzero(present)] == ["Lung Opacity", "Consolidation", "Pneumonia"]
    assert labels_of(np.array([], np.int64)).sum() == 0


def test_children_come_before_their_parents() -> None:
    order = leaves_first()
    assert sorted(order) == sorted(FINDINGS)
    for child, parent in PARENTS.items():
        assert order.index(child) < order.index(parent)


def test_reports_repeat_and_differ_between_films() -> None:
    films = [(p, simulate_patient(2, p, "hard", (64, 64))[0]) for p in range(12)]
    first = np.stack([noisy_labels(film, 2, p, 0, "hard") for p, film in films])
    again = np.stack([noisy_labels(film, 2, p, 0, "hard") for p, film in reversed(films)])[::-1]
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert not np.array_equal(first[0], noisy_labels(films[0][1], 3, 0, 0, "hard"), equal_nan=True)
