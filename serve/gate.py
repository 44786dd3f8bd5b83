"""The door that every request passes: who may come in, what every answer carries, and what is written down.

Written down are a request's id, its route, its status and its time: never its path, its headers or a word of its body.
"""

from __future__ import annotations

import hmac
import logging
import time
import traceback
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.metrics import Metrics
from serve.refusals import Refusal
from serve.settings import is_loopback

LOG = logging.getLogger("weakray.serve")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_PROTECTED = ("/v1/", "/metrics")
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")


class Gate:
    """ASGI middleware around the whole application.

    Args:
        app: what is behind the door.
        token: the bearer token; None asks for none, and then only requests to this machine by its own name are served.
        metrics: where requests and refusals are counted.
    """

    def __init__(self, app: ASGIApp, token: str | None, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics
        self._token = None if token is None else token.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or says why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, request_id, status = time.perf_counter(), uuid.uuid4().hex, 0
        scope.setdefault("state", {})["request_id"] = request_id

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._stamp(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            refusal = self._judge(scope)
            if refusal is None:
                await self._app(scope, receive, answer)
            else:
                await refused(scope, refusal)(scope, receive, answer)
        # The application has answered, and raises again for the server's log. uvicorn would log the whole traceback,
        # whose message may quote what was sent: so it ends here, and is written down by its kind and its place alone.
        except Exception as error:  # noqa: BLE001 - answered already, and logged below
            place = traceback.extract_tb(error.__traceback__)[-1]
            LOG.error("%s: %s at %s:%s", request_id, type(error).__name__, place.filename, place.lineno)
        reason = scope["state"].get("refused")
        if reason is not None:
            self._metrics.refused.labels(reason).inc()
        seconds = time.perf_counter() - start
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.request_s.labels(route, str(status or 499)).observe(seconds)
        LOG.info("%s: %s %s %s %.1f ms", request_id, scope["method"], route, status or 499, seconds * 1000)

    def _judge(self, scope: Scope) -> Refusal | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and not is_loopback(_without_port(host)):
            # Else a page elsewhere could reach this server through a name that it makes resolve to 127.0.0.1.
            return Refusal(
                "forbidden", "expected the Host 127.0.0.1 or localhost; a server without a token has no other"
            )
        origin = headers.get("origin")
        if scope["method"] in _CHANGING and origin is not None and origin.partition("://")[2] != host:
            return Refusal(
                "forbidden", "expected a request of this server's own page or of no page, got another origin"
            )
        if self._token is not None and scope["path"].startswith(_PROTECTED):
            kind, _, given = headers.get("authorization", "").partition(" ")
            right = hmac.compare_digest(given.strip().encode("utf-8"), self._token)
            if kind.lower() != "bearer" or not right:
                return Refusal(
                    "unauthorized",
                    "expected the header `Authorization: Bearer TOKEN` with this server's token, got another or none",
                    {"WWW-Authenticate": "Bearer"},
                )
        return None

    @staticmethod
    def _stamp(headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-ID"] = request_id
        for name, value in SECURITY_HEADERS.items():
            headers[name] = value
        headers.setdefault("Cache-Control", "no-store")


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def refused(scope: Scope, refusal: Refusal) -> Response:
    """The answer that says why not; the scope keeps the reason, for the figures."""
    scope["state"]["refused"] = refusal.code
    return Response(refusal.body(), refusal.status, refusal.headers, "application/json")
