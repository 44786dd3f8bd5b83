from __future__ import annotations

import numpy as np
import pytest

from classify.labels import Targets, conditional, lift_ancestors, policies, positive_weights, targets
from weakray.errors import ConfigError, DataError
from weakray.taxonomy import Finding, Taxonomy

NAN = float("nan")
# Child first, so that nothing can rely on parents standing before their children.
CHAIN = Taxonomy((Finding("C", "B"), Finding("B", "A"), Finding("A")))


@pytest.mark.parametrize(
    ("policy", "value", "counts"), [("ignore", 0.0, False), ("zeros", 0.0, True), ("ones", 1.0, True)]
)
def test_uncertain_labels_follow_their_finding_policy(policy: str, value: float, counts: bool) -> None:
    made = targets(np.array([[-1.0, 1.0, 0.0]]), [policy, "ignore", "ones"], "zeros")  # type: ignore[list-item]
    assert made.values.tolist() == [[value, 1.0, 0.0]]
    assert made.mask.tolist() == [[counts, True, True]]


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


def test_a_child_counts_only_where_all_its_ancestors_are_present() -> None:
    labels = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 1, -1], [0, -1, 1]], np.float32)
    given = conditional(targets(labels, ["ignore"] * 3, "zeros"), CHAIN)
    assert given.mask.tolist() == [
        [True, True, True],
        [True, True, True],
        [False, True, True],
        [False, False, True],
        [False, False, False],
        [False, False, True],
    ]
    assert given.values[~given.mask].sum() == 0


def test_positive_weights_by_hand_and_capped() -> None:
    values = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 0]], np.float32)
    mask = np.ones((4, 4), bool)
    mask[1, 0] = False  # 1 positive, 2 negatives count
    weights = positive_weights(Targets(values, mask), cap=2.5)
    assert weights.dtype == np.float32
    assert weights.tolist() == pytest.approx([2.0, 2.5, 1 / 3, 2.5])
