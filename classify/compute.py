"""Where and how torch computes: device, threads, bf16."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn

from weakray.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda"]


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


def precision(device: torch.device, bf16: bool) -> AbstractContextManager[object]:
    """Autocast to bf16, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


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
