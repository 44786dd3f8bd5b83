"""Averages over mirrored and scaled views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from camgen.layers import LAST
from camgen.mapper import map_batch, prepare_all
from camgen.maps import MapName, raw_maps
from camgen.methods.target import Target
from camgen.tta import PLAIN, View, averaged_maps
from classify.ensemble import Ensemble
from tests.camgen.makers import Averaged, TinyClassifier
from weakray.errors import ConfigError

TARGETS: tuple[Target, ...] = ("logit", "probability")


def images_of(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 64, 96, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize("n", [1, 3])
def test_a_mirrored_view_is_turned_back_and_shares_the_pass(n: int) -> None:
    model, images = TinyClassifier(2).eval(), images_of(n)
    wanted = [MapName(0, method, "last", k) for method in ("pcam", "gradcam") for k in range(2)]
    plain, mirrored = raw_maps(model, images, wanted), raw_maps(model, images.flip(3), wanted)
    model.passes = 0
    found = averaged_maps(model, images, wanted, (PLAIN, View(flip=True)))
    assert model.passes == 1
    assert torch.allclose(found.logits, (plain.logits + mirrored.logits) / 2, atol=1e-6)
    for name in wanted:
        expected = (plain.maps[name] + mirrored.maps[name].flip(2)) / 2
        assert torch.allclose(found.maps[name], expected, rtol=1e-4, atol=1e-6)
    turned = averaged_maps(model, images.flip(3), wanted, (PLAIN, View(flip=True)))
    assert torch.allclose(turned.maps[wanted[0]].flip(2), found.maps[wanted[0]], rtol=1e-4, atol=1e-6)


def test_the_plain_view_alone_changes_nothing() -> None:
    model, images = TinyClassifier(2).eval(), images_of(3)
    wanted = [MapName(0, "layercam", "last", 1)]
    assert torch.equal(
        averaged_maps(model, images, wanted, (PLAIN,)).maps[wanted[0]], raw_maps(model, images, wanted).maps[wanted[0]]
    )


def test_scaled_views_meet_on_the_plain_grid_with_equal_weight() -> None:
    model, flat = Averaged("test_resnet", 2), torch.full((3, 1, 64, 96), 0.5)
    wanted = [MapName(0, method, "stage1", k) for method in ("gradcam", "layercam", "eigencam") for k in range(2)]
    plain = raw_maps(model, flat, wanted)
    double = raw_maps(model, torch.full((3, 1, 128, 192), 0.5), wanted)
    found = averaged_maps(model, flat, wanted, (PLAIN, View(scale=2.0)))
    for name in wanted:
        assert found.maps[name].shape == plain.maps[name].shape == (3, 16, 24)
        own = torch.nn.functional.interpolate(double.maps[name][:, None], size=(16, 24), mode="bilinear")[:, 0]
        # A gradient is spread over four times as many places; a projection is not.
        times = 1 if name.method == "eigencam" else 4
        assert torch.allclose(found.maps[name], (plain.maps[name] + times * own) / 2, rtol=1e-4, atol=1e-7)
    assert torch.allclose(found.logits, (plain.logits + double.logits) / 2, atol=1e-5)


def test_views_without_the_plain_one_are_refused() -> None:
    for views in ((View(flip=True),), (PLAIN, View(scale=0.0))):
        with pytest.raises(ConfigError, match="tta: expected views with scales above 0, the plain View"):
            averaged_maps(TinyClassifier(2), images_of(1), [], views)


def test_an_ensembles_maps_are_averaged_and_know_their_class_tree(ensemble_folder: Path) -> None:
    ensemble = Ensemble.load(ensemble_folder)
    rng = np.random.default_rng(0)
    films = [prepare_all(rng.integers(0, 256, (40, 56)).astype(np.uint8), ensemble) for _ in range(3)]
    wanted = [MapName(m, "gradcam", LAST, 1, target) for m in (0, 1) for target in TARGETS]
    plain = map_batch(ensemble, ["a", "b", "c"], films, wanted, "ours")
    both = map_batch(ensemble, ["a", "b", "c"], films, wanted, "ours", tta=(PLAIN, View(flip=True)))
    p = plain.member_probabilities[:, :, 1]
    for m in (0, 1):
        slope = float(ensemble.graph.slope[m, 1])
        expected = (slope * p[m] * (1 - p[m]))[:, None, None] * plain.maps[MapName(m, "gradcam", LAST, 1)]
        found = plain.maps[MapName(m, "gradcam", LAST, 1, "probability")]
        np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-9)
    assert any(not np.allclose(plain.maps[name], both.maps[name]) for name in wanted)
    assert not np.allclose(plain.probabilities, both.probabilities, atol=1e-6)
