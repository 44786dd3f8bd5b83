from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.balance import chexnet_weights, inverse_frequency, kinds, positive_weights
from classify.labels import (
    UNSURE,
    SoftLabelConfig,
    SoftLabels,
    Targets,
    Uncertainty,
    conditional,
    constant_findings,
    lift_ancestors,
    policies,
    targets,
    unit_draw,
    without,
)
from classify.platt import fit_findings
from classify.scores import finding_areas
from weakray.errors import ConfigError, DataError
from weakray.taxonomy import Finding, Taxonomy

NAN = float("nan")
# Child first, so that nothing can rely on parents standing before their children.
CHAIN = Taxonomy((Finding("C", "B"), Finding("B", "A"), Finding("A")))


@pytest.mark.parametrize(
    ("policy", "value", "counts"),
    [("ignore", 0.0, False), ("zeros", 0.0, True), ("ones", 1.0, True), ("multiclass", UNSURE, True)],
)
@pytest.mark.parametrize("images", [1, 3])
def test_uncertain_labels_follow_their_finding_policy(
    policy: Uncertainty, value: float, counts: bool, images: int
) -> None:
    made = targets(np.array([[-1.0, 1.0, 0.0]] * images), [policy, "ignore", "ones"], "zeros")
    assert made.values.tolist() == [[value, 1.0, 0.0]] * images
    assert made.values.dtype == np.float32
    assert made.mask.tolist() == [[counts, True, True]] * images


def soft(image_ids: list[str], findings: list[str], seed: int = 0, **ranges: tuple[float, float]) -> SoftLabels:
    return SoftLabels(SoftLabelConfig(**ranges), seed, image_ids, findings)


def test_soft_labels_lie_in_their_range_and_leave_certain_ones_alone() -> None:
    ids = [f"i{i}" for i in range(400)]
    labels = np.full((400, 3), -1.0)
    labels[:3] = [[0, 1, NAN], [1, 0, 0], [NAN, NAN, 1]]
    made = targets(labels, ["lsr-ones", "lsr-zeros", "lsr-ones"], "ignore", soft(ids, ["A", "B", "C"]))
    assert made.values[:3].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    assert made.mask[:3].tolist() == [[True, True, False], [True, True, True], [False, False, True]]
    ones, zeros = made.values[3:, [0, 2]], made.values[3:, 1]
    for drawn, low, high in ((ones, 0.55, 0.85), (zeros, 0.0, 0.3)):
        assert low <= drawn.min() < low + 0.01 < high - 0.01 < drawn.max() <= high + 1e-7
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.02)
    assert (
        abs(np.mean((ones[:, 0] - 0.7) * (ones[:, 1] - 0.7))) < 0.15 * 0.3**2 / 12
    )  # findings of an image are drawn apart
    assert made.hard.tolist()[:4] == [*made.mask.tolist()[:3], [False, False, False]]


def test_a_soft_label_depends_on_seed_image_and_finding_alone() -> None:
    """Whatever the order, the subset or the other findings: a resumed run and a second process draw the same."""
    labels, policy = np.full((4, 2), -1.0), ["lsr-ones"] * 2
    first = targets(labels, policy, "zeros", soft(["a", "b", "c", "d"], ["X", "Y"])).values  # type: ignore[arg-type]
    second = targets(labels[:2], policy, "zeros", soft(["d", "b"], ["Y", "X"])).values  # type: ignore[arg-type]
    assert second.tolist() == first[[3, 1]][:, ::-1].tolist()
    assert len(np.unique(first)) == 8
    other = targets(labels, policy, "zeros", soft(["a", "b", "c", "d"], ["X", "Y"], seed=1)).values  # type: ignore[arg-type]
    assert (other != first).all()
    # Pinned: another draw would change every trained model.
    assert unit_draw(0, "a", "X") == pytest.approx(0.47344643539417286, abs=1e-15)
    assert first[0, 0] == pytest.approx(0.55 + 0.3 * unit_draw(0, "a", "X"))


