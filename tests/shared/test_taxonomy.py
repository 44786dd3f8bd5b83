from __future__ import annotations

from pathlib import Path

import pytest

from weakray.errors import DataError
from weakray.taxonomy import Finding, Taxonomy

TREE = Taxonomy(
    (
        Finding("Pneumonia", "Consolidation"),
        Finding("Consolidation", "Lung Opacity"),
        Finding("Lung Opacity"),
        Finding("Pleural Effusion", None, ("Effusion",)),
    ),
    ignored=("No Finding",),
)


def test_paths_run_from_the_root() -> None:
    assert TREE.path(0) == [2, 1, 0]
    assert TREE.path(3) == [3]
    assert TREE.parents == [1, 2, None, None]
    assert TREE.top_down == [2, 3, 1, 0]


def test_names_and_synonyms_resolve_without_case_and_underscores() -> None:
    assert TREE.resolve("effusion") == TREE.resolve("Pleural_Effusion") == 3
    assert TREE.resolve("No Finding") is None
    with pytest.raises(DataError, match="unknown finding 'Hernia'; expected one of Pneumonia, Consolidation"):
        TREE.resolve("Hernia")


def test_yaml_round_trip(tmp_path: Path) -> None:
    TREE.save(tmp_path / "taxonomy.yaml")
    assert Taxonomy.load(tmp_path / "taxonomy.yaml") == TREE


@pytest.mark.parametrize(
    ("findings", "message"),
    [
        ((Finding("A"), Finding("a")), "the name 'a' stands for two findings"),
        ((Finding("A", None, ("B",)), Finding("B")), "the name 'B' stands for two findings"),
        ((Finding("A", "Z"),), "'A' has the unknown ancestor 'Z'"),
        ((Finding("A", "B"), Finding("B", "A")), "'A' is its own ancestor"),
    ],
)
def test_refuses_trees_that_are_none(findings: tuple[Finding, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy(findings)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"findings": [{"name": "A", "color": "red"}]}, "unknown keys"),
        ({"findings": []}, "at least one finding"),
        ({}, "expected `findings:`"),
        (None, "expected `findings:`"),
    ],
)
def test_refuses_other_yaml(value: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Taxonomy.from_dict(value)
