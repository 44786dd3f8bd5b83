"""Both verbs on the data at hand, where it is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import weakray
from ingest import coco, nih
from weakray.config import validate
from weakray.dataset import Dataset

DATA = Path(weakray.__file__).parents[2] / "shared" / "data"
# The real data lie beside the checkout, never in it: a bare clone has none, and can only skip. What the readers do with
# such files is tested on made ones (test_nih.py, test_coco.py), which are never skipped.
needs_nih = pytest.mark.skipif(not (DATA / "nih_cxr").is_dir(), reason=f"{DATA}/nih_cxr is not there")
needs_cards = pytest.mark.skipif(not (DATA / "cards").is_dir(), reason=f"{DATA}/cards is not there")


def _nih(out: Path, **changes: Any) -> dict[str, Any]:
    at = DATA / "nih_cxr"
    files = {"images": at / "images", "labels": at / "Data_Entry_2017.csv", "boxes": at / "BBox_List_2017.csv"}
    return {**files, "out": out, "box_frame_px": 512, **changes}


@needs_nih
def test_real_chest_films(tmp_path: Path) -> None:
    result = nih.run(validate(nih.NihConfig, _nih(tmp_path / "out")))
    assert (result.images, result.patients, result.rejected) == (1130, 995, 0)
    data = Dataset.load(result.out)
    truth = data.truth
    assert len(truth.boxes) == 650
    assert sum(map(len, truth.boxes.values())) == 730
    assert [len(data.truth_of(split).boxes) for split in ("tune", "test")] == [100, 550]
    # the frame is right: hearts lie in the middle of the chest, left of its centre line as seen, below its middle
    hearts = [b.of_class(data.taxonomy.index["Cardiomegaly"]).boxes_xyxy_px for b in truth.boxes.values()]
    middle = np.concatenate(hearts).reshape(-1, 2, 2).mean(axis=1).mean(axis=0)
    assert 256 < middle[0] < 320
    assert 270 < middle[1] < 360
    for finding in ("Cardiomegaly", "Nodule", "Pneumothorax"):
        class_id = data.taxonomy.index[finding]
        boxed = {s: sum(class_id in b.class_id for b in data.truth_of(s).boxes.values()) for s in ("tune", "test")}
        assert boxed["tune"] == pytest.approx((boxed["tune"] + boxed["test"]) * 100 / 650, abs=2)


@needs_cards
def test_real_photographs(tmp_path: Path) -> None:
    at = DATA / "cards"
    plain = {"images": at / "images", "annotations": at / "instances.json", "out": tmp_path / "out"}
    sizes = {"tune_images": 60, "test_images": 100, "val_images": 30}
    result = coco.run(validate(coco.CocoConfig, {**plain, **sizes}))
    assert (result.images, result.rejected, result.warnings) == (363, 0, ())
    assert result.splits == {"train": 173, "val": 30, "tune": 60, "test": 100}
    data = Dataset.load(result.out)
    assert data.taxonomy.names == ["ace", "jack", "king", "nine", "queen", "ten"]
    boxes = data.info["boxes"]
    assert boxes["tune_and_test"] + boxes["ceiling"] + boxes["val_unused"] == 670
    assert int((data.labels.sum(axis=1) >= 2).sum()) == 136
