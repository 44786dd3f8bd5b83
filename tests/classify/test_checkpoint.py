from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch.amp.grad_scaler import GradScaler

import classify.checkpoint_files
from classify.checkpoint import Progress, capture, put_back
from classify.checkpoint_files import CheckpointFiles
from classify.learner import Learner
from classify.optimizer import OptimizerName
from classify.train import run
from tests.classify.trainings import (
    KilledError,
    Tiny,
    alone,
    assert_same,
    kill_at_call,
    rows_of,
    settings,
    tiny_learner,
)
from weakray.dataset import Dataset
from weakray.errors import RunError


def walk(one: Learner, updates: range) -> list[float]:
    """Steps with images and dropout from torch's random numbers; losses, then sums of all that moves."""
    losses = []
    for update in updates:
        pixels = torch.rand(3, 1, 5, 7).numpy()
        batch, view = alone(pixels), alone(pixels[..., ::-1].copy())
        losses.append(one.learn(np.array([update % 3, 4, 8]), batch, 0.01, update, view, 1.0).loss)
    assert one.ema is not None
    moving = [*one.model.state_dict().values(), *one.ema.model.state_dict().values(), *one.targets.state().values()]
    return losses + [value.double().sum().item() for value in moving]


def progress_of(**counts: Any) -> Progress:
    return Progress(**({"epoch": 1, "batch": 2, "loss_sum": 0.1 + 0.2, "best_epoch": 1, "best_score": 1 / 3} | counts))


@pytest.mark.parametrize("name", get_args(OptimizerName))
@pytest.mark.parametrize("taken", [0, 2])
def test_everything_comes_back_from_memory_and_from_disk(name: OptimizerName, taken: int, tmp_path: Path) -> None:
    one = tiny_learner(name=name)
    walk(one, range(taken))
    kept = capture(one, progress_of(left_out=[[0, 3]]))
    CheckpointFiles(tmp_path).save(kept, kept, {"w": torch.ones(2)})
    expected = walk(one, range(taken, taken + 2))
    assert put_back(kept, one) == kept.progress
    assert walk(one, range(taken, taken + 2)) == expected
    other = tiny_learner(name=name)
    walk(other, range(1))
    found = CheckpointFiles(tmp_path).load()
    assert found is not None
    assert found.best is not None
    assert found.best["w"].tolist() == [1, 1]
    assert put_back(found.now, other) == kept.progress
    assert walk(other, range(taken, taken + 2)) == expected
    if taken and name == "adamw":  # the fused step wants moments that lie as their parameters do
        conv = other.model.get_parameter("conv.weight")
        assert other.optimizer.state[conv]["exp_avg"].stride() == conv.stride()


def test_a_captured_state_does_not_move_with_training() -> None:
    one = tiny_learner()
    walk(one, range(2))
    counts = progress_of()
    kept = capture(one, counts)
    before = {name: value.clone() for name, value in kept.tensors.items()}
    counts.left_out.append([9, 9])
    put_back(kept, one).left_out.append([8, 8])
    walk(one, range(2, 4))
    assert kept.progress.left_out == []
    assert all(torch.equal(value, before[name]) for name, value in kept.tensors.items())


def test_the_loss_scale_comes_back() -> None:
    one, other = tiny_learner(), tiny_learner()
    for each in (one, other):
        each.scaler = GradScaler("cpu", init_scale=64.0)
        each.scaler.scale(torch.ones(1))  # makes the scale
    one.scaler.update(8.0)
    put_back(capture(one, Progress()), other)
    assert other.scaler.get_scale() == 8.0


def test_the_newest_two_are_kept_and_files_are_shared(tmp_path: Path) -> None:
    one, files = tiny_learner(), CheckpointFiles(tmp_path)
    early = capture(one, progress_of(batch=0))
    for batch in (1, 2, 3):
        files.save(capture(one, progress_of(batch=batch)), early, {"w": torch.ones(2)})
    names = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in names if name.endswith("json")] == ["000002.json", "000003.json"]
    assert sum(name.startswith("best") for name in names) == 1
    assert sum(name.startswith("state") for name in names) == 3  # two places, and the one to go back to
    found = CheckpointFiles(tmp_path).load()
    assert found is not None
    assert (found.now.progress.batch, found.earlier.progress.batch) == (3, 0)


