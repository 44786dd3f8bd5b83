from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from classify.label_statistics import LabelsConfig, finding_labels, run, split_labels, split_warnings
from classify.labels import lift_ancestors
from classify.settings import TrainConfig
from classify.train import run as train
from weakray.cli import main
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.taxonomy import Finding, Taxonomy

NAN = float("nan")
CHAIN = Taxonomy((Finding("C", "B"), Finding("B", "A"), Finding("A")))


@pytest.mark.parametrize(
    ("present", "negative", "uncertain", "expected"),
    [
        (33456, 156453, 33739, 2.32834288),
        (27068, 188493, 8087, 5.36176931),
        (19841, 176610, 27197, 3.75462392),
        (52291, 158373, 12984, 2.42624282),
        (6047, 198831, 18770, 8.01188701),
    ],
    ids=["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pneumonia"],
)
def test_published_ratios_of_chexpert(present: int, negative: int, uncertain: int, expected: float) -> None:
    blank = negative - 7  # blanks count as absent there
    labels = np.repeat([1, 0, -1, NAN], [present, 7, uncertain, blank])
    found = finding_labels(labels, labels, "zeros")
    assert found.negative_to_positive_or_uncertain == pytest.approx(expected, rel=1e-8)
    assert found.negative_to_positive == pytest.approx(negative / present)
    assert found.uncertain_fraction == pytest.approx(uncertain / 223_648)
    assert (found.present, found.absent, found.uncertain, found.blank) == (present, 7, uncertain, blank)
    ignored = finding_labels(labels, labels, "ignore")
    assert ignored.negative_to_positive_or_uncertain == pytest.approx(7 / (present + uncertain))
    assert ignored.uncertain_fraction == pytest.approx(uncertain / (present + 7 + uncertain))


def test_a_split_by_hand() -> None:
    labels = np.array([[1, 0, NAN], [-1, NAN, 0], [0, 1, -1], [0, 0, 0]], np.float32)
    found = split_labels(labels, lift_ancestors(labels, CHAIN), CHAIN.names, "zeros")
    assert found.images == 4
    assert found.present_together == [[1, 1, 1], [1, 2, 2], [1, 2, 2]]
    assert found.findings["A"].lifted == {"absent to uncertain": 1, "uncertain to present": 1, "blank to present": 1}
    assert found.findings["B"].lifted == {"absent to present": 1, "blank to uncertain": 1}
    assert found.findings["C"].lifted == {}
    one = found.findings["A"]
    assert (one.present, one.absent, one.uncertain, one.blank) == (2, 1, 1, 0)
    assert [one.negative_to_positive, one.negative_to_positive_or_uncertain] == pytest.approx([0.5, 1 / 3])
    present = split_labels(labels, lift_ancestors(labels, CHAIN, "parents-present"), CHAIN.names, "zeros")
    assert present.findings["A"].lifted == {"absent to present": 1, "uncertain to present": 1, "blank to present": 1}
    assert present.findings["B"].lifted == {"absent to present": 1, "blank to present": 1}


def test_warnings_name_what_is_missing() -> None:
    labels = np.array([[NAN, 0, 1, NAN, -1], [NAN, -1, 1, 1, 0]], np.float32)
    findings = ["A", "B", "C", "D", "E"]
    made = split_labels(labels, labels, findings, "zeros")
    expected = [
        "A: all 2 labels are blank",
        "B: no present label (1 absent, 1 uncertain)",
        "C: no absent label (2 present, 0 uncertain)",
        "E: no present label (1 absent, 1 uncertain)",
    ]
    assert split_warnings("train", made, "zeros") == [f"train: {line}" for line in expected]
    expected.insert(3, "D: no absent label (1 present, 0 uncertain)")
    assert split_warnings("train", made, "ignore") == [f"train: {line}" for line in expected]
    assert "val: B: 1 uncertain labels, which no score counts" in split_warnings("val", made, "zeros")


