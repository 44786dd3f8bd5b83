"""From report texts to a detector: `configs/reports.yaml` from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import ROOT
from weakray.config import load
from weakray.dataset import Dataset
from weakray.errors import ConfigError
from weakray.pipeline import PipelineConfig, plan, run


def test_reports_become_labels_and_labels_a_detector(tmp_path: Path) -> None:
    config = load(PipelineConfig, ROOT / "configs/reports.yaml", {"out": str(tmp_path / "run")})
    result = run(config)
    assert set(result.ap50) == {"centre_box", "recipe", "weak_detector"}
    simulated, labelled = Dataset.load(config.root / "dataset"), Dataset.load(config.root / "labelled")
    counts = json.loads((config.root / "reports/counts.json").read_text("utf-8"))
    assert counts["languages"] == {"fr": len(simulated.images)}
    # The reports say what the simulated labels say, and no blank is a statement: read well, nothing changes.
    assert labelled.info["relabelled"]["changed"] == 0
    assert np.array_equal(labelled.labels, simulated.labels, equal_nan=True)
    assert json.loads((config.root / "summary.json").read_text("utf-8"))["dataset"].endswith(labelled.sha256)
    before = {path: path.stat().st_mtime_ns for path in config.root.rglob("done.json")}
    run(config)
    assert before == {path: path.stat().st_mtime_ns for path in config.root.rglob("done.json")}


def test_what_the_pipeline_decides_may_not_be_set() -> None:
    config = load(PipelineConfig, ROOT / "configs/reports.yaml", {"reports.taxonomy": "x.yaml"})
    with pytest.raises(ConfigError, match=r"reports\.taxonomy: is set by the pipeline; remove it"):
        plan(config)
