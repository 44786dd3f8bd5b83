"""Makers of small data sets in the published layout of each: the real columns, paths and oddities, made films."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

CHEXPERT_HEADER = (
    *("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly"),
    *("Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
)
OBSERVATIONS = CHEXPERT_HEADER[5:]
PADCHEST_HEADER = (
    *("", "ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM"),
    *("ViewPosition_DICOM", "Projection", "MethodProjection", "Pediatric", "Modality_DICOM", "Manufacturer_DICOM"),
    *("PhotometricInterpretation_DICOM", "BitsStored_DICOM", "Rows_DICOM", "Columns_DICOM", "ReportID", "Report"),
    *("MethodLabel", "Labels", "Localizations", "LabelsLocalizationsBySentence", "labelCUIS", "LocalizationsCUIS"),
)
VINDR_LABELS = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"),
    *("Other diseases", "No finding"),
)


def film(path: Path, seed: int, size_hw: tuple[int, int] = (24, 36), bits: int = 8) -> None:
    """A made film: seeded noise, as the file's extension says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 2**bits, size_hw)
    assert cv2.imwrite(str(path), noise.astype(np.uint8 if bits == 8 else np.uint16))


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    """A CSV file, gzipped where its name says so."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    content = buffer.getvalue().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def observations(**values: Any) -> list[str]:
    """Cells of CheXpert's fourteen columns; `Lung_Opacity=-1` and so on, the others blank."""
    given = {name.replace("_", " "): value for name, value in values.items()}
    return [f"{float(given[name]):.1f}" if name in given else "" for name in OBSERVATIONS]


def chexpert_row(
    path: str, *, sex: str = "Female", age: Any = 61, side: str = "", ap_pa: str = "AP", **values: Any
) -> list[Any]:
    """A row of train.csv, its view told by the path."""
    lateral = "lateral" in path
    return [
        path,
        sex,
        age,
        side or ("Lateral" if lateral else "Frontal"),
        "" if lateral else ap_pa,
        *observations(**values),
    ]


def make_chexpert(root: Path, train: Sequence[Sequence[Any]], valid: Sequence[Sequence[Any]]) -> dict[str, Path]:
    """`CheXpert-v1.0-small/` below root, with its two tables and a film a row."""
    small = root / "CheXpert-v1.0-small"
    for seed, row in enumerate([*train, *valid]):
        film(root / row[0], seed) if "patient" in row[0] else None
    return {
        "images": root,
        "train": table(small / "train.csv", CHEXPERT_HEADER, train),
        "valid": table(small / "valid.csv", CHEXPERT_HEADER, valid),
    }


def make_mimic(root: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Path]:
    """MIMIC-CXR-JPG below root: rows of subject, study, dicom, view, split, and labels (of the study's first row)."""
    metadata: list[list[Any]] = []
    labels: dict[str, list[Any]] = {}
    splits: list[list[Any]] = []
    for seed, row in enumerate(rows):
        subject, study, dicom = row["subject"], row["study"], row["dicom"]
        film(root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom}.jpg", seed)
        view = row.get("view", "AP")
        metadata.append(
            [dicom, subject, study, "CHEST (PA AND LAT)", view, 3056, 2544, "21800506", "213014.531", "", "", ""]
        )
        if row.get("labels") is not None:
            labels.setdefault(study, [subject, study, *observations(**row["labels"])])
        splits.append([dicom, study, subject, row["split"]])
    heads = (
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    )
    tail = (
        "ProcedureCodeSequence_CodeMeaning",
        "ViewCodeSequence_CodeMeaning",
        "PatientOrientationCodeSequence_CodeMeaning",
    )
    return {
        "images": root,
        "metadata": table(
            root / "mimic-cxr-2.0.0-metadata.csv.gz", (*heads, "StudyDate", "StudyTime", *tail), metadata
        ),
        "labels": table(
            root / "mimic-cxr-2.0.0-chexpert.csv.gz",
            ("subject_id", "study_id", *sorted(OBSERVATIONS)),  # MIMIC's columns stand in the order of the alphabet
            [
                [row[0], row[1], *(row[2:][OBSERVATIONS.index(name)] for name in sorted(OBSERVATIONS))]
                for row in labels.values()
            ],
        ),
        "split_list": table(
            root / "mimic-cxr-2.0.0-split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"), splits
        ),
    }


