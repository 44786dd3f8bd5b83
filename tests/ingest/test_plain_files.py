"""A file that is plain by its structure is one that Pillow finds no fault with either."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ingest.image_files import _check_odd_content, _decode, _RefusedError, _strict_pillow
from ingest.plain_files import plain_size_hw
from tests.ingest.conftest import BROKEN, SOUND, encode, noise


@pytest.mark.parametrize("kind", ["grey_png", "deep_grey_png", "colour_jpg"])
def test_plain_files_have_a_size(kind: str) -> None:
    suffix, make = SOUND[kind]
    assert plain_size_hw(make(1), suffix) == (24, 36)
    assert plain_size_hw(make(1), ".gif") is None


@pytest.mark.parametrize("reason", sorted(set(BROKEN) - {"too_small"}))
def test_odd_files_have_none(reason: str) -> None:
    suffix, make = BROKEN[reason]
    assert plain_size_hw(make(1), suffix) is None


def test_an_opaque_alpha_goes_the_slow_way() -> None:
    assert plain_size_hw(SOUND["opaque_alpha"][1](1), ".png") is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xd9" * 40}])
def test_an_end_inside_a_jpegs_header_is_none(options: dict[str, Any]) -> None:
    content = encode(Image.fromarray(noise(2, 64, 96)), "JPEG", **options)
    assert plain_size_hw(content, ".jpg") == (64, 96)
    assert plain_size_hw(content[:-300], ".jpg") is None


@pytest.mark.parametrize("seed", range(150))
def test_what_is_plain_and_decodes_passes_pillow_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    suffix, image = (".png", noise(1)) if seed % 2 else (".jpg", noise(1, channels=3))
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG" if seed % 2 else "JPEG")
    content = bytearray(buffer.getvalue())
    for place in rng.integers(0, len(content), 1 + seed % 3):
        content[place] = rng.integers(0, 256)
    if seed % 5 == 0:
        del content[int(rng.integers(0, len(content))) :]
    size_hw = plain_size_hw(bytes(content), suffix)
    if size_hw is None:
        return
    try:
        _decode(bytes(content), size_hw)
    except _RefusedError:
        return
    with _strict_pillow():
        assert _check_odd_content(bytes(content), suffix, 1) == size_hw