def test_ranges_of_soft_labels_are_settable_and_checked() -> None:
    labels = np.full((50, 1), -1.0)
    made = targets(labels, ["lsr-ones"], "zeros", soft([f"i{i}" for i in range(50)], ["A"], ones=(0.5, 0.52)))
    assert 0.5 <= made.values.min() < made.values.max() <= 0.52
    with pytest.raises(
        ConfigError, match=r"soft_labels\.zeros: expected 0 <= lowest <= highest <= 1, got 0\.4 and 0\.1"
    ):
        soft(["a"], ["A"], zeros=(0.4, 0.1))
    with pytest.raises(ConfigError, match=r"soft_labels\.ones: expected .*, got 0\.5 and 1\.2"):
        soft(["a"], ["A"], ones=(0.5, 1.2))
    with pytest.raises(ValueError, match="lsr-ones: expected soft labels of 50 images, got none"):
        targets(labels, ["lsr-ones"], "zeros")
    with pytest.raises(ValueError, match="lsr-ones: expected soft labels of 50 images, got those of 1"):
        targets(labels, ["lsr-ones"], "zeros", soft(["a"], ["A"]))


def test_blanks_are_zeros_or_ignored_whatever_the_uncertainty_policy() -> None:
    labels = np.array([[NAN, NAN], [1, NAN], [0, -1]])
    zeros = targets(labels, ["ones", "ignore"], "zeros")
    assert zeros.values.tolist() == [[0, 0], [1, 0], [0, 0]]
    assert zeros.mask.tolist() == [[True, True], [True, True], [True, False]]
    ignored = targets(labels, ["ones", "ignore"], "ignore")
    assert ignored.mask.tolist() == [[False, False], [True, False], [True, False]]


def test_odd_values_and_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected 1, 0, -1 \(uncertain\) or blank, got 0\.5"):
        targets(np.array([[0.5]]), ["ones"], "zeros")
    with pytest.raises(DataError, match=r"expected shape \(n, 2\), got \(3, 1\)"):
        targets(np.zeros((3, 1)), ["ones", "ones"], "zeros")


def test_policies_take_exceptions_by_name() -> None:
    assert policies(["A", "B"], "ignore", {"B": "ones"}) == ["ignore", "ones"]
    with pytest.raises(ConfigError, match="'D' is no finding; expected some of A, B"):
        policies(["A", "B"], "ignore", {"D": "ones"})


def test_ancestors_are_lifted_transitively_and_the_input_is_left_alone() -> None:
    labels = np.array([[1, 0, NAN], [-1, 0, 0], [-1, NAN, 1], [0, NAN, NAN], [NAN, 1, -1]], np.float32)
    before = labels.copy()
    lifted = lift_ancestors(labels, CHAIN)
    expected = np.array([[1, 1, 1], [-1, -1, -1], [-1, -1, 1], [0, NAN, NAN], [NAN, 1, 1]], np.float32)
    np.testing.assert_array_equal(lifted, expected)
    np.testing.assert_array_equal(labels, before)


def test_parents_of_uncertain_children_can_be_made_present() -> None:
    labels = np.array([[-1, 0, NAN], [0, -1, 0], [0, 0, -1], [NAN, 0, 0], [1, NAN, -1]], np.float32)
    lifted = lift_ancestors(labels, CHAIN, "parents-present")
    expected = np.array([[-1, 1, 1], [0, -1, 1], [0, 0, -1], [NAN, 0, 0], [1, 1, 1]], np.float32)
    np.testing.assert_array_equal(lifted, expected)


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, -1.0, NAN]), min_size=3, max_size=3), min_size=1, max_size=6))
def test_both_rules_are_consistent_and_done_at_once(rows: list[list[float]]) -> None:
    rank = {0.0: 0, -1.0: 1, 1.0: 2}
    for rule in ("order", "parents-present"):
        lifted = lift_ancestors(np.array(rows), CHAIN, rule)  # type: ignore[arg-type]
        np.testing.assert_array_equal(lift_ancestors(lifted, CHAIN, rule), lifted)  # type: ignore[arg-type]
        for before, (c, b, a) in zip(rows, np.nan_to_num(lifted).tolist(), strict=True):
            assert rank[c] <= rank[b] <= rank[a]
            assert rank[c] == rank[float(np.nan_to_num(before[0]))]  # a leaf is never touched


def test_a_child_counts_only_where_all_its_ancestors_are_present() -> None:
    labels = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, -1], [0, -1, 1]], np.float32)
    made = conditional(targets(labels, ["ignore"] * 3, "zeros"), CHAIN)
    assert made.mask.tolist() == [
        [True, True, True],
        [True, True, True],
        [False, True, True],
        [False, False, True],
        [False, False, False],
        [False, False, True],
    ]
    assert made.values[~made.mask].sum() == 0


