"""The table of detectors: what each learns from, what is taken from the run, and all of it on a handful of films."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.detector_cells import Scored
from bench.detectors import as_markdown, quick, rows_of, run, settings_of, told
from bench.pooling import Figure
from detect.train import DetectTrainConfig, check
from eval.box_errors import ERROR_TYPES
from weakray.config import to_plain, validate
from weakray.errors import ConfigError, RunError
from weakray.files import read_json, write_yaml

NAMES = [
    *("pseudo", "pseudo_weights", "pseudo_weights_rounds", "few_shot", "few_shot_rounds", "mixed", "curriculum"),
    *("curriculum_rounds", "less_weights", "supervised"),
]


def test_each_detector_differs_in_what_it_is_named_after() -> None:
    weak = {
        "source": "pseudo_then_tune",
        "pseudo": {"unplaced": 0.1},
        "own": {"elsewhere": 0.5},
        "course": {"rounds": 3, "tune_share": 0.5},
    }
    made = settings_of(weak, {})
    assert list(made) == NAMES
    belief = {"pseudo": {"unplaced": 0.1}, "own": {"elsewhere": 0.5}}
    assert made["pseudo"] == {"source": "pseudo", **belief}
    weighted = {"unplaced": 0.1, "weights": "score"}
    assert made["pseudo_weights"] == {**made["pseudo"], "pseudo": weighted}
    assert made["pseudo_weights_rounds"] == {
        "source": "pseudo",
        "pseudo": weighted,
        "own": {"elsewhere": 0.5, "weights": "score"},
        "course": {"rounds": 3},
    }
    assert made["few_shot"] == {"source": "tune"}
    assert made["few_shot_rounds"] == {"source": "tune", "own": {"elsewhere": 0.5}, "course": weak["course"]}
    assert made["mixed"]["course"] == {"tune_share": 0.0, "tune_mixed": 0.3}
    assert made["curriculum"] == {"source": "pseudo_then_tune", **belief, "course": {"tune_share": 0.5}}
    assert made["curriculum_rounds"] == weak
    assert made["supervised"] == {"source": "ceiling"}
    one_training = {"rounds": 4, "continued": True, "first_share": 0.3}
    made = settings_of({"source": "tune", "course": {**one_training, "tune_mixed": 0.4}}, {})
    assert made["pseudo_weights_rounds"]["course"] == one_training  # it is shown no tune image
    assert made["few_shot_rounds"]["course"] == {**one_training, "tune_mixed": 0.4}
    whole = {**weak, "own": {"mirrored": True, "weights": "pooled"}, "course": {**one_training, "tune_share": 0.5}}
    made = settings_of(whole, {"flip": 0.5})
    assert list(made) == [*NAMES[:-2], "less_mirrored", *NAMES[-2:-1], "less_continued", NAMES[-1]]
    assert made["pseudo_weights_rounds"]["own"] == {"mirrored": True, "weights": "pooled"}  # as the run believes them
    assert made["less_mirrored"] == {**whole, "own": {"mirrored": False, "weights": "pooled"}}
    assert made["less_weights"] == {**whole, "own": {"mirrored": True, "weights": "one"}}
    assert made["less_continued"] == {**whole, "course": {"rounds": 2, "tune_share": 0.5}}
    made = settings_of(weak, {"flip": 0.5, "bend": 0.02, "paste": {"probability": 0.5}})
    assert list(made) == [*NAMES[:-1], "less_bent", "less_pasted", NAMES[-1]]
    assert made["less_bent"] == {**weak, "augment": {"flip": 0.5, "paste": {"probability": 0.5}}}
    assert made["less_pasted"] == {**weak, "augment": {"flip": 0.5, "bend": 0.02}}
    assert settings_of({"source": "pseudo"}, {})["curriculum_rounds"]["course"] == {"rounds": 2}


WEAK = {"source": "pseudo_then_tune", "pseudo": {"weights": "score"}, "course": {"rounds": 3, "tune_share": 0.5}}


def changes_of(weak: dict[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Finer detector → what its settings have that `curriculum_rounds` has not."""
    made = settings_of(weak, {}, finer=True)
    finer = made.keys() - settings_of(weak, {}).keys()
    (folder / "boxes.json").touch()
    where = {"data": folder, "out": folder, "boxes": folder / "boxes.json"}
    configs = {name: validate(DetectTrainConfig, {**made[name], **where}) for name in (*finer, "curriculum_rounds")}
    for config in configs.values():
        check(config)
    settings = {name: to_plain(config) for name, config in configs.items()}
    whole = settings.pop("curriculum_rounds")
    return {
        name: {
            f"{part}.{key}": value
            for part in ("pseudo", "own", "course")
            for key, value in own[part].items()
            if value != whole[part][key]
        }
        for name, own in settings.items()
    }


