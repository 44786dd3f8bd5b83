from __future__ import annotations

from typing import Any

import pytest

from eval.report.sources import SOURCES, scored_sources
from eval.report.wording import Estimate, duration, figure, headline, spoken, spoken_percent, standfirst
from weakray.errors import DataError


def scored(*, spread: float = 0.02, **ap50: tuple[float, float, float]) -> dict[str, Any]:
    """A summary with AP50 alone, and the lead of the first source over the others, ± `spread`."""
    scores = {k: {"ap50": {"value": v, "low": lo, "high": hi}} for k, (v, lo, hi) in ap50.items()}
    first, *others = scores
    for key in others:
        lead = ap50[first][0] - ap50[key][0]
        scores[key]["lead"] = {"value": lead, "low": lead - spread, "high": lead + spread}
    return {"scores": scores}


RECOVERED = {"value": 0.82, "low": 0.76, "high": 0.88}


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(0.414, 2, ".41"), (0.0, 2, ".00"), (1.0, 2, "1.00"), (0.0334, 3, ".033"), (10.25, 1, "10.2"), (-0.2, 1, "-.2")],
)
def test_figures_lose_their_leading_zero_only(value: float, digits: int, expected: str) -> None:
    assert figure(value, digits) == expected


def test_small_figures_are_spoken_with_three_digits() -> None:
    assert spoken(Estimate(0.41, 0.38, 0.44)) == ".41 [.38, .44]"
    assert spoken(Estimate(0.0334, 0.02, 0.05)) == ".033 [.020, .050]"
    assert spoken_percent(Estimate.read(RECOVERED)) == "82\u00a0% [76, 88]"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(8.44, "8.4 s"), (59.96, "1 min 00 s"), (724.0, "12 min 04 s"), (3599.9, "1 h 00 min"), (3725.0, "1 h 02 min")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds).replace("\u00a0", " ") == expected


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        ((0.04, 0.02, 0.06), "ahead"),
        ((0.02, 0.0, 0.05), "tie"),
        ((-0.1, -0.2, 0.01), "tie"),
        ((-0.1, -0.2, -0.01), "behind"),
    ],
)
def test_a_tie_is_a_difference_whose_interval_holds_0(lead: tuple[float, float, float], expected: str) -> None:
    assert Estimate(*lead).verdict == expected


def test_the_paired_difference_decides_not_whether_two_intervals_overlap() -> None:
    """Both move together from draw to draw: .545 [.517, .581] is ahead of .502 [.474, .537] by .043 [.025, .062]."""
    few_shot = {"weak_detector": (0.545, 0.517, 0.581), "few_shot": (0.502, 0.474, 0.537)}
    assert standfirst(scored(spread=0.018, **few_shot))[0].endswith("alone stays below it at .50 [.47, .54].")
    assert standfirst(scored(spread=0.050, **few_shot))[0].endswith("alone ties with the weak one at .50 [.47, .54].")


def test_headline_of_a_full_run() -> None:
    summary = scored(weak_detector=(0.41, 0.38, 0.44), gradcam_single=(0.105, 0.09, 0.12))
    summary["recovered_fraction"] = RECOVERED
    assert headline(summary, 1300).replace("\u00a0", " ") == (
        "The weak detector reaches AP50 .41 [.38, .44] on 1,300 test images, 3.9 times plain Grad-CAM, "
        "and recovers 82 % [76, 88] of a fully supervised one."
    )


def test_headline_calls_a_difference_inside_the_interval_a_tie() -> None:
    summary = scored(spread=0.05, weak_detector=(0.41, 0.38, 0.44), gradcam_single=(0.37, 0.33, 0.40))
    summary["recovered_fraction"] = {"value": 0.97, "low": 0.9, "high": 1.04}
    assert headline(summary, 300).replace("\u00a0", " ") == (
        "The weak detector reaches AP50 .41 [.38, .44] on 300 test images, a tie with plain Grad-CAM at "
        ".37 [.33, .40], and recovers 97 % [90, 104] of a fully supervised one, a tie."
    )


def test_headline_says_when_plain_gradcam_wins() -> None:
    summary = scored(weak_detector=(0.10, 0.08, 0.12), gradcam_single=(0.37, 0.33, 0.40))
    assert "test images, below plain Grad-CAM at .37 [.33, .40]." in headline(summary, 3)


