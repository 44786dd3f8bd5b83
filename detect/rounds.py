"""What each round of a training came to: boxes taught, cut-offs, losses, and figures on held-out tune images.

`rounds.jsonl` holds a line a round, `held_out/round_N.json` the boxes that the detector found on held-out images after
round N. Both are functions of the averaged weights at the round's end: a run killed while it measures measures again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detect.course import Stretch
from detect.detector import Detector
from detect.network import Network
from detect.training_set import BoxCounts
from eval.average_precision import Matches, match
from eval.box_scores import Metric, of_metric
from weakray.coco import Predictions, load_results, save_results
from weakray.config import StrictModel
from weakray.dataset import Dataset
from weakray.files import write_text
from weakray.imaging import read_image
from weakray.runs import RunFolder


class RoundResult(StrictModel):
    """A line of `rounds.jsonl`."""

    round: int  # 0 is the first
    steps: int  # of the optimizer, up to its end
    boxes: dict[str, int]  # training set → boxes taught
    cutoffs: dict[str, float | None] | None  # of those that are not true boxes; None where no cut-off was needed
    losses: dict[str, dict[str, float]]  # stretch → each part of the loss over its last logged steps
    ap30: float | None  # on held-out tune images; None where none are held out, or they have no true box
    ap50: float | None


@dataclass(frozen=True)
class RoundKeeper:
    """Measures a training after each round.

    Attributes:
        run: the run folder.
        dataset: all of it, held-out images included.
        held_out: tune images that the training does not see; empty where it sees all.
        stretches: of the training.
        counts: a stretch's name → what its training set holds.
        batch_size: images at a time.
    """

    run: RunFolder
    dataset: Dataset
    held_out: Sequence[str]
    stretches: Sequence[Stretch]
    counts: Callable[[str], BoxCounts]
    batch_size: int

    def after(self, index: int) -> Callable[[Network], None] | None:
        """What is to be done once the stretch of that index ended; None where it ends no round."""
        if index + 1 < len(self.stretches) and not self.stretches[index + 1].own:
            return None
        return lambda network: self._measure(index, network)

    def results(self) -> tuple[RoundResult, ...]:
        """The rounds measured so far."""
        path = self.run.root / "rounds.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return tuple(RoundResult.model_validate_json(line) for line in lines)

    def _measure(self, index: int, network: Network) -> None:
        of_round = round_numbers(self.stretches)
        number = of_round[index]
        mine = [i for i, owner in enumerate(of_round) if owner == number]
        sets = {self.stretches[i].name: self.counts(self.stretches[i].name) for i in mine}
        ap30, ap50 = self._figures(number, network)
        result = RoundResult(
            round=number,
            steps=sum(stretch.steps for stretch in self.stretches[: index + 1]),
            boxes={name: counts.boxes for name, counts in sets.items()},
            cutoffs=next((counts.cutoffs for counts in sets.values() if counts.cutoffs is not None), None),
            losses={self.stretches[i].name: losses for i in mine if (losses := self._losses(i))},
            ap30=ap30,
            ap50=ap50,
        )
        before = [row for row in self.results() if row.round < number]
        write_text(self.run.root / "rounds.jsonl", "".join(row.model_dump_json() + "\n" for row in (*before, result)))

    def _losses(self, phase: int) -> dict[str, float]:
        rows = [row for row in self.run.metrics() if row["phase"] == phase]
        return {name: value for name, value in rows[-1].items() if name.endswith("_loss")} if rows else {}

    def _figures(self, number: int, network: Network) -> tuple[float | None, float | None]:
        if not self._looked_at:
            return None, None
        path = held_out_boxes(self.run.root, number)
        save_results(path, self._predict(network), self.dataset.image_ids)
        truth = self.dataset.truth_of("tune").only(self.held_out)
        matches = match(load_results(path), truth, len(self.dataset.taxonomy), (0.3, 0.5))
        return macro(matches, "ap30"), macro(matches, "ap50")

    @property
    def _looked_at(self) -> list[str]:
        """The held-out images that annotators looked at: the others cannot be scored."""
        truth = self.dataset.truth_of("tune")
        annotated = {*truth.boxes, *truth.image_ids}
        return [image_id for image_id in self.held_out if image_id in annotated]

    def _predict(self, network: Network) -> Predictions:
        network.module.eval()
        detector, found, ids = Detector(network), Predictions(), self._looked_at
        for start in range(0, len(ids), self.batch_size):
            part = ids[start : start + self.batch_size]
            images = [read_image(self.dataset.path_of(image_id)) for image_id in part]
            found |= dict(zip(part, detector.predict(images), strict=True))
        return found


def round_numbers(stretches: Sequence[Stretch]) -> list[int]:
    """The round of each stretch: a new one begins with boxes of the detector's own."""
    return np.cumsum([stretch.own for stretch in stretches]).tolist()


def held_out_boxes(run: Path, number: int) -> Path:
    """Where a training keeps the boxes it found on held-out images after a round."""
    return run / "held_out" / f"round_{number}.json"


def macro(matches: Matches, metric: Metric) -> float | None:
    """AP at one IoU, mean over the findings with a true box; None where none has one."""
    known = matches.positives > 0
    if not known.any():
        return None
    return round(float(of_metric(matches, matches.average_precision(), metric)[known].mean()), 6)
