"""A bundle is written whole or not at all, and the same one twice over."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weakray.bundle.manifest import Manifest, verify
from weakray.bundle.runtime import Bundle
from weakray.errors import BundleError

WriteTiny = Callable[..., Manifest]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_parts_same_bytes(tmp_path: Path, write_tiny: WriteTiny) -> None:
    write_tiny(tmp_path / "one")
    write_tiny(tmp_path / "elsewhere" / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "elsewhere" / "two")


def test_existing_bundle_is_replaced_whole(tmp_path: Path, write_tiny: WriteTiny) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder)
    (folder / "stray.txt").write_text("?")
    (folder / "recipe.yaml").write_text("changed")
    write_tiny(folder)
    verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("victim", ["taxonomy.yaml", "bundle.json", ".bundle.old", "bundle"])
def test_kill_leaves_no_half_bundle(
    tmp_path: Path, write_tiny: WriteTiny, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    folder = tmp_path / "bundle"
    write_tiny(folder)
    rename = os.replace

    def dies(source: Path, target: Path) -> None:
        if Path(target).name == victim:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            write_tiny(folder)
    assert folder.exists() == (victim != "bundle")
    if folder.exists():
        verify(folder)
    write_tiny(folder)
    verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_parts_that_do_not_fit_leave_the_old_bundle(
    tmp_path: Path, write_tiny: WriteTiny, graphs: dict[str, Path]
) -> None:
    folder = tmp_path / "bundle"
    before = write_tiny(folder)
    with pytest.raises(BundleError, match=r"classifiers.onnx: expected outputs"):
        write_tiny(folder, classifiers_onnx=graphs["detector_onnx"])
    assert verify(folder) == before
    assert len(Bundle.load(folder).manifest.files) == 5


def test_card_says_thresholds_and_limits(bundle_folder: Path) -> None:
    text = (bundle_folder / "README.md").read_text()
    assert "| Effusion | 0.85 | 0.25 |" in text
    assert "not a\nmedical device" in text


EXPORT_IN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import ANCHORS, TinyDetector, export
export(TinyDetector(), Path(sys.argv[2]), {"raw": (7, len(ANCHORS))})
"""


def test_tidied_graph_is_the_same_from_another_process_and_folder(tmp_path: Path, graphs: dict[str, Any]) -> None:
    here = Path(__file__).parent
    other = tmp_path / "other.onnx"
    subprocess.run([sys.executable, "-c", EXPORT_IN, str(here), str(other)], check=True, cwd=tmp_path, env={
        **os.environ, "PYTHONPATH": str(here.parents[1]), "PYTHONHASHSEED": "7",
    })  # fmt: skip
    content = other.read_bytes()
    assert content == graphs["detector_onnx"].read_bytes()
    assert str(here).encode() not in content
    assert b"conftest" not in content
