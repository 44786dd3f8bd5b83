"""No damage crashes, hangs or takes memory: a film, or an error of ours."""

from __future__ import annotations

import io
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.dicom.damaging import damaged, sound_files
from tests.dicom.makers import content, dataset, light
from weakray.dicom import apart
from weakray.errors import DataError
from weakray.film import Film, read_film
from weakray.limits import FilmLimits

LIMITS = FilmLimits(max_pixels=4_000_000, max_bytes=1 << 20)
SECONDS = 10.0


def _outcome(content: bytes) -> Film | str:
    """The film, or the error's words."""
    try:
        return read_film(content, "a film", LIMITS)
    except DataError as error:
        return str(error)


def _survive(seeds: range) -> tuple[int, int]:
    """How many damaged files gave a film, and how many an error."""
    films = errors = 0
    for seed in seeds:
        kind, made = damaged(seed)
        started = time.process_time()
        found = _outcome(made)
        if isinstance(found, str):
            errors += 1
            assert found.startswith("a film"), (seed, kind, found)
            assert "Doe" not in found
        else:
            films += 1
            assert found.image.dtype == np.uint8
            assert found.image.shape[0] * found.image.shape[1] <= LIMITS.max_pixels
        assert time.process_time() - started < SECONDS, (seed, kind)
    return films, errors


def test_damaged_files_give_a_film_or_an_error() -> None:
    films, errors = _survive(range(len(sound_files()) * 6))
    assert films > 10
    assert errors > 40


@pytest.mark.soak
def test_thousands_of_damaged_files_in_little_memory() -> None:
    code = f"from tests.dicom.test_damage import soak; soak(range({1_000_000}, {1_000_000 + 3_000}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]


def soak(seeds: range) -> None:
    """In a process of its own, which may have 3 GB of addresses and dies where a decoder crashes."""
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    _survive(seeds)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert peak_mb < 700, peak_mb


@pytest.mark.parametrize("cut", [0.001, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["explicit", "jpeg_2000", "jpeg_ls", "jpeg_lossless", "rle", "deflated"])
def test_a_file_cut_anywhere_is_an_error_or_the_whole_film(kind: str, cut: float) -> None:
    made = sound_files()[kind]
    found = _outcome(made[: int(len(made) * cut)])
    if isinstance(found, str):
        assert found.startswith("a film: ")
    else:
        assert cut > 0.9  # the end of a compressed stream may be padding
        assert found.image.shape == (40, 56)


def test_sequences_nested_without_end_crash_nothing() -> None:
    head = content(dataset(light(0)))
    at = head.index(b"\x28\x00\x02\x00")
    level = b"\x18\x00\x06\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    named = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    for nested in (level * 5_000, named * 5_000):
        with pytest.raises(DataError, match="film: the DICOM "):
            read_film(head[:at] + nested + head[at:])


@pytest.mark.parametrize("seed", range(6))
def test_a_stream_that_crashes_gdcm_is_an_error_and_the_next_film_is_read(seed: int) -> None:
    made = bytearray(sound_files()["jpeg_lossless"])
    start = made.index(b"\xff\xda") + 10
    rng = np.random.default_rng(seed)
    for place in rng.integers(start, len(made) - 4, 300):
        made[place] = rng.integers(0, 256)
    found = _outcome(bytes(made))  # noise may decode to noise
    assert found.startswith("a film: ") if isinstance(found, str) else found.image.shape == (40, 56)
    assert read_film(sound_files()["jpeg_lossless"]).image.shape == (40, 56)


def test_a_decoder_that_dies_or_hangs_is_an_error_and_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = sound_files()["jpeg_lossless"]
    read_film(sound)
    process = apart._apart.process
    assert process is not None
    process.kill()
    process.wait()
    assert read_film(sound).image.shape == (40, 56)
    process, before = apart._apart.process, process
    assert process is not before
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(apart, "TIMEOUT_S", 0.1)
    with pytest.raises(DataError, match="film: its compressed pixels crash their decoder, so they are damaged"):
        read_film(sound)
    monkeypatch.undo()
    assert read_film(sound).image.shape == (40, 56)


def test_too_many_elements_are_refused() -> None:
    head = content(dataset(light(0)))
    at = head.index(b"\x28\x00\x02\x00")
    with pytest.raises(DataError, match="film: more than 100000 elements in its header"):
        read_film(head[:at] + b"\x27\x00\x10\x00LO\x00\x00" * 100_001 + head[at:])


def test_a_file_of_many_empty_elements_ends_soon() -> None:
    buffer = io.BytesIO(content(dataset(light(0))))
    head = buffer.getvalue()
    at = head.index(b"\x28\x00\x02\x00")
    started = time.process_time()
    read_film(head[:at] + b"\x27\x00\x10\x00LO\x00\x00" * 90_000 + head[at:])
    assert time.process_time() - started < SECONDS
