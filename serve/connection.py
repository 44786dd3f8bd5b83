"""HTTP/1.1 connections with a deadline on each thing a client can be slow at.

uvicorn itself bounds how long a connection may lie idle. Here are added: the time for a request's head, for the rest
of a body that nobody reads any more, and for an answer that is not fetched. The time for a body that is read stands in
`serve.uploads`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.settings import LoadConfig

_PROGRESS_BYTES = 16 * 1024


def protocol_of(load: LoadConfig) -> type[H11Protocol]:
    """The protocol class with these limits in it; uvicorn makes one for each connection."""

    class Bounded(BoundedConnection):
        limits = load

    return Bounded


class BoundedConnection(H11Protocol):
    """A connection that is closed when its client is too slow. Made by uvicorn; see `protocol_of`."""

    limits: LoadConfig
    _deadline: asyncio.TimerHandle | None = None
    _fetching: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Takes a connection, or hangs up where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Reads on; a head that began must end in time."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """Goes on to the next request, or waits a while for the rest of a body that was refused."""
        super().on_response_complete()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the deadlines."""
        self._stop(self._deadline)
        self._stop(self._fetching)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client does not fetch its answer as fast as it is written."""
        super().pause_writing()
        self._watch_fetching(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._stop(self._fetching)
        self._fetching = None

    def _watch_head(self) -> None:
        """A head is due where the client has begun one, or has said nothing since it came.

        So is the rest of a body whose request has been answered, refused before it was all there.
        """
        state = self.conn.their_state
        head = state is h11.IDLE and self.timeout_keep_alive_task is None
        unread = state is h11.SEND_BODY and self.cycle is not None and self.cycle.response_complete
        if not head and not unread:
            self._stop(self._deadline)
            self._deadline = None
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.limits.header_timeout_s, self.transport.abort)

    def _watch_fetching(self, left: int) -> None:
        self._stop(self._fetching)
        self._fetching = self.loop.call_later(self.limits.write_timeout_s, self._check_fetching, left)

    def _check_fetching(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if before - left < _PROGRESS_BYTES:
            self.transport.abort()
        else:
            self._watch_fetching(left)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
