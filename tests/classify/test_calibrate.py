from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

from classify.calibrate import CalibrateConfig, run
from classify.ensemble import Ensemble
from weakray.dataset import Dataset
from weakray.errors import RunError
from weakray.imaging import prepare, read_image, to_batch


@pytest.fixture(scope="module")
def members(ensemble: Path) -> list[Path]:
    return [member.folder for member in Ensemble.load(ensemble).members]


def config(dataset: Dataset, members: list[Path], out: Path) -> CalibrateConfig:
    return CalibrateConfig(data=dataset.root, members=members, out=out, min_positives=1, draws=20, threads=1)


def test_reliability_before_and_after_each_calibration(
    dataset: Dataset, members: list[Path], ensemble: Path, tmp_path: Path
) -> None:
    result = run(config(dataset, members, tmp_path / "c"))
    content = json.loads((tmp_path / "c/calibration.json").read_text())
    assert list(content["rows"]) == ["member_0", "member_1", "ensemble"]
    assert (result.images, result.folds) == (content["images"], content["folds"]) == (10, 5)
    for row, means in content["means"].items():
        assert list(means) == ["none", "platt", "temperature"]
        assert result.log_loss[row]["platt"] == means["platt"]["log_loss"]["value"]
        assert "difference" not in means["none"]["brier"]
        assert set(means["temperature"]["brier"]["difference"]) == {"value", "low", "high", "tie"}
        assert content["rows"][row]["none"]["macro_brier"] == means["none"]["brier"]
    # Without calibration there is nothing to fit, so cross-fitting changes nothing.
    loaded, ids = Ensemble.load(ensemble), dataset.ids_of("val")
    seen = torch.from_numpy(to_batch([prepare(read_image(dataset.path_of(i)), loaded.input)[0] for i in ids]))
    with torch.no_grad():
        mass = loaded.members[0].model(seen).logits[:, 3].sigmoid().numpy()
    truth = (dataset.labels.loc[ids, "Mass"] == 1).to_numpy()
    found = content["rows"]["member_0"]["none"]["per_finding"]["Mass"]["brier"]["value"]
    assert found == pytest.approx(brier_score_loss(truth, mass), rel=1e-5)
    assert found != pytest.approx(content["rows"]["member_0"]["platt"]["per_finding"]["Mass"]["brier"]["value"])


def test_its_tables_and_diagrams(dataset: Dataset, members: list[Path], tmp_path: Path) -> None:
    run(config(dataset, members[:1], tmp_path / "c"))
    assert not (tmp_path / "c/reliability_ensemble.svg").exists()
    root = ET.fromstring((tmp_path / "c/reliability_member_0.svg").read_text())  # noqa: S314 - ours
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"none", "platt", "temperature", "Mass"} <= set(names)
    text = (tmp_path / "c/calibration.md").read_text()
    assert "10 images, cross-fitted over 5 parts of the patients" in text
    assert "|  | macro Brier | macro ECE | macro log loss |" in text
    assert "| finding | positives | ECE, none | ECE, platt | ECE, temperature |" in text


def test_it_is_done_once_and_the_same_each_time(
    dataset: Dataset, members: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(config(dataset, members, tmp_path / "a"))
    run(config(dataset, members, tmp_path / "b"))
    for name in ("calibration.json", "calibration.md", "reliability_ensemble.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    monkeypatch.setattr("classify.calibrate.val_outputs", lambda *_: pytest.fail("computed again"))
    assert run(config(dataset, members, tmp_path / "a")) == first
    assert np.isfinite([value or 0.0 for row in first.log_loss.values() for value in row.values()]).all()


def test_no_member_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="members: expected at least one, got none"):
        run(config(dataset, [], tmp_path / "c"))
