"""A bundle is used only when every file is as `bundle.json` says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weakray import __version__
from weakray.bundle.manifest import read, verify
from weakray.errors import BundleError


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_whole_bundle_verifies(bundle_folder: Path) -> None:
    manifest = verify(bundle_folder)
    assert manifest.findings == ("Opacity", "Nodule", "Effusion")
    assert manifest.weakray == __version__
    assert manifest.origin.commit == "abc"
    assert sorted(manifest.files) == ["README.md", "classifiers.onnx", "detector.onnx", "recipe.yaml", "taxonomy.yaml"]
    assert sorted(path.name for path in bundle_folder.iterdir()) == sorted([*manifest.files, "bundle.json"])


@pytest.mark.parametrize("name", ["detector.onnx", "classifiers.onnx", "recipe.yaml", "taxonomy.yaml", "README.md"])
def test_changed_byte_names_the_file(bundle_folder: Path, name: str) -> None:
    content = bytearray((bundle_folder / name).read_bytes())
    content[-1] ^= 1
    (bundle_folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name}: expected SHA-256 .*…, got .*…; export the bundle again with"):
        verify(bundle_folder)


def test_cut_file_names_the_sizes(bundle_folder: Path) -> None:
    path = bundle_folder / "detector.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(BundleError, match=rf"detector.onnx: expected {len(whole)} bytes, got 100; export the bundle"):
        verify(bundle_folder)


@pytest.mark.parametrize("name", ["detector.onnx", "recipe.yaml"])
def test_missing_file_is_named(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: a file of this bundle is missing; export the bundle again"):
        verify(bundle_folder)


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "detector.onnx.data"])
def test_stray_file_is_named(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).write_text("?")
    with pytest.raises(BundleError, match=rf"{name}: not a file of this bundle; move it elsewhere"):
        verify(bundle_folder)


def test_stray_folder_is_named(bundle_folder: Path) -> None:
    (bundle_folder / "more").mkdir()
    with pytest.raises(BundleError, match="more: not a file of this bundle"):
        verify(bundle_folder)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"expected a bundle, found no bundle.json; make one with `weakray detect"):
        verify(tmp_path)


@pytest.mark.parametrize("version", [3, "1", None])
def test_other_format_version(bundle_folder: Path, version: Any) -> None:
    edit(bundle_folder, lambda content: content.update(format_version=version))
    with pytest.raises(BundleError, match=rf"expected format_version 1 or 2, got {version!r}; export the bundle again"):
        verify(bundle_folder)


@pytest.mark.parametrize("text", ["[1, 2]", "{", ""])
def test_bundle_json_that_is_no_manifest(bundle_folder: Path, text: str) -> None:
    (bundle_folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle.json: expected (JSON|format_version 1 or 2)"):
        read(bundle_folder)


def test_unknown_and_wrong_settings_name_their_path(bundle_folder: Path) -> None:
    edit(bundle_folder, lambda content: content["detector"].update(nms=1, max_boxes=0))
    with pytest.raises(BundleError, match=r"detector.max_boxes: input should be .* detector.nms: unknown setting"):
        read(bundle_folder)


def test_required_file_must_be_listed(bundle_folder: Path) -> None:
    edit(bundle_folder, lambda content: content["files"].pop("recipe.yaml"))
    with pytest.raises(BundleError, match=r"`files` lacks recipe.yaml"):
        verify(bundle_folder)


def test_file_outside_the_folder_is_refused(bundle_folder: Path) -> None:
    (bundle_folder.parent / "secret").write_text("")
    record = {"sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "bytes": 0}
    edit(bundle_folder, lambda content: content["files"].update({"../secret": record}))
    with pytest.raises(BundleError, match=r"secret: a file of this bundle is missing"):
        verify(bundle_folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("detector", "findings", ["Nodule", "Opacity", "Effusion"]),
        ("classifiers", "findings", ["Opacity", "Nodule"]),
        ("detector", "score_thresholds", {"Opacity": 0.5, "Nodule": 0.5}),
        ("classifiers", "decision_thresholds", {"Effusion": 0.5, "Opacity": 0.5, "Nodule": 0.5}),
    ],
)
def test_findings_must_agree_everywhere(bundle_folder: Path, part: str, key: str, value: Any) -> None:
    edit(bundle_folder, lambda content: content[part].update({key: value}))
    with pytest.raises(BundleError, match=rf"{part}.{key} is \[.*\], but taxonomy.yaml lists \['Opacity', 'Nodule'"):
        verify(bundle_folder)
