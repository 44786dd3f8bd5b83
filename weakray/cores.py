"""The cores that this process may use, and how several processes share them."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores this process may use; all of the machine's where the system does not say."""
    return len(_cores())


def core_shares(count: int) -> list[tuple[int, ...]]:
    """Numbers of the cores that each of `count` processes should keep to: disjoint, and as many for each.

    Figures depend on the number of threads, so no process has a core more than another: what is left over stays idle.

    Args:
        count: processes; as many as there are usable cores at most, so that each has one.
    """
    cores = _cores()
    size = len(cores) // count
    return [tuple(cores[i * size : (i + 1) * size]) for i in range(count)]


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
