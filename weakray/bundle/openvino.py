"""Runs an exported graph with OpenVINO on the CPU: what `runtime.Graph` is for onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from weakray.detections import FloatArray
from weakray.errors import BundleError
from weakray.imaging import Image, InputSpec
from weakray.stack import silence

Precision = Literal["f32", "bf16"]


class OpenVinoGraph:
    """An OpenVINO or ONNX file, loaded: prepared images in, named arrays out.

    A graph for single images is compiled beside the one for any number: shapes known beforehand save it a fifth of
    the time. Bytes become numbers in [0, 1], channels first, within the graph and on all its threads. Safe to call from
    several threads at once.

    Args:
        path: the `.xml` (its `.bin` beside it) or `.onnx` file.
        input_spec: what it must take.
        outputs: name → size of axis 1 that each output must have.
        threads: threads of one pass; None leaves the choice to OpenVINO.
        precision: what to compute in; bf16 becomes f32 on a processor without it.

    Raises:
        BundleError: if OpenVINO is not installed, or the file cannot be loaded, or takes or gives something else.
    """

    def __init__(
        self,
        path: Path,
        input_spec: InputSpec,
        outputs: dict[str, int],
        threads: int | None = None,
        precision: Precision = "f32",
    ) -> None:
        silence()
        try:
            import openvino
        except ImportError:
            raise BundleError(
                f"{path}: expected OpenVINO to run it, which is not installed; install weakray[openvino], or "
                "take onnxruntime"
            ) from None
        core = openvino.Core()
        try:
            model = core.read_model(str(path))
        except RuntimeError as error:
            raise BundleError(f"{path}: expected a graph that OpenVINO can run, got: {error}") from None
        size, channels = input_spec.size_px, input_spec.channels
        takes = {name: port.partial_shape for port in model.inputs for name in port.names}
        wanted = openvino.PartialShape([-1, channels, size, size])
        if len(model.inputs) != 1 or takes.get("images") != wanted:
            raise BundleError(
                f"{path}: expected one input images (n, {channels}, {size}, {size}) with n free, "
                f"got { {name: str(shape) for name, shape in takes.items()} }"
            )
        gives = {name: port.partial_shape for port in model.outputs for name in port.names}
        if {name: shape[1].get_length() for name, shape in gives.items() if shape[1].is_static} != outputs:
            raise BundleError(
                f"{path}: expected outputs with these sizes of axis 1: {outputs}, "
                f"got { {name: str(shape) for name, shape in gives.items()} }"
            )
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # whoever else runs here shares the cores
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        model = _of_bytes(openvino, model)
        self._compiled = {0: core.compile_model(model, "CPU", settings)}
        model.reshape({"images": [1, size, size, channels]})
        self._compiled[1] = core.compile_model(model, "CPU", settings)
        self._own = threading.local()

    def run(self, images: Sequence[Image], outputs: Sequence[str]) -> list[FloatArray]:
        """The named outputs for images as `prepare` gives them, in one pass."""
        kind = 1 if len(images) == 1 else 0
        requests: dict[int, Any] = self._own.__dict__.setdefault("requests", {})
        if kind not in requests:
            requests[kind] = self._compiled[kind].create_infer_request()
        batch = np.stack([image.reshape(*image.shape[:2], -1) for image in images])
        found = requests[kind].infer({"images": batch}, share_inputs=True)
        return [np.array(found[name]) for name in outputs]


def _of_bytes(openvino: Any, model: Any) -> Any:
    """A graph for `(n, c, s, s)` in [0, 1] → one for `(n, s, s, c)` in 0…255."""
    steps = openvino.preprocess.PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().preprocess().convert_element_type(openvino.Type.f32).scale(255.0)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    return steps.build()
