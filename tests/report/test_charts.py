from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from eval.report.charts import figure_axis, interval_bar, run_charts, spelled
from eval.report.wording import Estimate
from weakray.pages.axes import Axis, nice_step


@pytest.mark.parametrize(
    ("span", "at_most", "expected"),
    [
        (1.0, 5, 0.2),
        (0.53, 5, 0.2),
        (0.44, 5, 0.1),
        (0.26, 5, 0.1),
        (12, 6, 2.0),
        (11, 5, 2.5),
        (30, 6, 5.0),
        (7, 1, 10),
    ],
)
def test_steps_are_round(span: float, at_most: int, expected: float) -> None:
    assert nice_step(span, at_most) == pytest.approx(expected)


def test_figures_and_intervals_are_placed_on_a_common_axis() -> None:
    axis, ticks = figure_axis(0.53, 5.0, 195.0)
    assert axis.low == 0.0
    assert axis.high == pytest.approx(0.6)
    assert [(tick.text, tick.at) for tick in ticks] == [("0", 5.0), (".2", 68.3), (".4", 131.7), (".6", 195.0)]
    bar = interval_bar(Estimate(0.3, 0.15, 0.6), axis)
    assert (bar.zero, bar.low, bar.value, bar.high) == (5.0, 52.5, 100.0, 195.0)


def test_an_axis_of_small_figures_keeps_its_digits() -> None:
    _, ticks = figure_axis(0.011, 0.0, 100.0)
    assert [tick.text for tick in ticks] == ["0", ".005", ".010", ".015"]


def test_an_axis_that_does_not_start_at_nothing() -> None:
    axis, ticks = figure_axis(1.0, 0.0, 100.0, 0.43)
    assert [tick.text for tick in ticks] == [".4", ".6", ".8", "1.0"]
    assert axis.at(0.5) == pytest.approx(16.7)


def test_values_outside_an_axis_stay_at_its_ends() -> None:
    axis = Axis(0.0, 1.0, 10.0, 20.0)
    assert (axis.at(-3), axis.at(0.25), axis.at(7)) == (10.0, 12.5, 20.0)


def test_curves_are_grouped_and_placed() -> None:
    rows = [
        {"epoch": 1, "train_loss": 1.0, "val_macro_auroc": 0.6, "lr": 0.001, "seconds": 3.0},
        {"epoch": 2, "train_loss": 0.5, "val_macro_auroc": 0.8, "lr": 0.001, "seconds": 3.0},
        {"epoch": 3, "train_loss": 0.2, "val_macro_auroc": 0.7, "lr": 0.001, "seconds": 3.0},
    ]
    loss, score, rate = run_charts(rows)
    assert [chart.title for chart in (loss, score, rate)] == ["Loss", "Score", "Learning rate"]
    assert loss.x_title == "epoch"
    (line,) = loss.lines
    middle = (loss.left + loss.right) / 2
    height = loss.bottom - loss.top
    assert line.points == f"{loss.left:g},{loss.top:g} {middle:g},{loss.top + height / 2:g} {loss.right:g},143.2"
    assert loss.top + 0.8 * height == pytest.approx(143.2)
    assert line.best is None  # a training loss chooses nothing
    assert score.lines[0].best is not None
    assert score.lines[0].best.text == "best .800 at epoch 2"
    assert score.lines[0].best.at == middle


def test_a_validation_loss_is_best_at_its_first_lowest() -> None:
    rows = [{"epoch": e, "val_loss": v} for e, v in ((1, 0.9), (2, 0.4), (3, 0.4))]
    best = run_charts(rows)[0].lines[0].best
    assert best is not None
    assert best.text == "best .400 at epoch 2"


def test_steps_of_phases_go_on_where_the_last_ended() -> None:
    rows = [{"phase": p, "step": s, "box": 1.0 / (p + s)} for p in (1, 2) for s in (10, 20)]
    (chart,) = run_charts(rows)
    assert (chart.title, chart.x_title) == ("Loss", "step")
    assert chart.x_ticks[0].text == "10"
    assert chart.x_ticks[-1].text == "40"
    assert chart.breaks == [pytest.approx(chart.left + (chart.right - chart.left) / 3, abs=0.05)]  # to a tenth of a px


@pytest.mark.parametrize(
    ("steps", "texts"), [(600, ["100", "600"]), (1500, ["500", "1,500"]), (12_000, ["5,000", "10,000"])]
)
def test_long_step_numbers_stand_apart(steps: int, texts: list[str]) -> None:
    (chart,) = run_charts([{"step": s, "box": 1.0} for s in range(50, steps + 1, 50)])
    assert [chart.x_ticks[0].text, chart.x_ticks[-1].text] == texts
    letter = 6.5  # px of a digit at the width that these labels are drawn in
    for left, right in pairwise(chart.x_ticks):
        assert right.at - left.at > letter * (len(left.text) + len(right.text)) / 2


@pytest.mark.parametrize(
    ("rates", "texts"),
    [
        ((0.0, 2e-3), ["0", "5e-4", "1e-3", "1.5e-3", "2e-3"]),
        ((0.0, 4e5), ["0", "1e5", "2e5", "3e5", "4e5"]),
        ((0.0, 0.02), ["0", ".005", ".010", ".015", ".020"]),
    ],
)
def test_rates_are_written_short_enough_for_the_room_beside_the_axis(
    rates: tuple[float, float], texts: list[str]
) -> None:
    (chart,) = run_charts([{"epoch": e, "lr": rate} for e, rate in enumerate(rates)])
    assert [tick.text for tick in chart.y_ticks] == texts
    assert max(len(text) for text in texts) * 6.9 < chart.left - 7  # px of a digit; the text ends 7 px before the axis


def test_what_is_no_number_is_left_out() -> None:
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "val_loss": None, "note": "rolled back", "flag": True},
        {"event": "resumed", "val_loss": 9.0},
        {"epoch": 2, "val_loss": float("nan")},
        {"epoch": 3, "val_loss": 0.5},
    ]
    (chart,) = run_charts(rows)
    assert len(chart.lines[0].points.split()) == 1
    assert run_charts([]) == []
    assert run_charts([{"event": "resumed"}]) == []


def test_figures_of_single_findings_are_left_out() -> None:
    rows = [{"epoch": e, "val_macro_auroc": 0.5, "val_auroc/Mass": 0.5, "val_positives/Mass": 9} for e in (1, 2)]
    (chart,) = run_charts(rows, ["Mass"])
    assert [line.name for line in chart.lines] == ["val macro AUROC"]


def test_labels_of_equal_ends_do_not_overlap_and_keep_their_order() -> None:
    rows = [{"epoch": e, "a_loss": 1.0, "b_loss": 1.01, "c_loss": 0.99, "d_loss": 5.0 / e} for e in (1, 5)]
    chart = run_charts(rows)[0]
    placed = sorted((line.label_y, line.name) for line in chart.lines)
    assert all(b - a >= 14 for (a, _), (b, _) in pairwise(placed))
    assert [name for _, name in placed] == ["b loss", "a loss", "d loss", "c loss"]
    assert chart.top <= placed[0][0]
    assert placed[-1][0] <= chart.bottom


def test_long_names_are_cut_beside_the_curve_only() -> None:
    line = run_charts([{"epoch": 1, "val_probabilistic_f1_macro": 0.4}])[0].lines[0]
    assert line.name == "val probabilistic F1 macro"
    assert line.label == "val probabilisti…"


def test_keys_are_spelled_for_people() -> None:
    assert spelled("val_macro_auroc") == "val macro AUROC"
    assert spelled("tune/map") == "tune mAP"
