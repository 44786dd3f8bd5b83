"""The shipped taxonomies: whole, resolvable in every data set's words, and what one's own file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.taxonomies import SHIPPED, load_taxonomy, taxonomy_file
from weakray.errors import DataError
from weakray.taxonomy import Taxonomy


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_whole_in_the_words_of_each_data_set_and_survives_its_own_file(name: str, tmp_path: Path) -> None:
    taxonomy = load_taxonomy(name)
    for source in taxonomy.sources:
        spoken = taxonomy.spoken_in(source)
        assert spoken.names == taxonomy.names
        assert spoken.sources == []
    taxonomy.save(tmp_path / "t.yaml")
    assert Taxonomy.load(tmp_path / "t.yaml") == taxonomy
    assert taxonomy.resolve("No Finding") is None


def test_chexperts_tree() -> None:
    tree = load_taxonomy("chexpert")
    paths = {" > ".join(tree.names[at] for at in tree.path(class_id)) for class_id in range(len(tree))}
    assert len(tree) == 13  # and No Finding
    assert "Enlarged Cardiomediastinum > Cardiomegaly" in paths
    assert "Lung Opacity > Consolidation > Pneumonia" in paths
    below = {"Lung Lesion", "Edema", "Consolidation", "Atelectasis"}
    assert {path.split(" > ")[1] for path in paths if path.startswith("Lung Opacity > ")} == below
    roots = {"Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"}
    assert roots <= paths


@pytest.mark.parametrize(
    ("taxonomy", "source", "name", "finding"),
    [
        ("chexpert", "nih", "Effusion", "Pleural Effusion"),
        ("chexpert", "nih", "Mass", "Lung Lesion"),
        ("chexpert", "nih", "Pleural_Thickening", "Pleural Other"),
        ("chexpert", "vindr", "Nodule/Mass", "Lung Lesion"),
        ("chexpert", "vindr", "Rib fracture", "Fracture"),
        ("chexpert", "padchest", "loculated pleural effusion", "Pleural Effusion"),
        ("nih", "nih", "Infiltrate", "Infiltration"),
        ("nih", "vindr", "Pulmonary fibrosis", "Fibrosis"),
        ("vindr", "nih", "Nodule", "Nodule/Mass"),
        ("padchest", "nih", "Hernia", "Hiatal Hernia"),
        ("hospital", "csv", "epanchement pleural", "Pleural Effusion"),
        ("hospital", "csv", "Œdème pulmonaire", "Edema"),
        ("hospital", "csv", "Cardiomégalie", "Cardiomegaly"),
        ("hospital", "vindr", "Nodule/Mass", "Lung Lesion"),
    ],
)
def test_names_across_data_sets(taxonomy: str, source: str, name: str, finding: str) -> None:
    spoken = load_taxonomy(taxonomy).spoken_in(source)
    class_id = spoken.resolve(name)
    assert class_id is not None
    assert spoken.names[class_id] == finding


def test_a_name_of_two_findings_at_once_stands_for_neither() -> None:
    spoken = load_taxonomy("nih").spoken_in("vindr")
    with pytest.raises(DataError, match="unknown finding 'Nodule/Mass'"):
        spoken.resolve("Nodule/Mass")


def test_every_name_of_nih_and_of_vindr_is_known_to_its_own_taxonomy() -> None:
    from ingest.nih_csv import NAMES as NIH

    spoken = load_taxonomy("nih").spoken_in("nih")
    assert sorted(str(spoken.resolve(name)) for name in NIH) == sorted(map(str, range(14)))


def test_a_path_is_taken_and_a_wrong_name_is_told_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("findings:\n- {name: A, synonyms: {x: [B], all: [C]}}\n", encoding="utf-8")
    own = load_taxonomy(str(tmp_path / "own.yaml"))
    assert own.findings[0].synonyms == ("C",)
    assert own.spoken_in("x").resolve("b") == 0
    with pytest.raises(DataError, match="expected one of chexpert, nih, vindr, padchest, hospital or a YAML file, got"):
        taxonomy_file("chexprt")
