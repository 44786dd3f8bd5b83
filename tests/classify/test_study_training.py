from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from classify.learner import Learner
from classify.member import load_member
from classify.model import Classifier
from classify.studies import Studies, StudyBatch, StudyMode, group
from classify.study_network import read_images, study_logits
from classify.sweep.trial import attempt
from classify.train import run
from tests.classify.trainings import KilledError, assert_same, kill_at_call, result_of, rows_of, settings, tiny_learner
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.imaging import prepare, read_image, to_batch

MakeVisits = Callable[..., Dataset]


def pixels_of(data: Dataset, image_ids: list[str], spec: Any) -> torch.Tensor:
    return torch.from_numpy(to_batch([prepare(read_image(data.path_of(i)), spec)[0] for i in image_ids]))


def regrouped(data: Dataset, split: str, sizes: list[int]) -> Dataset:
    """The images of a split in studies of these sizes, written back."""
    images = data.images.reset_index(drop=True)
    rows = np.flatnonzero(images["split"] == split)
    names = np.repeat(np.arange(len(sizes)), sizes)
    assert len(names) == len(rows)
    images.loc[rows, "patient_id"] = [f"{split}{name}" for name in names]
    images.loc[rows, "study_id"] = "1"
    images.to_parquet(data.root / "images.parquet", index=False)
    return Dataset.load(data.root)


def test_a_step_on_studies_of_two_and_one_image_by_hand() -> None:
    one, rows = tiny_learner(), np.array([4, 0])
    one.model.eval()
    pixels = np.random.default_rng(0).random((3, 1, 5, 7)).astype(np.float32)
    with torch.no_grad():
        said = one.model(torch.from_numpy(pixels)).logits  # type: ignore[call-arg]
    values, _ = one.targets.targets_for(rows)
    expected = binary_cross_entropy_with_logits(torch.stack([said[0] + said[2], said[1]]), values).item()
    batch = StudyBatch(pixels, torch.tensor([0, 1, 0]), torch.tensor([True, True, False]))
    assert one.learn(rows, batch, 0.01, 0, None, 0.0).loss == pytest.approx(expected, rel=1e-6)
    single = StudyBatch(pixels[:1], torch.tensor([0]), torch.tensor([True]))
    assert np.isfinite(one.learn(rows[:1], single, 0.01, 1, None, 0.0).loss)  # a batch of one study


