"""The phantom's class tree: which findings it draws, and which of them imply which."""

from __future__ import annotations

FINDINGS: tuple[str, ...] = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Lung Lesion",
    "Nodule",
    "Mass",
    "Pleural Effusion",
    "Pneumothorax",
)

PARENTS: dict[str, str] = {
    "Cardiomegaly": "Enlarged Cardiomediastinum",
    "Consolidation": "Lung Opacity",
    "Pneumonia": "Consolidation",
    "Atelectasis": "Lung Opacity",
    "Lung Lesion": "Lung Opacity",
    "Nodule": "Lung Lesion",
    "Mass": "Lung Lesion",
}


def lineage(finding: str) -> tuple[str, ...]:
    """The finding itself, then its parent, and so on up to the root."""
    names = [finding]
    while names[-1] in PARENTS:
        names.append(PARENTS[names[-1]])
    return tuple(names)


def leaves_first() -> tuple[str, ...]:
    """All findings, deepest first, so that a pass along them pushes values from children to ancestors."""
    return tuple(sorted(FINDINGS, key=lambda name: -len(lineage(name))))
