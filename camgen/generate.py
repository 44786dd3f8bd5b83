"""`weakray camgen generate`: a recipe's boxes for the images of a dataset.

Streams the dataset in batches. Finished batches stand in a part file, a line an image, so that memory stays constant
and a killed run goes on where it stopped; `boxes.json` is written from it at the end. Labels play no part here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from camgen.mapper import map_dataset
from camgen.maps import UNIT_RANGE, MapArray, is_empty, to_grid
from camgen.recipe import Recipe
from classify.compute import DeviceName, torch_device
from classify.ensemble import Ensemble
from weakray.coco import Predictions, save_results
from weakray.config import StrictModel
from weakray.dataset import Dataset, Split
from weakray.detections import Detections
from weakray.errors import ConfigError
from weakray.files import replacing
from weakray.runs import RunFolder, open_run

_PART = "boxes.part.jsonl"
_SAVED_CELLS = 48


class GenerateConfig(StrictModel):
    """Which boxes to make, and for which images."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "recipe", "out", "workers"})

    data: Path = Field(..., description="dataset folder")
    ensemble: Path = Field(..., description="folder of the ensemble that the recipe was fitted with")
    recipe: Path = Field(..., description="recipe.yaml of `camgen search`, or the recipe of a rival beside it")
    out: Path = Field(..., description="run folder; boxes.json and maps/ end up there")
    splits: tuple[Split, ...] = Field(("train", "test"), min_length=1, description="parts of the dataset to box")
    batch_size: int = Field(16, ge=1, description="images a forward pass")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    masked_memory_mib: int = Field(
        64, ge=1, description="MiB of masked images or ablated layers that scorecam and ablationcam hold at a time"
    )
    gallery_images: int = Field(24, ge=0, description="save the maps of so many images, the first of split test")
    gallery_ids: tuple[str, ...] | None = Field(
        None, description="save the maps of these images instead; null: of the first of test"
    )


class GenerateResult(StrictModel):
    """What was made."""

    boxes: Path
    recipe_sha256: str
    images: int
    images_without_boxes: int
    boxes_per_finding: dict[str, int]
    empty_maps_per_finding: dict[str, int]  # maps that point nowhere although some had to be looked at


def run(config: GenerateConfig) -> GenerateResult:
    """Makes `boxes.json` and `maps/<image_id>.npz`."""
    dataset = Dataset.load(config.data)
    recipe = Recipe.load(config.recipe)
    ensemble = Ensemble.load(config.ensemble)
    recipe.check(dataset.taxonomy.names, ensemble.sha256, len(ensemble.members))
    inputs = {"dataset": dataset.sha256, "ensemble": ensemble.sha256, "recipe": recipe.sha256}
    folder = open_run(config.out, config, inputs)
    part = folder.checkpoints / _PART
    done = folder.finished()
    if done is not None:
        part.unlink(missing_ok=True)
        return GenerateResult.model_validate({**done, "boxes": config.out / "boxes.json"})  # it may have been moved
    image_ids = [image_id for split in config.splits for image_id in dataset.ids_of(split)]
    gallery = _gallery(config, dataset, image_ids)
    ensemble.to(torch_device(config.device))
    start = _whole_batches(part, config.batch_size, len(image_ids))
    with part.open("a", encoding="utf-8") as lines, _bar(len(image_ids), start) as bar:
        stream = map_dataset(
            *(ensemble, dataset, image_ids[start:], recipe.wanted),
            *(recipe.making(config.masked_memory_mib), config.batch_size, config.workers),
        )
        for maps in stream:
            mapped = recipe.maps(maps)
            boxes = recipe.apply(mapped, recipe.probabilities(maps), maps.placements)
            empty = np.stack([is_empty(np.maximum(own, 0)) for own in mapped], axis=1)
            for i, image_id in enumerate(maps.image_ids):
                if image_id in gallery:
                    _save_maps(folder, image_id, [own[i] for own in mapped], recipe)
            _append(lines, maps.image_ids, boxes, empty)
            bar.update(len(boxes))
    result = _finalise(config, dataset, recipe, part)
    folder.finish(result.model_dump(mode="json"))
    part.unlink()
    return result


