"""What a stage reads, told by its settings."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.conftest import MICRO, ROOT
from weakray.config import StrictModel, load
from weakray.pipeline import PipelineConfig, plan
from weakray.stages import Stage, reads

DEMO = ROOT / "configs/demo.yaml"
REPORTS = ROOT / "configs/reports.yaml"


def read_by(path: Path, **flags: str) -> dict[str, frozenset[str]]:
    stages = plan(load(PipelineConfig, path, {name.replace("__", "."): text for name, text in flags.items()}))
    return {stage.name: reads(stage, stages[:i]) for i, stage in enumerate(stages)}


def test_stages_of_the_demo_wait_for_what_they_read() -> None:
    found = read_by(DEMO)
    data = {"ingest"}
    ensemble = {"classify.ensemble", *data}
    boxed = {"camgen.search", *ensemble}
    assert found.pop("eval.summary") > {"classify.predict", "camgen.random_map", "detect.few_shot.predict"}
    assert found.pop("eval.report") > {"classify.evaluate", "classify.member_1", "detect.few_shot", "detect.export"}
    assert found == {
        "ingest": set(),
        "classify.member_0": data,
        "classify.member_1": data,
        "classify.ensemble": {"classify.member_0", "classify.member_1", *data},
        "classify.predict": ensemble,
        "classify.evaluate": ensemble,
        "camgen.search": ensemble,
        "camgen.recipe": boxed,
        "camgen.gradcam_single": boxed,
        "camgen.random_map": boxed,
        "detect.weak_detector": {"camgen.recipe", *data},
        "detect.few_shot": data,
        "detect.weak_detector.predict": {"detect.weak_detector", *data},
        "detect.few_shot.predict": {"detect.few_shot", *data},
        "classify.export": ensemble,
        "detect.export": {
            "camgen.search",
            "classify.export",
            "detect.weak_detector",
            "detect.weak_detector.predict",
            *data,
        },
    }


def test_labels_read_out_of_reports_are_waited_for() -> None:
    found = read_by(REPORTS)
    assert found["reports"] == {"ingest"}
    assert found["relabel"] == {"ingest", "reports"}
    assert found["classify.member_0"] == {"relabel"}
    elsewhere = read_by(REPORTS, reports__reports="elsewhere/reports.csv")
    assert elsewhere["reports"] == {"ingest"}  # for its taxonomy, a path given as text


def test_a_weak_detector_that_begins_with_true_boxes_waits_for_no_map() -> None:
    rounds = "course: {rounds: 2}"
    assert read_by(MICRO, detect__weak=f"{{source: tune, {rounds}}}")["detect.weak_detector"] == {"ingest"}
    fused = read_by(MICRO, detect__weak=f"{{source: tune, {rounds}, own: {{fuse: recipe}}}}")
    assert fused["detect.weak_detector"] == {"ingest", "camgen.recipe"}


def test_the_weak_detector_waits_for_the_choice_of_how_it_is_taught() -> None:
    found = read_by(MICRO, detect__weak="{}", detect__choose="{}")
    assert found["detect.choose"] == {"ingest", "camgen.recipe"}
    assert found["detect.weak_detector"] == {"ingest", "camgen.recipe", "detect.choose"}
    assert "detect.choose" not in found["detect.few_shot"]


def test_a_member_that_starts_from_another_waits_for_it() -> None:
    found = read_by(DEMO, classify__members="[{seed: 0}, {seed: 1, init: runs/../runs/demo/classify/member_0}]")
    assert found["classify.member_1"] == {"ingest", "classify.member_0"}


class Settings(StrictModel):
    """Settings that hold paths in every way there is."""

    out: Path
    given: Any = None


def stage(name: str, given: Any = None, folder: str | None = None) -> Stage:
    return Stage(name, print, Settings(out=Path("run", name), given=given), Path("run", folder or name))


EARLIER = [stage("a"), stage("ab"), stage("c", folder="beside/c")]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Path("run/a"), {"a"}),
        (Path("run/ab/deep/file.json"), {"ab"}),
        (Path("run/abc"), set()),
        (Path("run"), set()),
        (Path("elsewhere/a"), set()),
        (Path("run/c/file"), {"c"}),
        (Path("run/beside/c/done.json"), {"c"}),
        ("run/a/weights", {"a"}),
        (Path.cwd() / "run" / "a", {"a"}),
        ((Path("run/a"), [Path("run/ab")]), {"a", "ab"}),
        ({"name": {"inner": (Path("run/ab/x"),)}}, {"ab"}),
        (Settings(out=Path("run/new"), given={"deep": Path("run/c")}), {"c"}),
        ({"source": "a", "count": 3, "none": None, "rate": 0.1, "long": "a/" * 3000}, set()),
    ],
)
def test_a_path_in_an_earlier_folder_is_read_wherever_it_stands(given: Any, names: set[str]) -> None:
    assert reads(stage("later", given), EARLIER) == names


@pytest.mark.parametrize("path", [DEMO, REPORTS], ids=["demo", "reports"])
def test_every_stage_can_be_sent_to_another_process(path: Path) -> None:
    for one in plan(load(PipelineConfig, path)):
        call = partial(one.verb, one.config)
        assert pickle.loads(pickle.dumps(call)).args == call.args
