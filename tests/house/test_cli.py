from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

from weakray.cli import COMMANDS, main
from weakray.config import StrictModel
from weakray.pipeline import PipelineConfig


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_a_verb(command: tuple[str, str]) -> None:
    run = import_module(COMMANDS[command][0]).run
    hints = get_type_hints(run)
    assert list(inspect.signature(run).parameters) == ["config"]
    assert issubclass(hints["config"], StrictModel)
    assert issubclass(hints["return"], StrictModel)
    for name, info in hints["config"].model_fields.items():
        assert info.description or (isinstance(info.annotation, type) and issubclass(info.annotation, StrictModel)), (
            name
        )


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for stage, verb in COMMANDS:
        assert f"weakray {stage} {verb}".strip() in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "unknown command 'fly'; expected one of: camgen, classify,"),
        (["ingest", "fly"], "unknown verb 'fly'; expected: weakray ingest phantom | nih | chexpert"),
        (["ingest", "phantom", "--wings", "2"], "unrecognized arguments: --wings"),
        (["run", "none.yaml"], "none.yaml: expected a YAML file, found none"),
    ],
)
def test_errors_are_one_line_and_exit_2(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_bad_setting_names_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("name: x\ningest: {source: phantom}\nclassify: {members: [{seed: 0, colour: red}, {seed: 1}]}\n")
    assert main(["run", str(config)]) == 2
    assert "classify.members.0.colour: unknown setting" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--ingest.seed", "11"], ["--ingest.seed=11"]])
def test_flags_reach_into_free_sections(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[PipelineConfig] = []

    def run(config: PipelineConfig) -> StrictModel:
        given.append(config)
        return config

    monkeypatch.setattr("weakray.pipeline.run", run)
    config = tmp_path / "c.yaml"
    config.write_text("name: x\ningest: {source: phantom, seed: 1, test: 30}\n")
    assert main(["run", *words, "--detect.train.steps", "7", str(config), "--name", "y"]) == 0
    assert given[0].ingest == {"source": "phantom", "seed": 11, "test": 30}
    assert given[0].detect.train == {"steps": 7}
    assert given[0].name == "y"


def test_ctrl_c_ends_it_without_a_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(config: PipelineConfig) -> StrictModel:
        raise KeyboardInterrupt

    monkeypatch.setattr("weakray.pipeline.run", run)
    config = Path(__file__).parents[2] / "configs" / "micro.yaml"
    assert main(["run", str(config)]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_flag_into_a_section_needs_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--ingest.seed"]) == 2
    assert "--ingest.seed: expected a value, found none" in capsys.readouterr().err


def test_the_command_starts_without_torch() -> None:
    heavy = "any(name in sys.modules for name in ('torch', 'pandas', 'onnxruntime'))"
    code = f"import sys; from weakray.cli import main; main(['--help']); sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