def make_padchest(root: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Path]:
    """PadChest below root: rows of image, labels (the cell), and where they differ folder, patient and so on."""
    lines: list[list[Any]] = []
    for seed, row in enumerate(rows):
        folder = row.get("folder", seed % 3)
        film(root / str(folder) / row["image"], seed, bits=16)
        about = dict.fromkeys(PADCHEST_HEADER, "")
        about |= {
            "": str(seed),
            "ImageID": row["image"],
            "ImageDir": str(folder),
            "StudyDate_DICOM": "20140915",
            "StudyID": f"2020{seed}",
            "PatientID": row.get("patient", f"8{seed:03d}"),
            "PatientBirth": row.get("birth", "1930.0"),
            "PatientSex_DICOM": "M",
            "Projection": row.get("projection", "PA"),
            "MethodProjection": "Manual review of DICOM fields",
            "Pediatric": "No",
            "PhotometricInterpretation_DICOM": "MONOCHROME2",
            "BitsStored_DICOM": "16",
            "Report": "sin hallazgos , pequeña opacidad .",
            "MethodLabel": row.get("method", "Physician"),
            "Labels": row["labels"],
            "Localizations": "['loc basal']",
        }
        lines.append([about[name] for name in PADCHEST_HEADER])
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    return {"images": root, "labels": table(root / name, PADCHEST_HEADER, lines)}


def make_vindr(
    root: Path,
    train: Mapping[str, Mapping[str, Sequence[tuple[str, Sequence[float]]]]],
    global_labels: Mapping[tuple[str, str], Sequence[str]] | None = None,
    test: Mapping[str, Sequence[tuple[str, Sequence[float]]]] | None = None,
) -> dict[str, Path]:
    """VinDr below root, films as PNG: image → reader → (class, corners); and (image, reader) → global labels."""
    rows: list[list[Any]] = []
    local: dict[tuple[str, str], set[str]] = {}
    for seed, (image, readers) in enumerate(train.items()):
        film(root / "train" / f"{image}.png", seed)
        for reader, drawn in readers.items():
            local[image, reader] = {name for name, _ in drawn}
            rows += [[image, reader, name, *corners] for name, corners in drawn]
            rows += [] if drawn else [[image, reader, "No finding", "", "", "", ""]]
    header = ("image_id", "rad_id", "class_name", "x_min", "y_min", "x_max", "y_max")
    said = {key: {*names, *(global_labels or {}).get(key, ())} or {"No finding"} for key, names in local.items()}
    files = {
        "images": root,
        "annotations": table(root / "annotations" / "annotations_train.csv", header, rows),
        "labels": table(
            root / "annotations" / "image_labels_train.csv",
            ("image_id", "rad_id", *VINDR_LABELS),
            [
                [image, reader, *(int(name in names) for name in VINDR_LABELS)]
                for (image, reader), names in said.items()
            ],
        ),
    }
    if test is not None:
        lines: list[list[Any]] = []
        for seed, (image, found) in enumerate(test.items()):
            film(root / "test" / f"{image}.png", 1000 + seed)
            lines += [[image, name, *corners] for name, corners in found]
            lines += [] if found else [[image, "No finding", "", "", "", ""]]
        columns = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
        labels = tuple(name.replace("Other diseases", "Other disease") for name in VINDR_LABELS)
        files["test_annotations"] = table(root / "annotations" / "annotations_test.csv", columns, lines)
        files["test_labels"] = table(
            root / "annotations" / "image_labels_test.csv",
            ("image_id", *labels),
            [[image, *(int(name in {n for n, _ in found}) for name in labels)] for image, found in test.items()],
        )
    return files


