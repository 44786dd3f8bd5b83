"""`weakray demo`: the pipeline of `configs/demo.yaml`, on made data, without network."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from pydantic import Field

from weakray.config import StrictModel, load
from weakray.pipeline import PipelineConfig, PipelineResult
from weakray.pipeline import run as run_pipeline


class DemoConfig(StrictModel):
    """Where the demo leaves its run."""

    out: Path = Field(Path("runs/demo"), description="run folder; an interrupted demo goes on in it")


def run(config: DemoConfig) -> PipelineResult:
    """Runs `configs/demo.yaml`."""
    shipped = Path(str(files("configs") / "demo.yaml"))
    return run_pipeline(load(PipelineConfig, shipped, {"out": str(config.out)}))
