"""The templates of pages and drawings."""

from __future__ import annotations

from importlib.resources import files

import jinja2


def template(name: str) -> jinja2.Template:
    """A template of `eval/report/templates`; what it names and is not given is an error."""
    folder = files("eval.report") / "templates"
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda file: (folder / file).read_text(encoding="utf-8")),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
