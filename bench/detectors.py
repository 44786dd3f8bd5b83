"""What does each ingredient of the weak detector's training add? Its rivals, of one budget, on one run's data.

`python -m bench.detectors RUN` takes a run of the pipeline: its dataset, its recipe's boxes, its settings of
`detect`. All detectors are trained for as many steps; they differ in what they learn from, and in which order:

- `pseudo`: the recipe's boxes alone; `pseudo_weights`: each believed as its score ranks; `pseudo_weights_rounds`: and
  then, round by round, boxes of the detector's own, likewise.
- `few_shot`: the true boxes of *tune* alone; `few_shot_rounds`: then rounds of its own boxes, so that no box of the
  maps has a part in it.
- `mixed`: pseudo-boxes with tune images among them; `curriculum`: pseudo-boxes, then tune's; `curriculum_rounds`:
  both, round by round.
- `less_mirrored`, `less_weights`, `less_continued`: `curriculum_rounds` without that one setting of its rounds, where
  the run has it on; without `continued` it goes two rounds, each ended by steps on tune's boxes alone. `less_bent`
  and `less_pasted`: its films not bent, or without findings pasted onto them, where the run's `augment` has it so; all
  others are bent and pasted onto as it says.
- `supervised`: the true boxes of train and tune, the ceiling.
- with `--finer`, `curriculum_rounds` with one thing changed in how boxes become training boxes: `less_…` without what
  the run has on, `more_…` with what it has off. `cutoffs`: a cut-off for each finding, not one for all; `unplaced`:
  background is not taught where a finding that is present has no box; `backgrounds`: films without a finding; `clean`:
  the least sure films set apart as noisy; `informative`: findings whose maps fail on tune left to the true boxes;
  `fused`: its own boxes fused with the maps'; `repeated`: rare findings shown more often.

Each is scored on *test*, on the same bootstrap draws of patients: AP, what each type of error costs, differences in
AP50 from few-shot and from plain pseudo-boxes, and the recovered fraction. Rows print AP50 over that of these two,
and of the ceiling; `RUN/detectors/detectors.json` has all figures, and `--table FILE` writes them as Markdown; such
files of several seeds are what `bench.ingredients` pools. A detector is a run folder `RUN/detectors/NAME`; one that has
been trained under the same settings anywhere in RUN is taken from there. A seed of `bench.curve` is such a run too,
with `--boxes RUN/annotated-100/pseudo_boxes/boxes.json`, and has trained three of them. Killed and run again it goes on
where it stopped; `--minutes M` starts none after M minutes, and tables are made of those that are there. `--only NAME`,
as often as wanted, leaves out the others. `--quick` makes a run of `configs/micro.yaml` first: the same rows, figures
without meaning.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.detector_cells import Scored, detector_stages, micro, run_all, score
from bench.pooling import rounded
from bench.printing import Row, answer, paired, plain, shown
from detect.course import CourseConfig
from detect.opening import DETECTOR_JSON
from detect.self_training import OwnBoxConfig
from detect.training_set import PseudoBoxConfig
from eval.box_errors import ERROR_TYPES
from weakray.config import to_plain, validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, RunError, WeakrayError
from weakray.files import read_yaml, sha256_file, write_json, write_text, write_yaml
from weakray.pipeline import PipelineConfig, Section, plan
from weakray.runs import commit, finished_inputs
from weakray.stack import silence
from weakray.stages import Stage

PSEUDO, FEW_SHOT, SUPERVISED = "pseudo", "few_shot", "supervised"
CEILING = "ceiling_boxes.json"
ROUNDS = 2  # where the run's own weak detector has none
MIXED = 0.3  # share of tune images among those shown
_ROUNDS = ("rounds", "continued", "first_share")
_OFF = {"mirrored": False, "weights": "one"}
_SHARES = ("tune_share", "tune_lr_factor", "repeat_below")  # of the run's course; the rest is what is compared


class Finer(NamedTuple):
    """An ingredient of how boxes become training boxes: a setting, in one or several parts of a training's settings."""

    parts: tuple[str, ...]
    setting: str
    on: Any
    off: Any

    def default(self, part: str) -> Any:
        """What a training has where nothing is said."""
        return getattr(_PARTS[part], self.setting)


