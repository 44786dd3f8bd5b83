from __future__ import annotations

import numpy as np
import pytest
import torch

from classify.fitting import FitConfig, Outputs, cross_fit, fit, member_row, patient_folds, rows, table_rows
from classify.labels import Targets, conditional
from classify.rules import RULES, WEIGHTED
from tests.classify.conftest import TREE
from weakray.taxonomy import Taxonomy


def made(images: int = 90, members: int = 2, seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    values = (rng.random((images, 4)) < 0.5).astype(np.float32)
    full = Targets(values, rng.random((images, 4)) < 0.9)
    logits = 2 * values - 1 + rng.normal(0, 1.5, (members, images, 4))
    return Outputs(torch.from_numpy(logits.astype(np.float32)), conditional(full, TREE), full, TREE, "conditional")


def test_patients_are_dealt_out_evenly_and_stay_together() -> None:
    patients = [f"p{i // 3}" for i in range(33)]
    fold = patient_folds(patients, 4, 0)
    assert len({(patient, number) for patient, number in zip(patients, fold.tolist(), strict=True)}) == 11
    assert sorted(np.bincount(fold) // 3) == [2, 3, 3, 3]
    assert fold.tolist() == patient_folds(patients, 4, 0).tolist()
    assert fold.tolist() != patient_folds(patients, 4, 1).tolist()
    assert patient_folds(["p"], 5, 0).tolist() == [0]


def test_nobody_is_judged_by_their_own_label() -> None:
    outputs, config = made(), FitConfig(folds=3)
    fold = patient_folds([f"p{i}" for i in range(90)], 3, 0)
    found = cross_fit(outputs, "platt", config, fold)
    assert set(found) == {*map(member_row, range(2)), *RULES}
    held = fold == 1
    changed = Targets(np.where(held[:, None], 1 - outputs.full.values, outputs.full.values), outputs.full.mask)
    other = Outputs(outputs.logits, conditional(changed, TREE), changed, TREE, "conditional")
    again = cross_fit(other, "platt", config, fold)
    for row in found:
        np.testing.assert_array_equal(again[row].probability[held], found[row].probability[held])
        np.testing.assert_array_equal(again[row].cut[held], found[row].cut[held])
        assert (again[row].probability[~held] != found[row].probability[~held]).any()


@pytest.mark.parametrize("images", [1, 3])
def test_rows_are_what_was_fitted_under_each_rule(images: int) -> None:
    outputs = made()
    fitted = fit(outputs, "none", FitConfig())
    logits = outputs.logits[:, :images]
    found = rows(logits, fitted.scaling, fitted.weights, Taxonomy.flat(TREE.names), "none")
    units = logits.sigmoid()
    torch.testing.assert_close(found["member_1"], units[1])
    torch.testing.assert_close(found["mean"], units.mean(0))
    first, second = fitted.weights["weighted"]
    torch.testing.assert_close(found["weighted"], first * units[0] + second * units[1])
    assert {len(thresholds) for thresholds in fitted.thresholds.values()} == {4}


def test_a_single_member_needs_no_weights_and_few_rows() -> None:
    fitted = fit(made(members=1), "platt", FitConfig())
    assert fitted.weights == {rule: [1.0] for rule in WEIGHTED}
    assert table_rows(1, "greedy") == ["member_0", "mean", "greedy"]
    assert table_rows(1, "mean") == ["member_0", "mean"]
    assert table_rows(2, "mean") == ["member_0", "member_1", *RULES]


def test_a_fold_without_others_is_left_as_it_is() -> None:
    """A single patient leaves nothing to fit on: the members speak for themselves."""
    outputs = made(5)
    found = cross_fit(outputs, "platt", FitConfig(), np.zeros(5, np.int64))
    expected = outputs.logits.sigmoid()[0, :, 1]
    np.testing.assert_allclose(found["member_0"].probability[:, 1], expected, rtol=1e-6)
    assert (found["mean"].cut == 0.5).all()
