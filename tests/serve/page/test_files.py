"""The page's files: colours that can be told apart, the report's palette, weight, and nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "serve" / "page"
COLOUR = re.compile(r"--([\w-]+):\s*(#[0-9a-f]{6})")


def palettes() -> dict[str, dict[str, str]]:
    """Colours by theme; those on the film belong to both."""
    text = (PAGE / "palette.css").read_text()
    dark, light, film = (dict(COLOUR.findall(block)) for block in text.split("}")[:3])
    return {"dark": {**dark, **film}, "light": {**light, **film}}


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def test_contrast_is_the_standards_own() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.478, abs=1e-3)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_can_be_read(theme: str) -> None:
    colours = palettes()[theme]
    texts = [
        *((ink, ground) for ink in ("ink", "soft", "flagged", "twice") for ground in ("paper", "raised", "chosen")),
        *(
            (ink, ground)
            for ink in ("stage-ink", "stage-soft", "k-detector", "k-truth")
            for ground in ("stage", "stage-raised")
        ),
    ]
    poor = {(ink, ground): round(contrast(colours[ink], colours[ground]), 2) for ink, ground in texts}
    assert {pair: ratio for pair, ratio in poor.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_bars_marks_and_focus_can_be_seen(theme: str) -> None:
    colours = palettes()[theme]
    seen = {
        (mark, ground): round(contrast(colours[mark], colours[ground]), 2)
        for mark in ("flagged-bar", "twice", "absent", "truth", "accent", "ink")
        for ground in ("paper", "chosen")
    }
    assert {pair: ratio for pair, ratio in seen.items() if ratio < 3} == {}


def test_text_is_coloured_from_the_palette_alone() -> None:
    known = {colour for theme in palettes().values() for colour in theme.values()}
    for name in ("frame.css", "panel.css"):
        inks = re.findall(r"(?<![-\w])color:\s*(#[0-9a-f]+)", (PAGE / name).read_text())
        assert set(inks) <= known, name


def test_palette_is_the_reports() -> None:
    report = (ROOT / "weakray/pages/templates/palette.j2").read_text()
    light, dark = (dict(COLOUR.findall(block)) for block in report.split("{% endmacro %}")[:2])
    ours = palettes()
    for name in ("paper", "raised", "ink", "soft", "faint", "rule", "grid", "accent"):
        assert ours["dark"][name] == dark[name], name
        assert ours["light"][name] == light[name], name
    style = dict(COLOUR.findall((ROOT / "eval/report/templates/style.html.j2").read_text()))
    assert {name: ours["dark"][name] for name in ("k-truth", "k-detector")} == {
        name: style[name] for name in ("k-truth", "k-detector")
    }


def test_page_is_light_and_names_no_other_place() -> None:
    files = [path for path in PAGE.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300 * 1024
    for path in files:
        text = path.read_text()
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}, path.name
        assert not re.search(r"\bstyle=|\bon\w+=\"|innerHTML|localStorage|sessionStorage|indexedDB|eval\(", text), (
            path.name
        )
        assert len(text.splitlines()) <= 500, path.name
        if path.suffix == ".js" and path.stem not in {"en", "fr"}:  # the dictionaries hold whole sentences
            assert max(map(len, text.splitlines())) <= 120, path.name
    index = (PAGE / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*src=)|<style", index)