_PARTS = {"pseudo": PseudoBoxConfig(), "own": OwnBoxConfig(), "course": CourseConfig()}
FINER = {
    "cutoffs": Finer(("pseudo",), "score_at_least", on="tune", off=0.1),
    "unplaced": Finer(("pseudo", "own"), "unplaced", on=0.0, off=1.0),
    "backgrounds": Finer(("pseudo", "own"), "background_share", on=0.2, off=0.0),
    "clean": Finer(("pseudo", "own"), "clean_share", on=0.7, off=1.0),
    "informative": Finer(("pseudo",), "least_tune_f1", on=0.2, off=0.0),
    "fused": Finer(("own",), "fuse", on="recipe", off="none"),
    "repeated": Finer(("course",), "repeat_below", on=0.1, off=0.0),
}


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/phantom"), help="a run's folder")
    parser.add_argument("--boxes", type=Path, help="the recipe's boxes.json, where it is not in its place")
    parser.add_argument("--minutes", type=float, help="start no further detector after so many minutes")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws over patients")
    parser.add_argument("--table", type=Path, help="Markdown file to write the table into")
    parser.add_argument("--finer", action="store_true", help="how boxes become training boxes, too")
    parser.add_argument("--only", action="append", metavar="NAME", help="this detector, not all; may be repeated")
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    given = parser.parse_args()
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        try:
            root = quick(Path(temporary) / "run") if given.quick else given.run
            draws = 50 if given.quick else given.draws
            rows = run(
                root,
                boxes=given.boxes,
                minutes=given.minutes,
                draws=draws,
                table=given.table,
                finer=given.finer,
                only=given.only,
            )
        except WeakrayError as error:
            raise SystemExit(f"error: {error}") from None
    answer("detectors", rows)


def quick(out: Path) -> Path:
    """As much of a tiny run as is looked at here, its few-shot detector among it."""
    config = micro(out)
    wanted = ("ingest", "classify.member", "classify.ensemble", "camgen.search", "camgen.recipe", "detect.few_shot")
    run_all([stage for stage in plan(config) if stage.name.startswith(wanted)])
    write_yaml(out / "config.yaml", to_plain(config))
    return out


def run(
    root: Path,
    *,
    boxes: Path | None = None,
    minutes: float | None = None,
    draws: int = 1000,
    table: Path | None = None,
    finer: bool = False,
    only: Sequence[str] | None = None,
) -> list[Row]:
    """Trains the detectors that are missing, scores those that are there.

    Args:
        root: a run of the pipeline, finished up to the recipe's boxes.
        boxes: the recipe's boxes; None: where the run has them.
        minutes: no detector is started after so many; None sets no limit.
        draws: of the bootstrap over patients.
        table: Markdown file to write; None: none.
        finer: whether to change one thing at a time in how boxes become training boxes, too.
        only: names of the detectors wanted; None: all.

    Raises:
        ConfigError: if a setting of the run is wrong, or if it has no detector of a name in `only`.
        RunError: if the run has no dataset or no boxes yet.
    """
    start = time.monotonic()
    config = validate(PipelineConfig, read_yaml(root / "config.yaml"), str(root / "config.yaml"))
    config = config.model_copy(update={"out": root})  # it may have been moved
    stages = plan(config)
    data = next(stage.config.data for stage in stages if stage.name == "classify.ensemble")
    boxes = boxes or next(stage.folder for stage in stages if stage.name == "camgen.recipe") / "boxes.json"
    if not (boxes.is_file() and (data / "dataset.json").is_file()):
        raise RunError(f"{root}: expected a run with its recipe's boxes, found none; run `weakray run` first")
    dataset = Dataset.load(data)
    train = config.detect.train
    settings = settings_of(config.detect.weak, train.get("augment", {}), finer=finer)
    if not (data / CEILING).is_file():
        print(f"{data} has no {CEILING}: there is no supervised detector, and no recovered fraction", flush=True)
        del settings[SUPERVISED]
    if only is not None:
        if unknown := sorted({*only} - settings.keys()):
            raise ConfigError(f"--only: expected some of {', '.join(settings)}; got {', '.join(unknown)}")
        settings = {name: own for name, own in settings.items() if name in only}
    planned = {name: planned_detector(config, dataset, boxes, name, own) for name, own in settings.items()}
    seed = getattr(stages[0].config, "seed", 0)  # of the films, where they are made
    scored: dict[str, Scored] = {}
    missing: list[str] = []
    for name, (folder, wanted) in planned.items():
        done = all((stage.folder / "done.json").is_file() for stage in wanted)
        if not done and minutes is not None and time.monotonic() - start >= 60 * minutes:
            missing.append(name)
            continue
        print(f"== {name}, in {folder}", flush=True)
        run_all(wanted)
        scored[name] = score(wanted[-1].folder / "boxes.json", dataset, draws, seed)
    if missing:
        print(f"{minutes:g} minutes are over; missing: {', '.join(missing)}", flush=True)
    content = {
        name: {
            "settings": settings[name],
            "folder": planned[name][0].relative_to(root).as_posix(),
            **told(scored, name),
            "ap50_draws": rounded(own.ap50.drawn),
        }
        for name, own in scored.items()
    }
    about = {"seed": seed, "train": train, "draws": draws, "commit": commit()}
    write_json(root / "detectors" / "detectors.json", {**about, "missing": missing, "detectors": content})
    if table is not None:
        write_text(table, as_markdown(content))
    return rows_of(scored)


