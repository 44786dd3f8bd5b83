"""What benches of recipes share: a finished run's films and classifiers, candidates scored once, test maps made once.

What takes long goes into files of the bench's own run folder: killed and run again, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from tqdm import tqdm

from bench.detector_cells import CONFIGS, run_all, up_to_ensemble
from bench.printing import Row, paired
from camgen.mapper import Making, map_dataset
from camgen.maps import MapName, MapSet
from camgen.search import SearchConfig, all_options, try_all
from camgen.search_report import Tried
from camgen.tuning import TuneFinding
from classify.compute import DeviceName
from classify.ensemble import Ensemble
from eval.average_precision import Matches
from eval.box_scores import Metric, compare_boxes, score_matches
from eval.intervals import PatientDraws
from weakray.config import StrictModel, load, to_plain, validate
from weakray.dataset import Dataset
from weakray.files import read_json, read_yaml, replacing, write_json, write_yaml
from weakray.pipeline import PipelineConfig
from weakray.runs import RunFolder

_CHUNK = 64  # test images a file
_METRICS: tuple[Metric, ...] = ("ap50", "ap30")


class RunBenchConfig(StrictModel):
    """Of which run, and how."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"data", "ensemble", "out", "workers"})

    data: Path = Field(description="dataset folder")
    ensemble: Path = Field(description="folder of the ensemble")
    out: Path = Field(description="run folder")
    search: dict[str, Any] = Field({}, description="settings of camgen search")
    batch_size: int = Field(16, ge=1, description="images a forward pass")
    device: DeviceName = Field("auto", description="auto takes CUDA where there is one")
    workers: int = Field(2, ge=1, description="threads that decode images")
    draws: int = Field(1000, ge=1, description="bootstrap draws over patients")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")


def arguments(about: str | None, folder: str) -> argparse.ArgumentParser:
    """What every such bench is given on the command line; results go to `RUN/folder`."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/phantom"), help="a finished run's folder")
    parser.add_argument("--out", type=Path, help=f"where the bench keeps its files; RUN/{folder}")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws over patients")
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    return parser


def settings(given: argparse.Namespace, folder: str, temporary: Path) -> dict[str, Any]:
    """Values of a `RunBenchConfig`; with `--quick` of a run that is made first."""
    root = given.run
    if given.quick:
        root = temporary / "run"
        _make(load(PipelineConfig, CONFIGS / "micro.yaml").model_copy(update={"out": root}))
    return {
        "data": root / "dataset",
        "ensemble": root / "classify" / "ensemble",
        "out": given.out or root / folder,
        "search": read_yaml(root / "config.yaml")["camgen"]["search"],
        "draws": 50 if given.quick else given.draws,
    }


def _make(config: PipelineConfig) -> None:
    """As much of a run as is looked at here: dataset and classifiers."""
    run_all(up_to_ensemble(config))
    write_yaml(config.root / "config.yaml", to_plain(config))


def search_config(config: RunBenchConfig) -> SearchConfig:
    """The run's own settings of the search."""
    paths = {name: getattr(config, name) for name in ("data", "ensemble", "out", "device", "workers")}
    return validate(SearchConfig, {**config.search, **paths, "map_batch": config.batch_size}, "search")


def tried_once(
    folder: RunFolder, name: str, config: SearchConfig, maps: MapSet, findings: Sequence[TuneFinding]
) -> Tried:
    """All candidates, scored; from its file where it stands."""
    path = folder.checkpoints / f"tried_{name}.npz"
    if not path.is_file():
        tried = try_all(config, maps, findings)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, criterion=tried.criterion, ap50=tried.ap50, allowed=tried.allowed)
    options = all_options(config, len(maps.member_probabilities))
    boxes = np.array([finding.truth.count for finding in findings])
    with np.load(path) as held:
        return Tried(options, held["criterion"], held["ap50"], held["allowed"], boxes)


def in_parts(
    config: RunBenchConfig,
    folder: RunFolder,
    dataset: Dataset,
    ensemble: Ensemble,
    wanted: Sequence[MapName],
    making: Making,
    content_of: Callable[[MapSet], Mapping[str, Any]],
) -> Iterator[tuple[list[str], Any]]:
    """What `content_of` makes of the maps of the scored *test* images, chunk by chunk; finished chunks are read.

    Yields:
        the ids of a chunk, and its content, as JSON gives it back.
    """
    truth = dataset.truth_of("test")
    image_ids = sorted({*truth.boxes, *truth.image_ids})
    for start in tqdm(range(0, len(image_ids), _CHUNK), desc="test", unit="chunk", disable=None):
        path, part = folder.root / "parts" / f"{start:06d}.json", image_ids[start : start + _CHUNK]
        if not path.is_file():
            stream = map_dataset(ensemble, dataset, part, wanted, making, config.batch_size, config.workers)
            write_json(path, content_of(MapSet.concat(list(stream))), indent=None)
        yield part, read_json(path)


def compared(
    config: RunBenchConfig, dataset: Dataset, matches: Mapping[str, Matches], reference: str, case: Callable[..., str]
) -> tuple[dict[str, Any], list[Row]]:
    """Scores of each source, and a row a source and metric: the reference's AP over the source's, on the same draws.

    Args:
        config: of the bootstrap.
        dataset: whose patients are drawn.
        matches: source → its boxes, matched.
        reference: the source that the others are compared with.
        case: of a metric and a source's name.
    """
    full = matches[reference]
    drawn = PatientDraws.of(full.image_ids, dataset.patients, config.draws, config.seed)
    table: dict[str, Any] = {}
    for name, own in matches.items():
        table[name] = score_matches(own, dataset.patients, dataset.taxonomy.names, config.draws, config.seed)
    rows = []
    for name, own in tqdm(matches.items(), desc="bootstrap", disable=None):
        for metric in _METRICS if name != reference else ():
            gain = compare_boxes(full, own, drawn, metric)
            table[name][f"{metric}_gain"] = gain.interval.to_dict() | {"tie": gain.tie}
            ratio = compare_boxes(full, own, drawn, metric, "ratio").interval
            ours, peer = table[reference][metric]["value"], table[name][metric]["value"]
            rows.append(paired(case(metric, name), ours, peer, f"{metric.upper()} on test", ratio, config.draws))
    return table, rows
