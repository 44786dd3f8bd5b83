from __future__ import annotations

from eval.published import published
from weakray.taxonomy import Finding, Taxonomy

NIH = Taxonomy((Finding("Effusion"), Finding("Pleural_Thickening"), Finding("Fracture"), Finding("Edema")))


def test_figures_stand_beside_findings_of_the_same_name() -> None:
    found = published(NIH, NIH.names)
    assert found["auroc"] == {
        "CheXpert": {"Effusion": 0.934, "Edema": 0.941},
        "CheXNet": {"Effusion": 0.8638, "Pleural_Thickening": 0.8062, "Edema": 0.8878},
    }
    assert "not on yours" in found["caveat"]
    assert [mean["value"] for mean in found["means"]] == [0.615, 0.93]


def test_only_findings_that_are_shown() -> None:
    found = published(NIH, ["Fracture", "Pleural_Thickening"])
    assert found["auroc"] == {"CheXpert": {}, "CheXNet": {"Pleural_Thickening": 0.8062}}
    assert found["means"] == []


def test_no_taxonomy_is_too_odd() -> None:
    both = Taxonomy((Finding("Effusion"), Finding("Pleural Effusion"), Finding("Lesion", synonyms=("Mass", "Nodule"))))
    found = published(both, both.names)["auroc"]
    assert found["CheXNet"] == {"Pleural Effusion": 0.8638}  # a lesion is neither their mass nor their nodule
