"""A changed input of any reader is noticed: the pipeline reads the data again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingest.chexpert import ChexpertConfig
from ingest.yolo import YoloConfig
from weakray.config import validate
from weakray.pipeline import _ingest_inputs


def _files(root: Path, *names: str) -> list[Path]:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("a", encoding="utf-8")
    return [root / name for name in names]


def test_files_lists_of_files_and_taxonomies(tmp_path: Path) -> None:
    train, one, two, own = _files(tmp_path, "train.csv", "val.json", "test.json", "own.yaml")
    plain: dict[str, Any] = {"images": tmp_path / "films", "out": tmp_path / "out", "train": train}
    config = validate(ChexpertConfig, {**plain, "contours": [one, two], "taxonomy": str(own)})
    first = _ingest_inputs(config)
    assert sorted(first) == ["contours", "taxonomy", "train"]
    for path, name in ((train, "train"), (two, "contours"), (own, "taxonomy")):
        path.write_text("b", encoding="utf-8")
        second = _ingest_inputs(config)
        assert {key for key in second if second[key] != first[key]} == {name}
        first = second
    shipped = _ingest_inputs(validate(ChexpertConfig, plain))
    assert shipped["taxonomy"] != first["taxonomy"]


def test_labels_among_the_images_and_images_by_size(tmp_path: Path) -> None:
    data, label, image = _files(tmp_path, "data.yaml", "set/labels/1.txt", "set/images/1.png")
    config = validate(YoloConfig, {"data": data, "images": tmp_path / "set", "out": tmp_path / "out"})
    first = _ingest_inputs(config)
    image.write_text("b", encoding="utf-8")
    assert _ingest_inputs(config) == first  # as large as before: reading every image is the work of ingest
    label.write_text("b", encoding="utf-8")
    assert _ingest_inputs(config) != first
