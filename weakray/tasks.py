"""Tasks that need one another's work, some of them at the same time."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from multiprocessing.synchronize import RLock
from typing import Any

from weakray.cores import core_shares, usable_cores
from weakray.errors import RunError
from weakray.worker import DiedError, Worker

_PATIENCE_S = 10.0  # for processes that have nothing left to do


@dataclass(frozen=True)
class Task:
    """A call, and what must be done before it.

    Attributes:
        name: unlike any other's.
        call: can be pickled, as its result can.
        after: names of the tasks that must have ended.
    """

    name: str
    call: Callable[[], Any]
    after: frozenset[str] = frozenset()


def run_tasks(
    tasks: Sequence[Task], at_once: int, begin: Callable[[str], None], end: Callable[[str], None]
) -> dict[str, Any]:
    """Runs each task as soon as those that it waits for have ended, the first named first.

    With `at_once` 1, or a single core, all run here, one after the other. Else they run in other processes, each on its
    share of the cores; but a task that no other can run beside runs here, on all of them. So the number of a task's
    cores depends on the tasks, never on how long they took. The first error ends all.

    Args:
        tasks: each after those that it waits for.
        at_once: how many may run at the same time; no more do than there are cores.
        begin: is called here, with the task's name, before a task begins.
        end: likewise, after it ended well.

    Returns:
        Name → result.

    Raises:
        ValueError: if a task waits for one that does not stand before it, or two have one name.
        RunError: if a process dies over a task.
        Exception: what a task raised.
    """
    needed = _needed(tasks)
    count = min(at_once, usable_cores())
    if count > 1:
        return _beside_one_another(tasks, _alone(needed), core_shares(count), begin, end)
    results = dict[str, Any]()
    for task in tasks:
        _run_here(task, results, begin, end)
    return results


def _run_here(task: Task, results: dict[str, Any], begin: Callable[[str], None], end: Callable[[str], None]) -> None:
    begin(task.name)
    results[task.name] = task.call()
    end(task.name)


def _needed(tasks: Sequence[Task]) -> dict[str, frozenset[str]]:
    """Name → names of all the tasks that must have ended before."""
    needed = dict[str, frozenset[str]]()
    for task in tasks:
        unknown = sorted(task.after - needed.keys())
        if unknown or task.name in needed:
            raise ValueError(f"{task.name}: expected a new name, and to wait for earlier tasks; not for {unknown}")
        needed[task.name] = task.after.union(*(needed[name] for name in task.after))
    return needed


def _alone(needed: dict[str, frozenset[str]]) -> set[str]:
    """Names of the tasks beside which no other can run: each other one must end before it begins, or wait for it."""
    return {
        name
        for name, own in needed.items()
        if all(other in own or name in theirs for other, theirs in needed.items() if other != name)
    }


def _beside_one_another(
    tasks: Sequence[Task],
    alone: Collection[str],
    shares: Sequence[Sequence[int]],
    begin: Callable[[str], None],
    end: Callable[[str], None],
) -> dict[str, Any]:
    terminal = get_context("spawn").RLock()
    begin, end = (_where_bars_are(tell, terminal) for tell in (begin, end))
    results, waiting = dict[str, Any](), list(tasks)
    idle, busy = list[Worker](), dict[Worker, Task]()
    patience_s = 0.0
    try:
        while len(results) < len(tasks):
            for task in [task for task in waiting if task.after <= results.keys()]:
                if task.name in alone:
                    waiting.remove(task)
                    _run_here(task, results, begin, end)
                elif len(busy) < len(shares):
                    waiting.remove(task)
                    begin(task.name)
                    worker = idle.pop(0) if idle else Worker(len(busy), shares[len(busy)], terminal)
                    busy[worker] = task
                    with _deaths_told(task):
                        worker.begin(task.call)
            for worker in _with_answers(busy):
                with _deaths_told(busy[worker]):
                    result = worker.result()
                task = busy.pop(worker)
                idle.append(worker)
                results[task.name] = result
                end(task.name)
        patience_s = _PATIENCE_S
    finally:
        for worker in (*idle, *busy):
            worker.let_go()
        for worker in (*idle, *busy):
            worker.end(patience_s)
        _clear_bars()
    return results


def _with_answers(busy: Collection[Worker]) -> list[Worker]:
    """Waits until some of the workers have answered, or died; without any, not at all."""
    ready = wait([worker.pipe for worker in busy]) if busy else []
    return [worker for worker in busy if worker.pipe in ready]


@contextmanager
def _deaths_told(task: Task) -> Iterator[None]:
    try:
        yield
    except DiedError as died:
        code = died.code or 0
        why = f" ({signal.Signals(-code).name}: killed, perhaps for want of memory)" if code < 0 else ", as said above"
        raise RunError(
            f"{task.name}: its process ended with code {code}{why}; run the same again to go on where it stopped"
        ) from None


def _where_bars_are(tell: Callable[[str], None], terminal: RLock) -> Callable[[str], None]:
    """Has something told that may be printed where other processes draw progress bars, which they draw anew below."""

    def told(name: str) -> None:
        held = terminal.acquire(timeout=1)  # a process that was killed while it drew never lets go
        try:
            _clear_bars()
            tell(name)
        finally:
            if held:
                terminal.release()

    return told


def _clear_bars() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[J", end="", file=sys.stderr, flush=True)  # from the start of the line to the end of the screen
