"""What does HTTP cost, how long is the tail under load, and how soon is the server ready?

`python -m bench.serve [--bundle DIR]` starts `weakray serve` on a free port of this machine, all cores, and asks it for
films as `ingest phantom` makes them. Rows:

- `predict/N-images/vs-limit`: median time of decoding, preparing and the same graphs called in one process without
  HTTP, over that of a request, measured in turn.
- `tail/70-percent-even/vs-limit`: 99th percentile over median of requests that come evenly spaced, at 70 % of the
  requests a second that eight clients get; at most 3.
- `tail/70-percent-random/vs-limit`: the same of requests that come at random (Poisson); at most 3.
- `tail/70-percent-random/vs-queue`: that beside a queue on paper, with a server a core that takes exactly as long for
  every request (M/D/c): what chance arrivals alone do to whoever answers in order. Above 1 is better than it.
- `ready/process/vs-limit`: from starting the process to the first answer of `/readyz`; at most 3 s.
- `memory/200-clients/vs-limit`: resident memory under 200 clients over that under 10; at most 1.15.

`--quick` measures the same more briefly.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import heapq
import itertools
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import numpy as np

from bench.printing import Row, answer, at_most
from ingest.phantom.command import PhantomConfig
from ingest.phantom.command import run as make_phantom
from weakray.bundle.manifest import verify
from weakray.bundle.runtime import Bundle
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.film import read_film
from weakray.stack import silence

BUNDLE = Path("runs/phantom/export/bundle/bundle")
LOAD = 0.7  # of what it can
TAIL = 3.0


@dataclass(frozen=True)
class Work:
    """How much is measured."""

    turns: int
    asked: int  # requests of a turn
    load_s: float
    starts: int


QUICK = Work(turns=3, asked=5, load_s=5, starts=2)
WHOLE = Work(turns=9, asked=20, load_s=45, starts=5)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same, more briefly")
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="bundle folder")
    given = parser.parse_args()
    silence()
    verify(given.bundle)
    work = QUICK if given.quick else WHOLE
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        films = _films(Path(temporary))
        rows = [_ready(given.bundle, work)]
        with _server(given.bundle) as (url, _):
            rows += [_predict(url, given.bundle, films, count, work) for count in (1, 4)]
            rows += asyncio.run(_tails(url, films, work))
        rows.append(_memory(given.bundle, films, work))
    answer("serve", rows)


def _films(folder: Path) -> list[bytes]:
    config = {"seed": 0, "train": 16, "val": 1, "tune": 1, "test": 1, "out": folder / "films"}
    make_phantom(validate(PhantomConfig, config))
    dataset = Dataset.load(folder / "films")
    return [dataset.path_of(image_id).read_bytes() for image_id in dataset.ids_of("train")]


@contextlib.contextmanager
def _server(bundle: Path) -> Iterator[tuple[str, int]]:
    """A running server's address and process id."""
    command = [sys.executable, "-m", "weakray.cli", "serve", str(bundle), "--port", "0"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as log,
        subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL) as process,
    ):
        try:
            yield _address(process, log), process.pid
        finally:
            process.terminate()


def _address(process: subprocess.Popen[bytes], log: IO[str]) -> str:
    """Where it listens, as its log says."""
    while process.poll() is None:
        log.seek(0)
        if found := re.search(r"serving .* on (http://\S+)", log.read()):
            return found[1]
        time.sleep(0.005)
    log.seek(0)
    raise SystemExit(f"the server did not start: {log.read()}")


def _ready(bundle: Path, work: Work) -> Row:
    times: list[float] = []
    for _ in range(work.starts):
        start = time.perf_counter()
        with _server(bundle) as (url, _), httpx.Client(base_url=url, trust_env=False) as client:
            client.get("/readyz").raise_for_status()
            times.append(time.perf_counter() - start)
    return at_most("ready/process", statistics.median(times), 3.0, "s", (min(times), max(times)))


def _predict(url: str, bundle_folder: Path, films: Sequence[bytes], count: int, work: Work) -> Row:
    bundle = Bundle.load(bundle_folder)
    studies = [[films[(i + j) % len(films)] for j in range(count)] for i in range(len(films))]

    def in_process(study: Sequence[bytes]) -> None:
        bundle.predict([read_film(film).image for film in study])

    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:

        def served(study: Sequence[bytes]) -> None:
            client.post("/v1/predict", files=[("image", film) for film in study]).raise_for_status()

        ours, limits = list[float](), list[float]()
        for turn in range(work.turns + 1):
            for call, times in ((in_process, limits), (served, ours)):
                each: list[float] = []
                for i in range(work.asked):
                    start = time.perf_counter()
                    call(studies[i % len(studies)])
                    each.append(time.perf_counter() - start)
                if turn:  # the first warms up
                    times.append(1000 * statistics.median(each))
    ratios = [limit / own for own, limit in zip(ours, limits, strict=True)]
    own, limit = statistics.median(ours), statistics.median(limits)
    name = f"predict/{count}-image{'s' if count > 1 else ''}/vs-limit"
    return Row(name, own, limit, "ms", limit / own, min(ratios), max(ratios), len(ratios))


