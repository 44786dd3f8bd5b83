"""How many rounds, which candidate is best, and which is simple enough."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from detect.candidates import Candidate, as_markdown, choose, rounds_that_raise
from eval.average_precision import Matches, match
from eval.intervals import PatientDraws
from tests.detect.conftest import found_boxes
from weakray.coco import BoxTruth

IDS = [f"i{number:02d}" for number in range(30)]
HIT, MISS = (0, 0, 10, 20), (40, 40, 60, 50)
TRUTH = BoxTruth({i: found_boxes([HIT], [0], [1.0]) for i in IDS}, frozenset((i, 0) for i in IDS))
DRAWN = PatientDraws.of(IDS, {i: f"p{i}" for i in IDS}, 400, 0)


def missing(numbers: Collection[int]) -> Matches:
    """A source that finds every box but those of some images."""
    found = {i: found_boxes([MISS if n in numbers else HIT], [0], [0.9 - n / 100]) for n, i in enumerate(IDS)}
    return match(found, TRUTH, 1)


def candidate(name: str, *rounds: Collection[int]) -> Candidate:
    return Candidate(name, tuple(10 * (i + 1) for i in range(len(rounds))), tuple(map(missing, rounds)))


@pytest.mark.parametrize(
    ("values", "rounds"),
    [([0.3], 0), ([0.1, 0.2, 0.3], 2), ([0.1, 0.2, 0.2, 0.9], 1), ([0.3, 0.2, 0.9], 0), ([0.2, 0.2], 0)],
)
def test_rounds_go_on_while_the_figure_rises(values: Sequence[float], rounds: int) -> None:
    assert rounds_that_raise(values) == rounds


HALF, ONE = range(15), [29]  # the one scored lowest: AP 29/30 of the recall, at precision 1


@pytest.mark.parametrize(
    ("order", "best", "chosen"),
    [
        ("half near perfect", "perfect", "near"),  # one film of thirty is chance
        ("perfect near half", "perfect", "perfect"),
        ("half perfect", "perfect", "perfect"),  # half of them is not
        ("near again", "near", "near"),  # of equals the first
        ("half", "half", "half"),
    ],
)
def test_ties_go_to_the_simpler(order: str, best: str, chosen: str) -> None:
    known = {"half": HALF, "near": ONE, "again": ONE, "perfect": []}
    choice = choose([candidate(name, known[name]) for name in order.split()], DRAWN)
    assert (choice.best.name, choice.chosen.name) == (best, chosen)


def test_figures_are_those_of_the_round_that_is_kept() -> None:
    choice = choose([candidate("simple", HALF), candidate("rounds", HALF, ONE, HALF)], DRAWN)
    simple, rounds = choice.rows
    assert (simple.kept, rounds.kept) == (0, 1)
    assert choice.best is choice.chosen is rounds
    # 97 of the 101 recall points, 0 … .96, lie at or below 29/30
    assert rounds.ap50[1].value == pytest.approx(97 / 101)
    # 15 misses come first, then 15 hits: precision n / (15 + n) rises to 1/2, at recall 1/2: points 0 … .50
    assert [rounds.ap50[i].value for i in (0, 2)] == [pytest.approx(51 / 101 / 2)] * 2
    assert simple.against_best is not None
    assert simple.against_best.interval.value == pytest.approx(simple.ap50[0].value - 97 / 101)
    assert simple.against_best.interval.high < 0
    told = choice.to_dict()
    assert [row["kept_round"] for row in told["candidates"]] == [0, 1]
    assert [len(row["rounds"]) for row in told["candidates"]] == [1, 3]
    assert told["candidates"][1]["rounds"][1]["steps"] == 20
    assert told["candidates"][0]["against_best"]["tie"] is False
    assert told["candidates"][1]["against_best"] is None


def test_the_table_says_what_was_chosen_and_why() -> None:
    page = as_markdown(choose([candidate("near", ONE), candidate("perfect", [])], DRAWN), 3, 30, 30)
    assert "| **near** | 0 | 10 | 0.960 [" in page
    assert "] tie |" in page
    assert "| perfect | 0 | 10 | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | the best |" in page
    assert "Chosen: `near` with 0 rounds after the first: the simplest that is not worse than `perfect` by" in page
    alone = as_markdown(choose([candidate("rounds", HALF, ONE, HALF)], DRAWN), 3, 30, 30)
    assert alone.count("not kept") == 2
    assert "it has the highest AP50, and none that is simpler ties with it" in alone
