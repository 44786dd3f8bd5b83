from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ingest.phantom.command import PhantomConfig, run
from ingest.phantom.reports import ReportLanguage, write_report
from ingest.phantom.taxonomy import FINDINGS
from ingest.reports.labeller import read_report
from weakray.dataset import Dataset

SMALL = {"short_side_px": (64, 72), "train": 60, "val": 8, "tune": 2, "test": 2, "workers": 1}
NO_BOXES = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("films")
    run(PhantomConfig.model_validate({**SMALL, "out": out, "reports": ("fr", "en")}))
    return Dataset.load(out)


@pytest.mark.parametrize("language", ["fr", "en"])
def test_what_a_report_says_is_what_is_read_out_of_it(phantom: Dataset, language: ReportLanguage) -> None:
    lines = (phantom.root / f"reports.{language}.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["image_id"] for entry in entries] == phantom.image_ids
    assert len({entry["report"] for entry in entries}) > 60
    values = phantom.labels.to_numpy()
    assert {1.0, 0.0, -1.0} == set(values[~np.isnan(values)])
    assert np.isnan(values).any()
    for entry in entries:
        read = read_report(entry["report"], language).labels
        wanted = phantom.labels.loc[entry["image_id"]].dropna().astype(int).to_dict()
        assert {name: read[name] for name in FINDINGS if name in read} == wanted, entry["report"]


def test_without_reports_the_folder_is_as_before(phantom: Dataset, tmp_path: Path) -> None:
    run(PhantomConfig.model_validate({**SMALL, "out": tmp_path}))
    assert not list(tmp_path.glob("reports.*"))
    other = Dataset.load(tmp_path)
    assert other.sha256 == phantom.sha256
    assert other.info["labels_and_boxes_sha256"] == phantom.info["labels_and_boxes_sha256"]


def test_a_blank_row_says_nothing_and_sides_follow_boxes() -> None:
    blank = np.full(len(FINDINGS), np.nan, np.float32)
    rng = np.random.default_rng(0)
    assert read_report(write_report(blank, *NO_BOXES, 64, rng, "en"), "en").labels == {}
    effusion = blank.copy()
    at = FINDINGS.index("Pleural Effusion")
    effusion[at] = 1
    for x0, side in ((4, "right"), (44, "left")):  # the patient's right is on the left of the film
        boxes = np.array([[x0, 30, x0 + 10, 50]], np.float32)
        text = write_report(effusion, boxes, np.array([at]), 64, np.random.default_rng(1), "en")
        assert side in text.lower()
