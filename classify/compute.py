"""Where and how torch computes: device, threads, precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn

from weakray.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
PrecisionName = Literal["auto", "fp32", "bf16", "fp16"]


def torch_device(name: DeviceName) -> torch.device:
    """The device that a setting means; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: if CUDA is asked for and not there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: expected a CUDA device, torch finds none; set device to cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def bf16_pays(device: torch.device, model: nn.Module) -> bool:
    """Whether bf16 autocast is faster than fp32: on CUDA, and on CPUs with bf16 instructions for dense models.

    With AVX512-BF16 a training step of a ResNet takes half the time, one of a MobileNet twice: depthwise convolutions
    gain nothing. Decided by what is there, not by timing, so that the same machine always decides alike.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    depthwise = any(isinstance(part, nn.Conv2d) and part.groups == part.in_channels > 1 for part in model.modules())
    capabilities = torch.cpu.get_capabilities()
    return not depthwise and any(bool(capabilities.get(name)) for name in ("amx_bf16", "avx512_bf16"))


def torch_precision(name: PrecisionName, device: torch.device, model: nn.Module) -> Precision:
    """The precision that a setting means; `auto` takes bf16 where device and model are faster so, else fp32.

    Raises:
        ConfigError: if fp16 is asked for elsewhere than on CUDA.
    """
    if name == "fp16" and device.type != "cuda":
        raise ConfigError(f"precision: fp16 needs a CUDA device, got {device.type}; set precision to bf16 or fp32")
    if name == "auto":
        return "bf16" if bf16_pays(device, model) else "fp32"
    return name


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Autocast to bf16 or fp16, or nothing."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Runs a block with `count` threads (None: as many as torch has now), and puts the number back."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
