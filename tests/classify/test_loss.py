from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss  # type: ignore[import-untyped]

from classify.hierarchy import along_paths
from classify.labels import UNSURE, Targets, conditional
from classify.loss import Loss, LossConfig, counted_targets, criterion
from classify.pair_losses import asymmetric, cross_entropy, focal, path_logs, three_classes, two_sided
from classify.ranking_loss import auc_margin
from weakray.config import validate
from weakray.errors import ConfigError
from weakray.stack import silence
from weakray.taxonomy import Finding, Taxonomy

# Children first, so that nothing can rely on parents standing before them.
CHAIN = Taxonomy((Finding("C", "B"), Finding("B", "A"), Finding("A")))
PAIR = Taxonomy.flat(["Mass", "Nodule"])
THREE = math.log(3)  # σ(log 3) = 3/4
KINDS = ["bce", "chexnet", "focal", "asl", "auc_margin", "unconditional"]
CPU = torch.device("cpu")


def all_counted(values: Any) -> Targets:
    made = np.array(values, np.float32)
    return Targets(made, np.ones(made.shape, bool))


def made(taxonomy: Taxonomy = PAIR, given: Targets | None = None, **settings: Any) -> Loss:
    counted = all_counted([[1] * len(taxonomy), [0] * len(taxonomy)]) if given is None else given
    return criterion(validate(LossConfig, settings), counted, CPU, taxonomy)


