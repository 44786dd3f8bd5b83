"""Bytes → a pydicom dataset, in bounded memory and with one kind of error."""

from __future__ import annotations

import io
import logging
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from types import ModuleType
from typing import TYPE_CHECKING

from weakray.errors import DataError, WeakrayError
from weakray.limits import FilmLimits

if TYPE_CHECKING:
    from pydicom import Dataset, FileDataset

_PREAMBLE = 128
_MAGIC = b"DICM"
_BARE_STARTS = (b"\x02\x00\x00\x00", b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00")
_MOST_ELEMENTS = 100_000
_DEFLATED = "1.2.840.10008.1.2.1.99"


def pydicom_module() -> ModuleType:
    """pydicom, told to keep what it finds amiss to itself: its messages quote header values, and those are patients'.

    Raises:
        DataError: if it is not installed.
    """
    try:
        import pydicom
        import pydicom.config
    except ModuleNotFoundError:
        raise DataError(
            "DICOM needs pydicom and its decoders; install them with `pip install weakray[dicom]`"
        ) from None
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").propagate = False
    # not by catch_warnings, which one thread would undo under another
    warnings.filterwarnings("ignore", module=r"(pydicom|pylibjpeg|openjpeg|rle|jpeg_ls)(\.|$)")
    return pydicom


def is_dicom(content: bytes) -> bool:
    """Whether bytes begin as a DICOM file, or as a bare data set without preamble, as old archives store them."""
    return content[_PREAMBLE : _PREAMBLE + 4] == _MAGIC or content[:4] in _BARE_STARTS


@contextmanager
def damage(name: str, what: str) -> Iterator[None]:
    """Turns whatever pydicom or a decoder raises on a damaged file into a `DataError` that quotes no header value.

    Raises:
        DataError: naming the kind of failure.
    """
    try:
        yield
    except WeakrayError:
        raise
    except MemoryError:
        raise DataError(f"{name}: {what} does not fit into memory; store it smaller") from None
    # pydicom and the decoders have no error of their own for damaged bytes: they raise whatever their code runs into.
    # Nothing goes on here as if it were well: each becomes a DataError that names the kind and the file.
    except Exception as error:  # noqa: BLE001 - raised again as a DataError
        raise _damaged(name, what, error) from None
    except BaseException as error:  # a panic of the RLE decoder, which is Rust, is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise _damaged(name, what, error) from None


def _damaged(name: str, what: str, error: BaseException) -> DataError:
    return DataError(f"{name}: {what} is damaged or not understood ({type(error).__name__}); export it again")


def read_dicom(content: bytes, name: str, limits: FilmLimits, tags: Sequence[str | int] | None = None) -> FileDataset:
    """Parses a DICOM file without decoding its pixels.

    Args:
        content: the whole file.
        name: how errors name it.
        limits: of which the bytes are checked here, also those of an inflated data set.
        tags: keywords of the elements to read, others are passed over; None reads all.

    Raises:
        LimitError: if it is longer than its limits.
        DataError: if it is no DICOM, or damaged.
    """
    pydicom = pydicom_module()
    from pydicom.filereader import read_partial

    limits.check_bytes(len(content), name)
    if not is_dicom(content):
        raise DataError(f"{name}: expected a DICOM file, got none ({len(content)} bytes)")
    with damage(name, "the DICOM header"):
        _check_inflated(content, name, limits)
        wanted = None if tags is None else [pydicom.tag.Tag(tag) for tag in tags]
        found: FileDataset = read_partial(io.BytesIO(content), _counting(name), force=True, specific_tags=wanted)
        _settle_syntax(found)
    return found


def _counting(name: str) -> Callable[[object, object, int], bool]:
    """Stops at no element, but refuses a file of so many that reading them would take minutes."""
    numbers = count()

    def stop(_tag: object, _vr: object, _length: int) -> bool:
        if next(numbers) > _MOST_ELEMENTS:
            raise DataError(f"{name}: more than {_MOST_ELEMENTS} elements in its header; export it again")
        return False

    return stop


def _check_inflated(content: bytes, name: str, limits: FilmLimits) -> None:
    """Refuses a deflated data set that would inflate past the limit: pydicom would inflate it whole."""
    from pydicom.filereader import read_dataset, read_preamble

    file = io.BytesIO(content)
    read_preamble(file, force=True)
    meta = read_dataset(
        file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, _vr, _length: tag.group != 2
    )
    if str(meta.get("TransferSyntaxUID", "")) != _DEFLATED:
        return
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    at = file.tell()
    limits.check_bytes(len(inflating.decompress(content[at:], limits.max_bytes + 1)), f"{name}, inflated")


def _settle_syntax(found: Dataset) -> None:
    """Gives a data set without file meta the transfer syntax it was parsed by: never compressed, for none says so."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(found, "file_meta", None)
    if meta is not None and "TransferSyntaxUID" in meta:
        return
    found.file_meta = FileMetaDataset() if meta is None else meta
    implicit, little = found.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    found.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
