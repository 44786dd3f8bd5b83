"""Published figures to stand beside ours. They are of other images: a landmark, never a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from weakray.taxonomy import Taxonomy

CAVEAT = "published on their own test set, not on yours"

# Irvin et al. 2019 (CheXpert): AUROC of their model on 500 studies read by radiologists.
_CHEXPERT = {
    "Atelectasis": 0.858,
    "Cardiomegaly": 0.832,
    "Consolidation": 0.899,
    "Edema": 0.941,
    "Pleural Effusion": 0.934,
}
# Rajpurkar et al. 2017 (CheXNet): AUROC on their test part of ChestX-ray14.
_CHEXNET = {
    "Atelectasis": 0.8094,
    "Cardiomegaly": 0.9248,
    "Pleural Effusion": 0.8638,
    "Infiltration": 0.7345,
    "Mass": 0.8676,
    "Nodule": 0.7802,
    "Pneumonia": 0.7680,
    "Pneumothorax": 0.8887,
    "Consolidation": 0.7901,
    "Edema": 0.8878,
    "Emphysema": 0.9371,
    "Fibrosis": 0.8047,
    "Pleural Thickening": 0.8062,
    "Hernia": 0.9164,
}
AUROC: dict[str, dict[str, float]] = {"CheXpert": _CHEXPERT, "CheXNet": _CHEXNET}

# Figures of a mean over findings, with what they are a mean of.
MEANS: tuple[dict[str, Any], ...] = (
    {"who": "radiologists", "figure": "f1", "value": 0.615, "over": "their findings"},
    {"who": "CheXpert leaderboard", "figure": "auroc", "value": 0.930, "over": "the five findings of the competition"},
)

_SYNONYMS = {"Pleural Effusion": ("Effusion",)}


def published(taxonomy: Taxonomy, scored: Sequence[str]) -> dict[str, Any]:
    """What is shown beside figures of some findings.

    Args:
        taxonomy: gives the findings' other names.
        scored: names of the findings that are shown.

    Returns:
        `{"caveat", "auroc": {source: {finding: AUROC}}, "means"}`; only findings that both name, by name or synonym.
        The means are given where one of CheXpert's five findings is among them: they are about such findings.
    """
    auroc: dict[str, dict[str, float]] = {}
    for source, figures in AUROC.items():
        matches = [(_resolved(taxonomy, name), value) for name, value in figures.items()]
        names = [name for name, _ in matches]
        # A finding that stands for two of theirs has the figure of neither.
        auroc[source] = {
            name: value for name, value in matches if name is not None and name in scored and names.count(name) == 1
        }
    return {"caveat": CAVEAT, "auroc": auroc, "means": [dict(mean) for mean in MEANS] if auroc["CheXpert"] else []}


def _resolved(taxonomy: Taxonomy, name: str) -> str | None:
    """What `taxonomy` calls a published finding; None where it has no such."""
    for called in (name, *_SYNONYMS.get(name, ())):
        shared = Taxonomy.flat([called]).shared_with(taxonomy)
        if shared:
            return taxonomy.names[shared[0]]
    return None
