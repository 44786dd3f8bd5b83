"""Two processes on CPU train what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from classify.distributed import Processes, _has_unused, _Several, differences, joined_processes, shared_statistics
from classify.loop import Trainer
from classify.loss import Loss, LossTerms
from classify.model import Classifier, ModelConfig
from classify.study_network import ByView
from classify.train import run, train
from tests.classify import several
from tests.classify.trainings import MODEL, rows_of, settings
from weakray.config import to_plain
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.imaging import InputSpec

CONVNEXT = {"backbone": "test_convnext", "output_stride": None, "input": {"size_px": 64}}  # layer norm alone
VIT = {"backbone": "test_vit", "output_stride": None, "input": {"size_px": 48}}
# 7 images a step: 4 and 3; a child's label counts where its parents are present, and blanks do not.
PLAIN = {"model": CONVNEXT, "epochs": 2, "batch_size": 7, "sampler": {"images_per_epoch": 21}, "blanks": "ignore"}
JOBS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "rich": PLAIN
    | {
        "model": VIT,
        # Not Adam: it makes steps of a key bias's gradient, which is rounding alone.
        "optimizer": {"name": "sgd", "lr": 0.02, "lr_batch_size": 14},
        "sampler": {"weights": "inverse_frequency", "replacement": True},
        "ema": {"decay": 0.9},
        "mean_teacher": {"weight": 5.0, "ramp_epochs": 1.0},
        "moving_labels": 0.5,
        "early_stop": {"metric": "val_loss"},
    },
    "phases": PLAIN | {"epochs": 1, "uncertainty": "multiclass", "second_phase": {"epochs": 1}, "clip_norm": 0.01},
    # 5 studies of two images a step: 3 and 2; the last of val's 6 has one.
    "studies": PLAIN | {"studies": "sum", "batch_size": 5, "sampler": {"images_per_epoch": 10}, "ema": {"decay": 0.9}},
    "nan": PLAIN,
    "mean_of_means": PLAIN,
    "batch_norm": PLAIN | {"model": MODEL, "ema": {"decay": 0.9}},
    "whole": PLAIN | {"model": CONVNEXT | {"head": {"dropout": 0.5}}, "checkpoint_every_steps": 1},
}
JOBS["killed"] = JOBS["whole"]
DISTURBED = {"nan": ("nan", 1), "mean_of_means": ("mean_of_means", -1), "killed": ("kill", 5)}
EQUAL = ["plain", "rich", "phases", "studies", "nan"]


def torchrun(*words: str) -> subprocess.CompletedProcess[str]:
    clean = {name: text for name, text in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    return subprocess.run([*launcher, *words], env=clean, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module")
def data(make_visits: Callable[..., Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_visits(tmp_path_factory.mktemp("visits") / "data", others=11).root


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Every job, done by two processes one after the other; the last one is killed."""
    root = tmp_path_factory.mktemp("two")
    jobs = [
        {"config": to_plain(settings(data, root / name, **changed)), "disturb": DISTURBED.get(name)}
        for name, changed in JOBS.items()
    ]
    (root / "jobs.json").write_text(json.dumps(jobs))
    done = torchrun("tests.classify.several", str(root / "jobs.json"))
    assert done.returncode == 1, done.stderr
    assert "Signal 9 (SIGKILL)" in done.stderr, done.stderr
    assert (root / "killed" / "checkpoints").is_dir(), done.stderr
    return root, done.stderr


