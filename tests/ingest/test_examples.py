"""A few films for the server's page: unlike, nameless, with their boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ingest.examples import ExamplesConfig, run
from serve.examples import load_examples
from weakray.coco import BoxTruth
from weakray.dataset import Dataset, write_dataset
from weakray.detections import Detections
from weakray.errors import DataError
from weakray.files import sha256_file
from weakray.imaging import write_image
from weakray.taxonomy import Taxonomy

NAMES = ("Opacity", "Nodule")
SHOWN = [[0], [0], [1, 1], [0, 1], []]  # findings of each test film


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    root, rows, boxes = tmp_path / "data", [], {}
    root.mkdir()
    for i in range(len(SHOWN) + 1):
        path = root / f"patient-{i}.png"
        write_image(path, np.random.default_rng(i).integers(0, 256, (30, 44), dtype=np.uint8))
        rows.append(
            {
                "image_id": f"i{i}",
                "path": path.name,
                "patient_id": f"p{i}",
                "study_id": f"s{i}",
                "view": "PA",
                "height": 30,
                "width": 44,
                "split": "test" if i < len(SHOWN) else "train",
                "source": "made",
                "sha256": sha256_file(path),
            }
        )
    for i, findings in enumerate(SHOWN):
        where = np.array([[k, 2 * k, 10 + k, 20] for k in range(len(findings))], np.float32)
        ids, scores = np.array(findings, np.int64), np.ones(len(findings), np.float32)
        boxes[f"i{i}"] = Detections(where, ids, scores)
    labels = pd.DataFrame(
        [[0.0, 0.0]] * len(rows), index=pd.Index([row["image_id"] for row in rows]), columns=list(NAMES)
    )
    return write_dataset(
        root,
        images=pd.DataFrame(rows),
        labels=labels,
        taxonomy=Taxonomy.flat(NAMES),
        truth=BoxTruth(boxes, frozenset((image_id, k) for image_id in boxes for k in (0, 1))),
        ceiling=None,
        rejected=[],
        info={"origin": "made for tests"},
    )


def test_films_are_unlike_and_the_server_reads_them(data: Dataset, tmp_path: Path) -> None:
    result = run(ExamplesConfig(data=data.root, out=tmp_path / "out", count=4))
    # i3 shows both findings; then all are shown and the next round takes the best again: i0, then i2 for Nodule, i1
    assert (result.examples, result.boxes) == (4, 6)
    examples = load_examples(tmp_path / "out")
    shown = [list(dict.fromkeys(box.finding for box in example.boxes or ())) for example in examples.values()]
    assert shown == [["Opacity", "Nodule"], ["Opacity"], ["Nodule"], ["Opacity"]]
    assert [example.entry.title for example in examples.values()] == ["Film 1", "Film 2", "Film 3", "Film 4"]
    assert all(example.entry.truth for example in examples.values())
    first = examples["example-1"]
    assert first.content == (data.root / "patient-3.png").read_bytes()
    assert first.boxes is not None
    assert [(box.finding, box.xyxy_px) for box in first.boxes] == [
        ("Opacity", (0, 0, 10, 20)),
        ("Nodule", (1, 2, 11, 20)),
    ]
    for path in (tmp_path / "out").rglob("*.json"):
        assert "patient-" not in path.read_text()
    assert run(ExamplesConfig(data=data.root, out=tmp_path / "out", count=4)) == result


def test_a_film_without_boxes_is_one_without_finding(data: Dataset, tmp_path: Path) -> None:
    run(ExamplesConfig(data=data.root, out=tmp_path / "out", count=20))
    examples = load_examples(tmp_path / "out")
    assert len(examples) == 5
    assert examples["example-5"].boxes == ()


def test_a_split_without_boxes_is_said(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected films with known boxes in split tune, got none"):
        run(ExamplesConfig(data=data.root, out=tmp_path / "out", split="tune"))
