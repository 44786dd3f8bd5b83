"""What a search tells of itself: what was chosen, how flat the optimum is, and what each ingredient adds.

All figures are of *tune*. What is fitted (prior, calibration) is cross-validated by patient; what is picked as the best
of many is not, so every figure here flatters, the more so the fewer boxes there are. Only *test* says what a recipe is
worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from camgen.candidates import Option
from camgen.layers import LAST
from camgen.recipe import FindingRecipe, Recipe
from camgen.tuning import Array, borrow, first_near_best

Mask = npt.NDArray[np.bool_]
NEAR = (0.01, 0.05)  # options whose criterion is this near to the best are counted
INGREDIENTS: dict[str, str] = {
    "layers": "layers other than the last",
    "views": "mirrored or scaled views",
    "target": "maps of probabilities",
    "prior": "location prior",
    "merging": "merging of near components",
    "calibration": "box calibration",
    "own_threshold": "own threshold and number of boxes",
    "members_mean": "several members together",
    "fusion": "fusion of members' boxes",
    "gate": "probability gate",
}

_HONESTY = (
    "All figures are of *tune*, cross-validated by patient, and chosen by: they flatter. "
    "Only *test* says what a recipe is worth."
)
_FLATNESS = (
    "*best – median*: how far the best option's criterion lies above the middle one's. *near*: share of options "
    f"within {NEAR[1]:g} of the best; a small share is a sharp optimum, and more likely a lucky one. "
    "*next cuts*: what the criterion loses one threshold lower and higher."
)
_GAINS = (
    "AP50 with it, without it (the best of the options that do without), and the gain; mean over findings with "
    "boxes, then each finding's gain."
)


class Gated(NamedTuple):
    """Scores of what was chosen, under its gate."""

    criterion: float
    ap50: float


@dataclass(frozen=True)
class Tried:
    """All candidates of all findings: k findings, o options, s calibration strengths.

    Attributes:
        options: o of them.
        criterion: `(k, o, s)`.
        ap50: `(k, o, s)`; NaN for a finding without a true box.
        allowed: `(k, o, s)`, which may be chosen.
        boxes: `(k,)`, true boxes.
    """

    options: Sequence[Option]
    criterion: Array
    ap50: Array
    allowed: Mask
    boxes: npt.NDArray[np.int64]

    def pick(self, finding: int, among: Mask | None = None) -> tuple[int, int]:
        """Option and strength of the best candidate; of those that `among` `(o, s)` admits.

        Options stand in order of doing less, and a strength nearer infinity does less: among equals the first wins.
        """
        allowed = self.allowed[finding] if among is None else self.allowed[finding] & among
        usable = np.where(allowed, borrow(self.criterion, self.boxes)[finding], -np.inf)
        s, o = divmod(first_near_best(usable.T.ravel()), len(self.options))
        return o, s

    def best_of_options(self, finding: int) -> Array:
        """The criterion `(o,)` of each option at its best strength."""
        return np.asarray(np.where(self.allowed[finding], self.criterion[finding], -np.inf).max(axis=1))


def without(tried: Tried) -> dict[str, Mask]:
    """Ingredient → the candidates `(o, s)` that do without it; the gate is none of theirs."""
    every, options = np.ones_like(tried.allowed[0]), tried.options
    return {
        "layers": _rows(every, [option.source.layer == LAST for option in options]),
        "views": _rows(every, [option.source.views is None for option in options]),
        "target": _rows(every, [option.source.target == "logit" for option in options]),
        "prior": _rows(every, [option.exponent == 0 for option in options]),
        "merging": _rows(every, [option.merge_gap == 0 for option in options]),
        "calibration": every & (np.arange(every.shape[1]) == 0),
        "own_threshold": _rows(every, _shared_cut(tried)) if tried.boxes.any() else every,
        "members_mean": _rows(every, [len(option.members) == 1 for option in options]),
        "fusion": _rows(every, [option.fusion == "maps" for option in options]),
    }


def told(recipe: Recipe, tried: Tried, gated: Sequence[Gated]) -> dict[str, Any]:
    """The part of `search.json` on findings and ingredients.

    Args:
        recipe: what was chosen.
        tried: among what.
        gated: a finding's scores under its gate.
    """
    gains = [_gains(tried, k, own) for k, own in enumerate(gated)]
    boxed = [k for k in range(len(gated)) if tried.boxes[k]]
    mean = {
        name: {
            score: _round(np.mean([gains[k][name][score] for k in boxed], axis=0)) for score in ("criterion", "ap50")
        }
        for name in (gains[boxed[0]] if boxed else ())
    }
    rows = [_finding(entry, tried, k, gains[k]) for k, entry in enumerate(recipe.findings)]
    return {"ingredients": mean, "findings": rows}


def _gains(tried: Tried, k: int, gated: Gated) -> dict[str, dict[str, Any]]:
    """Ingredient → score → [with, without]: the best candidate of all, and of those that do without it."""
    if not tried.boxes[k]:
        return {}
    o, s = tried.pick(k)
    best = {"criterion": float(tried.criterion[k, o, s]), "ap50": float(tried.ap50[k, o, s])}
    gains: dict[str, dict[str, Any]] = {}
    for name, among in without(tried).items():
        if among.any() and not among.all():
            other, at = tried.pick(k, among)
            less = {"criterion": float(tried.criterion[k, other, at]), "ap50": float(tried.ap50[k, other, at])}
            gains[name] = {score: [best[score], less[score]] for score in best}
    gains["gate"] = {"criterion": [gated.criterion, best["criterion"]], "ap50": [gated.ap50, best["ap50"]]}
    return gains


def _rows(every: Mask, kept: Sequence[bool] | Mask) -> Mask:
    return np.asarray(every & np.array(kept, bool)[:, None])


def _shared_cut(tried: Tried) -> Mask:
    """The options `(o,)` with the one threshold and number of boxes that is best for all findings together."""
    cuts = [
        (option.threshold.kind, option.threshold.value, option.max_boxes, option.merge_gap) for option in tried.options
    ]
    boxed = np.flatnonzero(tried.boxes)
    best = np.stack([tried.best_of_options(int(k)) for k in boxed])
    names = list(dict.fromkeys(cuts))
    own = {name: np.array([cut == name for cut in cuts]) for name in names}
    mean = [float(best[:, own[name]].max(axis=1).mean()) for name in names]
    return own[names[int(np.argmax(mean))]]


def _finding(entry: FindingRecipe, tried: Tried, k: int, gains: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One finding's line of `search.json`."""
    best = tried.best_of_options(k)
    by_method: dict[str, float] = {}
    for option, value in zip(tried.options, best.tolist(), strict=True):
        members = ",".join(map(str, option.members))
        name = f"{option.source}/prior {option.exponent:g}/{option.threshold.kind}/members {members}"
        name += "/boxes fused" if option.fusion == "boxes" else ""
        by_method[name] = max(by_method.get(name, 0.0), round(value, 6))
    return {
        "name": entry.name,
        "boxes": entry.tune.boxes,
        "images": entry.tune.images,
        "chosen": {
            "members": list(entry.members),
            "fusion": entry.fusion,
            "source": str(entry.wanted),
            "prior": entry.prior.exponent if entry.prior else 0,
            "threshold": [entry.threshold.kind, entry.threshold.value],
            "max_boxes": entry.max_boxes,
            "merge_gap": entry.merge_gap,
            "gate": entry.gate,
            "strength": entry.calibration.strength if entry.calibration else None,
        },
        "ap50": entry.tune.ap50,
        "ap50_uncalibrated": entry.tune.ap50_uncalibrated,
        "best_to_median": round(float(best.max() - np.median(best)), 6),
        "near_best": {f"{near:g}": round(float((best >= best.max() - near).mean()), 6) for near in NEAR},
        "one_cut_further": _next_cuts(tried, k),
        "ingredients": {name: {score: _round(pair) for score, pair in one.items()} for name, one in gains.items()},
        "best_criterion": by_method,
    }


