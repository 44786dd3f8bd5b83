"""Every transfer syntax gives the pixels back; frames, colour, limits and errors."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.uid import UID

from tests.dicom.makers import LOSSLESS, content, dataset, light
from weakray.dicom.film import decode_dicom
from weakray.errors import DataError, LimitError
from weakray.film import kind_of, read_film
from weakray.imaging import to_eight_bits
from weakray.limits import FilmLimits

ANY = FilmLimits()


@pytest.mark.parametrize(("bits", "kind"), [(8, "u1"), (12, "u2"), (16, "u2"), (12, "i2")])
@pytest.mark.parametrize("syntax", LOSSLESS)
def test_every_transfer_syntax_gives_the_pixels_back(syntax: str, bits: int, kind: str) -> None:
    made = light(3, bits=bits)
    stored = made.astype(kind) if kind != "i2" else (made.astype(np.int32) - 2048).astype(kind)
    film = decode_dicom(content(dataset(stored, bits), syntax), "a.dcm", ANY)
    assert film.light is not None
    assert film.light.dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(film.light, made)
    np.testing.assert_array_equal(film.image, made if bits == 8 else to_eight_bits(made))
    assert film.rule == ("8 bits as stored" if bits == 8 else "percentile 0.5 to 99.5")
    assert film.bits == bits


def test_lossy_jpeg_comes_close() -> None:
    made = cv2.GaussianBlur(light(3, bits=8).astype(np.uint8), (9, 9), 0)
    film = decode_dicom(content(dataset(made, 8), "jpeg"), "a.dcm", ANY)
    assert film.image.shape == (40, 56)
    assert np.abs(film.image.astype(int) - made).max() <= 8


@pytest.mark.parametrize("syntax", ["explicit", "jpeg_2000", "jpeg_ls", "rle"])
def test_colour_comes_back_as_rgb(syntax: str) -> None:
    made = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    film = decode_dicom(content(dataset(made, 8), syntax), "a.dcm", ANY)
    np.testing.assert_array_equal(film.image, made)
    assert film.light is None
    assert film.rule == "colour as stored"


def test_a_palette_gives_its_colours() -> None:
    made = np.arange(40 * 56, dtype=np.uint8).reshape(40, 56) % 3
    found = dataset(made, 8, PhotometricInterpretation="PALETTE COLOR")
    for colour, entries in {"Red": [9, 0, 7], "Green": [0, 9, 7], "Blue": [1, 2, 7]}.items():
        setattr(found, f"{colour}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(found, f"{colour}PaletteColorLookupTableData", bytes([*entries, 0]))
    film = decode_dicom(content(found), "a.dcm", ANY)
    np.testing.assert_array_equal(film.image[0, :3], [[9, 0, 1], [0, 9, 2], [7, 7, 7]])


@pytest.mark.parametrize("syntax", ["explicit", "jpeg_ls", "rle"])
@pytest.mark.parametrize(
    ("frame", "representative", "number"), [(None, None, 1), (None, 3, 3), (2, 3, 2), (None, 99, 1)]
)
def test_one_frame_of_several_is_read_and_named(
    syntax: str, frame: int | None, representative: int | None, number: int
) -> None:
    made = np.stack([light(seed) for seed in range(3)])
    extra = {} if representative is None else {"RepresentativeFrameNumber": representative}
    film = decode_dicom(content(dataset(made, **extra), syntax), "a.dcm", ANY, frame=frame)
    np.testing.assert_array_equal(film.light, made[number - 1])
    assert (film.frame, film.frames) == (number, 3)
    assert f"frame {number} of 3 was read" in film.notes


def test_a_frame_that_is_not_there() -> None:
    with pytest.raises(DataError, match="a.dcm: asked for frame 4, but there are 1; name one from 1 to 1"):
        decode_dicom(content(dataset(light(0))), "a.dcm", ANY, frame=4)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (FilmLimits(max_pixels=2239), "a.dcm: 40×56 px, at most 2239 pixels are read"),
        (FilmLimits(max_frames=2), "a.dcm: 3 frames, at most 2 are read"),
        (FilmLimits(max_bytes=900), "a.dcm: [0-9]+ bytes, at most 900 are read"),
    ],
)
def test_limits_are_checked_before_decoding(limits: FilmLimits, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = content(dataset(np.stack([light(seed) for seed in range(3)])), "jpeg_2000")
    monkeypatch.setattr("weakray.dicom.pixels._decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(LimitError, match=message):
        read_film(made, "a.dcm", limits)


def test_a_deflated_bomb_is_not_inflated() -> None:
    found = dataset(np.zeros((400, 560), np.uint16))
    made = content(found, "deflated")
    assert len(made) < 4_000
    with pytest.raises(LimitError, match="a.dcm, inflated: 10001 bytes, at most 10000 are read"):
        read_film(made, "a.dcm", FilmLimits(max_bytes=10_000))


@pytest.mark.parametrize("syntax", ["jpeg_2000", "jpeg_ls", "jpeg_lossless"])
def test_a_stream_larger_than_its_header_says_is_refused_before_its_decoder_runs(
    syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = content(dataset(light(0, 80, 120)), syntax)
    for value, other in ((80, 40), (120, 60)):
        made = made.replace(_rows_or_columns(value), _rows_or_columns(other), 1)
    monkeypatch.setattr("weakray.dicom.pixels._decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match="a.dcm: the header says 40×60 px, its compressed pixels 80×120"):
        read_film(made, "a.dcm")


def _rows_or_columns(value: int) -> bytes:
    tag = 0x10 if value in (80, 40) else 0x11
    return struct.pack("<HH2sHH", 0x28, tag, b"US", 2, value)


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"BitsStored": 40}, "40 bits stored in 16, expected 1 to 16"),
        ({"PhotometricInterpretation": "HSV"}, "PhotometricInterpretation is not read; expected MONOCHROME1, "),
        ({"SamplesPerPixel": 3}, "3 samples a pixel, expected 1 of MONOCHROME2"),
        ({"Rows": 0}, "0×56 px, expected at least one"),
        ({"Rows": None}, "the DICOM header lacks Rows; export it again"),
        ({"Rows": 60_000, "Columns": 60_000}, "60000×60000 px, at most 64000000 pixels are read"),
        ({"Rows": 4_000}, r"the DICOM pixel data is damaged or not understood \(ValueError\); export it again"),
    ],
)
def test_a_header_that_lies_is_an_error(elements: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=f"a.dcm: {message}"):
        read_film(content(dataset(light(0), **elements)), "a.dcm")


def test_a_report_is_no_film() -> None:
    found = dataset(light(0))
    del found.PixelData
    with pytest.raises(DataError, match=r"a.dcm: the DICOM file holds no image \(a report, or cut off before"):
        read_film(content(found), "a.dcm")


def test_no_error_quotes_the_patient() -> None:
    made = content(dataset(light(0), WindowCenter="1", PatientName="Doe^Jane", StudyDate="not a date Jane Doe"))
    for cut in range(0, len(made), 97):
        with pytest.raises(DataError) as caught:
            read_film(made[:cut], "a.dcm")
        assert "Doe" not in str(caught.value)


def test_twelve_bit_lossy_jpeg_says_that_nothing_decodes_it() -> None:
    found = dataset(light(0, bits=8).astype(np.uint8), 8)
    content(found, "jpeg")
    found.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.51")
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    assert read_film(buffer.getvalue()).image.shape == (40, 56)
    found.BitsAllocated, found.BitsStored = 16, 12
    buffer = io.BytesIO()
    found.save_as(buffer, enforce_file_format=True)
    with pytest.raises(DataError, match="lossy JPEG of 12 bits has no decoder here; convert it to JPEG 2000"):
        read_film(buffer.getvalue())


def test_a_bare_data_set_without_preamble_is_read() -> None:
    made = content(dataset(light(0)), "implicit")
    at = made.index(struct.pack("<HH", 8, 0x16))
    np.testing.assert_array_equal(read_film(made[at:]).image, to_eight_bits(light(0)))


def _encoded(image: Any, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def test_the_other_kinds() -> None:
    grey = light(1, bits=8).astype(np.uint8)
    png = read_film(_encoded(grey, "PNG"))
    assert (png.kind, png.rule, png.notes, png.facts) == ("png", "8 bits as stored", (), None)
    np.testing.assert_array_equal(png.image, grey)
    deep = read_film(_encoded(light(1), "PNG"))
    assert (deep.kind, deep.rule) == ("png16", "percentile 0.5 to 99.5")
    np.testing.assert_array_equal(deep.image, to_eight_bits(light(1)))
    jpeg = read_film(_encoded(np.stack([grey] * 3, axis=2), "JPEG"))
    assert (jpeg.kind, jpeg.image.shape) == ("jpeg", (40, 56, 3))
    assert read_film(content(dataset(light(1)))).kind == "dicom"


@pytest.mark.parametrize("rubbish", [b"", b"GIF89a", b"<html>", bytes(400), b"%PDF-1.4"])
def test_what_is_no_film(rubbish: bytes) -> None:
    assert kind_of(rubbish) is None
    with pytest.raises(DataError, match="a: expected a PNG, JPEG or DICOM file, got none of them"):
        read_film(rubbish, "a")


def test_a_png_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + header
        + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    )
    end = bytes(4) + b"IEND" + bytes(4)
    with pytest.raises(LimitError, match="a: 60000×60000 px, at most 64000000 pixels are read; store it smaller"):
        read_film(bomb + end, "a")
    with pytest.raises(DataError, match="a: expected a whole PNG image, but it is cut or damaged; send it again"):
        read_film(bomb[:20], "a")
    with pytest.raises(DataError, match="a: expected a PNG or JPEG image, but it ends within its header"):
        read_film(b"\xff\xd8\xff\xe0\x00", "a")


def test_a_chunk_that_claims_two_gigabytes_is_not_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    png = _encoded(light(1, bits=8).astype(np.uint8), "PNG")
    lying = png[:33] + struct.pack(">I", 0x7FFFFFFF) + png[37:]
    monkeypatch.setattr("weakray.film.decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match="a: expected a whole PNG image, but it is cut or damaged"):
        read_film(lying, "a")


def test_an_animated_png_is_refused() -> None:
    frames = [Image.fromarray(light(seed, bits=8).astype(np.uint8)) for seed in range(2)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="a: expected one picture, got an animated PNG"):
        read_film(buffer.getvalue(), "a")


def test_a_decoder_that_panics_is_an_error() -> None:
    found = dataset(light(1))
    whole = bytearray(content(found, "rle"))
    start = whole.rfind(b"\xfe\xff\x00\xe0", 0, len(whole) - 64) + 8  # the frame, after its item's head
    whole[start + 64] = 0x81  # the first run repeats a byte 128 times: the last one ends past the film
    with pytest.raises(
        DataError, match=r"a\.dcm: the DICOM pixel data is damaged or not understood \(PanicException\)"
    ):
        read_film(bytes(whole), "a.dcm")
