"""The patient bootstrap: what is drawn, what an interval says, and when two methods tie."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from eval.intervals import Kind, PatientDraws, bootstrap, compare, comparison_of, interval_of
from weakray.errors import DataError

IMAGES = ["a1", "a2", "b1", "c1", "c2", "c3"]
PATIENT_OF = {image_id: image_id[0] for image_id in IMAGES}


def weights_of(draws: PatientDraws) -> npt.NDArray[np.float64]:
    return np.concatenate(list(draws.chunks()))


def test_whole_patients_are_drawn() -> None:
    weights = weights_of(PatientDraws.of(IMAGES, PATIENT_OF, n_draws=300))
    assert weights.shape == (300, 6)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3:] == weights[:, 3:4]).all()
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()  # three patients, three drawn
    assert weights.mean() == pytest.approx(1, abs=0.15)


def test_draws_depend_on_the_seed_alone() -> None:
    one, again, other = (weights_of(PatientDraws.of(IMAGES, PATIENT_OF, 200, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    # More draws begin with the same ones.
    np.testing.assert_array_equal(weights_of(PatientDraws.of(IMAGES, PATIENT_OF, 333, 1))[:200], one)


def test_the_interval_of_a_mean_is_that_of_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(5, 2, 400)
    ids = [str(i) for i in range(400)]
    draws = PatientDraws.of(ids, {i: i for i in ids}, n_draws=2000)
    interval = bootstrap(lambda w: float(w @ values / w.sum()), draws)
    # The percentile of 2,000 draws is itself known to about 0.06 standard errors.
    error = values.std() / math.sqrt(400)
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert interval == bootstrap(lambda w: float(w @ values / w.sum()), draws)


def test_images_of_one_patient_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(0).random(50), 4)
    ids = [str(i) for i in range(200)]
    alone = PatientDraws.of(ids, {i: i for i in ids}, 500)
    together = PatientDraws.of(ids, {i: str(int(i) // 4) for i in ids}, 500)
    narrow, wide = (bootstrap(lambda w: float(w @ values / w.sum()), draws) for draws in (alone, together))
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(2, rel=0.2)  # sqrt(4) fewer


def test_percentiles_by_hand() -> None:
    interval = interval_of(7.0, np.arange(101.0))
    assert interval.to_dict() == {"value": 7.0, "low": 2.5, "high": 97.5}


def test_undefined_draws_are_left_out_and_counted() -> None:
    interval = interval_of(1.0, [np.nan, 1.0, 3.0, np.nan])
    assert [interval.low, interval.high] == pytest.approx([1.05, 2.95])
    assert interval.undefined == 2
    nothing = interval_of(1.0, [np.nan, np.nan])
    assert nothing.undefined == 2
    with pytest.raises(DataError, match="undefined on all 2 bootstrap draws; take more draws"):
        nothing.to_dict()


def test_a_paired_difference_is_narrower_than_an_unpaired_one() -> None:
    values = np.random.default_rng(3).random(60)
    ids = [str(i) for i in range(60)]
    draws = PatientDraws.of(ids, {i: i for i in ids}, 400)
    better = compare(lambda w: float(w @ (values + 0.01)) / 60, lambda w: float(w @ values) / 60, draws)
    assert better.interval.value == pytest.approx(0.01)
    assert better.interval.low == pytest.approx(0.01)
    assert better.interval.high == pytest.approx(0.01)
    assert not better.tie
    unpaired = bootstrap(lambda w: float(w @ values) / 60, draws)
    assert unpaired.high - unpaired.low > 0.05  # far more than the difference that was told apart


def test_a_paired_ratio() -> None:
    values = np.random.default_rng(3).random(60)
    ids = [str(i) for i in range(60)]
    draws = PatientDraws.of(ids, {i: i for i in ids}, 400)
    half = compare(lambda w: float(w @ values), lambda w: float(w @ values) * 2, draws, "ratio")
    assert half.interval.to_dict() == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert not half.tie
    same = compare(lambda w: float(w @ values), lambda w: float(w @ values[::-1]), draws, "ratio")
    assert same.interval.value == pytest.approx(1)
    assert same.tie


@pytest.mark.parametrize(
    ("kind", "first", "tie"),
    [
        ("difference", [0.0, 1.0, 2.0], True),
        ("difference", [2.0, 3.0, 4.0], False),
        ("ratio", [0.0, 1.0, 2.0], True),
        ("ratio", [2.0, 3.0, 4.0], False),
        ("ratio", [0.1, 0.2, 0.3], False),
    ],
)
def test_ties(kind: Kind, first: list[float], tie: bool) -> None:
    assert comparison_of(1.0, first, 1.0, [1.0, 1.0, 1.0], kind).tie is tie


def test_a_ratio_to_nothing_is_undefined() -> None:
    ratio = comparison_of(0.5, [0.5, 0.6, 0.4], 0.0, [0.0, 0.5, 0.5], "ratio").interval
    assert math.isnan(ratio.value)
    assert ratio.undefined == 1
    assert ratio.low == pytest.approx(0.81)  # between 0.8 and 1.2


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="1 images have no patient, e.g. 'x'"):
        PatientDraws.of(["a1", "x"], PATIENT_OF)
    with pytest.raises(DataError, match="expected at least one image"):
        PatientDraws.of([], PATIENT_OF)
    with pytest.raises(ValueError, match="n_draws: expected at least 1, got 0"):
        PatientDraws.of(IMAGES, PATIENT_OF, 0)