def _next_cuts(tried: Tried, k: int) -> list[float | None]:
    """What the criterion loses at the next lower and the next higher cut, all else as chosen; null at the end."""
    o, s = tried.pick(k)
    chosen = tried.options[o]
    like = {
        option.threshold.value: float(tried.criterion[k, i, s])
        for i, option in enumerate(tried.options)
        if (option.kind, option.max_boxes, option.merge_gap, option.threshold.kind)
        == (chosen.kind, chosen.max_boxes, chosen.merge_gap, chosen.threshold.kind)
    }
    values = sorted(like)
    at = values.index(chosen.threshold.value)
    own = like[chosen.threshold.value]
    return [round(own - like[values[i]], 6) if 0 <= i < len(values) else None for i in (at - 1, at + 1)]


def _round(values: Any) -> list[float]:
    return [round(float(value), 6) for value in values]


def as_markdown(content: Mapping[str, Any]) -> str:
    """`search.md`: `search.json` for a person.

    Args:
        content: what `search.json` holds.
    """
    images, options = content["images"], content["options"]
    head = [
        "finding",
        "boxes",
        "map",
        "prior",
        "cut",
        "at most",
        "merged below",
        "gate",
        "calibration",
        "AP50",
        "uncalibrated",
    ]
    lines = [
        "# Recipe search",
        "",
        f"{options} options a finding, {images} annotated images of *tune*. {_HONESTY}",
        "",
        *_table(["recipe", "AP50"], [[name, _figure(one["ap50"])] for name, one in content["recipes"].items()]),
        "",
        "## Chosen",
        "",
        _FLATNESS,
        "",
        *_table([*head, "best – median", "near", "next cuts"], [_row(one) for one in content["findings"]]),
        "",
        "## What each ingredient adds",
        "",
        _GAINS,
        "",
        *_ingredients(content),
    ]
    return "\n".join(lines) + "\n"


