"""Who is let in: so many requests and so many bytes at once, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve.refusals import Refusal
from serve.settings import LoadConfig

_LONGEST_WAIT_S = 30


class Admission:
    """Counts what is held. Used from the event loop alone.

    Args:
        load: how much may be held.
        wait_s: how long an image that came now would wait, for `Retry-After`.
    """

    def __init__(self, load: LoadConfig, wait_s: Callable[[], float]) -> None:
        self._load, self._wait_s = load, wait_s
        self.requests = 0
        self.held_bytes = 0

    @contextmanager
    def admit(self) -> Iterator[Claim]:
        """Holds a place for the block.

        Raises:
            Refusal: if all places are taken.
        """
        if self.requests >= self._load.requests:
            raise self.busy(f"{self.requests} requests are being answered")
        claim = Claim(self, self._load.held_bytes)
        self.requests += 1
        try:
            yield claim
        finally:
            self.requests -= 1
            claim.release()

    def busy(self, why: str) -> Refusal:
        """The answer to who must come back."""
        seconds = min(_LONGEST_WAIT_S, max(1, math.ceil(self._wait_s())))
        return Refusal("busy", f"{why}; try again in {seconds} s", {"Retry-After": str(seconds)})


class Claim:
    """The bytes that one request holds."""

    def __init__(self, admission: Admission, most_bytes: int) -> None:
        self._admission, self._most = admission, most_bytes
        self._bytes = 0

    def add(self, count: int) -> None:
        """Holds further bytes.

        Raises:
            Refusal: if all requests together would hold too many.
        """
        if self._admission.held_bytes + count > self._most:
            raise self._admission.busy("the images of other requests fill the memory set aside for them")
        self._bytes += count
        self._admission.held_bytes += count

    def release(self) -> None:
        """Holds nothing any more."""
        self._admission.held_bytes -= self._bytes
        self._bytes = 0
