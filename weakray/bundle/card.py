"""The model card: `README.md` of a bundle. What it is for, what it learned from, how well it does, where it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from weakray.bundle.manifest import ClassifierPart, DetectorPart, Origin
from weakray.config import StrictModel
from weakray.taxonomy import Taxonomy

_METRICS = (("ap30", "AP30"), ("ap50", "AP50"), ("map", "mAP"))


class CardFacts(StrictModel):
    """What the card tells beside the manifest. What is empty is not spoken of."""

    licence: str | None = Field(None, description="licence of the data")
    counts: dict[str, Any] = Field({}, description="`counts` of dataset.json: images, patients, splits, labels")
    training: dict[str, Any] = Field({}, description="how the detector was taught: source, steps, architecture …")
    scores: dict[str, Any] = Field({}, description="the detector's scores on test, as summary.json keeps a source's")
    exports: tuple[str, ...] = Field((), description="what each export loses against torch, a sentence each")


def model_card(
    taxonomy: Taxonomy, detector: DetectorPart, classifiers: ClassifierPart, origin: Origin, facts: CardFacts
) -> str:
    """The card as Markdown; the same parts give the same text."""
    parts = [
        _opening(classifiers, origin),
        _intended(),
        _findings(taxonomy, detector, classifiers, facts),
        _data(taxonomy, facts),
        _training(facts),
        _parity(detector, classifiers, facts),
        _limits(facts),
        _hashes(detector, classifiers, origin),
    ]
    return "\n".join(part for part in parts if part)


def _opening(classifiers: ClassifierPart, origin: Origin) -> str:
    return f"""# A weakray bundle

Detects findings in images with a detector and an ensemble of {len(classifiers.members)} classifiers, both learned from
image-level labels of the dataset `{origin.dataset}` (SHA-256 {origin.dataset_sha256[:12]}…). Made for research; not a
medical device, not validated on any patient.

`weakray.bundle.runtime.Bundle.load(folder).predict(images)` runs it without torch. `bundle.json` holds the hash of
every file; a bundle with a changed, missing or added file is refused.
"""


def _intended() -> str:
    return """## Intended use

Research on weakly supervised detection, and trying out on images like those it learned from. Not for diagnosis, triage
or any decision about a patient; not for images of another kind, view or body part.
"""


def _findings(taxonomy: Taxonomy, detector: DetectorPart, classifiers: ClassifierPart, facts: CardFacts) -> str:
    scored: Mapping[str, Mapping[str, Any]] = facts.scores.get("per_finding", {})
    rows = []
    for name in taxonomy.names:
        row = [name, f"{classifiers.decision_thresholds[name]:.3g}", f"{detector.score_thresholds[name]:.3g}"]
        if scored:
            entry = scored.get(name)
            row += [f"{entry['ap50']:.3f}", str(entry["positives"])] if entry else ["–", "0"]
        rows.append(row)
    columns = ["finding", "present from probability", "box shown from score"]
    text = "## Findings\n\n" + _table([*columns, "AP50 on test", "true boxes"] if scored else columns, rows)
    if scored:
        figures = ", ".join(
            f"{title} {entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
            for title, entry in ((title, facts.scores[key]) for key, title in _METRICS)
        )
        text += (
            f"\nThe detector on split test, macro over findings: {figures}.\n"
            "Brackets are 95 % intervals from a bootstrap over patients; only annotated pairs of image and finding\n"
            "are scored.\n"
        )
    return f"{text}\nCalibration of the probabilities: {classifiers.calibration}\n"


def _data(taxonomy: Taxonomy, facts: CardFacts) -> str:
    splits: Mapping[str, int] = facts.counts.get("splits", {})
    if not splits:
        return ""
    labels: Mapping[str, Mapping[str, Mapping[str, int]]] = facts.counts.get("labels", {})
    rows = [["images", *(str(count) for count in splits.values())]]
    rows += [
        [name, *(str(labels.get(split, {}).get(name, {}).get("positive", 0)) for split in splits)]
        for name in taxonomy.names
    ]
    licence = "" if facts.licence is None else f" Licence of the data: {facts.licence}."
    return (
        f"## Data\n\n{facts.counts['images']} images of {facts.counts['patients']} patients, no patient in two splits; "
        f"below, positive labels.{licence}\n\n" + _table(["", *splits], rows)
    )


def _training(facts: CardFacts) -> str:
    lines = [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.training.items()]
    return "## Training of the detector\n\n" + "\n".join(lines) + "\n" if lines else ""


def _parity(detector: DetectorPart, classifiers: ClassifierPart, facts: CardFacts) -> str:
    agree = detector.parity_passed and classifiers.parity_passed
    said = [
        "The graphs agree with the torch models."
        if agree
        else "The graphs DIFFER from the torch models more than allowed; export was forced."
    ]
    if detector.openvino is not None:
        how = "" if detector.openvino.parity_passed else ", which DIFFERS from torch more than allowed and was forced"
        said.append(f"OpenVINO runs the export `{detector.openvino.export}`{how}.")
    return "## Exported graphs\n\n" + "\n".join([*said, *facts.exports]) + "\n"


def _limits(facts: CardFacts) -> str:
    weak = [
        name
        for name, entry in facts.scores.get("per_finding", {}).items()
        if entry["positives"] < 30 or entry["ap50"] < 0.1
    ]
    few = "fewer than 30 true boxes on test, or AP50 below .1"
    seldom = f"\n- Little can be said of, or expected for: {', '.join(weak)} ({few})." if weak else ""
    return f"""## Limits

- The figures hold for this data set and its split; another hospital, scanner or labelling rule moves them, often down.
- A finding without a box is not absent, and a score is not a probability of disease.
- Boxes were learned from image-level labels: they show where evidence lies, and may be larger or smaller than what a
  radiologist would draw.{seldom}
"""


def _hashes(detector: DetectorPart, classifiers: ClassifierPart, origin: Origin) -> str:
    members = "\n".join(f"- classifier {i}: {member}" for i, member in enumerate(classifiers.members))
    made = "" if origin.commit is None else f"- made by: {origin.commit}\n"
    return f"""## Hashes

- dataset: {origin.dataset_sha256}
- detector's weights: {detector.weights_sha256}
{members}
{made}"""


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"
