"""Looks into image files and says of each whether it is taken, and if not, why and how to mend it.

What is taken decodes wholly, in Pillow and in `weakray.imaging`, to 8-bit grey or colour, or is grey PNG of 16 bits:
no later stage meets a file that it cannot read. Not seen here: a JPEG damaged in its middle whose length is right
(JPEG has no checksum; PNG has, and its is verified).
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFile
from tqdm import tqdm

from ingest.plain_files import plain_size_hw
from weakray.dataset import Rejection
from weakray.errors import DataError
from weakray.files import sha256_bytes
from weakray.imaging import decode

MAX_PIXELS = 64_000_000  # 8,000 × 8,000: above mammograms, below Pillow's own limit for decompression bombs
MAX_BYTES = 512 * 1024 * 1024
_SUFFIXES = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
_TAKEN = ("PNG", "JPEG")
_SIGNATURES = {"PNG": b"\x89PNG\r\n\x1a\n", "JPEG": b"\xff\xd8\xff"}
# What Pillow raises on damaged files, found by feeding it such files; anything else is a bug and shows.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError)
_DAMAGE_BELOW = (struct.error, zlib.error)


@dataclass(frozen=True)
class ImageFacts:
    """What is known of a file that is taken: size in pixels as stored (EXIF orientation is not applied) and hash."""

    height: int
    width: int
    sha256: str


class _RefusedError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def inspect_files(
    files: Sequence[tuple[str, Path]], *, min_side_px: int = 16, workers: int = 1
) -> list[ImageFacts | Rejection]:
    """The verdict on each file, in the order given, the same for any number of workers.

    Args:
        files: (how a rejection names the input, where it lies).
        min_side_px: images with a shorter side are rejected.
        workers: threads; decoding runs outside the interpreter's lock.

    Returns:
        Facts of each file taken; else a `Rejection` with one of the reasons missing, zero_byte, truncated,
        unreadable, wrong_extension, unsupported_format, animated, sixteen_bit, palette, cmyk, alpha, too_small,
        too_large.
    """
    with _strict_pillow(), ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        verdicts = pool.map(lambda file: _verdict(file[0], file[1], min_side_px), files)
        return list(tqdm(verdicts, desc="inspecting images", total=len(files), unit="file", disable=None))


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Pillow refuses cut files whatever another library set, and keeps its remarks on damaged ones to itself."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _verdict(item: str, path: Path, min_side_px: int) -> ImageFacts | Rejection:
    try:
        content = _read(path)
        height, width = _check_content(content, path.suffix.lower(), min_side_px)
    except _RefusedError as refused:
        return Rejection(item, refused.reason, refused.detail)
    return ImageFacts(height, width, sha256_bytes(content))


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise _RefusedError("unreadable", "expected a file, got a folder or device; remove it")
        if found.st_size > MAX_BYTES:
            raise _RefusedError("too_large", f"{found.st_size} bytes, at most {MAX_BYTES} are read; store it smaller")
        content = path.read_bytes()
    except FileNotFoundError:
        raise _RefusedError("missing", "no such file; copy it into the images folder or drop its row") from None
    except OSError as error:
        raise _RefusedError("unreadable", f"{error.strerror or error}; check the file's permissions and disk") from None
    if not content:
        raise _RefusedError("zero_byte", "the file is empty; copy it again from its source")
    return content


def _check_content(content: bytes, suffix: str, min_side_px: int) -> tuple[int, int]:
    """Height and width, or `_RefusedError` with the first reason that holds."""
    size_hw = plain_size_hw(content, suffix)
    if size_hw is not None and size_hw[0] * size_hw[1] <= MAX_PIXELS and min(size_hw) >= min_side_px:
        try:
            _decode(content, size_hw)
        except _RefusedError:
            pass  # told more exactly below
        else:
            return size_hw
    return _check_odd_content(content, suffix, min_side_px)


def _check_odd_content(content: bytes, suffix: str, min_side_px: int) -> tuple[int, int]:
    """The same for what is not plainly a grey or colour PNG or JPEG: Pillow tells what it is, or what ails it."""
    image = _open(content)
    kind = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG with a second picture behind it
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _RefusedError("too_large", f"{height}×{width} px, at most {MAX_PIXELS} pixels are read; store it smaller")
    if suffix not in _SUFFIXES[kind]:
        named = f"named {suffix}" if suffix else "named without extension"
        raise _RefusedError("wrong_extension", f"the content is {kind}, {named}; rename it to {_SUFFIXES[kind][0]}")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _RefusedError("animated", f"{getattr(image, 'n_frames', 1)} frames; save the one that counts as PNG")
    deep_grey_png = kind == "PNG" and content[24:26] == b"\x10\x00"
    if not deep_grey_png and (image.mode.startswith(("I", "F")) or (kind == "PNG" and content[24] == 16)):
        raise _RefusedError("sixteen_bit", "more than 8 bits a sample of colour; save it as PNG of 8 bits")
    if image.mode in ("P", "PA"):
        raise _RefusedError("palette", "colours come from a palette; convert it to grey or RGB")
    if image.mode == "CMYK":
        raise _RefusedError("cmyk", "four printing inks; convert it to grey or RGB")
    if kind not in _TAKEN:
        raise _RefusedError("unsupported_format", f"{kind} is not read by later stages; save it as PNG")
    _load(content)
    if min(height, width) < min_side_px:
        raise _RefusedError(
            "too_small", f"{height}×{width} px, each side must have {min_side_px}; is it a placeholder?"
        )
    _decode(content, (height, width))
    return height, width


def _decode(content: bytes, size_hw: tuple[int, int]) -> None:
    """Decodes as every later stage will; refuses what it cannot, or would read as another size."""
    try:
        decoded = decode(content)
    except DataError as error:
        raise _RefusedError("unreadable", f"{error}; save it again as PNG") from None
    if decoded.shape[:2] != size_hw:
        raise _RefusedError("unreadable", f"two decoders differ: {size_hw} and {decoded.shape[:2]}; save it as PNG")


def _open(content: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=[*_SUFFIXES, "MPO"])
        getattr(image, "n_frames", 1)  # reads on in GIF and TIFF, where damage may wait
    except (Image.DecompressionBombError, MemoryError):
        raise _RefusedError("too_large", f"more than {MAX_PIXELS} pixels; store it smaller") from None
    except (*_DAMAGE, *_DAMAGE_BELOW) as error:
        raise _unopened(content, error) from None
    return image


def _unopened(content: bytes, error: Exception) -> _RefusedError:
    for kind, signature in _SIGNATURES.items():
        if content.startswith(signature[: len(content)]):
            return _RefusedError("truncated", f"begins as {kind} but ends within its header; copy it again")
    if content[128:132] == b"DICM":
        return _RefusedError("unreadable", "a DICOM file; convert it to 8-bit PNG")
    return _RefusedError("unreadable", f"no image format that is known ({type(error).__name__}); replace or remove it")


def _load(content: bytes) -> None:
    """Decodes every pixel and, for PNG, every checksum; refuses what is cut, damaged or really transparent."""
    try:
        Image.open(io.BytesIO(content), formats=[*_TAKEN, "MPO"]).verify()
        image = Image.open(io.BytesIO(content), formats=[*_TAKEN, "MPO"])
        image.load()
        if image.mode in ("LA", "La", "RGBA", "RGBa") or "transparency" in image.info:
            lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        else:
            lowest = 255
    except MemoryError:
        raise _RefusedError("too_large", "does not fit into memory; store it smaller") from None
    except (*_DAMAGE, *_DAMAGE_BELOW) as error:
        cut = "truncat" in str(error).lower() or isinstance(error, EOFError)
        if cut:
            raise _RefusedError("truncated", f"ends before its last pixel ({error}); copy it again") from None
        raise _RefusedError("unreadable", f"damaged: {error or type(error).__name__}; copy it again") from None
    if lowest != 255:
        raise _RefusedError(
            "alpha", "part of it is transparent; flatten it onto black or white (an opaque alpha is fine)"
        )
