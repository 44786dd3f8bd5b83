"""Exports that torch runs: TorchScript on any machine, TensorRT on the GPU an engine was built for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from weakray.detections import FloatArray
from weakray.errors import BundleError, ConfigError
from weakray.files import replacing
from weakray.imaging import Image, InputSpec, to_batch

_MOST_IMAGES = 16  # of one pass of a TensorRT engine, which must be told beforehand


@dataclass(frozen=True)
class TorchScriptDetector:
    """A detector traced by torch: needs torch, and none of the code that built the network."""

    findings: tuple[str, ...]
    spec: InputSpec
    module: Any

    def raw(self, images: Sequence[Image]) -> FloatArray:
        """See `BoxModel.raw`."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(to_batch(images)))
            return np.asarray(self.module(batch).numpy(), np.float32)


def open_torchscript(path: Path, findings: Sequence[str], spec: InputSpec) -> TorchScriptDetector:
    """Loads a traced detector onto the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in writing
        module = torch.jit.load(str(path), map_location="cpu").eval()
    return TorchScriptDetector(tuple(findings), spec, module)


def write_torchscript(path: Path, raw_output: torch.nn.Module, shape: tuple[int, int, int]) -> None:
    """Traces a module that gives `raw` for images `(n, *shape)`, and writes it."""
    with warnings.catch_warnings(), torch.inference_mode(), replacing(path) as temporary:
        # Sizes become constants, which they are here; and torch would have its newer form, which needs this code.
        warnings.simplefilter("ignore")
        torch.jit.save(
            torch.jit.freeze(torch.jit.trace(raw_output, torch.zeros(2, *shape), check_trace=False)), temporary
        )


def require_tensorrt(kind: str) -> None:
    """Says at once, before an hour's work, that this machine can make and run no TensorRT engine.

    Raises:
        ConfigError: naming what is missing.
    """
    if not torch.cuda.is_available():
        raise ConfigError(f"{kind}: expected an NVIDIA GPU on this machine, found none; leave it out")
    try:
        import tensorrt  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        raise ConfigError(
            f"{kind}: expected the package tensorrt, which is not installed; install it, or leave it out"
        ) from None


@dataclass(frozen=True)
class TensorRtDetector:
    """A detector as a TensorRT engine, on the GPU it was built for."""

    findings: tuple[str, ...]
    spec: InputSpec
    engine: Any

    def raw(self, images: Sequence[Image]) -> FloatArray:
        """See `BoxModel.raw`."""
        parts = [self._pass(images[i : i + _MOST_IMAGES]) for i in range(0, len(images), _MOST_IMAGES)]
        return np.concatenate(parts)

    def _pass(self, images: Sequence[Image]) -> FloatArray:
        context = self.engine.create_execution_context()
        batch = torch.from_numpy(np.ascontiguousarray(to_batch(images))).cuda()
        context.set_input_shape("images", tuple(batch.shape))
        raw = torch.empty(tuple(context.get_tensor_shape("raw")), dtype=torch.float32, device="cuda")
        context.set_tensor_address("images", batch.data_ptr())
        context.set_tensor_address("raw", raw.data_ptr())
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return np.asarray(raw.cpu().numpy(), np.float32)


def open_tensorrt(path: Path, findings: Sequence[str], spec: InputSpec) -> TensorRtDetector:
    """Loads an engine onto the GPU.

    Raises:
        ConfigError: without a GPU or TensorRT.
        BundleError: if the engine is of another TensorRT or GPU.
    """
    require_tensorrt("a TensorRT engine")
    import tensorrt

    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise BundleError(f"{path}: built by another TensorRT or for another GPU; export the detector here")
    return TensorRtDetector(tuple(findings), spec, engine)


def write_tensorrt(path: Path, onnx: Path, spec: InputSpec, *, half: bool) -> None:
    """Builds an engine for this machine's GPU, for 1 to 16 images a pass.

    Raises:
        ConfigError: without a GPU or TensorRT.
        BundleError: if TensorRT cannot read the graph or build the engine.
    """
    require_tensorrt("a TensorRT engine")
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(onnx.read_bytes()):
        raise BundleError(f"{onnx}: expected a graph that TensorRT can read, got: {parser.get_error(0)}")
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    shape = (spec.channels, spec.size_px, spec.size_px)
    profile.set_shape("images", (1, *shape), (1, *shape), (_MOST_IMAGES, *shape))
    config.add_optimization_profile(profile)
    if half:
        config.set_flag(tensorrt.BuilderFlag.FP16)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BundleError(f"{onnx}: TensorRT could not build an engine from it")
    with replacing(path) as temporary:
        temporary.write_bytes(bytes(engine))
