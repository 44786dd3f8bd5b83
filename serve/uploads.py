"""The images of a multipart body, kept in memory: nothing that is sent ever touches a disk.

Starlette's own form parser writes parts above a megabyte to temporary files; this one does not, and counts bytes as
they come, so that a body which is too large is refused at its first byte too many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from serve.refusals import Refusal
from serve.settings import LimitConfig

FIELD = "image"
PART_TYPES = ("image/png", "image/jpeg", "application/dicom", "application/octet-stream")
_HEADERS_OF_PART = 8
_HEADER_BYTES = 1024


@dataclass
class Upload:
    """An image as it was sent.

    Attributes:
        content: the file's bytes.
        declared: the content type that the part names; `application/octet-stream` where it names none.
    """

    content: bytearray = field(default_factory=bytearray)
    declared: str = "application/octet-stream"


class _Collector:
    """Gathers the parts while the parser reads them."""

    def __init__(self, limits: LimitConfig) -> None:
        self.uploads: list[Upload] = []
        self.ended = False
        self._limits = limits
        self._name, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}

    def callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_end": self._ends,
        }

    def _part_begins(self) -> None:
        if len(self.uploads) == self._limits.images:
            raise Refusal("too_large", f"expected at most {self._limits.images} images a request, got more")
        self._headers = {}
        self.uploads.append(Upload())

    def _header_ends(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if disposition != b"form-data" or options.get(b"name") != FIELD.encode():
            raise Refusal("invalid", f"expected form fields named {FIELD!r} only; send each film as a field {FIELD!r}")
        encoding = self._headers.get(b"content-transfer-encoding", b"binary").lower()
        if encoding not in (b"binary", b"8bit", b"7bit"):
            raise Refusal("unsupported_type", "expected the image's bytes as they are, got a transfer encoding")
        declared, _ = parse_options_header(self._headers.get(b"content-type", b"application/octet-stream"))
        self.uploads[-1].declared = declared.decode("latin-1")
        if self.uploads[-1].declared not in PART_TYPES:
            raise Refusal("unsupported_type", f"image: expected a part of type {', '.join(PART_TYPES)}, got another")

    def _data(self, data: bytes, start: int, end: int) -> None:
        content = self.uploads[-1].content
        if len(content) + end - start > self._limits.image_bytes:
            raise Refusal(
                "too_large",
                f"image {len(self.uploads) - 1}: expected at most {self._limits.image_bytes} bytes, got more",
            )
        content += memoryview(data)[start:end]

    def _ends(self) -> None:
        self.ended = True


def boundary_of(content_type: str | None) -> bytes:
    """The boundary that a request's content type names.

    Raises:
        Refusal: if the body is not multipart/form-data, or names no boundary.
    """
    kind, options = parse_options_header(content_type or "")
    if kind != b"multipart/form-data":
        raise Refusal(
            "unsupported_type", f"expected multipart/form-data with fields {FIELD!r}, got another content type or none"
        )
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # RFC 2046
        raise Refusal("bad_request", "multipart/form-data: expected a boundary of 1 to 70 characters")
    return boundary


async def read_uploads(
    body: AsyncIterator[bytes],
    boundary: bytes,
    limits: LimitConfig,
    timeout_s: float,
    claim: Callable[[int], None],
) -> list[Upload]:
    """The images of a body, in order.

    Args:
        body: the chunks of the body, as they come.
        boundary: between the parts.
        limits: how much is taken.
        timeout_s: time for the whole body to arrive.
        claim: told of every further byte held before it is kept; may refuse.

    Raises:
        Refusal: if the body is too large, too slow, broken, or holds anything but images.
    """
    collector = _Collector(limits)
    total = 0
    try:
        parser = MultipartParser(
            boundary,
            collector.callbacks(),  # type: ignore[arg-type]  # a TypedDict of the same functions
            max_header_count=_HEADERS_OF_PART,
            max_header_size=_HEADER_BYTES,
        )
        async with asyncio.timeout(timeout_s):
            async for chunk in body:
                total += len(chunk)
                if total > limits.request_bytes:
                    raise Refusal("too_large", f"expected a body of at most {limits.request_bytes} bytes, got more")
                claim(len(chunk))
                parser.write(chunk)
        parser.finalize()
    except TimeoutError:
        raise Refusal("timeout", f"expected the whole body within {timeout_s:g} s; send it faster") from None
    except FormParserError:
        raise Refusal("bad_request", "multipart/form-data: the body is not well-formed") from None
    if not collector.ended:
        raise Refusal("bad_request", "multipart/form-data: the body ends before its closing boundary")
    if not collector.uploads:
        raise Refusal("invalid", f"expected at least one field {FIELD!r}, got none")
    return collector.uploads
