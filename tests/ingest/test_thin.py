"""Train images without a finding may be thinned out; nothing else ever is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ingest.coco import CocoConfig
from ingest.coco import run as run_coco
from ingest.image_files import ImageFacts
from ingest.nih import NihConfig, run
from ingest.take import ImageRow, TakenImage, TakenImages
from ingest.thin import thin_train
from weakray.config import validate
from weakray.dataset import Dataset, Split
from weakray.errors import DataError

Make = Callable[..., Any]


def _taken(count: int, labels: Callable[[int], dict[int, float]]) -> TakenImages:
    def one(at: int) -> TakenImage:
        row = ImageRow(f"row {at}", f"i{at:03d}", f"{at}.png", f"p{at}", f"s{at}", "", labels(at))
        return TakenImage(row, f"{at}.png", ImageFacts(3, 5, f"{at:064d}"))

    return TakenImages({f"i{at:03d}": one(at) for at in range(count)}, [], 0)


def test_only_train_images_without_a_finding_go_and_a_share_of_them_stays() -> None:
    said: list[dict[int, float]] = [{0: 0.0, 1: 0.0}, {0: 1.0}, {1: -1.0}, {}]
    taken = _taken(400, lambda at: said[at % 4])
    split_of: dict[str, Split] = {f"i{at:03d}": "val" if at % 8 >= 4 else "train" for at in range(400)}
    keep = {"i000", "i008"}
    left, rejected = thin_train(taken, split_of, share=0.25, seed=3, keep=keep)
    # 100 train images have no finding (0 or nothing said); 2 have boxes, of the others 25 % of 98, up: 25
    assert len(rejected) == 98 - 25
    assert len(left.images) + len(rejected) == 400
    assert keep <= set(left.images)
    gone = set(taken.images) - set(left.images)
    assert all(split_of[i] == "train" and int(i[1:]) % 4 in (0, 3) for i in gone)
    assert {r.reason for r in rejected} == {"thinned"}
    assert rejected[0].detail == "a train image without any finding; no_finding_share 0.25 keeps fewer of them"
    again, _ = thin_train(taken, split_of, share=0.25, seed=3, keep=keep)
    other, _ = thin_train(taken, split_of, share=0.25, seed=4, keep=keep)
    assert set(again.images) == set(left.images) != set(other.images)
    assert thin_train(taken, split_of, share=1, seed=3, keep=()) == (taken, [])


ENTRIES = [(f"{at:08d}_000.png", "Mass" if at < 4 else "No Finding", str(at)) for at in range(24)]
BOXES = [(f"{at:08d}_000.png", "Mass", (128, 128, 256, 128)) for at in range(3)]


def _nih(files: Any, **changes: Any) -> NihConfig:
    plain = {"images": files.images, "out": files.root / "out", "box_frame_px": 512, "tune_images": 1, **files.tables}
    return validate(NihConfig, plain | changes)


def test_thinned_images_are_rejected_inputs(tmp_path: Path, make_nih: Make) -> None:
    files = make_nih(tmp_path, ENTRIES, BOXES)
    whole = run(_nih(files, val_fraction=0.2))
    thin = run(_nih(files, val_fraction=0.2, split={"no_finding_share": 0.5}))
    empty_in_train = whole.splits["train"] - 1  # image 3 has Mass and no box
    assert thin.splits == {**whole.splits, "train": 1 + -(-empty_in_train // 2)}
    assert thin.images + thin.rejected == 24


def test_settings_of_the_split_reach_the_readers(tmp_path: Path, make_nih: Make, make_coco: Make) -> None:
    files = make_nih(tmp_path / "n", ENTRIES, BOXES)
    one, other = (
        Dataset.load(run(_nih(files, split={"method": method})).out).info["split_proof"]["assignment_sha256"]
        for method in ("stratified", "random")
    )
    assert one != other
    with pytest.raises(DataError, match="official needs the data set's own lists, and there are none"):
        run(_nih(files, split={"method": "official"}))
    with pytest.raises(DataError, match="a split by time needs study dates, and no image has one"):
        run(_nih(files, split={"method": "time"}))
    cards = make_coco(tmp_path / "c", 30)
    plain = {"images": cards.images, "out": tmp_path / "o", "tune_images": 5, "test_images": 5, "val_images": 4}
    result = run_coco(validate(CocoConfig, {**plain, **cards.tables, "split": {"quotas": {"val": 4}}}))
    assert result.splits["val"] >= 12
    assert any("val: 8 images beyond the size asked for, to meet its quota" in w for w in result.warnings)
    with pytest.raises(DataError, match="a COCO file names no split; choose another split.method"):
        run_coco(validate(CocoConfig, {**plain, **cards.tables, "split": {"method": "official"}}))


def test_warnings_are_printed_and_stand_in_the_dataset(
    tmp_path: Path, make_nih: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(_nih(make_nih(tmp_path, ENTRIES, BOXES)))
    told = next(w for w in result.warnings if w.startswith("val: no positive image of "))
    assert f"warning: out: {told}\n" in capsys.readouterr().err
    assert told in Dataset.load(result.out).info["warnings"]