def test_headline_builds_no_ratio_on_nothing() -> None:
    summary = scored(weak_detector=(0.41, 0.38, 0.44), gradcam_single=(0.0, 0.0, 0.001))
    assert "against plain Grad-CAM’s .000 [.000, .001]" in headline(summary, 3)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        (
            {**scored(weak_detector=(0.41, 0.38, 0.44)), "recovered_fraction": None},
            "The weak detector reaches AP50 .41 [.38, .44] on 30 test images.",
        ),
        (
            {**scored(weak_detector=(0.41, 0.38, 0.44)), "recovered_fraction": RECOVERED},
            (
                "The weak detector reaches AP50 .41 [.38, .44] on 30 test images and recovers 82\u00a0% [76, 88] of a "
                "fully supervised one."
            ),
        ),
        (
            scored(recipe=(0.3, 0.25, 0.35), gradcam_single=(0.1, 0.05, 0.15)),
            "The recipe’s pseudo-boxes reach AP50 .30 [.25, .35] on 30 test images, 3.0 times plain Grad-CAM.",
        ),
        (
            {"classify": {"macro_auroc": {"value": 0.89, "low": 0.87, "high": 0.91}}},
            "The classifiers reach a macro AUROC of .89 [.87, .91] on 30 test images; no boxes were scored.",
        ),
        ({"classify": {"macro_auroc": None}}, "Nothing was scored in this run."),
    ],
)
def test_headline_is_silent_about_what_is_absent(summary: dict[str, Any], expected: str) -> None:
    assert headline(summary, 30) == expected


def test_headline_without_a_count_of_images() -> None:
    assert "on the test images" in headline(scored(weak_detector=(0.41, 0.38, 0.44)), None)


@pytest.mark.parametrize(
    ("few", "expected"),
    [
        ((0.30, 0.27, 0.33), "alone stays below it at .30 [.27, .33]."),
        ((0.39, 0.36, 0.42), "alone ties with the weak one at .39 [.36, .42]."),
        ((0.60, 0.57, 0.63), "alone does better, .60 [.57, .63]."),
    ],
)
def test_standfirst_tells_of_the_few_shot_rival_whoever_wins(few: tuple[float, float, float], expected: str) -> None:
    assert standfirst(scored(spread=0.03, weak_detector=(0.41, 0.38, 0.44), few_shot=few))[0].endswith(expected)


def test_standfirst_warns_when_a_blind_rival_is_near() -> None:
    said = standfirst(
        scored(
            spread=0.015,
            weak_detector=(0.06, 0.04, 0.08),
            mean_box=(0.05, 0.03, 0.07),
            centre_box=(0.07, 0.05, 0.09),
            random_map=(0.01, 0.0, 0.02),
        )
    )
    assert said == [
        "Mind: the weak detector is not clearly ahead of centre box and mean box; such boxes ignore the image."
    ]
    assert standfirst(scored(weak_detector=(0.41, 0.38, 0.44), mean_box=(0.05, 0.03, 0.07))) == []


def test_sources_keep_their_order_and_strangers_are_refused() -> None:
    names = " ".join(source.key for source in SOURCES)
    assert names == ("random_map centre_box mean_box gradcam_single recipe few_shot weak_detector supervised_detector")
    found = scored_sources({"scores": {"weak_detector": {}, "centre_box": {}}})
    assert [source.key for source in found] == ["centre_box", "weak_detector"]
    with pytest.raises(DataError, match="unknown source 'oracle' in scores; expected random_map, centre_box"):
        scored_sources({"scores": {"oracle": {}}})


def test_a_figure_without_interval_is_refused() -> None:
    with pytest.raises(DataError, match="expected a figure as value, low, high; got {'value': 0.4}"):
        Estimate.read({"value": 0.4})


def test_a_summary_that_does_not_compare_is_refused() -> None:
    summary = scored(weak_detector=(0.41, 0.38, 0.44), few_shot=(0.3, 0.2, 0.4))
    del summary["scores"]["few_shot"]["lead"]
    with pytest.raises(DataError, match=r"expected scores\.few_shot\.lead, found none; score the run again by"):
        standfirst(summary)
