"""`weakray ingest dicom`: a folder of DICOM files, with labels from a table where there is one.

The films are stored as PNG in the dataset folder, under other names; see `ingest.dicom_files`. What is kept of their
headers stands in `films.csv`; names, dates and private elements are never read. `rejected.csv` alone names files as
the hospital did. A label table has a column of SOPInstanceUID, StudyInstanceUID, PatientID or path (below the folder),
the first of these that it has, then a column a finding; its row serves every film of that study or patient.

There are no boxes, so train, val and test are split by patient and by labels, and tune stays empty.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from ingest.boxes import TakenBoxes
from ingest.coverage import Coverage, LabelCount
from ingest.dicom_files import ConvertConfig, Converted, convert_files
from ingest.findings import Vocabulary, lift, stronger
from ingest.image_files import ImageFacts
from ingest.label_csv import LabelTable, read_labels
from ingest.listing import list_folder
from ingest.pseudonyms import Pseudonyms
from ingest.result import IngestResult
from ingest.settings import TAXONOMY
from ingest.splits import PatientSplit, SplitSettings, count_patients, split_patients, split_warnings
from ingest.take import ImageRow, TakenImage, TakenImages
from ingest.taxonomies import load_taxonomy
from ingest.thin import thin_train
from ingest.write import refuse_empty, refuse_nested, write_taken
from weakray.dataset import Rejection, Split
from weakray.errors import DataError
from weakray.files import write_text
from weakray.taxonomy import Taxonomy

_KEYS = ("SOPInstanceUID", "StudyInstanceUID", "PatientID", "path")
_FILMS = "images"
_FILM_COLUMNS = (*("modality", "view_from", "body_part", "manufacturer", "model", "sex", "age_years", "spacing_mm"),)


class DicomConfig(ConvertConfig):
    """Settings of `weakray ingest dicom`."""

    unhashed: ClassVar[frozenset[str]] = frozenset({"images", "labels", "key_file", "out", "workers"})

    images: Path = Field(description="folder of the DICOM files; folders below it are searched too")
    out: Path = Field(description="dataset folder to write; the films go into its folder images")
    labels: Path | None = Field(
        None,
        description="CSV of SOPInstanceUID, StudyInstanceUID, PatientID or path, then a column a finding with 1, 0, "
        "-1 or nothing; none: no labels, for predicting alone",
    )
    taxonomy: str | None = Field(None, description=f"{TAXONOMY}; none: the label table's columns, no tree")
    identifiers: Literal["pseudonym", "keep"] = Field(
        "pseudonym", description="keep: ids stay as they are, for data that were de-identified before"
    )
    key_file: Path | None = Field(
        None, description="secret that the pseudonyms are made with; none: who has a list of ids can look them up"
    )
    val_fraction: float = Field(0.1, ge=0, lt=1, description="share of the films that becomes val")
    test_fraction: float = Field(0.1, ge=0, lt=1, description="share of the films that becomes test")
    split: SplitSettings = SplitSettings()
    seed: int = Field(0, description="another seed, another split")
    workers: int = Field(2, ge=1, description="processes that convert films; any number gives the same result")


def run(config: DicomConfig) -> IngestResult:
    """Writes the dataset folder; an interrupted run goes on where it stopped.

    Raises:
        DataError: if there is no film, a table is not what it should be, or there are too few patients for the splits.
    """
    refuse_nested(config.out, config.images)
    if config.split.method in ("official", "time"):
        raise DataError(
            f"split.method: {config.split.method} needs lists or dates, and neither is kept of DICOM; choose another"
        )
    names = Pseudonyms.of(config.identifiers, config.key_file)
    table = None if config.labels is None else read_labels(config.labels, _KEYS)
    if config.taxonomy is None and table is None:
        raise DataError("ingest dicom: expected `labels`, whose columns are the findings, or a `taxonomy`; got neither")
    taxonomy = (
        Taxonomy.flat(table.findings if table else ())
        if config.taxonomy is None
        else load_taxonomy(config.taxonomy).spoken_in("dicom")
    )
    vocabulary = Vocabulary.of(taxonomy, None)
    inputs = {"labels": config.labels}
    folder = list_folder(config.images, besides=[path for path in inputs.values() if path is not None])
    films = config.out / _FILMS
    verdicts = convert_files(config.images, folder.paths, films, _how(config), names, config.workers)
    labelled = _Labels(table, vocabulary, names, str(config.labels))
    taken, converted = _take(folder.paths, verdicts, labelled)
    rejected = [Rejection(path, "bad_name", "the name is not UTF-8; rename the file") for path in folder.undecodable]
    rejected += taken.rejected + labelled.unused()
    refuse_empty(taken, rejected, config.images)
    split = _split(taken, config)
    split_of = {image_id: split.of[image.row.patient_id] for image_id, image in taken.images.items()}
    share = config.split.no_finding_share
    taken, thinned = thin_train(taken, split_of, share=share, seed=config.seed, keep=())
    rejected += thinned
    _write_films(config.out / "films.csv", {image_id: converted[image_id] for image_id in taken.images})
    return write_taken(
        config.out,
        images_root=films,
        source="dicom",
        taken=taken,
        split_of=split_of,
        taxonomy=vocabulary.chosen,
        coverage=None if table is None else _coverage(table, vocabulary, config.taxonomy),
        boxes=TakenBoxes({}, frozenset(), [], 0),
        annotated=(),
        rejected=rejected,
        info={
            "origin": "a folder of DICOM files",
            "licence": "",
            "settings": config.model_dump(mode="json", exclude={"out", "workers", "images", "key_file"}),
            "rules": dict(sorted(Counter(_kind(film.rule) for film in converted.values()).items())),
        },
        inputs=inputs,
        warnings=split_warnings(split, vocabulary.chosen.names) + _remarks(converted, config),
    )


def _coverage(table: LabelTable, vocabulary: Vocabulary, taxonomy: str | None) -> Coverage:
    said = {name: [row.values.get(name) for row in table.rows.values()] for name in table.findings}
    counts = {name: LabelCount(v.count(1), v.count(0), v.count(-1)) for name, v in said.items()}
    return Coverage.of("dicom", taxonomy or "of its own labels", vocabulary, counts)


def _how(config: DicomConfig) -> ConvertConfig:
    return ConvertConfig.model_validate({name: getattr(config, name) for name in ConvertConfig.model_fields})


class _Labels:
    """Label rows under the films' other names, and which of them served a film."""

    def __init__(self, table: LabelTable | None, vocabulary: Vocabulary, names: Pseudonyms, where: str) -> None:
        self.table = table
        self.key_of: Callable[[str, Converted], str] = lambda _path, _film: ""
        self.values: dict[str, dict[int, float]] = {}
        self.items: dict[str, str] = {}
        self.served: set[str] = set()
        if table is None:
            return
        ids = vocabulary.ids(table.findings, where)
        rename: Callable[[str], str]
        match table.key:
            case "SOPInstanceUID":
                self.key_of, rename = lambda _, film: film.film_id, lambda raw: names.name("film", raw)
            case "StudyInstanceUID":
                self.key_of, rename = lambda _, film: film.study, lambda raw: names.name("study", raw)
            case "PatientID":
                self.key_of, rename = lambda _, film: film.patient, lambda raw: names.name("patient", raw)
            case _:
                self.key_of, rename = lambda path, _: path, lambda raw: raw
        for raw, row in table.rows.items():
            values: dict[int, float] = {}
            for finding, value in row.values.items():
                class_id = ids[finding]
                if class_id is not None:  # two columns may stand for one finding
                    values[class_id] = stronger(value, values.get(class_id, 0.0))
            self.values[rename(raw)] = lift(values, vocabulary.chosen)
            self.items[rename(raw)] = row.item

    def of(self, path: str, film: Converted) -> dict[int, float] | None:
        """A film's labels; None where the table has no row for it."""
        if self.table is None:
            return {}
        key = self.key_of(path, film)
        if not key or key not in self.values:
            return None
        self.served.add(key)
        return self.values[key]

    def unused(self) -> list[Rejection]:
        """Rows that were refused, or served no film."""
        if self.table is None:
            return []
        detail = "no film that was read has it; drop the row"
        found = [Rejection(item, "no_image", detail) for key, item in self.items.items() if key not in self.served]
        return self.table.rejected + found


