"""The page's files, read once: a request names a key of a dict, never a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from weakray.files import sha256_bytes

PAGE = Path(__file__).parent / "page"
INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page."""

    content: bytes
    media_type: str
    etag: str


def load_page(folder: Path = PAGE) -> dict[str, PageFile]:
    """The page's files by their path below its folder; empty where there is no page."""
    found: dict[str, PageFile] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _TYPES:
            content = path.read_bytes()
            etag = f'"{sha256_bytes(content)[:16]}"'
            found[path.relative_to(folder).as_posix()] = PageFile(content, _TYPES[path.suffix], etag)
    return found
