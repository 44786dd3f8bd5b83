"""Which images go where: official lists first, then who has boxes, then chance, always by patient.

- A patient on an official list goes where the list says: train, val, tune or test. Of the test list's patients, those
  with an annotated image are split into tune and test, unless the lists name tune themselves; the others are test.
- Without lists, and boxes on a few images only: patients with an annotated image are split into tune and test, everyone
  else into train and val. Where no image is annotated at all, a share of them becomes test.
- Without lists, and every image annotated: tune, test and val of the sizes asked for, the rest is train.
- val is drawn from the train side, unless the lists name it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ingest.source import Side
from ingest.splits import Patient, PatientSplit, SplitSettings, count_patients, split_patients
from ingest.take import ImageRow
from weakray.dataset import Split
from weakray.errors import DataError


@dataclass(frozen=True)
class Sizes:
    """How large the splits shall be, where no list decides.

    Attributes:
        tune: annotated images in tune.
        val: share of the images on the train side.
        test: annotated images in test where every image is annotated; None where boxes exist for a few only.
        unboxed_test: share that becomes test where no image is annotated; None: test is empty then.
    """

    tune: int
    val: float
    test: int | None = None
    unboxed_test: float | None = None


def assign(
    rows: Mapping[str, ImageRow],
    annotated: Mapping[str, Collection[int]],
    sides: Mapping[str, Side | None],
    sizes: Sizes,
    seed: int,
    settings: SplitSettings,
) -> tuple[dict[str, Split], list[PatientSplit]]:
    """Splits images.

    Args:
        rows: image_id → the row of each image taken, all of them on a side where there are lists.
        annotated: image_id → class ids of its boxes, of images that were looked at for boxes.
        sides: image_id → official side; empty without lists.
        sizes: see there.
        seed: another seed, another split.
        settings: how patients are drawn.

    Returns:
        image_id → split, and the random splits behind it, which say where they fell short.

    Raises:
        DataError: if a list cuts a patient in two, there are too few images, or lists are asked for and there are none.
    """
    if settings.method == "official" and not sides:
        raise DataError("split.method: official needs the data set's own lists, and there are none; see the settings")
    side_of = _sides_of_patients(rows, sides)
    patient_of = {image_id: row.patient_id for image_id, row in rows.items()}
    boxed = {patient_of[image_id] for image_id in annotated}
    drawn: list[PatientSplit] = []

    def draw(patients: Mapping[str, Patient], wanted: Mapping[Split, float], rest: Split) -> dict[str, Split]:
        if not patients:
            return {}
        drawn.append(split_patients(patients, wanted, rest, seed, settings))
        return dict(drawn[-1].of)

    if not sides and sizes.test is not None:
        everyone = count_patients((row.patient_id, positive(row), row.acquired) for row in rows.values())
        of = draw(everyone, {"tune": sizes.tune, "test": sizes.test, "val": sizes.val}, "train")
        return {image_id: of[patient] for image_id, patient in patient_of.items()}, drawn

    given = set(side_of.values())
    of = {patient: side for patient, side in side_of.items() if side != "train"}
    scored = boxed & {patient for patient, side in side_of.items() if side == "test"} if sides else boxed
    taught = {p for p in patient_of.values() if (side_of.get(p) == "train" if sides else p not in boxed)}
    if "tune" not in given:
        found = ((patient_of[i], classes, rows[i].acquired) for i, classes in annotated.items())
        of |= draw(count_patients(one for one in found if one[0] in scored), {"tune": sizes.tune}, "test")
    wanted: dict[Split, float] = {} if "val" in given else {"val": sizes.val}
    if not sides and not boxed and sizes.unboxed_test is not None:
        wanted["test"] = sizes.unboxed_test
    left = ((row.patient_id, positive(row), row.acquired) for row in rows.values() if row.patient_id in taught)
    of |= draw(count_patients(left), wanted, "train")
    return {image_id: of[patient] for image_id, patient in patient_of.items()}, drawn


def positive(row: ImageRow) -> list[int]:
    """Class ids that are labelled 1."""
    return [class_id for class_id, value in row.values.items() if value == 1]


def _sides_of_patients(rows: Mapping[str, ImageRow], sides: Mapping[str, Side | None]) -> dict[str, Split]:
    found: dict[str, tuple[Split, str]] = {}
    for image_id, row in rows.items():
        side = sides.get(image_id)
        if side is not None:
            other, example = found.setdefault(row.patient_id, (side, row.file_name))
            if other != side:
                raise DataError(
                    f"official lists: patient {row.patient_id} is cut in two: {example} is on the {other} side and "
                    f"{row.file_name} on the {side} side; keep a patient's images together, or split without the lists"
                )
    return {patient: side for patient, (side, _) in found.items()}
