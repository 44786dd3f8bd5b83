from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from classify.ensemble import Ensemble
from classify.evaluate import EvaluateConfig, run
from classify.rules import RULES
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.imaging import prepare, read_image, to_batch
from weakray.taxonomy import Finding, Taxonomy

MakeSpots = Callable[..., Dataset]


@pytest.fixture(scope="module")
def evaluated(ensemble: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "v"
    result = run(EvaluateConfig(data=dataset.root, ensemble=ensemble, out=out, min_positives=1, draws=20, threads=1))
    assert (result.images, result.findings, result.findings_in_mean, result.events) == (10, 4, 4, [])
    return out


def read(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "evaluation.json").read_text()))


def test_figures_are_those_of_the_ensemble_and_each_member(evaluated: Path, ensemble: Path, dataset: Dataset) -> None:
    content = read(evaluated)
    assert (content["split"], content["images"], content["patients"], content["rule"]) == ("test", 10, 10, "mean")
    loaded, ids = Ensemble.load(ensemble), dataset.ids_of("test")
    seen = torch.from_numpy(to_batch([prepare(read_image(dataset.path_of(i)), loaded.input)[0] for i in ids]))
    mass = (dataset.labels.loc[ids, "Mass"] == 1).to_numpy()
    together = loaded.probabilities(seen)[:, 3].numpy()
    found = content["ensemble"]["per_finding"]["Mass"]
    assert found["positives"] == mass.sum()
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(mass, together))
    threshold = loaded.thresholds["Mass"]
    assert found["threshold"] == threshold
    assert found["f1_at_fitted"]["value"] == pytest.approx(f1_score(mass, together >= threshold))
    with torch.no_grad():
        second = loaded.members[1].model(seen).logits[:, 3].numpy()
    assert len(content["members"]) == 2
    assert content["members"][1]["per_finding"]["Mass"]["auprc"]["value"] == pytest.approx(
        average_precision_score(mass, second)  # a calibrated root ranks as its logits do
    )


def test_thresholds_were_fitted_on_val_not_on_test(evaluated: Path, ensemble: Path, dataset: Dataset) -> None:
    loaded, ids = Ensemble.load(ensemble), dataset.ids_of("val")
    seen = torch.from_numpy(to_batch([prepare(read_image(dataset.path_of(i)), loaded.input)[0] for i in ids]))
    probability = loaded.probabilities(seen)[:, 3].numpy()
    truth = (dataset.labels.loc[ids, "Mass"] == 1).to_numpy()
    scores = [f1_score(truth, probability >= cut) for cut in probability]
    threshold = read(evaluated)["ensemble"]["per_finding"]["Mass"]["threshold"]
    assert f1_score(truth, probability >= threshold) == max(scores)


def test_members_and_rules_stand_side_by_side(evaluated: Path) -> None:
    content = read(evaluated)
    table = content["side_by_side"]
    assert list(table["rows"]) == ["member_0", "member_1", *RULES]
    for figure in ("auroc", "f1_at_fitted", "brier", "calibration_error"):
        assert table["rows"]["mean"][figure] == content["ensemble"][f"macro_{figure}"]
        assert table["rows"]["member_1"][figure]["value"] == content["members"][1][f"macro_{figure}"]["value"]
        assert table["rows"]["median"][figure]["difference"]["tie"]  # of two, the median is the mean


def test_the_tables_in_words(evaluated: Path) -> None:
    text = (evaluated / "evaluation.md").read_text()
    content = read(evaluated)
    for heading in ("## Ranking", "## Decisions at .5", "## Decisions at the thresholds of highest F1 on val"):
        assert heading in text
    assert "| AUROC, CheXpert † | AUROC, CheXNet † |" in text
    assert "| Consolidation | " in text
    assert "| .899 | .790 |" in text
    assert "† published on their own test set, not on yours." in text
    counts = content["ensemble"]["confusion_at_half"]
    assert f"| sum |  | {counts['tp']} | {counts['fp']} | {counts['fn']} | {counts['tn']} |" in text
    assert sum(counts.values()) == 40


@pytest.mark.parametrize(("name", "lines"), [("roc", 3), ("pr", 3), ("reliability", 1)])
def test_the_plots_have_a_chart_a_finding(evaluated: Path, name: str, lines: int) -> None:
    root = ET.fromstring((evaluated / f"{name}.svg").read_text())  # noqa: S314 - ours
    space = "{http://www.w3.org/2000/svg}"
    charts = [group for group in root.findall(f"{space}g") if group.get("transform")]
    assert [chart.findtext(f"{space}text") for chart in charts] == ["Consolidation", "Opacity", "Pneumonia", "Mass"]
    assert {len(chart.findall(f".//{space}polyline")) for chart in charts} == {lines}


