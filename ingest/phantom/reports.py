"""Reports that match the films: what a film's labels say, as a radiologist of either language might write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from ingest.phantom.labels import ReportLabels
from ingest.phantom.taxonomy import FINDINGS, PARENTS

ReportLanguage = Literal["fr", "en"]

# finding → how it is stated. {s}: a side, where the finding has one.
_STATED: dict[ReportLanguage, dict[str, tuple[str, ...]]] = {
    "fr": {
        "Enlarged Cardiomediastinum": ("Élargissement du médiastin", "Le médiastin apparaît élargi"),
        "Cardiomegaly": ("Cardiomégalie", "Silhouette cardiaque augmentée de volume", "Cœur augmenté de taille"),
        "Lung Opacity": ("Opacité pulmonaire {s}", "Opacité parenchymateuse {s}"),
        "Consolidation": ("Condensation {s}", "Foyer de condensation {s}", "Syndrome alvéolaire {s}"),
        "Pneumonia": ("Pneumopathie {s}", "Foyer infectieux {s}", "Pneumonie {s}"),
        "Atelectasis": ("Atélectasie {s}", "Atélectasie en bande {s}", "Trouble de ventilation {s}"),
        "Lung Lesion": ("Lésion pulmonaire suspecte {s}", "Lésion parenchymateuse {s}"),
        "Nodule": ("Nodule pulmonaire {s}", "Opacité nodulaire {s}"),
        "Mass": ("Masse pulmonaire {s}", "Volumineuse masse {s}"),
        "Pleural Effusion": ("Épanchement pleural {s}", "Lame d'épanchement pleural {s}", "Épanchement liquidien {s}"),
        "Pneumothorax": ("Pneumothorax {s}", "Décollement pleural {s}", "PNO {s}"),
    },
    "en": {
        "Enlarged Cardiomediastinum": ("Widening of the mediastinum", "The mediastinum is widened"),
        "Cardiomegaly": ("Cardiomegaly", "The heart is enlarged", "Enlarged cardiac silhouette"),
        "Lung Opacity": ("{s} lung opacity", "{s} pulmonary opacity"),
        "Consolidation": ("{s} consolidation", "{s} focal consolidation", "{s} airspace consolidation"),
        "Pneumonia": ("{s} pneumonia", "{s} bronchopneumonia"),
        "Atelectasis": ("{s} atelectasis", "{s} plate-like atelectasis", "{s} atelectatic band"),
        "Lung Lesion": ("{s} suspicious lung lesion", "{s} parenchymal lesion"),
        "Nodule": ("{s} pulmonary nodule", "{s} nodular opacity"),
        "Mass": ("{s} lung mass", "Large {s} pulmonary mass"),
        "Pleural Effusion": ("{s} pleural effusion", "{s} effusion", "Free pleural fluid, {s}"),
        "Pneumothorax": ("{s} pneumothorax", "{s} apical pneumothorax"),
    },
}
# finding → its name where it is denied or doubted.
_NAMED: dict[ReportLanguage, dict[str, tuple[str, ...]]] = {
    "fr": {
        "Enlarged Cardiomediastinum": ("élargissement médiastinal",),
        "Cardiomegaly": ("cardiomégalie",),
        "Lung Opacity": ("opacité pulmonaire", "opacité parenchymateuse"),
        "Consolidation": ("condensation", "foyer de condensation"),
        "Pneumonia": ("pneumopathie", "foyer infectieux", "pneumonie"),
        "Atelectasis": ("atélectasie", "trouble de ventilation"),
        "Lung Lesion": ("lésion pulmonaire suspecte", "lésion parenchymateuse"),
        "Nodule": ("nodule", "image nodulaire"),
        "Mass": ("masse",),
        "Pleural Effusion": ("épanchement pleural",),
        "Pneumothorax": ("pneumothorax", "décollement pleural"),
    },
    "en": {
        "Enlarged Cardiomediastinum": ("mediastinal widening",),
        "Cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
        "Lung Opacity": ("lung opacity", "opacity"),
        "Consolidation": ("consolidation", "focal consolidation"),
        "Pneumonia": ("pneumonia",),
        "Atelectasis": ("atelectasis",),
        "Lung Lesion": ("suspicious lung lesion", "lung lesion"),
        "Nodule": ("nodule", "pulmonary nodule"),
        "Mass": ("mass", "lung mass"),
        "Pleural Effusion": ("pleural effusion", "effusion"),
        "Pneumothorax": ("pneumothorax",),
    },
}
_DOUBTED: dict[ReportLanguage, tuple[str, ...]] = {
    "fr": ("Possible {x}", "{x} possible", "Suspicion de {x}", "On ne peut exclure : {x}", "{x} à confirmer", "{x} ?"),
    "en": ("Possible {x}", "Questionable {x}", "Cannot exclude {x}", "{x} is not excluded", "Suspected {x}", "{x}?"),
}
_AFTER: dict[ReportLanguage, tuple[str, ...]] = {
    "fr": ("", "", "", ", inchangé par rapport au cliché précédent", ", déjà connu", ", en majoration"),
    "en": ("", "", "", ", unchanged from the prior study", ", previously known", ", increased"),
}
_SIDES: dict[ReportLanguage, dict[str, str]] = {
    "fr": {"right": "à droite", "left": "à gauche", "both": "des deux côtés"},
    "en": {"right": "right", "left": "left", "both": "bilateral"},
}
_INDICATIONS: dict[ReportLanguage, tuple[str, ...]] = {
    "fr": (
        "Indication : toux fébrile, pneumopathie ?",
        "Motif : douleur thoracique, éliminer un pneumothorax.",
        "Renseignements cliniques : dyspnée, antécédent d'épanchement pleural.",
        "Indication : bilan.",
    ),
    "en": (
        "INDICATION: Cough and fever, pneumonia?",
        "Reason for exam: chest pain, rule out pneumothorax.",
        "Clinical history: dyspnea, previous pleural effusion.",
        "Indication: follow-up.",
    ),
}
_TITLES: dict[ReportLanguage, tuple[str, ...]] = {
    "fr": ("Résultat :", "Compte rendu :"),
    "en": ("FINDINGS:", "Report:"),
}
_NOTHING: dict[ReportLanguage, tuple[str, ...]] = {
    "fr": ("Cliché de face debout.", "Champ légèrement coupé."),
    "en": ("Frontal upright view.", "The patient is slightly rotated."),
}


def write_report(
    labels: ReportLabels,
    boxes_xyxy_px: npt.NDArray[np.float32],
    class_id: npt.NDArray[np.int64],
    width_px: int,
    rng: np.random.Generator,
    language: ReportLanguage,
) -> str:
    """A report that says what the labels say, no more: 1 stated, 0 denied, -1 doubted, blank not mentioned.

    A parent that only follows a child is not mentioned, as radiologists do not: the class tree brings it back. Sides
    are those of the boxes; a finding without boxes is reported on a side drawn at random.

    Args:
        labels: `(findings,)` of 1, 0, -1 or NaN, consistent along the tree.
        boxes_xyxy_px: `(n, 4)` true boxes.
        class_id: `(n,)` index into FINDINGS.
        width_px: of the film.
        rng: source of the wording.
        language: `fr` or `en`.
    """

    def pick(choices: Sequence[str]) -> str:
        return choices[int(rng.integers(len(choices)))]

    sentences: list[str] = []
    denied: list[str] = []
    for index, name in enumerate(FINDINGS):
        value = labels[index]
        if np.isnan(value) or (value != 0 and _follows_a_child(name, labels)):
            continue
        if value == 0:
            denied.append(pick(_NAMED[language][name]))
        elif value == -1:
            sentences.append(_sentence(pick(_DOUBTED[language]).format(x=pick(_NAMED[language][name]))))
        else:
            side = _SIDES[language][_side(boxes_xyxy_px[class_id == index], width_px, rng)]
            stated = pick(_STATED[language][name]).format(s=side)
            sentences.append(_sentence(stated + pick(_AFTER[language])))
    while denied:
        count = min(len(denied), 1 + int(rng.integers(3)))
        sentences.append(_denial(denied[:count], language))
        denied = denied[count:]
    rng.shuffle(sentences)
    sentences = sentences or [pick(_NOTHING[language])]
    parts = [pick(_TITLES[language]), " ".join(sentences)]
    return "\n".join([pick(_INDICATIONS[language]), *parts] if rng.random() < 0.6 else parts)


def _follows_a_child(name: str, labels: ReportLabels) -> bool:
    """Whether a child has the same label: then the report speaks of the child."""
    return any(
        parent == name and labels[FINDINGS.index(child)] == labels[FINDINGS.index(name)]
        for child, parent in PARENTS.items()
    )


def _side(boxes: npt.NDArray[np.float32], width_px: int, rng: np.random.Generator) -> str:
    """The patient's side: his right is on the left of the film."""
    if len(boxes) == 0:
        return "right" if rng.random() < 0.5 else "left"
    middle = (boxes[:, 0] + boxes[:, 2]) / 2 < width_px / 2
    return "both" if middle.any() and not middle.all() else "right" if middle.all() else "left"


def _denial(names: list[str], language: ReportLanguage) -> str:
    if language == "fr":
        of = [f"d'{name}" if name[0] in "aeéiou" else f"de {name}" for name in names]
        return f"Pas {of[0]}." if len(of) == 1 else f"Pas {', '.join(of[:-1])} ni {of[-1]}."
    return f"No {names[0]}." if len(names) == 1 else f"No {', '.join(names[:-1])} or {names[-1]}."


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    text = text.replace("de épanchement", "d'épanchement").replace("de élargissement", "d'élargissement")
    for vowel in ("opacité", "atélectasie", "image"):
        text = text.replace(f"de {vowel}", f"d'{vowel}")
    text = text[0].upper() + text[1:]
    return text if text.endswith("?") else f"{text}."
