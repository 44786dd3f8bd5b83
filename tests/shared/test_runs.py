from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from weakray.config import StrictModel
from weakray.errors import RunError
from weakray.runs import finished_inputs, open_run


class StageConfig(StrictModel):
    unhashed: ClassVar[frozenset[str]] = frozenset({"data"})
    data: Path = Path("here")
    epochs: int = 1


def test_finished_stage_is_known_by_config_and_inputs(tmp_path: Path) -> None:
    root = tmp_path / "stage"
    run = open_run(root, StageConfig(), {"dataset": "aa"})
    assert run.finished() is None
    run.finish({"score": 0.5})
    assert open_run(root, StageConfig(data=Path("moved")), {"dataset": "aa"}).finished() == {"score": 0.5}
    assert open_run(root, StageConfig(), {"dataset": "bb"}).finished() is None
    assert not (root / "done.json").exists()


def test_what_a_finished_stage_read_is_told_only_under_its_settings(tmp_path: Path) -> None:
    root = tmp_path / "stage"
    assert finished_inputs(root, StageConfig()) is None
    run = open_run(root, StageConfig(), {"dataset": "aa"})
    assert finished_inputs(root, StageConfig()) is None  # begun, not finished
    run.finish({})
    assert finished_inputs(root, StageConfig(data=Path("moved"))) == {"dataset": "aa"}
    assert finished_inputs(root, StageConfig(epochs=2)) is None
    assert (root / "done.json").is_file()


def test_interrupted_stage_keeps_its_files_and_a_changed_one_does_not(tmp_path: Path) -> None:
    root = tmp_path / "stage"
    run = open_run(root, StageConfig(), {})
    (run.checkpoints / "last.safetensors").write_bytes(b"x")
    assert (open_run(root, StageConfig(), {}).checkpoints / "last.safetensors").exists()
    assert not (open_run(root, StageConfig(epochs=2), {}).checkpoints / "last.safetensors").exists()


def test_never_empties_a_folder_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(RunError, match="holds files that no stage of weakray made"):
        open_run(tmp_path, StageConfig(), {})
    assert (tmp_path / "thesis.doc").exists()


def test_metrics_drop_a_line_cut_by_a_kill(tmp_path: Path) -> None:
    run = open_run(tmp_path / "stage", StageConfig(), {})
    run.log(epoch=1, loss=0.5)
    with (run.root / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert run.metrics() == [{"epoch": 1, "loss": 0.5}]
    run.keep_metrics(run.metrics())
    run.log(epoch=2, loss=0.25)
    assert [row["epoch"] for row in run.metrics()] == [1, 2]
