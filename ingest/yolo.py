"""`weakray ingest yolo`: a YOLO detection set, from its `data.yaml`.

An image at `…/images/…/a.jpg` has its boxes in `…/labels/…/a.txt`; without that file, or with an empty one, nothing
is in it. Boxes are complete: a class without a box in an image was looked for and is absent. The folders that
`data.yaml` names are the split: train is train, from which val is drawn where there is no test; test, or else val, is
split into tune and test. With `lists: false` all images are split at random.

Source of truth: the format of the Ultralytics documentation ("Object Detection Datasets Overview"): `path`, `train`,
`val`, `test` (a folder, a `.txt` of image paths, or a list of them) and `names` in YAML; a line a box, `class cx cy
width height`, relative to the image; a longer line is a polygon, `class x1 y1 x2 y2 …`, of which the extent is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.boxes import RawBox
from ingest.coverage import Coverage
from ingest.findings import Vocabulary, refuse_box
from ingest.listing import Folder, list_folder, printable
from ingest.persons import patients_of
from ingest.result import IngestResult
from ingest.settings import OwnNamesConfig
from ingest.source import Side, Source, image_rows
from ingest.tables import ITEM, read_names
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import read_yaml

_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".dcm", ".dicom")
_PARTS = ("train", "val", "test")


class YoloConfig(OwnNamesConfig):
    """Settings of `weakray ingest yolo`."""

    unhashed: ClassVar[frozenset[str]] = OwnNamesConfig.unhashed | {"data"}

    data: Path = Field(description="data.yaml")
    images: Path = Field(description="folder that data.yaml's train, val and test are below, images and labels alike")
    lists: bool = Field(default=True, description="data.yaml's folders are the split; false: all images at random")


@dataclass
class _Found:
    """What the label files say."""

    boxes: list[RawBox] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    named: dict[str, set[str]] = field(default_factory=dict)  # image_id → names that have a line there
    drawn: dict[str, int] = field(default_factory=dict)  # name → lines


def run(config: YoloConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if `data.yaml` is not what it should be, a class is unknown, or there are too few images.
    """
    source, labels = read_source(config)
    return assemble_reader(source, config, pair_by="path", label_files=labels)


def read_source(config: YoloConfig) -> tuple[Source, list[Path]]:
    """The set, mapped into the taxonomy, and the label files that were read.

    Raises:
        DataError: if `data.yaml` is not what it should be, or a class is unknown.
    """
    names, parts = _read_data(config.data)
    vocabulary = config.vocabulary(list(names.values()), "yolo")
    folder = list_folder(config.images, besides=[config.data])
    side_of = _parts_of_images(folder, parts, config)
    rows = [(path, image_id_of(path)) for path in side_of]
    found = _Found()
    labels: list[Path] = []
    for path, image_id in rows:
        label = _label_of(path)
        if folder.at(label) is not None:
            labels.append(config.images / label)
            _read_lines(config.images / label, label, image_id, names, vocabulary, found)
    frame = pd.DataFrame(
        {
            ITEM: ["" for _ in rows],
            "image_id": [image_id for _, image_id in rows],
            "file_name": [path for path, _ in rows],
            "patient_id": patients_of([path for path, _ in rows], [i for _, i in rows], config.patient_pattern),
        }
    )
    values = {
        name: np.array([float(name in found.named.get(image_id, ())) for _, image_id in rows], np.float32)
        for name in names.values()
    }
    image_table = image_rows(frame, vocabulary.merge(values), vocabulary.chosen)
    drawn = {name: found.drawn.get(name, 0) for name in names.values()}
    source = Source(
        name="yolo",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.counted("yolo", config.taxonomy or "of its own classes", vocabulary, values, drawn),
        rows=image_table,
        origin=f"YOLO set {config.data.name}",
        licence="",
        boxes=found.boxes,
        looked_for=frozenset((row.image_id, k) for row in image_table for k, value in row.values.items() if value == 0),
        looked_at=frozenset(image_id for _, image_id in rows),
        sides=_sides(side_of, parts) if config.lists else {},
        rejected=found.rejected,
    )
    return source, labels


def image_id_of(path: str) -> str:
    """The path without its extension and without folders named `images`, other folders joined by two underscores."""
    plain = PurePosixPath(path).with_suffix("")
    return "__".join(part for part in plain.parts if part != "images")


