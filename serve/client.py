"""A small client: films in, typed answers out.

with Client("http://127.0.0.1:8080") as client:
told = client.predict([Path("film.png")], maps=True)
print(told.study.findings[0].probability)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from pydantic import ValidationError

from serve.answers import Answer, Examples, Models, Predicted, Refused, Truth
from serve.uploads import FIELD
from weakray.errors import DataError, WeakrayError

_Told = TypeVar("_Told", bound=Answer)


class ServerRefusedError(WeakrayError):
    """The server answered, and said no.

    Args:
        status: HTTP status.
        code: the refusal's word, e.g. `too_large`.
        message: the server's own.
        retry_after_s: when it asks to come back; None where it does not.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


class Client:
    """Talks to one server. Not for several threads at once.

    Args:
        url: where it listens.
        token: its bearer token, where it asks for one.
        timeout_s: for each answer.
        patience_s: how long a busy server is asked again, each time after as long as it says; None: not at all.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout_s: float = 90, patience_s: float | None = 60
    ) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        # Films go where the address says, never through a proxy that the environment names.
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False)
        self._patience_s = patience_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self._http.close()

    def predict(self, films: Sequence[Path | bytes], *, maps: bool = False, film: bool = False) -> Predicted:
        """What the server says of a study.

        Args:
            films: its images, as files or their bytes.
            maps: whether each finding's map is asked for.
            film: whether the decoded films are asked for.

        Raises:
            DataError: if a file cannot be read.
            ServerRefusedError: if the server says no, or stays busy.
            WeakrayError: if it cannot be reached, or answers with something else.
        """
        content = [one if isinstance(one, bytes) else _content(one) for one in films]
        include = [name for name, wanted in (("maps", maps), ("film", film)) if wanted]
        files = [(FIELD, (FIELD, one, "application/octet-stream")) for one in content]  # no file's name leaves here
        return self._ask(Predicted, "POST", "/v1/predict", params={"include": include}, files=files)

    def models(self) -> Models:
        """Which bundle answers."""
        return self._ask(Models, "GET", "/v1/models")

    def examples(self) -> Examples:
        """The films that the server offers."""
        return self._ask(Examples, "GET", "/v1/examples")

    def example(self, example_id: str) -> bytes:
        """An example's file."""
        return self._answer("GET", f"/v1/examples/{example_id}").content

    def truth(self, example_id: str) -> Truth:
        """An example's true boxes."""
        return self._ask(Truth, "GET", f"/v1/examples/{example_id}/truth")

    def ready(self) -> bool:
        """Whether the server is there and takes films."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _ask(self, kind: type[_Told], method: str, path: str, **more: Any) -> _Told:
        answer = self._answer(method, path, **more)
        try:
            return kind.model_validate_json(answer.content)
        except ValidationError as error:
            raise WeakrayError(
                f"{answer.request.url}: expected {kind.__name__}, got something else ({error.error_count()} faults); "
                "is it a weakray server of this version?"
            ) from None

    def _answer(self, method: str, path: str, **more: Any) -> httpx.Response:
        until = time.monotonic() + (self._patience_s or 0)
        while True:
            try:
                answer = self._http.request(method, path, **more)
            except httpx.TransportError as error:
                raise WeakrayError(f"{self._http.base_url}: no answer ({error!r}); does the server run?") from None
            if answer.is_success:
                return answer
            refusal = _refusal(answer)
            wait = refusal.retry_after_s
            if refusal.status != httpx.codes.TOO_MANY_REQUESTS or wait is None or time.monotonic() + wait > until:
                raise refusal
            time.sleep(wait)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected an image file, got {error.strerror or error}") from None


def _refusal(answer: httpx.Response) -> ServerRefusedError:
    try:
        fault = Refused.model_validate_json(answer.content).error
        code, message = fault.code, fault.message
    except ValidationError:
        code, message = "unknown", "the answer is not weakray's"
    wait = answer.headers.get("retry-after", "")
    return ServerRefusedError(answer.status_code, code, message, float(wait) if wait.isdecimal() else None)
