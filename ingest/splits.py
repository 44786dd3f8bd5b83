"""Splits by patient: stratified by finding, at random, or by time.

The order of patients comes from SHA-256 and only whole numbers are compared, so a seed gives the same split on every
machine, whatever the order of the rows and the versions of libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pydantic import Field

from ingest.stratify import stratify
from weakray.config import StrictModel
from weakray.dataset import SPLITS, Split
from weakray.errors import DataError
from weakray.files import sha256_bytes

Method = Literal["stratified", "random", "official", "time"]


class SplitSettings(StrictModel):
    """How patients are drawn, where no official list decides."""

    method: Method = Field(
        default="stratified",
        description="stratified: each split keeps the share of each finding; random; time: the newest films to test, "
        "then tune, val, train; official: as stratified, but refuse to go on without a data set's own lists",
    )
    quotas: dict[Split, int] = Field(
        default={},
        description="split: positive images that it shall hold of every finding, e.g. {val: 300}, even where it grows "
        "past its size; half of a finding's positives always stay in the rest",
    )
    no_finding_share: float = Field(
        default=1.0, gt=0, le=1, description="share kept of train images without any finding; val, tune, test keep all"
    )


@dataclass(frozen=True)
class Patient:
    """What a split needs to know of a patient.

    Attributes:
        images: how many images count towards a split's size, 1 or more.
        positives: class_id → how many of them are positive.
        last: ISO date of the newest of them, "" where unknown; only a split by time looks at it.
    """

    images: int
    positives: Mapping[int, int] = field(default_factory=dict)
    last: str = ""


@dataclass(frozen=True)
class PatientSplit:
    """Who went where.

    Attributes:
        of: patient → split.
        short: split → images that it lacks to its size, because patients are not cut. Empty when all sizes are met.
        over: split → images that it has beyond its size, to meet its quota.
        missed: (split, class_id) → positives it has, of a finding whose quota is not met.
        undated: patients without a date, in a split by time; they count as the oldest.
    """

    of: dict[str, Split]
    short: dict[Split, int]
    over: dict[Split, int] = field(default_factory=dict)
    missed: dict[tuple[Split, int], int] = field(default_factory=dict)
    undated: int = 0


def count_patients(images: Iterable[tuple[str, Iterable[int], str]]) -> dict[str, Patient]:
    """Patients from their images: (patient, class ids that are positive, ISO date or "") each."""
    counted: dict[str, int] = {}
    positives: dict[str, dict[int, int]] = {}
    last: dict[str, str] = {}
    for patient, classes, date in images:
        counted[patient] = counted.get(patient, 0) + 1
        last[patient] = max(last.get(patient, ""), date)
        own = positives.setdefault(patient, {})
        for class_id in set(classes):
            own[class_id] = own.get(class_id, 0) + 1
    return {
        patient: Patient(count, dict(sorted(positives[patient].items())), last[patient])
        for patient, count in counted.items()
    }


def split_patients(
    patients: Mapping[str, Patient],
    sizes: Mapping[Split, float],
    rest: Split,
    seed: int,
    settings: SplitSettings | None = None,
) -> PatientSplit:
    """Splits patients; a patient stands in one split with all images.

    A split never grows past its size but for its quota; what fits nowhere goes to `rest`.

    Args:
        patients: patient id → images and positives.
        sizes: split → images it shall hold (int) or its share of all images (float, 0…1), `rest` left out.
        rest: the split that takes all others.
        seed: another seed, another split.
        settings: method and quotas; None: stratified without quotas. The other splits' quotas are left alone.

    Raises:
        DataError: if the sizes and quotas leave `rest` without an image, a size is not above 0, or a split by time
            finds no date or one that cannot be read.
    """
    settings = settings or SplitSettings()
    total = sum(patient.images for patient in patients.values())
    wanted = _wanted(sizes, rest, total)
    order = sorted(patients, key=lambda patient: (sha256_bytes(f"{seed}:{patient}".encode()), patient))
    quotas = {split: quota for split, quota in settings.quotas.items() if split in wanted}
    undated = 0
    match settings.method:
        case "stratified" | "official":
            rows = [(patients[p].images, patients[p].positives) for p in order]
            of = dict(zip(order, stratify(rows, wanted, rest, quotas), strict=True))
        case "random":
            of = _at_random(patients, order, wanted, rest)
        case "time":
            of, undated = _by_time(patients, order, wanted)
    room = dict(wanted)
    for patient, split in of.items():
        room[split] -= patients[patient].images
    if room[rest] == total - sum(count for split, count in wanted.items() if split != rest):
        raise DataError(f"splits: the quotas {quotas} leave no image for {rest}; ask for fewer")
    others = {split: count for split, count in room.items() if split != rest}
    return PatientSplit(
        of={patient: of[patient] for patient in sorted(of)},
        short={split: count for split, count in others.items() if count > 0},
        over={split: -count for split, count in others.items() if count < 0},
        missed=_missed(patients, of, quotas),
        undated=undated,
    )


def split_warnings(split: PatientSplit, names: Sequence[str]) -> list[str]:
    """Says where a split is not as asked for.

    Args:
        split: the split.
        names: the findings, in class-id order.
    """
    said = [
        f"{at}: {count} images short of the size asked for, for patients are not cut"
        for at, count in split.short.items()
    ]
    said += [f"{at}: {count} images beyond the size asked for, to meet its quota" for at, count in split.over.items()]
    for at in dict.fromkeys(at for at, _ in split.missed):
        few = ", ".join(f"{names[k]} ({count})" for (other, k), count in split.missed.items() if other == at)
        said.append(f"{at}: fewer positive images than its quota of {few}")
    if split.undated:
        said.append(f"{split.undated} patients have no study date; a split by time counts them as the oldest")
    return said


def _wanted(sizes: Mapping[Split, float], rest: Split, total: int) -> dict[Split, int]:
    """Split → images, `rest` last."""
    wanted = {split: _images(size, total) for split, size in sizes.items()}
    text = " + ".join(f"{split} {count}" for split, count in wanted.items())
    if min(wanted.values(), default=1) < 1:
        raise DataError(f"splits: expected at least one image in each, got {text} of {total} images; ask for more")
    if sum(wanted.values()) >= total:
        raise DataError(
            f"splits: asked for {text} images, but {total} are there and {rest} needs at least one; ask for fewer"
        )
    return {**wanted, rest: total - sum(wanted.values())}


def _images(size: float, total: int) -> int:
    return size if isinstance(size, int) else max(1, round(size * total))


def _at_random(
    patients: Mapping[str, Patient], order: Sequence[str], wanted: Mapping[Split, int], rest: Split
) -> dict[str, Split]:
    room = {split: count for split, count in wanted.items() if split != rest}
    of: dict[str, Split] = {}
    for patient in order:
        images = patients[patient].images
        of[patient] = next((split for split in room if room[split] >= images), rest)
        if of[patient] != rest:
            room[of[patient]] -= images
    return of


def _by_time(
    patients: Mapping[str, Patient], order: Sequence[str], wanted: Mapping[Split, int]
) -> tuple[dict[str, Split], int]:
    """The newest patients to the latest split; the oldest split takes what the others leave."""
    day_of = {patient: _day(patients[patient].last, patient) for patient in order}
    undated = sum(day is None for day in day_of.values())
    if undated == len(order):
        raise DataError("splits: a split by time needs study dates, and no image has one; choose another split.method")
    newest_first = sorted(order, key=lambda patient: -(day_of[patient] or 0))  # stable: equal days in random order
    *later, oldest = [split for split in reversed(SPLITS) if split in wanted]
    of: dict[str, Split] = {}
    at, room = 0, {split: wanted[split] for split in later}
    for patient in newest_first:
        while at < len(later) and room[later[at]] < patients[patient].images:
            at += 1  # a split that was left stays closed, or it would get older films than the next
        of[patient] = later[at] if at < len(later) else oldest
        if at < len(later):
            room[later[at]] -= patients[patient].images
    return of, undated


def _day(text: str, patient: str) -> int | None:
    try:
        return datetime.fromisoformat(text).toordinal() if text else None
    except ValueError:
        raise DataError(f"splits: patient {patient}: expected an ISO date such as 2017-03-31, got {text!r}") from None


def _missed(
    patients: Mapping[str, Patient], of: Mapping[str, Split], quotas: Mapping[Split, int]
) -> dict[tuple[Split, int], int]:
    classes = sorted({class_id for patient in patients.values() for class_id in patient.positives})
    has = {(split, class_id): 0 for split in quotas for class_id in classes}
    for patient, split in of.items():
        if split in quotas:
            for class_id, count in patients[patient].positives.items():
                has[split, class_id] += count
    return {key: count for key, count in has.items() if count < quotas[key[0]]}