def _row(one: Mapping[str, Any]) -> list[str]:
    chosen = one["chosen"]
    kind, value = chosen["threshold"]
    further = " / ".join("–" if loss is None else f"{loss:.3f}" for loss in one["one_cut_further"])
    return [
        one["name"],
        str(one["boxes"]),
        f"{chosen['source']}, members {', '.join(map(str, chosen['members']))}"
        + (", boxes fused" if chosen["fusion"] == "boxes" else ""),
        f"{chosen['prior']:g}" if chosen["prior"] else "–",
        f"{value:g} of range" if kind == "range" else f"{value:g}",
        str(chosen["max_boxes"]),
        f"{chosen['merge_gap']:g}" if chosen["merge_gap"] else "–",
        f"{chosen['gate']:g}" if chosen["gate"] else "–",
        "–" if chosen["strength"] is None else f"{chosen['strength']:g}",
        _figure(one["ap50"]),
        _figure(one["ap50_uncalibrated"]),
        f"{one['best_to_median']:.3f}",
        f"{100 * one['near_best'][f'{NEAR[1]:g}']:.0f} %",
        further,
    ]


def _ingredients(content: Mapping[str, Any]) -> list[str]:
    boxed = [one for one in content["findings"] if one["ingredients"]]
    rows = []
    for name, mean in content["ingredients"].items():
        has, lacks = mean["ap50"]
        own = [one["ingredients"][name]["ap50"] for one in boxed]
        rows.append([INGREDIENTS[name], _figure(has), _figure(lacks), f"{has - lacks:+.3f}"])
        rows[-1] += [f"{mine - less:+.3f}" for mine, less in own]
    return _table(["ingredient", "with", "without", "gain", *(one["name"] for one in boxed)], rows)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    return [f"| {' | '.join(row)} |" for row in (cells[0], ["---"] * len(head), *cells[1:])]
