"""DICOM files → PNG films without names: several processes, resumable, the same result whatever their number.

A journal beside the films holds what became of each file: a line a file, under a hash of its path, in the files' order.
It names neither paths nor patients. A run that was killed goes on behind its last whole line; files that changed since
are converted again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from tqdm import tqdm

from ingest.processes import in_processes
from ingest.pseudonyms import Pseudonyms
from weakray import __version__
from weakray.config import StrictModel, to_plain
from weakray.dataset import Rejection
from weakray.dicom.film import FILM_TAGS, film_of
from weakray.dicom.header import ID_FACTS, facts_of
from weakray.dicom.reading import damage, is_dicom, pydicom_module, read_dicom
from weakray.errors import DataError, LimitError
from weakray.files import sha256_bytes, sha256_json, write_bytes, write_text
from weakray.imaging import encode_png
from weakray.limits import FilmLimits

JOURNAL = ".converted.jsonl"
Store = Literal["voi", "percentile", "lossless"]


class ConvertConfig(StrictModel):
    """How DICOM files become films; part of every verb that reads them."""

    store: Store = Field(
        "voi",
        description="voi: 8 bits by the header's LUT or window, percentiles where it has none; percentile: 8 bits by "
        "percentiles; lossless: 16-bit PNG, which later stages read by percentiles",
    )
    frame: int | None = Field(None, ge=1, description="frame to take of several; none: the representative, else first")
    modalities: tuple[str, ...] = Field(
        ("CR", "DX", "RG"), description="modalities to take; a header that names none is taken"
    )
    min_side_px: int = Field(16, ge=1, description="films with a shorter side are rejected")
    limits: FilmLimits = FilmLimits()


@dataclass(frozen=True)
class Converted:
    """A film that was taken.

    Attributes:
        film_id: name of its SOPInstanceUID, or of its bytes where it has none.
        file_name: of its PNG; two files with one SOPInstanceUID and unlike pixels have two.
        patient: name of the patient; "" where the header names none.
        study: likewise.
        height: in pixels.
        width: in pixels.
        sha256: of the PNG.
        rule: how its values were made.
        frame: from 1.
        frames: of how many.
        bits: that were stored.
        facts: of the header, by the allow-list, without ids.
        notes: what a person should know.
    """

    film_id: str
    file_name: str
    patient: str
    study: str
    height: int
    width: int
    sha256: str
    rule: str
    frame: int
    frames: int
    bits: int
    facts: dict[str, Any]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Task:
    path: str
    file: Path
    films: Path
    config: ConvertConfig
    pseudonyms: Pseudonyms


def convert_files(
    root: Path, paths: Sequence[str], films: Path, config: ConvertConfig, pseudonyms: Pseudonyms, workers: int
) -> list[Converted | Rejection]:
    """Converts files, and prints how fast.

    Args:
        root: folder that the paths are relative to.
        paths: the files; rejections name them so.
        films: folder for the PNGs and the journal, and nothing else.
        config: how.
        pseudonyms: other names for the ids.
        workers: processes.

    Returns:
        What became of each file, in the order of `paths`. Reasons of rejections: not_dicom, unreadable, modality,
        too_small, too_large, crashed.

    Raises:
        DataError: if `films` holds files that are not ours.
    """
    pydicom_module()  # its absence is one error, not one a file
    if films.is_dir() and any(films.iterdir()) and not (films / JOURNAL).is_file():
        raise DataError(f"{films}: holds files that weakray did not make; name another folder")
    films.mkdir(parents=True, exist_ok=True)
    key = sha256_json({"config": to_plain(config), "pseudonyms": pseudonyms.name("film", ""), "by": __version__})
    journal = _Journal(films / JOURNAL, key, root)
    known = {path: verdict for path in paths if (verdict := journal.known(path, films)) is not None}
    tasks = [_Task(path, root / path, films, config, pseudonyms) for path in paths if path not in known]
    started = time.monotonic()
    verdicts = in_processes(_convert, tasks, min(workers, max(1, len(tasks))), _crashed)
    with tqdm(total=len(paths), initial=len(known), desc="converting DICOM", unit="film", disable=None) as progress:
        for task, verdict in zip(tasks, verdicts, strict=True):
            known[task.path] = verdict
            journal.add(task.path, verdict)
            progress.update()
    seconds = time.monotonic() - started
    print(
        f"converted {len(tasks)} DICOM files in {seconds:.1f} s, {len(tasks) / max(seconds, 1e-9):.1f} a second in "
        f"{workers} processes; {len(paths) - len(tasks)} were there already",
        file=sys.stderr,
    )
    journal.rewrite(known, paths)
    listed = {verdict.file_name for verdict in known.values() if isinstance(verdict, Converted)}
    for stray in films.glob("*.png"):  # of files that are gone, or of other settings
        if stray.name not in listed:
            stray.unlink()
    return [known[path] for path in paths]


def _convert(task: _Task) -> Converted | Rejection:
    try:
        return _taken(task)
    except LimitError as error:
        return Rejection(task.path, "too_large", _without_path(error, task))
    except DataError as error:
        return Rejection(task.path, "unreadable", _without_path(error, task))


def _without_path(error: Exception, task: _Task) -> str:
    return str(error).removeprefix(f"{task.path}: ").removeprefix(f"{task.path}, ")


def _taken(task: _Task) -> Converted | Rejection:
    path, config = task.path, task.config
    try:
        config.limits.check_bytes(task.file.stat().st_size, path)
        content = task.file.read_bytes()
    except OSError as error:
        return Rejection(path, "unreadable", f"{error.strerror or error}; check the file's permissions and disk")
    if not is_dicom(content):
        return Rejection(path, "not_dicom", "the content is no DICOM; remove it, or read it by another verb")
    found = read_dicom(content, path, config.limits, FILM_TAGS)
    with damage(path, "the DICOM header"):
        facts = facts_of(found)
    if facts.modality and facts.modality not in config.modalities:
        detail = f"modality {facts.modality}, not among {', '.join(config.modalities)}; name it in the settings"
        return Rejection(path, "modality", detail)
    rule: Literal["voi", "percentile"] = "voi" if config.store == "voi" else "percentile"
    film = film_of(found, path, config.limits, rule=rule, frame=config.frame)
    height, width = film.image.shape[:2]
    if min(height, width) < config.min_side_px:
        detail = f"{height}×{width} px, each side must have {config.min_side_px}; is it a placeholder?"
        return Rejection(path, "too_small", detail)
    lossless = config.store == "lossless" and film.light is not None
    png = encode_png(film.light if lossless and film.light is not None else film.image)
    name = task.pseudonyms.name
    film_id = name("film", facts.sop_uid or sha256_bytes(content))
    sha256 = sha256_bytes(png)
    file_name = f"{film_id}-{sha256[:8]}.png"
    write_bytes(task.films / file_name, png)
    return Converted(
        film_id=film_id,
        file_name=file_name,
        patient=name("patient", facts.patient_id) if facts.patient_id else "",
        study=name("study", facts.study_uid) if facts.study_uid else "",
        height=height,
        width=width,
        sha256=sha256,
        rule=f"lossless, read as {film.rule}" if lossless else film.rule,
        frame=film.frame,
        frames=film.frames,
        bits=film.bits,
        facts={key: value for key, value in asdict(facts).items() if key not in ID_FACTS},
        notes=film.notes,
    )


def _crashed(task: _Task) -> Converted | Rejection:
    return Rejection(task.path, "crashed", "its decoder crashed; the file is damaged: export it again")


class _Journal:
    """What became of files, on disk line by line."""

    def __init__(self, path: Path, key: str, root: Path) -> None:
        self.path, self.key, self.root = path, key, root
        self.lines: dict[str, dict[str, Any]] = {}
        rows = list(_rows(path))
        if rows and rows[0] == {"key": key}:
            self.lines = {row["path"]: row for row in rows[1:]}
        write_text(path, "".join(_line(row) for row in ({"key": key}, *self.lines.values())))

    def _stamp(self, path: str) -> dict[str, Any]:
        """Under which a file stands here: its path's hash, its size and when it was last changed."""
        try:
            found = (self.root / path).stat()
        except OSError:
            return {"path": _hash(path), "size": None, "changed_ns": None}
        return {"path": _hash(path), "size": found.st_size, "changed_ns": found.st_mtime_ns}

    def known(self, path: str, films: Path) -> Converted | Rejection | None:
        """What became of a file that has not changed since and whose film is still there."""
        row = self.lines.get(_hash(path))
        if row is None or any(row[name] != value for name, value in self._stamp(path).items()):
            return None
        if "rejected" in row:
            return Rejection(path, *row["rejected"])
        film = Converted(**{**row["film"], "notes": tuple(row["film"]["notes"])})
        return film if (films / film.file_name).is_file() else None

    def _row(self, path: str, verdict: Converted | Rejection) -> dict[str, Any]:
        if isinstance(verdict, Rejection):
            return {**self._stamp(path), "rejected": [verdict.reason, verdict.detail]}
        return {**self._stamp(path), "film": asdict(verdict)}

    def add(self, path: str, verdict: Converted | Rejection) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(self._row(path, verdict)))

    def rewrite(self, verdicts: dict[str, Converted | Rejection], paths: Sequence[str]) -> None:
        """The whole of it in the files' order, whatever was added when."""
        rows = ({"key": self.key}, *(self._row(path, verdicts[path]) for path in paths))
        write_text(self.path, "".join(map(_line, rows)))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The lines up to the first that a kill cut."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines(keepends=True):
        try:
            row = json.loads(line) if line.endswith("\n") else None
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict):
            return
        yield row


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=True) + "\n"


def _hash(path: str) -> str:
    return sha256_bytes(path.encode("utf-8", "surrogatepass"))[:32]
