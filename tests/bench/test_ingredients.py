"""What an ingredient adds, pooled over seeds: by hand, and which files are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.curve import CurveConfig
from bench.detectors import settings_of
from bench.ingredients import INGREDIENTS, as_markdown, gains, rows_of
from tests.house.test_configs import BENCHES
from weakray.config import load
from weakray.errors import DataError
from weakray.files import write_json

Scores = Mapping[str, tuple[float, Sequence[float | None]]]  # detector → AP50, and the same on every draw


def detectors(path: Path, seed: int, of: Scores, **changes: Any) -> Path:
    """The parts of a `detectors.json` that matter here: AP50 and its draws, by detector."""
    own = {
        name: {"settings": {"source": name}, "ap50": {"value": value}, "ap50_draws": drawn}
        for name, (value, drawn) in of.items()
    }
    write_json(
        path, {"seed": seed, "train": {"steps": 12}, "draws": 3, "commit": f"c{seed}", "detectors": own, **changes}
    )
    return path


def two_seeds(folder: Path) -> list[Path]:
    first: Scores = {
        "pseudo": (0.2, [0.1, 0.2, 0.3]),
        "pseudo_weights": (0.3, [0.2, 0.3, 0.4]),
        "few_shot": (0.4, [0.4, 0.4, 0.4]),
        "few_shot_rounds": (0.3, [0.3, 0.3, 0.3]),
        "mixed": (0.5, [0.5, 0.5, 0.5]),
    }
    second: Scores = {
        "pseudo": (0.2, [0.2, 0.2, 0.2]),
        "pseudo_weights": (0.5, [0.4, 0.5, 0.6]),
        "few_shot": (0.4, [0.4, 0.4, 0.4]),
        "few_shot_rounds": (0.3, [0.2, 0.3, 0.4]),
        "mixed": (0.3, [0.3, 0.3, 0.3]),
        "curriculum": (0.4, [0.4, 0.4, None]),
    }
    return [detectors(folder / "1.json", 1, first), detectors(folder / "2.json", 2, second)]


def test_gains_are_pooled_draw_by_draw(tmp_path: Path) -> None:
    commits, made = gains(two_seeds(tmp_path))
    found = {gain.name: gain for gain in made}
    assert commits == "c1 c2"
    assert list(found) == [
        "weights by score",
        "true boxes alone, not pseudo-boxes",
        "pseudo-boxes, true ones among them",
        "pseudo-boxes, then true ones",
        "rounds, after true boxes alone",
    ]
    weights = found["weights by score"]
    own, peer = weights.pooled
    assert [own.value, peer.value] == pytest.approx([0.4, 0.2])
    # Gains of seed 1: .1, .1, .1; of seed 2: .2, .3, .4.
    interval = own.less(peer).interval
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.2, 0.1525, 0.2475))
    assert weights.verdict == "helps"
    assert found["rounds, after true boxes alone"].verdict == "harms"
    assert list(found["pseudo-boxes, then true ones"].seeds) == [2]


def test_seeds_that_disagree_leave_it_open(tmp_path: Path) -> None:
    path = detectors(
        tmp_path / "3.json",
        3,
        {"pseudo": (0.2, [0.2, 0.2, 0.2]), "pseudo_weights": (0.19, [0.19, 0.19, 0.19])},
    )
    weights = gains([*two_seeds(tmp_path), path])[1][0]
    own, peer = weights.pooled
    assert own.less(peer).interval.low > 0
    assert weights.verdict == "open"
    mixed = next(gain for gain in gains(two_seeds(tmp_path))[1] if gain.name.endswith("true ones among them"))
    assert mixed.verdict == "open"  # +.1 and -.1
    assert gains(two_seeds(tmp_path)[:1])[1][0].verdict == "open"  # +.1 on the one seed


def test_a_seed_on_which_nothing_changes_takes_no_side(tmp_path: Path) -> None:
    alike: Scores = {name: (0.2, [0.2, 0.2, 0.2]) for name in ("pseudo", "pseudo_weights")}
    unchanged = [detectors(tmp_path / f"{seed}.json", seed, alike) for seed in (3, 4)]
    assert gains([*two_seeds(tmp_path), unchanged[0]])[1][0].verdict == "helps"  # +.1, +.3, 0
    assert gains([two_seeds(tmp_path)[0], *unchanged])[1][0].verdict == "open"  # +.1, 0, 0


def test_a_table_and_rows(tmp_path: Path) -> None:
    found = gains(two_seeds(tmp_path))[1]
    line = as_markdown(found).splitlines()[2]
    assert line.startswith("| weights by score | 1, 2 | +0.200 [+0.15")
    assert line.endswith("] | +0.100, +0.300 | helps |")
    row = rows_of(found)[0]
    assert (row.case, row.runs) == ("ap50/weights by score/vs-without", 2)
    assert [row.ours, row.peer, row.ratio] == pytest.approx([0.4, 0.2, 2.0])


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first, second = two_seeds(tmp_path)
    with pytest.raises(DataError, match="expected a seed a file, but seed 1 came before"):
        gains([first, first])
    only = {"pseudo": (0.2, [0.2, 0.2, 0.2])}
    longer = detectors(tmp_path / "longer.json", 3, only, train={"steps": 13})
    with pytest.raises(DataError, match=r"longer\.json: expected the settings and draws of the first file"):
        gains([first, second, longer])
    own = {"pseudo": {"settings": {"source": "tune"}, "ap50": {"value": 0.2}, "ap50_draws": [0.2, 0.2, 0.2]}}
    other = detectors(tmp_path / "other.json", 3, {}, detectors=own)
    with pytest.raises(DataError, match=r"other\.json: expected the settings and draws of the first file"):
        gains([first, other])
    write_json(tmp_path / "old.json", {"train": {}, "detectors": {}})
    with pytest.raises(DataError, match=r"old\.json: expected a detectors\.json of `bench\.detectors`; make it again"):
        gains([tmp_path / "old.json"])


def test_an_ingredient_is_one_that_the_run_has_on_or_off(tmp_path: Path) -> None:
    whole: Scores = {"curriculum_rounds": (0.3, [0.3, 0.3, 0.3])}
    on = detectors(tmp_path / "1.json", 1, {**whole, "less_fused": (0.2, [0.2, 0.2, 0.2])})
    off = detectors(tmp_path / "2.json", 2, {**whole, "more_fused": (0.5, [0.5, 0.5, 0.5])})
    (gain,) = gains([on, off])[1]
    assert gain.name == "its own boxes fused with the maps'"
    assert {seed: (own.value, peer.value) for seed, (own, peer) in gain.seeds.items()} == {1: (0.3, 0.2), 2: (0.5, 0.3)}


def test_each_ingredient_is_a_pair_that_the_curves_detectors_have() -> None:
    weak = load(CurveConfig, BENCHES["curve"]).pipeline.detect.weak
    made = settings_of(weak, {"flip": 0.5, "bend": 0.02, "paste": {"probability": 0.5}}, finer=True)
    pairs = [pair for known in INGREDIENTS.values() for pair in known if {*pair} <= made.keys()]
    assert len(pairs) == len(INGREDIENTS)
    assert {name for pair in pairs for name in pair} == made.keys() - {"supervised"}
    for with_it, without in pairs:
        assert made[with_it] != made[without]
