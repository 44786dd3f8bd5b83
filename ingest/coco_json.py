"""A COCO detection file as other tools write it, entry by entry: what is broken is named, not fatal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path, PurePosixPath
from typing import Any

from ingest.listing import printable
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import read_json


@dataclass(frozen=True)
class CocoImage:
    """An entry of `images`.

    Attributes:
        item: how `rejected.csv` names it.
        key: its COCO id, "" where that is another image's.
        file_name: path relative to the images folder.
        patient: None where the file names none.
        size_hw: None where the file claims no size.
        problem: reason and detail where the entry itself is refused.
    """

    item: str
    key: str
    file_name: str
    patient: str | None
    size_hw: tuple[int, int] | None
    problem: tuple[str, str] | None = None

    @property
    def image_id(self) -> str:
        """The path without its extension, folders joined by two underscores: unique and fit for a file name."""
        return PurePosixPath(self.file_name).with_suffix("").as_posix().replace("/", "__")


@dataclass(frozen=True)
class CocoBox:
    """An entry of `annotations`; `category` None where the file has no such category."""

    item: str
    image_key: str
    category: str | None
    xywh: tuple[float, float, float, float]
    crowd: bool


@dataclass(frozen=True)
class CocoFile:
    """A file's sound entries, and the others as rejections. `categories` in the order of their ids."""

    images: list[CocoImage]
    boxes: list[CocoBox]
    categories: list[str]
    rejected: list[Rejection]
    licences: Any


def read_coco(path: Path, patient_key: str) -> CocoFile:
    """Reads a COCO file.

    Args:
        path: the JSON file.
        patient_key: key of an image that names its patient.

    Raises:
        DataError: if the file is no COCO file, or its categories are unusable.
    """
    content = read_json(path)
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
        raise DataError(f"{path}: expected a COCO file with the lists images, annotations and categories")
    categories = _categories(content["categories"], path)
    images: list[CocoImage] = []
    boxes: list[CocoBox] = []
    rejected: list[Rejection] = []
    keys: set[str] = set()
    for at, entry in enumerate(content["images"]):
        item = f"{path.name}:images[{at}]"
        image = _image(entry, item, patient_key)
        if image is None:
            detail = "expected an image with an id and a file_name in UTF-8 relative to the images folder; mend it"
            rejected.append(Rejection(item, "bad_row", detail))
        elif image.key in keys:
            problem = ("duplicated", f"the id {image.key} is another image's; give it its own")
            images.append(replace(image, key="", problem=problem))
        else:
            keys.add(image.key)
            images.append(image)
    for at, entry in enumerate(content["annotations"]):
        item = f"{path.name}:annotations[{at}]"
        if not isinstance(entry, dict):
            rejected.append(Rejection(item, "bad_row", "expected an annotation (key: value); remove it"))
            continue
        if "id" in entry:
            item = f"{item} id {entry['id']}"
        category = categories.get(_key(entry.get("category_id")))
        crowd = entry.get("iscrowd") in (1, True)
        boxes.append(CocoBox(item, _key(entry.get("image_id")), category, _numbers(entry.get("bbox")), crowd))
    return CocoFile(images, boxes, list(categories.values()), rejected, content.get("licenses"))


def _categories(entries: list[Any], path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in sorted((e for e in entries if isinstance(e, dict)), key=_category_order):
        key, name = _key(entry.get("id")), entry.get("name")
        if not isinstance(name, str) or not name.strip() or name != printable(name) or key in found:
            raise DataError(f"{path}: expected categories with an id of their own and a name, got {entry!r}")
        found[key] = name
    if not found or len(found) != len(entries):
        raise DataError(f"{path}: expected categories, each with id and name, got {len(entries)} entries")
    return found


def _category_order(entry: dict[str, Any]) -> tuple[bool, float, str]:
    number = _float(entry.get("id"))
    return isnan(number), 0.0 if isnan(number) else number, str(entry.get("id"))


def _image(entry: Any, item: str, patient_key: str) -> CocoImage | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str) or "id" not in entry:
        return None
    file_name = PurePosixPath(entry["file_name"]).as_posix()
    patient = entry.get(patient_key)
    patient = None if patient in (None, "") else str(patient)
    if not PurePosixPath(file_name).name or any(text != printable(text) for text in (file_name, patient or "")):
        return None
    height, width = (_float(entry.get(side)) for side in ("height", "width"))
    size_hw = (round(height), round(width)) if height > 0 and width > 0 else None  # NaN is not above 0
    return CocoImage(f"{item} {file_name}", _key(entry["id"]), file_name, patient, size_hw)


def _key(value: Any) -> str:
    """Ids compared as written: 7 and "7" are one id in some tools' files, and 7.0 in others'."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numbers(value: Any) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4:
        return nan, nan, nan, nan
    x, y, w, h = map(_float, value)
    return x, y, w, h


def _float(value: Any) -> float:
    """NaN for what is no number, and for numbers that no pixel could have."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else nan
