from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from weakray import runs
from weakray.config import StrictModel
from weakray.errors import RunError
from weakray.runs import finished_inputs, open_run

BEGIN = (  # a stage, in a process of its own
    "from pathlib import Path; from weakray.config import StrictModel; from weakray.runs import open_run; "
    "run = open_run(Path('{}'), StrictModel(), {{}})"
)


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


def test_one_process_at_a_time_works_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_PATIENCE_S", 0.1)
    root = tmp_path / "stage"
    other = f"{BEGIN.format(root)}; (run.root / 'made').write_text('x'); print('at work', flush=True); input(); "
    other += "print(run.finish({}))"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", other], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        for config in (StrictModel(), StageConfig()):  # to share its work, and to do away with it
            with pytest.raises(
                RunError, match="stage: another process is at work in it; wait until it ends, or end it"
            ):
                open_run(root, config, {})
        assert (root / "made").read_text() == "x"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "None\n"
        assert open_run(root, StrictModel(), {}).finished() == {}  # while the other process is still there
        assert open_run(root, StageConfig(), {}).finished() is None
        assert not (root / "made").exists()
        process.stdin.close()


def test_the_folder_of_a_process_that_died_is_free(tmp_path: Path) -> None:
    other = f"{BEGIN.format(tmp_path / 'stage')}; run.log(step=1); import os; os._exit(9)"
    assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 9
    assert open_run(tmp_path / "stage", StrictModel(), {}).metrics() == [{"step": 1}]


def test_a_stage_whose_lock_was_taken_away_ends_all_the_same(tmp_path: Path) -> None:
    run = open_run(tmp_path / "stage", StageConfig(), {})
    (run.root / ".lock").unlink()
    run.finish({"score": 0.5})
    assert open_run(run.root, StageConfig(), {}).finished() == {"score": 0.5}


def test_told_to_another_process_it_is_the_folder_alone(tmp_path: Path) -> None:
    run = open_run(tmp_path / "stage", StageConfig(), {})
    told = pickle.loads(pickle.dumps(run))
    assert (told.root, told.key, told.started_s, told.lock) == (run.root, run.key, run.started_s, None)
    assert run.lock is not None
    assert run.lock.is_locked


def test_nothing_is_written_where_a_finished_stage_is_found(tmp_path: Path) -> None:
    root = tmp_path / "stage"
    open_run(root, StageConfig(), {}).finish({"score": 0.5})
    before = sorted(root.iterdir())
    assert [path.name for path in before] == ["config.yaml", "done.json", "environment.json", "stage.json"]
    assert open_run(root, StageConfig(), {}).finished() == {"score": 0.5}
    assert sorted(root.iterdir()) == before


def test_metrics_drop_a_line_cut_by_a_kill(tmp_path: Path) -> None:
    run = open_run(tmp_path / "stage", StageConfig(), {})
    run.log(epoch=1, loss=0.5)
    with (run.root / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert run.metrics() == [{"epoch": 1, "loss": 0.5}]
    run.keep_metrics(run.metrics())
    run.log(epoch=2, loss=0.25)
    assert [row["epoch"] for row in run.metrics()] == [1, 2]
