"""Averages over mirrored and scaled views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from camgen.layers import LAST
from camgen.mapper import Making, map_batch, prepare_all
from camgen.maps import MapName, Views, raw_maps
from camgen.methods.target import Target
from camgen.tta import PLAIN, VIEWS, averaged_maps
from classify.ensemble import Ensemble
from classify.model import Classifier, ModelConfig
from tests.camgen.makers import Averaged, TinyClassifier
from weakray.errors import ConfigError
from weakray.imaging import InputSpec

TARGETS: tuple[Target, ...] = ("logit", "probability")


def seen_in(names: list[MapName], views: Views) -> list[MapName]:
    return [name._replace(views=views) for name in names]


def images_of(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 64, 96, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [1, 3])
def test_a_mirrored_view_is_turned_back_and_shares_the_pass(n: int) -> None:
    model, images = TinyClassifier(2).eval(), images_of(n)
    wanted = [MapName(0, method, "last", k) for method in ("pcam", "gradcam") for k in range(2)]
    plain, mirrored = raw_maps(model, images, wanted), raw_maps(model, images.flip(3), wanted)
    model.passes = 0
    flipped = seen_in(wanted, "flip")
    found = averaged_maps(model, images, flipped)
    assert model.passes == 1
    assert torch.allclose(found.logits, plain.logits, atol=1e-6)
    for name, own in zip(flipped, wanted, strict=True):
        expected = (plain.maps[own] + mirrored.maps[own].flip(2)) / 2
        assert torch.allclose(found.maps[name], expected, rtol=1e-4, atol=1e-6)
    turned = averaged_maps(model, images.flip(3), flipped)
    assert torch.allclose(turned.maps[flipped[0]].flip(2), found.maps[flipped[0]], rtol=1e-4, atol=1e-6)


def test_maps_with_and_without_views_are_made_together_as_alone() -> None:
    model, images = TinyClassifier(2).eval(), images_of(3)
    plain = [MapName(0, "pcam", "last", 0), MapName(0, "gradcam", "last", 1)]
    flipped = seen_in(plain[:1], "flip")
    model.passes = 0
    found = averaged_maps(model, images, [*plain, *flipped])
    assert model.passes == 2  # only what is wanted of it is made of the mirrored image
    assert set(found.maps) == {*plain, *flipped}
    for names in (plain, flipped):
        alone = averaged_maps(model, images, names)
        for name in names:
            assert torch.allclose(found.maps[name], alone.maps[name], rtol=1e-5, atol=1e-7)
    assert torch.allclose(found.logits, raw_maps(model, images, []).logits, atol=1e-6)


def test_the_plain_view_alone_changes_nothing() -> None:
    model, images = TinyClassifier(2).eval(), images_of(3)
    wanted = [MapName(0, "layercam", "last", 1)]
    assert torch.equal(
        averaged_maps(model, images, wanted).maps[wanted[0]], raw_maps(model, images, wanted).maps[wanted[0]]
    )


def test_scaled_views_meet_on_the_plain_grid_with_equal_weight() -> None:
    model, flat = Averaged("test_resnet", 2), torch.full((3, 1, 64, 96), 0.5)
    wanted = [MapName(0, method, "stage1", k) for method in ("gradcam", "layercam", "eigencam") for k in range(2)]
    plain = raw_maps(model, flat, wanted)
    # Two thirds and four thirds of 64 x 96 pixels, in multiples of 32.
    others = [raw_maps(model, torch.full((3, 1, *size), 0.5), wanted) for size in ((32, 64), (96, 128))]
    scaled = seen_in(wanted, "scales")
    found = averaged_maps(model, flat, scaled)
    for name, base in zip(scaled, wanted, strict=True):
        assert found.maps[name].shape == plain.maps[base].shape == (3, 16, 24)
        total = plain.maps[base]
        for other in others:
            one = other.maps[base]
            own = torch.nn.functional.interpolate(one[:, None], size=(16, 24), mode="bilinear")[:, 0]
            # A gradient is spread over as many times more places; a projection is not.
            total = total + own * (1 if name.method == "eigencam" else one[0].numel() / (16 * 24))
        assert torch.allclose(found.maps[name], total / 3, rtol=1e-4, atol=1e-7)
    assert torch.allclose(found.logits, plain.logits, atol=1e-6)


def test_all_views_begin_with_the_plain_one() -> None:
    assert all(views[0] == PLAIN for views in VIEWS.values())
    assert {len(views) for views in VIEWS.values()} == {1, 2, 3, 6}


def test_a_model_of_one_size_alone_says_so() -> None:
    config = ModelConfig(backbone="test_vit", output_stride=None, input=InputSpec(size_px=160))
    model, images = Classifier(config, 2).eval(), torch.rand(1, 1, 160, 160)
    with pytest.raises(ConfigError, match=r"views: a member does not take images of 96×96 pixels .*leave scales out"):
        averaged_maps(model, images, [MapName(0, "gradcam", "last", 1, views="scales")])


def test_an_ensembles_maps_are_averaged_and_know_their_class_tree(ensemble_folder: Path) -> None:
    ensemble = Ensemble.load(ensemble_folder)
    rng = np.random.default_rng(0)
    films = [prepare_all(rng.integers(0, 256, (40, 56)).astype(np.uint8), ensemble) for _ in range(3)]
    wanted = [MapName(m, "gradcam", LAST, 1, target) for m in (0, 1) for target in TARGETS]
    plain = map_batch(ensemble, ["a", "b", "c"], films, wanted, Making())
    both = map_batch(ensemble, ["a", "b", "c"], films, seen_in(wanted, "flip"), Making())
    p = plain.member_probabilities[:, :, 1]
    for m in (0, 1):
        slope = float(ensemble.graph.slope[m, 1])
        expected = (slope * p[m] * (1 - p[m]))[:, None, None] * plain.maps[MapName(m, "gradcam", LAST, 1)]
        found = plain.maps[MapName(m, "gradcam", LAST, 1, "probability")]
        np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-9)
    assert not any(np.allclose(plain.maps[name], both.maps[name._replace(views="flip")]) for name in wanted[1::2])
    np.testing.assert_allclose(plain.probabilities, both.probabilities, atol=1e-6)
