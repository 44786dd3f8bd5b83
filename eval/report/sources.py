"""The sources of boxes a report compares, in the order they are always shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weakray.errors import DataError


@dataclass(frozen=True)
class Source:
    """A key of `summary.json`'s `scores`, and how people call it."""

    key: str
    name: str
    short: str  # for a narrow column
    told: str  # what it is, in a line


SOURCES: tuple[Source, ...] = (
    Source("random_map", "Random map", "Random", "boxes from blurred noise: what luck scores"),
    Source("centre_box", "Centre box", "Centre", "one box in the middle of every image"),
    Source("mean_box", "Mean box", "Mean box", "each finding’s average box on tune"),
    Source(
        "gradcam_single",
        "Plain Grad-CAM",
        "Grad-CAM",
        "best single classifier, last layer, one threshold for all findings chosen on tune",
    ),
    Source("recipe", "Recipe", "Recipe", "pseudo-boxes: method, threshold and calibration fitted per finding on tune"),
    Source("few_shot", "Few-shot detector", "Few-shot", "trained on the boxes of tune alone, for as many steps"),
    Source(
        "weak_detector",
        "Weak detector",
        "Weak detector",
        "trained on pseudo-boxes, and on tune’s true boxes where its config says so; no true box of train",
    ),
    Source(
        "supervised_detector",
        "Fully supervised detector",
        "Supervised",
        "the ceiling: trained on the true boxes of train and tune, for as many steps",
    ),
)
BY_KEY = {source.key: source for source in SOURCES}


def scored_sources(summary: Mapping[str, Any]) -> list[Source]:
    """The sources that `summary` has scores of, in `SOURCES`' order.

    Raises:
        DataError: on a source that no one knows.
    """
    scores: Mapping[str, Any] = summary.get("scores", {})
    unknown = sorted(set(scores) - set(BY_KEY))
    if unknown:
        raise DataError(f"summary: unknown source {unknown[0]!r} in scores; expected {', '.join(BY_KEY)}")
    return [source for source in SOURCES if source.key in scores]
