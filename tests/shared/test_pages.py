"""Pages of several stages share templates; what one names and is not given is an error, and text stays text."""

from __future__ import annotations

import jinja2
import pytest

from weakray.pages.rendering import template


@pytest.mark.parametrize("package", ["eval.report", "ingest.report"])
def test_a_page_finds_its_own_templates_and_the_shared_ones(package: str) -> None:
    assert "--paper" in template(package, "look.css.j2").render()
    own = {"eval.report": "sources.j2", "ingest.report": "page.css.j2"}[package]
    assert template(package, own).name == own
    with pytest.raises(jinja2.TemplateNotFound, match="nowhere.j2"):
        template(package, "nowhere.j2")


def test_what_is_not_given_is_an_error_and_what_is_given_is_escaped() -> None:
    page = template("ingest.report", "page.html.j2")
    with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
        page.render()
    parts = template("eval.report", "parts.html.j2").make_module()
    assert "&lt;b&gt;" in str(parts.listed([("<b>", "x")]))  # type: ignore[attr-defined]
