"""Pairs the rows of a data set with the files of its folder, and takes what is whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ingest.image_files import ImageFacts, inspect_files
from ingest.listing import Folder, PairBy
from weakray.dataset import Rejection


@dataclass(frozen=True)
class ImageRow:
    """An image that a data set's own files name.

    Attributes:
        item: how `rejected.csv` names the row.
        image_id: unique name, fit for a file name.
        file_name: as the data set spells it.
        patient_id: who.
        study_id: which visit.
        view: projection, "" where unknown.
        values: class_id → 1, 0 or -1; a finding not mentioned is absent.
        size_hw: height and width that the data set claims; None where it claims none.
        problem: reason and detail where the row itself is refused; its file then counts as named all the same.
        sex: "F", "M" or "O"; "" where unknown.
        age_years: None where unknown.
        acquired: ISO date of the film, "" where unknown.
    """

    item: str
    image_id: str
    file_name: str
    patient_id: str
    study_id: str
    view: str
    values: dict[int, float]
    size_hw: tuple[int, int] | None = None
    problem: tuple[str, str] | None = None
    sex: str = ""
    age_years: float | None = None
    acquired: str = ""


@dataclass(frozen=True)
class TakenImage:
    """A row with its file, `path` relative to the images folder."""

    row: ImageRow
    path: str
    facts: ImageFacts

    @property
    def positive(self) -> list[int]:
        """Class ids that are labelled 1."""
        return [class_id for class_id, value in self.row.values.items() if value == 1]


@dataclass(frozen=True)
class TakenImages:
    """What `take_images` made of a data set's rows and files.

    Attributes:
        images: image_id → what was taken, sorted by id.
        rejected: rows and files that were not. Every row, and every file that no row names, is here or in `images`.
        by_stem: images whose file differs from their row in its extension alone.
    """

    images: dict[str, TakenImage]
    rejected: list[Rejection]
    by_stem: int

    @property
    def sizes_hw(self) -> dict[str, tuple[int, int]]:
        """image_id → stored size."""
        return {image_id: (image.facts.height, image.facts.width) for image_id, image in self.images.items()}


def take_images(
    rows: Sequence[ImageRow],
    folder: Folder,
    *,
    pair_by: PairBy,
    min_side_px: int,
    workers: int,
) -> TakenImages:
    """Pairs rows with files and inspects the files.

    Args:
        rows: in the order of their source; of several with one id or one file, the first counts.
        folder: the files.
        pair_by: "path": `file_name` is the path below the folder. "ending": or the path less its first folders, and
            it may differ in its extension. "name": the file may lie in any folder below it and differ in its extension.
        min_side_px: see `inspect_files`.
        workers: see `inspect_files`.
    """
    rejected: list[Rejection] = []
    first: dict[str, str] = {}
    named: set[str] = set()
    claimed: dict[str, ImageRow] = {}
    for row in rows:
        path = folder.find(row.file_name, pair_by)
        named |= {path} if path is not None else set()
        if row.problem is not None:
            rejected.append(Rejection(row.item, *row.problem))
        elif row.image_id in first:
            detail = f"the image id {row.image_id!r} stands at {first[row.image_id]} already; keep one of them"
            rejected.append(Rejection(row.item, "duplicated", detail))
        elif path is None:
            first[row.image_id] = row.item
            rejected.append(Rejection(row.item, "missing", f"no file {row.file_name!r} in the images folder"))
        elif path in claimed:
            first[row.image_id] = row.item
            detail = f"its file {path} is that of {claimed[path].item}; keep one of them"
            rejected.append(Rejection(row.item, "duplicated", detail))
        else:
            first[row.image_id] = row.item
            claimed[path] = row
    paths = sorted(claimed, key=lambda path: claimed[path].image_id)
    verdicts = inspect_files(
        [(claimed[path].item, folder.root / path) for path in paths], min_side_px=min_side_px, workers=workers
    )
    images: dict[str, TakenImage] = {}
    seen: dict[str, str] = {}
    for path, verdict in zip(paths, verdicts, strict=True):
        row = claimed[path]
        if isinstance(verdict, Rejection):
            rejected.append(verdict)
        elif row.size_hw not in (None, (verdict.height, verdict.width)):
            detail = (
                f"stored as {verdict.height}×{verdict.width} px, its boxes are for {row.size_hw}; scale one of them"
            )
            rejected.append(Rejection(row.item, "size_mismatch", detail))
        elif verdict.sha256 in seen:
            # the same film under two names could stand in train and in test
            detail = f"the same bytes as {seen[verdict.sha256]}; keep one of them"
            rejected.append(Rejection(row.item, "same_content", detail))
        else:
            seen[verdict.sha256] = path
            images[row.image_id] = TakenImage(row, path, verdict)
    by_stem = sum(
        PurePosixPath(image.path).name != PurePosixPath(image.row.file_name).name for image in images.values()
    )
    rejected += files_without_row(folder, named)
    return TakenImages(images, rejected, by_stem)


def files_without_row(folder: Folder, named: Collection[str]) -> list[Rejection]:
    """A rejection for each file that is not among the `named` ones."""
    stems = {PurePosixPath(path).stem for path in named}
    found = [Rejection(path, "bad_name", "the name is not UTF-8; rename the file") for path in folder.undecodable]
    for path in folder.paths:
        if path in named:
            continue
        if PurePosixPath(path).stem in stems:
            detail = "no row of its own, and named like a file that has one; keep one of them"
        else:
            detail = "no row names this file; add one or remove it"
        found.append(Rejection(path, "no_row", detail))
    return found
