"""`weakray camgen generate`: a recipe's boxes for the images of a dataset.

Streams the dataset in batches, in one process or several. Finished batches stand in part files, a line an image, so
that memory stays constant and a killed run goes on where it stopped, with as many processes as one likes; `boxes.json`
is written from them at the end. Labels play no part here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TextIO, cast

import numpy as np
import torch
from pydantic import Field
from tqdm import tqdm

from camgen.mapper import map_dataset
from camgen.maps import UNIT_RANGE, MapArray, is_empty, to_grid
from camgen.recipe import Recipe
from classify.compute import DeviceName, torch_device, torch_threads
from classify.ensemble import Ensemble
from weakray.coco import Predictions, save_results
from weakray.config import StrictModel
from weakray.cores import usable_cores
from weakray.dataset import Dataset, Split
from weakray.detections import Detections
from weakray.errors import ConfigError, RunError
from weakray.files import replacing
from weakray.runs import RunFolder, open_run
from weakray.stack import silence

Batch = list[str]  # image ids
_SAVED_CELLS = 48


class GenerateConfig(StrictModel):
    """Which boxes to make, and for which images."""

    unhashed: ClassVar[frozenset[str]] = frozenset(
        {"data", "ensemble", "recipe", "out", "workers", "processes", "threads"}
    )

    data: Path = Field(..., description="dataset folder")
    ensemble: Path = Field(..., description="folder of the ensemble that the recipe was fitted with")
    recipe: Path = Field(..., description="recipe.yaml of `camgen search`, or the recipe of a rival beside it")
    out: Path = Field(..., description="run folder; boxes.json and maps/ end up there")
    splits: tuple[Split, ...] = Field(("train", "test"), min_length=1, description="parts of the dataset to box")
    batch_size: int = Field(16, ge=1, description="images a forward pass")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images, in each process")
    processes: int = Field(1, ge=1, description="processes that share the work; each has a GPU where there are several")
    threads: int | None = Field(
        None,
        ge=1,
        description="torch's threads on CPU, in each process; null: its own choice, which several processes share",
    )
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
    done = folder.finished()
    if done is not None:
        _remove_parts(folder)
        return GenerateResult.model_validate({**done, "boxes": config.out / "boxes.json"})  # it may have been moved
    image_ids = _boxed(config, dataset)
    gallery = _gallery(config, dataset, image_ids)
    todo = _batches_to_do(folder, image_ids, config.batch_size)
    if config.processes == 1:
        with torch_threads(config.threads):
            _work(config, folder, _Tools(dataset, ensemble, recipe, gallery), todo, 0)
    else:
        _in_processes(config, folder.key, todo)
    result = _finalise(config, dataset, recipe, folder)
    folder.finish(result.model_dump(mode="json"))
    _remove_parts(folder)
    return result


class _Tools(NamedTuple):
    """What boxes are made with, and whose maps are saved."""

    dataset: Dataset
    ensemble: Ensemble
    recipe: Recipe
    gallery: frozenset[str]


def _work(config: GenerateConfig, folder: RunFolder, tools: _Tools, batches: Sequence[Batch], rank: int) -> None:
    """Makes the boxes of some batches; each process has a part file of its own and, where there are several, a GPU."""
    dataset, ensemble, recipe, gallery = tools
    parent, image_ids = os.getppid(), [image_id for batch in batches for image_id in batch]
    ensemble.to(_device(config.device, rank))
    wanted, making = recipe.wanted, recipe.making(config.masked_memory_mib)
    with _part(folder, rank).open("a", encoding="utf-8") as lines, _bar(len(image_ids), rank) as bar:
        for maps in map_dataset(ensemble, dataset, image_ids, wanted, making, config.batch_size, config.workers):
            mapped = recipe.maps(maps)
            boxes = recipe.apply(mapped, recipe.probabilities(maps), maps.placements)
            empty = np.stack([is_empty(np.maximum(own.mean, 0)) for own in mapped], axis=1)
            for i, image_id in enumerate(maps.image_ids):
                if image_id in gallery:
                    _save_maps(folder, image_id, [own.mean[i] for own in mapped], recipe)
            _append(lines, maps.image_ids, boxes, empty)
            bar.update(len(boxes))
            if config.processes > 1 and os.getppid() != parent:
                return  # the run was killed; whoever goes on with it deals the batches anew


def _in_processes(config: GenerateConfig, key: str, batches: Sequence[Batch]) -> None:
    """`_work` in several processes, each with every so many-th batch.

    Raises:
        RunError: if one of them breaks off.
    """
    context, count = multiprocessing.get_context("spawn"), config.processes
    workers = [
        context.Process(target=_process, args=(config, key, batches[rank::count], rank)) for rank in range(count)
    ]
    for worker in workers:
        worker.start()
    try:
        broken = _first_broken(workers)
    finally:
        for worker in workers:
            worker.terminate()  # those that ended are left as they are
            worker.join()
    if broken is not None:
        raise RunError(
            f"processes: number {broken} of {count}, counted from 0, ended with code {workers[broken].exitcode}, "
            "as said above; run the same again to go on where they stopped"
        )


def _first_broken(workers: Sequence[BaseProcess]) -> int | None:
    """Waits until all have ended well, or until one has not: its rank, else None.

    Each is waited for until its own sentinel says that it ended; one asked twice may end in between.
    """
    running = {worker.sentinel: rank for rank, worker in enumerate(workers)}
    while running:
        for sentinel in wait(list(running)):
            rank = running.pop(cast("int", sentinel))
            workers[rank].join()
            if workers[rank].exitcode:
                return rank
    return None


def _process(config: GenerateConfig, key: str, batches: Sequence[Batch], rank: int) -> None:
    """What one of several processes does."""
    silence()
    threads = config.threads or max(1, usable_cores() // config.processes)
    dataset = Dataset.load(config.data)
    tools = _Tools(
        dataset,
        Ensemble.load(config.ensemble),
        Recipe.load(config.recipe),
        _gallery(config, dataset, _boxed(config, dataset)),
    )
    with torch_threads(threads):
        _work(config, RunFolder(config.out, key), tools, batches, rank)


def _device(name: DeviceName, rank: int) -> torch.device:
    """The device of a process: they take the GPUs in turn."""
    device = torch_device(name)
    return torch.device("cuda", rank % torch.cuda.device_count()) if device.type == "cuda" else device


def _boxed(config: GenerateConfig, dataset: Dataset) -> list[str]:
    return [image_id for split in config.splits for image_id in dataset.ids_of(split)]


def _gallery(config: GenerateConfig, dataset: Dataset, boxed: Sequence[str]) -> frozenset[str]:
    """Ids of the images whose maps are saved."""
    if config.gallery_ids is None:
        return frozenset(dataset.ids_of("test")[: config.gallery_images])
    unknown = sorted(set(config.gallery_ids) - set(boxed))
    if unknown:
        raise ConfigError(f"gallery_ids: expected ids of images that are boxed, got {unknown[0]!r}; see splits")
    return frozenset(config.gallery_ids)


@contextmanager
def _bar(total: int, rank: int) -> Iterator[Any]:
    row: dict[str, Any] = {"position": rank} if rank else {}  # the first one's may be set by TQDM_POSITION
    with tqdm(total=total, desc="generate", unit="image", disable=None, **row) as bar:
        yield bar


def _part(folder: RunFolder, rank: int) -> Path:
    return folder.checkpoints / f"boxes.{rank}.part.jsonl"


def _parts(folder: RunFolder) -> list[Path]:
    """The part files, of however many processes."""
    return sorted(folder.checkpoints.glob("boxes.*.part.jsonl"))


def _remove_parts(folder: RunFolder) -> None:
    for path in _parts(folder):
        path.unlink()


def _batches_to_do(folder: RunFolder, image_ids: Sequence[str], batch_size: int) -> list[Batch]:
    """The batches that do not stand whole in the part files, whose broken last lines are cut off.

    A batch is computed as a whole, so that the figures of an image do not depend on where a run was killed, nor on how
    many processes share the work.
    """
    made = set[str]()
    for path in _parts(folder):
        with path.open("rb+") as file:
            lines = [line for line in file if line.endswith(b"\n")]
            file.truncate(sum(map(len, lines)))
        made.update(json.loads(line)["image_id"] for line in lines)
    batches = [list(image_ids[i : i + batch_size]) for i in range(0, len(image_ids), batch_size)]
    return [batch for batch in batches if not made.issuperset(batch)]


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


def _finalise(config: GenerateConfig, dataset: Dataset, recipe: Recipe, folder: RunFolder) -> GenerateResult:
    predictions: Predictions = {}
    empty = np.zeros(len(recipe.findings), np.int64)
    with ExitStack() as stack:
        for line in chain(*(stack.enter_context(path.open(encoding="utf-8")) for path in _parts(folder))):
            row = json.loads(line)
            if row["image_id"] in predictions:
                continue  # a batch that was broken off stands there twice in part
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
