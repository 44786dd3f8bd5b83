"""`weakray classify preview`: a contact sheet of what a model really sees after each step, with value ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from classify.augment import AugmentConfig, Augmenter, Step
from classify.batches import epoch_order
from classify.model import Classifier, ModelConfig
from classify.sheet import Block, Row, Tile, draw
from weakray.config import StrictModel, to_plain
from weakray.dataset import Dataset, Split
from weakray.detections import FloatArray
from weakray.errors import DataError
from weakray.files import replacing, write_json
from weakray.imaging import Image, InputSpec, planes, prepare, read_image, scale_to_fit, stretch, to_batch, to_channels
from weakray.runs import open_run

_NAMES: dict[Step, str] = {
    "horizontal_flip": "flip",
    "affine": "affine",
    "grid": "grid distortion",
    "elastic": "elastic",
    "tone": "brightness, contrast",
    "gamma": "gamma",
    "noise": "noise",
}


class PreviewConfig(StrictModel):
    """Settings of `weakray classify preview`; `seed`, `model` and `augment` are those of `classify train`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out"})

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder; gets preview.png and preview.json")
    split: Split = Field("train", description="where the images come from")
    image_ids: list[str] = Field([], description="which images; empty: those that the first epoch begins with")
    images: int = Field(3, ge=1, le=50, description="how many, where image_ids is empty")
    epochs: int = Field(4, ge=1, le=12, description="epochs whose draw of the whole augmentation is shown")
    seed: int = Field(0, ge=0, description="of the order and the augmentation")
    model: ModelConfig = Field(ModelConfig(), description="architecture; its input and normalisation are shown")
    augment: AugmentConfig = Field(AugmentConfig(), description="random changes of the train images")


class PreviewResult(StrictModel):
    """What was drawn."""

    images: int
    steps: int  # tiles an image
    flat: int  # tiles that show one value everywhere


def run(config: PreviewConfig) -> PreviewResult:
    """Draws `preview.png` and writes the value ranges of every tile into `preview.json`.

    Raises:
        DataError: if the split has no image, or an id is not in it.
    """
    dataset = Dataset.load(config.data)
    folder = open_run(config.out, config, {"dataset": dataset.sha256})
    done = folder.finished()
    if done is not None:
        return PreviewResult(**done)
    rows = _rows(dataset, config)
    with torch.random.fork_rng(devices=[]):
        model = Classifier(config.model.model_copy(update={"pretrained": False}), len(dataset.taxonomy))
    mean, std = model.mean.numpy(), model.std.numpy()
    ids = dataset.ids_of(config.split)
    blocks = [_block(dataset, ids[row], row, config, mean, std) for row in rows]
    spec = config.model.input
    numbers = {name: [round(float(v), 4) for v in values.ravel()] for name, values in (("mean", mean), ("std", std))}
    note = (
        f"{dataset.root.name}, split {config.split}   ·   input: mode {spec.mode}, {spec.size_px} px, {spec.channels} "
        f"channel{'s' if spec.channels > 1 else ''}   ·   normalised by mean {numbers['mean']}, deviation "
        f"{numbers['std']} of {config.model.backbone}   ·   bars: how often each value is (square root)"
    )
    with replacing(folder.root / "preview.png") as temporary:
        draw("What the model sees", note, blocks).save(temporary)
    content = {
        "split": config.split,
        "input": to_plain(spec),
        "augment": to_plain(config.augment),
        "normalisation": numbers,
        "images": [_described(block) for block in blocks],
    }
    write_json(folder.root / "preview.json", content)
    tiles = [tile for block in blocks for row in block.rows for tile in row.tiles]
    flat = sum(tile.range[0] == tile.range[1] for tile in tiles)
    result = PreviewResult(images=len(blocks), steps=len(tiles) // len(blocks), flat=flat)
    folder.finish(to_plain(result))
    return result


def _rows(dataset: Dataset, config: PreviewConfig) -> list[int]:
    ids = dataset.ids_of(config.split)
    if not ids:
        raise DataError(f"{dataset.root}: expected images in split {config.split}, got none; name another split")
    if not config.image_ids:
        return epoch_order(len(ids), config.seed, 0)[: config.images].tolist()
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    for image_id in config.image_ids:
        if image_id not in row_of:
            raise DataError(f"image_ids: {image_id!r} is not an image of split {config.split}, such as {ids[0]!r}")
    return [row_of[image_id] for image_id in config.image_ids]


def _block(
    dataset: Dataset, image_id: str, row: int, config: PreviewConfig, mean: FloatArray, std: FloatArray
) -> Block:
    spec, augment = config.model.input, config.augment
    film = read_image(dataset.path_of(image_id))
    prepared, placement = prepare(film, spec)
    alone = {_NAMES[step]: Augmenter(augment.alone(step), config.seed)(prepared, 0, row) for step in augment.steps}
    whole = Augmenter(augment, config.seed)
    seen = {f"epoch {epoch + 1}": whole(prepared, epoch, row) for epoch in range(config.epochs)}
    tensor = (to_batch([seen["epoch 1"]]) - mean) / std
    channels = {f"channel {k + 1} of {len(own)}": plane for own in tensor for k, plane in enumerate(own)}
    made_of = "each step from the file to the square that is kept"
    if spec.mode != "grey":
        made_of += "; its planes are shown as red, green and blue"
    rows = [
        Row("prepared", made_of, _tiles(_preparation(film, prepared, spec))),
        Row("augmented", "each step alone, as if it always happened", _tiles(alone)),
        Row("trained on", "all steps, each with its probability, in one epoch after the other", _tiles(seen)),
        Row(
            "tensor",
            "what enters the network in epoch 1, each channel from its least to its largest value",
            [Tile(name, plane, tensor.shape) for name, plane in channels.items()],
        ),
    ]
    labels = dataset.labels.loc[image_id]
    height, width = film.shape[:2]
    inner = tuple(part.stop - part.start for part in placement.inner())
    return Block(
        image_id,
        f"{height} px high and {width} wide as stored, {inner[0]} high and {inner[1]} wide in the square",
        [str(name) for name, value in labels.items() if value == 1],
        [str(name) for name, value in labels.items() if value == -1],
        [row for row in rows if row.tiles],
    )


def _preparation(film: Image, prepared: Image, spec: InputSpec) -> dict[str, Image]:
    """The steps of `weakray.imaging.prepare` one by one."""
    steps = {"decoded": film}
    image = to_channels(film, spec.channels if spec.mode == "grey" else 1)
    if image.ndim != film.ndim:
        steps["grey" if image.ndim == 2 else "three channels"] = image
    if spec.minmax:
        image = stretch(image)
        steps["min–max"] = image
    if spec.mode != "grey":
        made = planes(scale_to_fit(image, spec.size_px), spec.mode)
        steps |= {f"scaled: {name}": plane for name, plane in made.items()}
    return steps | {"letterboxed": prepared}


def _tiles(steps: dict[str, Image]) -> list[Tile]:
    return [Tile(name, image, image.shape) for name, image in steps.items()]


def _described(block: Block) -> dict[str, Any]:
    steps = [
        {
            "row": row.title,
            "step": tile.name,
            "shape": list(tile.shape),
            "dtype": str(tile.values.dtype),
            **dict(zip(("min", "max", "mean"), (round(value, 6) for value in tile.range), strict=True)),
        }
        for row in block.rows
        for tile in row.tiles
    ]
    return {"image_id": block.title, "present": block.present, "uncertain": block.uncertain, "steps": steps}
