"""Where several processes of pytest share a machine, each keeps to cores of its own.

What is tested takes as many threads as it may use cores: two processes that both took all would wait for each other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from weakray.cores import core_shares, usable_cores

_MACHINE = frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset[int]()


def pytest_configure() -> None:
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if _MACHINE and 1 < processes <= usable_cores():
        number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        os.sched_setaffinity(0, core_shares(processes)[number])


@pytest.fixture
def all_cores() -> Iterator[None]:
    """The machine's cores, for what shares them itself; skipped where there is one alone."""
    own = os.sched_getaffinity(0) if _MACHINE else None
    if own is not None:
        os.sched_setaffinity(0, _MACHINE)
    try:
        if usable_cores() < 2:
            pytest.skip("on one core, all runs in this process")
        yield
    finally:
        if own is not None:
            os.sched_setaffinity(0, own)