def test_finer_detectors_change_one_thing_each(tmp_path: Path) -> None:
    assert changes_of(WEAK, tmp_path) == {
        "less_cutoffs": {"pseudo.score_at_least": 0.1},
        "less_unplaced": {"pseudo.unplaced": 1.0, "own.unplaced": 1.0},
        "more_backgrounds": {"pseudo.background_share": 0.2, "own.background_share": 0.2},
        "more_clean": {"pseudo.clean_share": 0.7, "own.clean_share": 0.7},
        "more_informative": {"pseudo.least_tune_f1": 0.2},
        "more_fused": {"own.fuse": "recipe"},
        "more_repeated": {"course.repeat_below": 0.1},
    }


def test_what_a_run_has_on_is_left_out_and_what_it_has_off_is_added(tmp_path: Path) -> None:
    pseudo = {"score_at_least": 0.1, "unplaced": 1.0, "background_share": 0.1, "clean_share": 0.5, "least_tune_f1": 0.3}
    own = {"unplaced": 1.0, "background_share": 0.1, "fuse": "recipe"}
    weak = {**WEAK, "pseudo": pseudo, "own": own, "course": {"rounds": 3, "repeat_below": 0.3}}
    assert changes_of(weak, tmp_path) == {
        "more_cutoffs": {"pseudo.score_at_least": "tune"},
        "more_unplaced": {"pseudo.unplaced": 0.0, "own.unplaced": 0.0},
        "less_backgrounds": {"pseudo.background_share": 0.0, "own.background_share": 0.0},
        "less_clean": {"pseudo.clean_share": 1.0},
        "less_informative": {"pseudo.least_tune_f1": 0.0},
        "less_fused": {"own.fuse": "none"},
        "less_repeated": {"course.repeat_below": 0.0},
    }


def scored(ap50: float, drawn: list[float]) -> Scored:
    figure = {"value": ap50, "low": min(drawn), "high": max(drawn)}
    errors = {kind: {"value": 0.1 * i, "low": 0.0, "high": 1.0} for i, kind in enumerate(ERROR_TYPES)}
    figures: dict[str, Any] = {"ap30": figure, "ap50": figure, "map": figure, "errors": errors}
    return Scored(figures, Figure(ap50, np.array(drawn)), 4, 3, "t")


