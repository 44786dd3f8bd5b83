"""`weakray ingest voc`: a Pascal VOC detection set.

Boxes are complete but for the difficult ones: a class without a box in an image was looked for and is absent, and one
with a difficult box is present and not scored. The lists of `ImageSets/Main` are the split: train (or trainval), val
and test; test, or else val, is split into tune and test. Without `lists` all images are split at random.

Source of truth: the VOC2012 development kit (Everingham M. et al.): `JPEGImages/<name>.jpg`, `Annotations/<name>.xml`
with `filename`, `size`, and for each `object` its `name`, `difficult` and `bndbox` (xmin, ymin, xmax, ymax, counted
from 1, the last pixel included), `ImageSets/Main/train.txt` and so on (a name a line).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from pathlib import Path, PurePosixPath
from typing import ClassVar
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
from pydantic import Field

from ingest.assemble import assemble_reader
from ingest.boxes import RawBox
from ingest.coverage import Coverage
from ingest.findings import refuse_box
from ingest.listing import printable
from ingest.persons import patients_of
from ingest.result import IngestResult
from ingest.settings import OwnNamesConfig
from ingest.source import Side, Source, image_rows
from ingest.tables import ITEM, read_names
from weakray.dataset import Rejection
from weakray.errors import DataError

_LISTS = {"train": "train", "trainval": "train", "val": "val", "test": "test"}


class VocConfig(OwnNamesConfig):
    """Settings of `weakray ingest voc`."""

    unhashed: ClassVar[frozenset[str]] = OwnNamesConfig.unhashed | {"annotations", "lists"}

    images: Path = Field(description="JPEGImages")
    annotations: Path = Field(description="Annotations, the folder of XML files")
    lists: Path | None = Field(default=None, description="ImageSets/Main; none: all images are split at random")
    one_based: bool = Field(
        default=True,
        description="pixels count from 1 and xmax, ymax are the last ones, as in VOC; false: from 0, half-open",
    )


@dataclass(frozen=True)
class _Object:
    name: str
    difficult: bool
    corners: tuple[float, float, float, float]


@dataclass
class _Image:
    item: str
    name: str
    file_name: str
    size_hw: tuple[float, float] = (0.0, 0.0)
    objects: list[_Object] = field(default_factory=list)


def run(config: VocConfig) -> IngestResult:
    """Writes the dataset folder; over a half-written or finished one, it writes the same again.

    Raises:
        DataError: if there is no annotation, a class is unknown, or there are too few images.
    """
    return assemble_reader(read_source(config), config, pair_by="ending", label_files=annotation_files(config))


def annotation_files(config: VocConfig) -> list[Path]:
    """The XML files, sorted.

    Raises:
        DataError: if there is none.
    """
    found = sorted(config.annotations.rglob("*.xml")) if config.annotations.is_dir() else []
    if not found:
        raise DataError(f"{config.annotations}: expected a folder of XML files, found none")
    return found


def read_source(config: VocConfig) -> Source:
    """The set, mapped into the taxonomy.

    Raises:
        DataError: if there is no annotation, or a class is unknown.
    """
    images: list[_Image] = []
    rejected: list[Rejection] = []
    for path in annotation_files(config):
        read = _read(path, printable(path.relative_to(config.annotations).as_posix()))
        if isinstance(read, Rejection):
            rejected.append(read)
        else:
            images.append(read)
    names = sorted({thing.name for image in images for thing in image.objects})
    vocabulary = config.vocabulary(names, "voc")
    boxes: list[RawBox] = []
    first = 1.0 if config.one_based else 0.0
    for image in images:
        for at, thing in enumerate(image.objects):
            item, class_id = f"{image.item} object[{at}]", vocabulary.fate(thing.name).class_id
            if class_id is None:
                rejected.append(refuse_box(item, thing.name, vocabulary))
            else:
                x0, y0, x1, y1 = thing.corners
                xywh = (x0 - first, y0 - first, x1 - x0 + first, y1 - y0 + first)
                boxes.append(RawBox(item, image.name, class_id, xywh, crowd=thing.difficult, label=thing.name))
    values = {
        name: np.array([float(any(t.name == name for t in image.objects)) for image in images], np.float32)
        for name in names
    }
    frame = pd.DataFrame(
        {
            ITEM: [image.item for image in images],
            "image_id": [image.name for image in images],
            "file_name": [image.file_name for image in images],
            "patient_id": patients_of([i.file_name for i in images], [i.name for i in images], config.patient_pattern),
            "height": [image.size_hw[0] for image in images],
            "width": [image.size_hw[1] for image in images],
        }
    )
    rows = image_rows(frame, vocabulary.merge(values), vocabulary.chosen)
    drawn = {name: sum(t.name == name for image in images for t in image.objects) for name in names}
    sides, strays = _sides(config.lists, {image.name for image in images})
    return Source(
        name="voc",
        taxonomy=vocabulary.chosen,
        coverage=Coverage.counted("voc", config.taxonomy or "of its own classes", vocabulary, values, drawn),
        rows=rows,
        origin=f"Pascal VOC set {config.annotations.parent.name}",
        licence="",
        boxes=boxes,
        looked_for=frozenset((row.image_id, k) for row in rows for k, value in row.values.items() if value == 0),
        looked_at=frozenset(image.name for image in images),
        sides=sides,
        rejected=rejected + strays,
    )


def _read(path: Path, item: str) -> _Image | Rejection:
    try:
        root = ET.fromstring(path.read_bytes())  # noqa: S314  # the user's own files; expat limits entities itself
    except (OSError, ET.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding nobody knows
        return Rejection(item, "bad_row", f"expected a VOC annotation in XML, got something else ({error}); mend it")
    file_name = (root.findtext("filename") or "").strip() or f"{path.stem}.jpg"
    height, width = (_number(root.findtext(f"size/{side}")) for side in ("height", "width"))
    sound = height > 0 and width > 0
    objects = [
        _Object(
            " ".join((thing.findtext("name") or "").split()),
            (thing.findtext("difficult") or "0").strip() == "1",
            _corners(thing),
        )
        for thing in root.iter("object")
    ]
    if root.tag != "annotation" or not all(thing.name for thing in objects):
        return Rejection(item, "bad_row", "expected <annotation> with a name in each <object>; mend it")
    if not PurePosixPath(file_name).name or file_name != printable(file_name):
        return Rejection(item, "bad_row", f"expected the name of an image in <filename>, got {printable(file_name)!r}")
    name = PurePosixPath(item).with_suffix("").as_posix().replace("/", "__")
    return _Image(item, name, file_name, (height, width) if sound else (0.0, 0.0), objects)


def _corners(thing: ET.Element) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (_number(thing.findtext(f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    return x0, y0, x1, y1


def _number(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return nan
    return value if abs(value) < 1e9 else nan


def _sides(folder: Path | None, known: set[str]) -> tuple[dict[str, Side | None], list[Rejection]]:
    """Name → side by the lists that are there; and the lines that name no annotated image."""
    if folder is None:
        return {}, []
    lists = {name: folder / f"{name}.txt" for name in _LISTS if (folder / f"{name}.txt").is_file()}
    if not lists or not (set(lists) & {"val", "test"}):
        raise DataError(
            f"{folder}: expected train.txt (or trainval.txt) and val.txt or test.txt, found {sorted(lists)}"
        )
    if "train" in lists or "test" in lists:
        lists = {name: path for name, path in lists.items() if name != "trainval" or "train" not in lists}
    scored = "test" if "test" in lists else "val"
    sides: dict[str, Side | None] = dict.fromkeys(sorted(known))
    strays: list[Rejection] = []
    for name, path in lists.items():
        side: Side = "test" if name == scored else "val" if name == "val" else "train"
        for at, line in enumerate(read_names(path), 1):
            image = line.split()[0]
            if image not in known:
                strays.append(Rejection(f"{path.name}:{at} {image}", "no_image", "no annotation is of this image"))
            elif sides[image] not in (None, side) and name != "trainval":
                raise DataError(f"{path}: {image} stands in another list too; keep it in one")
            elif sides[image] is None:
                sides[image] = side
    return sides, strays
