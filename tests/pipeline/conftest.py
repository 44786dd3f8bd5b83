"""One undisturbed run of `configs/micro.yaml`, with every socket blocked, for all tests here to look at."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MICRO = ROOT / "configs" / "micro.yaml"

# Every way to a network from Python ends here. Sockets between processes of this machine (AF_UNIX) stay open.
BLOCKED = """
import socket, sys
def refuse(*words, **more):
    raise AssertionError(f"network: {words} {more}")
class Silent(socket.socket):
    def connect(self, address):
        return super().connect(address) if self.family == socket.AF_UNIX else refuse(address)
    def connect_ex(self, address):
        return super().connect_ex(address) if self.family == socket.AF_UNIX else refuse(address)
    def sendto(self, *words):
        refuse(*words)
socket.socket = Silent
socket.create_connection = socket.getaddrinfo = socket.gethostbyname = refuse
from weakray.cli import main
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Processes started within have so many of the cores, where there are as many: figures depend on the threads."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable)


def start(*words: str, blocked: bool = False, cores: int = 1) -> subprocess.Popen[str]:
    """Starts the command line in a process of its own."""
    front = ["-c", BLOCKED] if blocked else ["-m", "weakray.cli"]
    command = [sys.executable, *front, *words]
    with on_cores(cores):
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*words: str, blocked: bool = False, cores: int = 1) -> str:
    """Runs the command line to its end and gives what it printed."""
    process = start(*words, blocked=blocked, cores=cores)
    out, err = process.communicate()
    assert process.returncode == 0, err[-4000:]
    return out


def kill_when(moment: Callable[[], bool], *words: str, timeout_s: float = 400, cores: int = 1) -> bool:
    """Starts the command line and kills it at a moment; False where it ended before."""
    process = start(*words, cores=cores)
    until = time.monotonic() + timeout_s
    while process.poll() is None and not moment():
        assert time.monotonic() < until, "the moment never came"
        time.sleep(0.01)
    alive = process.poll() is None
    if alive:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return alive


def summary_of(out: Path) -> dict[str, Any]:
    """`summary.json` without its wall times."""
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    summary.pop("seconds")
    return summary


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro") / "run"
    finish("run", str(MICRO), "--out", str(out), blocked=True)
    return out
