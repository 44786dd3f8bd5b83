"""One thread that runs the graphs: what comes while it works makes up its next batch.

An idle server starts on an image at once; nothing waits for company.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from serve.engine import Loaded
from weakray.bundle.runtime import Prediction, Prepared


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the graphs say of one image, and the time it took, seconds."""

    prediction: Prediction
    queue_s: float
    predict_s: float


@dataclass(frozen=True, eq=False)
class _Job:
    loaded: Loaded
    prepared: Prepared
    with_maps: bool
    came_s: float = field(default_factory=time.perf_counter)
    future: Future[Outcome] = field(default_factory=Future)


class Batcher:
    """Gathers images of all requests into passes through the graphs.

    Args:
        most: images of one pass at most.
        on_batch: told the images and the seconds of each pass.
    """

    def __init__(self, most: int, on_batch: Callable[[int, float], None]) -> None:
        self._most, self._on_batch = most, on_batch
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._image_s = 0.1  # a running mean: how long one image takes
        self._thread = threading.Thread(target=self._work, name="graphs", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """Images that wait."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether images are still taken."""
        return self._thread.is_alive() and not self._closing

    @property
    def wait_s(self) -> float:
        """How long an image that came now would wait, about."""
        return (len(self._jobs) + 1) * self._image_s

    def submit(self, loaded: Loaded, prepared: Prepared, *, with_maps: bool) -> Future[Outcome]:
        """Takes an image; its future may be cancelled until its pass begins."""
        job = _Job(loaded, prepared, with_maps)
        with self._changed:
            if self._closing:
                raise RuntimeError("the batcher is closed; nothing may be submitted any more")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Ends the thread after what was taken is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next():
            running = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if running:
                self._run(running)

    def _next(self) -> list[_Job]:
        """The jobs of the next pass, all of one bundle; empty when there will be none."""
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            batch: list[_Job] = []
            while self._jobs and len(batch) < self._most and (not batch or self._jobs[0].loaded is batch[0].loaded):
                batch.append(self._jobs.popleft())
            return batch

    def _run(self, batch: list[_Job]) -> None:
        start = time.perf_counter()
        try:
            found = batch[0].loaded.bundle.predict_prepared(
                [job.prepared for job in batch], with_maps=any(job.with_maps for job in batch)
            )
        # This is the only thread that runs graphs. Were it to end by any error, every later request would wait for its
        # time-out; so the requests of this pass are given the error, which is raised in them, and the thread goes on.
        except Exception as error:  # noqa: BLE001 - handed to the requests that wait for it
            for job in batch:
                job.future.set_exception(error)
            return
        taken = time.perf_counter() - start
        self._image_s += 0.2 * (taken / len(batch) - self._image_s)
        self._on_batch(len(batch), taken)
        for job, prediction in zip(batch, found, strict=True):
            job.future.set_result(Outcome(prediction, start - job.came_s, taken))
