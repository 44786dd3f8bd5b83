"""Example films for the page: a folder with `examples.json` and the files it names.

`{"examples": [{"id": "effusion-1", "title": "Pleural effusion", "file": "a.png", "boxes": [{"finding": "Pleural
Effusion", "xyxy_px": [10, 20, 30, 40]}]}]}`; `boxes` is left out where the truth is not known, and empty where it is
known that there are none. All of it is read when the server starts: a request names an id, never a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from serve.answers import ExampleEntry, TrueBox
from serve.films import MEDIA_TYPES
from weakray.config import StrictModel, validate
from weakray.errors import DataError
from weakray.files import read_json
from weakray.film import kind_of

LISTING = "examples.json"


class ListedBox(StrictModel):
    """A radiologist's box of an example."""

    finding: str = Field(description="name of the finding")
    xyxy_px: tuple[float, float, float, float] = Field(description="pixels of the image as stored, half-open")


class Listed(StrictModel):
    """An example as its folder names it."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="what requests call it")
    title: str = Field(description="what the page calls it")
    file: str = Field(description="name of the image file, in the same folder")
    boxes: tuple[ListedBox, ...] | None = Field(None, description="the true boxes; left out where unknown")


class Listing(StrictModel):
    """The whole of `examples.json`."""

    examples: tuple[Listed, ...] = Field(description="in the order of the page")


@dataclass(frozen=True)
class Example:
    """An example film in memory."""

    entry: ExampleEntry
    content: bytes
    media_type: str
    boxes: tuple[TrueBox, ...] | None


def load_examples(folder: Path | None) -> dict[str, Example]:
    """Reads the examples, by id.

    Raises:
        DataError: if the listing is missing or wrong, or a file is not beside it, or no film.
    """
    if folder is None:
        return {}
    path = folder / LISTING
    found: dict[str, Example] = {}
    for listed in validate(Listing, read_json(path), str(path)).examples:
        if listed.id in found:
            raise DataError(f"{path}: two examples are called {listed.id!r}; name them differently")
        file = folder / listed.file
        if file.name != listed.file or not file.is_file():
            raise DataError(f"{path}: expected the file {listed.file!r} beside it, found none")
        content = file.read_bytes()
        kind = kind_of(content)
        if kind is None:
            raise DataError(f"{file}: expected PNG, JPEG or DICOM, got something else")
        boxes = None
        if listed.boxes is not None:
            boxes = tuple(TrueBox(finding=box.finding, xyxy_px=box.xyxy_px) for box in listed.boxes)
        entry = ExampleEntry(id=listed.id, title=listed.title, truth=boxes is not None)
        found[listed.id] = Example(entry, content, MEDIA_TYPES[kind], boxes)
    return found
