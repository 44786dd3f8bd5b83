from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classify.loop
import classify.train
from classify.checkpoint import Progress, restore, save
from classify.loss import Criterion, criterion
from classify.member import load_member
from classify.settings import TrainConfig
from classify.train import run
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError, RunError

MODEL = {"backbone": "test_resnet", "input": {"size_px": 48}}


def settings(data: Path, out: Path, **changed: Any) -> TrainConfig:
    plain = {"data": data, "out": out, "model": MODEL, "epochs": 3, "batch_size": 6, "threads": 1, "bf16": False}
    return validate(TrainConfig, plain | changed)


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of four batches, undisturbed."""
    out = tmp_path_factory.mktemp("straight") / "member"
    run(settings(dataset.root, out))
    return out


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def kill_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    calls = iter(range(10_000))

    def fragile_criterion(*given: Any) -> Criterion:
        whole = criterion(*given)

        def fragile(*args: torch.Tensor) -> torch.Tensor:
            if next(calls) == step:
                raise Killed
            return whole(*args)

        return fragile

    monkeypatch.setattr(classify.train, "criterion", fragile_criterion)


def test_a_run_leaves_a_member_and_a_row_an_epoch(straight: Path, dataset: Dataset) -> None:
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"train_loss", "val_loss", "val_macro_auroc", "val_macro_auprc", "val_positives/Mass"} <= set(rows[0])
    done = json.loads((straight / "done.json").read_text())["result"]
    assert done["epochs"] == 3
    assert done["score"] == max(row["val_macro_auroc"] for row in rows)
    assert rows[done["best_epoch"] - 1]["val_macro_auroc"] == done["score"]
    assert not (straight / "checkpoints").exists()
    member = load_member(straight)
    assert member.findings == dataset.taxonomy.names
    assert member.taxonomy.parents == [1, None, 0, None]
    assert (member.hierarchy, member.blanks, member.input.size_px) == ("conditional", "zeros", 48)
    assert member.sha256 == done["model_sha256"]
    assert not member.model.training
    assert member.model(torch.rand(1, 1, 48, 48)).logits.shape == (1, 4)


def test_the_same_settings_give_the_same_bytes_whatever_the_workers(
    straight: Path, dataset: Dataset, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    run(settings(dataset.root, tmp_path / "m", workers=1, cache_images=False))
    for name in ("model.safetensors", "metrics.jsonl", "model.json"):
        assert (tmp_path / "m" / name).read_bytes() == (straight / name).read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_another_seed_gives_another_model(straight: Path, dataset: Dataset, tmp_path: Path) -> None:
    run(settings(dataset.root, tmp_path / "m", seed=1, epochs=1))
    assert (tmp_path / "m" / "model.safetensors").read_bytes() != (straight / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("step", "every"),
    [
        (2, None),  # before any checkpoint
        (5, None),  # at the start of the second epoch (a validation is a call too)
        (8, 1),  # within the second epoch, checkpoints at each step
        (8, 2),
        (14, 3),  # in the last validation
    ],
)
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, every: int | None
) -> None:
    config = settings(dataset.root, tmp_path / "m", checkpoint_every_steps=every)
    with monkeypatch.context() as patch:
        kill_at_step(patch, step)
        with pytest.raises(Killed):
            run(config)
    assert not (tmp_path / "m" / "done.json").exists()
    if step == 8:
        state = json.loads((tmp_path / "m" / "checkpoints" / "state.json").read_text())
        assert state["progress"]["epoch"] == 1
        assert state["progress"]["batch"] == {1: 3, 2: 2}[every or 0]
    torch.rand(17)  # other work of the new process
    run(config)
    for name in ("model.safetensors", "metrics.jsonl", "model.json"):
        assert (tmp_path / "m" / name).read_bytes() == (straight / name).read_bytes()


def test_killed_between_the_figures_and_the_checkpoint(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die_in_epoch_2(folder: Path, progress: Progress, *rest: Any) -> None:
        if progress.epoch == 2:
            raise Killed
        save(folder, progress, *rest)

    config = settings(dataset.root, tmp_path / "m")
    with monkeypatch.context() as patch:
        patch.setattr(classify.loop, "save", die_in_epoch_2)
        with pytest.raises(Killed):
            run(config)
    assert len((tmp_path / "m" / "metrics.jsonl").read_text().splitlines()) == 2
    run(config)
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "m" / name).read_bytes() == (straight / name).read_bytes()


def test_a_finished_run_is_not_done_again_even_where_it_was_moved(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(straight, tmp_path / "moved")
    monkeypatch.setattr(classify.loop.Trainer, "fit", None)
    result = run(settings(dataset.root, tmp_path / "moved"))
    assert result.epochs == 3


def test_bf16_resumes_bit_for_bit_too(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parted = (
        settings(dataset.root, tmp_path / name, bf16=True, epochs=2, checkpoint_every_steps=1) for name in "ab"
    )
    run(whole)
    with monkeypatch.context() as patch:
        kill_at_step(patch, 7)
        with pytest.raises(Killed):
            run(parted)
    run(parted)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()


def test_random_numbers_come_back_with_the_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.5))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> list[float]:
        optimizer.zero_grad()
        loss = model(torch.rand(2, 2, 5, 7)).square().sum()
        loss.backward()
        optimizer.step()
        return [loss.item(), *[p.sum().item() for p in model.parameters()]]

    step()
    progress = Progress(epoch=1, batch=2, loss_sum=0.1 + 0.2, best_epoch=1, best_score=1 / 3, epochs_since_best=4)
    save(tmp_path, progress, model, optimizer, {"w": torch.ones(2)})
    expected = [step(), step()]
    back, best = restore(tmp_path, model, optimizer)
    assert back == progress
    assert best is not None
    assert best["w"].tolist() == [1, 1]
    assert [step(), step()] == expected
    layouts = {v.stride() for s in optimizer.state.values() for k, v in s.items() if k == "exp_avg" and v.ndim == 4}
    assert layouts == {next(model.parameters()).stride()}
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    save(tmp_path, Progress(), model, torch.optim.AdamW(model.parameters()), None)
    other = torch.nn.Linear(2, 4)
    with pytest.raises(RunError, match=r"(?s)the checkpoint cannot be used .*remove the run folder"):
        restore(tmp_path, other, torch.optim.AdamW(other.parameters()))


def test_training_reads_no_tune_or_test_image_or_label(
    straight: Path, make_spots: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images of tune and test are gone and their labels another's: the weights stay the same."""
    copy = make_spots(tmp_path / "data")
    hidden = [*copy.ids_of("tune"), *copy.ids_of("test")]
    for image_id in hidden:
        copy.path_of(image_id).unlink()
    copy.labels.loc[hidden] = 1.0
    monkeypatch.setattr(Dataset, "load", lambda _: copy)
    run(settings(copy.root, tmp_path / "m"))
    assert (tmp_path / "m/model.safetensors").read_bytes() == (straight / "model.safetensors").read_bytes()


