"""phantom-v1 stays what it is: a change that moves a label or a box must not pass unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.phantom.command import PhantomConfig, run
from ingest.phantom.frozen import FROZEN, frozen_name
from weakray.dataset import Dataset
from weakray.files import read_yaml

# The first films of each split of each seed of phantom-v1.
SAMPLES = {
    1: "57f2147fb2647f7a1bbe68088092282a33b588d8700a34de399f1c73a2c7264c",
    11: "0eea62e0261849dc444163dfb81e7bdc513c4b3d4579fe1e2614d81236f54f6b",
    12: "db640467be8fc1222896234211ff63c6942a940d93730bedea4cc294e6f1585e",
    13: "2b3779c03088ef719e1c86a383d31208b0e9d6fbec928c244b5b653ba78fd58c",
}


@pytest.mark.parametrize("seed", sorted(SAMPLES))
def test_the_first_films_of_each_split(seed: int, tmp_path: Path) -> None:
    run(PhantomConfig(seed=seed, train=24, val=8, tune=12, test=16, out=tmp_path, workers=1))
    info = Dataset.load(tmp_path).info
    assert info["labels_and_boxes_sha256"] == SAMPLES[seed]
    assert info["origin"] == "weakray phantom: simulated films, no patient"


@pytest.mark.soak
@pytest.mark.parametrize("seed", sorted(SAMPLES))
def test_the_whole_of_each_seed(seed: int, tmp_path: Path) -> None:
    run(PhantomConfig(seed=seed, out=tmp_path))
    info = Dataset.load(tmp_path).info
    assert info["labels_and_boxes_sha256"] == FROZEN["phantom-v1"][seed]
    assert info["origin"] == f"weakray phantom-v1, seed {seed}: simulated films, no patient"


def test_only_the_frozen_films_bear_the_name() -> None:
    assert frozen_name(FROZEN["phantom-v1"][11]) == "phantom-v1, seed 11"
    assert frozen_name(SAMPLES[11]) is None


def test_the_shipped_config_makes_the_frozen_films() -> None:
    section = read_yaml(Path(__file__).parents[3] / "configs" / "phantom.yaml")["ingest"]
    assert section.pop("source") == "phantom"
    assert PhantomConfig.model_validate({**section, "out": "x"}) == PhantomConfig(out=Path("x"))
