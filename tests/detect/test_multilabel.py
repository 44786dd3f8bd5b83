"""The loss's assignment of anchors to true boxes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from detect.multilabel import WeighedCrossEntropy, assigner_class, class_targets, detection_loss, padded
from detect.network import new_network
from detect.quiet_import import import_ultralytics
from weakray.imaging import InputSpec

CLASSES = 4


def assign(assigner: type[Any], boxes: torch.Tensor, labels: torch.Tensor, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Assigns true boxes `(n, b, 4)` on a grid of 12 × 12 anchors with random predictions."""
    generator = torch.Generator().manual_seed(seed)
    steps = torch.arange(12) * 8.0 + 4
    anchors = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    count = len(boxes)
    reach = torch.rand(count, len(anchors), 4, generator=generator) * 24 + 4
    predicted = torch.cat([anchors - reach[..., :2], anchors + reach[..., 2:]], dim=-1)
    scores = torch.rand(count, len(anchors), CLASSES, generator=generator)
    there = (boxes.sum(dim=-1, keepdim=True) > 0).float()
    made = assigner(topk=10, num_classes=CLASSES, alpha=0.5, beta=6.0, stride=[8, 16])
    return tuple(made(scores, predicted, anchors, labels, boxes, there))


@pytest.mark.parametrize("count", [1, 3])
def test_agrees_with_ultralytics_where_boxes_do_not_meet(count: int) -> None:
    import_ultralytics()
    from ultralytics.utils.tal import TaskAlignedAssigner

    boxes = torch.tensor([[[2.0, 2, 40, 30], [50, 4, 94, 44], [8, 50, 44, 92]]]).repeat(count, 1, 1)
    boxes[-1, 2] = 0  # a row of padding
    labels = torch.tensor([[[1.0], [3], [0]]]).repeat(count, 1, 1)
    ours, theirs = assign(assigner_class(), boxes, labels), assign(TaskAlignedAssigner, boxes, labels)
    taken = theirs[3]
    assert taken.sum() > 10
    assert ours[3].equal(taken)
    assert ours[1][taken].equal(theirs[1][taken])
    torch.testing.assert_close(ours[2], theirs[2])


def test_boxes_in_one_place_are_each_learnt() -> None:
    import_ultralytics()
    from ultralytics.utils.tal import TaskAlignedAssigner

    boxes = torch.tensor([[[10.0, 10, 70, 60]] * 3])
    labels = torch.tensor([[[2.0], [0], [3]]])
    ours = assign(assigner_class(), boxes, labels)[2][0].amax(dim=0)
    torch.testing.assert_close(ours[[0, 2]], ours[[3, 3]])  # the best overlap, for each of the three
    assert ours[3] > 0.2
    assert ours[1] == 0
    alone = [assign(TaskAlignedAssigner, boxes[:, :1], labels[:, i : i + 1])[2] for i in range(3)]
    torch.testing.assert_close(assign(assigner_class(), boxes, labels)[2], torch.stack(alone).amax(dim=0))
    theirs = assign(TaskAlignedAssigner, boxes, labels)[2][0]
    assert (theirs.sum(dim=0) < alone[0][0].sum()).sum() >= 2  # why ours exists: twins starve


def test_targets_by_hand() -> None:
    # two boxes of class 1 and one of class 0 over three anchors; class 2 has none
    chosen = torch.tensor([[[1, 1, 0], [0, 1, 1], [0, 1, 0]]])
    alignment = torch.tensor([[[0.2, 0.4, 9.0], [9.0, 0.1, 0.5], [9.0, 0.3, 9.0]]])
    overlaps = torch.tensor([[[0.5, 0.8, 0.0], [0.0, 0.2, 0.6], [0.0, 0.9, 0.0]]])
    labels = torch.tensor([[[1.0], [1.0], [0.0]]])
    targets = class_targets(chosen, alignment, overlaps, labels, classes=3, eps=0.0)[0]
    expected = torch.tensor([[0.0, 0.4, 0.0], [0.9, 0.8, 0.0], [0.0, 0.6, 0.0]])  # 0.2·0.8/0.4; 0.8 beats 0.1·0.6/0.5
    torch.testing.assert_close(targets, expected)


