"""`camgen explain`: one picture of one image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camgen.drawing import WIDTH_PX, FindingPanel, ProbabilityBar, draw
from camgen.explain import ExplainConfig, run
from camgen.generate import GenerateConfig
from camgen.generate import run as generate
from camgen.recipe import Recipe, Threshold
from classify.ensemble import Ensemble
from tests.camgen.makers import NAMES, films
from tests.camgen.test_recipe import entry
from weakray.coco import load_results
from weakray.detections import Detections
from weakray.errors import ConfigError, DataError, WeakrayError
from weakray.imaging import read_image

TRUTH = Detections(np.array([[5, 4, 20, 16], [5, 4, 20, 16]]), np.array([0, 2]), np.ones(2))
ORANGE, GREEN = (255, 179, 71), (61, 220, 155)


@pytest.fixture
def made(tmp_path: Path, ensemble_folder: Path) -> Callable[..., ExplainConfig]:
    films(tmp_path / "data", ["test", "test", "train"], {"i000": TRUTH})
    sha = Ensemble.load(ensemble_folder).sha256
    findings = (
        entry(NAMES[0]),
        entry(NAMES[1], method="gradcam", threshold=Threshold(kind="range", value=0.4)),
        entry(NAMES[2], gate=1.0),
    )
    Recipe(ensemble_sha256=sha, findings=findings).save(tmp_path / "recipe.yaml")

    def config(**changes: Any) -> ExplainConfig:
        paths = {"ensemble": ensemble_folder, "recipe": tmp_path / "recipe.yaml", "out": tmp_path / "seen.png"}
        return ExplainConfig(**{"image": tmp_path / "data/images/i000.png", "device": "cpu"} | paths | changes)

    return config


def has_colour(path: Path, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(read_image(path).astype(int) - colour).max(axis=-1) <= 2).sum() > 30)


def test_findings_above_their_gate_with_the_boxes_of_generate(
    made: Callable[..., ExplainConfig], tmp_path: Path, ensemble_folder: Path
) -> None:
    config = made(data=tmp_path / "data")
    result = run(config)
    picture = read_image(config.out)
    assert picture.shape[1] == WIDTH_PX
    assert set(result.shown) == set(NAMES[:2])  # nothing passes the third one's gate
    assert result.true_boxes == 2
    given = {"data": tmp_path / "data", "ensemble": ensemble_folder, "recipe": config.recipe, "out": tmp_path / "boxes"}
    found = load_results(generate(GenerateConfig(**given, device="cpu", splits=("test",), batch_size=1)).boxes)
    counts = np.bincount(found["i000"].class_id, minlength=3)
    assert result.boxes == {name: counts[NAMES.index(name)] for name in result.shown}
    assert sum(result.boxes.values()) > 0
    assert has_colour(config.out, ORANGE)
    assert has_colour(config.out, GREEN)
    first = config.out.read_bytes()
    run(config)
    assert config.out.read_bytes() == first


def test_without_a_dataset_no_true_box_is_drawn(made: Callable[..., ExplainConfig]) -> None:
    config = made(findings=(NAMES[2], NAMES[0]))
    result = run(config)
    assert result.shown == [NAMES[2], NAMES[0]]
    assert result.true_boxes is None
    assert result.boxes[NAMES[2]] == 0
    assert not has_colour(config.out, GREEN)


def test_an_image_that_nobody_annotated(made: Callable[..., ExplainConfig], tmp_path: Path) -> None:
    result = run(made(image=tmp_path / "data/images/i002.png", data=tmp_path / "data"))
    assert result.true_boxes is None


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"findings": ("Hernia",)}, ConfigError, "findings: expected some of Nodule, Effusion, Mass; got 'Hernia'"),
        ({"image_id": "x", "data": "data"}, ConfigError, "image_id: expected the id of an image of .*, got 'x'"),
        ({"out": Path("seen.jpg")}, ConfigError, r"out: expected a file name that ends in \.png, got 'seen\.jpg'"),
        ({"image": Path("none.png")}, DataError, "none.png: expected an image file"),
    ],
)
def test_refuses(
    made: Callable[..., ExplainConfig], tmp_path: Path, changes: dict[str, Any], error: type[WeakrayError], text: str
) -> None:
    if "data" in changes:
        changes = changes | {"data": tmp_path / changes["data"]}
    with pytest.raises(error, match=text):
        run(made(**changes))


def test_another_size_than_the_datasets_is_refused(made: Callable[..., ExplainConfig], tmp_path: Path) -> None:
    films(tmp_path / "larger", ["test"], {}, size_hw=(60, 88))
    with pytest.raises(DataError, match=r"image: expected 60x88 pixels \(height x width\) as 'i000' has .*, got 30x44"):
        run(made(data=tmp_path / "larger"))


@pytest.mark.parametrize("size_hw", [(30, 90), (90, 30)])
@pytest.mark.parametrize("panels", [0, 1, 4])
def test_wide_and_tall_films_and_empty_maps_are_drawn(tmp_path: Path, size_hw: tuple[int, int], panels: int) -> None:
    heats = [np.zeros(size_hw), np.full(size_hw, 0.3), np.full(size_hw, np.nan), np.arange(2700.0).reshape(size_hw)]
    box = Detections(np.array([[0, 0, size_hw[1], size_hw[0]]]), np.array([0]), np.array([0.5]))
    shown = [FindingPanel("A finding of a very long name", 0.5, 0.6, heat, box, box) for heat in heats[:panels]]
    bars = [ProbabilityBar("A finding of a very long name", 0.5, 0.6, bool(panels))] * 14
    film = np.full((*size_hw, 3), 90, np.uint8)
    draw(tmp_path / "a.png", film, "a", bars, shown, box, ["A finding of a very long name"])
    assert read_image(tmp_path / "a.png").shape[1] == WIDTH_PX
