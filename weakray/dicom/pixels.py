"""One frame of a DICOM data set → its stored values, with every size looked at before a decoder runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from weakray.dicom.apart import decode_apart
from weakray.dicom.codestream import frame_size_hw
from weakray.dicom.reading import damage, pydicom_module
from weakray.errors import DataError
from weakray.limits import FilmLimits

if TYPE_CHECKING:
    from pydicom import Dataset

Stored = npt.NDArray[np.int32]  # (h, w) or (h, w, 3)

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
PIXEL_TAGS = (
    *("SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "NumberOfFrames", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", "RepresentativeFrameNumber"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_REQUIRED = ("Rows", "Columns", "BitsAllocated", "BitsStored", "SamplesPerPixel", "PhotometricInterpretation")
# Which plugin of pydicom decodes what, all under permissive licences; one each, so that every machine decodes alike.
_RLE = "1.2.840.10008.1.2.5"
_EXTENDED = "1.2.840.10008.1.2.4.51"
_PLUGINS = {
    "1.2.840.10008.1.2.4.50": "pillow",  # JPEG baseline
    _EXTENDED: "pillow",  # JPEG extended, of 8 bits
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.91": "pylibjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # HTJ2K
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    _RLE: "pylibjpeg",
}
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")
_RLE_HEADER = 64
_ITEM, _MOST_FRAGMENTS = b"\xfe\xff\x00\xe0", 100_000


@dataclass(frozen=True)
class Frame:
    """One decoded frame.

    Attributes:
        stored: values as stored: grey `(h, w)`, or RGB `(h, w, 3)`.
        bits: bits a sample that the header says are used; of RGB from a palette, those of the palette.
        signed: whether values may be negative; never in colour.
        number: which frame, from 1.
        count: of how many.
    """

    stored: Stored
    bits: int
    signed: bool
    number: int
    count: int

    @property
    def lowest(self) -> int:
        """The least value that the bits can hold."""
        return -(1 << (self.bits - 1)) if self.signed else 0


def decode_frame(found: Dataset, name: str, limits: FilmLimits, number: int | None = None) -> Frame:
    """Decodes one frame.

    Args:
        found: the data set, with `PIXEL_TAGS`.
        name: how errors name it.
        limits: checked before anything is decoded.
        number: which frame, from 1; None the one that the header calls representative, else the first.

    Raises:
        LimitError: if it is larger than its limits.
        DataError: if there is no such frame, its kind is not read, or it is damaged.
    """
    pydicom_module()
    with damage(name, "the DICOM header"):
        header = _Header.of(found, name)
        count = header.frames
        limits.check_frames(count, name)
        limits.check_size(header.rows, header.columns, name)
        wanted = chosen_frame(found) if number is None else number
    if not 1 <= wanted <= count:
        raise DataError(f"{name}: asked for frame {number}, but there are {count}; name one from 1 to {count}")
    with damage(name, "the DICOM pixel data"):
        if header.syntax not in _NATIVE:
            _check_compressed(found, header, wanted, name)
        stored, bits = _decode(found, header, wanted, name)
    return Frame(stored, bits, header.signed, wanted, count)


def chosen_frame(found: Dataset) -> int:
    """The frame that is read unless another is asked for: the representative one where it is there, else the first."""
    representative = int(found.get("RepresentativeFrameNumber") or 1)
    return representative if 1 <= representative <= int(found.get("NumberOfFrames") or 1) else 1


@dataclass(frozen=True)
class _Header:
    syntax: str
    rows: int
    columns: int
    frames: int
    allocated: int
    bits: int
    signed: bool
    photometric: str

    @classmethod
    def of(cls, found: Dataset, name: str) -> _Header:
        if "PixelData" not in found:
            raise DataError(f"{name}: the DICOM file holds no image (a report, or cut off before its pixels)")
        if missing := [keyword for keyword in _REQUIRED if found.get(keyword) in (None, "")]:
            raise DataError(f"{name}: the DICOM header lacks {', '.join(missing)}; export it again")
        syntax = str(found.file_meta.TransferSyntaxUID)
        if syntax not in _NATIVE and syntax not in _PLUGINS:
            told = syntax if re.fullmatch(r"[0-9.]{1,64}", syntax) else "of the header"
            raise DataError(f"{name}: transfer syntax {told} is not read; convert it to Explicit VR Little Endian")
        header = cls(
            syntax=syntax,
            rows=int(found.Rows),
            columns=int(found.Columns),
            frames=max(1, int(found.get("NumberOfFrames") or 1)),
            allocated=int(found.BitsAllocated),
            bits=int(found.BitsStored),
            signed=int(found.get("PixelRepresentation") or 0) == 1,
            photometric=str(found.PhotometricInterpretation),
        )
        if header.photometric not in (*GREY, *COLOUR):
            raise DataError(f"{name}: PhotometricInterpretation is not read; expected {', '.join((*GREY, *COLOUR))}")
        samples = int(found.SamplesPerPixel)
        expected = 1 if header.photometric in (*GREY, "PALETTE COLOR") else 3
        if samples != expected:
            raise DataError(f"{name}: {samples} samples a pixel, expected {expected} of {header.photometric}")
        if header.allocated not in (1, 8, 16) or not 1 <= header.bits <= header.allocated:
            raise DataError(f"{name}: {header.bits} bits stored in {header.allocated}, expected 1 to 16 in 1, 8 or 16")
        if header.signed and expected == 3:
            raise DataError(f"{name}: signed colour is not defined; export it again")
        if min(header.rows, header.columns) < 1:
            raise DataError(f"{name}: {header.rows}×{header.columns} px, expected at least one")
        return header

    def options(self, found: Dataset) -> dict[str, Any]:
        """The same in pydicom's words, for a decoder that sees the pixels alone."""
        return {
            "rows": self.rows,
            "columns": self.columns,
            "number_of_frames": self.frames,
            "samples_per_pixel": int(found.SamplesPerPixel),
            "planar_configuration": int(found.get("PlanarConfiguration") or 0),
            "bits_allocated": self.allocated,
            "bits_stored": self.bits,
            "pixel_representation": int(self.signed),
            "photometric_interpretation": self.photometric,
            "pixel_keyword": "PixelData",
        }


