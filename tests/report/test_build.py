from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.report.build import write_report
from eval.report.content import ReportContent
from eval.report.tables import export_table, facts, recipe_table, score_table, stage_times
from weakray.errors import DataError

VOID = {"meta", "link", "input", "br", "img", "hr"}


class Reader(HTMLParser):
    """Collects text and ids, and fails on a tag that is not closed where it should be."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []

    def _note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        assert len(found) == len(attrs), f"<{tag}> repeats an attribute"
        self.ids += [found["id"] or ""] if "id" in found else []
        self.targets += [found["href"] or ""] if "href" in found else []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if not {"style"} & set(self.open):
            self.text.append(data)


def written(path: Path, content: ReportContent) -> tuple[str, Reader, str]:
    """The page's source, what a parser read, and its visible text with single blanks."""
    write_report(path, content)
    source = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    return source, reader, " ".join(" ".join(reader.text).split())


def bare(**changes: Any) -> ReportContent:
    """A content with nothing in it."""
    parts: dict[str, Any] = {
        "title": "Bare",
        "summary": {"findings": ["Nodule"], "scores": {}, "recovered_fraction": None, "seconds": {}},
        "curves": {},
        "gallery": [],
        "notes": [],
        "dataset": {},
        "per_finding_classify": {},
        "recipe": {},
    }
    return ReportContent(**{**parts, **changes})


def test_the_page_is_well_formed_and_whole(tmp_path: Path, content: ReportContent) -> None:
    source, reader, text = written(tmp_path / "report.html", content)
    assert source.startswith("<!doctype html>")
    assert len(reader.ids) == len(set(reader.ids))
    inner = [target[1:] for target in reader.targets if target.startswith("#")]
    assert inner
    assert set(inner) <= set(reader.ids)
    for section in (
        "Scores",
        "Findings",
        "Errors",
        "Gallery",
        "Classifiers",
        "Recipe",
        "Training",
        "Data",
        "Run",
        "Limits",
    ):
        assert section.lower() in reader.ids
        assert section in text
    assert "None" not in text
    assert "nan" not in text.lower().split()
    assert "not a medical device" in text


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path, content: ReportContent) -> None:
    source, reader, _ = written(tmp_path / "report.html", content)
    assert "script" not in reader.tags
    assert all(target.startswith(("#", "data:image/jpeg;base64,")) for target in reader.targets)
    assert not re.search(r"https?:|@import|url\(|src=", source)


def test_same_content_same_bytes(tmp_path: Path, content: ReportContent) -> None:
    write_report(tmp_path / "a.html", content)
    write_report(tmp_path / "b.html", content)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_figures_stand_in_the_page(tmp_path: Path, content: ReportContent) -> None:
    _, _, text = written(tmp_path / "report.html", content)
    assert "The weak detector reaches AP50 .41 [.38, .44] on 300 test images, 3.9 times plain Grad-CAM" in text
    assert "Fully supervised detector" in text
    assert ".500 [.470, .530]" in text
    assert "Nodule 44 .007" in text  # positives, then the random map's .011 × .6
    assert "Weak detector .059 [.047, .071] .236 [.189, .283]" in text  # class and location: .1 and .4 of .59
    assert "Weak detector, by finding" in text
    assert "Nodule .089 .354 .044 .000 .133 .266" in text
    assert "torch – – – – – – 8.0 9.5 151.2 1,234" in text
    assert "onnx 10.5 100.0 % 100.0 % 1.2e-07 0 0 4.2 9.5 151.2 1,234" in text
    assert "openvino-int8 (refused) 2.7 52.1 % 75.0 % 0.031 -.0213 +.0040 – – – –" in text
    assert "detect 25 min 03 s" in text
    assert "no_image 2" in text
    assert "onnx max abs diff 3.1e-06" in text
    assert "val macro AUROC: best .894 at epoch 12" in text


