"""The templates of pages and drawings."""

from __future__ import annotations

from importlib.resources import files

import jinja2


def template(package: str, name: str) -> jinja2.Template:
    """A template of a package's folder `templates`, which may use those of `weakray/pages/templates`.

    What a template names and is not given is an error; everything that is put into one is escaped.

    Args:
        package: dotted name, e.g. `eval.report`.
        name: file name.
    """
    folders = [files(at) / "templates" for at in (package, "weakray.pages")]

    def read(file: str) -> str | None:
        found = next((folder / file for folder in folders if (folder / file).is_file()), None)
        return None if found is None else found.read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
