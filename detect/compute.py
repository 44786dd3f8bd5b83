"""Where and how torch computes a detector: device, threads, bfloat16. Importing this module imports no torch.

Classifiers have their own (`classify.compute`): stages meet at files, and what they share knows no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from weakray.cores import usable_cores
from weakray.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda"]


def torch_device(name: DeviceName) -> torch.device:
    """The device that a setting means; `auto` takes CUDA where there is one.

    Raises:
        ConfigError: if CUDA is asked for and not there.
    """
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: expected a CUDA device, torch finds none; set device to cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def bf16_pays(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 itself; elsewhere autocast only costs."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def torch_threads(count: int | None) -> Iterator[int]:
    """Runs a block on `count` threads of torch, all cores this process may use for None, and restores the number.

    Yields:
        The number of threads in use.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or usable_cores())
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