def test_an_export_of_a_detector_without_boxes_is_not_said_to_agree(content: ReportContent) -> None:
    torch_row, onnx_row, _ = content.exports
    none = {**onnx_row["parity"], "boxes": 0}
    table = export_table([torch_row, {**onnx_row, "parity": none}])
    assert table is not None
    assert table.rows[1][:6] == ["onnx", "10.5", "–", "–", "–", "0"]


def test_what_was_not_computed_is_absent(tmp_path: Path, content: ReportContent, summary: dict[str, Any]) -> None:
    for key in ("few_shot", "supervised_detector", "random_map"):
        del summary["scores"][key]
    summary |= {"recovered_fraction": None, "commit": None}
    for score in summary["scores"].values():
        del score["errors"]  # a summary made before errors were split
    _, _, text = written(tmp_path / "report.html", replace(content, summary=summary, parity=None, environment=None))
    for name in (
        "Few-shot",
        "Supervised",
        "supervised",
        "Random",
        "ceiling",
        "recovers",
        "Parity",
        "Environment",
        "Errors",
    ):
        assert name not in text
    assert "commit" not in text
    assert "None" not in text
    assert "Weak detector" in text


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    _, reader, text = written(tmp_path / "report.html", bare())
    assert "Nothing was scored in this run." in text
    assert {"limits"} == {"scores", "findings", "gallery", "recipe", "training", "data", "run", "limits"} & set(
        reader.ids
    )
    assert "None" not in text


def test_a_finding_without_truth_shows_a_dash(tmp_path: Path, content: ReportContent, summary: dict[str, Any]) -> None:
    for score in summary["scores"].values():
        score["per_finding"]["Nodule"] = {"ap30": None, "ap50": None, "map": None, "positives": 0}
    per_finding = dict(content.per_finding_classify)
    per_finding["Nodule"] = {"auroc": None, "auprc": None, "positives": 0}
    changed = replace(content, summary=summary, per_finding_classify=per_finding)
    _, _, text = written(tmp_path / "report.html", changed)
    assert "Nodule 0 – – – – – – – –" in text
    assert "Nodule 0 – –" in text.split("Classifiers")[-1]
    assert "None" not in text


def test_every_text_of_the_user_is_escaped(tmp_path: Path, content: ReportContent, summary: dict[str, Any]) -> None:
    evil = '<b onclick="x">&amp;</b>'
    summary["findings"] = [evil, *summary["findings"][1:]]
    summary["seconds"] = {evil: 3.0}
    summary["dataset"] = evil
    case = replace(content.gallery[0], finding=evil, image_id=evil, caption=evil)
    counts = {**content.dataset["counts"], "rejected_by_reason": {evil: 1}}
    changed = replace(
        content,
        title=evil,
        summary=summary,
        curves={evil: [{"epoch": 1, evil: 0.5}]},
        gallery=[case],
        notes=[evil],
        dataset={**content.dataset, "counts": counts, "origin": evil},
        per_finding_classify={evil: content.per_finding_classify["Nodule"]},
        recipe={"findings": {evil: {"method": evil}}},
        parity={evil: evil},
        environment={evil: evil},
    )
    source, _, text = written(tmp_path / "report.html", changed)
    assert "onclick" not in re.sub(r'"[^"]*"', "", "".join(re.findall(r"<[^>]+>", source)))
    assert "<b onclick" not in source
    assert text.count('<b onclick="x">&amp;</b>') >= 12


def test_colour_images_and_cases_without_map(tmp_path: Path, content: ReportContent) -> None:
    case = content.gallery[0]
    colour = replace(case, image=np.stack([case.image] * 3, axis=2), heat=None, placement=None)
    _, _, text = written(tmp_path / "report.html", replace(content, gallery=[colour]))
    assert "Map no map kept" in text


def test_the_gallery_goes_by_finding_and_from_best_to_worst(tmp_path: Path, content: ReportContent) -> None:
    turned = replace(content, gallery=content.gallery[::-1])
    _, _, text = written(tmp_path / "report.html", turned)
    assert re.findall(r"made-\d{3} case (\d+)", text) == [str(i) for i in range(9)]
    assert re.findall(r"(best|typical|worst) made-", text) == ["best", "typical", "worst"] * 3


