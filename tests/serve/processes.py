"""A real server in a process of its own, on a free port of this machine."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Self

ROOT = Path(__file__).parents[2]


class ServerProcess:
    """`weakray serve` in a process. Use it as a context; leaving it stops the server.

    Args:
        bundle: what it serves.
        flags: further words of the command line.
        environment: variables set for it.
    """

    def __init__(self, bundle: Path, *flags: str, environment: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "weakray.cli", "serve", str(bundle), "--port", "0", "--threads", "1", *flags]
        plain = {name: value for name, value in os.environ.items() if name != "WEAKRAY_TOKEN"}
        pipe, env = subprocess.PIPE, plain | (environment or {})
        self._process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)
        self.lines: list[str] = []
        self.output: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, kept), daemon=True)
            for stream, kept in ((self._process.stderr, self.lines), (self._process.stdout, self.output))
        ]
        for reader in self._readers:
            reader.start()
        self.port = self._wait_for_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def stop(self, timeout_s: float = 30) -> int:
        """Tells it to end, and gives its exit code once it has."""
        self.tell(signal.SIGTERM)
        return self._process.wait(timeout_s)

    def wait(self, timeout_s: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(timeout_s)

    def wait_for_line(self, pattern: str, timeout_s: float = 30) -> str:
        """The first line of its log that holds `pattern`."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            time.sleep(0.01)
        raise AssertionError(f"no line with {pattern!r} in: {self.lines}")

    def memory_bytes(self) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]  # it is always there

    def sockets(self) -> int:
        """How many sockets it holds: its listening one, its event loop's, and one a connection."""
        held = 0
        for descriptor in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the server closed it after the folder was read
                held += str(descriptor.readlink()).startswith("socket:")
        return held

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def _wait_for_port(self) -> int:
        until = time.monotonic() + 60
        while time.monotonic() < until and self._process.poll() is None:
            for line in list(self.lines):
                found = re.search(r"serving .* on http://127\.0\.0\.1:(\d+)", line)
                if found:
                    return int(found[1])
            time.sleep(0.01)
        self.__exit__()
        raise AssertionError(f"the server did not start: {self.lines} {self.output}")

    @staticmethod
    def _read(stream: IO[str], kept: list[str]) -> None:
        for line in stream:
            kept.append(line.rstrip())  # noqa: PERF401 - others look on while it grows