def test_comparisons_by_hand() -> None:
    all_of = {
        "pseudo": scored(0.2, [0.2, 0.2, 0.2]),
        "few_shot": scored(0.4, [0.3, 0.4, 0.6]),
        "mixed": scored(0.5, [0.4, 0.5, 0.5]),
        "supervised": scored(0.8, [0.8, 0.8, 1.0]),
    }
    own = told(all_of, "mixed")
    assert own["less_few_shot"]["value"] == pytest.approx(0.1)
    assert own["less_few_shot"]["low"] == pytest.approx(-0.1 + 0.05 * 0.2)  # of -.1, .1, .1
    assert own["less_few_shot"]["tie"]
    assert own["less_pseudo"]["value"] == pytest.approx(0.3)
    assert not own["less_pseudo"]["tie"]
    assert own["recovered_fraction"]["value"] == pytest.approx(0.625)
    assert own["recovered_fraction"]["low"] == pytest.approx(0.5)  # .4 / .8 and .5 / 1
    assert "less_few_shot" not in told(all_of, "few_shot")
    rows = {row.case: row for row in rows_of(all_of)}
    assert len(rows) == 9  # each against few-shot, pseudo and supervised, but not against itself
    assert rows["ap50/mixed/vs-few-shot"].ratio == pytest.approx(1.25)
    assert (rows["ap50/mixed/vs-supervised"].ours, rows["ap50/mixed/vs-supervised"].peer) == (0.5, 0.8)
    table = as_markdown({name: told(all_of, name) for name in all_of}).splitlines()
    assert table[4].startswith("| mixed | 0.500 [0.400, 0.500] | 0.500 [")
    assert "| +0.100 [-0.090, +0.100], tie | +0.300 [+0.205, +0.300] | 0.625 [0.500, 0.619] |" in table[4]
    assert table[-2].startswith("| mixed | 0.000 | 0.100 | 0.200 | 0.300 | 0.400 | 0.500 |")
    part: Mapping[str, Scored] = {"mixed": all_of["mixed"]}
    assert rows_of(part) == []
    assert "| – | – | – |" in as_markdown({"mixed": told(part, "mixed")})
    nothing = {"mixed": all_of["mixed"], "supervised": scored(0.0, [0.0, 0.0, 0.0])}
    assert told(nothing, "mixed")["recovered_fraction"] is None


def test_a_folder_without_boxes_is_refused(tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", {"name": "x", "ingest": {"source": "phantom"}})
    with pytest.raises(RunError, match="expected a run with its recipe's boxes, found none; run `weakray run` first"):
        run(tmp_path)


def test_all_detectors_on_a_handful_of_films(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = quick(tmp_path / "run")
    trained = (root / "detect" / "few_shot" / "done.json").stat().st_mtime_ns
    assert run(root, minutes=0, draws=20) == []
    assert "0 minutes are over; missing: pseudo, pseudo_weights" in capsys.readouterr().out
    rows = run(root, draws=20, table=tmp_path / "table.md")
    content = read_json(root / "detectors" / "detectors.json")
    assert list(content["detectors"]) == NAMES
    assert (content["seed"], content["train"]["steps"], content["missing"]) == (1, 12, [])
    assert {len(own["ap50_draws"]) for own in content["detectors"].values()} == {20}
    folders = {name: own["folder"] for name, own in content["detectors"].items()}
    assert folders["few_shot"] == "detect/few_shot"  # of the run, under the same settings
    assert folders["mixed"] == "detectors/mixed"
    assert not (root / "detectors" / "few_shot").exists()
    assert (root / "detect" / "few_shot" / "done.json").stat().st_mtime_ns == trained
    sets = {
        name: list(read_json(root / folder / "done.json")["result"]["training_sets"])
        for name, folder in folders.items()
    }
    assert sets["pseudo_weights_rounds"] == ["pseudo", "own_1", "own_2"]
    assert sets["few_shot_rounds"] == ["tune", "own_1", "own_2"]
    assert sets["mixed"] == sets["curriculum"] == ["pseudo", "tune"]
    steps = [read_json(root / folder / "done.json")["result"]["steps"] for folder in folders.values()]
    assert steps == [12] * len(NAMES)
    cases = {row.case for row in rows}
    assert len(cases) == len(rows) == 3 * len(NAMES) - 3
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2 : 2 + len(NAMES)]] == NAMES

    with pytest.raises(ConfigError, match="--only: expected some of pseudo, .*, supervised; got fewshot"):
        run(root, only=["few_shot", "fewshot"])
    alone = run(root, draws=20, only=["few_shot", "mixed"])
    assert [row for row in rows if row.case.startswith("ap50/mixed/vs-few")] == alone
    assert list(read_json(root / "detectors" / "detectors.json")["detectors"]) == ["few_shot", "mixed"]

    # What is done is found.
    before = {path: path.stat().st_mtime_ns for path in root.rglob("done.json")}
    assert run(root, minutes=0, draws=20) == rows
    assert {path: path.stat().st_mtime_ns for path in root.rglob("done.json")} == before