def make_rsna(root: Path, films: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Path]:
    """RSNA below root, films as PNG: film → boxes (x, y, width, height of 1,024 px), none for a normal one."""
    rows: list[list[Any]] = []
    classes: list[list[str]] = []
    mapping: list[dict[str, Any]] = []
    for seed, (name, boxes) in enumerate(films.items()):
        film(root / "stage_2_train_images" / f"{name}.png", seed)
        rows += [[name, *box, 1] for box in boxes] or [[name, "", "", "", "", 0]]
        kind = "Lung Opacity" if boxes else ("Normal", "No Lung Opacity / Not Normal")[seed % 2]
        classes += [[name, kind]] * max(1, len(boxes))
        mapping.append({"subset_img_id": name, "img_id": f"{seed // 2:08d}_{seed % 2:03d}.png", "orig_labels": []})
    (root / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping), encoding="utf-8")
    return {
        "images": root / "stage_2_train_images",
        "labels": table(root / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"), rows),
        "classes": table(root / "stage_2_detailed_class_info.csv", ("patientId", "class"), classes),
        "mapping": root / "pneumonia-challenge-dataset-mappings_2018.json",
    }


def make_yolo(
    root: Path, parts: dict[str, int], lines: dict[str, str], names: Sequence[str] = ("cat", "dog")
) -> dict[str, Path]:
    """A YOLO set below root: part → images; `part/name` → its label file, one box where none is given."""
    seed = 0
    for part, count in parts.items():
        for at in range(count):
            name = f"{at:03d}"
            film(root / "images" / part / f"{name}.jpg", seed)
            seed += 1
            text = lines.get(f"{part}/{name}", f"{at % 2} 0.5 0.5 0.25 0.5\n")
            label = root / "labels" / part / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text, encoding="utf-8")
    data = [f"path: ../datasets/{root.name}", *(f"{part}: images/{part}" for part in parts), "names:"]
    data += [f"  {at}: {name}" for at, name in enumerate(names)]
    (root / "data.yaml").write_text("\n".join(data) + "\n", encoding="utf-8")
    return {"data": root / "data.yaml", "images": root}


def voc_xml(
    file_name: str,
    objects: Sequence[tuple[str, Sequence[int]]],
    size_hw: tuple[int, int] = (24, 36),
    difficult: int = 0,
) -> str:
    """An annotation as VOC writes it."""
    things = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1) in objects
    )
    return (
        f"<annotation><folder>VOC2012</folder><filename>{file_name}</filename><size><width>{size_hw[1]}</width>"
        f"<height>{size_hw[0]}</height><depth>3</depth></size><segmented>0</segmented>{things}</annotation>"
    )


def make_voc(root: Path, count: int, changes: dict[str, str] | None = None) -> dict[str, Path]:
    """A VOC set below root: film i has a cat (even) or a dog in pixels 5…14 × 3…12; `changes` replaces XML by name."""
    for at in range(count):
        name = f"2008_{at:06d}"
        film(root / "JPEGImages" / f"{name}.jpg", at)
        text = voc_xml(f"{name}.jpg", [(("cat", "dog")[at % 2], (5, 3, 14, 12))])
        xml = root / "Annotations" / f"{name}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text((changes or {}).get(name, text), encoding="utf-8")
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    third = count // 3
    parts = {"train": range(third), "val": range(third, 2 * third), "test": range(2 * third, count)}
    for part, numbers in parts.items():
        (lists / f"{part}.txt").write_text("".join(f"2008_{at:06d}\n" for at in numbers), encoding="utf-8")
    return {"images": root / "JPEGImages", "annotations": root / "Annotations", "lists": lists}