def test_early_stop_keeps_the_best_epoch(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.6, 0.7, 0.7, 0.5, 0.9])
    weights: list[torch.Tensor] = []

    def validate_(trainer: Any, epoch: int) -> dict[str, float]:
        weights.append(trainer.model.conv.weight.detach().clone())
        return {"val_macro_auroc": next(scores)}

    monkeypatch.setattr(classify.loop.Trainer, "_validate", validate_)
    early = {"metric": "val_macro_auroc", "patience_epochs": 2}
    result = run(settings(dataset.root, tmp_path / "m", epochs=5, early_stop=early))
    assert (result.best_epoch, result.epochs, result.score) == (2, 4, 0.7)
    torch.testing.assert_close(load_member(tmp_path / "m").model.conv.weight, weights[1], rtol=0, atol=0)


def test_a_loss_is_better_when_lower(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.6, 0.4, 0.5])
    monkeypatch.setattr(classify.loop.Trainer, "_validate", lambda *_: {"val_loss": next(losses)})
    result = run(settings(dataset.root, tmp_path / "m", early_stop={"metric": "val_loss"}))
    assert (result.best_epoch, result.score) == (2, 0.4)


def test_an_undefined_metric_is_an_error(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify.loop.Trainer, "_validate", lambda *_: {"val_macro_auroc": None})
    with pytest.raises(RunError, match="val_macro_auroc: undefined, no finding has both .*val_loss"):
        run(settings(dataset.root, tmp_path / "m"))


def test_a_loss_that_is_not_finite_stops_with_the_place(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sick_after(steps: int) -> Callable[..., Criterion]:
        def made(*given: Any) -> Criterion:
            whole, calls = criterion(*given), iter(range(100))
            return lambda *args: whole(*args) * (1.0 if next(calls) < steps else float("nan"))

        return made

    monkeypatch.setattr(classify.train, "criterion", sick_after(0))
    with pytest.raises(RunError, match=r"became nan in epoch 1, step 1; lower optimizer\.lr \(now 0\.001\)"):
        run(settings(dataset.root, tmp_path / "m"))
    monkeypatch.setattr(classify.train, "criterion", sick_after(4))
    with pytest.raises(RunError, match="became nan in the validation of epoch 1; lower optimizer.lr"):
        run(settings(dataset.root, tmp_path / "n"))


def test_it_learns_the_spots(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data", train=64, others=24)
    config = settings(data.root, tmp_path / "m", epochs=8, batch_size=8, optimizer={"lr": 5e-3})
    assert run(config).score > 0.9


def test_lifted_labels_are_counted(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data")
    labels = data.labels.copy()
    names = data.taxonomy.names
    train = np.array([i in set(data.ids_of("train")) for i in labels.index])
    broken = train & (labels[names[0]] == 1).to_numpy()
    labels.loc[broken, names[1]] = 0.0  # the parent of a present child
    labels.reset_index().to_parquet(data.root / "labels.parquet", index=False)
    assert run(settings(data.root, tmp_path / "m", epochs=1)).lifted_labels == broken.sum() > 0


def test_a_dataset_without_val_is_refused(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data", others=0)
    with pytest.raises(DataError, match="expected images in split val, got none"):
        run(settings(data.root, tmp_path / "m"))


def test_tracking_without_its_package_is_a_clear_error(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb: offline needs the package wandb"):
        run(settings(dataset.root, tmp_path / "m", wandb="offline"))


def test_tracking_gets_every_epoch(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Run:
        def log(self, row: Any) -> None:
            seen.append(row["epoch"])

        def finish(self) -> None:
            seen.append("finished")

    class Fake:
        @staticmethod
        def init(**settings_: Any) -> Run:
            seen.append((settings_["mode"], settings_["dir"], settings_["config"]["epochs"]))
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Fake)
    run(settings(dataset.root, tmp_path / "m", wandb="offline", epochs=2))
    assert seen == [("offline", str(tmp_path / "m"), 2), 1, 2, "finished"]


def test_a_member_whose_weights_changed_is_refused(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "m")
    weights = bytearray((tmp_path / "m/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "m/model.safetensors").write_bytes(weights)
    with pytest.raises(RunError, match=r"not the weights that model\.json names"):
        load_member(tmp_path / "m")
    with pytest.raises(RunError, match="expected a trained classifier, found no model.json"):
        load_member(tmp_path)