def test_loss_of_an_empty_batch_is_finite_and_pushes_scores_down() -> None:
    network = new_network("yolo11n.yaml", ["A", "B"], InputSpec(size_px=64), 0)
    loss = detection_loss(network.module)
    network.module.train()
    batch = {"img": torch.rand(3, 1, 64, 64), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    total, parts = loss(network.module(batch["img"]), {**batch, "batch_idx": torch.zeros(0)})
    assert set(parts) == {"box_loss", "cls_loss", "dfl_loss"}
    assert float(parts["box_loss"]) == 0
    assert float(total.sum().detach()) > 0
    total.sum().backward()
    head = network.module.model[-1].cv3[0][-1].bias.grad
    assert (head > 0).all()


def outputs_and_boxes(
    architecture: str = "yolo11n.yaml",
) -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A network, its raw outputs on three images, and boxes on the first two of them."""
    network = new_network(architecture, ["A", "B", "C"], InputSpec(size_px=64), 0).module
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        outputs = network.train()(torch.rand(3, 1, 64, 64, generator=generator))
    batch = {
        "cls": torch.tensor([[0.0], [2], [1]]),
        "bboxes": torch.tensor([[0.3, 0.4, 0.3, 0.5], [0.7, 0.6, 0.4, 0.4], [0.5, 0.5, 0.6, 0.3]]),
        "batch_idx": torch.tensor([0.0, 0, 1]),
    }
    return network, outputs, batch


def without(batch: dict[str, torch.Tensor], row: int) -> dict[str, torch.Tensor]:
    kept = torch.arange(3) != row
    return {name: values[kept] for name, values in batch.items()}


@pytest.mark.parametrize("architecture", ["yolo11n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
def test_weights_of_one_are_plain_ultralytics_where_boxes_do_not_meet(architecture: str) -> None:
    import_ultralytics()
    from ultralytics.utils.loss import v8DetectionLoss

    network, outputs, batch = outputs_and_boxes(architecture)
    theirs = v8DetectionLoss(network)(outputs, batch)[0]
    ones = {"weights": torch.ones(3), "elsewhere": torch.ones(3, 3)}
    for given in (batch, {**batch, **ones}):
        torch.testing.assert_close(detection_loss(network)(outputs, given)[0], theirs)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_box_of_weight_zero_is_absent(row: int) -> None:
    network, outputs, batch = outputs_and_boxes()
    weights = (torch.arange(3) != row).float()
    loss = detection_loss(network)
    weighed, fewer = (loss(outputs, b)[0] for b in ({**batch, "weights": weights}, without(batch, row)))
    torch.testing.assert_close(weighed, fewer)
    assert not torch.allclose(weighed, loss(outputs, batch)[0])


def test_a_weight_lies_between_presence_and_absence() -> None:
    chosen = torch.tensor([[[1, 1, 0]]])
    alignment, overlaps = torch.tensor([[[0.2, 0.4, 0.0]]]), torch.tensor([[[0.5, 0.8, 0.0]]])
    given = (chosen, alignment, overlaps, torch.tensor([[[1.0]]]), 2, 0.0)
    logits = torch.tensor([[[0.3, -1.0], [2.0, 0.7], [-0.4, 0.1]]])
    full, some, none = (
        WeighedCrossEntropy()(logits, class_targets(*given, torch.tensor([[weight]]))) for weight in (1.0, 0.25, 0.0)
    )
    torch.testing.assert_close(class_targets(*given, torch.tensor([[0.25]]))[0, :, 1], torch.tensor([0.1, 0.2, 0.0]))
    torch.testing.assert_close(some, 0.25 * full + 0.75 * none)


def test_what_lies_elsewhere_counts_by_its_weight() -> None:
    logits, targets = torch.zeros(2, 2, 2), torch.tensor([[[0.5, 0.0], [0.0, 0.0]]] * 2)
    loss = WeighedCrossEntropy()
    loss.elsewhere = torch.tensor([[0.25, 1.0], [0.0, 0.5]])
    ln2 = 0.6931472  # the cross-entropy of logit 0, whatever the target
    expected = torch.tensor([[[1, 1], [0.25, 1]], [[1, 0.5], [0, 0.5]]]) * ln2
    torch.testing.assert_close(loss(logits, targets), expected)


def test_a_finding_that_nobody_has_placed_teaches_no_background() -> None:
    network, outputs, batch = outputs_and_boxes()
    elsewhere = torch.ones(3, 3)
    elsewhere[2, 0] = 0  # the third image may hold a finding A and has no box of it
    loss = detection_loss(network)
    outputs = {name: value.requires_grad_() if name == "scores" else value for name, value in outputs.items()}
    loss(outputs, {**batch, "weights": torch.ones(3), "elsewhere": elsewhere})[0].sum().backward()
    gradient = outputs["scores"].grad  # (n, k, anchors)
    assert gradient is not None
    assert (gradient[2, 0] == 0).all()
    assert (gradient[2, 1:] > 0).all()


def test_padding_follows_the_order_of_boxes() -> None:
    values = padded(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.0, 2, 2]), 3)
    torch.testing.assert_close(values, torch.tensor([[0.1, 0], [0, 0], [0.2, 0.3]]))
    assert padded(torch.zeros(0), torch.zeros(0), 3).shape == (3, 0)
