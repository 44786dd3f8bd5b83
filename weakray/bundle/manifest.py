"""`bundle.json`: what a bundle holds, what it was made from, and the hash of every file.

Format 1 is a flat folder of `bundle.json`, `detector.onnx`, `classifiers.onnx`, `recipe.yaml`, `taxonomy.yaml` and
optionally `README.md`. The graphs take one input `images`, `(n, c, s, s)` float32 in [0, 1] (see
`weakray.imaging.prepare`). `detector.onnx` gives `raw`, `(n, 4 + k, anchors)` (see `weakray.bundle.yolo`);
`classifiers.onnx` gives `probabilities`, `(n, k)` in [0, 1], with ensemble rule, calibration and hierarchy applied, and
`maps`, `(n, k, h, w)`, not stretched per image.

Format 2 is the same, and may hold the detector for OpenVINO too: `detector.xml` and `detector.bin`, which take and give
what `detector.onnx` does. Both formats are read.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from weakray import __version__
from weakray.bundle.openvino import Precision
from weakray.config import StrictModel, to_plain, validate
from weakray.errors import BundleError, ConfigError, DataError
from weakray.files import read_json, sha256_file, write_json
from weakray.imaging import InputSpec
from weakray.taxonomy import Taxonomy

FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)
MANIFEST = "bundle.json"
DETECTOR = "detector.onnx"
OPENVINO = ("detector.xml", "detector.bin")
CLASSIFIERS = "classifiers.onnx"
RECIPE = "recipe.yaml"
TAXONOMY = "taxonomy.yaml"
README = "README.md"
REQUIRED = (DETECTOR, CLASSIFIERS, RECIPE, TAXONOMY)
_MEND = "export the bundle again with `weakray detect export`, or copy it again from where it is whole"


class FileRecord(StrictModel):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="hex SHA-256 of the file")
    bytes: int = Field(ge=0, description="size of the file")


class Origin(StrictModel):
    """What the bundle was made from."""

    commit: str | None = Field(None, description="commit of the code that made it; null where unknown")
    dataset: str = Field(description="name of the dataset")
    dataset_sha256: str = Field(description="hash of the dataset (`Dataset.sha256`)")


class ClassifierPart(StrictModel):
    """The classifiers inside `classifiers.onnx`. `classify export` writes this as `classifiers.json` too."""

    input: InputSpec = Field(description="what the graph sees of an image")
    findings: tuple[str, ...] = Field(min_length=1, description="findings in the order of the graph's outputs")
    decision_thresholds: dict[str, float] = Field(description="finding → probability from which it counts as present")
    calibration: str = Field(description="how probabilities were calibrated, and where the thresholds come from")
    maps: str = Field("pcam", description="method of the maps, in camgen's words; members averaged on the finest grid")
    members: tuple[str, ...] = Field(min_length=1, description="SHA-256 of each member, its settings and weights")
    parity_passed: bool = Field(description="whether the graph agrees with torch; false where `force` overrode that")


class OpenVinoPart(StrictModel):
    """The detector inside `detector.xml`: the one of `detector.onnx`, perhaps in lower precision."""

    export: str = Field(description="which export of `weakray detect export` it is: openvino, openvino-int8 …")
    precision: Precision = Field(description="what OpenVINO is asked to compute in: f32 or bf16")
    parity_passed: bool = Field(description="whether it agrees with torch; false where `force` overrode that")


class DetectorPart(StrictModel):
    """The detector inside `detector.onnx`, and how its raw output becomes boxes."""

    input: InputSpec = Field(description="what the graph sees of an image")
    findings: tuple[str, ...] = Field(min_length=1, description="findings in the order of the graph's class scores")
    score_thresholds: dict[str, float] = Field(description="finding → score from which a box is shown")
    iou_above: float = Field(gt=0, le=1, description="overlap above which the weaker box of a finding is dropped")
    max_boxes: int = Field(ge=1, description="most boxes an image")
    weights_sha256: str = Field(description="SHA-256 of the torch weights it was exported from")
    parity_passed: bool = Field(description="whether the graph agrees with torch; false where `force` overrode that")
    openvino: OpenVinoPart | None = Field(None, description="the same for OpenVINO; null where the bundle has none")


class Manifest(StrictModel):
    """The whole of `bundle.json`. `detector.findings`, `classifiers.findings` and the taxonomy's names are the same."""

    format_version: int = Field(FORMAT_VERSION, description="version of the bundle's format")
    weakray: str = Field(__version__, description="version of weakray that wrote it")
    origin: Origin
    detector: DetectorPart
    classifiers: ClassifierPart
    files: dict[str, FileRecord] = Field(description="every file but bundle.json itself")

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings, in class-id order."""
        return self.detector.findings


def record(path: Path) -> FileRecord:
    """Hash and size of a file."""
    return FileRecord(sha256=sha256_file(path), bytes=path.stat().st_size)


def save(folder: Path, manifest: Manifest) -> None:
    """Writes `bundle.json`."""
    write_json(folder / MANIFEST, to_plain(manifest))


def read(folder: Path) -> Manifest:
    """Reads `bundle.json` without looking at the other files.

    Raises:
        BundleError: if it is missing, of another format version, or does not hold what it should.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleError(f"{folder}: expected a bundle, found no {MANIFEST}; make one with `weakray detect export`")
    try:
        content = read_json(path)
    except DataError as error:
        raise BundleError(f"{error}; {_MEND}") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version not in READ_VERSIONS:
        raise BundleError(
            f"{path}: expected format_version {' or '.join(map(str, READ_VERSIONS))}, got {version!r}; export the "
            f"bundle again with weakray {__version__}, or run it with the weakray that made it"
        )
    try:
        return validate(Manifest, content)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}; {_MEND}") from None


