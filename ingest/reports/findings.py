"""The findings that reports are read for, and their class tree."""

from __future__ import annotations

from ingest.findings import lift
from weakray.taxonomy import Finding, Taxonomy

NO_FINDING = "No Finding"
DEVICES = "Support Devices"

# CheXpert's tree, with the findings that NIH ChestX-ray14 and the phantom name beside it.
TREE = Taxonomy(
    (
        Finding("Enlarged Cardiomediastinum"),
        Finding("Cardiomegaly", "Enlarged Cardiomediastinum"),
        Finding("Lung Opacity", None, ("Airspace Opacity", "Opacity")),
        Finding("Lung Lesion", "Lung Opacity", ("Nodule/Mass",)),
        Finding("Nodule", "Lung Lesion"),
        Finding("Mass", "Lung Lesion"),
        Finding("Edema", "Lung Opacity", ("Pulmonary Edema",)),
        Finding("Consolidation", "Lung Opacity"),
        Finding("Pneumonia", "Consolidation"),
        Finding("Atelectasis", "Lung Opacity"),
        Finding("Infiltration", "Lung Opacity", ("Infiltrate",)),
        Finding("Pneumothorax"),
        Finding("Pleural Effusion", None, ("Effusion",)),
        Finding("Pleural Other"),
        Finding("Pleural Thickening", "Pleural Other"),
        Finding("Fracture"),
        Finding("Support Devices"),
        Finding("Emphysema"),
        Finding("Fibrosis", None, ("Pulmonary Fibrosis",)),
        Finding("Hernia", None, ("Hiatal Hernia",)),
    )
)
COLUMNS: tuple[str, ...] = (*TREE.names, NO_FINDING)


def consistent(said: dict[str, int]) -> dict[str, int]:
    """Labels along the tree: with 0 < -1 < 1 every ancestor is at least its child; an absent child says nothing.

    `No Finding` stays only where nothing else but devices is present or uncertain, and then as 1.

    Args:
        said: finding → 1, 0 or -1.
    """
    ids = {TREE.index[name]: float(value) for name, value in said.items() if name != NO_FINDING}
    lifted = {TREE.names[class_id]: int(value) for class_id, value in sorted(lift(ids, TREE).items())}
    normal = said.get(NO_FINDING) == 1 and not any(v != 0 for name, v in lifted.items() if name != DEVICES)
    return {**lifted, NO_FINDING: 1} if normal else lifted
