"""A process that makes one call after another, on cores of its own, and never outlives the process that started it."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import RLock
from typing import Any

from tqdm import tqdm

from weakray.stack import silence


class DiedError(Exception):
    """The process ended before it answered.

    Attributes:
        code: its exit code; -n where signal n ended it.
    """

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Worker:
    """The process. Its parent begins a call, waits until `pipe` can be read from, and takes the result.

    Args:
        row: line of the terminal, from 0, that its progress bars keep to.
        cores: numbers of the cores that it keeps to. All libraries take so many threads, unless told otherwise; where a
            process cannot be kept to cores, only those do that ask `OMP_NUM_THREADS`.
        terminal: held by whoever writes to the terminal; from a context that spawns.
    """

    def __init__(self, row: int, cores: Sequence[int], terminal: RLock) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, terminal))
        with theirs, _inherited(row, cores):
            self._process.start()

    def begin(self, call: Callable[[], Any]) -> None:
        """Has the process make a call, which can be pickled, as its result can.

        Raises:
            DiedError: if the process is no more.
        """
        try:
            self.pipe.send(call)
        except OSError:
            raise self._died() from None

    def result(self) -> Any:
        """Waits for the end of the call; what it gave.

        Raises:
            DiedError: if the process ended over it.
            Exception: what the call raised, with the process's traceback as a note.
        """
        try:
            result, error = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        if error is not None:
            raise error
        return result

    def let_go(self) -> None:
        """Lets the process end by itself, once it has nothing to do."""
        self.pipe.close()

    def end(self, patience_s: float) -> None:
        """Ends the process and whatever it started, by force where it has not ended after so many seconds."""
        wait([self._process.sentinel], patience_s)
        with suppress(ProcessLookupError, PermissionError):  # ended, or so young that it leads no group
            os.killpg(self._pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None  # noqa: S101 - it was started
        return self._process.pid

    def _died(self) -> DiedError:
        self._process.join(10)
        return DiedError(self._process.exitcode)


@contextmanager
def _inherited(row: int, cores: Sequence[int]) -> Iterator[None]:
    """A process started in this block has its cores, threads and row before it imports anything, and hears no Ctrl-C.

    A terminal sends Ctrl-C to all processes; the parent ends the others.
    """
    given = {"OMP_NUM_THREADS": str(len(cores)), "TQDM_POSITION": str(row)}
    before = {name: os.environ.get(name) for name in given}
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.environ.update(given)
        if own is not None:
            os.sched_setaffinity(0, cores)
        yield
    finally:
        if own is not None:
            os.sched_setaffinity(0, own)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(pipe: Connection[Any, Any], terminal: RLock) -> None:
    """Runs in the process: makes calls until the parent closes the pipe."""
    os.setpgid(0, 0)  # whatever it starts can be ended with it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    silence()
    tqdm.set_lock(terminal)
    while True:
        try:
            call = pipe.recv()
        except (EOFError, OSError):  # the latter where the parent let go with an answer unread
            return
        result, error = None, None
        try:
            result = call()
        # Nothing is swallowed: whatever the call raises, and it may be any verb's, ends the run in the parent, where it
        # is raised again; here it would end this process and say no more than an exit code. Ctrl-C and exits pass.
        except Exception as raised:  # noqa: BLE001 - sent to the parent, which raises it
            error = _portable(raised)
        sys.stdout.flush()
        try:
            pipe.send((result, error))
        except OSError:  # the parent let go, and takes no more answers
            return


def _end_with_parent() -> None:
    """Ends this process and all that it started when the parent is no more: nobody would hear of their work."""
    parent = parent_process()
    assert parent is not None  # noqa: S101 - multiprocessing started this process
    parent.join()
    os.killpg(os.getpid(), signal.SIGKILL)


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same where it cannot be pickled; with the traceback as a note."""
    told = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    # Classes of other libraries run their own code here, and raise what they like: a TypeError for an argument that
    # their constructor wants, a PicklingError or AttributeError for a local class. The error itself is never lost: its
    # kind, message and traceback go to the parent in one that can be sent.
    except Exception:  # noqa: BLE001 - whatever comes of pickling what another library raised
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"\nIn the process that made the call:\n{told}")
    return error
