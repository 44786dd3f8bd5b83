"""The three frozen sets of knobs: how visible findings are, what imitates them, how wrong the labels are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from weakray.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True)
class Contrast:
    """How strongly each finding shows: 1 replaces all the air it lies in by water. Drawn evenly from (low, high)."""

    nodule: Range
    mass: Range
    consolidation: Range
    pneumonia: Range
    atelectasis: Range
    effusion: Range
    pneumothorax: Range
    heart_ratio: Range  # heart width over chest width in cardiomegaly; 0.475 is the healthy limit
    widening: Range  # total added width of an enlarged mediastinum, units of half a chest


@dataclass(frozen=True)
class Difficulty:
    """Every setting of the simulator. Rates are probabilities a film unless said otherwise."""

    name: str
    contrast: Contrast
    sick_rate: float  # share of patients who may have findings at all
    finding_rate: float  # multiplies the rate of each finding in those
    size: float  # multiplies the sizes of findings
    pose_spread: float
    exposure_spread: float  # 0 = every film exposed alike
    quantum_noise: float  # standard deviation in grey levels where the film is densest
    tissue_texture: float  # standard deviation of the soft-tissue mottle, attenuation units
    blur_px: Range  # standard deviation of the focal blur
    inverted_rate: float  # films whose dark and bright are swapped
    grid_rate: float
    collimation_rate: float
    device_rate: float  # tubes, lines, pacemakers, electrodes: each kind on its own, at this times its share
    confounding: float  # how much likelier a device gets with the finding that it treats
    mimic_rate: float  # nipples, end-on vessels, fat pads, skin folds, hilar prominence: each kind on its own
    marker_rate: float  # letters and words
    missed_rate: float  # positive labels that the report leaves out, for a large finding
    missed_small_times: float  # how many times likelier the smallest findings are left out
    invented_rate: float  # absent findings reported as present
    uncertain_positive_rate: float  # present findings reported as uncertain
    uncertain_negative_rate: float  # absent findings reported as uncertain
    blank_rate: float  # absent findings of which the report says nothing


_STANDARD = Difficulty(
    name="standard",
    contrast=Contrast(
        nodule=(0.55, 1.05),
        mass=(0.55, 1.05),
        consolidation=(0.5, 0.95),
        pneumonia=(0.5, 0.95),
        atelectasis=(0.5, 0.95),
        effusion=(0.65, 1.0),
        pneumothorax=(0.6, 1.2),
        heart_ratio=(0.53, 0.67),
        widening=(0.14, 0.32),
    ),
    sick_rate=0.89,
    finding_rate=1.0,
    size=1.1,
    pose_spread=1.0,
    exposure_spread=1.0,
    quantum_noise=4.5,
    tissue_texture=0.018,
    blur_px=(0.3, 0.75),
    inverted_rate=0.03,
    grid_rate=0.10,
    collimation_rate=0.25,
    device_rate=0.12,
    confounding=1.5,
    mimic_rate=0.18,
    marker_rate=0.6,
    missed_rate=0.05,
    missed_small_times=3.0,
    invented_rate=0.015,
    uncertain_positive_rate=0.08,
    uncertain_negative_rate=0.02,
    blank_rate=0.25,
)

_EASY = replace(
    _STANDARD,
    name="easy",
    contrast=Contrast(
        nodule=(0.8, 1.2),
        mass=(0.8, 1.2),
        consolidation=(0.7, 1.0),
        pneumonia=(0.7, 1.0),
        atelectasis=(0.7, 1.0),
        effusion=(0.85, 1.0),
        pneumothorax=(1.0, 1.5),
        heart_ratio=(0.57, 0.68),
        widening=(0.2, 0.34),
    ),
    size=1.2,
    pose_spread=0.5,
    exposure_spread=0.4,
    quantum_noise=3.0,
    tissue_texture=0.012,
    blur_px=(0.3, 0.5),
    inverted_rate=0.0,
    device_rate=0.06,
    confounding=1.0,
    mimic_rate=0.08,
    missed_rate=0.02,
    invented_rate=0.005,
    uncertain_positive_rate=0.04,
    uncertain_negative_rate=0.01,
)

_HARD = replace(
    _STANDARD,
    name="hard",
    contrast=Contrast(
        nodule=(0.20, 0.60),
        mass=(0.24, 0.65),
        consolidation=(0.22, 0.60),
        pneumonia=(0.20, 0.55),
        atelectasis=(0.22, 0.60),
        effusion=(0.35, 0.80),
        pneumothorax=(0.30, 0.8),
        heart_ratio=(0.50, 0.62),
        widening=(0.07, 0.22),
    ),
    size=0.9,
    pose_spread=1.25,
    exposure_spread=1.3,
    quantum_noise=9.0,
    tissue_texture=0.032,
    blur_px=(0.4, 1.1),
    inverted_rate=0.08,
    device_rate=0.24,
    confounding=2.5,
    mimic_rate=0.40,
    missed_rate=0.08,
    missed_small_times=3.5,
    invented_rate=0.03,
    uncertain_positive_rate=0.13,
    uncertain_negative_rate=0.04,
)


def difficulty_named(name: str) -> Difficulty:
    """The frozen set `easy`, `standard` or `hard`.

    Raises:
        ConfigError: for any other name.
    """
    known = {known.name: known for known in (_EASY, _STANDARD, _HARD)}
    if name not in known:
        raise ConfigError(f"difficulty: expected one of {', '.join(known)}, got {name!r}")
    return known[name]
