"""The import table of the design, held against the code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = {"ingest", "eval", "classify", "camgen", "detect", "serve"}
MAY_IMPORT = {
    "weakray": set[str](),
    "ingest": {"weakray"},
    "eval": {"weakray"},
    "classify": {"weakray", "eval"},
    "camgen": {"weakray", "eval", "classify"},
    "detect": {"weakray", "eval"},
    "serve": {"weakray"},
    "configs": set[str](),
}
OURS = {*MAY_IMPORT, "bench", "tests"}
TORCHLESS = ("weakray", "ingest", "eval", "serve")
HEAVY = {"torch", "torchvision", "timm", "ultralytics", "albumentations", "pytorch_grad_cam"}


def imports(path: Path) -> list[tuple[str, bool]]:
    """(top-level name, inside a function?) of every absolute import in a file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    found: list[tuple[str, bool]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], id(node) in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.append(((node.module or "").split(".")[0], id(node) in inside))
    return found


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_folder_imports_only_what_the_table_allows(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        names_stages = path in {ROOT / "weakray/cli.py", ROOT / "weakray/pipeline.py"}
        for name, in_function in imports(path):
            if name in OURS and name != folder and not (names_stages and in_function):
                assert name in MAY_IMPORT[folder], f"{path.relative_to(ROOT)} may not import {name}"


@pytest.mark.parametrize("folder", TORCHLESS)
def test_torchless_folders_import_no_torch(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert not HEAVY & {name for name, _ in imports(path)}, path


def test_nobody_hides_the_builtin_eval() -> None:
    for folder in [*MAY_IMPORT, "bench", "tests"]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    assert "eval" not in {alias.asname or alias.name for alias in node.names}, path


def test_modules_stay_small() -> None:
    for folder in MAY_IMPORT:
        for path in sorted((ROOT / folder).rglob("*.py")):
            assert len(path.read_text().splitlines()) <= 500, path