def verify(folder: Path) -> Manifest:
    """Checks that a bundle is whole: every file there with its size and hash, none besides, one list of findings.

    Args:
        folder: the bundle.

    Returns:
        Its manifest.

    Raises:
        BundleError: naming the first file that is not as it should be, and what to do.
    """
    manifest = read(folder)
    for name in (*REQUIRED, *(OPENVINO if manifest.detector.openvino is not None else ())):
        if name not in manifest.files:
            raise BundleError(f"{folder / MANIFEST}: `files` lacks {name}; {_MEND}")
    present = sorted(path.name for path in folder.iterdir())
    strays = [name for name in present if name not in manifest.files and name != MANIFEST]
    if strays:
        raise BundleError(f"{folder / strays[0]}: not a file of this bundle; move it elsewhere")
    for name, expected in manifest.files.items():
        _check_file(folder, name, expected)
    _check_findings(folder, manifest)
    return manifest


def _check_file(folder: Path, name: str, expected: FileRecord) -> None:
    path = folder / name
    if path.name != name or not path.is_file():  # a name with a separator would reach outside the folder
        raise BundleError(f"{path}: a file of this bundle is missing; {_MEND}")
    found = record(path)
    if found.bytes != expected.bytes:
        raise BundleError(f"{path}: expected {expected.bytes} bytes, got {found.bytes}; {_MEND}")
    if found.sha256 != expected.sha256:
        raise BundleError(f"{path}: expected SHA-256 {expected.sha256[:12]}…, got {found.sha256[:12]}…; {_MEND}")


def _check_findings(folder: Path, manifest: Manifest) -> None:
    try:
        names = tuple(Taxonomy.load(folder / TAXONOMY).names)
    except DataError as error:
        raise BundleError(f"{error}; {_MEND}") from None
    lists = {
        "detector.findings": manifest.detector.findings,
        "classifiers.findings": manifest.classifiers.findings,
        "detector.score_thresholds": tuple(manifest.detector.score_thresholds),
        "classifiers.decision_thresholds": tuple(manifest.classifiers.decision_thresholds),
    }
    for where, found in lists.items():
        if found != names:
            raise BundleError(
                f"{folder / MANIFEST}: {where} is {list(found)}, but {TAXONOMY} lists {list(names)}; {_MEND}"
            )
