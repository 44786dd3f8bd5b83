"""The forms a detector is exported to, each a folder with `export.json` and the hashes of its files.

`onnx-fp16` keeps weights and convolutions in half precision, at half the size; `openvino` keeps float32;
`openvino-bf16` is the same file, computed in bfloat16 where the processor has it; `openvino-fp16` keeps its weights in
half precision; `openvino-int8` computes convolutions in integers, quantised after training on val images, but for those
of the head. Importing this module imports no torch; TorchScript and TensorRT bring it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from detect.detector import BoxModel, GraphDetector
from weakray.bundle.manifest import DETECTOR, OPENVINO, FileRecord, record
from weakray.bundle.openvino import OpenVinoGraph, Precision
from weakray.bundle.runtime import Graph
from weakray.config import StrictModel, to_plain, validate
from weakray.errors import BundleError
from weakray.files import read_json, write_json
from weakray.imaging import InputSpec

Format = Literal[
    "onnx",
    "onnx-fp16",
    "openvino",
    "openvino-bf16",
    "openvino-fp16",
    "openvino-int8",
    "torchscript",
    "tensorrt",
    "tensorrt-fp16",
]
OpenVinoFormat = Literal["openvino", "openvino-bf16", "openvino-fp16", "openvino-int8"]
LOSSY: tuple[Format, ...] = ("onnx-fp16", "openvino-bf16", "openvino-fp16", "openvino-int8", "tensorrt-fp16")
EXPORT_JSON = "export.json"
TORCHSCRIPT, TENSORRT = "detector.torchscript", "detector.engine"
_FILES: dict[str, tuple[str, ...]] = {
    "onnx": (DETECTOR,),
    "onnx-fp16": (DETECTOR,),
    "torchscript": (TORCHSCRIPT,),
    "tensorrt": (TENSORRT,),
    "tensorrt-fp16": (TENSORRT,),
}


class ExportPart(StrictModel):
    """What lies in an export's folder: the whole of `export.json`."""

    format_version: Literal[1] = 1
    format: Format = Field(description="which of the forms")
    input: InputSpec = Field(description="what the detector sees of an image")
    findings: tuple[str, ...] = Field(min_length=1, description="findings in the order of its class scores")
    weights_sha256: str = Field(description="SHA-256 of the torch weights it was exported from")
    parity_passed: bool = Field(description="whether it agrees with torch; false where `force` overrode that")
    files: dict[str, FileRecord] = Field(description="every file but export.json itself")


def precision_of(kind: Format) -> Precision:
    """What OpenVINO is asked to compute in. INT8 takes bf16 for what stays in floating point, where there is any."""
    return "bf16" if kind in ("openvino-bf16", "openvino-int8") else "f32"


def files_of(kind: Format) -> tuple[str, ...]:
    """Names of the files of a form."""
    return _FILES.get(kind, OPENVINO)


def seal(folder: Path, kind: Format, model: BoxModel, weights_sha256: str, *, parity_passed: bool) -> None:
    """Writes `export.json`: from then on the folder is an export that `open_detector` opens."""
    part = ExportPart(
        format=kind,
        input=model.spec,
        findings=model.findings,
        weights_sha256=weights_sha256,
        parity_passed=parity_passed,
        files={name: record(folder / name) for name in files_of(kind)},
    )
    write_json(folder / EXPORT_JSON, to_plain(part))


def open_export(folder: Path, threads: int | None = None) -> BoxModel:
    """Opens an export that was sealed.

    Raises:
        BundleError: if a file is not the one `export.json` speaks of.
        ConfigError: if this machine cannot run it.
    """
    path = folder / EXPORT_JSON
    part = validate(ExportPart, read_json(path), str(path))
    for name, expected in part.files.items():
        if not (folder / name).is_file() or record(folder / name) != expected:
            raise BundleError(f"{folder / name}: not the file that {EXPORT_JSON} speaks of; export the detector again")
    return open_graph(folder, part.format, part.findings, part.input, threads)


def open_graph(
    folder: Path, kind: Format, findings: Sequence[str], spec: InputSpec, threads: int | None = None
) -> BoxModel:
    """Opens the files of a form, sealed or not."""
    outputs = {"raw": 4 + len(findings)}
    match kind:
        case "onnx" | "onnx-fp16":
            return GraphDetector(tuple(findings), spec, Graph(folder / DETECTOR, spec, outputs, threads))
        case "torchscript":
            from detect.torch_forms import open_torchscript

            return open_torchscript(folder / TORCHSCRIPT, findings, spec)
        case "tensorrt" | "tensorrt-fp16":
            from detect.torch_forms import open_tensorrt

            return open_tensorrt(folder / TENSORRT, findings, spec)
        case _:
            graph = OpenVinoGraph(folder / OPENVINO[0], spec, outputs, threads, precision_of(kind))
            return GraphDetector(tuple(findings), spec, graph)