def settings_of(weak: Mapping[str, Any], augment: Section, *, finer: bool = False) -> dict[str, Section]:
    """Name → what a detector changes in `detect.train`.

    Args:
        weak: what the run's own weak detector changes: how far boxes are believed, and its course.
        augment: how the run's detectors vary their images.
        finer: whether the detectors of `--finer` are among them.
    """
    believed = {name: value for name, value in weak.items() if name not in {"source", "course"}}
    course = dict(weak.get("course", {}))
    rounds = {**course, "rounds": course.get("rounds") or ROUNDS}
    shares = {name: value for name, value in course.items() if name in _SHARES}
    weighted = {**believed, "pseudo": {**believed.get("pseudo", {}), "weights": "score"}}
    of_tune = {"own": believed["own"]} if "own" in believed else {}
    whole = {**believed, "source": "pseudo_then_tune", "course": rounds}
    return {
        PSEUDO: {**believed, "source": "pseudo"},
        "pseudo_weights": {**weighted, "source": "pseudo"},
        "pseudo_weights_rounds": {
            **weighted,
            "own": {"weights": "score", **believed.get("own", {})},
            "source": "pseudo",
            "course": {name: value for name, value in rounds.items() if name in _ROUNDS},
        },
        FEW_SHOT: {"source": "tune"},
        "few_shot_rounds": {**of_tune, "source": "tune", "course": rounds},
        "mixed": {
            **believed,
            "source": "pseudo_then_tune",
            "course": {**shares, "tune_share": 0.0, "tune_mixed": MIXED},
        },
        "curriculum": {**believed, "source": "pseudo_then_tune", "course": shares},
        "curriculum_rounds": whole,
        **_less_one(whole, shares, augment),
        **(_one_changed(whole) if finer else {}),
        SUPERVISED: {"source": "ceiling"},
    }


def _less_one(whole: Section, shares: Section, augment: Section) -> dict[str, Section]:
    own, made = whole.get("own", {}), dict[str, Section]()
    for name, off in _OFF.items():
        if own.get(name, getattr(OwnBoxConfig(), name)) != off:
            made[f"less_{name}"] = {**whole, "own": {**own, name: off}}
    if whole["course"].get("continued"):
        made["less_continued"] = {**whole, "course": {**shares, "rounds": ROUNDS}}
    for name, said in (("bend", "less_bent"), ("paste", "less_pasted")):
        if name in augment:
            made[said] = {**whole, "augment": {other: augment[other] for other in augment if other != name}}
    return made