def _take(
    paths: Sequence[str], verdicts: Sequence[Converted | Rejection], labels: _Labels
) -> tuple[TakenImages, dict[str, Converted]]:
    """The films that become images, by image id, and what is known of each."""
    rejected: list[Rejection] = []
    images: dict[str, TakenImage] = {}
    converted: dict[str, Converted] = {}
    path_of: dict[str, str] = {}
    seen: dict[str, str] = {}
    for path, film in zip(paths, verdicts, strict=True):
        if isinstance(film, Rejection):
            rejected.append(film)
            continue
        values = labels.of(path, film)
        if values is None:
            rejected.append(Rejection(path, "no_labels", "no row of the label table names it; add one"))
        elif film.film_id in images:
            detail = f"the same SOPInstanceUID as {path_of[film.film_id]}; keep one of them"
            rejected.append(Rejection(path, "duplicated", detail))
        elif film.sha256 in seen:
            # the same film under two names could stand in train and in test
            detail = f"the same pixels as {seen[film.sha256]}; keep one of them"
            rejected.append(Rejection(path, "same_content", detail))
        else:
            seen[film.sha256] = path_of[film.film_id] = path
            converted[film.film_id] = film
            row = ImageRow(
                item=path,
                image_id=film.film_id,
                file_name=film.file_name,
                patient_id=film.patient or film.study or film.film_id,
                study_id=film.study or film.film_id,
                view=str(film.facts["view"]),
                values=values,
                sex=str(film.facts["sex"]),
                age_years=film.facts["age_years"],
            )
            facts = ImageFacts(film.height, film.width, film.sha256)
            images[film.film_id] = TakenImage(row, film.file_name, facts)
    return TakenImages(dict(sorted(images.items())), rejected, 0), converted


