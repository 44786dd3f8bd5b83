from __future__ import annotations

from pathlib import Path

import pytest

from tests.camgen.makers import made_ensemble


@pytest.fixture(scope="session")
def ensemble_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_ensemble(tmp_path_factory.mktemp("ensemble"))
