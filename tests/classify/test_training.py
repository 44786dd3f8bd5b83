from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import classify.loop
import classify.studies
from classify.batches import training_batches
from classify.ema import Ema
from classify.mean_teacher import view_seed
from classify.member import load_member
from classify.train import run
from tests.classify.trainings import rows_of, settings
from weakray.dataset import Dataset
from weakray.errors import DataError, RunError
from weakray.imaging import read_image


@pytest.fixture(scope="module")
def straight(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of four batches, undisturbed."""
    out = tmp_path_factory.mktemp("straight") / "member"
    run(settings(dataset.root, out))
    return out


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


def test_a_finished_run_is_not_done_again_even_where_it_was_moved(
    straight: Path, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(straight, tmp_path / "moved")
    monkeypatch.setattr(classify.loop.Trainer, "fit", None)
    result = run(settings(dataset.root, tmp_path / "moved"))
    assert result.epochs == 3


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

    def figures(learner: Any, *_: Any) -> dict[str, float]:
        weights.append(learner.model.conv.weight.detach().clone())
        return {"val_macro_auroc": next(scores)}

    monkeypatch.setattr(classify.loop, "val_figures", figures)
    early = {"metric": "val_macro_auroc", "patience_epochs": 2}
    result = run(settings(dataset.root, tmp_path / "m", epochs=5, early_stop=early))
    assert (result.best_epoch, result.epochs, result.score) == (2, 4, 0.7)
    torch.testing.assert_close(load_member(tmp_path / "m").model.conv.weight, weights[1], rtol=0, atol=0)


def test_the_average_is_validated_and_kept(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def figures(learner: Any, *_: Any) -> dict[str, float]:
        seen.append(tuple(model.conv.weight.detach().clone() for model in (learner.judged, learner.model)))
        return {"val_macro_auroc": 0.5}

    monkeypatch.setattr(classify.loop, "val_figures", figures)
    run(settings(dataset.root, tmp_path / "m", epochs=1, ema={"decay": 0.9}))
    average, last = seen[0]
    assert not torch.equal(average, last)
    assert torch.equal(load_member(tmp_path / "m").model.conv.weight, average)


def test_the_teacher_sees_another_view_and_the_average_starts_anew_in_the_second_phase(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    updates: list[int] = []
    update = Ema.update

    def spy(*given: Any) -> Any:
        seeds.append(given[4])
        return training_batches(*given)

    def count(ema: Any, model: Any, number: int) -> None:
        updates.append(number)
        update(ema, model, number)

    monkeypatch.setattr(classify.studies, "training_batches", spy)
    monkeypatch.setattr(Ema, "update", count)
    teacher = {"ema": {"decay": 0.9}, "mean_teacher": {"weight": 1.0}}
    run(settings(dataset.root, tmp_path / "m", epochs=1, second_phase={"epochs": 1}, **teacher))
    assert seeds == [0, view_seed(0), 0]
    assert updates == [0, 1, 2, 3, 0, 1, 2, 3]


def test_a_loss_is_better_when_lower(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.6, 0.4, 0.5])
    monkeypatch.setattr(classify.loop, "val_figures", lambda *_: {"val_loss": next(losses)})
    result = run(settings(dataset.root, tmp_path / "m", early_stop={"metric": "val_loss"}))
    assert (result.best_epoch, result.score) == (2, 0.4)


def test_a_split_that_nothing_can_come_of_is_refused_before_training(
    make_spots: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_spots(tmp_path / "data")
    val, train = data.ids_of("val"), data.ids_of("train")
    data.labels.loc[val] = 1.0
    monkeypatch.setattr(Dataset, "load", lambda _: data)
    with pytest.raises(DataError, match="val_macro_auroc is undefined, .*early_stop.metric to val_loss"):
        run(settings(data.root, tmp_path / "m"))
    result = run(settings(data.root, tmp_path / "m", epochs=1, early_stop={"metric": "val_loss"}))
    assert result.unscored == data.taxonomy.names
    data.labels.loc[train] = float("nan")
    with pytest.raises(DataError, match="no finding has both present and absent train labels"):
        run(settings(data.root, tmp_path / "m", blanks="ignore"))


def test_a_finding_that_is_all_blank_or_one_sided_is_named(
    make_spots: Callable[..., Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_spots(tmp_path / "data", train=25, others=7)  # a val batch of one at the end
    data.labels.loc[data.ids_of("train"), "Mass"] = float("nan")
    val = data.ids_of("val")
    data.labels.loc[val] = np.arange(7)[:, None] % 2
    data.labels.loc[val, "Pneumonia"] = 0.0
    monkeypatch.setattr(Dataset, "load", lambda _: data)
    result = run(settings(data.root, tmp_path / "m", epochs=1, blanks="ignore"))
    assert result.untaught == ["Mass"]
    assert result.unscored == ["Pneumonia"]
    assert result.left_out_images == 1
    assert rows_of(tmp_path / "m")[0]["val_auroc/Pneumonia"] is None


def test_curves_and_figures_are_always_there(straight: Path) -> None:
    picture = read_image(straight / "curves.png")
    assert picture.shape[0] < picture.shape[1]
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100  # lines, not an empty sheet


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


def test_a_member_whose_weights_changed_is_refused(straight: Path, tmp_path: Path) -> None:
    shutil.copytree(straight, tmp_path / "m")
    weights = bytearray((tmp_path / "m/model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "m/model.safetensors").write_bytes(weights)
    with pytest.raises(RunError, match=r"not the weights that model\.json names"):
        load_member(tmp_path / "m")
    with pytest.raises(RunError, match="expected a trained classifier, found no model.json"):
        load_member(tmp_path)