def _split(taken: TakenImages, config: DicomConfig) -> PatientSplit:
    shares: Mapping[Split, float] = {"val": config.val_fraction, "test": config.test_fraction}
    asked = {name: share for name, share in shares.items() if share > 0}
    people = count_patients((image.row.patient_id, image.positive, "") for image in taken.images.values())
    return split_patients(people, asked, "train", config.seed, config.split)


def _kind(rule: str) -> str:
    """A rule without its numbers."""
    return " ".join(word for word in rule.replace(",", "").split() if word.isalpha())


def _remarks(films: Mapping[str, Converted], config: DicomConfig) -> list[str]:
    """What a person should know before anything is done with the dataset folder."""
    found = films.values()
    burnt = sum(any(note.startswith("burnt-in text") for note in film.notes) for film in found)
    several = sum(film.frames > 1 for film in found)
    nameless = sum(not film.patient for film in found)
    said = [
        (burnt, f"{burnt} films may hold burnt-in text that names the patient; look at them (films.csv, notes)"),
        (several, f"{several} films are one frame of several; films.csv says which"),
        (
            nameless,
            f"{nameless} films name no patient: a study of theirs counts as one; splits may share patients",
        ),
    ]
    remarks = [text for count, text in said if count]
    if config.identifiers == "pseudonym" and config.key_file is None:
        remarks.append("the pseudonyms were made without a key: who has a list of ids can look them up; set key_file")
    return remarks


def _write_films(path: Path, films: Mapping[str, Converted]) -> None:
    """`films.csv`: what was done to each film, and what its header said."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image_id", "rule", "frame", "frames", "bits", *_FILM_COLUMNS, "notes"])
    for image_id, film in sorted(films.items()):
        facts = [_cell(film.facts[name]) for name in _FILM_COLUMNS]
        writer.writerow([image_id, film.rule, film.frame, film.frames, film.bits, *facts, "; ".join(film.notes)])
    write_text(path, text.getvalue())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return "×".join(f"{part:g}" for part in value) if isinstance(value, list | tuple) else str(value)
