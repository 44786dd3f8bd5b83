from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import classify.sweep.command
import classify.sweep.trial
from classify.settings import TrainConfig
from classify.sweep.command import run
from classify.sweep.trial import attempt
from classify.train import train
from tests.classify.sweeps import SPACE, TRAIN, Killed, pretend, settings, smooth, table
from weakray.config import load
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DivergedError, RunError
from weakray.runs import RunFolder


def test_a_sweep_of_real_trainings(dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "sweep 100%?"  # a name that is awkward in an address
    result = run(settings(dataset.root, out, trials=3))
    rows = table(out)
    assert len(rows) == result.trials == 3
    assert result.outcomes == {"done": 3}
    scores = [float(row["val_macro_auroc"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert rows[0]["trial"] == str(result.best_trial)
    for row in rows:
        folder = out / "trials" / row["trial"]
        done = json.loads((folder / "done.json").read_text())["result"]
        assert done["score"] == pytest.approx(float(row["val_macro_auroc"]), abs=1e-9)
        told = yaml.safe_load((folder / "config.yaml").read_text())
        assert told["optimizer"]["lr"] == pytest.approx(float(row["optimizer.lr"]))
        assert told["batch_size"] == int(row["batch_size"])
        assert (told["model"]["output_stride"] or "null") == {"16": 16, "null": "null"}[row["model.output_stride"]]
    # best.yaml is taken as it is, and trains to the same weights.
    config = load(TrainConfig, out / "best.yaml")
    assert config.out == out / "best"
    again = train(config, None)
    assert again.score == result.best_score
    best = json.loads((out / "trials" / rows[0]["trial"] / "done.json").read_text())["result"]
    assert again.model_sha256 == best["model_sha256"]
    with Image.open(out / "sweep.png") as image:
        assert image.width > image.height > 300
    head = "| trial | outcome | val_macro_auroc | best_epoch | optimizer.lr |"
    assert (out / "table.md").read_text().startswith(head)


def test_the_same_seed_proposes_the_same_trials_and_another_others(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, smooth)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(settings(dataset.root, tmp_path / name, seed=seed, trials=6))
    for name in ("trials.csv", "table.md"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a/trials.csv").read_bytes() != (tmp_path / "c/trials.csv").read_bytes()


@pytest.mark.parametrize("prune", [None, {"startup_trials": 2}])
def test_killed_and_resumed_equals_undisturbed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prune: Any
) -> None:
    whole = pretend(monkeypatch, smooth)
    expected = run(settings(dataset.root, tmp_path / "a", prune=prune, trials=6))
    assert ("pruned" in expected.outcomes) == (prune is not None)
    for kill_at in (0, 4, 9, len(whole) - 1):
        out = tmp_path / f"killed at {kill_at}"
        first = pretend(monkeypatch, smooth, kill_at)
        with pytest.raises(Killed):
            run(settings(dataset.root, out, prune=prune, trials=6))
        rest = pretend(monkeypatch, smooth)
        assert run(settings(dataset.root, out, prune=prune, trials=6)) == expected
        assert first + rest == whole
        assert (out / "trials.csv").read_bytes() == (tmp_path / "a/trials.csv").read_bytes()


def test_killed_between_a_trial_and_its_record(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        pretend(patch, smooth)
        expected = run(settings(dataset.root, tmp_path / "a"))

        def attempt_and_die(trial: Any, *given: Any) -> Any:
            ended = attempt(trial, *given)
            if trial.number == 2:
                raise Killed
            return ended

        patch.setattr(classify.sweep.command, "attempt", attempt_and_die)
        with pytest.raises(Killed):
            run(settings(dataset.root, tmp_path / "b"))
    rest = pretend(monkeypatch, smooth)
    assert run(settings(dataset.root, tmp_path / "b")) == expected
    assert {number for number, _ in rest} <= {3}


def test_more_trials_go_on_with_the_same_sweep_and_fewer_change_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did = pretend(monkeypatch, smooth)
    run(settings(dataset.root, tmp_path / "a", trials=3))
    more = run(settings(dataset.root, tmp_path / "a", trials=6))
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["trials"] == 6
    assert run(settings(dataset.root, tmp_path / "b", trials=6)) == more
    before = len(did)
    assert run(settings(dataset.root, tmp_path / "a", trials=3)) == more
    changed = TRAIN | {"workers": 1, "cache_images": False}  # change no result
    assert run(settings(dataset.root, tmp_path / "a", trials=6, train=changed)) == more
    assert len(did) == before
    run(settings(dataset.root, tmp_path / "a", trials=3, train=TRAIN | {"clip_norm": 2.0}))
    assert len(did) > before
    assert not (tmp_path / "a/trials/4").exists()


def test_what_goes_wrong_in_a_trial_is_its_result(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"
    wrong: list[BaseException] = [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB"),
        RuntimeError(cpu),
        MemoryError(),
        DivergedError("the loss became nan in epoch 1, step 2"),
        ConfigError("model.output_stride: cannot be | built"),
    ]

    def figures(config: TrainConfig) -> list[float]:
        number = int(config.out.name)
        (config.out / "checkpoints").mkdir()
        if number < len(wrong):
            raise wrong[number]
        return smooth(config)

    pretend(monkeypatch, figures)
    space = SPACE | {"seed": {"low": 0, "high": 10**6}}  # so that no two are alike
    result = run(settings(dataset.root, tmp_path / "m", trials=7, space=space))
    assert result.outcomes == {"diverged": 1, "done": 2, "oom": 3, "refused": 1}
    assert result.best_trial in {5, 6}
    rows = table(tmp_path / "m")
    assert {row["trial"] for row in rows[:2]} == {"5", "6"}
    assert [(row["trial"], row["outcome"], row["val_macro_auroc"]) for row in rows[2:]] == [
        ("0", "oom", ""),
        ("1", "oom", ""),
        ("2", "oom", ""),
        ("3", "diverged", ""),
        ("4", "refused", ""),
    ]
    assert rows[2]["message"] == "CUDA out of memory. Tried to allocate 20 GiB"
    assert "cannot be \\| built" in (tmp_path / "m/table.md").read_text()
    assert not (tmp_path / "m/trials/0/checkpoints").exists()


def test_a_rate_far_too_high_and_settings_that_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    """No pretence: the training itself diverges, refuses and succeeds."""
    space = {"optimizer.lr": {"choices": [1e30, 1e-3]}, "batch_size": {"choices": [1, 8]}}
    config = settings(dataset.root, tmp_path / "m", space=space, trials=8, startup_trials=8)
    result = run(config)
    told = {
        (row["optimizer.lr"], row["batch_size"]): row for row in table(tmp_path / "m") if "same" not in row["message"]
    }
    assert told["0.001", "8"]["outcome"] == "done"
    assert told["1e+30", "8"]["outcome"] == "diverged"
    assert "lower optimizer.lr" in told["1e+30", "8"]["message"]
    assert told["0.001", "1"]["message"] == "batch_size: input should be greater than or equal to 2 (got 1)"
    assert result.best == {"optimizer.lr": 1e-3, "batch_size": 8}


def test_other_errors_end_the_sweep_which_then_goes_on(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: TrainConfig) -> list[float]:
        if config.out.name == "1":
            raise RuntimeError("a bug")
        return smooth(config)

    with monkeypatch.context() as patch:
        pretend(patch, broken)
        with pytest.raises(RuntimeError, match="a bug"):
            run(settings(dataset.root, tmp_path / "m"))
    did = pretend(monkeypatch, smooth)
    assert run(settings(dataset.root, tmp_path / "m")).trials == 4
    assert min(did)[0] == 1


def test_a_sweep_without_any_score_says_why(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(config: TrainConfig) -> list[float]:
        raise ConfigError("model.backbone: timm has no model 'x'")

    pretend(monkeypatch, refused)
    with pytest.raises(
        RunError, match=r"none of 2 trials has a score; the first was refused \(model\.backbone: timm has"
    ):
        run(settings(dataset.root, tmp_path / "m", trials=2))
    assert len(table(tmp_path / "m")) == 2


def test_the_same_settings_are_not_trained_twice(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did = pretend(monkeypatch, smooth)
    result = run(settings(dataset.root, tmp_path / "m", space={"batch_size": {"choices": [4, 8]}}, trials=6))
    assert len({number for number, _ in did}) == 2
    rows = table(tmp_path / "m")
    assert len(rows) == 6
    assert sum(row["message"].startswith("same settings as trial ") for row in rows) == 4
    assert result.best == {"batch_size": 8}
    assert len({row["val_macro_auroc"] for row in rows}) == 2


def test_a_trial_below_the_median_is_given_up(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = {0: [0.6, 0.7, 0.8], 1: [0.5, 0.7, 0.7], 2: [0.4, 0.9, 0.9], 3: [0.7, 0.6, 0.9], 4: [0.9, 0.9, 0.9]}
    did = pretend(monkeypatch, lambda config: ready[int(config.out.name)])
    space = {"seed": {"low": 0, "high": 10**6}}
    prune = {"startup_trials": 2, "warmup_epochs": 1}
    result = run(settings(dataset.root, tmp_path / "m", space=space, prune=prune, trials=5))
    # Trial 2 is worst in the first epoch, which is spared, and best in the second. Trial 3's best so far is 0.7, not
    # below the median of the others in epoch 2 (0.7, 0.7, 0.9); 0.6 would be.
    assert [sum(number == n for number, _ in did) for n in range(5)] == [3, 3, 3, 3, 3]
    ready[3] = [0.6, 0.6, 0.9]
    did.clear()
    result = run(settings(dataset.root, tmp_path / "n", space=space, prune=prune, trials=5))
    assert [sum(number == n for number, _ in did) for n in range(5)] == [3, 3, 3, 2, 3]
    assert result.outcomes == {"done": 4, "pruned": 1}
    row = table(tmp_path / "n")[-1]
    assert (row["trial"], row["outcome"], row["message"]) == ("3", "pruned", "in epoch 2")


def test_the_score_is_of_the_epoch_that_training_keeps(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, smooth)
    loss = run(settings(dataset.root, tmp_path / "m", metric="val_loss"))
    auroc = run(settings(dataset.root, tmp_path / "n"))
    rows = table(tmp_path / "m")
    assert {row["best_epoch"] for row in rows} == {"2"}
    assert [float(row["val_loss"]) for row in rows] == sorted(float(row["val_loss"]) for row in rows)
    kept = RunFolder(tmp_path / "n" / "trials" / str(auroc.best_trial), "").metrics()[1]
    assert auroc.best_score == kept["val_macro_auroc"]
    assert loss.metric == "val_loss"


def test_a_metric_that_training_does_not_write_or_cannot_tell(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, smooth)
    with pytest.raises(RunError, match="training writes no val_f1; expected one of val_macro_auroc, val_loss"):
        run(settings(dataset.root, tmp_path / "m", metric="val_f1"))
    with pytest.raises(ConfigError, match="metric: string should match pattern"):
        settings(dataset.root, tmp_path / "m", metric="test_macro_auroc")
    pretend(monkeypatch, lambda _: [None])
    with pytest.raises(RunError, match="val_macro_auroc is undefined on val; name another, or make a larger val split"):
        run(settings(dataset.root, tmp_path / "n"))
    with pytest.raises(ConfigError, match=r"val_loss means something else under each loss\.pos_weight_cap"):
        run(
            settings(
                dataset.root, tmp_path / "o", metric="val_loss", space={"loss.pos_weight_cap": {"low": 1, "high": 5}}
            )
        )


def test_the_sampler_learns_from_the_trials_before(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, lambda config: [1 - (config.clip_norm or 0)])
    space = {"clip_norm": {"low": 0.001, "high": 1.0}}
    run(settings(dataset.root, tmp_path / "m", space=space, trials=30, startup_trials=10))
    rows = sorted(table(tmp_path / "m"), key=lambda row: int(row["trial"]))
    first, last = ([float(row["clip_norm"]) for row in part] for part in (rows[:10], rows[20:]))
    assert sum(last) < sum(first) / 3


def test_a_broken_record_is_a_clear_error(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, smooth)
    run(settings(dataset.root, tmp_path / "m", trials=2))
    with sqlite3.connect(tmp_path / "m/sweep.sqlite") as record:
        assert record.execute("select count(*) from trials").fetchone() == (2,)
    record.close()
    (tmp_path / "m/sweep.sqlite").write_bytes(b"no database at all, but long enough to look like one" * 20)
    with pytest.raises(
        RunError, match=r"sweep\.sqlite: expected a record of trials, got something else \(.*\); remove it"
    ):
        run(settings(dataset.root, tmp_path / "m", trials=3))


def test_a_source_of_weights_trained_anew_starts_a_new_sweep(
    dataset: Dataset, make_member: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did = pretend(monkeypatch, smooth)
    members = [make_member(tmp_path / name, seed) for seed, name in enumerate("ab")]
    config = settings(dataset.root, tmp_path / "m", train=TRAIN | {"init": str(tmp_path / "source")}, trials=1)
    for member, expected in ((members[0], 3), (members[0], 3), (members[1], 6)):
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        shutil.copytree(member, tmp_path / "source")
        run(config)
        assert len(did) == expected
