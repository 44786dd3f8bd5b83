"""What are annotated images worth? The weak detector against few-shot, on 0, 10, 25, 50 and 100 of them.

`python -m bench.curve [CONFIG]` (default `configs/curve.yaml`) makes, for each seed of the phantom, its films and
classifiers once, and then its cells, each a detector trained for the same number of steps:

- weak, on n annotated images: recipe, cut-offs and training use these boxes and no other. Without any, the recipe is
  that of `camgen search` with `defaults`, pseudo-boxes have a fixed cut-off, and the detector learns from them alone.
- few-shot: the true boxes of the same n images alone. Without any there is no such detector: its AP is 0 by
  definition.
- the ceiling, one a seed: the true boxes of all train images and of all annotated ones. It stays the denominator of
  the recovered fraction whatever n is, which is stricter than a ceiling that shrinks with n.

A finished cell is a file, `RUN/cells/seed1-weak-025.json`, that tables and plots are made of; the boxes stay in the
run's folder. `--keep DIR` puts the files of cells there too, and takes those that it finds there as done: so the work
may be shared out over days and machines. `--minutes M` starts no cell after M minutes; `--only seed1`, or `--only
weak-025`, or `--only few_shot`, makes these alone. What is missing is named on stderr. `RUN/curve.json` has the
differences from few-shot, each seed's too, and which are ties. `RUN/seed1` can be given to `bench.detectors` as a run.
`--quick` makes the cells of one seed from `configs/micro.yaml`: the same rows, figures without meaning.

The ratio of `recovered/annotated-N/vs-ceiling` is the recovered fraction, that of `…/vs-few-shot` the quotient of
two.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from bench.curve_points import (
    Cell,
    CellScores,
    as_markdown,
    draw,
    points,
    rows_of,
    told,
)
from bench.detector_cells import CONFIGS, detector_stages, micro, run_all, score, up_to_ensemble, with_annotated
from bench.pooling import rounded
from bench.printing import Row, answer
from camgen import generate, search
from weakray.config import StrictModel, load, to_plain, validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, WeakrayError
from weakray.files import read_json, sha256_json, write_json, write_yaml
from weakray.pipeline import PipelineConfig, Section
from weakray.runs import commit
from weakray.stack import silence
from weakray.stages import Stage

ACCEPTANCE = (11, 12, 13)


class UnannotatedSection(StrictModel):
    """How the weak detector is made without a single box to choose by."""

    search: Section = Field({"defaults": True}, description="what changes in `camgen search`")
    weak: Section = Field(
        {"source": "pseudo", "pseudo": {"score_at_least": 0.1}}, description="what changes in `detect train`"
    )


class CurveConfig(StrictModel):
    """The curve: a run of the pipeline, on which seeds, and with how many annotated images."""

    pipeline: PipelineConfig = Field(description="settings of a run on the phantom; its `ingest.tune` is the ceiling's")
    seeds: tuple[int, ...] = Field(min_length=1, description="development seeds of the phantom")
    annotated: tuple[int, ...] = Field(min_length=1, description="numbers of annotated images; 0: none")
    unannotated: UnannotatedSection = UnannotatedSection()
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")

    @field_validator("seeds")
    @classmethod
    def _for_development(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        kept = sorted(set(seeds) & set(ACCEPTANCE))
        if kept or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise ValueError(f"expected development seeds, each once; {ACCEPTANCE} are kept for acceptance")
        return seeds

    @model_validator(mode="after")
    def _on_the_phantom(self) -> CurveConfig:
        source, whole = self.pipeline.ingest.get("source"), self.pipeline.ingest.get("tune")
        if source != "phantom" or self.pipeline.reports is not None:
            raise ValueError(f"pipeline: expected ingest.source phantom and no reports, got source {source!r}")
        if not isinstance(whole, int) or not all(0 <= images <= whole for images in self.annotated):
            raise ValueError(f"annotated: expected numbers from 0 to pipeline.ingest.tune, which is {whole!r}")
        if len(set(self.annotated)) < len(self.annotated):
            raise ValueError(f"annotated: expected each number once, got {list(self.annotated)}")
        return self

    @property
    def whole(self) -> int:
        """The annotated images of a whole set."""
        return int(self.pipeline.ingest["tune"])

    def of_seed(self, seed: int) -> PipelineConfig:
        """The run that one seed's films and classifiers belong to."""
        changes = {"out": self.pipeline.root / f"seed{seed}", "ingest": {**self.pipeline.ingest, "seed": seed}}
        return self.pipeline.model_copy(update=changes)

    def cells(self) -> list[Cell]:
        """All cells, seed by seed."""
        made = []
        for seed in self.seeds:
            made.append(Cell(seed, "ceiling", self.whole))
            for images in self.annotated:
                made.append(Cell(seed, "weak", images))
                if images:
                    made.append(Cell(seed, "few_shot", images))
        return made


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", type=Path, default=CONFIGS / "curve.yaml", help="a curve's config")
    parser.add_argument("--minutes", type=float, help="start no further cell after so many minutes")
    parser.add_argument("--only", help="cells whose name has this part: seed1, weak, few_shot-025")
    parser.add_argument("--keep", type=Path, help="folder of finished cells: found there, and put there")
    parser.add_argument("--plot", type=Path, help="PNG to draw the curve into")
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    given = parser.parse_args()
    if given.quick and given.keep is not None:
        parser.error("--quick: expected no --keep, for its cells mean nothing and would take the place of others")
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        try:
            config = quick(Path(temporary) / "run") if given.quick else load(CurveConfig, given.config)
            run(config, minutes=given.minutes, only=given.only, keep=given.keep)
            rows = report(config, keep=given.keep, plot=given.plot)
        except WeakrayError as error:
            raise SystemExit(f"error: {error}") from None
    answer("curve", rows)