def test_test_images_are_those_that_were_scored(
    tmp_path: Path, content: ReportContent, summary: dict[str, Any]
) -> None:
    summary["dataset"] = {"sha256": "ab", "origin": None, "test_images": 123}
    _, _, text = written(tmp_path / "report.html", replace(content, summary=summary))
    assert "on 123 test images" in text


def test_counts_alone_serve_as_dataset(tmp_path: Path, content: ReportContent) -> None:
    _, _, text = written(tmp_path / "report.html", replace(content, dataset=content.dataset["counts"]))
    assert "images 2,600 patients 1,204 rejected 3" in text


def test_recipe_of_a_list_and_its_settings_in_words() -> None:
    table = recipe_table(
        {
            "seed": 0,
            "findings": [
                {
                    "name": "Nodule",
                    "members": [0, 1],
                    "threshold": {"kind": "range", "value": 0.35},
                    "calibration": {"strength": 1.0},
                    "tune": {"boxes": 12, "images": 40, "ap50": 0.414},
                },
                {
                    "name": "Mass",
                    "members": [1],
                    "threshold": {"kind": "value", "value": 0.5},
                    "calibration": None,
                    "tune": {"boxes": 0, "images": 40, "ap50": None},
                },
            ],
        }
    )
    assert table is not None
    assert table.columns == ["Finding", "Members", "Threshold", "Calibration", "Tune boxes", "Tune AP50"]
    assert table.rows == [
        ["Nodule", "0, 1", ".350 of range", "fitted", "12", ".414"],
        ["Mass", "1", ".500", "identity", "0", "–"],
    ]


def test_a_recipes_maps_and_priors_in_a_word() -> None:
    entries = [
        {"name": "A", "method": "pcam", "layer": "last", "prior": None},
        {"name": "B", "method": "layercam", "layer": "stage1", "prior": {"exponent": 0.5, "grid": [[1.0]]}},
        {"name": "C", "method": "layercam", "layer": "stage2", "prior": {"exponent": 1.0, "grid": [[1.0]]}},
    ]
    table = recipe_table({"findings": entries})
    assert table is not None
    assert table.columns == ["Finding", "Map", "Prior"]
    assert table.rows == [
        ["A", "pcam", "–"],
        ["B", "layercam @ stage1", "^0.5"],
        ["C", "layercam @ stage2", "^1"],
    ]


@pytest.mark.parametrize("findings", [[{"method": "pcam"}], ["Nodule"], {"Nodule": "pcam"}])
def test_a_recipe_that_is_none_is_refused(findings: Any) -> None:
    with pytest.raises(DataError, match="recipe: expected `findings`, name → settings or a list"):
        recipe_table({"findings": findings})


def test_bars_share_one_axis_over_all_columns(summary: dict[str, Any]) -> None:
    table = score_table(summary)
    assert table is not None
    assert [tick.text for tick in table.ticks] == ["0", ".2", ".4", ".6", ".8"]
    weak = table.cells[6]
    assert [cell.text for cell in weak] == [".553", ".410", ".184"]
    assert weak[1].bar.value == pytest.approx(5 + 190 * 0.41 / 0.8, abs=0.06)


def test_wall_times_and_their_shares() -> None:
    rows = stage_times({"seconds": {"ingest": 30.0, "detect": 90.0}})
    assert [(row.name, row.text.replace("\u00a0", " "), row.percent) for row in rows] == [
        ("ingest", "30.0 s", 25.0),
        ("detect", "1 min 30 s", 75.0),
        ("all stages", "2 min 00 s", 100.0),
    ]
    assert stage_times({}) == []


def test_facts_are_flat_and_leave_out_none() -> None:
    assert facts({"a_b": {"c": 1234, "d": None, "e": True}, "f": {"value": 0.5, "low": 0.4, "high": 0.6}}) == [
        ("a b c", "1,234"),
        ("a b e", "yes"),
        ("f", ".500 [.400, .600]"),
    ]
    assert facts(None) == []
