"""How fast are data taken in: is the image pass held up by anything but decoding?

`python -m bench.ingest` makes film-like files of about 1,024 px and measures in turn, in files a second over all cores:

- `images/png/vs-limit`, `images/jpeg/vs-limit`: the image pass of every reader (read, hash, check, decode) over
  OpenCV decoding the same bytes from memory in as many threads, which is the limit.
- `dicom/KIND/vs-limit`: `ingest dicom`'s conversion (read, parse, decode, 8 bits, PNG, hash, write) over pydicom
  decoding the same files and OpenCV encoding the same pixels, in as many processes.
- `csv/…/vs-limit`, `csv-memory/…/vs-limit`: a table of 100,000 rows read, mapped and split, without the image pass.

`--quick` does the same with few small files: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from bench.csv_rows import csv_rows
from bench.printing import Row, answer, side_by_side
from ingest.dicom_files import ConvertConfig, convert_files
from ingest.image_files import inspect_files
from ingest.processes import in_processes
from ingest.pseudonyms import Pseudonyms
from weakray.dataset import Rejection


@dataclass(frozen=True)
class Work:
    """How much is done: of a bench or of its quick form."""

    size_px: int
    files: int
    turns: int
    rows: int


QUICK = Work(128, files=16, turns=2, rows=3_000)
WHOLE = Work(1024, files=96, turns=7, rows=100_000)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few small files: shape of the rows only")
    work = QUICK if parser.parse_args().quick else WHOLE
    cores = len(os.sched_getaffinity(0))
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        rows = [_image_row(kind, work, cores, Path(temporary)) for kind in ("png", "jpeg")]
        rows += csv_rows(work.rows, Path(temporary))
        rows += [_dicom_row(kind, work, cores, Path(temporary)) for kind in ("explicit", "jpeg_2000")]
    answer("ingest", rows)


def film(seed: int, size_px: int) -> npt.NDArray[np.float32]:
    """A film-like picture `(h, w)` in [0, 1]: broad shapes, fine ones, and grain."""
    rng = np.random.default_rng(seed)
    height, width = size_px, size_px - size_px // 8
    out = np.zeros((height, width), np.float32)
    for cells, strength in ((6, 1.0), (40, 0.2)):
        coarse = rng.random((cells, cells), np.float32)
        out += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    out += rng.normal(0, 0.01, out.shape).astype(np.float32)
    return np.asarray(cv2.normalize(out, None, 0, 1, cv2.NORM_MINMAX), np.float32)


def _image_row(kind: str, work: Work, cores: int, root: Path) -> Row:
    suffix = {"png": ".png", "jpeg": ".jpg"}[kind]
    files: list[tuple[str, Path]] = []
    for seed in range(work.files):
        path = root / f"{seed:04d}{suffix}"
        cv2.imwrite(str(path), np.rint(film(seed, work.size_px) * 255).astype(np.uint8))
        files.append((path.name, path))
    contents = [np.fromfile(path, np.uint8) for _, path in files]

    def ours() -> None:
        if any(isinstance(verdict, Rejection) for verdict in inspect_files(files, workers=cores)):
            raise SystemExit("a made film was rejected")

    def bare() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda content: cv2.imdecode(content, cv2.IMREAD_UNCHANGED), contents))

    return in_turn(f"images/{kind}/vs-limit", ours, bare, work)


def _dicom_row(kind: str, work: Work, cores: int, root: Path) -> Row:
    source = root / kind
    source.mkdir()
    for seed in range(work.files):
        values = np.rint(film(seed, work.size_px) * 4095).astype(np.uint16)
        _write_dicom(source / f"{seed:04d}.dcm", values, kind)
    paths = sorted(path.name for path in source.iterdir())
    turns = itertools.count()

    def ours() -> None:
        films = root / f"{kind}_films_{next(turns)}"
        found = convert_files(source, paths, films, ConvertConfig(), Pseudonyms(), cores)
        if any(isinstance(verdict, Rejection) for verdict in found):
            raise SystemExit("a made DICOM film was rejected")

    def bare() -> None:
        list(in_processes(_decode_and_encode, [source / path for path in paths], cores, lambda _: 0))

    return in_turn(f"dicom/{kind}/vs-limit", ours, bare, work)


def _write_dicom(path: Path, values: npt.NDArray[np.uint16], kind: str) -> None:
    from pydicom import FileDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, UID("1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = UID(f"1.2.{int(path.stem) + 1}")
    made = FileDataset(path.name, {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.WindowCenter, made.WindowWidth = 2048, 4096
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OW"
    if kind == "jpeg_2000":
        made.compress(JPEG2000Lossless, generate_instance_uid=False)
    made.save_as(path, enforce_file_format=True)


def _decode_and_encode(path: Path) -> int:
    """What cannot be done without: the pixels by pydicom, cut to 8 bits, as PNG by OpenCV."""
    from pydicom import dcmread

    pixels = (dcmread(path).pixel_array >> 4).astype(np.uint8)
    return len(cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1])


def in_turn(case: str, ours: Callable[[], None], peer: Callable[[], None], work: Work) -> Row:
    """Files a second of two ways, measured in turn after one turn that is not counted."""
    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    for turn in range(work.turns + 1):
        for name, way in (("ours", ours), ("peer", peer)):
            started = time.perf_counter()
            way()
            if turn:
                speeds[name].append(work.files / (time.perf_counter() - started))
    return side_by_side(case, speeds["ours"], speeds["peer"], "files/s")


if __name__ == "__main__":
    main()
