"""Boxes of ten times the images must not take more memory: too long for `make test`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.conftest import finish


def peak_kib(*words: str) -> int:
    """Largest resident memory of one command, KiB."""
    process = subprocess.Popen([sys.executable, "-m", "weakray.cli", *words], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for past subprocess's back
    assert process.returncode == 0
    return usage.ru_maxrss


@pytest.mark.soak
def test_generating_boxes_of_5000_images_peaks_within_a_tenth_of_500(micro: Path, tmp_path: Path) -> None:
    peaks = {}
    for images in (500, 5000):
        data = tmp_path / f"data{images}"
        sizes = ("--train", str(images), "--val", "1", "--tune", "1", "--test", "1")
        finish("ingest", "phantom", "--out", str(data), "--short-side-px", "[64, 72]", *sizes)
        recipe = ("--ensemble", str(micro / "classify/ensemble"), "--recipe", str(micro / "camgen/search/recipe.yaml"))
        out = ("--out", str(tmp_path / f"boxes{images}"), "--splits", "[train]")
        peaks[images] = peak_kib("camgen", "generate", "--data", str(data), *recipe, *out)
    print(f"peak memory, KiB: {peaks}")
    assert peaks[5000] <= 1.1 * peaks[500]
