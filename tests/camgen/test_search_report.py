"""What `search.json` and `search.md` say, on a table of candidates filled in by hand."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
import pytest

from camgen.candidates import Option
from camgen.layers import LAST
from camgen.recipe import FindingRecipe, Recipe, Threshold, TuneScores
from camgen.search_report import Gated, Tried, as_markdown, told
from camgen.sources import MapSource


def option(value: float, layer: str = LAST, members: tuple[int, ...] = (0, 1), exponent: float = 0.0) -> Option:
    return Option(members, MapSource("layercam", layer), exponent, Threshold(kind="range", value=value), 1)


def fused(value: float) -> Option:
    return dataclasses.replace(option(value), fusion="boxes")


OPTIONS = [option(0.3), option(0.5), option(0.5, layer="stage1"), option(0.5, members=(0,)), option(0.3, exponent=1.0)]
# Findings A and B, five options, two strengths; C has no true box.
CRITERION = np.array(
    [
        [[0.40, 0.50], [0.45, 0.48], [0.60, 0.90], [0.30, 0.30], [0.52, 0.52]],
        [[0.70, 0.10], [0.20, 0.10], [0.10, 0.10], [0.30, 0.10], [0.60, 0.10]],
        np.zeros((5, 2)),
    ]
)


def tried() -> Tried:
    allowed = np.ones((3, 5, 2), bool)
    allowed[0, 2, 1] = False  # not trusted, so 0.90 may not win
    ap50 = CRITERION / 2
    ap50[2] = np.nan
    return Tried(OPTIONS, CRITERION, ap50, allowed, np.array([10**9, 10**9, 0]))  # so many boxes that none is borrowed


def entry(name: str, boxes: int, chosen: Option, ap50: float | None) -> FindingRecipe:
    return FindingRecipe(
        name=name,
        members=chosen.members,
        fusion=chosen.fusion,
        **chosen.source._asdict(),
        threshold=chosen.threshold,
        max_boxes=1,
        gate=0.2,
        tune=TuneScores(boxes=boxes, images=20, ap50=ap50, ap50_uncalibrated=ap50),
    )


def report() -> dict[str, Any]:
    entries = (entry("A|a", 12, OPTIONS[2], 0.35), entry("B", 9, OPTIONS[0], 0.35), entry("C", 0, OPTIONS[0], None))
    recipe = Recipe(ensemble_sha256="a" * 64, findings=entries)
    return told(recipe, tried(), [Gated(0.65, 0.35), Gated(0.7, 0.35), Gated(0.0, float("nan"))])


def test_the_best_trusted_candidate_is_picked_and_ties_go_to_the_first() -> None:
    assert [tried().pick(k) for k in range(3)] == [(2, 0), (0, 0), (4, 0)]  # C takes the mean of the others
    assert tried().best_of_options(0) == pytest.approx([0.50, 0.48, 0.60, 0.30, 0.52])


def test_gains_are_against_the_best_that_does_without() -> None:
    a, b, c = (row["ingredients"] for row in report()["findings"])
    assert a["layers"] == {"criterion": [0.6, 0.52], "ap50": [0.3, 0.26]}
    assert a["prior"]["criterion"] == [0.6, 0.6]
    assert a["calibration"]["criterion"] == [0.6, 0.6]
    # At cut 0.3 the findings' best are 0.52 and 0.7, at 0.5 they are 0.6 and 0.3: 0.3 it is for both.
    assert a["own_threshold"]["criterion"] == [0.6, 0.52]
    assert b["own_threshold"]["criterion"] == [0.7, 0.7]
    assert a["members_mean"]["criterion"] == [0.6, 0.3]
    assert a["gate"] == {"criterion": [0.65, 0.6], "ap50": [0.35, 0.3]}
    assert c == {}
    mean = report()["ingredients"]
    assert mean["members_mean"]["criterion"] == pytest.approx([0.65, 0.3])
    assert mean["layers"]["ap50"] == pytest.approx([0.325, 0.305])


def test_flatness() -> None:
    a, b, c = report()["findings"]
    assert a["best_to_median"] == pytest.approx(0.1)
    assert a["near_best"] == {"0.01": 0.2, "0.05": 0.2}
    assert b["near_best"] == {"0.01": 0.2, "0.05": 0.2}
    assert c["near_best"] == {"0.01": 1, "0.05": 1}
    assert a["one_cut_further"] == [None, None]  # no other cut of its layer
    assert b["one_cut_further"] == [None, 0.5]
    assert b["best_criterion"]["layercam/prior 0/range/members 0,1"] == 0.7


@pytest.mark.parametrize("part", ["| A\\|a | 12 | layercam@stage1, members 0, 1 |", "| C | 0 |", "| recipe | 0.350 |"])
def test_markdown_says_it_in_tables(part: str) -> None:
    content = {"recipes": {"recipe": {"ap50": 0.35}, "random_map": {"ap50": None}}, "images": 20, "options": 5}
    text = as_markdown({**content, **report()})
    assert part in text
    assert "| layers other than the last | 0.325 | 0.305 | +0.020 | +0.040 | +0.000 |" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert "nan" not in text


def test_fused_boxes_are_told_from_averaged_maps() -> None:
    options = [option(0.3), fused(0.3), fused(0.5)]
    criterion = np.array([[[0.4], [0.7], [0.6]]])
    table = Tried(options, criterion, criterion / 2, np.ones((1, 3, 1), bool), np.array([10**9]))
    recipe = Recipe(ensemble_sha256="a" * 64, findings=(entry("A", 12, options[1], 0.35),))
    found = told(recipe, table, [Gated(0.7, 0.35)])
    assert found["ingredients"]["fusion"] == {"criterion": [0.7, 0.4], "ap50": [0.35, 0.2]}
    (row,) = found["findings"]
    assert row["chosen"]["fusion"] == "boxes"
    assert row["one_cut_further"] == [None, pytest.approx(0.1)]  # the averaged map's cut is not a neighbour
    assert row["best_criterion"] == {
        "layercam/prior 0/range/members 0,1": 0.4,
        "layercam/prior 0/range/members 0,1/boxes fused": 0.7,
    }
    text = as_markdown({"recipes": {}, "images": 20, "options": 3, **found})
    assert "| A | 12 | layercam, members 0, 1, boxes fused |" in text
    assert "| fusion of members' boxes | 0.350 | 0.200 | +0.150 | +0.150 |" in text


@pytest.mark.parametrize("kind", ["range", "value"])
def test_without_a_single_true_box_there_are_no_gains(kind: Literal["range", "value"]) -> None:
    options = [Option((0,), MapSource("pcam"), 0.0, Threshold(kind=kind, value=0.5), 1)]
    none = Tried(options, np.zeros((1, 1, 2)), np.full((1, 1, 2), np.nan), np.ones((1, 1, 2), bool), np.array([0]))
    recipe = Recipe(ensemble_sha256="a" * 64, findings=(entry("C", 0, options[0], None),))
    found = told(recipe, none, [Gated(0.0, float("nan"))])
    assert found["ingredients"] == {}
    assert "nan" not in as_markdown({"recipes": {}, "images": 1, "options": 1, **found})