def drawn(taxonomy: Taxonomy, images: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shape = (images, len(taxonomy))
    values = (torch.rand(shape, generator=rng) < 0.4).float()
    return 2 * torch.randn(shape, generator=rng), values, torch.rand(shape, generator=rng) < 0.8


def test_bce_by_hand() -> None:
    logits = torch.tensor([[THREE, -THREE], [THREE, 50.0]])
    values = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    mask = torch.tensor([[True, True], [True, False]])
    # Mass: 1 of 3 present, weight 2; Nodule: 1 of 10, weight 9, capped at 5.
    seen = np.zeros((10, 2), np.float32)
    seen[0] = 1
    counts = np.ones((10, 2), bool)
    counts[3:, 0] = False
    loss = made(given=Targets(seen, counts), pos_weight_cap=5)
    expected = (2 * math.log(4 / 3) + 5 * math.log(4) + math.log(4)) / 3
    assert loss(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)
    terms = loss.terms(logits, values, mask)
    assert [terms.total.item() / 3, terms.counted.item()] == pytest.approx([expected, 3], rel=1e-6)
    plain = made(given=Targets(seen, counts), pos_weight_cap=None)
    expected = (math.log(4 / 3) + math.log(4) + math.log(4)) / 3
    assert plain(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)


def test_the_negative_term_is_one_minus_y() -> None:
    """y(1 - y)·log(1 - p), as it stands in print somewhere, is 0 for y = 0."""
    for each in (
        cross_entropy(torch.tensor([[THREE]]), torch.zeros(1, 1), None),
        two_sided(torch.tensor([[THREE]]), torch.zeros(1, 1), torch.ones(1), torch.ones(1)),
        focal(torch.tensor([[THREE]]), torch.zeros(1, 1), 0, 0, None),
        asymmetric(torch.tensor([[THREE]]), torch.zeros(1, 1), 0, 0, 0),
    ):
        assert each.item() == pytest.approx(math.log(4), rel=1e-6)


def test_soft_and_smoothed_targets_by_hand() -> None:
    logits, values, mask = torch.tensor([[THREE, -THREE]]), torch.tensor([[0.7, 1.0]]), torch.ones(1, 2).bool()
    # -(.7 log 3/4 + .3 log 1/4), -log 1/4
    expected = (0.7 * math.log(4 / 3) + 0.3 * math.log(4) + math.log(4)) / 2
    assert made(pos_weight_cap=None)(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)
    # s = .2: .7 → .66, 1 → .9
    expected = (0.66 * math.log(4 / 3) + 0.34 * math.log(4) + 0.9 * math.log(4) + 0.1 * math.log(4 / 3)) / 2
    smoothed = made(pos_weight_cap=None, label_smoothing=0.2)
    assert smoothed(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)


def test_chexnet_weighs_the_rarer_kind_more() -> None:
    """Mass has 1 present of 5, Nodule 3 of 4; the fifth does not count."""
    values = np.array([[1, 1], [0, 1], [0, 1], [0, 0], [0, 0]], np.float32)
    mask = np.ones((5, 2), bool)
    mask[4, 1] = False
    loss = made(given=Targets(values, mask), kind="chexnet")
    each = torch.zeros(1, 2)  # every term is log 2
    present, absent = (loss(each, torch.full((1, 2), y), torch.tensor([[True, False]])).item() for y in (1.0, 0.0))
    assert [present, absent] == pytest.approx([0.8 * math.log(2), 0.2 * math.log(2)])
    present, absent = (loss(each, torch.full((1, 2), y), torch.tensor([[False, True]])).item() for y in (1.0, 0.0))
    assert [present, absent] == pytest.approx([0.25 * math.log(2), 0.75 * math.log(2)])


@pytest.mark.parametrize("images", [1, 3])
def test_weighted_and_plain_cross_entropy_agree_with_torch(images: int) -> None:
    logits, values, mask = drawn(PAIR, images)
    high, low = torch.tensor([0.9, 0.2]), torch.tensor([0.1, 0.8])
    weight = torch.where(values == 1, high, low)
    referee = binary_cross_entropy_with_logits(logits, values, weight=weight, reduction="none")
    torch.testing.assert_close(two_sided(logits, values, high, low), referee)
    referee = binary_cross_entropy_with_logits(logits[mask], values[mask])
    torch.testing.assert_close(made(pos_weight_cap=None)(logits, values, mask), referee)


def test_focal_by_hand_and_against_torchvision() -> None:
    logits = torch.tensor([[THREE, THREE]])
    values = torch.tensor([[1.0, 0.0]])
    mask = torch.ones(1, 2).bool()
    # (1/4)² log(4/3), (3/4)^.5 log 4
    expected = (math.log(4 / 3) / 16 + math.sqrt(0.75) * math.log(4)) / 2
    given = {"positive_gamma": 2, "negative_gamma": 0.5}
    assert made(kind="focal", focal=given)(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)
    expected = (0.25 * math.log(4 / 3) / 16 + 0.75 * math.sqrt(0.75) * math.log(4)) / 2
    loss = made(kind="focal", focal=given | {"alpha": 0.25})
    assert loss(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)
    logits, values, _ = drawn(PAIR, 7)
    for alpha, theirs in ((0.3, 0.3), (None, -1)):
        referee = sigmoid_focal_loss(logits, values, alpha=theirs, gamma=1.5)
        torch.testing.assert_close(focal(logits, values, 1.5, 1.5, alpha), referee)


def test_asymmetric_by_hand_and_against_timm() -> None:
    silence()
    from timm.loss import AsymmetricLossMultiLabel

    logits = torch.tensor([[THREE, THREE, -THREE]])
    values = torch.tensor([[1.0, 0.0, 0.0]])
    # 1/4 log(4/3); (3/4 - 1/4)² log(1/(1/4 + 1/4)); p = m counts nothing
    expected = torch.tensor([[math.log(4 / 3) / 4, math.log(2) / 4, 0.0]])
    torch.testing.assert_close(asymmetric(logits, values, 1, 2, 0.25), expected)
    logits, values, _ = drawn(PAIR, 7)
    for positive, negative, margin in ((1, 2, 0.025), (1, 4, 0.05), (0.5, 3, 0), (0, 0, 0.1)):
        referee = AsymmetricLossMultiLabel(negative, positive, margin, reduction="none")(logits, values)
        torch.testing.assert_close(asymmetric(logits, values, positive, negative, margin), referee)
    mask = torch.ones(7, 2).bool()
    torch.testing.assert_close(made(kind="asl")(logits, values, mask), asymmetric(logits, values, 1, 2, 0.025).mean())


def test_auc_margin_by_hand() -> None:
    probability = torch.tensor([[0.9, 0.5], [0.3, 0.5], [0.6, 0.5], [0.2, 0.5]])
    values = torch.tensor([[1.0, 1], [1, 1], [0, 1], [0, 1]])
    mask = torch.tensor([[True, True]] * 4)
    # m = .5: hinges of (.9, .6) .2, (.9, .2) 0, (.3, .6) .8, (.3, .2) .4
    expected = (0.04 + 0 + 0.64 + 0.16) / 4
    found, both = auc_margin(probability.logit(), values, mask, 0.5)
    assert found.tolist() == pytest.approx([expected, 0])
    assert both.tolist() == [True, False]
    loss = made(kind="auc_margin", auc_margin={"margin": 0.5}, class_weights={"Mass": 2})
    assert loss(probability.logit(), values, mask).item() == pytest.approx(2 * expected)
    mask[2, 0] = False  # one absent image is left: .9 and .3 against .2
    assert loss(probability.logit(), values, mask).item() == pytest.approx(2 * (0 + 0.16) / 2)
    assert loss(probability.logit(), values, mask).dtype == torch.float32


@pytest.mark.parametrize("margin", [0.1, 0.6, 1.0, 1.5])
def test_auc_margin_is_the_mean_over_all_pairs(margin: float) -> None:
    logits, values, mask = drawn(Taxonomy.flat(["A", "B", "C"]), 40)
    logits[3:9] = logits[9:15]  # equal scores
    logits.requires_grad_()
    found, both = auc_margin(logits, values, mask, margin)
    assert both.all()
    found.sum().backward()
    gradient, logits.grad = logits.grad, None
    expected = []
    for k in range(3):
        present, absent = (logits[mask[:, k] & (values[:, k] == kind), k].sigmoid() for kind in (1, 0))
        expected.append((margin - (present[:, None] - absent[None])).clamp(min=0).square().mean())
    torch.testing.assert_close(found, torch.stack(expected))
    torch.stack(expected).sum().backward()
    torch.testing.assert_close(gradient, logits.grad)


def test_unconditional_by_hand() -> None:
    """P(A) = 3/4, P(B) = 3/4 · 1/4, P(C) = 3/4 · 1/4 · 3/4."""
    logits = torch.tensor([[THREE, -THREE, THREE]] * 2)
    values = torch.tensor([[1.0, 0.0, 0.7], [0.0, 1.0, 1.0]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    c, b, a = 9 / 64, 3 / 16, 3 / 4
    kept = -math.log(c) - math.log(1 - b) - 0.7 * math.log(a) - 0.3 * math.log(1 - a)
    expected = (kept - math.log(1 - c)) / 4  # the second image's ancestors have no label, its leaf's still counts
    loss = made(CHAIN, kind="unconditional")
    assert loss(logits, values, mask).item() == pytest.approx(expected, rel=1e-6)


def test_path_logs_are_those_of_the_probabilities_at_inference() -> None:
    logits, _, _ = drawn(CHAIN, 20)
    log_p, log_rest = path_logs(logits.double(), CHAIN.parents, CHAIN.top_down)
    probability = along_paths(logits.double().sigmoid(), CHAIN, "conditional")
    torch.testing.assert_close(log_p.exp(), probability)
    torch.testing.assert_close(log_rest, torch.log(-torch.expm1(log_p)))  # log1mexp; good enough in doubles
    # 1 - P is e⁻⁴⁰(3 - 3e⁻⁴⁰ + e⁻⁸⁰), far below what 1 - p can hold even in doubles.
    _, log_rest = path_logs(torch.full((1, 3), 40.0), CHAIN.parents, CHAIN.top_down)
    assert log_rest.tolist()[0] == pytest.approx([math.log(3) - 40, math.log(2) - 40, -40])


def test_three_classes_by_hand() -> None:
    # softmax(0, log 3, log 4) = 1/8, 3/8, 1/2
    logits, uncertain = torch.full((1, 4), THREE), torch.full((1, 4), math.log(4))
    values = torch.tensor([[0.0, 1.0, UNSURE, 0.25]])
    absent, present, unsure = math.log(8), math.log(8 / 3), math.log(2)
    expected = torch.tensor([[absent, present, unsure, 0.75 * absent + 0.25 * present]])
    torch.testing.assert_close(three_classes(logits, uncertain, values, 0, None), expected)
    found = three_classes(logits, uncertain, values, 0, torch.tensor([5.0, 5.0, 5.0, 2.0]))
    expected = torch.tensor([[absent, 5 * present, unsure, 0.75 * absent + 0.5 * present]])
    torch.testing.assert_close(found, expected)
    found = three_classes(logits, uncertain, values, 0.3, None)[0, 2]
    assert found.item() == pytest.approx(0.8 * unsure + 0.1 * absent + 0.1 * present)
    referee = torch.nn.CrossEntropyLoss(label_smoothing=0.3)(
        torch.tensor([[0, THREE, math.log(4)]] * 3), torch.arange(3)
    )
    assert three_classes(logits, uncertain, values, 0.3, None)[0, :3].mean().item() == pytest.approx(referee.item())


def test_a_third_class_is_for_the_findings_that_have_one() -> None:
    loss = made(given=all_counted([[UNSURE, 1], [0, 0], [1, 0]]), pos_weight_cap=None)
    logits, values, mask = torch.full((1, 2), THREE), torch.tensor([[UNSURE, 0.0]]), torch.ones(1, 2).bool()
    uncertain = torch.full((1, 2), math.log(4), requires_grad=True)
    found = loss(logits, values, mask, uncertain)
    assert found.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
    found.backward()
    assert uncertain.grad is not None
    assert uncertain.grad.tolist() == [pytest.approx([(0.5 - 1) / 2, 0.0])]
    with pytest.raises(ConfigError, match="multiclass needs a model with logits of uncertain findings"):
        loss(logits, values, mask)
    with pytest.raises(ConfigError, match="multiclass goes with loss.kind bce alone, got asl"):
        made(given=all_counted([[UNSURE, 1]]), kind="asl")


def test_class_weights_by_name_and_by_rarity() -> None:
    logits, mask = torch.zeros(1, 2), torch.ones(1, 2).bool()
    values = torch.zeros(1, 2)
    named = made(class_weights={"Nodule": 3.0})
    assert named(logits, values, mask).item() == pytest.approx((1 + 3) / 2 * math.log(2))
    # 1 and 2 of 4 present: 4 and 2 over their mean
    rarity = made(
        given=all_counted([[1, 1], [0, 1], [0, 0], [0, 0]]), class_weights="inverse_frequency", pos_weight_cap=None
    )
    only = [rarity(logits, values, torch.tensor([one])).item() for one in ([True, False], [False, True])]
    assert only == pytest.approx([4 / 3 * math.log(2), 2 / 3 * math.log(2)])
    with pytest.raises(
        ConfigError, match=r"loss\.class_weights: 'Hernia' is no finding; expected some of Mass, Nodule"
    ):
        made(class_weights={"Hernia": 1.0})
    with pytest.raises(ConfigError, match=r"loss\.class_weights\.Mass: expected a finite weight >= 0, got -1"):
        made(class_weights={"Mass": -1.0})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", [1, 3])
def test_masked_pairs_have_no_gradient_and_nothing_counted_is_0(kind: str, images: int) -> None:
    taxonomy = PAIR if kind != "unconditional" else Taxonomy((Finding("Mass", "Nodule"), Finding("Nodule")))
    loss = made(taxonomy, kind=kind)
    logits = torch.full((images, 2), 0.5, requires_grad=True)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[:images]
    mask = torch.tensor([[False, True]] * images)
    loss(logits, values, mask).backward()
    assert logits.grad is not None
    assert logits.grad[:, 0].abs().sum() == 0
    if kind != "auc_margin" or images > 1:
        assert (logits.grad[:, 1] != 0).all()
    nothing = loss(logits, values, torch.zeros(images, 2, dtype=torch.bool))
    assert nothing.item() == 0
    assert nothing.dtype == torch.float32
    nothing.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [100.0, 1e4])
@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_huge_logits_give_finite_losses_and_gradients(kind: str, size: float, power: float) -> None:
    gammas = {"positive_gamma": power, "negative_gamma": power}
    for margin in (0.0, 0.025, 1e-6):
        loss = made(CHAIN, kind=kind, focal=gammas, asl=gammas | {"margin": margin})
        grid = torch.cartesian_prod(*[torch.tensor([-size, size])] * 3)
        logits = grid.repeat_interleave(3, 0).requires_grad_()
        values = torch.tensor([[0.0], [1.0], [0.6]]).repeat(8, 3)
        found = loss(logits, values, torch.ones(24, 3).bool())
        found.backward()
        assert torch.isfinite(found)
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        if kind in ("bce", "unconditional"):  # a wrong answer keeps its slope however sure it is
            assert found > size / 10
            assert logits.grad.abs().max() > 0.01


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "auc_margin"])
def test_terms_add_up_over_parts_of_a_batch(kind: str) -> None:
    """What several processes need: the mean of means would differ, for the parts count differently."""
    logits, values, mask = drawn(CHAIN, 7)
    loss = made(CHAIN, kind=kind)
    parts = [loss.terms(logits[rows], values[rows], mask[rows]) for rows in (slice(0, 2), slice(2, 7))]
    whole = sum(part.total for part in parts) / sum(part.counted for part in parts)
    torch.testing.assert_close(whole, loss(logits, values, mask))
    assert not torch.isclose(sum(part.mean() for part in parts) / torch.tensor(2), loss(logits, values, mask))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_fall_along_their_gradient(kind: str) -> None:
    logits, values, mask = drawn(CHAIN, 12)
    mask[:] = True
    loss = made(CHAIN, kind=kind)
    logits.requires_grad_()
    before = loss(logits, values, mask)
    (slope,) = torch.autograd.grad(before, logits)
    assert loss(logits - 0.1 * slope / slope.abs().max(), values, mask) < before


def test_unconditional_sees_every_label_and_wants_conditionals() -> None:
    full = all_counted([[0, 0, 0], [0, 0, 1]])
    assert counted_targets("unconditional", full, CHAIN, "conditional") is full
    masked = counted_targets("bce", full, CHAIN, "conditional")
    assert masked.mask.tolist() == conditional(full, CHAIN).mask.tolist() == [[False, False, True], [False, True, True]]
    assert counted_targets("bce", full, CHAIN, "minimum") is full
    with pytest.raises(ConfigError, match="unconditional trains .* expected hierarchy conditional, got minimum"):
        counted_targets("unconditional", full, CHAIN, "minimum")


def test_smoothing_is_refused_where_it_means_nothing() -> None:
    for kind in ("auc_margin", "unconditional"):
        with pytest.raises(ConfigError, match=rf"label_smoothing: expected 0 with loss\.kind {kind}, got 0\.1"):
            made(kind=kind, label_smoothing=0.1)