def test_the_network_sees_real_images_alone_each_once(
    make_visits: MakeVisits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [1, 3, 8, 2, 4, 1, 5]
    data = regrouped(make_visits(tmp_path / "data"), "train", sizes)
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    forward = Classifier.forward

    def spy(model: Classifier, images: torch.Tensor) -> Any:
        seen[model.training].append(images.clone())
        return forward(model, images)

    batches: list[tuple[list[int], int]] = []
    learn = Learner.learn

    def count(learner: Learner, rows: Any, batch: StudyBatch, *rest: Any) -> Any:
        batches.append((batch.study_index.bincount().tolist(), len(rows)))
        return learn(learner, rows, batch, *rest)

    monkeypatch.setattr(Classifier, "forward", spy)
    monkeypatch.setattr(Learner, "learn", count)
    still = {"translate": 0, "rotate_deg": 0, "scale": 0, "brightness_contrast": 0}
    result = run(settings(data.root, tmp_path / "m", epochs=1, batch_size=7, studies="sum", augment=still))
    assert batches[0][1] == 7
    assert sorted(batches[0][0]) == sorted(sizes)
    assert sum(map(len, seen[True])) == sum(sizes) == 24  # padded to the longest it would be 56
    assert sum(map(len, seen[False])) == len(data.ids_of("val")) == 10
    expected = pixels_of(data, data.ids_of("train"), load_member(tmp_path / "m").input)
    prints = sorted(image.double().sum().item() for image in torch.cat(seen[True]))
    assert prints == pytest.approx(sorted(image.double().sum().item() for image in expected))
    assert (result.studies["train"].studies, result.studies["train"].images) == (7, 24)
    assert (result.studies["val"].studies, result.studies["val"].images) == (5, 10)


def by_hand(folder: Path, data: Dataset, studies: Studies) -> torch.Tensor:
    """Logits of studies, one image and one study after the other."""
    member = load_member(folder)
    found = []
    for row in range(len(studies)):
        images = np.flatnonzero(studies.study_of == row)
        whole = torch.zeros(len(member.findings))
        for image in images.tolist():
            pixels = pixels_of(data, [studies.image_ids[image]], member.input)
            lateral = member.other is not None and not studies.frontal[image]
            classifier = member.other if lateral else member.model
            with torch.no_grad():
                whole += classifier(pixels).logits[0]  # type: ignore[misc]
        found.append(whole)
    return torch.stack(found)


@pytest.mark.parametrize("mode", ["sum", "frontal", "by_view"])
def test_val_is_scored_on_studies(visits: Dataset, tmp_path: Path, mode: StudyMode) -> None:
    plain = {"hierarchy": "none", "loss": {"pos_weight_cap": None}, "early_stop": {"metric": "val_loss"}}
    result = run(settings(visits.root, tmp_path / "m", epochs=1, batch_size=4, studies=mode, **plain))
    val = group(visits, "val", mode)
    assert len(val) == 5
    logits = by_hand(tmp_path / "m", visits, val)
    ids = visits.ids_of("val")
    highest = np.stack([visits.labels.loc[ids[2 * row : 2 * row + 2]].to_numpy().max(0) for row in range(5)])
    taught = [name not in result.untaught for name in visits.taxonomy.names]
    loss = binary_cross_entropy_with_logits(logits[:, taught], torch.from_numpy(highest[:, taught]).float())
    (row,) = rows_of(tmp_path / "m")
    assert row["val_loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert row["val_positives/Mass"] == (highest[:, 3] == 1).sum()


@pytest.mark.parametrize("mode", ["sum", "by_view"])
def test_killed_and_resumed_equals_undisturbed(
    visits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: StudyMode
) -> None:
    more = {"studies": mode, "epochs": 2, "batch_size": 4, "ema": {"decay": 0.9}, "mean_teacher": {"weight": 1.0}}
    run(settings(visits.root, tmp_path / "straight", **more))
    config = settings(visits.root, tmp_path / "m", checkpoint_every_steps=1, workers=1, **more)
    with monkeypatch.context() as patch:
        kill_at_call(patch, 5)  # 3 steps and a validation, then within the second epoch
        with pytest.raises(KilledError):
            run(config)
    torch.rand(7)
    run(config)
    assert_same(tmp_path / "m", tmp_path / "straight")


def test_both_views_learn_and_stand_in_one_folder(visits: Dataset, tmp_path: Path) -> None:
    more = {"uncertainty": "multiclass", "second_phase": {"epochs": 1}, "loss": {"kind": "bce"}}
    run(settings(visits.root, tmp_path / "m", epochs=1, batch_size=4, studies="by_view", **more))
    member = load_member(tmp_path / "m")
    assert json.loads((tmp_path / "m/model.json").read_text())["studies"] == member.studies == "by_view"
    assert member.other is not None
    assert member.other.uncertain is None
    assert not torch.equal(member.model.conv.weight, member.other.conv.weight)
    pixels, views = torch.rand(3, 1, 48, 48), torch.tensor([False, True, False])
    with torch.no_grad():
        found = read_images(member.network, pixels, views).logits
        torch.testing.assert_close(found[1:2], member.model(pixels[1:2]).logits)
        torch.testing.assert_close(found[2:3], member.other(pixels[2:3]).logits)


def test_a_member_of_images_says_nothing_of_studies(visits: Dataset, tmp_path: Path) -> None:
    run(settings(visits.root, tmp_path / "m", epochs=1))
    assert "studies" not in json.loads((tmp_path / "m/model.json").read_text())
    member = load_member(tmp_path / "m")
    assert (member.studies, member.other) == ("images", None)
    assert result_of(tmp_path / "m")["studies"] == {}


def test_first_weights_go_to_both_views_and_come_from_the_same_view(visits: Dataset, tmp_path: Path) -> None:
    for name, mode, init in (("sum", "sum", None), ("pair", "by_view", "sum"), ("again", "by_view", "pair")):
        start = None if init is None else tmp_path / init
        change = {"optimizer": {"lr": 1e-12}} if name == "again" else {}
        run(settings(visits.root, tmp_path / name, epochs=1, batch_size=4, studies=mode, init=start, **change))
    pair, again = load_member(tmp_path / "pair"), load_member(tmp_path / "again")
    assert pair.other is not None
    assert again.other is not None
    for mine, theirs in ((again.model, pair.model), (again.other, pair.other)):
        torch.testing.assert_close(mine.conv.weight, theirs.conv.weight)
    assert not torch.allclose(pair.model.conv.weight, pair.other.conv.weight)
    transfer = json.loads((tmp_path / "pair/transfer.json").read_text())
    assert transfer["findings_taken"] == visits.taxonomy.names
    run(settings(visits.root, tmp_path / "one", epochs=1, init=tmp_path / "pair", optimizer={"lr": 1e-12}))
    torch.testing.assert_close(load_member(tmp_path / "one").model.conv.weight, pair.model.conv.weight)


def test_a_sweep_tries_studies(visits: Dataset, tmp_path: Path) -> None:
    trial = SimpleNamespace(report=lambda *_: None)
    given = settings(visits.root, tmp_path / "m", epochs=1, batch_size=4, studies="frontal").model_dump(mode="json")
    ended = attempt(trial, given, "val_loss", prune=False)
    assert (ended.outcome, ended.best_epoch) == ("done", 1)


def test_what_became_of_studies_is_reported(
    make_visits: MakeVisits, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = regrouped(make_visits(tmp_path / "data"), "train", [9, 3, 2, 2, 2, 2, 2, 2])
    result = run(settings(data.root, tmp_path / "m", epochs=1, batch_size=4, studies="sum"))
    told = capfd.readouterr().err
    counts = result.studies["train"]
    assert (counts.cut_studies, counts.cut_images, counts.images) == (1, 1, 23)
    assert "train: 1 studies have more than 8 images: 1 images are left out, frontal ones stay first" in told
    assert f"train: {counts.disagreeing} labels differ between the images of a study: the highest counts" in told
    assert "val: sum: 5 studies of 10 images, each study read as a whole" in told
    assert result_of(tmp_path / "m")["studies"]["train"]["images_a_study"] == {"2": 6, "3": 1, "8": 1}


def test_uncertain_and_blank_labels_of_studies_count_as_those_of_images(visits: Dataset, tmp_path: Path) -> None:
    train = group(visits, "train", "sum")
    ids = visits.ids_of("train")
    pairs = visits.labels.loc[ids, "Mass"].to_numpy().reshape(-1, 2)
    expected = [1.0 if 1 in pair else -1.0 if -1 in pair else 0.0 if 0 in pair else np.nan for pair in pairs]
    np.testing.assert_array_equal(train.labels[:, 3], np.array(expected, np.float32))
    assert {-1.0} & set(pairs.ravel())
    assert np.isnan(pairs).any()
    more = {"studies": "sum", "uncertainty": "lsr-ones", "blanks": "ignore", "moving_labels": 0.9}
    assert run(settings(visits.root, tmp_path / "m", epochs=1, batch_size=4, **more)).epochs == 1


def test_splits_that_a_mode_cannot_use_are_refused(make_visits: MakeVisits, tmp_path: Path) -> None:
    data = make_visits(tmp_path / "laterals", views=("LL", "LATERAL"))
    with pytest.raises(DataError, match=r"frontal images in split train, got none \(views: LATERAL, LL\); set studies"):
        run(settings(data.root, tmp_path / "m", studies="frontal"))
    with pytest.raises(DataError, match="by_view expects frontal and other images in split train, got 0 and 24"):
        run(settings(data.root, tmp_path / "n", studies="by_view"))
    data = make_visits(tmp_path / "frontals", views=("PA", "AP"))
    with pytest.raises(DataError, match="by_view expects .* in split train, got 24 and 0; set studies to sum"):
        run(settings(data.root, tmp_path / "o", studies="by_view"))


def test_sums_of_three_outputs_a_member_are_sums_of_each() -> None:
    logits = torch.arange(12.0).reshape(3, 2, 2)  # images, members, findings
    found = study_logits(logits, torch.tensor([0, 0, 1]), 2)
    assert found.tolist() == [[[4.0, 6.0], [8.0, 10.0]], [[8.0, 9.0], [10.0, 11.0]]]
