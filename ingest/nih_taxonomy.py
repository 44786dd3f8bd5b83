"""The fourteen findings of NIH ChestX-ray14, with the spellings its files use.

No tree: NIH's labels were mined from reports one by one and do not imply one another.
"""

from __future__ import annotations

from weakray.taxonomy import Finding, Taxonomy


def nih_taxonomy() -> Taxonomy:
    """The default taxonomy of `weakray ingest nih`. An underscore equals a space in every name."""
    return Taxonomy(
        (
            Finding("Atelectasis"),
            Finding("Cardiomegaly"),
            Finding("Pleural Effusion", synonyms=("Effusion",)),
            Finding("Infiltration", synonyms=("Infiltrate",)),
            Finding("Mass"),
            Finding("Nodule"),
            Finding("Pneumonia"),
            Finding("Pneumothorax"),
            Finding("Consolidation"),
            Finding("Edema"),
            Finding("Emphysema"),
            Finding("Fibrosis"),
            Finding("Pleural Thickening"),
            Finding("Hernia"),
        ),
        ignored=("No Finding",),
    )
