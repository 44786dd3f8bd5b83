"""A pipeline that chooses how its weak detector is taught."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from detect.choose import ChooseConfig
from detect.train import DetectTrainConfig
from tests.pipeline.conftest import MICRO, finish
from weakray.cli import main
from weakray.config import load
from weakray.files import read_yaml
from weakray.pipeline import PipelineConfig, plan

CHOOSE = "{folds: 2, draws: 20, candidates: {few: {source: tune}, rounds: {source: tune, course: {rounds: 1}}}}"
WITHOUT_WEAK = ("--detect.weak", "{}")


def test_the_choice_stands_before_the_detectors_and_changes_the_weak_one_alone() -> None:
    plain = {stage.name: stage.config for stage in plan(load(PipelineConfig, MICRO))}
    config = load(PipelineConfig, MICRO, {"detect.weak": "{}", "detect.choose": CHOOSE})
    stages = plan(config)
    names = [stage.name for stage in stages]
    assert names.index("detect.choose") + 1 == names.index("detect.weak_detector")
    assert [name for name in names if name != "detect.choose"] == list(plain)
    chosen, weak = (next(s for s in stages if s.name == f"detect.{name}") for name in ("choose", "weak_detector"))
    assert isinstance(chosen.config, ChooseConfig)
    assert chosen.config.train == config.detect.train
    assert chosen.folder == config.root / "detect/choose/choice"
    assert isinstance(weak.config, DetectTrainConfig)
    assert weak.config.choice == chosen.folder / "chosen.yaml"
    changed = [stage.name for stage in stages if stage.name in plain and stage.config != plain[stage.name]]
    assert changed == ["detect.weak_detector"]


def test_the_weak_detector_is_taught_as_chosen_and_found_again(micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(micro, out, ignore=shutil.ignore_patterns("weak_detector*", "bundle", "eval", "summary.json"))
    words = ("run", str(MICRO), "--out", str(out), *WITHOUT_WEAK, "--detect.choose", CHOOSE)
    finish(*words)
    chosen = read_yaml(out / "detect/choose/choice/chosen.yaml")
    taught = read_yaml(out / "detect/weak_detector/config.yaml")
    assert {name: taught[name] for name in ("source", "steps")} == {name: chosen[name] for name in ("source", "steps")}
    assert (taught["choice"], taught["boxes"]) == (None, None)
    assert json.loads((out / "summary.json").read_text())["seconds"]["detect.choose"] > 0
    few_shot = "detect/few_shot/detector.safetensors"
    assert (out / few_shot).read_bytes() == (micro / few_shot).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    printed = finish(*words)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert "detect.choose (found)" in printed
    assert "done anew" not in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--detect.choose", "{candidates: {a: {stepz: 3}}}", *WITHOUT_WEAK),
            "detect.choose.candidates.a.stepz: unknown setting",
        ),
        (
            ("--detect.choose", "{}", "--detect.train", "{stepz: 3}", *WITHOUT_WEAK),
            "detect.train.stepz: unknown setting",
        ),
        (("--detect.choose", "{train: {}}", *WITHOUT_WEAK), "detect.choose.train: is set by the pipeline; remove it"),
        (("--detect.choose", "{foldz: 3}", *WITHOUT_WEAK), "detect.choose.foldz: unknown setting"),
        (("--detect.choose", "{}"), "detect.weak: of no use beside detect.choose; make it one of"),
    ],
)
def test_wrong_settings_of_the_choice_stop_it_before_any_stage(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(MICRO), "--out", str(tmp_path / "run"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
