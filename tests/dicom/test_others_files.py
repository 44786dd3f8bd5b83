"""Files that other makers' software wrote, as pydicom ships them: the same pixels as pydicom's, or a plain reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from weakray.dicom.film import decode_dicom
from weakray.errors import DataError
from weakray.limits import FilmLimits

FILES = Path(pydicom.__file__).parent / "data" / "test_files"
GREY = (
    *("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_padded.dcm"),
    *("MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "CT_small.dcm", "693_J2KI.dcm", "JPEG2000.dcm"),
    *("JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "image_dfl.dcm", "examples_overlay.dcm"),
)
COLOUR = (
    *(
        "SC_rgb_rle.dcm",
        "SC_rgb_rle_2frame.dcm",
        "SC_rgb_jpeg_dcmtk.dcm",
        "SC_rgb_small_odd.dcm",
        "examples_jpeg2k.dcm",
    ),
    *("SC_ybr_full_422_uncompressed.dcm", "examples_ybr_color.dcm", "GDCMJ2K_TextGBR.dcm"),
)


def _content(name: str) -> bytes:
    path = FILES / name
    if not path.is_file():
        pytest.skip(f"this pydicom ships no {name}")
    return path.read_bytes()


@pytest.mark.parametrize("name", GREY)
def test_grey_pixels_are_pydicoms(name: str) -> None:
    film = decode_dicom(_content(name), name, FilmLimits())
    found = pydicom.dcmread(FILES / name)
    stored = found.pixel_array.astype(np.int64)
    lowest = -(1 << (found.BitsStored - 1)) if found.PixelRepresentation else 0
    padding = stored == found.PixelPaddingValue if "PixelPaddingValue" in found else np.zeros(stored.shape, bool)
    assert film.light is not None
    np.testing.assert_array_equal(film.light[~padding], (stored - lowest)[~padding])
    assert film.light[padding].max(initial=0) == 0


@pytest.mark.parametrize("name", COLOUR)
def test_colour_pixels_are_pydicoms(name: str) -> None:
    film = decode_dicom(_content(name), name, FilmLimits())
    theirs = pydicom.dcmread(FILES / name).pixel_array
    np.testing.assert_array_equal(film.image, theirs[0] if theirs.ndim == 4 else theirs)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rtdose.dcm", "32 bits stored in 32, expected 1 to 16"),
        ("JPGExtended.dcm", "lossy JPEG of 12 bits has no decoder here"),
        ("MR_truncated.dcm", "the DICOM pixel data is damaged or not understood"),
        ("test-SR.dcm", "the DICOM file holds no image"),
    ],
)
def test_the_rest_say_why(name: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"{name}: {reason}"):
        decode_dicom(_content(name), name, FilmLimits())
