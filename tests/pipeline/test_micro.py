from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from eval.box_errors import ERROR_TYPES
from tests.pipeline.conftest import MICRO, finish, kill_when, summary_of
from weakray.bundle.manifest import verify

SOURCES = {
    "random_map", "centre_box", "mean_box", "gradcam_single",
    "recipe", "few_shot", "weak_detector", "supervised_detector",
}  # fmt: skip


def test_summary_has_the_schema_of_the_design(micro: Path) -> None:
    summary = json.loads((micro / "summary.json").read_text())
    assert {
        "commit",
        "config_sha256",
        "dataset",
        "findings",
        "classify",
        "scores",
        "recovered_fraction",
        "seconds",
    } == set(summary)
    assert set(summary["scores"]) == SOURCES
    assert summary["classify"].keys() >= {"macro_auroc"}
    for score in summary["scores"].values():
        for metric in ("ap30", "ap50", "map"):
            assert 0 <= score[metric]["low"] <= score[metric]["high"] <= 1
            assert 0 <= score[metric]["value"] <= 1
        for finding in score["per_finding"].values():
            assert set(finding) == {"ap30", "ap50", "map", "positives"}
            assert finding["positives"] > 0
        assert score["errors"].keys() == {*ERROR_TYPES, "per_finding", "boxes"}
        assert score["errors"]["per_finding"].keys() == score["per_finding"].keys()
    weak = summary["scores"].pop("weak_detector")
    assert "lead" not in weak
    for score in summary["scores"].values():
        lead = score["lead"]
        assert lead["value"] == pytest.approx(weak["ap50"]["value"] - score["ap50"]["value"])
        assert lead["low"] <= lead["value"] <= lead["high"]
    assert all(seconds > 0 for seconds in summary["seconds"].values())


def test_run_leaves_report_and_whole_bundle(micro: Path) -> None:
    page = (micro / "eval/report/report.html").read_text()
    assert "handful of phantom films" in page
    verify(next(micro.rglob("bundle.json")).parent)
    assert not list(micro.rglob("*.part*"))
    assert not list(micro.rglob("*.pt"))


def test_a_second_run_does_nothing_and_says_so(micro: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in micro.rglob("done.json")}
    printed = finish("run", str(MICRO), "--out", str(micro))
    assert before == {path: path.stat().st_mtime_ns for path in micro.rglob("done.json")}
    assert printed.count("(found)") == len(before)


def test_killed_three_times_it_ends_with_the_same_summary(micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("run", str(MICRO), "--out", str(out))
    moments = (
        lambda: any((out / "classify/member_0").glob("checkpoints/*")),  # within the first classifier
        (out / "camgen/recipe/stage.json").exists,  # while boxes are made
        lambda: any((out / "detect/weak_detector").glob("checkpoints/*")),  # within the detector's training
    )
    for moment in moments:
        assert kill_when(moment, *words)
        assert not (out / "summary.json").exists()
    finish(*words)
    assert summary_of(out) == summary_of(micro)


def test_without_ceiling_boxes_every_other_output_is_the_same(micro: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(micro / "ingest", out / "ingest")
    shutil.copytree(micro / "dataset", out / "dataset")
    (out / "dataset/ceiling_boxes.json").unlink()
    rivals = "[random_map, centre_box, mean_box, gradcam_single, few_shot]"
    finish("run", str(MICRO), "--out", str(out), "--rivals", rivals)
    made = {
        "boxes.json",
        "recipe.yaml",
        "probabilities.parquet",
        "detector.safetensors",
        "model.safetensors",
        "detector.onnx",
    }
    paths = [path.relative_to(micro) for path in sorted(micro.rglob("*")) if path.name in made]
    compared = [path for path in paths if not path.parts[1].startswith("supervised_detector")]
    for path in compared:
        assert (out / path).read_bytes() == (micro / path).read_bytes(), path
    assert len(compared) >= 12
    ours, theirs = summary_of(out), summary_of(micro)
    theirs["scores"].pop("supervised_detector")
    assert ours["scores"] == theirs["scores"]
    assert ours["recovered_fraction"] is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (("--detect.weak", "{boxes: elsewhere}"), "detect.train.boxes: is set by the pipeline"),
        (("--classify.ensemble", "{data: elsewhere}"), "classify.ensemble.data: is set by the pipeline"),
        (("--detect.train", "{stepz: 3}"), "detect.train.stepz: unknown setting"),
        (("--ingest", "{source: report}"), "ingest.source: expected a data set that ingest reads"),
        (("--ingest", "{source: floppy}"), "ingest.source: expected a data set that ingest reads, such as phantom"),
        (("--rivals", "[magic]"), "rivals.0: input should be"),
    ],
)
def test_wrong_settings_stop_it_before_any_stage(
    setting: tuple[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from weakray.cli import main

    assert main(["run", str(MICRO), "--out", str(tmp_path / "run"), *setting]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
