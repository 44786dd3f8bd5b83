from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

import classify.preview
from classify.augment import AugmentConfig, Augmenter
from classify.batches import epoch_order
from classify.model import Classifier
from classify.preview import PreviewConfig, run
from classify.sheet import Block, Row, Tile, draw
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError
from weakray.imaging import InputSpec, prepare, read_image, write_image

AUGMENT = {"horizontal_flip": 1.0, "noise_probability": 0.5, "noise": 0.1}


def settings(data: Path, out: Path, **changed: Any) -> PreviewConfig:
    model = {"backbone": "test_resnet", "input": {"size_px": 48, "mode": "clahe"}}
    plain = {"data": data, "out": out, "model": model, "augment": AUGMENT, "epochs": 2, "images": 2}
    return validate(PreviewConfig, plain | changed)


def steps_of(out: Path, image: int = 0) -> dict[str, Any]:
    content = json.loads((out / "preview.json").read_text())["images"][image]
    return {step["step"]: step for step in content["steps"]}


def test_every_step_is_shown_with_its_range(dataset: Dataset, tmp_path: Path) -> None:
    result = run(settings(dataset.root, tmp_path / "p"))
    content = json.loads((tmp_path / "p/preview.json").read_text())
    ids = dataset.ids_of("train")
    shown = [ids[row] for row in epoch_order(len(ids), 0, 0)[:2]]  # what the first epoch begins with
    assert [image["image_id"] for image in content["images"]] == shown
    assert [(step["row"], step["step"], step["shape"]) for step in content["images"][0]["steps"]] == [
        ("prepared", "decoded", [30, 44]),
        ("prepared", "min–max", [30, 44]),
        ("prepared", "scaled: min–max", [33, 48]),
        ("prepared", "scaled: CLAHE 2", [33, 48]),
        ("prepared", "scaled: CLAHE 4", [33, 48]),
        ("prepared", "letterboxed", [48, 48, 3]),
        ("augmented", "flip", [48, 48, 3]),
        ("augmented", "affine", [48, 48, 3]),
        ("augmented", "brightness, contrast", [48, 48, 3]),
        ("augmented", "noise", [48, 48, 3]),
        ("trained on", "epoch 1", [48, 48, 3]),
        ("trained on", "epoch 2", [48, 48, 3]),
        ("tensor", "channel 1 of 3", [1, 3, 48, 48]),
        ("tensor", "channel 2 of 3", [1, 3, 48, 48]),
        ("tensor", "channel 3 of 3", [1, 3, 48, 48]),
    ]
    assert (result.images, result.steps) == (2, 15)
    for image in content["images"]:
        labels = dataset.labels.loc[image["image_id"]]
        assert image["present"] == [name for name, value in labels.items() if value == 1]
        assert image["uncertain"] == [name for name, value in labels.items() if value == -1]


def test_ranges_are_those_of_what_training_sees(dataset: Dataset, tmp_path: Path) -> None:
    config = settings(dataset.root, tmp_path / "p")
    run(config)
    ids = dataset.ids_of("train")
    row = int(epoch_order(len(ids), 0, 0)[0])
    film = read_image(dataset.path_of(ids[row]))
    steps = steps_of(tmp_path / "p")
    assert [steps["decoded"][name] for name in ("min", "max", "mean")] == pytest.approx(
        [film.min(), film.max(), film.mean()], abs=1e-5
    )
    prepared = prepare(film, InputSpec(size_px=48, mode="clahe"))[0]
    second = Augmenter(validate(AugmentConfig, AUGMENT), 0)(prepared, 1, row)
    assert steps["epoch 2"]["mean"] == pytest.approx(second.mean(), abs=1e-5)
    first = Augmenter(validate(AugmentConfig, AUGMENT), 0)(prepared, 0, row)
    model = Classifier(config.model, 4)
    mean, std = (np.asarray(values).ravel() for values in (model.mean, model.std))
    for k in range(3):
        expected = (first[..., k] / 255 - mean[k]) / std[k]
        found = [steps[f"channel {k + 1} of 3"][name] for name in ("min", "max", "mean")]
        assert found == pytest.approx([expected.min(), expected.max(), expected.mean()], abs=1e-4)
    numbers = json.loads((tmp_path / "p/preview.json").read_text())["normalisation"]
    assert numbers["std"] == pytest.approx(std, abs=1e-4)


