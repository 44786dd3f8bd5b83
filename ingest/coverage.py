"""What became of a data set's labels on their way into the taxonomy: taken, merged, dropped, each with its counts.

The counts are those of the data set's own tables, before any image is looked at. The report stands in `dataset.json`
under `coverage`, and as a page to read in `coverage.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ingest.findings import Fate, Vocabulary
from weakray.detections import FloatArray

_WHY = {
    "none": "means that there is no finding",
    "unknown": "the taxonomy does not name it",
    "not_chosen": "not among the findings that were chosen",
}


@dataclass(frozen=True)
class LabelCount:
    """How often a data set gives a label: rows that say 1, 0, -1, and boxes."""

    positive: int = 0
    negative: int = 0
    uncertain: int = 0
    boxes: int = 0


@dataclass(frozen=True)
class Coverage:
    """The fate of each label.

    Attributes:
        source: the data set's name, under which the taxonomy may have synonyms.
        taxonomy: the taxonomy as it was asked for, by name or path.
        fates: label → what it stands for, labels in the order of the data set.
        counts: label → how often it is given.
        unnamed: findings that no label stands for: nothing is known of them in this data set.
    """

    source: str
    taxonomy: str
    fates: Mapping[str, Fate]
    counts: Mapping[str, LabelCount]
    unnamed: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, source: str, taxonomy: str, vocabulary: Vocabulary, counts: Mapping[str, LabelCount]) -> Coverage:
        """Looks up every label."""
        fates = {label: vocabulary.fate(label) for label in counts}
        named = {fate.class_id for fate in fates.values()}
        names = vocabulary.chosen.names
        unnamed = tuple(name for class_id, name in enumerate(names) if class_id not in named)
        return cls(source, taxonomy, fates, dict(counts), unnamed)

    @classmethod
    def counted(
        cls,
        source: str,
        taxonomy: str,
        vocabulary: Vocabulary,
        labels: Mapping[str, FloatArray],
        boxes: Mapping[str, int],
    ) -> Coverage:
        """Counts columns of labels, label → `(n,)` of 1, 0, -1 and NaN, and takes the counts of boxes as they are."""
        counts = {
            name: LabelCount(int((v == 1).sum()), int((v == 0).sum()), int((v == -1).sum()), boxes.get(name, 0))
            for name, v in labels.items()
        }
        alone = {name: LabelCount(boxes=count) for name, count in sorted(boxes.items()) if name not in labels}
        return cls.of(source, taxonomy, vocabulary, counts | alone)

    @property
    def merged(self) -> dict[str, list[str]]:
        """Finding → the labels that were made one in it, where there are two or more."""
        found: dict[str, list[str]] = {}
        for label, fate in self.fates.items():
            if fate.finding is not None:
                found.setdefault(fate.finding, []).append(label)
        return {finding: labels for finding, labels in found.items() if len(labels) > 1}

    @property
    def dropped(self) -> list[str]:
        """Labels that say something which the taxonomy has no place for."""
        return [label for label, fate in self.fates.items() if fate.why in ("unknown", "not_chosen")]

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures should know."""
        lost = [(label, self.counts[label].positive) for label, f in self.fates.items() if f.why == "unknown"]
        if not lost:
            return []
        most = ", ".join(f"{label} ({count})" for label, count in sorted(lost, key=lambda pair: -pair[1])[:5])
        more = ", …" if len(lost) > 5 else ""
        return [f"the taxonomy has no place for {len(lost)} labels of {self.source}: {most}{more}; see coverage.md"]

    def to_dict(self) -> dict[str, Any]:
        """For `dataset.json`."""
        rows = [{"label": label, **asdict(self.counts[label])} for label in self.fates]
        fates = list(self.fates.values())
        return {
            "source": self.source,
            "taxonomy": self.taxonomy,
            "taken": [
                {"label": row["label"], "finding": fate.finding, **row}
                for row, fate in zip(rows, fates, strict=True)
                if fate.finding is not None
            ],
            "merged": [{"finding": finding, "labels": labels} for finding, labels in self.merged.items()],
            "dropped": [
                {**row, "why": fate.why} for row, fate in zip(rows, fates, strict=True) if fate.finding is None
            ],
            "unnamed": list(self.unnamed),
        }

    def to_text(self) -> str:
        """For `coverage.md`."""
        taken = [(label, str(fate.finding)) for label, fate in self.fates.items() if fate.finding is not None]
        left = [(label, _WHY[fate.why]) for label, fate in self.fates.items() if fate.finding is None]
        merged = [f"- **{finding}** ← {', '.join(labels)}" for finding, labels in self.merged.items()]
        parts = [
            f"# Labels of {self.source} in the taxonomy {self.taxonomy}",
            (
                f"{len(taken)} of {len(self.fates)} labels are taken, {len(self.dropped)} are dropped. Counts are "
                "those of the data set's own tables, before any image was looked at."
            ),
            "## Taken",
            self._table("finding", taken),
        ]
        if merged:
            parts += [
                "## Merged",
                "An image has the strongest of its labels: 1 before -1 before 0 before blank.",
                "\n".join(merged),
            ]
        if left:
            parts += ["## Left out", self._table("why", left)]
        if self.unnamed:
            parts += ["## Findings without a label", f"Blank in every image: {', '.join(self.unnamed)}."]
        return "\n\n".join(parts) + "\n"

    def _table(self, last: str, rows: list[tuple[str, str]]) -> str:
        lines = [f"| label | positive | negative | uncertain | boxes | {last} |", "|---|---:|---:|---:|---:|---|"]
        for label, text in rows:
            n = self.counts[label]
            lines.append(
                f"| {_cell(label)} | {n.positive} | {n.negative} | {n.uncertain} | {n.boxes} | {_cell(text)} |"
            )
        return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