def _read_data(path: Path) -> tuple[dict[int, str], dict[str, list[str]]]:
    """Class number → name, and train, val, test → what stands there."""
    content = read_yaml(path)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(isinstance(n, str) and n.strip() for n in names.values()):
        raise DataError(f"{path}: expected `names:`, a list of classes or number → class, got {names!r}")
    parts: dict[str, list[str]] = {}
    for part in _PARTS:
        given = content.get(part)
        if given:
            parts[part] = [str(entry) for entry in (given if isinstance(given, list) else [given])]
    if "train" not in parts:
        raise DataError(f"{path}: expected `train:`, a folder of images below {content.get('path', '.')}, got none")
    try:
        return {int(number): name for number, name in names.items()}, parts
    except (TypeError, ValueError):
        raise DataError(f"{path}: expected the numbers of classes in `names:`, got {list(names)}") from None


def _parts_of_images(folder: Folder, parts: Mapping[str, list[str]], config: YoloConfig) -> dict[str, str]:
    """Path of each image → train, val or test; an image that two parts name belongs to the first."""
    images = [path for path in folder.paths if path.lower().endswith(_SUFFIXES)]
    found: dict[str, str] = {}
    for part, entries in parts.items():
        for entry in entries:
            wanted = PurePosixPath(re.sub(r"^(\.\./|\./|/)+", "", entry)).as_posix()
            if wanted.endswith(".txt"):
                listed = read_names(config.images / wanted)
                here = [hit for name in listed if (hit := folder.ending(name.removeprefix("./"))) is not None]
            else:
                ends = [wanted, *("/".join(wanted.split("/")[at:]) for at in range(1, wanted.count("/") + 1))]
                below = next((e for e in ends if any(path.startswith(f"{e}/") for path in images)), None)
                here = [path for path in images if below is not None and path.startswith(f"{below}/")]
            if not here:
                raise DataError(
                    f"{config.data}: {part}: {entry} names no image below {config.images}; set images to its root"
                )
            for path in here:
                found.setdefault(path, part)
    return dict(sorted(found.items()))


def _sides(part_of: Mapping[str, str], parts: Mapping[str, list[str]]) -> dict[str, Side | None]:
    scored = "test" if "test" in parts else "val"
    side: dict[str, Side] = {"train": "train", "val": "val", scored: "test"}
    if len(parts) == 1:
        return {}
    return {image_id_of(path): side[part] for path, part in part_of.items()}


def _label_of(path: str) -> str:
    """The label file of an image: its last folder `images` becomes `labels`."""
    head, found, tail = f"/{path}".rpartition("/images/")
    label = f"{head}/labels/{tail}" if found else f"/{path}"
    return PurePosixPath(label).with_suffix(".txt").as_posix().lstrip("/")


def _read_lines(
    path: Path, shown: str, image_id: str, names: Mapping[int, str], vocabulary: Vocabulary, found: _Found
) -> None:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        found.rejected.append(Rejection(shown, "bad_row", f"expected text in UTF-8, got something else ({error})"))
        return
    for at, line in enumerate(lines, 1):
        if not line.strip():
            continue
        item, numbers = f"{shown}:{at}", list(_numbers(line))
        number = int(numbers[0]) if numbers and isfinite(numbers[0]) and numbers[0].is_integer() else -1
        if number not in names:
            known = f"expected one of the classes {min(names)} to {max(names)}, got {printable(line[:40])!r}"
            found.rejected.append(Rejection(item, "unknown_class", known))
            continue
        name = names[number]
        found.drawn[name] = found.drawn.get(name, 0) + 1
        found.named.setdefault(image_id, set()).add(name)
        class_id = vocabulary.fate(name).class_id
        if class_id is None:
            found.rejected.append(refuse_box(item, name, vocabulary))
        else:
            found.boxes.append(RawBox(item, image_id, class_id, _xywh(numbers[1:]), (1.0, 1.0), label=name))


def _numbers(line: str) -> Iterator[float]:
    for word in line.split():
        try:
            yield float(word)
        except ValueError:
            yield nan


def _xywh(values: list[Any]) -> tuple[float, float, float, float]:
    """A box or a polygon's extent, relative to the image."""
    if len(values) == 4:
        cx, cy, w, h = values
        return cx - w / 2, cy - h / 2, w, h
    if len(values) >= 6 and len(values) % 2 == 0 and all(map(isfinite, values)):
        xs, ys = values[::2], values[1::2]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    return nan, nan, nan, nan
