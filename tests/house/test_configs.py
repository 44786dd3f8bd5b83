from __future__ import annotations

from pathlib import Path

import pytest

from weakray.config import load
from weakray.pipeline import PipelineConfig, plan

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_every_shipped_config_is_whole(path: Path) -> None:
    config = load(PipelineConfig, path)
    assert config.name == path.stem
    assert config.root == Path("runs") / path.stem
    assert [stage.name for stage in plan(config)][-2:] == ["eval.summary", "eval.report"]
    head = path.read_text().splitlines()[:3]
    assert head[0].startswith("# weakray ")
    assert head[1].startswith("#")
