"""`weakray serve BUNDLE`: the bundle behind HTTP, with a page, until it is told to stop.

SIGTERM or SIGINT: no further connection is taken, what was taken is answered, then the process ends with 0; told twice,
it ends at once, with 1. SIGHUP: the bundle is read again from its path: `ln -sfn NEW BUNDLE && kill -HUP PID` exchanges
it without a lost request; what does not load is refused, and the bundle before goes on answering.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import cv2
import uvicorn

from serve.app import create_app
from serve.connection import protocol_of
from serve.gate import LOG
from serve.service import Service
from serve.settings import ServeConfig
from weakray.config import StrictModel
from weakray.errors import RunError, WeakrayError


class ServeResult(StrictModel):
    """What was done until the server was told to stop."""

    requests: int
    seconds: float


def run(config: ServeConfig) -> ServeResult:
    """Serves until a signal says stop.

    Raises:
        WeakrayError: if the bundle, the token or the examples are not what they should be, or the port is taken.
    """
    _quiet()
    start = time.monotonic()
    service = Service(config)
    server = Server(service)
    asyncio.run(server.serve())
    if not server.started:
        raise RunError(f"port: could not listen on {config.host}:{config.port}; is another server running there?")
    return ServeResult(requests=server.server_state.total_requests, seconds=round(time.monotonic() - start, 3))


class Server(uvicorn.Server):
    """uvicorn with our signals and connections."""

    def __init__(self, service: Service) -> None:
        load, config = service.config.load, service.config
        super().__init__(
            uvicorn.Config(
                create_app(service),
                host=config.host,
                port=config.port,
                loop="asyncio",
                http=protocol_of(load),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=load.idle_timeout_s,
                timeout_graceful_shutdown=load.shutdown_timeout_s,
                h11_max_incomplete_event_size=16 * 1024,
            )
        )
        self._service = service

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Stops on SIGINT and SIGTERM, reads the bundle again on SIGHUP; ends without raising the signal again."""
        loop = asyncio.get_running_loop()
        actions = {signal.SIGINT: self._stop, signal.SIGTERM: self._stop, signal.SIGHUP: self._reload}
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        try:
            yield
        finally:
            for number in actions:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Opens the port, and says where."""
        try:
            await super().startup(sockets)
        except SystemExit:  # the port is taken: uvicorn has closed the application
            self.should_exit = True
            return
        for listener in self.servers[0].sockets:
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            LOG.info("serving %s on http://%s:%s", self._service.config.bundle, shown, port)

    def _stop(self) -> None:
        if self.should_exit:
            LOG.warning("told twice to stop: ending at once")
            os._exit(1)  # a decoder that hangs must not hold the process; there is nothing on disk to leave half done
        self.should_exit = self._service.stopping = True

    def _reload(self) -> None:
        def done(task: asyncio.Task[bool]) -> None:
            error = task.exception()
            if error is None:
                LOG.info("bundle %s", "exchanged" if task.result() else "read again, the same")
            elif isinstance(error, WeakrayError):
                LOG.error("bundle not exchanged, the one before goes on answering: %s", error)
            else:
                LOG.error("bundle not exchanged, the one before goes on answering: %r", error)

        task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._service.reload))
        task.add_done_callback(done)
        self._reloading = task  # the loop itself holds tasks weakly


def _quiet() -> None:
    """Our own lines go to stderr; the decoders' warnings, which quote header values, go nowhere."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    LOG.setLevel(logging.INFO)
    cv2.utils.logging.setLogLevel(0)  # OpenCV's own remarks on broken files
    for name in ("pydicom", "pylibjpeg", "openjpeg", "highdicom", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
