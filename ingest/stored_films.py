"""Images that a data set publishes as DICOM → PNG films in the dataset folder, by the conversion of `ingest dicom`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from ingest.dicom_files import JOURNAL, ConvertConfig, Converted, convert_files
from ingest.listing import Folder, PairBy, list_folder
from ingest.pseudonyms import Pseudonyms
from ingest.take import ImageRow, files_without_row
from weakray.dataset import Rejection

_SUFFIXES = (".dcm", ".dicom", ".dic")
_FILMS = "images"


@dataclass(frozen=True)
class StoredFilms:
    """What became of a data set's DICOM files.

    Attributes:
        rows: the data set's rows, each with the name of its film; those whose file was not taken with the reason.
        folder: the films.
        rejected: files that no row names.
    """

    rows: list[ImageRow]
    folder: Folder
    rejected: list[Rejection]


def store_dicom(
    rows: Sequence[ImageRow], folder: Folder, pair_by: PairBy, out: Path, min_side_px: int, workers: int
) -> StoredFilms | None:
    """Converts the DICOM files that rows name; None where none names one.

    Published sets are de-identified, so ids stay as they are. View, sex and age of the header are taken where the
    tables do not say them.

    Args:
        rows: the data set's rows.
        folder: its files.
        pair_by: see `take_images`.
        out: the dataset folder; the films go into its folder `images`.
        min_side_px: smaller films are refused.
        workers: processes; any number gives the same result.
    """
    found = [folder.find(row.file_name, pair_by) for row in rows]
    dicom = sorted({path for path in found if path is not None and path.lower().endswith(_SUFFIXES)})
    if not dicom:
        return None
    films = out / _FILMS
    how = ConvertConfig(min_side_px=min_side_px)
    verdicts = dict(
        zip(dicom, convert_files(folder.root, dicom, films, how, Pseudonyms.of("keep", None), workers), strict=True)
    )
    stored: list[ImageRow] = []
    for row, path in zip(rows, found, strict=True):
        match verdicts.get(path or ""):
            case Converted() as film:
                stored.append(_with_film(row, film))
            case Rejection() as refused:
                stored.append(replace(row, problem=row.problem or (refused.reason, refused.detail)))
            case None if path is not None:
                other = f"{PurePosixPath(path).name} lies among DICOM files and is none; keep one kind in the folder"
                stored.append(replace(row, problem=row.problem or ("mixed_kinds", other)))
            case None:
                stored.append(row)
    named = {path for path in found if path is not None}
    return StoredFilms(stored, list_folder(films, besides=[films / JOURNAL]), files_without_row(folder, named))


def _with_film(row: ImageRow, film: Converted) -> ImageRow:
    return replace(
        row,
        file_name=film.file_name,
        view=row.view or str(film.facts["view"]),
        sex=row.sex or str(film.facts["sex"]),
        age_years=row.age_years if row.age_years is not None else film.facts["age_years"],
    )