def test_a_checkpoint_of_another_model_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(dataset.root, tmp_path / "m")
    with monkeypatch.context() as patch:
        kill_at_call(patch, 7)
        with pytest.raises(KilledError):
            run(config)
    monkeypatch.setattr("classify.train.make_network", lambda *_, **__: Tiny())
    with pytest.raises(RunError, match=r"(?s)the checkpoint cannot be used .*remove the run folder"):
        run(config)


def interrupted(data: Dataset, out: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A training killed in its third epoch: checkpoints after the first and second."""
    config = settings(data.root, out)
    with monkeypatch.context() as patch:
        kill_at_call(patch, 11)
        with pytest.raises(KilledError):
            run(config)
    return config


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight") / "member"
    run(settings(dataset.root, out))
    return out


@pytest.mark.parametrize("harm", ["flipped byte", "cut", "gone", "no json"])
def test_a_broken_newest_checkpoint_costs_an_epoch_and_is_reported(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    config = interrupted(dataset, tmp_path / "m", monkeypatch)
    newest = max((tmp_path / "m/checkpoints").glob("state-*"))
    content = bytearray(newest.read_bytes())
    if harm == "flipped byte":
        content[-5] ^= 1
        newest.write_bytes(content)
    elif harm == "cut":
        newest.write_bytes(content[:-100])
    elif harm == "gone":
        newest.unlink()
    else:
        max((tmp_path / "m/checkpoints").glob("*.json")).write_text('{"now": ')
    result = run(config)
    assert result.unusable_checkpoints == 1
    events = [row for row in rows_of(tmp_path / "m") if "event" in row]
    assert [(event["event"], event["file"]) for event in events] == [("unusable checkpoint", "000002.json")]
    assert (tmp_path / "m/model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()
    assert [row for row in rows_of(tmp_path / "m") if "event" not in row] == rows_of(straight)


def test_no_whole_checkpoint_is_a_clear_error(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = interrupted(dataset, tmp_path / "m", monkeypatch)
    for path in (tmp_path / "m/checkpoints").glob("state-*"):
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint can be used \(000002.json: .* is not what was written; 000001"):
        run(config)


@pytest.mark.parametrize(
    ("writer", "call", "error"),
    [
        ("classify.checkpoint_files.save_file", 3, OSError(errno.ENOSPC, "No space left on device")),
        ("classify.checkpoint_files.save_file", 3, SafetensorError("I/O error: No space left on device")),
        ("classify.checkpoint_files.write_json", 2, OSError(errno.ENOSPC, "No space left on device")),
        ("classify.member.save_file", 1, OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_survives(
    straight: Path,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
    call: int,
    error: Exception,
) -> None:
    config = settings(dataset.root, tmp_path / "m")
    module, function = writer.rsplit(".", 1)
    whole, calls = getattr(sys.modules[module], function), iter(range(1, 1000))

    def full(*given: Any) -> None:
        if next(calls) == call:
            if function == "save_file":
                Path(given[1]).write_bytes(b"half")
            raise error
        whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(writer, full)
        left = "the checkpoint at (epoch 2, batch 1|the end of training) is whole; make room on the disk"
        with pytest.raises(RunError, match=rf"could not write \(.*No space left on device\); {left}"):
            run(config)
    assert not [path for path in (tmp_path / "m").rglob("*") if ".part" in path.name]
    assert run(config).unusable_checkpoints == 0
    assert_same(tmp_path / "m", straight)


def test_a_full_disk_before_any_checkpoint(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(classify.checkpoint_files, "save_file", full)
    with pytest.raises(RunError, match=r"No space left on device\); no checkpoint was written yet"):
        run(settings(dataset.root, tmp_path / "m"))
    assert not (tmp_path / "m/done.json").exists()