def _gallery(config: GenerateConfig, dataset: Dataset, boxed: Sequence[str]) -> frozenset[str]:
    """Ids of the images whose maps are saved."""
    if config.gallery_ids is None:
        return frozenset(dataset.ids_of("test")[: config.gallery_images])
    unknown = sorted(set(config.gallery_ids) - set(boxed))
    if unknown:
        raise ConfigError(f"gallery_ids: expected ids of images that are boxed, got {unknown[0]!r}; see splits")
    return frozenset(config.gallery_ids)


@contextmanager
def _bar(total: int, start: int) -> Iterator[Any]:
    with tqdm(total=total, initial=start, desc="generate", unit="image", disable=None) as bar:
        yield bar


def _whole_batches(part: Path, batch_size: int, total: int) -> int:
    """Cuts the part file after its last whole batch and says how many images stand in it.

    A batch is computed as a whole, so that the figures of an image do not depend on where a run was killed.
    """
    with part.open("ab+") as file:
        file.seek(0)
        lengths = [len(line) for line in file if line.endswith(b"\n")]
        whole = len(lengths) if len(lengths) >= total else len(lengths) // batch_size * batch_size
        file.truncate(sum(lengths[:whole]))
    return whole


def _append(lines: TextIO, image_ids: Sequence[str], boxes: Sequence[Detections], empty: Any) -> None:
    for image_id, found, nowhere in zip(image_ids, boxes, empty, strict=True):
        row = {
            "image_id": image_id,
            "boxes": found.boxes_xyxy_px.tolist(),
            "class_id": found.class_id.tolist(),
            "score": found.score.tolist(),
            "empty": np.flatnonzero(nowhere).tolist(),
        }
        lines.write(json.dumps(row, allow_nan=False) + "\n")
    lines.flush()


def _save_maps(folder: RunFolder, image_id: str, own: Sequence[MapArray], recipe: Recipe) -> None:
    """`maps`: float16 `(k, h, w)` in [0, 1] on the finest finding's grid; times `scale` `(k,)` they are the raw maps.

    Grad-CAM's raw values would vanish in float16. A grid of more than 48 cells a side is halved, and halved again.
    """
    grid = max((one.shape for one in own), key=lambda size: size[0] * size[1])
    while max(grid) > _SAVED_CELLS:
        grid = (-(-grid[0] // 2), -(-grid[1] // 2))
    maps = np.stack([to_grid(torch.from_numpy(one[None]), grid)[0].numpy() for one in own])
    high = maps.max(axis=(1, 2))
    own_scale = np.array([finding.method not in UNIT_RANGE for finding in recipe.findings])
    scale = np.where(own_scale & (high > 0), high, 1).astype(np.float32)
    with replacing(folder.root / "maps" / f"{image_id}.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, maps=(maps / scale[:, None, None]).astype(np.float16), scale=scale)


def _finalise(config: GenerateConfig, dataset: Dataset, recipe: Recipe, part: Path) -> GenerateResult:
    predictions: Predictions = {}
    empty = np.zeros(len(recipe.findings), np.int64)
    with part.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            predictions[row["image_id"]] = Detections(
                np.array(row["boxes"], np.float32).reshape(-1, 4),
                np.array(row["class_id"], np.int64),
                np.array(row["score"], np.float32),
            )
            empty[row["empty"]] += 1
    save_results(config.out / "boxes.json", predictions, dataset.image_ids, recipe.sha256)
    counts = np.bincount(
        np.concatenate([np.zeros(0, np.int64), *(found.class_id for found in predictions.values())]),
        minlength=len(recipe.findings),
    )
    return GenerateResult(
        boxes=config.out / "boxes.json",
        recipe_sha256=recipe.sha256,
        images=len(predictions),
        images_without_boxes=sum(len(found) == 0 for found in predictions.values()),
        boxes_per_finding=dict(zip(recipe.names, counts.tolist(), strict=True)),
        empty_maps_per_finding=dict(zip(recipe.names, empty.tolist(), strict=True)),
    )
