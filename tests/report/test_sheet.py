from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from eval.report.sheet import Chart, Curve, sheet

SPACE = "{http://www.w3.org/2000/svg}"
DIAGONAL = ((0.0, 0.0), (1.0, 1.0))


def drawn(charts: list[Chart]) -> ET.Element:
    return ET.fromstring(sheet("Title & more", "x", "y", charts))  # noqa: S314 - ours


def panels(root: ET.Element) -> list[ET.Element]:
    return [group for group in root.findall(f"{SPACE}g") if group.get("transform")]


@pytest.mark.parametrize(("count", "size"), [(1, (262.0, 324.0)), (3, (714.0, 324.0)), (5, (940.0, 582.0))])
def test_charts_stand_in_rows_of_four(count: int, size: tuple[float, float]) -> None:
    root = drawn([Chart(f"f{i}", "", [], None) for i in range(count)])
    assert (float(root.get("width", 0)), float(root.get("height", 0))) == size
    at = [panel.get("transform") for panel in panels(root)]
    expected = [f"translate({18.0 + i % 4 * 226.0} {66.0 + i // 4 * 258.0})" for i in range(count)]
    assert at == expected


def test_points_dots_and_reference_by_hand() -> None:
    # The square runs from x = 44 to 212 and from y = 214 (0) up to 46 (1).
    curve = Curve("ensemble", [(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)], 2, [0.25, 0.0, 1.0])
    (panel,) = panels(drawn([Chart("Mass", "AUROC .50", [curve], DIAGONAL)]))
    (line,) = panel.iter(f"{SPACE}polyline")
    assert line.get("points") == "44,214 128,172 212,46"
    dots = [(dot.get("cx"), dot.get("cy"), dot.get("r")) for dot in panel.iter(f"{SPACE}circle")]
    assert dots == [("44.0", "214.0", "3.5"), ("128.0", "172.0", "1.2"), ("212.0", "46.0", "7.0")]
    (reference,) = [line for line in panel.findall(f"{SPACE}line") if line.get("class") == "reference"]
    assert [reference.get(key) for key in ("x1", "y1", "x2", "y2")] == ["44.0", "214.0", "212.0", "46.0"]
    assert [text.text for text in panel.findall(f"{SPACE}text")][:2] == ["Mass", "AUROC .50"]


def test_faint_lines_lie_under_the_others_and_the_legend_names_each_once() -> None:
    curves = [Curve("ensemble", [(0, 0), (1, 1)], 0), Curve("members", [(0, 0), (1, 0.5)], None)]
    root = drawn([Chart("Mass", "", [*curves, curves[1]], None)] * 2)
    assert [group.get("class") for group in panels(root)[0].findall(f"{SPACE}g")] == ["faint", "faint", "own"]
    legend = [group.findtext(f"{SPACE}text") for group in root.findall(f"{SPACE}g") if not group.get("transform")]
    assert legend == ["ensemble", "members"]
    assert "Title &amp; more" in sheet("Title & more", "x", "y", [Chart("Mass", "", curves, None)])


def test_a_chart_without_curves_says_so() -> None:
    (panel,) = panels(drawn([Chart("Mass", "0 +, 9 –", [], DIAGONAL)]))
    assert "nothing to draw" in [text.text for text in panel.findall(f"{SPACE}text")]
    assert not [line for line in panel.findall(f"{SPACE}line") if line.get("class") == "reference"]


def test_a_long_name_is_cut_and_stands_in_full_under_the_pointer() -> None:
    name = "Enlarged cardiomediastinum and more"
    (panel,) = panels(drawn([Chart(name, "", [], None)]))
    title = panel.find(f"{SPACE}text")
    assert title is not None
    assert title.text == "Enlarged cardiomediasti…"
    assert title.findtext(f"{SPACE}title") == name
