"""The loss of a detector of queries: ultralytics' own with true boxes, and what weights change of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from detect.batches import Batch
from detect.criterion import criterion_of
from detect.network import Network, new_network
from detect.quiet_import import import_ultralytics
from detect.set_loss import class_losses, targets_of
from weakray.imaging import InputSpec

NAMES = ["A", "B", "C"]


@pytest.fixture
def network(query_architecture: Path) -> Network:
    network = new_network(str(query_architecture), NAMES, InputSpec(size_px=64), 0)
    network.module.train()
    return network


def batch_of(**more: torch.Tensor) -> Batch:
    """Three images; boxes on the first two of them."""
    return {
        "img": torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)),
        "cls": torch.tensor([[0.0], [2], [1]]),
        "bboxes": torch.tensor([[0.3, 0.4, 0.3, 0.5], [0.7, 0.6, 0.4, 0.4], [0.5, 0.5, 0.6, 0.3]]),
        "batch_idx": torch.tensor([0.0, 0, 1]),
        **more,
    }


def gradients(network: Network, loss: torch.Tensor) -> list[torch.Tensor]:
    network.module.zero_grad()
    loss.backward()
    return [weight.grad.clone() for weight in network.module.parameters() if weight.grad is not None]


def test_weights_of_one_are_plain_ultralytics(network: Network) -> None:
    import_ultralytics()
    module = network.module
    module.nc = len(NAMES)

    def theirs() -> torch.Tensor:
        torch.manual_seed(5)
        total: torch.Tensor = module.loss(batch_of())[0]
        return total

    criterion = criterion_of(network, bf16=False)
    ones = batch_of(weights=torch.ones(3), elsewhere=torch.ones(3, 3))
    with torch.random.fork_rng(devices=[]):
        expected = theirs()
    wanted = gradients(network, expected)
    for given in (batch_of(), ones):
        loss = criterion(given, 5)[0]
        torch.testing.assert_close(loss, expected)
        for own, peer in zip(gradients(network, loss), wanted, strict=True):
            torch.testing.assert_close(own, peer, rtol=1e-3, atol=1e-5)


def test_what_is_drawn_depends_on_the_seed_alone(network: Network) -> None:
    criterion, before = criterion_of(network, bf16=False), torch.random.get_rng_state()
    first, again, other = (criterion(batch_of(), seed)[0] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_a_box_of_weight_zero_is_absent(network: Network, row: int) -> None:
    kept = torch.arange(3) != row
    whole = batch_of()
    fewer = {**whole, **{name: whole[name][kept] for name in ("cls", "bboxes", "batch_idx")}}
    criterion = criterion_of(network, bf16=False)
    weighed = criterion(batch_of(weights=kept.float()), 5)[0]
    torch.testing.assert_close(weighed, criterion(fewer, 5)[0])
    assert not torch.allclose(weighed, criterion(whole, 5)[0])


def test_a_weight_scales_the_box_loss(network: Network) -> None:
    criterion = criterion_of(network, bf16=False)
    whole, half = (criterion(batch_of(weights=torch.full((3,), weight)), 5)[1] for weight in (1.0, 0.5))
    for part in ("box_loss", "giou_loss"):
        torch.testing.assert_close(half[part], whole[part] / 2)


def test_a_batch_without_boxes_pushes_scores_down(network: Network) -> None:
    nothing = {"cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    total, parts = criterion_of(network, bf16=False)(batch_of(**nothing), 5)
    assert float(parts["box_loss"]) == float(parts["giou_loss"]) == 0
    total.backward()
    assert (network.module.model[-1].dec_score_head[-1].bias.grad > 0).all()


def test_class_losses_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    matched = torch.tensor([0]), torch.tensor([1]), torch.tensor([1])
    focus = SimpleNamespace(alpha=0.5, gamma=2.0)
    ln2 = 0.6931472  # the cross-entropy of logit 0, whatever the target
    background, presence = 0.5 * 0.5**2 * ln2, 0.8 * ln2  # α · score^γ; the overlap

    def losses(weight: float, elsewhere: torch.Tensor | None = None) -> torch.Tensor:
        return class_losses(logits, matched, torch.tensor([0.8]), torch.tensor([weight]), elsewhere, focus)

    expected = torch.full((2, 2, 2), background)
    expected[0, 1, 1] = presence
    torch.testing.assert_close(losses(1.0), expected)
    expected[0, 1, 1] = 0.25 * presence + 0.75 * background
    torch.testing.assert_close(losses(0.25), expected)
    part = losses(1.0, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(part[0], torch.tensor([[background, background / 2], [background, presence]]))
    torch.testing.assert_close(part[1], torch.tensor([[0.0, background], [0.0, background]]))


def test_a_finding_that_nobody_has_placed_teaches_no_background(network: Network) -> None:
    elsewhere = torch.ones(3, 3)
    elsewhere[:, 0] = 0  # any image may hold a finding A beside its boxes
    head = network.module.model[-1].dec_score_head[-1].bias
    only_c = {"cls": torch.tensor([[2.0]]), "bboxes": torch.tensor([[0.3, 0.4, 0.3, 0.5]]), "batch_idx": torch.zeros(1)}
    given = batch_of(**only_c, weights=torch.ones(1), elsewhere=elsewhere)
    criterion_of(network, bf16=False)(given, 5)[0].backward()
    assert head.grad[0] == 0
    assert head.grad[1] > 0


def test_boxes_are_told_by_image() -> None:
    targets = targets_of(batch_of(weights=torch.tensor([1.0, 0.0, 0.5])))
    assert targets["gt_groups"] == [1, 1, 0]
    assert targets["cls"].tolist() == [0, 1]
    assert targets["weights"].tolist() == [1.0, 0.5]
    assert targets["elsewhere"] is None
