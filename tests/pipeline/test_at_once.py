"""Stages side by side give what they give one after the other on as many cores."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.pipeline.conftest import MICRO, finish, kill_when, summary_of
from weakray.cli import main
from weakray.config import StrictModel
from weakray.errors import DataError
from weakray.files import write_json
from weakray.stages import Stage, run_stages

MADE = {
    "boxes.json",
    "chosen.yaml",
    "recipe.yaml",
    "probabilities.parquet",
    "detector.safetensors",
    "model.safetensors",
    "detector.onnx",
}


# Equal bytes need equal threads. A system without affinity (macOS) gives a stage that runs alone all cores, and nobody
# can take them from it; that stages run at the same time is tested there too, in test_tasks.py.
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be made as many as in the other run")
@pytest.mark.usefixtures("all_cores")
def test_killed_while_two_stages_run_it_ends_as_if_one_had_run_after_the_other(micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("run", str(MICRO), "--out", str(out), "--at-once", "2")
    done = set[Path]()

    def both_members_learn() -> bool:
        done.update(out.rglob("done.json"))
        return all((out / f"classify/member_{i}/stage.json").exists() for i in range(2))

    assert kill_when(both_members_learn, *words, cores=2)
    assert set(out.rglob("done.json")) == done  # by now all who could print have ended: nobody went on
    printed = finish(*words, cores=2)
    assert printed.startswith("[ 1] ingest (found)\n[ 2] classify.member_0")
    assert summary_of(out) == summary_of(micro)
    paths = [path.relative_to(micro) for path in sorted(micro.rglob("*")) if path.name in MADE]
    for path in paths:
        assert (out / path).read_bytes() == (micro / path).read_bytes(), path
    assert len(paths) >= 14
    assert list(json.loads((out / "summary.json").read_text())["seconds"]) == list(
        json.loads((micro / "summary.json").read_text())["seconds"]
    )


class Settings(StrictModel):
    """What a stage here is asked."""

    out: Path
    after: Path | None = None


def works(config: Settings) -> int:
    write_json(config.out / "done.json", {"seconds": 1.0})
    return os.getpid()


def finds_a_mistake(config: Settings) -> None:
    raise DataError(f"{config.out}:\nexpected better")


@pytest.fixture
def stages(tmp_path: Path) -> list[Stage]:
    """Two that may run at the same time, one that waits for both."""
    known = {name: Settings(out=tmp_path / name) for name in ("a", "b")}
    known["c"] = Settings(out=tmp_path / "a" / "c", after=tmp_path / "b")
    return [Stage(name, works, settings, settings.out) for name, settings in known.items()]


@pytest.mark.usefixtures("all_cores")
def test_stages_are_told_of_where_they_begin(stages: list[Stage], capfd: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        results = run_stages(stages, number)
        assert results["c"] == os.getpid()
        assert len(set(results.values())) == (1 if number == 1 else 3)
        found = "" if number == 1 else " (found)"
        said = capfd.readouterr()
        assert said.out == "".join(f"[{i:2d}] {name}{found}\n" for i, name in enumerate("abc", 1))
        assert said.err == ""


def test_a_mistake_that_a_stage_finds_is_one_line(
    stages: list[Stage], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    planned = [stages[0], replace(stages[1], verb=finds_a_mistake), *stages[2:]]
    monkeypatch.setattr("weakray.pipeline.plan", lambda _: planned)
    assert main(["run", str(MICRO), "--out", str(tmp_path), "--at-once", "2"]) == 2
    said = capfd.readouterr()
    assert said.err == f"weakray: {tmp_path / 'b'}: expected better\n"
    assert said.out == "[ 1] a\n[ 2] b\n"
