"""What does each ingredient of the weak detector's training add, over several seeds?

`python -m bench.ingredients FILE...` takes the `detectors.json` that `bench.detectors` wrote for several seeds of one
config. An ingredient is a pair of detectors, with it and without it; its gain is the difference in AP50 on *test*, on
the same draws of patients, of each seed and pooled over the seeds that have both. It is said to help, or to harm, where
the pooled interval leaves 0 aside and the figures of all seeds, two at least, lie on the same side: the interval knows
the films that are scored, but not the chance in a training, and so the seeds have to agree. A seed on which it changes
nothing at all takes no side. `--table FILE` writes the gains as Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.pooling import Figure
from bench.printing import Row, answer, paired, plain, shown
from weakray.errors import DataError, WeakrayError
from weakray.files import read_json, write_text

Pair = tuple[str, str]  # the detector with an ingredient, and the one without it


def _finer(name: str) -> tuple[Pair, Pair]:
    """As the run has it on, or off."""
    return ("curriculum_rounds", f"less_{name}"), (f"more_{name}", "curriculum_rounds")


INGREDIENTS: dict[str, tuple[Pair, ...]] = {  # name → pairs, the first that a seed has is its own
    "weights by score": (("pseudo_weights", "pseudo"),),
    "rounds, after weighted pseudo-boxes": (("pseudo_weights_rounds", "pseudo_weights"),),
    "true boxes alone, not pseudo-boxes": (("few_shot", "pseudo"),),
    "pseudo-boxes, true ones among them": (("mixed", "few_shot"),),
    "pseudo-boxes, then true ones": (("curriculum", "few_shot"),),
    "rounds, after true boxes alone": (("few_shot_rounds", "few_shot"),),
    "rounds, after both": (("curriculum_rounds", "curriculum"),),
    "pseudo-boxes, where there are rounds": (("curriculum_rounds", "few_shot_rounds"),),
    "boxes of mirror images too": (("curriculum_rounds", "less_mirrored"),),
    "weights of its own boxes": (("curriculum_rounds", "less_weights"),),
    "rounds as one training": (("curriculum_rounds", "less_continued"),),
    "films bent": (("curriculum_rounds", "less_bent"),),
    "findings pasted from annotated films": (("curriculum_rounds", "less_pasted"),),
    "a cut-off for each finding": _finer("cutoffs"),
    "findings without a box left open": _finer("unplaced"),
    "films without a finding": _finer("backgrounds"),
    "the least sure films set apart": _finer("clean"),
    "findings whose maps fail left to true boxes": _finer("informative"),
    "its own boxes fused with the maps'": _finer("fused"),
    "rare findings repeated": _finer("repeated"),
}
Verdict = Literal["helps", "harms", "open"]


@dataclass(frozen=True, eq=False)
class Gain:
    """What an ingredient adds.

    Attributes:
        name: of the ingredient.
        seeds: seed → AP50 with it and without it.
    """

    name: str
    seeds: dict[int, tuple[Figure, Figure]]

    @property
    def pooled(self) -> tuple[Figure, Figure]:
        """AP50 with it and without it, the mean over seeds."""
        with_it, without = zip(*self.seeds.values(), strict=True)
        return Figure.mean(with_it), Figure.mean(without)

    @property
    def verdict(self) -> Verdict:
        """Whether it helps; open where chance may have made the difference, as it may with a single seed."""
        with_it, without = self.pooled
        sides = [own.value > other.value for own, other in self.seeds.values() if own.value != other.value]
        if len(sides) < 2 or with_it.less(without).tie or len({*sides}) > 1:
            return "open"
        return "helps" if sides[0] else "harms"


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="detectors.json of several seeds")
    parser.add_argument("--table", type=Path, help="Markdown file to write the table into")
    given = parser.parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            commits, found = gains(given.files)
        except WeakrayError as error:
            raise SystemExit(f"error: {error}") from None
        table = as_markdown(found)
        print(table)
        if given.table is not None:
            write_text(given.table, table)
    answer("ingredients", rows_of(found), commits)


def gains(files: Sequence[Path]) -> tuple[str, list[Gain]]:
    """The commits that the files were made at, and each ingredient of which a seed has both detectors.

    Raises:
        DataError: if two files are of one seed, or of other settings, or if one is no such file.
    """
    runs: dict[int, Any] = {}
    for path in files:
        content = read_json(path)
        if not {"seed", "train", "draws", "detectors"} <= content.keys():
            raise DataError(
                f"{path}: expected a detectors.json of `bench.detectors`; make it again where it is an old one"
            )
        if content["seed"] in runs:
            raise DataError(f"{path}: expected a seed a file, but seed {content['seed']} came before")
        _check(path, content, next(iter(runs.values()), content))
        runs[content["seed"]] = content
    found = []
    for name, pairs in INGREDIENTS.items():
        seeds = {seed: both for seed, run in runs.items() if (both := _both(run["detectors"], pairs)) is not None}
        if seeds:
            found.append(Gain(name, seeds))
    return " ".join(sorted({run["commit"] for run in runs.values()})), found


def _both(detectors: Any, pairs: Sequence[Pair]) -> tuple[Figure, Figure] | None:
    for with_it, without in pairs:
        if {with_it, without} <= detectors.keys():
            return _figure(detectors[with_it]), _figure(detectors[without])
    return None


def _check(path: Path, content: Any, first: Any) -> None:
    shared = content["detectors"].keys() & first["detectors"].keys()
    alike = all(content["detectors"][name]["settings"] == first["detectors"][name]["settings"] for name in shared)
    if not alike or (content["train"], content["draws"]) != (first["train"], first["draws"]):
        raise DataError(f"{path}: expected the settings and draws of the first file, got others")


def _figure(detector: Any) -> Figure:
    return Figure.of(detector["ap50"]["value"], detector["ap50_draws"])


def rows_of(found: Sequence[Gain]) -> list[Row]:
    """AP50 with each ingredient over AP50 without it, pooled."""
    rows = []
    for gain in found:
        (own, peer), case = gain.pooled, f"ap50/{gain.name}/vs-without"
        rows.append(paired(case, own.value, peer.value, "AP50 on test", own.over(peer), len(gain.seeds)))
    return rows


def as_markdown(found: Sequence[Gain]) -> str:
    """The gains as a table."""
    lines = ["| ingredient | seeds | gain in AP50, pooled | of each seed | |", "|---|---|---|---|---|"]
    for gain in found:
        own, peer = gain.pooled
        each = ", ".join(f"{with_it.value - without.value:+.3f}" for with_it, without in gain.seeds.values())
        seeds, pooled = ", ".join(map(str, gain.seeds)), shown(plain(own.less(peer).interval), sign=True)
        lines.append(f"| {gain.name} | {seeds} | {pooled} | {each} | {gain.verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
