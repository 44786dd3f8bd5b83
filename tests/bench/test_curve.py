"""The curve: pooling by hand, which cells count as done, and the whole of it on a handful of films."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import curve
from bench.curve import CurveConfig, found, quick, report, run, settings_sha256, stages_of
from bench.curve_points import Cell, CellScores, Kind, as_markdown, points, recovered, rows_of, told
from bench.detectors import planned_detector, settings_of
from bench.pooling import rounded
from tests.house.test_configs import BENCHES
from weakray.cli import main as weakray
from weakray.config import load, validate
from weakray.dataset import Dataset
from weakray.errors import ConfigError, DataError
from weakray.files import read_json, read_yaml, write_json
from weakray.pipeline import PipelineConfig

CONFIG = BENCHES["curve"]


def scores(name: str, ap50: float, drawn: list[float | None], test: str = "t") -> CellScores:
    """A finished cell of this name; the ends of its own interval play no part here."""
    words = name.split("-")
    figure = {"value": ap50, "low": 0.0, "high": 1.0}
    return CellScores(
        cell=name,
        seed=int(words[0].removeprefix("seed")),
        kind=words[1],
        annotated=int(words[2]) if len(words) > 2 else 100,
        ap30=figure,
        ap50=figure,
        map=figure,
        per_finding={},
        errors={},
        ap50_draws=tuple(drawn),
        test_sha256=test,
        images=4,
        patients=3,
        steps=12,
        seconds={"detect.weak": 1.5},
        commit="c",
        machine="m",
        settings_sha256="s",
        boxes="b",
    )


def two_seeds() -> dict[str, CellScores]:
    cells = [
        scores("seed1-weak-010", 0.4, [0.3, 0.4, 0.5]),
        scores("seed1-few_shot-010", 0.2, [0.1, 0.2, 0.4]),
        scores("seed1-ceiling", 0.8, [0.6, 0.8, 1.0]),
        scores("seed2-weak-010", 0.6, [0.5, 0.6, 0.7], "u"),
        scores("seed2-few_shot-010", 0.3, [0.3, 0.3, 0.3], "u"),
        scores("seed2-ceiling", 0.8, [0.8, 0.8, 0.8], "u"),
        scores("seed1-weak-000", 0.1, [0.1, 0.1, 0.1]),
    ]
    return {cell.cell: cell for cell in cells}


def test_seeds_are_pooled_draw_by_draw() -> None:
    none, ten = points(two_seeds(), [1, 2], [0, 10])
    assert (none.annotated, none.seeds) == (0, (1,))  # seed 2 has no weak detector there
    assert (none.few_shot.value, none.few_shot.drawn.tolist()) == (0.0, [0.0, 0.0, 0.0])
    assert ten.seeds == (1, 2)
    assert ten.weak.value == pytest.approx(0.5)
    assert ten.weak.drawn == pytest.approx(np.array([0.4, 0.5, 0.6]))
    difference = ten.weak.less(ten.few_shot)
    assert difference.interval.value == pytest.approx(0.25)  # .5 - .25
    assert difference.interval.low == pytest.approx(0.2025)  # of .2, .25, .25: 5 % of the way up from the least
    assert not difference.tie
    assert ten.weak.over(ten.ceiling).value == pytest.approx(0.625)  # .5 / .8
    # The quotients of the draws: .4 / .7, .5 / .8, .6 / .9
    assert ten.weak.over(ten.ceiling).high == pytest.approx(0.625 + 0.95 * (2 / 3 - 0.625))


def test_rows_have_the_ceiling_and_few_shot_as_peers() -> None:
    rows = {row.case: row for row in rows_of(points(two_seeds(), [1, 2], [0, 10]))}
    assert list(rows) == [
        "recovered/annotated-0/vs-ceiling",
        "recovered/annotated-10/vs-ceiling",
        "recovered-few-shot/annotated-10/vs-ceiling",
        "recovered/annotated-10/vs-few-shot",
    ]
    figures = np.array([(row.ours, row.peer, row.ratio, row.runs) for row in rows.values()])
    expected = [[0.1, 0.8, 0.125, 1], [0.5, 0.8, 0.625, 2], [0.25, 0.8, 0.3125, 2], [0.625, 0.3125, 2.0, 2]]
    assert figures == pytest.approx(np.array(expected))


def test_ties_are_told_at_every_point_and_for_every_seed() -> None:
    cells = two_seeds()
    cells["seed2-weak-010"] = scores("seed2-weak-010", 0.3, [0.2, 0.3, 0.4], "u")
    cells["seed1-weak-010"] = scores("seed1-weak-010", 0.1, [0.05, 0.1, 0.2])
    content = told(cells, points(cells, [1, 2], [10]))
    assert content[0]["per_seed"]["1"]["verdict"] == "worse"  # -.05, -.1, -.2
    assert content[0]["per_seed"]["2"]["verdict"] == "tie"  # -.1, 0, .1
    assert content[0]["per_seed"]["2"]["difference"]["value"] == pytest.approx(0.0)
    assert content[0]["verdict"] == "worse"  # -.075, -.05, -.05
    assert content[0]["ceiling"]["ap50"]["value"] == pytest.approx(0.8)
    better = told(two_seeds(), points(two_seeds(), [1, 2], [0, 10]))
    assert [point["verdict"] for point in better] == ["better", "better"]
    lines = as_markdown(better).splitlines()
    assert lines[2].startswith("| 0 | 1 | 0.125 [")
    assert "| 0, by definition |" in lines[2]
    assert lines[3].startswith("| 10 | 1, 2 | 0.625 [")
    assert lines[3].endswith("| +0.250 [+0.203, +0.250] | better |")


def test_what_is_undefined_is_left_out() -> None:
    cells = {name: cell for name, cell in two_seeds().items() if name.startswith("seed1")}
    cells["seed1-ceiling"] = scores("seed1-ceiling", 0.0, [0.0, 0.0, None])
    (point,) = told(cells, points(cells, [1], [10]))
    assert point["weak"]["recovered"] is None
    assert point["ceiling"]["ap50"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    json.dumps(point, allow_nan=False)
    assert recovered([point], "weak") == ([], [])
    assert recovered(told(two_seeds(), points(two_seeds(), [1], [0])), "few_shot") == ([0], [(0.0, 0.0, 0.0)])
    assert rounded(np.array([0.1234567, np.nan])) == (0.12346, None)


def test_cells_of_other_test_films_are_not_compared() -> None:
    cells = two_seeds() | {"seed1-ceiling": scores("seed1-ceiling", 0.8, [0.8, 0.8, 0.8], "other films")}
    with pytest.raises(DataError, match="seed1-weak-010 and seed1-ceiling: expected the same test films"):
        points(cells, [1, 2], [10])


def test_the_shipped_config_is_whole() -> None:
    config = load(CurveConfig, CONFIG)
    names = [cell.name for cell in config.cells()]
    assert len(names) == len(set(names)) == 30
    assert names[:4] == ["seed1-ceiling", "seed1-weak-000", "seed1-weak-010", "seed1-few_shot-010"]
    assert config.pipeline.root == Path("runs/curve")
    stages = {cell.name: stages_of(config, cell) for cell in config.cells()}
    weak = [stage.name for stage in stages["seed2-weak-025"]]
    detector = ["detect.weak", "detect.weak.predict"]
    classifiers = ["ingest", "classify.member_0", "classify.member_1", "classify.ensemble"]
    assert weak == [*classifiers, "ingest.annotated", "camgen.search", "camgen.generate", *detector]
    assert [stage.name for stage in stages["seed2-few_shot-100"]] == [
        "ingest",
        "detect.few_shot",
        "detect.few_shot.predict",
    ]
    none = {stage.name: stage.config for stage in stages["seed3-weak-000"]}
    assert none["camgen.search"].defaults
    assert (none["detect.weak"].source, none["detect.weak"].course.rounds) == ("pseudo", 0)
    assert none["detect.weak"].pseudo.score_at_least == 0.1
    for own in stages.values():
        assert own[-2].config.steps == 1500
        assert own[-2].config.data == own[-1].config.data
    root = Path("runs/curve/seed1")
    assert stages["seed1-ceiling"][-2].config.data == stages["seed1-weak-100"][-2].config.data == root / "dataset"
    assert stages["seed1-weak-025"][-2].config.data == root / "annotated-025" / "dataset"
    made = stages["seed1-few_shot-025"][0].config
    assert (made.tune, made.seed, made.test) == (25, 1, 1000)
    head = CONFIG.read_text().splitlines()[:4]
    assert head[0].startswith("# python -m bench.curve configs/curve.yaml")
    assert all(line.startswith("#") for line in head)


def test_the_pipeline_refuses_a_curve(capsys: pytest.CaptureFixture[str]) -> None:
    assert weakray(["run", str(CONFIG)]) == 2
    assert "pipeline: unknown setting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 11]}, r"seeds: .*\(11, 12, 13\) are kept for acceptance"),
        ({"seeds": [1, 1]}, "seeds: .*each once"),
        ({"annotated": [10, 101]}, r"expected numbers from 0 to pipeline\.ingest\.tune, which is 100"),
        ({"annotated": [10, 10]}, "annotated: expected each number once"),
        ({"anotated": [10]}, "anotated: unknown setting"),
        ({"pipeline": {"name": "x", "ingest": {"source": "nih", "tune": 100}}}, "expected ingest.source phantom"),
        ({"pipeline": {"name": "x", "ingest": {"source": "phantom"}}}, "which is None"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(CurveConfig, read_yaml(CONFIG) | changes)


def finished(config: CurveConfig, cell: Cell, drawn: list[float | None]) -> CellScores:
    own = scores(cell.name, 0.5, drawn)
    return own.model_copy(update={"settings_sha256": settings_sha256(config, cell)})


def test_kept_cells_count_as_done_where_their_settings_are_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load(CurveConfig, CONFIG)
    config = whole.model_copy(update={"pipeline": whole.pipeline.model_copy(update={"out": tmp_path / "run"})})
    keep, made = tmp_path / "keep", list[str]()
    first, *_, last = (cell for cell in config.cells() if cell.seed == 2)
    write_json(keep / f"{first.name}.json", finished(config, first, [0.5]).model_dump(mode="json"))
    stranger = finished(config, last, [0.5]).model_copy(update={"settings_sha256": "another"})
    write_json(keep / f"{last.name}.json", stranger.model_dump(mode="json"))

    def measured(config: CurveConfig, cell: Cell) -> CellScores:
        made.append(cell.name)
        return finished(config, cell, [0.4])

    monkeypatch.setattr(curve, "measured", measured)
    run(config, only="seed2", keep=keep)
    assert made == [cell.name for cell in config.cells() if cell.seed == 2 and cell != first]
    assert "of other settings, left aside" in capsys.readouterr().out
    assert {path.stem for path in keep.iterdir()} == {*made, first.name}
    own = found(config, last, keep)
    assert own is not None
    assert own.ap50_draws == (0.4,)
    run(config, only="seed2", keep=keep)
    assert len(made) == 9

    # What decides a cell's figures makes another cell of it; seeds and numbers beside it do not.
    more = config.model_copy(update={"seeds": (2, 7), "annotated": (25,)})
    fewer = more.model_copy(update={"draws": 10})
    weak, few = Cell(2, "weak", 25), Cell(2, "few_shot", 25)
    assert settings_sha256(more, weak) == settings_sha256(config, weak) != settings_sha256(fewer, weak)
    maps = config.pipeline.model_copy(update={"camgen": config.pipeline.camgen.model_copy(update={"search": {}})})
    other = config.model_copy(update={"pipeline": maps})
    assert settings_sha256(other, weak) != settings_sha256(config, weak)
    assert settings_sha256(other, few) == settings_sha256(config, few)

    run(config, only="weak-010", minutes=0)
    assert len(made) == 9
    assert "0 minutes are over: seed1-weak-010" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--only: expected a part of a cell's name, such as seed1-ceiling"):
        run(config, only="seed")


def test_the_whole_curve_on_a_handful_of_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, keep = quick(tmp_path / "run"), tmp_path / "keep"
    run(config, keep=keep)
    rows = report(config, keep=keep, plot=tmp_path / "curve.png")
    assert "missing" not in capsys.readouterr().out.splitlines()[-1]
    kinds: dict[str, Kind] = {"weak-000": "weak", "weak-024": "weak", "few_shot-024": "few_shot", "ceiling": "ceiling"}
    assert {path.stem for path in keep.glob("*.json")} == {f"seed1-{name}" for name in kinds}
    cells = {name: CellScores.model_validate(read_json(keep / f"seed1-{name}.json")) for name in kinds}
    for name, cell in cells.items():
        assert (cell.kind, cell.steps, len(cell.ap50_draws)) == (kinds[name], 12, 50)
        assert cell.test_sha256 == cells["ceiling"].test_sha256
        assert (config.pipeline.root / cell.boxes).is_file()
        assert all(seconds > 0 for seconds in cell.seconds.values())
        drawn = np.array(cell.ap50_draws, np.float64)
        assert np.percentile(drawn, 2.5) == pytest.approx(cell.ap50["low"], abs=1e-5)
    assert {row.case.rsplit("/", 1)[0] for row in rows} == {
        "recovered/annotated-0",
        "recovered/annotated-24",
        "recovered-few-shot/annotated-24",
    }
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    content = read_json(config.pipeline.root / "curve.json")
    assert content["missing"] == []
    assert [point["annotated"] for point in content["points"]] == [0, 24]

    # A seed is a run that the detectors' bench takes, and finds three trained detectors in.
    root = config.pipeline.root / "seed1"
    own, whole = validate(PipelineConfig, read_yaml(root / "config.yaml")), root / "annotated-024"
    settings, dataset, boxes = settings_of(own.detect.weak, {}), Dataset.load(root / "dataset"), whole / "pseudo_boxes"
    for name, kind in {"few_shot": "few_shot", "pseudo": "weak", "supervised": "ceiling"}.items():
        folder, stages = planned_detector(own, dataset, boxes / "boxes.json", name, settings[name])
        assert (folder, len(stages)) == (whole / kind, 1)
    assert len(planned_detector(own, dataset, boxes / "boxes.json", "mixed", settings["mixed"])[1]) == 2

    # On another machine, where nothing but the kept cells is.
    other = quick(tmp_path / "elsewhere")
    run(other, keep=keep)
    assert report(other, keep=keep) == rows
    assert not (tmp_path / "elsewhere" / "seed1").exists()