def test_a_finished_evaluation_is_not_done_again(
    evaluated: Path, ensemble: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("classify.evaluate.member_logits", lambda *_, **__: pytest.fail("computed again"))
    config = EvaluateConfig(data=dataset.root, ensemble=ensemble, out=evaluated, min_positives=1, draws=20, threads=1)
    assert run(config).images == 10


OTHER = Taxonomy((Finding("Lump", synonyms=("Mass",)), Finding("Fracture"), Finding("consolidation"), Finding("Edema")))


@pytest.fixture(scope="module")
def elsewhere(make_spots: MakeSpots, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_spots(tmp_path_factory.mktemp("elsewhere") / "data", taxonomy=OTHER, seed=4, train=2, others=12)


def test_another_dataset_is_scored_on_shared_findings_only(ensemble: Path, elsewhere: Dataset, tmp_path: Path) -> None:
    config = EvaluateConfig(
        data=elsewhere.root, ensemble=ensemble, out=tmp_path / "v", min_positives=1, draws=20, threads=1
    )
    result = run(config)
    content = read(tmp_path / "v")
    assert list(content["ensemble"]["per_finding"]) == ["Consolidation", "Mass"]
    assert result.findings == 2
    assert content["only_classifiers"] == ["Opacity", "Pneumonia"]
    ids = elsewhere.ids_of("test")
    fractures = int((elsewhere.labels.loc[ids, "Fracture"] == 1).sum())
    assert list(content["only_dataset"]) == ["Fracture", "Edema"]
    assert content["only_dataset"]["Fracture"]["positive"] == fractures
    assert result.events == content["events"]
    assert result.events[0].endswith("has no such labels: Opacity, Pneumonia")
    assert f"the classifiers do not know them: Fracture ({fractures} positive)" in result.events[1]
    loaded = Ensemble.load(ensemble)
    seen = torch.from_numpy(to_batch([prepare(read_image(elsewhere.path_of(i)), loaded.input)[0] for i in ids]))
    found = loaded.probabilities(seen).numpy()
    for ours, theirs in (("Mass", "Lump"), ("Consolidation", "consolidation")):
        truth = (elsewhere.labels.loc[ids, theirs] == 1).to_numpy()
        entry = content["ensemble"]["per_finding"][ours]
        expected = roc_auc_score(truth, found[:, loaded.findings.index(ours)])
        assert entry["auroc"]["value"] == pytest.approx(expected)
        assert entry["threshold"] == loaded.thresholds[ours]
    assert "not scored" in (tmp_path / "v/evaluation.md").read_text()


def test_a_dataset_that_shares_nothing_is_refused(ensemble: Path, make_spots: MakeSpots, tmp_path: Path) -> None:
    other = make_spots(tmp_path / "data", taxonomy=Taxonomy.flat(["Fracture", "Edema"]), train=2, others=2)
    text = "shares no finding with the classifiers; they know Consolidation, .*, it labels Fracture, Edema; .* synonym"
    with pytest.raises(DataError, match=text):
        run(EvaluateConfig(data=other.root, ensemble=ensemble, out=tmp_path / "v"))


def test_findings_of_one_kind_are_shown_and_reported(ensemble: Path, make_spots: MakeSpots, tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data", train=2)
    labels, test = data.labels.copy(), data.ids_of("test")
    labels.loc[test, "Mass"] = 1.0
    labels.loc[test, "Pneumonia"] = np.nan
    labels.rename_axis("image_id").reset_index().to_parquet(data.root / "labels.parquet", index=False)
    config = EvaluateConfig(data=data.root, ensemble=ensemble, out=tmp_path / "v", min_positives=1, draws=20, threads=1)
    result = run(config)
    assert result.events == ["Pneumonia: no positive in test", "Mass: no negative in test"]
    assert result.findings_in_mean == 2
    found = read(tmp_path / "v")["ensemble"]["per_finding"]
    assert (found["Mass"]["auroc"], found["Mass"]["in_mean"]) == (None, False)
    assert found["Mass"]["brier"] is not None
    assert "nothing to draw" in (tmp_path / "v/roc.svg").read_text()
    assert pd.isna(labels.loc[test, "Pneumonia"]).all()


def test_a_split_without_images_is_refused(ensemble: Path, make_spots: MakeSpots, tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data", train=2, others=0)
    with pytest.raises(DataError, match="expected images in split test, got none"):
        run(EvaluateConfig(data=data.root, ensemble=ensemble, out=tmp_path / "v"))
