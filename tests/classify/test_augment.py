from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from classify.augment import STEPS, AugmentConfig, Augmenter, Step, elastic_shifts
from weakray.config import validate
from weakray.errors import ConfigError
from weakray.stack import silence

OFF = AugmentConfig(affine_probability=0, tone_probability=0)
EVERY = AugmentConfig(
    horizontal_flip=1,
    grid_probability=1,
    elastic_probability=1,
    gamma_probability=1,
    noise_probability=1,
)


def noise(seed: int = 0, channels: int = 1) -> np.ndarray:
    shape = (48, 48) if channels == 1 else (48, 48, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def soft(size: int = 96, channels: int = 1) -> np.ndarray:
    """A film without sharp edges, so that interpolating it twice changes little."""
    shape = (size, size) if channels == 1 else (size, size, channels)
    blurred = cv2.GaussianBlur(np.random.default_rng(1).random(shape).astype(np.float32), (0, 0), 5)
    return np.asarray(255 * (blurred - blurred.min()) / np.ptp(blurred), np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("config", [AugmentConfig(), EVERY])
def test_augmentation_depends_on_seed_epoch_and_row_alone(config: AugmentConfig, channels: int) -> None:
    image = noise(channels=channels)
    first, second = Augmenter(config, 5), Augmenter(config, 5)
    second(image, 0, 0)  # what was asked before does not matter
    changed = first(image, 3, 7)
    assert changed.shape == image.shape
    assert changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, second(image, 3, 7))
    for other in (first(image, 4, 7), first(image, 3, 8), Augmenter(config, 6)(image, 3, 7), image):
        assert (changed != other).mean() > 0.5


def test_the_original_is_left_alone_even_where_it_cannot_be_written() -> None:
    image = noise(channels=3)
    before = image.copy()
    image.flags.writeable = False
    Augmenter(EVERY, 0)(image, 0, 0)
    for step in EVERY.steps:
        Augmenter(EVERY.alone(step), 0)(image, 0, 0)
    np.testing.assert_array_equal(image, before)


def test_nothing_left_on_gives_the_image_back() -> None:
    image = noise()
    assert OFF.steps == []
    assert Augmenter(OFF, 0)(image, 0, 0) is image
    still = AugmentConfig(translate=0, rotate_deg=0, scale=0, brightness_contrast=0)  # on, but with nothing to do
    assert still.steps == []
    assert Augmenter(still, 0)(image, 0, 0) is image


@pytest.mark.parametrize("step", STEPS)
def test_each_step_happens_as_often_as_its_probability_says(step: Step) -> None:
    field = step if step == "horizontal_flip" else f"{step}_probability"
    augmenter = Augmenter(OFF.model_copy(update={field: 0.3}), 0)
    image = noise()
    happened = sum(not np.array_equal(augmenter(image, 0, row), image) for row in range(300))
    assert 60 < happened < 120  # 90 ± 3.8 deviations
    assert OFF.model_copy(update={field: 0.3}).steps == [step]


def test_steps_are_drawn_apart_from_each_other() -> None:
    """Seeded alike, as albumentations does, all steps of one probability would happen together or not at all."""
    image, rows = soft(48), range(300)
    halves = {"horizontal_flip": 0.5, "gamma_probability": 0.5, "tone_probability": 0.5}
    augmenter = Augmenter(AugmentConfig(affine_probability=0, **halves), 3)
    happened = np.array([[step in augmenter._happened(0, row) for step in augmenter._transforms] for row in rows])
    together = np.corrcoef(happened.T)[np.triu_indices(3, 1)]
    assert np.abs(together).max() < 0.2
    # Parameters too: the size of the film and its contrast.
    affine, tone = (Augmenter(AugmentConfig().alone(step), 3) for step in ("affine", "tone"))
    disc = np.zeros((48, 48), np.uint8)
    cv2.circle(disc, (24, 24), 10, 200, -1)
    width = [int((affine(disc, 0, row) > 100).any(axis=0).sum()) for row in rows]
    contrast = [float(tone(image, 0, row).std()) for row in rows]
    assert abs(np.corrcoef(width, contrast)[0, 1]) < 0.2
    assert np.std(width) > 0.5


def test_what_a_step_does_does_not_depend_on_the_others() -> None:
    image = noise()
    tone = Augmenter(AugmentConfig().alone("tone"), 0)
    flip = Augmenter(AugmentConfig().alone("horizontal_flip"), 0)
    both = Augmenter(AugmentConfig(horizontal_flip=1, affine_probability=0), 0)
    np.testing.assert_array_equal(both(image, 2, 5), tone(flip(image, 2, 5), 2, 5))


def test_the_flip_mirrors_half_of_the_images_sideways() -> None:
    augmenter = Augmenter(OFF.model_copy(update={"horizontal_flip": 0.5}), 0)
    image = noise()
    made = [augmenter(image, 0, row) for row in range(200)]
    flipped = [np.array_equal(one, image[:, ::-1]) for one in made]
    assert all(flip or np.array_equal(one, image) for flip, one in zip(flipped, made, strict=True))
    assert 70 < sum(flipped) < 130


@pytest.mark.parametrize(("given", "probability"), [(True, 0.5), (False, 0.0), (0.25, 0.25), (1, 1.0)])
def test_a_flip_that_is_true_means_half_of_the_images(given: Any, probability: float) -> None:
    assert validate(AugmentConfig, {"horizontal_flip": given}).horizontal_flip == probability
    with pytest.raises(ConfigError, match=r"augment\.horizontal_flip: input should be less than or equal to 1"):
        validate(AugmentConfig, {"horizontal_flip": 2}, "augment")


def test_rotation_and_shift_stay_within_their_limits() -> None:
    image = np.zeros((96, 96), np.uint8)
    image[47:50, 47:50] = 255  # a spot in the centre moves by the shift alone
    augmenter = Augmenter(AugmentConfig(translate=0.1, rotate_deg=15, brightness_contrast=0), 0)
    at = np.array([np.argwhere(augmenter(image, 0, row) > 60).mean(0) for row in range(60)])
    assert np.abs(at - 48).max() <= 0.1 * 96 + 1.5
    assert np.ptp(at, axis=0).min() > 8


def referee(config: AugmentConfig, augmenter: Augmenter, image: np.ndarray, row: int) -> np.ndarray:
    """Albumentations' own steps, one after the other, with the random numbers of ours."""
    augmenter._happened(0, row)  # seeds the transforms
    for step in config.steps:
        image = augmenter._transforms[step](image=image)["image"]
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", ["affine", "grid", "tone", "gamma", "noise"])
def test_one_step_is_albumentations_own(step: Step, channels: int) -> None:
    config = AugmentConfig(noise=0.1, gamma=0.4).alone(step)
    augmenter = Augmenter(config, 2)
    for row in range(3):
        image = soft(channels=channels)
        np.testing.assert_array_equal(augmenter(image, 0, row), referee(config, augmenter, image, row))


def test_one_warp_shows_what_two_in_a_row_show() -> None:
    config = AugmentConfig(translate=0, tone_probability=0, grid_probability=1, grid_limit=0.3)
    augmenter, image = Augmenter(config, 4), soft()
    for row in range(5):
        made, expected = augmenter(image, 0, row), referee(config, augmenter, image, row)
        inside = (slice(16, -16), slice(16, -16))  # the square is cut between two warps, and not within one
        apart = np.abs(made[inside].astype(int) - expected[inside])
        assert apart.mean() < 1.5
        assert np.abs(made[inside].astype(int) - image[inside]).mean() > 4 * apart.mean()


def test_elastic_shifts_have_the_deviation_and_smoothness_asked_for() -> None:
    shifts = np.stack([elastic_shifts(np.random.default_rng(seed), 120, 0.02, 0.1) for seed in range(200)])
    assert shifts.shape == (200, 120, 120, 2)
    assert shifts.dtype == np.float32
    np.testing.assert_allclose(shifts.std(axis=0), 2.4, rtol=0.25)  # 0.02 · 120 px at every place, border included
    assert abs(shifts.mean()) < 0.1
    # White noise under a Gaussian of σ is correlated by exp(−d²/4σ²) at distance d; here σ = 12 px.
    middle = shifts[:, 60, 60, 0]
    for apart in (12, 24):
        found = np.corrcoef(middle, shifts[:, 60, 60 + apart, 0])[0, 1]
        assert found == pytest.approx(np.exp(-(apart**2) / (4 * 12**2)), abs=0.12)
    assert abs(np.corrcoef(middle, shifts[:, 60, 60, 1])[0, 1]) < 0.2


def test_elastic_shifts_are_spread_like_albumentations() -> None:
    """Its noise is divided by its largest value; α = that value · shift · 2σ√π gives the deviation that ours names."""
    silence()
    import albumentations

    size, sigma = 64, 6.0
    peak = np.abs(np.random.default_rng(0).standard_normal((50, 2, size, size))).max(axis=(1, 2, 3)).mean()
    peer = albumentations.ElasticTransform(alpha=peak * 1.5 * 2 * sigma * np.pi**0.5, sigma=sigma, p=1.0)
    peer.set_random_seed(0)
    drawn = [peer.get_params_dependent_on_data({"shape": (size, size)}, {})["map_x"] for _ in range(240)]
    own = [elastic_shifts(np.random.default_rng(seed), size, 1.5 / size, sigma / size) for seed in range(240)]
    inside = (slice(20, -20), slice(20, -20))
    theirs = np.stack([one - np.arange(size) for one in drawn])[:, *inside].std()
    assert np.stack(own)[:, *inside, 0].std() == pytest.approx(theirs, rel=0.12)


def test_an_elastic_warp_moves_a_film_by_its_shifts() -> None:
    ramp = np.tile(np.linspace(0, 255, 96), (96, 1)).astype(np.uint8)  # grey value = column · 255 / 95
    augmenter = Augmenter(AugmentConfig(elastic_shift=0.03).alone("elastic"), 1)
    generator = augmenter._happened(0, 2)["elastic"]
    expected = ramp + elastic_shifts(generator, 96, 0.03, 0.06)[..., 0] * 255 / 95
    inside = (slice(12, -12), slice(12, -12))
    np.testing.assert_allclose(augmenter(ramp, 0, 2)[inside], expected[inside], atol=2)
    assert np.abs(expected - ramp).max() > 10


def test_noise_is_the_same_in_every_channel() -> None:
    image = np.full((48, 48, 3), 128, np.uint8)
    made = Augmenter(AugmentConfig(noise=0.2).alone("noise"), 0)(image, 0, 0)
    assert (made == made[..., :1]).all()
    assert made.std() > 1


@pytest.mark.parametrize("size", [32, 51, 97])
@pytest.mark.parametrize("grid_steps", [1, 7, 10])
def test_the_largest_settings_are_bearable(size: int, grid_steps: int) -> None:
    wild = EVERY.model_copy(
        update={
            "translate": 0.5,
            "rotate_deg": 180.0,
            "scale": 0.99,
            "grid_steps": grid_steps,
            "grid_limit": 0.99,
            "elastic_shift": 0.2,
            "elastic_smooth": 0.02,
            "brightness_contrast": 1.0,
            "gamma": 0.99,
            "noise": 1.0,
        }
    )
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3)).astype(np.uint8)
    made = [Augmenter(wild, 0)(image, 0, row) for row in range(3)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in made)
    assert not np.array_equal(made[0], made[1])