def _check_compressed(found: Dataset, header: _Header, number: int, name: str) -> None:
    """Refuses a stream that would decode to another size than the header's, before its decoder allocates for it."""
    from pydicom.encaps import get_frame

    tables = None
    if "ExtendedOffsetTable" in found and "ExtendedOffsetTableLengths" in found:
        tables = (found.ExtendedOffsetTable, found.ExtendedOffsetTableLengths)
    if found.PixelData.count(_ITEM) > header.frames + _MOST_FRAGMENTS:
        raise DataError(f"{name}: its compressed pixels lie in too many pieces; export it again")
    frame = get_frame(found.PixelData, number - 1, number_of_frames=header.frames, extended_offsets=tables)
    if header.syntax == _RLE:
        # 64 runs double a byte at most; a segment is one byte of each sample, and coding makes it no longer than this
        segments = int(found.SamplesPerPixel) * max(1, header.allocated // 8)
        most = _RLE_HEADER + segments * (header.rows * (header.columns + header.columns // 64 + 2) + 2)
        if len(frame) > 2 * most:
            raise DataError(f"{name}: {len(frame)} bytes of RLE for {header.rows}×{header.columns} px; export it again")
        return
    size_hw = frame_size_hw(frame)
    if header.syntax == _EXTENDED and header.bits > 8:
        raise DataError(f"{name}: lossy JPEG of {header.bits} bits has no decoder here; convert it to JPEG 2000")
    if size_hw is None:
        raise DataError(f"{name}: its compressed pixels do not begin as {found.file_meta.TransferSyntaxUID.name}")
    if size_hw != (header.rows, header.columns):
        shown = f"{size_hw[0]}×{size_hw[1]}"
        raise DataError(f"{name}: the header says {header.rows}×{header.columns} px, its compressed pixels {shown}")


def _decode(found: Dataset, header: _Header, number: int, name: str) -> tuple[Stored, int]:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.processing import apply_color_lut

    if _PLUGINS.get(header.syntax) == "gdcm":
        array = decode_apart(name, header.syntax, found.PixelData, number - 1, header.options(found))
    else:
        decoder: Any = get_decoder(header.syntax)
        array, _ = decoder.as_array(found, index=number - 1, decoding_plugin=_PLUGINS.get(header.syntax, ""))
    if header.photometric == "PALETTE COLOR":
        coloured = apply_color_lut(array, found)[..., :3]
        return np.asarray(coloured, np.int32), 8 * coloured.dtype.itemsize
    stored = np.asarray(array, np.int32) & ((1 << header.bits) - 1)  # above the stored bits may lie overlays
    if header.signed:
        stored -= (stored >> (header.bits - 1)) << header.bits
    return stored, header.bits
