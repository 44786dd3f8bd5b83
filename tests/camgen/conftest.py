from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from classify.compute import torch_threads
from tests.camgen.makers import made_ensemble


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The models here are so small that threads only wait for each other."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="session")
def ensemble_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_ensemble(tmp_path_factory.mktemp("ensemble"))
