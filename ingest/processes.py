"""Work in several processes, in order, that outlives one which dies: decoders in C may crash on a damaged file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 8  # items a process that are handed out before the first of them is asked for


def in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, on_crash: Callable[[Item], Result]
) -> Iterator[Result]:
    """The results in the order of the items, the same for any number of workers.

    Args:
        function: of a module, so that other processes find it.
        items: that can be pickled.
        workers: processes; 1 works in this one, which then has nobody to outlive it.
        on_crash: what stands for the result of an item whose process died, twice: the second time alone.
    """
    if workers == 1:
        yield from map(function, items)
        return
    pool = _pool(workers, function)
    waiting: deque[tuple[Item, Future[Result] | None]] = deque()
    coming = iter(items)
    try:
        while True:
            while len(waiting) < _AHEAD * workers:
                try:
                    item = next(coming)
                except StopIteration:
                    break
                waiting.append((item, _submit(pool, function, item)))
            if not waiting:
                return
            item, future = waiting.popleft()
            result = _result(future)
            if result is None:  # the pool died; whose fault it was only a process of its own can tell
                pool.shutdown()
                for each, other in [(item, future), *waiting]:
                    done = _result(other)
                    yield done[0] if done else _alone(function, each, on_crash)
                waiting.clear()
                pool = _pool(workers, function)
            else:
                yield result[0]
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int, function: Callable[[Item], Result]) -> ProcessPoolExecutor:
    """Processes forked off one that has imported what the function needs, and has no threads whose locks they copy."""
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    return ProcessPoolExecutor(workers, context)


def _submit(pool: ProcessPoolExecutor, function: Callable[[Item], Result], item: Item) -> Future[Result] | None:
    try:
        return pool.submit(function, item)
    except BrokenProcessPool:
        return None


def _result(future: Future[Result] | None) -> tuple[Result] | None:
    """The result in a tuple; None where the process died."""
    try:
        return None if future is None else (future.result(),)
    except BrokenProcessPool:
        return None


def _alone(function: Callable[[Item], Result], item: Item, on_crash: Callable[[Item], Result]) -> Result:
    with _pool(1, function) as pool:
        result = _result(_submit(pool, function, item))
    return on_crash(item) if result is None else result[0]
