"""Classification figures against scikit-learn, against hand-computed figures, and at the edges."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, confusion_matrix, f1_score, roc_auc_score

from eval.classification import (
    FigureDraws,
    LabelledScores,
    areas_under_pr,
    areas_under_roc,
    score_classification,
)
from eval.intervals import PatientDraws
from weakray.errors import DataError

NAMES = ["Edema", "Nodule", "Mass"]


def tables(n: int = 120, seed: int = 0, decimals: int = 2) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Probabilities with ties, labels of all four kinds, two images a patient."""
    rng = np.random.default_rng(seed)
    ids = [f"i{k}" for k in range(n)]
    values = rng.choice([1.0, 0.0, -1.0, np.nan], (n, 3), p=[0.3, 0.4, 0.1, 0.2])
    probability = np.clip(0.35 + 0.2 * (values == 1) + rng.normal(0, 0.2, (n, 3)), 0, 1).round(decimals)
    labels = pd.DataFrame(values, index=ids, columns=NAMES)
    return pd.DataFrame(probability, index=ids, columns=NAMES), labels, {i: str(int(i[1:]) // 2) for i in ids}


@pytest.mark.parametrize("decimals", [1, 12])
@pytest.mark.parametrize("seed", range(4))
def test_areas_equal_scikit_learn_under_weights(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    score = rng.random(70).round(decimals)
    positive = rng.random(70) < 0.3 + 0.4 * score
    weights = rng.integers(0, 4, (70, 3)).astype(float)
    roc, pr = areas_under_roc(score, positive, weights), areas_under_pr(score, positive, weights)
    for draw in range(3):
        weight = weights[:, draw]
        assert roc[draw] == pytest.approx(roc_auc_score(positive, score, sample_weight=weight), abs=1e-12)
        assert pr[draw] == pytest.approx(average_precision_score(positive, score, sample_weight=weight), abs=1e-12)


def test_areas_by_hand() -> None:
    score = np.array([0.9, 0.8, 0.8, 0.1])
    positive = np.array([True, True, False, False])
    once = np.ones((4, 1))
    # Pairs won: .9 beats both, .8 ties with .8 (half) and beats .1: 3.5 of 4.
    assert areas_under_roc(score, positive, once) == pytest.approx(0.875)
    # At .9: recall 1/2 with precision 1; at .8: recall 1 with precision 2/3.
    assert areas_under_pr(score, positive, once) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # The positive of .9 twice: pairs won 2·2 + 1.5 of 6; recall 2/3 at precision 1, 1/3 at 3/4.
    twice = np.array([[2.0], [1.0], [1.0], [1.0]])
    assert areas_under_roc(score, positive, twice) == pytest.approx(5.5 / 6)
    assert areas_under_pr(score, positive, twice) == pytest.approx(2 / 3 + 1 / 3 * 3 / 4)


def test_areas_without_one_kind_are_undefined() -> None:
    score, positive = np.array([0.2, 0.7]), np.array([False, True])
    weights = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])  # both; the positive alone; the negative alone
    np.testing.assert_array_equal(areas_under_roc(score, positive, weights), [1, np.nan, np.nan])
    np.testing.assert_array_equal(areas_under_pr(score, positive, weights), [1, 1, np.nan])
    assert np.isnan(areas_under_roc(score[:0], positive[:0], weights[:0])).all()


def test_uncertain_and_blank_labels_are_masked_finding_by_finding() -> None:
    probabilities, labels, patient_of = tables()
    scores = score_classification(probabilities, labels, patient_of, draws=20)
    for name in NAMES:
        known = labels[name].isin([0, 1])
        entry = scores["per_finding"][name]
        assert entry["positives"] == (labels[name] == 1).sum()
        assert entry["negatives"] == (labels[name] == 0).sum()
        truth, guess = labels.loc[known, name] == 1, probabilities.loc[known, name]
        assert entry["auroc"]["value"] == pytest.approx(roc_auc_score(truth, guess))
        assert entry["auprc"]["value"] == pytest.approx(average_precision_score(truth, guess))
        assert entry["brier"]["value"] == pytest.approx(brier_score_loss(truth, guess))
        assert entry["f1_at_half"]["value"] == pytest.approx(f1_score(truth, guess >= 0.5))
        (tn, fp), (fn, tp) = confusion_matrix(truth, guess >= 0.5).tolist()
        assert entry["confusion_at_half"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
        assert entry["sensitivity_at_half"]["value"] == pytest.approx(tp / (tp + fn))
        assert entry["specificity_at_half"]["value"] == pytest.approx(tn / (tn + fp))
        for figure in ("auroc", "auprc", "brier", "f1_at_half", "sensitivity_at_half", "specificity_at_half", "pf1"):
            assert entry[figure]["low"] < entry[figure]["value"] < entry[figure]["high"]
    for kind, count in scores["confusion_at_half"].items():
        assert count == sum(scores["per_finding"][name]["confusion_at_half"][kind] for name in NAMES)
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_means_leave_out_findings_with_too_few_of_either_kind() -> None:
    probabilities, labels, patient_of = tables()
    labels.loc[labels.index[4:], "Mass"] = 0.0
    labels.loc[labels.index[:4], "Mass"] = 1.0  # four positives
    scores = score_classification(probabilities, labels, patient_of, draws=20)
    entries = scores["per_finding"]
    assert [entries[name]["in_mean"] for name in NAMES] == [True, True, False]
    assert entries["Mass"]["auroc"] is not None  # shown all the same
    counted = [entries[name] for name in NAMES[:2]]
    areas, support = [e["auroc"]["value"] for e in counted], [e["positives"] for e in counted]
    assert scores["macro_auroc"]["value"] == pytest.approx(np.mean(areas))
    assert scores["weighted_auroc"]["value"] == pytest.approx(np.average(areas, weights=support))
    assert scores["weighted_auroc"]["value"] != pytest.approx(scores["macro_auroc"]["value"], abs=1e-6)
    precision = [e["auprc"]["value"] for e in counted]
    assert scores["macro_auprc"]["value"] == pytest.approx(np.mean(precision))
    assert scores["weighted_auprc"]["value"] == pytest.approx(np.average(precision, weights=support))
    more = score_classification(probabilities, labels, patient_of, min_positives=4, draws=20)
    assert more["per_finding"]["Mass"]["in_mean"]
    assert more["macro_auroc"] != scores["macro_auroc"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_few_negatives_are_as_bad_as_few_positives(value: float) -> None:
    probabilities, labels, patient_of = tables()
    labels["Mass"] = [value] * 111 + [1 - value] * 9
    for least, counted in ((10, False), (9, True)):
        scores = score_classification(probabilities, labels, patient_of, min_positives=least, draws=5)
        assert scores["per_finding"]["Mass"]["in_mean"] is counted


def test_a_finding_of_one_kind_has_no_area() -> None:
    probabilities, labels, patient_of = tables()
    labels["Nodule"] = 0.0
    labels["Mass"] = np.nan
    scores = score_classification(probabilities, labels, patient_of, min_positives=0, draws=20)
    assert scores["per_finding"]["Nodule"]["auroc"] is None
    assert scores["per_finding"]["Nodule"]["auprc"] is None
    assert scores["per_finding"]["Nodule"]["brier"]["value"] > 0
    assert scores["per_finding"]["Nodule"]["sensitivity_at_half"] is None
    assert scores["per_finding"]["Nodule"]["specificity_at_half"]["value"] > 0
    blank = scores["per_finding"]["Mass"]
    assert (blank.pop("positives"), blank.pop("negatives"), blank.pop("in_mean")) == (0, 0, False)
    assert blank.pop("confusion_at_half") == dict.fromkeys(["tp", "fp", "fn", "tn"], 0)
    assert set(blank.values()) == {None}
    labels["Nodule"] = 1.0
    all_positive = score_classification(probabilities, labels, patient_of, draws=20)["per_finding"]["Nodule"]
    assert all_positive["auprc"] is None  # it would be 1 whatever the scores
    assert all_positive["f1_at_half"]["value"] > 0
    assert scores["macro_auroc"] == scores["per_finding"]["Edema"]["auroc"]


def test_fitted_thresholds_are_used_beside_one_half() -> None:
    probabilities, labels, patient_of = tables()
    thresholds = {"Edema": 0.3, "Nodule": 0.41, "Mass": 0.9}
    scores = score_classification(probabilities, labels, patient_of, draws=20, thresholds=thresholds)
    found: list[float] = []
    for name in NAMES:
        known = labels[name].isin([0, 1])
        truth, called = labels.loc[known, name] == 1, probabilities.loc[known, name] >= thresholds[name]
        entry = scores["per_finding"][name]
        assert entry["threshold"] == thresholds[name]
        found.append(f1_score(truth, called))
        assert entry["f1_at_fitted"]["value"] == pytest.approx(found[-1])
        assert entry["confusion_at_fitted"]["tp"] == (truth & called).sum()
    support = [scores["per_finding"][name]["positives"] for name in NAMES]
    assert scores["macro_f1_at_fitted"]["value"] == pytest.approx(np.mean(found))
    assert scores["weighted_f1_at_fitted"]["value"] == pytest.approx(np.average(found, weights=support))
    assert scores["macro_f1_at_half"]["value"] != pytest.approx(np.mean(found), abs=1e-3)
    plain = score_classification(probabilities, labels, patient_of, draws=20)
    assert not [key for key in (*plain, *plain["per_finding"]["Mass"]) if "fitted" in key or key == "threshold"]


def test_thresholds_may_differ_from_image_to_image() -> None:
    probabilities, labels, patient_of = tables()
    paired = LabelledScores.pair(probabilities, labels)
    drawn = PatientDraws.of(paired.image_ids, patient_of, 5)
    cut = np.where(np.arange(120)[:, None] % 2 == 0, 0.3, 0.6) * np.ones((1, 3))
    entry = FigureDraws.of(paired, drawn, cut).to_dict()["per_finding"]["Mass"]
    known = paired.known[:, 2]
    called = paired.probability[known, 2] >= cut[known, 2]
    assert entry["f1_at_fitted"]["value"] == pytest.approx(f1_score(paired.positive[known, 2], called))
    assert "threshold" not in entry


def test_no_finding_with_enough_positives_has_no_mean() -> None:
    probabilities, labels, patient_of = tables()
    scores = score_classification(probabilities, labels, patient_of, min_positives=100, draws=5)
    assert scores["macro_auroc"] is None
    assert scores["weighted_auprc"] is None


def test_the_seed_decides_the_draws() -> None:
    probabilities, labels, patient_of = tables()
    first, again, other = (
        score_classification(probabilities, labels, patient_of, draws=150, seed=s) for s in (3, 3, 4)
    )
    assert first == again
    assert first["macro_auroc"] != other["macro_auroc"]
    assert first["macro_auroc"]["value"] == other["macro_auroc"]["value"]


def test_rows_and_columns_pair_by_name() -> None:
    probabilities, labels, patient_of = tables()
    expected = score_classification(probabilities, labels, patient_of, draws=10)["macro_auroc"]
    shuffled = labels.sample(frac=1, random_state=0)
    shuffled.loc["not predicted"] = 1.0
    found = score_classification(probabilities[NAMES[::-1]], shuffled, patient_of, draws=10)
    assert found["macro_auroc"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, y: (p.drop(columns="Mass"), y), r"expected the findings \['Edema', 'Nodule', 'Mass'\], got"),
        (lambda p, y: (p * 3, y), r"probabilities: expected values in \[0, 1\]"),
        (lambda p, y: (p * np.nan, y), r"expected values in \[0, 1\] and no NaN"),
        (lambda p, y: (pd.concat([p, p]), y), "image ids that repeat"),
        (lambda p, y: (p, y.drop(index="i3")), "labels: 1 predicted images have none, e.g. 'i3'"),
        (lambda p, y: (p, y.replace(1.0, 0.7)), r"expected 1, 0, -1 \(uncertain\) or NaN .*, got 0.7"),
    ],
)
def test_mistakes_are_named(change: Any, message: str) -> None:
    probabilities, labels, _ = tables()
    with pytest.raises(DataError, match=message):
        LabelledScores.pair(*change(probabilities, labels))


def test_images_without_a_patient_are_refused() -> None:
    probabilities, labels, patient_of = tables()
    del patient_of["i5"]
    with pytest.raises(DataError, match="1 images have no patient, e.g. 'i5'"):
        score_classification(probabilities, labels, patient_of)
