from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image

from classify.settings import TrainConfig
from classify.sweep.command import run
from classify.sweep.record import Direction
from classify.sweep.report import Row, ranked, write_plot
from classify.sweep.space import Dimension, parameters
from classify.train import TrainResult
from tests.classify.sweeps import SPACE, pretend, settings, smooth
from weakray.cli import main
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError


def test_rows_are_ranked_by_score_and_those_without_come_last() -> None:
    scores = [0.5, None, 0.9, 0.5, 0.0]
    rows = [Row(i, "oom" if score is None else "done", score, 1, {}, "") for i, score in enumerate(scores)]
    assert [row.number for row in ranked(rows, "maximize")] == [2, 0, 3, 4, 1]
    assert [row.number for row in ranked(rows, "minimize")] == [4, 0, 3, 2, 1]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_the_plot_is_the_same_for_the_same_rows(tmp_path: Path, direction: Direction) -> None:
    space = SPACE | {"clip_norm": {"low": 0.5, "high": 2.0}}
    varied = parameters({path: validate(Dimension, value) for path, value in space.items()})
    values = {"optimizer.lr": 1e-3, "batch_size": 8, "model.output_stride": "null", "clip_norm": 1.0}
    rows = [
        Row(0, "done", 0.5, 1, values, ""),
        Row(1, "oom", None, None, values, "x"),
        Row(2, "done", 0.7, 1, values, ""),
    ]
    for name in ("a", "b"):
        write_plot(tmp_path / f"{name}.png", rows, varied, "val_loss", direction)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (1386, 704)  # two rows of three panels
        assert len(set(image.convert("L").resize((60, 30)).tobytes())) > 10


def test_importance_names_the_setting_that_matters(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, lambda config: [config.optimizer.lr])
    space = {"optimizer.lr": {"low": 0.1, "high": 1.0}, "optimizer.weight_decay": {"low": 0.0, "high": 1.0}}
    run(settings(dataset.root, tmp_path / "m", space=space, trials=30, startup_trials=30))
    line = (tmp_path / "m/table.md").read_text().splitlines()[-1]
    assert line.startswith("Importance: optimizer.lr 0.")
    first, second = (float(part.split()[-1]) for part in line.split(","))
    assert first > 0.8 > second
    assert first + second == pytest.approx(1, abs=0.011)


def test_the_file_for_wandb_gives_commands_that_train(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    pretend(monkeypatch, smooth)
    space = SPACE | {
        "augment.rotate_deg": {"low": 0.0, "high": 10.0, "step": 2.5},
        "seed": {"low": 1, "high": 9, "log": True},
    }
    out = tmp_path / "a sweep"
    run(settings(dataset.root, out, space=space, trials=1, wandb_sweep=True))
    content = yaml.safe_load((out / "wandb_sweep.yaml").read_text())
    assert content["metric"] == {"name": "val_macro_auroc", "goal": "maximize"}
    assert content["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2},
        "batch-size": {"values": [4, 8, 12]},
        "model.output-stride": {"values": [16, "null"]},
        "augment.rotate-deg": {"values": [0.0, 2.5, 5.0, 7.5, 10.0]},
        "seed": {"distribution": "q_log_uniform_values", "q": 1, "min": 1, "max": 9},
    }
    drawn = {
        "optimizer.lr": 0.003,
        "batch-size": 8,
        "model.output-stride": "null",
        "seed": 4,
        "augment.rotate-deg": 2.5,
    }
    flags = create_sweep_command_args({"args": {name: {"value": value} for name, value in drawn.items()}})["args"]
    words = [*create_sweep_command(content["command"])[:-1], *flags]
    assert words[:4] == ["/usr/bin/env", "sh", "-c", content["command"][3]]
    # What the shell would start, with the command printed in place of being started.
    spoken = content["command"][3].replace("exec weakray", "printf '%s\\n'", 1)
    environment = {"WANDB_RUN_ID": "abc", "PATH": "/usr/bin:/bin"}
    told = subprocess.run(["sh", "-c", spoken, *words[4:]], env=environment, capture_output=True, text=True, check=True)
    argv = told.stdout.splitlines()
    given: list[TrainConfig] = []

    def remember(config: TrainConfig) -> TrainResult:
        given.append(config)
        return TrainResult(
            best_epoch=1, epochs=1, metric="val_loss", score=0, lifted_labels=0, untaught=[], model_sha256=""
        )

    monkeypatch.setattr("classify.train.run", remember)
    assert main(argv) == 0, capsys.readouterr().err
    assert given[0].out == out / "wandb_runs" / "abc"
    assert given[0].wandb == "online"
    assert (given[0].optimizer.lr, given[0].batch_size, given[0].model.output_stride) == (0.003, 8, None)
    assert given[0].model.backbone == "test_resnet"


def test_wandb_cannot_vary_a_whole_section(dataset: Dataset, tmp_path: Path) -> None:
    space = {"augment": {"choices": [{}, {"scale": 0.0}]}}
    with pytest.raises(ConfigError, match="wandb_sweep: augment is no single setting"):
        run(settings(dataset.root, tmp_path / "m", space=space, wandb_sweep=True))
