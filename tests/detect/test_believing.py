"""Which pairs of an image and a finding are noisy, and what that does to their weights."""

from __future__ import annotations

import pytest

from detect.believing import noisy_pairs
from detect.training_set import PseudoBoxConfig, pseudo_training_boxes
from tests.detect.conftest import DatasetMaker, found_boxes
from tests.detect.test_training_set import EVERYTHING, relabelled
from weakray.detections import Detections
from weakray.errors import DataError

BOX, OTHER = [4, 6, 24, 26], [8, 6, 28, 20]


@pytest.mark.parametrize(
    ("share", "noisy"),
    [
        (1.0, ""),
        (0.75, "d"),  # three of four are clean: .9, .5, .5
        (0.5, "d"),  # two, and what ties with the second
        (0.3, "d"),  # 1.2, rounded up
        (0.25, "bcd"),
        (0.001, "bcd"),  # one at least
    ],
)
def test_the_pairs_of_lowest_best_boxes_are_noisy(share: float, noisy: str) -> None:
    kept = {
        "a": found_boxes([BOX, BOX], [0, 0], [0.1, 0.9]),
        "b": found_boxes([BOX], [0], [0.5]),
        "c": found_boxes([BOX, BOX], [0, 1], [0.5, 0.2]),  # the only one of finding 1: clean, however low
        "d": found_boxes([BOX], [0], [0.3]),
        "e": Detections.empty(),
    }
    found = noisy_pairs(kept, 3, share)
    assert {image_id: row.tolist() for image_id, row in found.items()} == {
        image_id: [image_id in noisy, False, False] for image_id in kept
    }


def test_a_share_counts_exactly() -> None:
    kept = {str(i): found_boxes([BOX], [0], [(i + 1) / 100]) for i in range(100)}
    assert sum(row.sum() for row in noisy_pairs(kept, 1, 0.55).values()) == 45  # 0.55 · 100 is above 55 in floats


@pytest.mark.parametrize(
    ("weights", "clean", "low"),
    [("one", [1.0], [1.0, 1.0]), ("score", [1.0], [0.3 + 0.7 * 2 / 3, 0.3 + 0.7 / 3])],  # ranks 3, 2, 1 of 3
)
def test_noisy_pairs_count_less_and_are_counted(
    make_dataset: DatasetMaker, weights: str, clean: list[float], low: list[float]
) -> None:
    dataset = relabelled(make_dataset(train=3), train0=[1, 0], train1=[1, 1], train2=[0, -1])
    predictions = {
        "train0": found_boxes([BOX, OTHER], [0, 1], [0.9, 0.8]),  # Bar is not there: contradicted
        "train1": found_boxes([BOX, OTHER], [0, 0], [0.4, 0.3]),  # and Bar is, without a box
        "train2": found_boxes([BOX, OTHER], [0, 1], [0.1, 0.6]),  # Disc is not there, but was below the cut-off
    }
    settings = {"score_at_least": 0.2, "clean_share": 0.5, "noisy_weight": 0.25, "elsewhere": 0.8, "weights": weights}
    config = EVERYTHING.model_copy(update=settings)
    made = pseudo_training_boxes(dataset, predictions, config, 0)
    assert made.boxes["train0"].score.tolist() == pytest.approx(clean)
    assert made.boxes["train1"].score.tolist() == pytest.approx([0.25 * weight for weight in low])
    assert {image_id: row.tolist() for image_id, row in made.elsewhere.items()} == {
        "train0": pytest.approx([0.8, 1]),
        "train1": pytest.approx([0.2, 0]),
        "train2": pytest.approx([1, 0.8]),
    }
    counts = made.counts
    assert (counts.clean_pairs, counts.noisy_pairs, counts.contradicted_pairs, counts.unplaced) == (2, 1, 1, 1)
    plain = pseudo_training_boxes(dataset, predictions, config.model_copy(update={"clean_share": 1.0}), 0).counts
    assert (plain.clean_pairs, plain.noisy_pairs, plain.contradicted_pairs) == (3, 0, 1)


def test_ranks_among_all_findings_weigh_background_too(make_dataset: DatasetMaker) -> None:
    dataset = relabelled(make_dataset(train=3), train0=[1, 0], train1=[1, 1], train2=[0, -1])
    predictions = {
        "train0": found_boxes([BOX], [0], [0.9]),
        "train1": found_boxes([BOX, OTHER], [0, 0], [0.4, 0.3]),
        "train2": found_boxes([OTHER], [1], [0.6]),
    }
    settings = {"score_at_least": 0.2, "clean_share": 0.5, "noisy_weight": 0.25, "elsewhere": 0.8, "weights": "pooled"}
    made = pseudo_training_boxes(dataset, predictions, EVERYTHING.model_copy(update=settings), 0)
    # ranks 4 (.9), 3 (.6), 2 and 1 of 4, from .3 to 1; train1 is the noisier half of Disc's images
    weights = {"train0": [1.0], "train1": [0.25 * 0.65, 0.25 * 0.475], "train2": [0.825]}
    for image_id, expected in weights.items():
        assert made.boxes[image_id].score.tolist() == pytest.approx(expected)
    assert {image_id: row.tolist() for image_id, row in made.elsewhere.items()} == {
        "train0": pytest.approx([0.8, 1]),
        "train1": pytest.approx([0.8 * 0.25 * 0.65, 0]),
        "train2": pytest.approx([1, 0.8 * 0.825]),
    }


def test_boxes_of_other_findings_are_refused(make_dataset: DatasetMaker) -> None:
    dataset = make_dataset()
    predictions = {"train0": found_boxes([BOX], [2], [0.9])}
    message = r"pseudo-boxes: expected class ids below 2 for the findings \['Disc', 'Bar'\], got 2 for image 'train0'"
    with pytest.raises(DataError, match=message):
        pseudo_training_boxes(dataset, predictions, PseudoBoxConfig(score_at_least=0.0), 0)