def quick(out: Path) -> CurveConfig:
    """Two points of one seed, of tiny films and trainings."""
    pipeline = micro(out)
    plain = UnannotatedSection(weak={"source": "pseudo", "pseudo": {"score_at_least": 0.0}})
    annotated = (0, pipeline.ingest["tune"])
    return CurveConfig(pipeline=pipeline, seeds=(1,), annotated=annotated, unannotated=plain, draws=50)


def run(
    config: CurveConfig, *, minutes: float | None = None, only: str | None = None, keep: Path | None = None
) -> None:
    """Makes the cells that are missing.

    Args:
        config: the curve.
        minutes: no cell is started after so many; None sets no limit.
        only: makes the cells alone whose name has these words, such as seed1 or weak-025.
        keep: folder in which finished cells are found, and into which they are put.

    Raises:
        ConfigError: if no cell is called so, or a setting is wrong: before anything is made.
    """
    start = time.monotonic()
    cells = config.cells()
    chosen = [cell for cell in cells if only is None or f"-{only}-" in f"-{cell.name}-"]
    if not chosen:
        raise ConfigError(f"--only: expected a part of a cell's name, such as {cells[0].name} or seed1; got {only!r}")
    for cell in chosen:
        stages_of(config, cell)
    for cell in chosen:
        scores = found(config, cell, keep)
        if scores is None:
            if minutes is not None and time.monotonic() - start >= 60 * minutes:
                print(f"{minutes:g} minutes are over: {cell.name} and what follows wait", flush=True)
                return
            print(f"== {cell.name}", flush=True)
            scores = measured(config, cell)
            _write(config.pipeline.root / "cells", scores)
        if keep is not None:
            _write(keep, scores)


def found(config: CurveConfig, cell: Cell, keep: Path | None = None) -> CellScores | None:
    """A finished cell, from the run's folder or the other one; None where there is none, or one of other settings."""
    for folder in (config.pipeline.root / "cells", keep):
        path = None if folder is None else folder / f"{cell.name}.json"
        if path is not None and path.is_file():
            scores = validate(CellScores, read_json(path), str(path))
            if scores.settings_sha256 == settings_sha256(config, cell):
                return scores
            print(f"{path}: of other settings, left aside", flush=True)
    return None


def _write(folder: Path, scores: CellScores) -> None:
    path, content = folder / f"{scores.cell}.json", to_plain(scores)
    if not path.is_file() or read_json(path) != content:
        write_json(path, content, indent=None)


