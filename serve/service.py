"""What stands behind the routes: films in, answers out, and everything in between counted and bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from serve.admission import Admission
from serve.answering import FilmFacts, image_of, study_of
from serve.answers import Predicted, Timings
from serve.batching import Batcher, Outcome
from serve.engine import Engine, Loaded
from serve.examples import load_examples
from serve.films import film_limits, read_film
from serve.metrics import Metrics
from serve.page_files import load_page
from serve.refusals import Refusal
from serve.reporting import ReportForm, reportable, written
from serve.settings import ServeConfig, read_token
from serve.uploads import Upload
from weakray.bundle.runtime import Prepared
from weakray.dicom.reading import pydicom_module
from weakray.errors import DataError
from weakray.limits import FilmLimits

Ready = TypeVar("Ready")


@dataclass(frozen=True, eq=False)
class _Ready:
    """A film that waits for the graphs, and the seconds spent on it."""

    facts: FilmFacts
    prepared: Prepared
    decode_s: float
    prepare_s: float
    encode_s: float


class Service:
    """Everything a server holds while it runs.

    Args:
        config: its settings.

    Raises:
        WeakrayError: if the bundle, the examples or the token are not what they should be.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.token = read_token(config)
        self.examples = load_examples(config.examples)
        self.page = load_page()
        self.engine = Engine(config.bundle, config.threads, config.engine, config.load.batch_images)
        self.stopping = False
        self.metrics = Metrics(lambda: len(self.batcher), lambda: self.admission.requests)
        self.batcher = Batcher(config.load.batch_images, self.metrics.batch)
        self.admission = Admission(config.load, lambda: self.batcher.wait_s)
        self.metrics.speaks(self.engine.current.sha256)
        self._decoders = ThreadPoolExecutor(config.load.decode_threads, "decode")
        self._encoders = ThreadPoolExecutor(1, "encode")

    @staticmethod
    def warm() -> None:
        """Imports what reading DICOM needs, so that the first such film does not wait for it."""
        with suppress(DataError):  # not installed: who sends one is told
            pydicom_module()

    def close(self) -> None:
        """Ends the threads after what was taken is done."""
        self._decoders.shutdown()
        self.batcher.close()
        self._encoders.shutdown()

    def reload(self) -> bool:
        """Reads the bundle again; see `Engine.reload`."""
        try:
            changed = self.engine.reload()
        # Whatever was wrong with the new bundle, it is counted as a refused reload and raised as it was.
        except Exception:
            self.metrics.reloads.labels("refused").inc()
            raise
        self.metrics.reloads.labels("changed" if changed else "same").inc()
        self.metrics.speaks(self.engine.current.sha256)
        return changed

    async def predict(self, uploads: Sequence[Upload], include: Collection[str], request_id: str) -> bytes:
        """The answer to a request, as JSON.

        Args:
            uploads: the study's images; their bytes are let go once they are decoded.
            include: what is asked for besides: `maps`, `film`.
            request_id: the request's name.

        Raises:
            Refusal: if an image cannot be read, or the answer takes too long.
        """
        came_s, loaded = time.perf_counter(), self.engine.current
        with_film, with_maps = "film" in include, "maps" in include
        async with self._in_time():
            ready = await self._decoded(loaded, uploads, partial(_make_ready, with_film=with_film))
            outcomes = await self._outcomes(loaded, [one.prepared for one in ready], with_maps=with_maps)
            told = partial(self._told, loaded, ready, outcomes, request_id, came_s, with_maps=with_maps)
            return await self._encoded(told) if with_maps else told()

    async def report(self, uploads: Sequence[Upload], form: ReportForm) -> bytes:
        """What is found on one DICOM film, as a DICOM file.

        Args:
            uploads: the film, alone.
            form: a structured report, or a picture.

        Raises:
            Refusal: if it is not one DICOM film that a report can speak of, or the answer takes too long.
        """
        if len(uploads) != 1:
            raise Refusal("invalid", f"expected one film, for a report speaks of one, got {len(uploads)}")
        loaded = self.engine.current
        async with self._in_time():
            (film,) = await self._decoded(loaded, uploads, partial(reportable, with_image=form == "picture"))
            (outcome,) = await self._outcomes(loaded, [film.prepared], with_maps=False)
            return await self._encoded(partial(written, loaded, film, outcome.prediction))

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        limit_s = self.config.load.answer_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            again = {"Retry-After": "5"}
            raise Refusal("unavailable", f"no answer within {limit_s:g} s; try again later", again) from None

    async def _outcomes(self, loaded: Loaded, prepared: Sequence[Prepared], *, with_maps: bool) -> list[Outcome]:
        waiting = [self.batcher.submit(loaded, one, with_maps=with_maps) for one in prepared]
        return await asyncio.gather(*map(asyncio.wrap_future, waiting))

    async def _encoded(self, made: Callable[[], bytes]) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(self._encoders, made)

    async def _decoded(
        self, loaded: Loaded, uploads: Sequence[Upload], decode: Callable[[Loaded, Upload, int, FilmLimits], Ready]
    ) -> list[Ready]:
        loop, limits = asyncio.get_running_loop(), film_limits(self.config.limits)
        each = [
            loop.run_in_executor(self._decoders, decode, loaded, upload, index, limits)
            for index, upload in enumerate(uploads)
        ]
        return await asyncio.gather(*each)

    def _told(
        self,
        loaded: Loaded,
        ready: Sequence[_Ready],
        outcomes: Sequence[Outcome],
        request_id: str,
        came_s: float,
        *,
        with_maps: bool,
    ) -> bytes:
        start = time.perf_counter()
        predictions = [one.prediction if with_maps else one.prediction.without_maps() for one in outcomes]
        images = [
            image_of(loaded, index, one.facts, prediction)
            for index, (one, prediction) in enumerate(zip(ready, predictions, strict=True))
        ]
        study = study_of(loaded, predictions)
        end = time.perf_counter()
        timings = Timings(
            queue=_ms(max(one.queue_s for one in outcomes)),
            decode=_ms(max(one.decode_s for one in ready)),
            prepare=_ms(max(one.prepare_s for one in ready)),
            predict=_ms(max(one.predict_s for one in outcomes)),
            encode=_ms(max(one.encode_s for one in ready) + end - start),
            total=_ms(end - came_s),
        )
        self.metrics.answered(images, timings)
        answer = Predicted(request_id=request_id, bundle=loaded.name, study=study, images=images, timings_ms=timings)
        return answer.model_dump_json().encode()


def _make_ready(loaded: Loaded, upload: Upload, index: int, limits: FilmLimits, *, with_film: bool) -> _Ready:
    """Decodes an upload and lets go of all but what is needed: large films live in a decoding thread alone."""
    start = time.perf_counter()
    film = read_film(upload, index, limits)
    upload.content = bytearray()
    decoded = time.perf_counter()
    prepared = loaded.bundle.prepare(film.image)
    made = time.perf_counter()
    facts = FilmFacts.of(film, with_png=with_film)
    return _Ready(facts, prepared, decoded - start, made - decoded, time.perf_counter() - made)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
