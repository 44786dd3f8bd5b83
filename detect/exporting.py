"""Writes a trained detector's exports: ONNX from torch; its half, OpenVINO's forms and TensorRT's from ONNX."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detect.detector import load_detector
from detect.formats import TENSORRT, TORCHSCRIPT, Format
from detect.half_precision import write_half
from detect.network import Network
from detect.torch_forms import write_tensorrt, write_torchscript
from weakray.bundle.graph import tidy
from weakray.bundle.manifest import DETECTOR, OPENVINO
from weakray.errors import ConfigError
from weakray.files import fresh_folder, replacing
from weakray.imaging import Image, to_batch
from weakray.stack import silence


def write_export(folder: Path, kind: Format, detector: Path, onnx: Path, calibration: Sequence[Image]) -> None:
    """Writes the files of one form into an empty folder; `formats.seal` adds `export.json`.

    Args:
        folder: emptied first.
        kind: the form.
        detector: run folder of `detect train`.
        onnx: the detector as ONNX.
        calibration: prepared images that integers are scaled by; of no use to the other forms.
    """
    fresh_folder(folder)
    match kind:
        case "onnx":
            shutil.copyfile(onnx, folder / DETECTOR)
        case "onnx-fp16":
            write_half(onnx, folder / DETECTOR)
        case "openvino" | "openvino-bf16" | "openvino-fp16" | "openvino-int8":
            _write_openvino(folder, kind, onnx, calibration)
        case "torchscript":
            write_torchscript(folder / TORCHSCRIPT, *_traceable(load_detector(detector).network))
        case "tensorrt" | "tensorrt-fp16":
            write_tensorrt(folder / TENSORRT, onnx, load_detector(detector).spec, half=kind == "tensorrt-fp16")


class _RawOutput(nn.Module):
    """The network's decoded output alone: in eval mode ultralytics gives it with the training outputs beside."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module  # nodes of the graph carry the path of a module, /module/model.23/…
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.raw(images)


def _traceable(network: Network) -> tuple[_RawOutput, tuple[int, int, int]]:
    """What is traced of a network, and the shape of an image."""
    network.module.to(memory_format=torch.contiguous_format)
    raw_output = _RawOutput(network).eval()
    return raw_output, (network.spec.channels, network.spec.size_px, network.spec.size_px)


def export_detector(folder: Path, path: Path, opset: int) -> None:
    """Writes a trained detector as ONNX with a free batch size; the same weights give the same bytes.

    Args:
        folder: run folder of `detect train`.
        path: file to write; input `images` `(n, c, s, s)` in [0, 1], output `raw` `(n, 4 + k, anchors)`.
        opset: ONNX operator set.
    """
    network = load_detector(folder).network  # read anew: tracing leaves its own tensors in the head
    raw_output, shape = _traceable(network)
    boxes = boxes_of(network)
    with replacing(path) as temporary:
        with warnings.catch_warnings():
            # torch calls its TorchScript exporter deprecated, but the newer one takes 20 times as long for the same
            # graph; and tracing warns of sizes that become constants, which they are here.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                raw_output,
                (torch.zeros(2, *shape),),  # two images: a batch of one would be taken for a constant
                temporary,
                input_names=["images"],
                output_names=["raw"],
                dynamic_axes={"images": {0: "n"}, "raw": {0: "n"}},
                opset_version=opset,
                dynamo=False,
            )
        tidy(temporary, {"images": ("n", *shape), "raw": ("n", 4 + len(network.names), boxes)})


def boxes_of(network: Network) -> int:
    """Boxes an image that it gives before any is dropped: one a place of each output level, or one a query."""
    if not network.queries:
        return sum((network.spec.size_px // stride) ** 2 for stride in network.strides)
    with torch.no_grad():
        return network.raw(torch.zeros(1, network.spec.channels, network.spec.size_px, network.spec.size_px)).shape[2]


def _write_openvino(folder: Path, kind: str, onnx: Path, calibration: Sequence[Image]) -> None:
    silence()
    import openvino

    model = openvino.Core().read_model(str(onnx))
    if kind == "openvino-int8":
        model = _quantised(model, calibration)
    for number, node in enumerate(model.get_ordered_ops()):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"n{number}")  # else some carry a count of all nodes this process ever made
    openvino.save_model(model, str(folder / OPENVINO[0]), compress_to_fp16=kind == "openvino-fp16")


def _quantised(model: Any, calibration: Sequence[Image]) -> Any:
    """Integers for weights and activations of convolutions; the head stays as it is: it gives distances and scores."""
    if not calibration:
        raise ConfigError("calibration_images: expected at least one val image to quantise by, got none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts of torch and numpy that it uses, to nobody here
        import nncf

        nncf.set_log_level(logging.ERROR)
        names = [node.get_friendly_name() for node in model.get_ordered_ops()]
        parts = {"/".join(name.split("/")[:3]) for name in names if name.count("/") >= 3}  # "/module/model.23"
        head = max(parts, key=_last_number) + "/"
        return nncf.quantize(
            model,
            nncf.Dataset(list(calibration), lambda image: to_batch([image])),
            subset_size=len(calibration),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=[name for name in names if name.startswith(head)], validate=False),
        )


def _last_number(name: str) -> int:
    digits = name.rsplit(".", 1)[-1]
    return int(digits) if digits.isdigit() else -1
