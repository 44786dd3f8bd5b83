"""Maps and boxes that nobody should have, but somebody will."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camgen.components import SHAPE_NAMES
from camgen.search import search
from camgen.tuning import tune_findings
from tests.camgen.makers import NAMES, blob_maps, films, whole
from tests.camgen.test_components import found_in
from tests.camgen.test_search import QUICK, SHA, SIZE, boxed_films, config
from weakray.detections import Detections

FEW: dict[str, Any] = {**QUICK, "priors": (0.0, 1.0)}


@pytest.mark.parametrize("merge_gap", [0.0, 0.001])
def test_ten_thousand_components(merge_gap: float) -> None:
    drawn = np.zeros((200, 210))
    drawn[:200:2, :200:2] = np.linspace(0.5, 1, 10_000).reshape(100, 100)
    found = found_in([whole(drawn)] * 2, 0.4, merge_gap=merge_gap)
    assert found.valid.all()
    assert np.exp(found.shape[..., SHAPE_NAMES.index("log_count")]) == pytest.approx(10_000)
    assert found.peak[0] == pytest.approx(np.linspace(0.5, 1, 10_000)[:-4:-1])
    assert found_in([whole(drawn)], 0.4, merge_gap=0.02).valid.sum() == 1


def test_true_boxes_of_the_whole_image(tmp_path: Path) -> None:
    """There is nothing to point at; the calibration learns the one size that is right."""
    ids = [f"i{i:03d}" for i in range(12)]
    height, width = SIZE
    everywhere = Detections(np.array([[0, 0, width, height]]), np.array([0]), np.ones(1))
    dataset = films(tmp_path / "data", ["tune"] * 12, dict.fromkeys(ids, everywhere), size_hw=SIZE)
    maps = blob_maps(dataset, ids, {(image_id, 0): [20, 10, 60, 40] for image_id in ids}, 16)
    findings = tune_findings(dataset, dataset.truth_of("tune"), ids, 3, 0)
    recipe, _ = search(config(**FEW), SHA, NAMES, maps, findings)
    assert recipe.findings[0].tune.ap50 == pytest.approx(1)
    for found in recipe.apply(recipe.maps(maps), recipe.probabilities(maps), maps.placements):
        own = found.of_class(0)
        assert len(own) == 1
        assert own.boxes_xyxy_px[0] == pytest.approx([0, 0, width, height], abs=8)


@pytest.mark.parametrize("boxes", [0, 1])
def test_a_tune_part_with_one_box_or_none(tmp_path: Path, boxes: int) -> None:
    dataset, seen = boxed_films(tmp_path / "data", tune=6)
    ids = dataset.ids_of("tune")
    findings = tune_findings(dataset, dataset.truth_of("tune"), ids, 3, 0)
    for finding in findings:
        finding.truth.valid[:] = False
    if boxes:
        findings[0].truth.valid[0, 0] = True
        findings[0].truth.boxes_rel[0, 0] = [0.2, 0.2, 0.6, 0.7]
    recipe, tried = search(config(**FEW), SHA, NAMES, blob_maps(dataset, ids, seen, 16), findings)
    assert [entry.tune.boxes for entry in recipe.findings] == [boxes, 0, 0]
    assert all(entry.calibration is None for entry in recipe.findings)
    assert (recipe.findings[0].tune.ap50 is None) == (boxes == 0)
    assert bool(tried["ingredients"]) == bool(boxes)


def test_a_nan_map_gives_no_box() -> None:
    drawn = np.zeros((8, 8))
    drawn[2:4, 2:4] = np.nan
    found = found_in([whole(drawn)])
    assert not found.valid.any()