def test_the_same_settings_draw_the_same_bytes_and_a_finished_run_is_not_done_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        run(settings(dataset.root, tmp_path / name))
    for name in ("preview.png", "preview.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    monkeypatch.setattr(classify.preview, "draw", None)
    assert run(settings(dataset.root, tmp_path / "a")).images == 2


@pytest.mark.parametrize("mode", ["grey", "contrast"])
def test_images_may_be_named_and_steps_that_are_off_are_not_shown(dataset: Dataset, tmp_path: Path, mode: str) -> None:
    ids = dataset.ids_of("test")[3:1:-1]
    still = {"affine_probability": 0, "tone_probability": 0}
    model = {"backbone": "test_resnet", "input": {"size_px": 48, "mode": mode}}
    config = settings(dataset.root, tmp_path / "p", split="test", image_ids=ids, augment=still, model=model)
    assert run(config).images == 2
    content = json.loads((tmp_path / "p/preview.json").read_text())
    assert [image["image_id"] for image in content["images"]] == ids
    names = list(steps_of(tmp_path / "p"))
    planes = ["min–max"] if mode == "grey" else ["scaled: raw", "scaled: equalised", "scaled: contrast"]
    assert names[: 2 + len(planes)] == ["decoded", *planes, "letterboxed"]
    assert names[2 + len(planes) : 4 + len(planes)] == ["epoch 1", "epoch 2"]  # no row of single steps
    assert len(names) == 4 + len(planes) + (1 if mode == "grey" else 3)


def test_a_colour_file_and_a_flat_one(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data")
    colour, flat = data.ids_of("val")[:2]
    write_image(data.path_of(colour), np.random.default_rng(0).integers(0, 256, (30, 44, 3)).astype(np.uint8))
    write_image(data.path_of(flat), np.full((30, 44), 90, np.uint8))
    result = run(settings(data.root, tmp_path / "p", split="val", image_ids=[colour, flat]))
    assert list(steps_of(tmp_path / "p"))[:3] == ["decoded", "grey", "min–max"]
    assert steps_of(tmp_path / "p")["decoded"]["shape"] == [30, 44, 3]
    assert result.flat == 5  # decoded, min–max, and the three planes, which CLAHE leaves flat


def test_says_which_image_there_is_none_of(
    dataset: Dataset, make_spots: Callable[..., Dataset], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="image_ids: 'i030' is not an image of split train, such as 'i000'"):
        run(settings(dataset.root, tmp_path / "p", image_ids=["i030"]))
    empty = make_spots(tmp_path / "data", others=0)
    with pytest.raises(DataError, match="expected images in split val, got none; name another split"):
        run(settings(empty.root, tmp_path / "q", split="val"))


def test_the_sheet_has_room_for_all_of_it(dataset: Dataset, tmp_path: Path) -> None:
    run(settings(dataset.root, tmp_path / "p"))
    sheet = np.asarray(Picture.open(tmp_path / "p/preview.png"))
    paper = sheet[0, 0]
    height, width = sheet.shape[:2]
    assert (sheet[:20] == paper).all()
    assert (sheet[-20:] == paper).all()
    assert (sheet[:, -20:] == paper).all()
    assert width >= 6 * 208
    assert height >= 2 * 4 * 208


def test_pictures_are_shown_as_they_are() -> None:
    """A tile of black, grey and white keeps its grey; floats are shown from least to largest; long words are cut."""
    grey = np.repeat(np.array([0, 100, 255], np.uint8), 16)[None].repeat(48, axis=0)
    tensor = np.array([[-2.0, 0.0], [0.0, 2.0]], np.float32)
    tiles = [Tile("grey", grey, grey.shape), Tile("a name that is far too long for its tile", tensor, (1, 2, 2))]
    assert tiles[1].range == (-2.0, 2.0, 0.0)
    many = [f"Finding {k}" for k in range(60)]
    sheet = np.asarray(draw("t", "n", [Block("image", "", many, ["Mass"], [Row("row", "what it is", tiles)])]))
    middle = sheet[96 + 92 + 104]
    grey_left, tensor_left = 36 + 172, 36 + 172 + 208 + 18
    assert [int(v) for v in middle[[grey_left + 30, grey_left + 104, grey_left + 180], 0]] == [0, 100, 255]
    upper = sheet[96 + 92 + 50]
    assert [int(v) for v in upper[[tensor_left + 50, tensor_left + 150], 0]] == [0, 128]
    assert (sheet[:, -36:] == sheet[0, 0]).mean() > 0.99  # labels stop at the margin
