"""Any mixture of broken files, stray files and rows: taken + rejected = input, and no crash."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import coco, nih
from ingest.result import IngestResult
from weakray.config import validate
from weakray.dataset import Dataset

Kinds = dict[str, tuple[str, Callable[[int], bytes]]]
KINDS = [
    *("zero_byte", "truncated", "wrong_extension", "sixteen_bit", "palette", "cmyk", "alpha", "animated", "too_small"),
    *("unsupported_format", "unreadable", "missing", "no_row", "opaque_alpha", "colour_jpg", "capital_extension"),
]
REASON_OF = {"opaque_alpha": None, "colour_jpg": None, "capital_extension": None}
mixtures = st.lists(st.sampled_from(KINDS), max_size=8)
calm = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _fill(images: Path, kinds: list[str], broken: Kinds, sound: Kinds) -> list[str]:
    """Ten sound images and one of each kind; returns the names that get a row."""
    images.mkdir(parents=True)
    named: list[str] = []
    for at, kind in enumerate([*["grey_png"] * 10, *kinds]):
        extension, make = {**sound, **broken}.get(kind, sound["grey_png"])
        name = f"{at:08d}_000{extension}"
        if kind != "missing":
            (images / name).write_bytes(make(at))
        if kind != "no_row":
            named.append(name)
    return named


def _check(result: IngestResult, kinds: list[str], workers_again: Callable[[], IngestResult]) -> None:
    expected = sorted(reason for kind in kinds if (reason := REASON_OF.get(kind, kind)))
    with (result.out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["reason"] for row in rows) == expected
    assert all(row["item"] and row["detail"] for row in rows)
    assert result.images + result.rejected == 10 + len(kinds)
    assert Dataset.load(result.out).info["counts"]["rejected"] == len(expected)
    before = {path.name: path.read_bytes() for path in result.out.iterdir()}
    assert {path.name: path.read_bytes() for path in workers_again().out.iterdir()} == before


@calm
@given(kinds=mixtures)
def test_nih(tmp_path_factory: pytest.TempPathFactory, broken: Kinds, sound: Kinds, kinds: list[str]) -> None:
    root = tmp_path_factory.mktemp("nih")
    named = _fill(root / "images", kinds, broken, sound)
    rows = [f"{name},Mass,0,{at},50,F,PA,1,1,1,1" for at, name in enumerate(named)]
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,a,b,c,d"
    (root / "entries.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    boxes = [f"{name},Mass,2,2,9,9,,," for name in named[:4]]
    (root / "boxes.csv").write_text(
        "\n".join(["Image Index,Finding Label,Bbox [x,y,w,h],,,", *boxes]), encoding="utf-8"
    )
    plain: dict[str, Any] = {"images": root / "images", "labels": root / "entries.csv", "boxes": root / "boxes.csv"}
    plain |= {"out": root / "out", "box_frame_px": 24, "tune_images": 2}

    def ingest(workers: int) -> IngestResult:
        return nih.run(validate(nih.NihConfig, {**plain, "workers": workers}))

    _check(ingest(1), kinds, lambda: ingest(3))


@calm
@given(kinds=mixtures)
def test_coco(tmp_path_factory: pytest.TempPathFactory, broken: Kinds, sound: Kinds, kinds: list[str]) -> None:
    root = tmp_path_factory.mktemp("coco")
    named = _fill(root / "images", kinds, broken, sound)
    content = {
        "images": [{"id": at, "file_name": name} for at, name in enumerate(named)],
        "categories": [{"id": 0, "name": "card"}],
        "annotations": [{"id": 0, "image_id": at, "category_id": 0, "bbox": [2, 2, 9, 9]} for at in range(9)],
    }
    (root / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    plain: dict[str, Any] = {"images": root / "images", "annotations": root / "instances.json", "out": root / "out"}
    plain |= {"tune_images": 3, "test_images": 3, "val_images": 2}

    def ingest(workers: int) -> IngestResult:
        return coco.run(validate(coco.CocoConfig, {**plain, "workers": workers}))

    _check(ingest(1), kinds, lambda: ingest(3))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


box = st.lists(st.floats(-9, 40), min_size=4, max_size=4) | json_values
image_entry = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("id", "file_name", "height", "width", "patient_id"), json_values)
)
box_entry = st.fixed_dictionaries(
    {"image_id": st.integers(100, 112) | json_values, "category_id": st.sampled_from([0, 1, 3, None])},
    optional={"bbox": box, "iscrowd": json_values},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(image_entry | json_values, max_size=4), boxes=st.lists(box_entry | json_values, max_size=6))
def test_any_json_in_a_coco_file_is_counted(
    tmp_path_factory: pytest.TempPathFactory, broken: Kinds, sound: Kinds, images: list[Any], boxes: list[Any]
) -> None:
    root = tmp_path_factory.mktemp("json")
    named = _fill(root / "images", [], broken, sound)
    content = {
        "images": [*({"id": 100 + at, "file_name": name} for at, name in enumerate(named)), *images],
        "categories": [{"id": 0, "name": "card"}, {"id": 1, "name": "dice"}],
        "annotations": [
            *({"image_id": 100 + at, "category_id": 0, "bbox": [2, 2, 9, 9]} for at in range(9)),
            *boxes,
        ],
    }
    (root / "instances.json").write_text(json.dumps(content), encoding="utf-8")
    plain = {"images": root / "images", "annotations": root / "instances.json", "out": root / "out"}
    result = coco.run(validate(coco.CocoConfig, {**plain, "tune_images": 3, "test_images": 3, "val_images": 2}))
    data = Dataset.load(result.out)
    assert result.images == 10
    ceiling = data.ceiling_truth()
    taken = sum(map(len, data.truth.boxes.values())) + sum(map(len, ceiling.boxes.values() if ceiling else ()))
    taken += data.info["boxes"]["val_unused"]
    assert taken + result.rejected == 9 + len(images) + len(boxes)