async def _tails(url: str, films: Sequence[bytes], work: Work) -> list[Row]:
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, limits=httpx.Limits()) as client:
        rate = LOAD * await _capacity(client, films, work.load_s / 3)
        draw = random.Random(0)  # noqa: S311 - arrivals, not secrets
        even = await _tail(client, films, work.load_s, lambda: 1 / rate)
        at_random = await _tail(client, films, work.load_s, lambda: draw.expovariate(rate))
    print(f"{rate:.1f} requests a second", file=sys.stderr)
    queue = _queue_tail(len(os.sched_getaffinity(0)))
    ratio = queue / at_random
    return [
        at_most("tail/70-percent-even", even, TAIL, "p99 over p50"),
        at_most("tail/70-percent-random", at_random, TAIL, "p99 over p50"),
        Row("tail/70-percent-random/vs-queue", at_random, queue, "p99 over p50", ratio, ratio, ratio, 1),
    ]


async def _asked(client: httpx.AsyncClient, film: bytes) -> float:
    """Seconds that a request took."""
    start = time.perf_counter()
    (await client.post("/v1/predict", files={"image": film})).raise_for_status()
    return time.perf_counter() - start


async def _capacity(client: httpx.AsyncClient, films: Sequence[bytes], seconds: float) -> float:
    """Requests a second of eight clients that go on without a pause."""
    start = time.perf_counter()

    async def again_and_again(first: int) -> int:
        for i in itertools.count(first):
            if time.perf_counter() > start + seconds:
                return i - first
            await _asked(client, films[i % len(films)])
        raise AssertionError

    answered = sum(await asyncio.gather(*map(again_and_again, range(8))))
    return answered / (time.perf_counter() - start)


async def _tail(
    client: httpx.AsyncClient, films: Sequence[bytes], seconds: float, apart_s: Callable[[], float]
) -> float:
    """99th percentile over median of requests that do not wait for each other."""
    asked = list[asyncio.Task[float]]()
    coming = time.perf_counter()
    until = coming + seconds
    while coming < until:
        asked.append(asyncio.create_task(_asked(client, films[len(asked) % len(films)])))
        coming += apart_s()
        await asyncio.sleep(max(0, coming - time.perf_counter()))
    times = await asyncio.gather(*asked)
    return float(np.percentile(times, 99)) / statistics.median(times)


def _queue_tail(servers: int, arrivals: int = 200_000) -> float:
    """99th percentile over median of the time in an M/D/c queue at the same load, by simulation."""
    came = np.cumsum(np.random.default_rng(0).exponential(1 / (LOAD * servers), arrivals))
    free, taken = [0.0] * servers, np.empty(arrivals)
    for i, at in enumerate(came.tolist()):
        ends = max(at, heapq.heappop(free)) + 1
        heapq.heappush(free, ends)
        taken[i] = ends - at
    return float(np.percentile(taken, 99) / np.median(taken))


def _memory(bundle: Path, films: Sequence[bytes], work: Work) -> Row:
    resident: list[int] = []
    with _server(bundle) as (url, pid):
        for clients in (10, 200):
            asyncio.run(_press(url, films, clients, work.load_s))
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            resident.append(int(status.partition("VmRSS:")[2].split()[0]) // 1024)
    print(f"resident MiB after 10 and 200 clients: {resident}", file=sys.stderr)
    return at_most("memory/200-clients", resident[1] / resident[0], 1.15, "of that under 10 clients")


async def _press(url: str, films: Sequence[bytes], clients: int, seconds: float) -> None:
    until = time.perf_counter() + seconds

    async def one(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60, verify=False) as client:  # noqa: S501 - no TLS here
            while time.perf_counter() < until:
                answered = await client.post("/v1/predict", files={"image": films[number % len(films)]})
                if answered.status_code == httpx.codes.TOO_MANY_REQUESTS:
                    await asyncio.sleep(float(answered.headers["Retry-After"]))
                else:
                    answered.raise_for_status()

    await asyncio.gather(*map(one, range(clients)))


if __name__ == "__main__":
    main()
