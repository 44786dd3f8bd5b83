"""The views of the page's sections, and the page itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ingest.report.boxes import BoxFigures
from ingest.report.content import ReportContent, typical_aspect
from ingest.report.drawing import (
    Matrix,
    bubbles,
    columns,
    heat_uri,
    log_axis,
    matrix,
    percent,
    spread,
    stacked,
)
from ingest.report.labels import Counts, FindingRow, closest, correlation, share_also, together
from ingest.report.people import AGE_BINS, AGE_STEP, SplitPeople, aspects, images_a_patient, sizes
from weakray.pages.axes import Axis, Tick, nice_step
from weakray.pages.pictures import jpeg_uri
from weakray.pages.rendering import template

_STRIP_PX, _SPREAD_PX, _PAD_PX = 220.0, 260.0, 6.0
_HEAT_PX = 240.0
_SIZES_SHOWN = 8
_KINDS = ("positive", "uncertain", "negative", "blank")


def render(content: ReportContent) -> str:
    """The page as one HTML text that needs nothing else."""
    view = {
        "title": content.title,
        "headline": headline(content),
        "standfirst": standfirst(content),
        "notes": notes(content),
        "splits": content.splits,
        "labels": _labels(content.findings),
        "uncertain": any(row.counts.uncertain for row in content.findings),
        "blank": any(row.counts.blank for row in content.findings),
        "balance": _balance(content),
        "proof": _proof(content),
        "matrices": _matrices(content),
        "closest": closest(correlation(content.dataset.labels), content.dataset.taxonomy),
        "boxes": _boxes(content),
        "examples": [(name, shown) for name, shown in content.examples.items() if shown],
        "without": [name for name, shown in content.examples.items() if not shown],
        "people": _people(content),
        "sizes": _sizes(content),
        "duplicates": content.duplicates,
        "rejected": [(row, percent(row.count / content.rejected[0].count)) for row in content.rejected],
        "coverage": content.dataset.info.get("coverage"),
        "facts": _facts(content.dataset.info),
        "percent": percent,
    }
    view["sections"] = [
        (anchor, name)
        for anchor, name, present in (
            ("labels", "Labels", True),
            ("splits", "Splits", True),
            ("together", "Together", view["matrices"]),
            ("boxes", "Boxes", True),
            ("examples", "Examples", view["examples"]),
            ("patients", "Patients", True),
            ("sizes", "Sizes", True),
            ("duplicates", "Duplicates", True),
            ("intake", "Intake", True),
            ("origin", "Origin", True),
        )
        if present
    ]
    return template("ingest.report", "page.html.j2").render(view)


def headline(content: ReportContent) -> str:
    """What the data set is, in a sentence."""
    images = content.dataset.images
    labelled = sum(row.counts.positive > 0 for row in content.findings)
    patients = int(images["patient_id"].nunique())
    people = f" of {_count(patients, 'patient')}" if patients < len(images) else ""
    boxed = f", {len(content.boxes)} with boxes" if content.boxes else ", none with boxes"
    return f"{_count(len(images), 'image')}{people}: {_count(labelled, 'finding')} seen{boxed}."


def standfirst(content: ReportContent) -> list[str]:
    """Its splits, its boxes, and whether they are apart."""
    part = [f"{_count(people.images, 'image')} in {people.name}" for people in content.people]
    said = [f"{_joined(part)}."]
    boxes = sum(figures.boxes for figures in content.boxes)
    if boxes:
        said.append(f"{_count(content.annotated, 'annotated image')} hold {_count(boxes, 'box', 'boxes')}.")
    shared = sum(content.proof["shared_patients"].values())
    if shared:
        said.append(f"{_count(shared, 'patient')} stand in two splits.")
    elif (content.dataset.images["patient_id"] == content.dataset.images["image_id"]).all():
        said.append("No patient is known: each image counts as one, and nothing keeps films of one patient together.")
    else:
        said.append("No patient stands in two splits.")
    return said


def notes(content: ReportContent) -> list[str]:
    """What a reader must know before using the data set, the gravest first."""
    said: list[str] = []
    duplicates = content.duplicates
    if sum(content.proof["shared_patients"].values()):
        said.append("Patients stand in two splits: every figure on val, tune and test is too good.")
    if duplicates.across_splits:
        said.append(
            f"{_count(duplicates.across_splits, 'group')} of near duplicates stand in two splits or more: "
            "look at them under Duplicates."
        )
    if content.unread:
        first = next(iter(content.unread.items()))
        said.append(f"{_count(len(content.unread), 'image')} could not be read, first {first[0]}: {first[1]}")
    if late := _later_than_test(content):
        said.append(late)
    recorded = content.dataset.info.get("split_proof", {}).get("assignment_sha256")
    if recorded not in (None, content.proof["assignment_sha256"]):
        said.append("The splits are not those that dataset.json was written with: images.parquet was changed.")
    return said + [str(warning) for warning in content.dataset.info.get("warnings", ())]


def _later_than_test(content: ReportContent) -> str | None:
    """Says where a split by time does not hold: annotated images and the others are two pools, each split alone."""
    settings = content.dataset.info.get("settings", {}).get("split", {})
    spans: Mapping[str, Sequence[str]] = content.proof.get("acquired", {})
    if settings.get("method") != "time" or "train" not in spans or "test" not in spans:
        return None
    if spans["train"][1] <= spans["test"][0]:
        return None
    return f"Split by time, but train holds images up to {spans['train'][1]} and test from {spans['test'][0]} on."


def _labels(rows: Sequence[FindingRow]) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "depth": row.depth,
            "counts": row.counts,
            "bar": stacked({kind: getattr(row.counts, kind) for kind in _KINDS}),
            "share": percent(row.counts.positive / max(1, row.counts.total)),
            "ratio": _ratio(row.counts.negatives_a_positive),
            "possible": _ratio(row.counts.negatives_a_possible),
            "uncertainty": "–" if row.counts.uncertainty is None else percent(row.counts.uncertainty),
        }
        for row in rows
    ]


def _balance(content: ReportContent) -> dict[str, Any]:
    """Positives of each finding a split, and their shares as dots on a common axis."""
    shares = [_share(row.by_split[split]) for row in content.findings for split in content.splits]
    highest = max(shares, default=0.0) or 1.0
    step = nice_step(highest, 4)
    axis = Axis(0.0, step * np.ceil(highest / step - 1e-9), _PAD_PX, _STRIP_PX - _PAD_PX)
    marks = [i * step for i in range(round(axis.high / step) + 1)]
    rows = [
        {
            "name": row.name,
            "depth": row.depth,
            "positives": [row.by_split[split].positive for split in content.splits],
            "dots": [
                (split, axis.at(_share(row.by_split[split])), percent(_share(row.by_split[split])))
                for split in content.splits
            ],
        }
        for row in content.findings
    ]
    return {"rows": rows, "ticks": [Tick(axis.at(m), percent(m)) for m in marks], "width": _STRIP_PX}


def _share(counts: Counts) -> float:
    return counts.positive / counts.total if counts.total else 0.0


def _proof(content: ReportContent) -> dict[str, Any]:
    recorded = content.dataset.info.get("split_proof", {})
    pairs = list(combinations(content.splits, 2))
    return {
        "patients": {split: content.proof["patients"][split] for split in content.splits},
        "pairs": [
            (
                f"{one} ∩ {other}",
                content.proof["shared_patients"][f"{one}/{other}"],
                content.proof["shared_files"][f"{one}/{other}"],
            )
            for one, other in pairs
        ],
        "sha256": content.proof["assignment_sha256"],
        "same": None if not recorded else recorded["assignment_sha256"] == content.proof["assignment_sha256"],
        "acquired": content.proof.get("acquired", {}),
    }


def _matrices(content: ReportContent) -> list[Matrix]:
    """Co-occurrence and correlation, of findings that have a positive; none for fewer than two."""
    kept = [row.name for row in content.findings if row.counts.positive]
    if len(kept) < 2:
        return []
    labels = content.dataset.labels[kept]
    counts, phi = together(labels), correlation(labels)
    share = share_also(counts)
    off = share.copy()
    np.fill_diagonal(off, np.nan)
    k = range(len(kept))
    return [
        matrix(
            "Co-occurrence",
            "per cent of the row's images that have the column's finding too",
            kept,
            off,
            [["" if i == j else f"{100 * share[i, j]:.0f}" for j in k] for i in k],
            [
                [f"{kept[i]}: {counts[i, i]:,}" if i == j else f"{kept[i]} and {kept[j]}: {counts[i, j]:,}" for j in k]
                for i in k
            ],
            max(float(np.nanmax(off)), 0.2),
        ),
        matrix(
            "Correlation",
            "φ × 100, over images where both are labelled 1 or 0",
            kept,
            np.where(np.eye(len(kept), dtype=bool), np.nan, phi),
            [
                [
                    ""
                    if i == j or np.isnan(phi[i, j])
                    else f"{100 * phi[i, j]:.0f}".replace("-0", "0").replace("-", "−")
                    for j in k
                ]
                for i in k
            ],
            [[f"{kept[i]} and {kept[j]}: φ {phi[i, j]:.3f}" for j in k] for i in k],
            0.5,
        ),
    ]


def _boxes(content: ReportContent) -> dict[str, Any] | None:
    if not content.boxes:
        return None
    smallest = min(figures.area[0] for figures in content.boxes)
    axis, ticks = log_axis(max(smallest, 1e-5), 1.0, _PAD_PX, _SPREAD_PX - 22)
    aspect = typical_aspect(content.dataset)
    return {
        "rows": [_box_row(figures, axis) for figures in content.boxes],
        "ticks": ticks,
        "width": _SPREAD_PX,
        "mean": None if content.mean is None else jpeg_uri(content.mean),
        "heat_width": round(_HEAT_PX * min(1.0, aspect)),
        "heat_height": round(_HEAT_PX / max(1.0, aspect)),
        "unboxed": [row.name for row in content.findings if row.name not in {f.name for f in content.boxes}],
    }


def _box_row(figures: BoxFigures, axis: Axis) -> dict[str, Any]:
    return {
        "figures": figures,
        "size": f"{percent(figures.width[2])} × {percent(figures.height[2])}",
        "area": percent(figures.area[2]),
        "spread": spread(figures.area, axis),
        "heat": heat_uri(figures.heat),
        "peak": percent(float(figures.heat.max())),
    }


def _people(content: ReportContent) -> dict[str, Any]:
    images = content.dataset.images
    a_patient = images_a_patient(images)
    labels = [f"{at * AGE_STEP}" for at in range(AGE_BINS - 1)] + [f"{(AGE_BINS - 1) * AGE_STEP}+"]
    aged = [people for people in content.people if sum(people.ages)]
    highest = max((count / sum(people.ages) for people in aged for count in people.ages), default=0.0)
    ages = [
        columns(
            people.name,
            f"{sum(people.ages):,} images",
            _age_rows(people, labels),
            width=270,
            height=150,
            share=True,
            highest=highest,
        )
        for people in aged
    ]
    return {
        "a_patient": columns("Images a patient", "patients", [(name, float(n)) for name, n in a_patient]),
        "ages": ages,
        "rows": [
            {
                "people": people,
                "age": "–"
                if people.age_quartiles is None
                else "{1:.0f} ({0:.0f}–{2:.0f})".format(*people.age_quartiles),
                "sex": stacked(people.sex, _value_kinds(people.sex, _values(content.people, "sex")))
                if people.sex
                else [],
                "view": stacked(people.view, _value_kinds(people.view, _values(content.people, "view")))
                if people.view
                else [],
            }
            for people in content.people
        ],
        "sexes": _keys(_values(content.people, "sex")),
        "views": _keys(_values(content.people, "view")),
    }


def _age_rows(people: SplitPeople, labels: Sequence[str]) -> list[tuple[str, float]]:
    return [(label, count / sum(people.ages)) for label, count in zip(labels, people.ages, strict=True)]


def _values(people: Sequence[SplitPeople], name: str) -> list[str]:
    """All values of a column, in one order for all splits."""
    found: dict[str, int] = {}
    for split in people:
        for value, count in getattr(split, name).items():
            found[value] = found.get(value, 0) + count
    return sorted(found, key=lambda value: (value == "", -found[value], value))


def _value_kinds(counts: Mapping[str, int], values: Sequence[str]) -> list[str]:
    return ["unknown" if value == "" else f"value-{min(values.index(value), 5)}" for value in counts]


def _keys(values: Sequence[str]) -> list[tuple[str, str]]:
    kinds = _value_kinds(dict.fromkeys(values, 0), values)
    return [(kind, value or "unknown") for kind, value in zip(kinds, values, strict=True)]


def _sizes(content: ReportContent) -> dict[str, Any]:
    images = content.dataset.images
    rows = sizes(images)
    return {
        "bubbles": bubbles(rows),
        "common": [
            (f"{width:,} × {height:,}", count, percent(count / len(images)))
            for height, width, count in rows[:_SIZES_SHOWN]
        ],
        "distinct": len(rows),
        "aspects": columns("Width over height", "images", [(f"{low:.1f}", float(n)) for low, n in aspects(images)]),
    }


def _facts(info: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the data set comes from, and how it was made, as (name, text) lines."""
    lines = [(key, str(info[key])) for key in ("origin", "licence", "images_root") if info.get(key)]
    lines += [line for group in ("settings", "versions", "inputs_sha256") for line in _flat(group, info.get(group))]
    return [(name.replace("_", " "), text) for name, text in lines]


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [line for key, inner in value.items() for line in _flat(f"{name} {key}", inner)]
    return [] if value in (None, "", []) else [(name, str(value))]


def _ratio(value: float | None) -> str:
    return (
        "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    )


def _count(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
