"""gdcm in a process of its own: on some damaged streams it calls `terminate`, which would take the server along.

The process is started when it is first needed, answers one frame at a time, and is started anew after it died or took
too long. It ends when its input closes, so with its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import select
import struct
import subprocess
import sys
import threading
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from weakray.errors import DataError

TIMEOUT_S = 60.0
_LENGTHS = struct.Struct("<QQ")  # of a JSON header, and of the bytes behind it


class DiedError(Exception):
    """The process ended, or had to be ended, before it answered."""


class _Apart:
    """The process, and one caller at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, header: dict[str, Any], content: bytes, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        with self.lock:
            if self.process is not None and self.process.poll() is not None:
                self.end()
            if self.process is None:
                self.process = _started()
                atexit.register(self.end)
            try:
                _send(_open(self.process.stdin), header, content)
                if not select.select([_open(self.process.stdout)], [], [], timeout_s)[0]:
                    raise DiedError
                return _receive(_open(self.process.stdout))
            except (OSError, EOFError, DiedError):
                self.end()
                raise DiedError from None

    def end(self) -> None:
        """Ends the process; the next question starts another."""
        atexit.unregister(self.end)
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):  # what was not yet written to a dead process
                    _open(pipe).close()
        self.process = None


def _started() -> subprocess.Popen[bytes]:
    code = "from weakray.dicom.apart import answer; answer()"
    quiet = subprocess.DEVNULL  # there gdcm writes its remarks
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet)


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise DiedError
    return pipe


_apart = _Apart()


def decode_apart(name: str, syntax: str, pixel_data: bytes, index: int, options: dict[str, Any]) -> npt.NDArray[Any]:
    """Decodes a frame by gdcm.

    Args:
        name: how errors name the file.
        syntax: transfer syntax.
        pixel_data: the encapsulated frames.
        index: which, from 0.
        options: what pydicom's decoder needs to know of the pixels: rows, columns, bits_allocated …

    Raises:
        DataError: if the process died over it, or took longer than a minute.
        ValueError: if gdcm refused it.
    """
    header = {"syntax": syntax, "index": index, "options": options}
    try:
        answered, content = _apart.ask(header, pixel_data, TIMEOUT_S)
    except DiedError:
        raise DataError(
            f"{name}: its compressed pixels crash their decoder, so they are damaged; export it again"
        ) from None
    if "error" in answered:
        raise ValueError(answered["error"])
    return np.frombuffer(content, np.dtype(answered["dtype"])).reshape(answered["shape"])


def answer() -> None:
    """Runs in the other process: answers until its input ends."""
    import gdcm
    from pydicom.pixels.decoders.base import get_decoder

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    while True:
        try:
            header, content = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            decoder: Any = get_decoder(header["syntax"])
            array, _ = decoder.as_array(
                content, index=header["index"], decoding_plugin="gdcm", pixel_vr="OW", **header["options"]
            )
            told, made = {"dtype": array.dtype.str, "shape": array.shape}, np.ascontiguousarray(array).tobytes()
        # The file is hostile until shown otherwise, and gdcm and numpy raise what they like on it. This process must
        # live for the next film; the caller raises a DataError that names the kind, for a message may quote the header.
        except Exception as error:  # noqa: BLE001 - sent to the caller, who raises
            told, made = {"error": type(error).__name__}, b""
        _send(sys.stdout.buffer, told, made)


def _send(to: IO[bytes], header: dict[str, Any], content: bytes) -> None:
    text = json.dumps(header).encode()
    to.write(_LENGTHS.pack(len(text), len(content)))
    to.write(text)
    to.write(content)
    to.flush()


def _receive(source: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    lengths = _LENGTHS.unpack(_exactly(source, _LENGTHS.size))
    text, content = (_exactly(source, length) for length in lengths)
    return json.loads(text), content


def _exactly(source: IO[bytes], length: int) -> bytes:
    content = source.read(length)
    if len(content) < length:
        raise EOFError
    return content
