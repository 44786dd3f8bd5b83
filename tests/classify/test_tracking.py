from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from classify.settings import TrainConfig
from classify.tracking import tracked
from classify.train import run
from tests.classify.trainings import KilledError, kill_at_call, settings
from weakray.config import flag_fields
from weakray.dataset import Dataset
from weakray.errors import ConfigError


class Fake:
    """The part of the package that is used."""

    class Error(Exception):
        pass

    def __init__(self) -> None:
        self.inits: list[dict[str, Any]] = []
        self.logged: list[Any] = []
        self.refuses = False

    @staticmethod
    def Settings(**given: Any) -> dict[str, Any]:  # noqa: N802 - the package's name for it
        return given

    def init(self, **given: Any) -> Fake:
        if self.refuses:
            raise Fake.Error("no API key configured")
        self.inits.append(given)
        return self

    def log(self, row: dict[str, Any], step: int) -> None:
        self.logged.append((row["epoch"], step))

    def finish(self) -> None:
        self.logged.append("finished")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def test_without_its_package_is_a_clear_error(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="wandb: offline needs the package wandb"):
        run(settings(dataset.root, tmp_path / "m", wandb="offline"))


def test_every_epoch_is_tracked_and_a_resumed_run_goes_on_as_the_same(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake: Fake
) -> None:
    config = settings(dataset.root, tmp_path / "m", wandb="offline", epochs=2)
    with monkeypatch.context() as patch:
        kill_at_call(patch, 7)
        with pytest.raises(KilledError):
            run(config)
    run(config)
    assert fake.logged == [(1, 1), "finished", (2, 2), "finished"]
    first, second = fake.inits
    assert (first["mode"], first["dir"], first["config"]["epochs"]) == ("offline", str(tmp_path / "m"), 2)
    assert first["id"] == second["id"]
    assert first["settings"]["save_code"] is False


def test_refusal_is_a_clear_error(tmp_path: Path, fake: Fake) -> None:
    fake.refuses = True
    with (
        pytest.raises(ConfigError, match="could not start .no API key configured.; run `wandb login`, or set wandb to"),
        tracked("online", tmp_path, "id", {}),
    ):
        pass


def test_the_help_says_how_to_send_an_offline_run_later() -> None:
    assert "wandb sync OUT/wandb/offline-run-*" in (flag_fields(TrainConfig)["wandb"].description or "")
