from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from classify import calibrate, evaluate, predict
from classify.ensemble import Ensemble, EnsembleConfig, run
from classify.hierarchy import along_paths
from classify.labels import Targets
from classify.member import Member, load_member
from classify.platt import fit_findings
from classify.studies import StudyMode, group
from eval import summary
from weakray.dataset import Dataset
from weakray.errors import DataError, RunError
from weakray.imaging import prepare, read_image, to_batch

MakeMember = Callable[..., Path]
MakeVisits = Callable[..., Dataset]
Made = dict[str, Path]


@pytest.fixture(scope="module")
def made(visits: Dataset, make_member: MakeMember, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """For each mode an ensemble of two untrained members, calibrated on val's studies."""
    root, found = tmp_path_factory.mktemp("studies"), Made()
    modes: tuple[StudyMode, ...] = ("sum", "frontal", "by_view")
    for mode in modes:
        members = [make_member(root / f"{mode}{i}", 1 + i, studies=mode, size_px=48 + 16 * i) for i in range(2)]
        found[mode] = root / mode
        run(EnsembleConfig(data=visits.root, members=members, out=root / mode, draws=5, folds=2, threads=1))
    return found


def logits_by_hand(member: Member, data: Dataset, image_ids: list[str]) -> torch.Tensor:
    """A study's logits `(k,)`: one image after the other."""
    whole = torch.zeros(len(member.findings))
    for image_id in image_ids:
        pixels = torch.from_numpy(to_batch([prepare(read_image(data.path_of(image_id)), member.input)[0]]))
        lateral = data.images.loc[image_id, "view"] == "LATERAL"
        if member.studies == "frontal" and lateral:
            continue
        classifier = member.other if lateral and member.other is not None else member.model
        with torch.no_grad():
            whole += classifier(pixels).logits[0]
    return whole


def probabilities_by_hand(ensemble: Ensemble, data: Dataset, image_ids: list[str]) -> torch.Tensor:
    """The mean rule: a member's logits are summed, then calibrated, then go through the sigmoid and the class tree."""
    units = []
    for member, scaling in zip(ensemble.members, ensemble.fitted.scaling, strict=True):
        whole = logits_by_hand(member, data, image_ids)
        slope, offset = (torch.tensor([getattr(one, name) for one in scaling]) for name in ("slope", "offset"))
        units.append((whole * slope + offset).sigmoid())
    return along_paths(torch.stack(units).mean(0)[None], ensemble.taxonomy, ensemble.hierarchy)[0]


@pytest.mark.parametrize("mode", ["sum", "frontal", "by_view"])
def test_an_image_has_the_probabilities_of_its_study(
    made: Made, visits: Dataset, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "_ROWS", 7)  # studies a chunk, and rows a row group
    config = predict.PredictConfig(
        data=visits.root, ensemble=made[mode], out=tmp_path / "p", batch_size=3, workers=1, threads=1
    )
    result = predict.run(config)
    assert (result.images, result.left_out_images) == (48, 0)
    table = pd.read_parquet(tmp_path / "p/probabilities.parquet").set_index("image_id")
    assert list(table.index) == visits.image_ids
    loaded = Ensemble.load(made[mode])
    for first in (0, 24, 46):
        study = visits.image_ids[first : first + 2]
        expected = probabilities_by_hand(loaded, visits, study).numpy()
        for image_id in study:
            np.testing.assert_allclose(table.loc[image_id].to_numpy(), expected, rtol=1e-4, atol=1e-6)


def test_calibration_is_fitted_on_studies(made: Made, visits: Dataset) -> None:
    loaded, ids = Ensemble.load(made["sum"]), visits.ids_of("val")
    studies = [ids[i : i + 2] for i in range(0, 10, 2)]
    logits = torch.stack([logits_by_hand(loaded.members[1], visits, study) for study in studies])
    mass = np.array([visits.labels.loc[study, "Mass"].max() for study in studies])
    values = np.zeros((5, 4), np.float32)
    values[:, 3] = mass
    mask = np.zeros((5, 4), bool)
    mask[:, 3] = True
    expected = fit_findings(logits.numpy(), Targets(values, mask), 5.0, "platt")[3]
    assert loaded.fitted.scaling[1][3].slope == pytest.approx(expected.slope, rel=1e-4)
    assert loaded.fitted.scaling[1][3].offset == pytest.approx(expected.offset, rel=1e-3, abs=1e-4)
    assert loaded.studies == "sum"


@pytest.mark.parametrize("mode", ["sum", "by_view"])
def test_figures_are_of_studies(made: Made, visits: Dataset, tmp_path: Path, mode: str) -> None:
    config = evaluate.EvaluateConfig(
        data=visits.root, ensemble=made[mode], out=tmp_path / "v", min_positives=1, draws=5, threads=1
    )
    result = evaluate.run(config)
    assert result.images == 10
    assert f"{mode}: 5 studies of 10 images, each study read as a whole" in result.events
    assert "5 studies of 10 images" in (tmp_path / "v/evaluation.md").read_text()
    content = json.loads((tmp_path / "v/evaluation.json").read_text())
    loaded, ids = Ensemble.load(made[mode]), visits.ids_of("test")
    studies = [ids[i : i + 2] for i in range(0, 10, 2)]
    found = torch.stack([probabilities_by_hand(loaded, visits, study) for study in studies]).numpy()
    for k, name in enumerate(visits.taxonomy.names):
        truth = np.array([visits.labels.loc[study, name].max() == 1 for study in studies])
        entry = content["ensemble"]["per_finding"][name]
        assert (entry["positives"], entry["negatives"]) == (truth.sum(), 5 - truth.sum())
        if 0 < truth.sum() < 5:
            assert entry["auroc"]["value"] == pytest.approx(roc_auc_score(truth, found[:, k]))


def test_calibrations_are_compared_on_studies(made: Made, visits: Dataset, tmp_path: Path) -> None:
    members = [member.folder for member in Ensemble.load(made["frontal"]).members]
    config: dict[str, Any] = {"data": visits.root, "members": members, "out": tmp_path / "c"}
    result = calibrate.run(calibrate.CalibrateConfig(**config, draws=5, folds=2, min_positives=1, threads=1))
    assert result.images == 5
    assert "5 images are not frontal and left out, and with them 0 studies" in result.events


def test_members_of_unlike_studies_do_not_mix(made: Made, visits: Dataset, tmp_path: Path) -> None:
    members = [Ensemble.load(made[mode]).members[0].folder for mode in ("sum", "by_view")]
    with pytest.raises(RunError, match="have different settings of studies, sum and by_view; an ensemble needs equal"):
        run(EnsembleConfig(data=visits.root, members=members, out=tmp_path / "e"))


def test_an_image_by_itself_is_a_study_of_one_frontal_image(made: Made, visits: Dataset) -> None:
    """What maps and bundles are made from."""
    for mode in ("sum", "by_view"):
        loaded, frontal = Ensemble.load(made[mode]), visits.ids_of("test")[0]
        decoded = read_image(visits.path_of(frontal))
        seen = [torch.from_numpy(to_batch([prepare(decoded, spec)[0]])) for spec in loaded.inputs]
        expected = probabilities_by_hand(loaded, visits, [frontal])
        torch.testing.assert_close(loaded.probabilities(seen)[0], expected)


def test_studies_without_a_frontal_image_are_left_out_and_missed(
    made: Made, make_visits: MakeVisits, tmp_path: Path
) -> None:
    data = make_visits(tmp_path / "data")
    images = data.images.reset_index(drop=True)
    test = images.index[images["split"] == "test"]
    images.loc[test[:2], "view"] = "LATERAL"  # the first study
    images.to_parquet(data.root / "images.parquet", index=False)
    config = predict.PredictConfig(data=data.root, ensemble=made["frontal"], out=tmp_path / "p", threads=1)
    result = predict.run(config)
    assert (result.images, result.left_out_images) == (46, 2)
    assert "25 images are not frontal and left out, and with them 1 studies" in result.events
    table = pd.read_parquet(tmp_path / "p/probabilities.parquet")
    assert set(data.image_ids) - set(table["image_id"]) == set(data.ids_of("test")[:2])
    scored = summary.SummaryConfig(
        data=data.root, probabilities=tmp_path / "p/probabilities.parquet", boxes={}, out=tmp_path / "s"
    )
    with pytest.raises(DataError, match="2 test images have no probabilities, e.g. 'i038'; predict this dataset, by"):
        summary.run(scored)


def test_the_ninth_image_has_the_probabilities_of_the_other_eight(
    made: Made, make_visits: MakeVisits, tmp_path: Path
) -> None:
    data = make_visits(tmp_path / "data")
    images = data.images.reset_index(drop=True)
    val = images.index[images["split"] == "val"]
    images.loc[val[:9], ["patient_id", "study_id"]] = ["nine", "1"]
    images.loc[val[9], ["patient_id", "study_id"]] = ["ten", ""]
    images.to_parquet(data.root / "images.parquet", index=False)
    data = Dataset.load(data.root)
    predict.run(predict.PredictConfig(data=data.root, ensemble=made["sum"], out=tmp_path / "p", threads=1))
    table = pd.read_parquet(tmp_path / "p/probabilities.parquet").set_index("image_id")
    ids, kept = data.ids_of("val"), group(data, "val", "sum").image_ids
    (ninth,) = set(ids) - set(kept)
    assert data.images.loc[ninth, "view"] == "LATERAL"
    expected = probabilities_by_hand(Ensemble.load(made["sum"]), data, kept[:8]).numpy()
    for image_id in (ids[0], ninth):
        np.testing.assert_allclose(table.loc[image_id].to_numpy(), expected, rtol=1e-4, atol=1e-6)


def test_members_keep_their_mode(made: Made) -> None:
    for mode, folder in made.items():
        member = load_member(Ensemble.load(folder).members[0].folder)
        assert member.studies == mode
        assert (member.other is None) == (mode != "by_view")