def stages_of(config: CurveConfig, cell: Cell) -> list[Stage]:
    """The stages of a cell; films and classifiers are found where another cell of the seed has made them.

    Raises:
        ConfigError: naming the dotted path of a wrong setting.
    """
    run = config.of_seed(cell.seed)
    front = up_to_ensemble(run)
    home, data, part = run.root / f"annotated-{cell.annotated:03d}", run.root / "dataset", list[Stage]()
    if cell.annotated != config.whole:
        part, data = [with_annotated(run, cell.annotated, home)], home / "dataset"
    match cell.kind:
        case "weak":
            first = [*front, *part]
            own = {**(run.detect.weak if cell.annotated else config.unannotated.weak)}
            known = {"data": data, "ensemble": front[-1].folder}
            changes = {} if cell.annotated else config.unannotated.search
            settings = {**run.camgen.search, "rivals": False, **changes, **known, "out": home / "search"}
            searched = validate(search.SearchConfig, settings, "camgen.search")
            settings = {**run.camgen.generate, "gallery_images": 0, **known, "out": home / "pseudo_boxes"}
            settings |= {"recipe": searched.out / "recipe.yaml", "splits": ("train", "tune")}
            generated = validate(generate.GenerateConfig, settings, "camgen.generate")
            first.append(Stage("camgen.search", search.run, searched, searched.out))
            first.append(Stage("camgen.generate", generate.run, generated, generated.out))
            own["boxes"] = generated.out / "boxes.json"
        case "few_shot":
            first, own = part or front[:1], {"source": "tune"}
        case "ceiling":
            first, own = front[:1], {"source": "ceiling"}
    return [*first, *detector_stages(run, data, home / cell.kind, own)]


def measured(config: CurveConfig, cell: Cell) -> CellScores:
    """Runs a cell's stages, and scores its boxes on *test*."""
    stages = stages_of(config, cell)
    run = config.of_seed(cell.seed)
    write_yaml(run.root / "config.yaml", to_plain(run))
    run_all(stages)
    training, prediction = stages[-2].config, stages[-1].config
    boxes = prediction.out / "boxes.json"
    scored = score(boxes, Dataset.load(prediction.data), config.draws, cell.seed)
    return CellScores(
        cell=cell.name,
        **cell._asdict(),
        **scored.scores,
        ap50_draws=rounded(scored.ap50.drawn),
        test_sha256=scored.test_sha256,
        images=scored.images,
        patients=scored.patients,
        steps=training.steps,
        seconds={stage.name: stage.seconds for stage in stages},
        commit=commit(),
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        settings_sha256=settings_sha256(config, cell),
        boxes=boxes.relative_to(config.pipeline.root).as_posix(),
    )


def settings_sha256(config: CurveConfig, cell: Cell) -> str:
    """Hash of what a cell's figures depend on: a seed or a number more in the config leaves other cells as they are."""
    run: dict[str, Any] = to_plain(config.of_seed(cell.seed))
    used = {
        "cell": cell.name,
        "ingest": {**run["ingest"], "tune": cell.annotated},
        "train": run["detect"]["train"],
        "predict": run["detect"]["predict"],
        "draws": config.draws,
    }
    if cell.kind == "weak":
        used |= {"classify": run["classify"], "camgen": run["camgen"]}
        used["weak"] = run["detect"]["weak"] if cell.annotated else to_plain(config.unannotated)
    return sha256_json(used)


def report(config: CurveConfig, *, keep: Path | None = None, plot: Path | None = None) -> list[Row]:
    """Writes `curve.json`, and the plot, of the cells that are there; names the others.

    Raises:
        DataError: if cells of one seed were scored on different films.
    """
    wanted = config.cells()
    cells = {cell.name: scores for cell in wanted if (scores := found(config, cell, keep)) is not None}
    missing = [cell.name for cell in wanted if cell.name not in cells]
    made = points(cells, config.seeds, config.annotated)
    content = told(cells, made)
    commits = sorted({scores.commit for scores in cells.values()})
    whole = {"points": content, "missing": missing, "commits": commits, "draws": config.draws}
    write_json(config.pipeline.root / "curve.json", whole)
    if plot is not None:
        draw(content, plot)
    print(as_markdown(content), flush=True)
    if missing:
        print(f"missing: {', '.join(missing)}", flush=True)
    if len(commits) > 1:
        print(f"the cells were made by {len(commits)} versions of the code: {', '.join(commits)}", flush=True)
    return rows_of(made)


if __name__ == "__main__":
    main()
