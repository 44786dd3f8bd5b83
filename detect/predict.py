"""`weakray detect predict`: a detector's boxes for the images of a dataset, or of a folder of films."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from tqdm import tqdm

from detect.compute import DeviceName, torch_threads
from detect.detector import predict_boxes
from detect.opening import check_findings, detector_sha256, open_detector
from detect.output import BoxFormat, write_boxes, write_picture
from weakray.bundle.runtime import Engine
from weakray.coco import BoxTruth, Predictions, save_results
from weakray.config import StrictModel
from weakray.cores import usable_cores
from weakray.dataset import Dataset, Split
from weakray.errors import ConfigError, DataError
from weakray.files import sha256_file, sha256_json, write_text
from weakray.film import read_film
from weakray.imaging import Image, read_image
from weakray.runs import open_run


class DetectPredictConfig(StrictModel):
    """Settings of `weakray detect predict`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "images", "out", "detector", "device", "threads"})

    data: Path | None = Field(None, description="dataset folder")
    images: Path | None = Field(
        None, description="instead of a dataset: folder of PNG, JPEG or DICOM films, its subfolders included"
    )
    detector: Path = Field(..., description="run folder of `detect train`, an export, or a bundle")
    out: Path = Field(..., description="run folder; receives boxes.json")
    splits: tuple[Split, ...] = Field(
        ("test",), min_length=1, description="which images of a dataset: train, val, tune, test"
    )
    score_above: float = Field(0.001, ge=0, lt=1, description="lowest score of a box")
    iou_above: float = Field(0.6, ge=0, le=1, description="overlap at which the worse of two boxes of a finding goes")
    max_boxes: int = Field(100, ge=1, description="boxes kept of an image")
    formats: tuple[BoxFormat, ...] = Field(
        (), description="what to write beside boxes.json: coco (coco.json), yolo (a folder), csv (boxes.csv)"
    )
    pictures: int | None = Field(
        None, ge=1, description="how many images, from the first, to draw with their boxes; null: none"
    )
    drawn_from: float = Field(0.25, ge=0, le=1, description="score from which a box is drawn")
    engine: Engine = Field("auto", description="what runs a bundle's detector: auto, onnxruntime, openvino")
    batch_size: int = Field(16, ge=1, description="images at a time")
    device: DeviceName = Field("auto", description="of a detector in torch; auto takes CUDA where there is one")
    threads: int | None = Field(None, ge=1, description="threads of the detector; all cores when not given")


class DetectPredictResult(StrictModel):
    """What was found."""

    images: int
    boxes: int
    images_without_box: int
    rejected: int = 0  # files of the folder that are no films, or broken; rejected.csv names them


@dataclass(frozen=True)
class _Work:
    """The images to predict on: a dataset's or a folder's."""

    ids: list[str]
    known: list[str]  # all ids, in the order that gives COCO ids
    read: Callable[[str], Image]
    sha256: str
    truth: BoxTruth


def run(config: DetectPredictConfig) -> DetectPredictResult:
    """Writes `boxes.json` and what else was asked for.

    Raises:
        ConfigError: unless exactly one of `data` and `images` is given.
        DataError: if the detector is of other findings than the dataset, an image of a dataset cannot be read, or a
            folder holds not one film.
    """
    if (config.data is None) == (config.images is None):
        raise ConfigError("expected either data (a dataset folder) or images (a folder of films), got both or neither")
    about = detector_sha256(config.detector)
    dataset = None if config.data is None else Dataset.load(config.data)
    work = _of_folder(config.images) if config.images is not None else _of_dataset(dataset, config)
    folder = open_run(config.out, config, {"images": work.sha256, "detector": about})
    if (done := folder.finished()) is not None:
        return DetectPredictResult.model_validate(done)
    threads = config.threads or usable_cores()
    model = open_detector(config.detector, threads, config.engine, config.device)
    if dataset is not None and config.data is not None:
        check_findings(model, dataset.taxonomy.names, config.detector, config.data)
    found: Predictions = {}
    sizes: dict[str, tuple[int, int]] = {}
    rejected: list[tuple[str, str]] = []
    with torch_threads(config.threads):
        steps = range(0, len(work.ids), config.batch_size)
        for start in tqdm(steps, desc="detector's boxes", unit="batch", disable=None):
            images: dict[str, Image] = {}
            for image_id in work.ids[start : start + config.batch_size]:
                try:
                    images[image_id] = work.read(image_id)
                except DataError as error:
                    if config.images is None:
                        raise
                    rejected.append((image_id, str(error)))
            boxes = predict_boxes(model, list(images.values()), config.score_above, config.iou_above, config.max_boxes)
            for (image_id, image), mine in zip(images.items(), boxes, strict=True):
                if config.pictures is not None and len(found) < config.pictures:
                    drawn, true = mine.where(mine.score >= config.drawn_from), work.truth.boxes.get(image_id)
                    write_picture(folder.root / "pictures", image_id, image, drawn, model.findings, true)
                found[image_id], sizes[image_id] = mine, (image.shape[0], image.shape[1])
    if config.images is not None:
        write_text(folder.root / "rejected.csv", _rejections(rejected))
        if not found:
            raise DataError(
                f"{config.images}: expected PNG, JPEG or DICOM films, found none that can be read among "
                f"{len(work.ids)} files; {folder.root / 'rejected.csv'} says why"
            )
    known = work.known if config.images is None else list(found)
    save_results(folder.root / "boxes.json", found, known)
    write_boxes(folder.root, config.formats, found, sizes, model.findings)
    result = DetectPredictResult(
        images=len(found),
        boxes=sum(map(len, found.values())),
        images_without_box=sum(len(boxes) == 0 for boxes in found.values()),
        rejected=len(rejected),
    )
    folder.finish(result.model_dump(mode="json"))
    return result


def _of_dataset(dataset: Dataset | None, config: DetectPredictConfig) -> _Work:
    assert dataset is not None  # noqa: S101 - `run` has looked
    ids = [image_id for image_id in dataset.image_ids if dataset.images.at[image_id, "split"] in config.splits]
    return _Work(ids, dataset.image_ids, lambda i: read_image(dataset.path_of(i)), dataset.sha256, dataset.truth)


def _of_folder(root: Path) -> _Work:
    """Every file under a folder, by its path in it; hidden ones are left out."""
    if not root.is_dir():
        raise DataError(f"images: expected a folder of films, found none at {root}")
    paths = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    paths = {name: path for name, path in paths.items() if not any(part.startswith(".") for part in Path(name).parts)}
    if not paths:
        raise DataError(f"{root}: expected PNG, JPEG or DICOM films, found no file")
    hashes = sha256_json({name: sha256_file(path) for name, path in paths.items()})
    return _Work(list(paths), list(paths), lambda i: read_film(paths[i].read_bytes(), i).image, hashes, BoxTruth())


def _rejections(rejected: list[tuple[str, str]]) -> str:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["item", "detail"])
    writer.writerows(rejected)
    return table.getvalue()