def _one_changed(whole: Section) -> dict[str, Section]:
    made = dict[str, Section]()
    for name, finer in FINER.items():
        has = any(whole.get(part, {}).get(finer.setting, finer.default(part)) != finer.off for part in finer.parts)
        changed = {part: {**whole.get(part, {}), finer.setting: finer.off if has else finer.on} for part in finer.parts}
        made[f"{'less' if has else 'more'}_{name}"] = {**whole, **changed}
    return made


def planned_detector(
    config: PipelineConfig, dataset: Dataset, boxes: Path, name: str, own: Section
) -> tuple[Path, list[Stage]]:
    """Folder of a detector's training, and the stages needed: prediction alone where the run has trained it."""
    of_maps = own["source"] in {"pseudo", "pseudo_then_tune"}
    read = {"dataset": dataset.sha256} | ({"boxes": sha256_file(boxes)} if of_maps else {})
    if name == SUPERVISED:
        read["ceiling"] = sha256_file(dataset.root / CEILING)
    home = config.root / "detectors" / name
    training, prediction = detector_stages(config, dataset.root, home, {**own, "boxes": boxes} if of_maps else own)
    for folder in sorted(path.parent for path in config.root.rglob(DETECTOR_JSON)):
        inputs = finished_inputs(folder, training.config)
        if inputs is not None and read.items() <= inputs.items():
            predict = prediction.config.model_copy(update={"detector": folder})
            return folder, [Stage(prediction.name, prediction.verb, predict, prediction.folder)]
    return home, [training, prediction]


def told(scored: Mapping[str, Scored], name: str) -> dict[str, Any]:
    """A detector's figures, and what it is against the others that are there; None where that is undefined."""
    own, compared = scored[name], dict[str, Any]()
    for peer in (FEW_SHOT, PSEUDO):
        if peer in scored and name != peer:
            difference = own.ap50.less(scored[peer].ap50)
            compared[f"less_{peer}"] = {**difference.interval.to_dict(), "tie": difference.tie}
    if SUPERVISED in scored:
        compared["recovered_fraction"] = plain(own.ap50.over(scored[SUPERVISED].ap50))
    return {**own.scores, **compared}


def rows_of(scored: Mapping[str, Scored]) -> list[Row]:
    """AP50 of each detector over few-shot's, plain pseudo-boxes' and the ceiling's, as far as they are there."""
    rows = []
    for name, own in scored.items():
        for peer in (FEW_SHOT, PSEUDO, SUPERVISED):
            if peer in scored and peer != name:
                other, case = scored[peer].ap50, f"ap50/{name}/vs-{peer.replace('_', '-')}"
                rows.append(paired(case, own.ap50.value, other.value, "AP50 on test", own.ap50.over(other), 1))
    return rows


def as_markdown(content: Mapping[str, Mapping[str, Any]]) -> str:
    """What `told` gives of each detector, as two tables: figures, and what each type of error costs."""
    figures = [
        "| detector | AP30 | AP50 | mAP | AP50 less few-shot's | AP50 less plain pseudo-boxes' | recovered |",
        "|---|---|---|---|---|---|---|",
    ]
    errors = [f"| detector | {' | '.join(ERROR_TYPES)} |", f"|---|{'---|' * len(ERROR_TYPES)}"]
    for name, own in content.items():
        cells = [shown(own[metric]) for metric in ("ap30", "ap50", "map")]
        for peer in (FEW_SHOT, PSEUDO):
            difference = own.get(f"less_{peer}")
            cells.append(f"{shown(difference, sign=True)}{', tie' if difference and difference['tie'] else ''}")
        cells.append(shown(own.get("recovered_fraction")))
        figures.append(f"| {name} | {' | '.join(cells)} |")
        gains = [f"{own['errors'][kind]['value']:.3f}" for kind in ERROR_TYPES]
        errors.append(f"| {name} | {' | '.join(gains)} |")
    told_errors = "AP50 that mending all errors of one type, and no other, would give:"
    return "\n".join([*figures, "", told_errors, "", *errors]) + "\n"


if __name__ == "__main__":
    main()
