"""Every kind of broken file gets its reason; what is taken can be read by the imaging path."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from ingest.image_files import ImageFacts, inspect_files
from weakray.dataset import Rejection
from weakray.files import sha256_bytes
from weakray.imaging import read_image

Kinds = dict[str, tuple[str, Callable[[int], bytes]]]
REASONS = (
    *("zero_byte", "truncated", "wrong_extension", "sixteen_bit", "palette", "cmyk", "alpha", "animated", "too_small"),
    *("unsupported_format", "unreadable"),
)


def _verdict(path: Path, **options: Any) -> ImageFacts | Rejection:
    (found,) = inspect_files([("the row", path)], **options)
    return found


def _reason(path: Path, **options: Any) -> str:
    found = _verdict(path, **options)
    assert isinstance(found, Rejection), found
    assert found.item == "the row"
    return found.reason


@pytest.mark.parametrize("reason", REASONS)
def test_a_broken_file_gets_its_reason_and_a_way_to_mend_it(tmp_path: Path, broken: Kinds, reason: str) -> None:
    extension, make = broken[reason]
    path = tmp_path / f"film{extension}"
    path.write_bytes(make(3))
    found = _verdict(path)
    assert isinstance(found, Rejection)
    assert found.reason == reason
    assert any(
        word in found.detail for word in ("copy", "rename", "save", "convert", "flatten", "?", "replace", "store")
    )


@pytest.mark.parametrize("kind", ["grey_png", "deep_grey_png", "colour_jpg", "opaque_alpha", "capital_extension"])
def test_a_sound_file_is_taken_with_size_and_hash(tmp_path: Path, sound: Kinds, kind: str) -> None:
    extension, make = sound[kind]
    path = tmp_path / f"film{extension}"
    path.write_bytes(make(3))
    assert _verdict(path) == ImageFacts(24, 36, sha256_bytes(make(3)))
    assert read_image(path).shape[:2] == (24, 36)


def test_missing_file_and_folder_and_device(tmp_path: Path) -> None:
    assert _reason(tmp_path / "none.png") == "missing"
    (tmp_path / "folder.png").mkdir()
    assert _reason(tmp_path / "folder.png") == "unreadable"
    os.mkfifo(tmp_path / "pipe.png")
    assert _reason(tmp_path / "pipe.png") == "unreadable"
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    assert _reason(tmp_path / "link.png") == "missing"


def test_truncated_is_refused_even_where_another_library_told_pillow_to_accept_it(
    tmp_path: Path, broken: Kinds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    (tmp_path / "a.jpg").write_bytes(broken["truncated"][1](3))
    assert _reason(tmp_path / "a.jpg") == "truncated"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_a_jpeg_cut_anywhere_is_truncated(tmp_path: Path, share: float, options: dict[str, bool]) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)).save(buffer, "JPEG", **options)
    content = buffer.getvalue()
    (tmp_path / "a.jpg").write_bytes(content[: int(len(content) * share)])
    assert _reason(tmp_path / "a.jpg") == "truncated"


@pytest.mark.parametrize("length", [4, 20, 40, 200, 900])
def test_a_png_cut_anywhere_is_truncated(tmp_path: Path, sound: Kinds, length: int) -> None:
    content = sound["grey_png"][1](0)
    assert len(content) > length
    (tmp_path / "a.png").write_bytes(content[:length])
    assert _reason(tmp_path / "a.png") == "truncated"


def test_a_png_with_a_flipped_byte_fails_its_checksum(tmp_path: Path, sound: Kinds) -> None:
    content = bytearray(sound["grey_png"][1](0))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.png").write_bytes(content)
    assert _reason(tmp_path / "a.png") == "unreadable"


def test_sixteen_bit_colour_png_which_pillow_opens_as_eight(tmp_path: Path) -> None:
    colour = np.full((24, 36, 3), 40_000, np.uint16)
    assert cv2.imwrite(str(tmp_path / "a.png"), colour)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.mode == "RGB"
    assert _reason(tmp_path / "a.png") == "sixteen_bit"


def test_transparent_colour_key_is_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(np.full((24, 36), 9, np.uint8))
    image.save(tmp_path / "a.png", transparency=9)
    assert _reason(tmp_path / "a.png") == "alpha"
    image.save(tmp_path / "b.png", transparency=200)  # a key that no pixel has: all opaque
    assert isinstance(_verdict(tmp_path / "b.png"), ImageFacts)


def test_smallest_side_is_settable(tmp_path: Path, sound: Kinds) -> None:
    (tmp_path / "a.png").write_bytes(sound["grey_png"][1](0))
    assert isinstance(_verdict(tmp_path / "a.png", min_side_px=24), ImageFacts)
    assert _reason(tmp_path / "a.png", min_side_px=25) == "too_small"


def _bomb(height: int, width: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("height", "width"), [(8_000, 8_001), (9_000, 10_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_too_large_before_it_is_decoded(tmp_path: Path, height: int, width: int) -> None:
    (tmp_path / "a.png").write_bytes(_bomb(height, width))  # below, between and above Pillow's own limits
    assert _reason(tmp_path / "a.png") == "too_large"


def test_dicom_is_told_from_rubbish(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bytes(128) + b"DICM" + bytes(50))
    found = _verdict(tmp_path / "a.png")
    assert isinstance(found, Rejection)
    assert found.detail == "a DICOM file; convert it to 8-bit PNG"


def test_any_number_of_workers_gives_the_same_verdicts_in_the_same_order(
    tmp_path: Path, broken: Kinds, sound: Kinds
) -> None:
    files = []
    for at, (extension, make) in enumerate([*broken.values(), *sound.values()]):
        path = tmp_path / f"{at}{extension}"
        path.write_bytes(make(at))
        files.append((path.name, path))
    one = inspect_files(files, workers=1)
    assert [isinstance(found, ImageFacts) for found in one] == [False] * len(broken) + [True] * len(sound)
    assert inspect_files(files, workers=4) == one
    assert inspect_files([], workers=3) == []


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_no_damage_crashes_and_what_is_taken_is_readable(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("damage")
    array = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    kind, extension = data.draw(
        st.sampled_from(
            [("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("TIFF", "tif"), ("WEBP", "webp"), ("BMP", "bmp")]
        )
    )
    Image.fromarray(array).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = root / f"a.{data.draw(st.sampled_from([extension, extension, 'png']))}"
    path.write_bytes(content)
    found = _verdict(path)
    if isinstance(found, ImageFacts):
        assert read_image(path).shape[:2] == (found.height, found.width)
    else:
        assert found.reason
        assert found.detail
