"""A request that is not served, and the answer that says why."""

from __future__ import annotations

from collections.abc import Mapping

from serve.answers import Fault, Refused

STATUS: dict[str, int] = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "unsupported_type": 415,
    "invalid": 422,
    "unreadable": 422,
    "busy": 429,
    "gone": 499,  # no answer at all: a word for the figures
    "internal": 500,
    "unavailable": 503,
}


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """Ends a request with a reason.

    Args:
        code: one of `STATUS`.
        message: what was expected, what came, how to mend it; nothing out of the image or its header.
        headers: to send along.
    """

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status."""
        return STATUS[self.code]

    def body(self) -> bytes:
        """The answer's body, JSON."""
        return Refused(error=Fault(code=self.code, message=self.message)).model_dump_json().encode()


GONE = Refusal("gone", "the client left before its answer")
UNKNOWN = Refusal("internal", "the server failed; its log names the request by its X-Request-ID")
