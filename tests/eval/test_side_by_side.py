from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eval.classification import FigureDraws, LabelledScores
from eval.classification_tables import against, estimate, side_by_side_markdown
from eval.intervals import PatientDraws
from eval.side_by_side import side_by_side
from weakray.errors import DataError

IDS = [f"i{i}" for i in range(80)]
DRAWS = PatientDraws.of(IDS, {i: str(int(i[1:]) // 2) for i in IDS}, 60)


def made(noise: float, seed: int = 1) -> FigureDraws:
    """Two findings whose probabilities follow the labels, more or less."""
    positive = np.random.default_rng(0).random((80, 2)) < 0.4
    probability = np.clip(0.3 + 0.4 * positive + np.random.default_rng(seed).normal(0, noise, (80, 2)), 0, 1)
    paired = LabelledScores(IDS, ["Mass", "Edema"], probability, positive, np.ones((80, 2), bool))
    return FigureDraws.of(paired, DRAWS, np.full((80, 2), 0.5))


def test_rows_are_compared_on_the_same_draws() -> None:
    rows = {"mean": made(0.3), "same": made(0.3), "poor": made(2.0, 5)}
    table = side_by_side(rows, "mean", 10)
    assert table["reference"] == "mean"
    assert "difference" not in table["rows"]["mean"]["auroc"]
    same = table["rows"]["same"]["auroc"]
    assert same["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "tie": True}
    poor, mean = table["rows"]["poor"]["auroc"], table["rows"]["mean"]["auroc"]
    assert poor["difference"]["value"] == pytest.approx(poor["value"] - mean["value"])
    assert poor["difference"]["high"] < 0
    assert not poor["difference"]["tie"]
    drawn = rows["poor"].drawn["auroc"].mean(1) - rows["mean"].drawn["auroc"].mean(1)
    assert [poor["difference"]["low"], poor["difference"]["high"]] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))
    assert list(mean) == ["value", "low", "high"]
    assert set(table["rows"]["mean"]) == {
        *("auroc", "auprc", "f1_at_fitted", "pf1", "brier", "calibration_error", "log_loss")
    }


def test_too_few_positives_leave_a_gap() -> None:
    table = side_by_side({"mean": made(0.3), "poor": made(2.0)}, "mean", 70)
    assert table["rows"]["poor"] == dict.fromkeys(table["rows"]["poor"])
    assert "| poor | – |" in side_by_side_markdown({**table, "images": 80, "split": "test"})


def test_mistakes_are_named() -> None:
    with pytest.raises(DataError, match="expected the reference among the rows mean, got 'none'"):
        side_by_side({"mean": made(0.3)}, "none", 1)
    one = made(0.3)
    other = replace(one, paired=replace(one.paired, image_ids=["x", *IDS[1:]]))
    with pytest.raises(DataError, match="other and mean: expected figures of the same images"):
        side_by_side({"mean": one, "other": other}, "mean", 1)


def test_cells_in_words() -> None:
    entry = {"value": 0.8714, "low": 0.842, "high": 0.9009}
    assert estimate(entry) == ".871 [.842, .901]"
    assert estimate(None) == "–"
    assert against(entry) == ""
    assert against({"difference": {"value": -0.0123, "tie": False}}) == " (-.012)"
    assert against({"difference": {"value": 0.0123, "tie": False}}) == " (+.012)"
    assert against({"difference": {"value": 0.00021, "tie": False}}) == " (+2e-04)"
    assert against({"difference": {"value": 0.5, "tie": True}}) == " (tie)"


def test_the_table_as_markdown() -> None:
    table = side_by_side({"mean": made(0.3), "same": made(0.3)}, "mean", 1)
    text = side_by_side_markdown({**table, "images": 80, "split": "val", "folds": 5, "members": ["a: resnet18, 64 px"]})
    assert "80 images of val, cross-fitted over 5 parts of the patients." in text
    assert "- member_0: a: resnet18, 64 px" in text
    header, rule, first, second = text.splitlines()[-4:]
    assert header == "|  | AUROC | AUPRC | F1 at fitted | pF1 | Brier | ECE | log loss |"
    assert rule.count("---:") == 7
    assert first.startswith("| mean | .")
    assert second.count("(tie)") == 7
