"""`weakray ingest report`: the page of a dataset folder, to look at before anything is trained."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ingest.report.content import ReportContent, gather
from ingest.report.duplicates import MOST_RADIUS
from ingest.report.labels import correlation, plain_rows, together
from ingest.report.page import notes, render
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.files import sha256_file, write_json, write_text
from weakray.runs import open_run


class ReportConfig(StrictModel):
    """What the page shows."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "out", "workers"})

    data: Path = Field(description="dataset folder")
    out: Path = Field(description="run folder; gets report.html and figures.json")
    title: str | None = Field(None, description="heading of the page; none: the dataset folder's name")
    examples: int = Field(6, ge=0, description="examples shown of each finding")
    thumbnail_px: int = Field(176, ge=32, le=640, description="longer side of an example")
    radius: int = Field(
        28, ge=0, le=MOST_RADIUS, description="bits of 256 by which the hashes of two near duplicates may differ"
    )
    workers: int = Field(2, ge=1, description="threads that read images; any number gives the same page")


class ReportResult(StrictModel):
    """Where the page is, and what it found."""

    report: Path
    images: int
    near_duplicates: int = Field(description="images in groups of near duplicates")
    across_splits: int = Field(description="groups of near duplicates that stand in two splits or more")
    unread: int = Field(description="images that could not be read")
    notes: int = Field(description="things a reader must know; they stand at the top of the page")


def run(config: ReportConfig) -> ReportResult:
    """Makes the page; a finished one is left as it is while the dataset folder is the same.

    Raises:
        DataError: if `data` is no dataset folder.
    """
    dataset = Dataset.load(config.data)
    shown = {name: config.data / name for name in ("dataset.json", "rejected.csv")}
    inputs = {name: sha256_file(path) for name, path in shown.items() if path.is_file()}
    folder = open_run(config.out, config, {"data": dataset.sha256, **inputs})
    page = config.out / "report.html"
    done = folder.finished()
    if done is not None and page.is_file():
        return ReportResult(report=page, **done)
    content = gather(
        dataset,
        title=config.title or config.data.resolve().name,
        examples=config.examples,
        thumbnail_px=config.thumbnail_px,
        radius=config.radius,
        workers=config.workers,
    )
    write_text(page, render(content))
    write_json(config.out / "figures.json", figures(content))
    result = {
        "images": len(dataset.images),
        "near_duplicates": content.duplicates.images,
        "across_splits": content.duplicates.across_splits,
        "unread": len(content.unread),
        "notes": len(notes(content)),
    }
    folder.finish(result)
    return ReportResult(report=page, **result)


def figures(content: ReportContent) -> dict[str, Any]:
    """The page's figures for other programs; what is not known is null."""
    labels = content.dataset.labels
    duplicates = content.duplicates
    return {
        "findings": plain_rows(content.findings),
        "together": together(labels).tolist(),
        "correlation": [[None if isnan(value) else value for value in row] for row in correlation(labels).tolist()],
        "boxes": [
            {
                "finding": f.name,
                "boxes": f.boxes,
                "images": f.images,
                "width": f.width,
                "height": f.height,
                "area": f.area,
            }
            for f in content.boxes
        ],
        "splits": [people.__dict__ for people in content.people],
        "split_proof": dict(content.proof),
        "duplicates": {name: value for name, value in duplicates.__dict__.items() if name != "shown"},
        "unread": content.unread,
        "notes": notes(content),
    }