def test_soft_parents_are_present_above_one_half_and_the_third_class_is_not() -> None:
    full = Targets(
        np.array([[0.6, 0.7, 1], [1, 0.2, 1], [0, 1, UNSURE], [UNSURE, 1, 1]], np.float32), np.ones((4, 3), bool)
    )
    made = conditional(full, CHAIN)
    assert made.mask.tolist() == [[True, True, True], [False, True, True], [False, False, True], [True, True, True]]
    assert made.values[made.mask].tolist() == full.values[made.mask].tolist()
    assert made.values[~made.mask].tolist() == [0, 0, 0]


def test_findings_of_one_kind_are_found_and_taken_out() -> None:
    values = np.array([[1, 0, 1, 0.7, UNSURE, 1], [0, 0, 1, 0.2, 0, 1], [0, 0, 1, 0.1, 0, 0]], np.float32)
    mask = np.ones((3, 6), bool)
    mask[2, 5] = False  # the only absent one
    full = Targets(np.where(mask, values, 0).astype(np.float32), mask)
    assert constant_findings(full) == [1, 2, 4, 5]
    left = without(full, [2, 5])
    assert left.mask.any(0).tolist() == [True, True, False, True, True, False]
    assert left.values[:, 2].tolist() == [0, 0, 0]
    assert full.mask[:, 2].all()
    nothing = Targets(np.zeros((2, 1), np.float32), np.zeros((2, 1), bool))
    assert constant_findings(nothing) == [0]
    assert constant_findings(Targets(np.zeros((0, 2), np.float32), np.zeros((0, 2), bool))) == [0, 1]


def test_scores_and_calibration_compare_with_certain_labels_alone() -> None:
    """A soft label, one of the third class and a masked one leave every figure as if the image were not there."""
    rng = np.random.default_rng(0)
    probability = rng.random((9, 1)).astype(np.float32)
    values = np.array([[1, 0, 1, 0, 0, 1, 0.7, UNSURE, 0]], np.float32).T
    mask = np.ones((9, 1), bool)
    mask[8] = False
    some, few = Targets(values, mask), Targets(values[:6], mask[:6])
    assert finding_areas(probability, some, ["A"]) == finding_areas(probability[:6], few, ["A"])
    assert finding_areas(probability, some, ["A"])["positives/A"] == 3
    assert fit_findings(probability, some, 1.0) == fit_findings(probability[:6], few, 1.0)


def test_positive_weights_by_hand_and_capped() -> None:
    values = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]], np.float32)
    mask = np.ones((4, 4), bool)
    mask[1, 0] = False  # 1 positive, 2 negatives count
    weights = positive_weights(Targets(values, mask), cap=2.5)
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx([2.0, 2.5, 1 / 3, 2.5])


def test_soft_labels_weigh_in_part_and_the_third_class_not_at_all() -> None:
    values = np.array([[1, 0.75], [0, 0.75], [0, UNSURE], [0, 0]], np.float32)
    mask = np.ones((4, 2), bool)
    mask[3, 0] = False
    labels = Targets(values, mask)
    positive, negative = kinds(labels)
    assert (positive.tolist(), negative.tolist()) == ([1, 1.5], [2, 1.5])
    assert positive_weights(labels, 10).tolist() == [2, 1]
    high, low = chexnet_weights(labels)
    assert high.tolist() == pytest.approx([2 / 3, 1 / 2])
    assert low.tolist() == pytest.approx([1 / 3, 1 / 2])
    assert inverse_frequency(labels).tolist() == pytest.approx([3 / 2.5, 2 / 2.5])


def test_weights_of_findings_without_labels_are_harmless() -> None:
    labels = Targets(np.array([[0, 0, 1]], np.float32), np.array([[True, False, True]]))
    assert positive_weights(labels, 4).tolist() == [4, 4, 0]
    assert [one.tolist() for one in chexnet_weights(labels)] == [[1, 0.5, 0], [0, 0.5, 1]]
    assert inverse_frequency(labels).tolist() == [1, 1, 1]
    assert inverse_frequency(Targets(np.zeros((2, 1), np.float32), np.ones((2, 1), bool))).tolist() == [1]