def relabelled(data: Dataset, change: Callable[[pd.DataFrame, Any], None]) -> Dataset:
    """The dataset with labels changed in place by `change(labels, train rows)`."""
    labels = data.labels.copy()
    change(labels, (data.images["split"] == "train").to_numpy())
    labels.reset_index().to_parquet(data.root / "labels.parquet", index=False)
    return Dataset.load(data.root)


def hide_mass(labels: pd.DataFrame, rows: Any) -> None:
    labels.loc[rows, "Mass"] = np.nan


def test_the_verb_counts_every_split_and_says_aloud_what_is_amiss(
    make_spots: Callable[..., Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = relabelled(make_spots(tmp_path / "data"), hide_mass)
    words = ["classify", "labels", "--data", str(data.root), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "warning: labels: train: Mass: all 24 labels are blank\n" in captured.err
    assert "train: Mass: all 24 labels are blank" in captured.out
    report = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert list(report["splits"]) == ["train", "val", "tune", "test"]
    assert [part["images"] for part in report["splits"].values()] == [24, 10, 4, 10]
    for split, part in report["splits"].items():
        for name, one in part["findings"].items():
            own = data.labels.loc[data.ids_of(split), name]
            assert one["present"] == (own == 1).sum()
            assert one["blank"] == own.isna().sum()
            assert sum(one[kind] for kind in ("present", "absent", "uncertain", "blank")) == len(own)
    first = (tmp_path / "out" / "labels.json").read_bytes()
    again = run(LabelsConfig(data=data.root, out=tmp_path / "out"))
    assert "train: Mass: all 24 labels are blank" in again.warnings
    assert (again.images, again.findings, again.lifted_labels) == (48, 4, 0)
    assert run(LabelsConfig(data=data.root, out=tmp_path / "other")) == again
    assert (tmp_path / "other" / "labels.json").read_bytes() == first


def test_a_missing_split_is_reported(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data", others=0)
    result = run(LabelsConfig(data=data.root, out=tmp_path / "out"))
    assert "val: no image" in result.warnings
    assert not any(line.startswith("test") for line in result.warnings)


def settings(data: Path, out: Path, **changed: Any) -> TrainConfig:
    model = {"backbone": "test_resnet", "input": {"size_px": 48}}
    plain = {"data": data, "out": out, "model": model, "epochs": 1, "batch_size": 6, "threads": 1, "precision": "fp32"}
    return validate(TrainConfig, plain | changed)


def test_training_leaves_out_what_nothing_would_teach(
    make_spots: Callable[..., Dataset], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = relabelled(make_spots(tmp_path / "data"), hide_mass)
    result = train(settings(data.root, tmp_path / "m"))
    assert result.untaught == ["Mass"]
    assert "warning: labels: train: Mass: left out of the loss, for nothing would teach it" in capsys.readouterr().err
    report = json.loads((tmp_path / "m" / "labels.json").read_text())
    assert list(report["splits"]) == ["train", "val"]
    assert "train: Mass: all 24 labels are blank" in report["warnings"]

    def hide_all(labels: pd.DataFrame, rows: Any) -> None:
        labels.loc[rows] = 0.0

    empty = relabelled(data, hide_all)
    with pytest.raises(DataError, match="no finding has both present and absent train labels that count"):
        train(settings(empty.root, tmp_path / "n"))


@pytest.mark.parametrize(
    "changed",
    [
        {"uncertainty": "lsr-ones"},
        {"uncertainty": "lsr-zeros", "soft_labels": {"zeros": [0.1, 0.2]}, "consistency": "parents-present"},
        *({"loss": {"kind": kind}} for kind in ("chexnet", "focal", "asl", "auc_margin", "unconditional")),
    ],
    ids=lambda changed: "-".join(map(str, changed.get("loss", changed).values())),
)
def test_training_runs_with_every_policy_and_loss(dataset: Dataset, tmp_path: Path, changed: dict[str, Any]) -> None:
    result = train(settings(dataset.root, tmp_path / "m", **changed))
    assert (result.epochs, result.untaught) == (1, [])