def largest_difference(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize("name", EQUAL)
def test_two_processes_give_the_weights_and_figures_of_one(
    two: tuple[Path, str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name in DISTURBED:
        monkeypatch.setattr("classify.train.criterion", several.disturbed(*DISTURBED[name], rank=1))
    run(settings(data, tmp_path / "one", **JOBS[name]))
    one, other = (load_file(root / "model.safetensors") for root in (tmp_path / "one", two[0] / name))
    assert largest_difference(one, other) < 1e-5
    mine, theirs = rows_of(tmp_path / "one"), rows_of(two[0] / name)
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        assert a.keys() == b.keys()
        for figure, value in a.items():
            assert b[figure] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value), figure


@pytest.mark.parametrize("name", [*EQUAL, "batch_norm", "whole"])
def test_all_processes_end_with_the_same_bits(two: tuple[Path, str], name: str) -> None:
    own = [torch.load(f"{two[0] / name}-{rank}.pt") for rank in (0, 1)]
    assert largest_difference(*own) == 0


def test_the_mean_of_the_processes_means_is_another_training(two: tuple[Path, str]) -> None:
    one, other = (load_file(two[0] / name / "model.safetensors") for name in ("plain", "mean_of_means"))
    assert largest_difference(one, other) > 1e-4


def test_a_loss_that_is_not_finite_in_one_process_sends_all_back(two: tuple[Path, str]) -> None:
    events = [row for row in rows_of(two[0] / "nan") if "event" in row]
    assert [(event["what"], event["at"]) for event in events] == [("loss", "epoch 1, step 2")]


def test_what_the_number_of_processes_changes_is_said_once(two: tuple[Path, str]) -> None:
    said = "warning: 2 processes: batch norm on CPU takes its statistics from the 3 or more images of one process"
    assert two[1].count(said) == 1
    assert two[1].count("warning: 2 processes:") == 1


def test_killed_and_resumed_equals_undisturbed_with_dropout_in_two_processes(
    two: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    out = two[0] / "killed"
    assert not (out / "done.json").exists()
    now = json.loads(max((out / "checkpoints").glob("*.json")).read_text())["now"]["progress"]
    assert (now["epoch"], now["batch"]) == (1, 1)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(to_plain(settings(data, out, **JOBS["killed"]))))
    done = torchrun("weakray.cli", "classify", "train", str(tmp_path / "c.yaml"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best_epoch:") == 1
    for name in ("model.safetensors", "metrics.jsonl", "model.json", "curves.png"):
        assert (out / name).read_bytes() == (two[0] / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 3, 7, 10])
def test_parts_are_all_of_a_batch_in_order_and_no_row_twice(images: int, count: int) -> None:
    rows = np.random.default_rng(images).permutation(images)
    parts = [(Processes() if count == 1 else _Several(rank, count)).part(rows) for rank in range(count)]
    np.testing.assert_array_equal(np.concatenate(parts), rows)
    assert [len(part) for part in parts] == [images // count + (rank < images % count) for rank in range(count)]
    shares = [_Several(rank, count).share(rows) for rank in range(count)]
    assert np.mean(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(len(parts[0]) / (images / count))


@pytest.mark.parametrize("total", [1, 3, 7])
def test_gathered_parts_hold_no_padding(monkeypatch: pytest.MonkeyPatch, total: int) -> None:
    """Also where one process has none."""
    rows = torch.arange(2.0 * total).reshape(total, 2)
    sent: list[torch.Tensor] = []

    def gather(padded: torch.Tensor) -> torch.Tensor:
        sent.append(padded)
        return torch.cat(sent)

    monkeypatch.setattr("accelerate.utils.gather", gather)
    longest = -(-total // 3)
    for rank in range(2):
        own = rows[_Several(rank, 3).part(np.arange(total))]
        with pytest.raises(ValueError, match="argument"):  # not all have sent
            _Several(rank, 3).gathered(own, total)
        assert sent[rank].shape == (longest, 2)
    last = _Several(2, 3)
    assert torch.equal(last.gathered(rows[last.part(np.arange(total))], total), rows)


def test_the_loss_of_a_part_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums 6 and 2 of 3 and 1 that count: the whole is 2; parts weigh 3 and 1 in its mean over two processes."""
    monkeypatch.setattr("accelerate.utils.reduce", lambda _, how: {"sum": torch.tensor(4)}[how])
    nothing = torch.zeros(1, 1)
    losses = []
    for total, counted in ((6.0, 3), (2.0, 1)):
        whole = Loss(lambda *_, t=total, c=counted: LossTerms(torch.tensor(t), torch.tensor(c)))  # type: ignore[misc]
        losses.append(_Several(0, 2).criterion(whole)(nothing, nothing, nothing, None).item())
    assert losses == [3.0, 1.0]
    assert np.mean(losses) == 2.0


def test_each_process_and_each_step_draws_its_own() -> None:
    drawn = []
    with torch.random.fork_rng():
        for rank, place in (
            (0, (1, 0, 0, 0)),
            (1, (1, 0, 0, 0)),
            (0, (1, 0, 0, 1)),
            (0, (2, 0, 0, 0)),
            (0, (1, 0, 0, 0)),
        ):
            _Several(rank, 2).seed_step(*place)
            drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 4
    assert drawn[0] == drawn[-1]


def resnet() -> Classifier:
    torch.manual_seed(0)
    model = Classifier(ModelConfig(backbone="test_resnet", input=InputSpec(size_px=48)), 3)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return model


@pytest.mark.parametrize("images", [1, 3])
def test_shared_statistics_leave_the_model_what_it_is(images: int) -> None:
    plain, pixels = resnet().eval(), torch.rand(images, 1, 48, 48)
    shared = shared_statistics(resnet()).eval()
    assert shared.state_dict().keys() == plain.state_dict().keys()
    assert not any(type(part).__name__.startswith("BatchNorm") for part in shared.modules())
    assert sum(isinstance(part, nn.SyncBatchNorm) for part in shared.modules()) > 5
    torch.testing.assert_close(shared(pixels).logits, plain(pixels).logits)
    assert differences(_Several(0, 2), shared, "bce", 2) == []


def test_running_statistics_become_the_processes_means(monkeypatch: pytest.MonkeyPatch) -> None:
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr("accelerate.utils.reduce", lambda values, how: {"mean": values + 2}[how])
    _Several(0, 2).agree(model)
    for name, value in model.state_dict().items():
        moved = 2.0 if name.endswith(("running_mean", "running_var")) else 0.0
        assert torch.equal(value, before[name] + moved), name


def test_parameters_without_a_part_in_the_logits_are_found() -> None:
    model = resnet()
    assert not _has_unused(model)
    model.idle = nn.Linear(2, 2)
    assert _has_unused(model)
    model.idle.requires_grad_(False)
    assert not _has_unused(model)
    assert all(weight.grad is None for weight in model.parameters())


def test_what_differs_is_told_and_too_small_a_batch_refused() -> None:
    model = resnet()
    assert differences(Processes(), model, "auc_margin", 1) == []
    said = differences(_Several(0, 3), model, "auc_margin", 7)
    assert [line.split(" takes ")[0].split(" compares ")[0] for line in said] == [
        "batch norm on CPU",
        "loss.kind auc_margin",
    ]
    with pytest.raises(
        ConfigError, match=r"at least 6 images a step for 3 processes \(batch norm learns from 2 or more each\), got 5"
    ):
        differences(_Several(0, 3), model, "bce", 5)


def test_networks_of_views_train_in_one_process() -> None:
    model = ByView(resnet(), resnet())
    assert differences(Processes(), model, "bce", 4) == []
    with pytest.raises(ConfigError, match="studies: by_view trains in one process, got 2: .* set studies to sum"):
        differences(_Several(0, 2), model, "bce", 8)


LAUNCHED = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"RANK": "", "MASTER_PORT": ""}, "WORLD_SIZE is '2' in the environment, expected RANK, MASTER_PORT beside it"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is '' in the environment, expected WORLD_SIZE beside it"),
        (
            {"WORLD_SIZE": "two"},
            "WORLD_SIZE: expected a whole number in the environment, got 'two'; start by `torchrun",
        ),
        ({"RANK": "-1"}, "RANK: expected a whole number in the environment, got '-1'"),
        ({"RANK": "2"}, "RANK: expected less than WORLD_SIZE 2, got 2; .* or unset WORLD_SIZE"),
        ({}, "device: expected a CUDA device for each process of a machine, got 1 for 2 or more"),
    ],
)
def test_a_launch_that_does_not_fit_together_is_refused(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], says: str
) -> None:
    for name, text in (LAUNCHED | changed).items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=says):
        joined_processes(cpu=False)


def test_without_accelerate_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in LAUNCHED.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match="several processes needs the package accelerate"):
        joined_processes(cpu=True)


def test_one_process_joins_nobody_and_a_search_does_not_spread(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    alone = joined_processes(cpu=True)
    assert (alone.count, alone.first) == (1, True)
    monkeypatch.setattr("classify.train.joined_processes", lambda **_: _Several(0, 2))
    monkeypatch.setattr(Trainer, "fit", None)
    with pytest.raises(ConfigError, match="a search trains in one process, got 2"):
        train(settings(data, tmp_path / "m"), watch=lambda _: None)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_the_first_is_everybodys(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    def told(values: list[Any], from_process: int) -> list[Any]:
        return values if rank == 0 else [None, DataError("no room")]

    monkeypatch.setattr("accelerate.utils.broadcast_object_list", told)

    def work() -> None:
        assert rank == 0
        raise DataError("no room")

    with pytest.raises(DataError, match="no room"):
        _Several(rank, 2).by_first(work)
