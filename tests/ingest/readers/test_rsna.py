"""`weakray ingest rsna` on made data in the challenge's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest.rsna import RsnaConfig, run
from tests.dicom.makers import content, dataset, light
from tests.ingest.layouts import make_rsna, table
from tests.ingest.readers.reading import about, rejected, said, sides
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError

BOX = (256.0, 512.0, 512.0, 256.0)  # of 1,024 px: on 36 × 24 px x 9…27, y 12…18
FILMS = {f"0004cfab-{at:04d}": [BOX, (0.0, 0.0, 128.0, 128.0)][: at % 3] for at in range(18)}


def _config(files: dict[str, Path], root: Path, **changes: Any) -> RsnaConfig:
    return validate(RsnaConfig, {**files, "out": root / "out", "tune_images": 4, "test_images": 4, **changes})


def test_boxes_are_complete_and_films_of_one_patient_stay_together(tmp_path: Path) -> None:
    data = Dataset.load(run(_config(make_rsna(tmp_path / "in", FILMS), tmp_path)).out)
    assert data.taxonomy.names == ["Lung Opacity"]
    assert data.info["counts"]["patients"] == 9  # two films of each in NIH's mapping
    split = sides(data)
    assert all(split[f"0004cfab-{at:04d}"] == split[f"0004cfab-{at + 1:04d}"] for at in range(0, 18, 2))
    scored = {i for i, s in split.items() if s in ("tune", "test")}
    assert data.truth.annotated == {(image, 0) for image in scored}
    two = next(i for i in sorted(scored) if int(i[-4:]) % 3 == 2)
    assert data.truth.boxes[two].boxes_xyxy_px.tolist() == [[9, 12, 27, 18], [0, 0, 4.5, 3]]
    assert [said(data, f"0004cfab-{at:04d}") for at in range(3)] == [
        {"Lung Opacity": 0},
        {"Lung Opacity": 1},
        {"Lung Opacity": 1},
    ]
    assert about(data, "0004cfab-0003", "patient_id", "path") == ("nih00000001", "0004cfab-0003.png")
    assert data.info["classes"] == {"Lung Opacity": 12, "No Lung Opacity / Not Normal": 3, "Normal": 3}
    assert data.info["class_conflicts"] == data.info["films_of_unknown_patients"] == 0
    assert data.info["coverage"]["taken"][0]["boxes"] == 18
    assert rejected(data.root) == []


def test_without_the_mapping_the_leak_is_said_aloud(tmp_path: Path) -> None:
    files = make_rsna(tmp_path / "in", FILMS)
    del files["mapping"], files["classes"]
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert data.info["counts"]["patients"] == 18
    assert any("without `mapping` one patient may stand in two splits" in text for text in data.info["warnings"])


def test_rows_that_contradict_one_another(tmp_path: Path) -> None:
    files = make_rsna(tmp_path / "in", FILMS)
    rows = files["labels"].read_text(encoding="utf-8").splitlines()
    rows += [
        "0004cfab-0000,1,1,5,5,1",
        "0004cfab-0001,,,,,0",
        "0004cfab-0003,1,1,5,5,0",
        "x,1,1,5,5,2",
        "0004cfab-0004,,,,,1",
    ]
    files["labels"].write_text("\n".join(rows), encoding="utf-8")
    classes = files["classes"].read_text(encoding="utf-8").replace("0004cfab-0000,Normal", "0004cfab-0000,Lung Opacity")
    files["classes"].write_text(f"{classes}unknown,Normal\n", encoding="utf-8")
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert sorted((item.split(":")[0], item.split(" ")[-1], reason) for item, reason in rejected(data.root)) == [
        ("stage_2_detailed_class_info.csv", "unknown", "no_image"),
        ("stage_2_train_labels.csv", "0004cfab-0000", "duplicated"),
        ("stage_2_train_labels.csv", "0004cfab-0001", "duplicated"),
        ("stage_2_train_labels.csv", "0004cfab-0003", "bad_row"),
        ("stage_2_train_labels.csv", "0004cfab-0004", "bad_number"),
        ("stage_2_train_labels.csv", "x", "bad_row"),
    ]
    assert data.info["class_conflicts"] == 1
    split = sides(data)
    if split["0004cfab-0004"] in ("tune", "test"):
        assert ("0004cfab-0004", 0) not in data.truth.annotated  # one of its boxes has no numbers


def test_a_taxonomy_without_the_finding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"findings: unknown findings 'Lung Opacity'; known are Atelectasis"):
        run(_config(make_rsna(tmp_path / "in", FILMS), tmp_path, taxonomy="nih"))
    with pytest.raises(DataError, match="nih has no place for 'Lung Opacity', the one finding of this data set"):
        run(_config(make_rsna(tmp_path / "b", FILMS), tmp_path, taxonomy="nih", findings=None))


def test_a_mapping_of_another_kind(tmp_path: Path) -> None:
    files = make_rsna(tmp_path / "in", FILMS)
    files["mapping"].write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="expected a list of films with subset_img_id and img_id, got dict"):
        run(_config(files, tmp_path))
    table(files["labels"], ["patientId", "x"], [["a", 1]])
    files["mapping"].write_text("[]", encoding="utf-8")
    with pytest.raises(DataError, match="expected the columns 'y', 'width', 'height', 'Target', got patientId, x"):
        run(_config(files, tmp_path))


def test_films_as_published_are_stored_as_png_and_their_headers_tell_the_view(tmp_path: Path) -> None:
    files = make_rsna(tmp_path / "in", FILMS)
    for at, name in enumerate(FILMS):
        (files["images"] / f"{name}.png").unlink()
        pixels = light(at, 24, 36, bits=8).astype("uint8")
        header = {"SOPInstanceUID": f"1.2.{at}", "PatientID": name, "PatientAge": "051Y"}
        (files["images"] / f"{name}.dcm").write_bytes(content(dataset(pixels, bits=8, **header)))
    broken = files["images"] / "0004cfab-0001.dcm"
    broken.write_bytes(broken.read_bytes()[:900])
    (files["images"] / "0004cfab-0002.dcm").write_bytes(b"no film")
    (files["images"] / "stray.dcm").write_bytes(b"x")
    data = Dataset.load(run(_config(files, tmp_path)).out)
    assert len(data.images) == 16
    refused = {item.split(" ")[-1]: reason for item, reason in rejected(data.root) if reason != "image_rejected"}
    assert refused["0004cfab-0002.dcm"] == "not_dicom"
    assert refused["stray.dcm"] == "no_row"
    assert set(refused) == {"0004cfab-0001.dcm", "0004cfab-0002.dcm", "stray.dcm"}
    assert about(data, "0004cfab-0003", "view", "sex", "age_years", "height", "width") == ("PA", "F", 51.0, 24, 36)
    assert data.path_of("0004cfab-0003").parent == data.root / "images"
    boxed = {**data.truth.boxes, **getattr(data.ceiling_truth(), "boxes", {})}
    assert all(boxes.boxes_xyxy_px.tolist()[:1] in ([], [[9, 12, 27, 18]]) for boxes in boxed.values())
    before = sorted((path.name, path.stat().st_mtime_ns) for path in (data.root / "images").glob("*.png"))
    run(_config(files, tmp_path, workers=1))
    assert sorted((path.name, path.stat().st_mtime_ns) for path in (data.root / "images").glob("*.png")) == before
