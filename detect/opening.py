"""Opens whatever holds a detector: the run folder of a training, an export, or a bundle.

Importing this module imports no torch; a detector in torch brings it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from detect.compute import DeviceName
from detect.detector import BoxModel, GraphDetector, load_detector
from detect.formats import EXPORT_JSON, open_export
from weakray.bundle.manifest import MANIFEST, verify
from weakray.bundle.runtime import Engine, load_detector_graph
from weakray.errors import DataError
from weakray.files import sha256_file

DETECTOR_JSON = "detector.json"


def kind_of(folder: Path) -> str:
    """The file that says what lies in a folder: of a trained detector, an export, or a bundle.

    Raises:
        DataError: if it is none of them.
    """
    for name in (DETECTOR_JSON, EXPORT_JSON, MANIFEST):
        if (folder / name).is_file():
            return name
    raise DataError(
        f"{folder}: expected a detector (made by `weakray detect train`), an export or a bundle (`weakray detect "
        f"export`), found no {DETECTOR_JSON}, {EXPORT_JSON} or {MANIFEST}"
    )


def detector_sha256(folder: Path) -> str:
    """Hash of what `open_detector` would open: each of the files it is of holds the hashes of the others."""
    return sha256_file(folder / kind_of(folder))


def open_detector(
    folder: Path, threads: int | None = None, engine: Engine = "auto", device: DeviceName = "cpu"
) -> BoxModel:
    """Opens the run folder of `detect train`, an export, or a bundle.

    Args:
        folder: where it lies.
        threads: threads of a graph's pass; torch has its own number for the process.
        engine: what runs a bundle's detector.
        device: of a detector in torch.

    Raises:
        DataError: if a file is missing or not what it should be.
        BundleError: the same of a bundle.
        ConfigError: if CUDA is asked for and not there.
    """
    match kind_of(folder):
        case "detector.json":
            return load_detector(folder, device)
        case "export.json":
            return open_export(folder, threads)
        case _:
            manifest = verify(folder)
            graph = load_detector_graph(folder, manifest, threads, engine)
            return GraphDetector(manifest.findings, manifest.detector.input, graph)


def check_findings(model: BoxModel, names: Sequence[str], folder: Path, data: Path) -> None:
    """Refuses a detector of other findings than the dataset's: class 3 of one is not class 3 of the other.

    Raises:
        DataError: naming both lists.
    """
    if list(model.findings) != list(names):
        raise DataError(
            f"{folder}: expected a detector of the findings of {data}, {list(names)}, got one of "
            f"{list(model.findings)}; name the dataset it was trained on, or train one on this"
        )
