"""Figures in words: how numbers, intervals and times are printed, and the sentence at the top of the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eval.report.sources import BY_KEY
from weakray.errors import DataError

Verdict = Literal["ahead", "tie", "behind"]


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval, `low` ≤ `value` ≤ `high`."""

    value: float
    low: float
    high: float

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Estimate:
        """From `{"value", "low", "high"}`.

        Raises:
            DataError: if one of the three is missing or no number.
        """
        try:
            return cls(float(entry["value"]), float(entry["low"]), float(entry["high"]))
        except (KeyError, TypeError, ValueError):
            raise DataError(f"summary: expected a figure as value, low, high; got {entry!r}") from None

    @property
    def verdict(self) -> Verdict:
        """Of a difference: a tie where its interval holds 0."""
        if self.low <= 0 <= self.high:
            return "tie"
        return "ahead" if self.value > 0 else "behind"


def figure(value: float, digits: int = 2) -> str:
    """A figure of [0, 1] without its leading zero: .41; one of more than one digit before the point keeps it."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def spoken(estimate: Estimate) -> str:
    """`.41 [.38, .44]`; three digits where two would hide a small figure."""
    digits = 2 if estimate.value >= 0.1 else 3
    return f"{figure(estimate.value, digits)} [{figure(estimate.low, digits)}, {figure(estimate.high, digits)}]"


def spoken_percent(estimate: Estimate) -> str:
    """`82 % [76, 88]`, with no-break spaces."""
    return f"{100 * estimate.value:.0f}\u00a0% [{100 * estimate.low:.0f}, {100 * estimate.high:.0f}]"


def duration(seconds: float) -> str:
    """`8.4 s`, `12 min 04 s` or `1 h 02 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}\u00a0min\u00a0{rest:02d}\u00a0s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}\u00a0h\u00a0{minutes:02d}\u00a0min"


def ap50(summary: Mapping[str, Any], key: str) -> Estimate | None:
    """AP50 of a source, None where it was not scored."""
    scores: Mapping[str, Any] = summary.get("scores", {})
    return Estimate.read(scores[key]["ap50"]) if key in scores else None


def verdict(summary: Mapping[str, Any], key: str) -> Verdict:
    """How the weak detector, else the recipe, stands to another source: its AP50 less the other's, draw by draw.

    Raises:
        DataError: if the summary does not say.
    """
    lead = summary["scores"][key].get("lead")
    if lead is None:
        raise DataError(
            f"summary: expected scores.{key}.lead, found none; score the run again by `weakray eval summary`"
        )
    return Estimate.read(lead).verdict


def headline(summary: Mapping[str, Any], test_images: int | None) -> str:
    """The result in one sentence; what was not computed is not spoken of.

    The subject is the weak detector, else the recipe, else the classifiers. Plain Grad-CAM and the recovered
    fraction follow where they exist. A difference is called a tie where its paired interval holds 0.

    Args:
        summary: `summary.json`.
        test_images: images of split test, None where unknown.
    """
    where = f" on {test_images:,} test images" if test_images is not None else " on the test images"
    for key, subject in (("weak_detector", "The weak detector reaches"), ("recipe", "The recipe’s pseudo-boxes reach")):
        mine = ap50(summary, key)
        if mine is not None:
            plain = ap50(summary, "gradcam_single")
            beside = "" if plain is None else f", {_against_plain(mine, plain, verdict(summary, 'gradcam_single'))}"
            recovered = summary.get("recovered_fraction") if key == "weak_detector" else None
            ending = "" if recovered is None else f"{',' if beside else ''} and {_recovered(Estimate.read(recovered))}"
            return f"{subject} AP50 {spoken(mine)}{where}{beside}{ending}."
    macro = summary.get("classify", {}).get("macro_auroc")
    if macro is not None:
        return f"The classifiers reach a macro AUROC of {spoken(Estimate.read(macro))}{where}; no boxes were scored."
    return "Nothing was scored in this run."


def _against_plain(mine: Estimate, plain: Estimate, stands: Verdict) -> str:
    match stands:
        case "tie":
            return f"a tie with plain Grad-CAM at {spoken(plain)}"
        case "behind":
            return f"below plain Grad-CAM at {spoken(plain)}"
        case "ahead":
            times = mine.value / plain.value if plain.value >= 0.005 else None  # a ratio to nothing says nothing
            if times is None:
                return f"against plain Grad-CAM’s {spoken(plain)}"
            return f"{times:.1f} times plain Grad-CAM" if times < 10 else f"{times:.0f} times plain Grad-CAM"


def _recovered(fraction: Estimate) -> str:
    tie = ", a tie" if fraction.low <= 1 <= fraction.high else ""
    return f"recovers {spoken_percent(fraction)} of a fully supervised one{tie}"


def standfirst(summary: Mapping[str, Any]) -> list[str]:
    """The sentences under the headline: the comparisons that keep it honest, where they were computed."""
    weak, few, recipe = (ap50(summary, key) for key in ("weak_detector", "few_shot", "recipe"))
    said: list[str] = []
    if weak is not None and few is not None:
        relation = {
            "tie": f"ties with the weak one at {spoken(few)}",
            "ahead": f"stays below it at {spoken(few)}",
            "behind": f"does better, {spoken(few)}",
        }[verdict(summary, "few_shot")]
        said.append(f"The same detector trained on the few annotated images alone {relation}.")
    if weak is not None and recipe is not None:
        said.append(f"The pseudo-boxes it learned from score {spoken(recipe)}.")
    macro = summary.get("classify", {}).get("macro_auroc")
    if macro is not None and (weak is not None or recipe is not None):
        said.append(f"The classifiers behind them have a macro AUROC of {spoken(Estimate.read(macro))}.")
    rivals = [(key, ap50(summary, key)) for key in ("random_map", "centre_box", "mean_box")]
    mine, subject = (weak, "the weak detector") if weak is not None else (recipe, "the recipe")
    if mine is not None:
        near = [BY_KEY[k].name.lower() for k, rival in rivals if rival is not None and verdict(summary, k) != "ahead"]
        if near:
            said.append(f"Mind: {subject} is not clearly ahead of {' and '.join(near)}; such boxes ignore the image.")
    return said
