"""`weakray ingest dicom` on made DICOM files."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ingest import dicom_files
from ingest.dicom import DicomConfig, run
from ingest.dicom_files import JOURNAL
from tests.dicom.makers import content, dataset, light
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.dicom.film import decode_dicom
from weakray.errors import DataError
from weakray.files import sha256_file
from weakray.imaging import read_image
from weakray.limits import FilmLimits

SYNTAXES = ("explicit", "jpeg_2000", "jpeg_ls", "rle", "implicit", "deflated")
NAMES = ("Doe", "Jane", "MRN", "1980", "Hospital")


def _films(root: Path, count: int = 12, **elements: Any) -> Path:
    """Films of half as many patients, in folders named by them."""
    for at in range(count):
        found = dataset(
            light(at),
            SOPInstanceUID=f"1.2.{at}",
            PatientID=f"MRN-{at // 2}",
            StudyInstanceUID=f"1.3.{at // 2}",
            ViewPosition=("PA", "LL")[at % 2],
            WindowCenter=2000,
            WindowWidth=3000,
            **elements,
        )
        folder = root / "films" / f"MRN-{at // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{at:02d}.dcm").write_bytes(content(found, SYNTAXES[at % len(SYNTAXES)]))
    return root / "films"


def _labels(root: Path, key: str = "PatientID", count: int = 6, name: str = "MRN-{}") -> Path:
    rows = [f"{name.format(at)},{at % 2},{['', -1, 1][at % 3]}" for at in range(count)]
    (root / "labels.csv").write_text("\n".join([f"{key},Effusion,Mass", *rows]), encoding="utf-8")
    return root / "labels.csv"


def _config(root: Path, **changes: Any) -> DicomConfig:
    plain = {"images": root / "films", "out": root / "out", "labels": root / "labels.csv", "workers": 1}
    return validate(DicomConfig, plain | {"val_fraction": 0.2, "test_fraction": 0.2} | changes)


def _rejected(root: Path) -> list[tuple[str, str]]:
    with (root / "rejected.csv").open(encoding="utf-8", newline="") as file:
        return [(row["item"], row["reason"]) for row in csv.DictReader(file)]


def _bytes(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): sha256_file(path) for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("store", ["voi", "percentile", "lossless"])
def test_films_become_a_dataset_folder_that_reads_as_the_server_would(tmp_path: Path, store: str) -> None:
    films, _ = _films(tmp_path), _labels(tmp_path)
    result = run(_config(tmp_path, store=store, identifiers="keep"))
    assert (result.images, result.patients, result.rejected) == (12, 6, 0)
    data = Dataset.load(result.out)
    assert data.info["images_root"] == "images"
    for at in range(12):
        stored = read_image(data.path_of(f"1.2.{at}"))
        raw = (films / f"MRN-{at // 2}" / f"{at:02d}.dcm").read_bytes()
        served = decode_dicom(raw, "a", FilmLimits(), rule="voi" if store == "voi" else "percentile")
        np.testing.assert_array_equal(stored, served.image)
        assert data.images.loc[f"1.2.{at}", "view"] == ("PA", "LATERAL")[at % 2]
        expected = [float(at // 2 % 2), [np.nan, -1.0, 1.0][at // 2 % 3]]
        np.testing.assert_array_equal(data.labels.loc[f"1.2.{at}"].to_numpy(), expected)
    assert result.splits["tune"] == 0
    assert result.splits["val"] + result.splits["test"] + result.splits["train"] == 12
    rows = list(csv.DictReader((result.out / "films.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0]["rule"].startswith(
        {"voi": "window 2000 ± 1500", "percentile": "perc"}.get(store, "lossless, read as")
    )
    assert (rows[0]["sex"], rows[0]["age_years"], rows[0]["bits"]) == ("F", "45", "12")


@pytest.mark.parametrize(
    ("key", "name", "count"),
    [("PatientID", "MRN-{}", 6), ("StudyInstanceUID", "1.3.{}", 6), ("SOPInstanceUID", "1.2.{}", 12), ("path", "", 12)],
)
def test_labels_pair_by_any_key_under_pseudonyms(tmp_path: Path, key: str, name: str, count: int) -> None:
    films = _films(tmp_path)
    _labels(tmp_path, key, count, name)
    if key == "path":
        rows = [f"{path.relative_to(films)},1,0" for path in sorted(films.rglob("*.dcm"))]
        (tmp_path / "labels.csv").write_text("\n".join(["path,Effusion,Mass", *rows]), encoding="utf-8")
    result = run(_config(tmp_path))
    assert (result.images, result.rejected) == (12, 0)


def test_nothing_written_names_a_patient(tmp_path: Path) -> None:
    films, _ = _films(tmp_path), _labels(tmp_path)
    (films / "MRN-0" / "00.dcm").write_bytes(b"no film")
    out = run(_config(tmp_path)).out
    for path in out.rglob("*"):
        told = path.name + (path.read_bytes().decode("latin-1") if path.is_file() else "")
        if path.name == "rejected.csv":
            assert "MRN-0/00.dcm" in told
        else:
            assert not [name for name in (*NAMES, "1.2.3", "1.3.0") if name in told], path
    data = Dataset.load(out)
    assert all(len(image_id) == 16 for image_id in data.image_ids)
    assert any("made without a key" in warning for warning in data.info["warnings"])


def test_another_key_makes_other_names(tmp_path: Path) -> None:
    _films(tmp_path, 6), _labels(tmp_path, count=3)
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    plain, keyed = run(_config(tmp_path)), run(_config(tmp_path, key_file=tmp_path / "key", out=tmp_path / "keyed"))
    assert not set(Dataset.load(plain.out).image_ids) & set(Dataset.load(keyed.out).image_ids)
    assert not [warning for warning in keyed.warnings if "key" in warning]
    (tmp_path / "key").write_text("short")
    with pytest.raises(DataError, match="expected a key of 16 bytes or more, got 5; make one with `openssl rand"):
        run(_config(tmp_path, key_file=tmp_path / "key"))


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    films, _ = _films(tmp_path), _labels(tmp_path)
    (films / "b.dcm").write_bytes((films / "MRN-1" / "02.dcm").read_bytes()[:-300])
    run(_config(tmp_path))
    run(_config(tmp_path, workers=2, out=tmp_path / "two"))
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "two")


def test_every_file_is_taken_or_told_why_not(tmp_path: Path) -> None:
    films, _ = _films(tmp_path, 8), _labels(tmp_path, count=3)
    first = films / "MRN-0" / "00.dcm"
    (films / "again.dcm").write_bytes(first.read_bytes())
    other = dataset(light(0), SOPInstanceUID="1.2.77", PatientID="MRN-0", WindowCenter=2000, WindowWidth=3000)
    (films / "copied.dcm").write_bytes(content(other))
    (films / "ct.dcm").write_bytes(content(dataset(light(1), Modality="CT")))
    (films / "cut.dcm").write_bytes(first.read_bytes()[:-500])
    (films / "large.dcm").write_bytes(content(dataset(light(1, 60, 60))))
    (films / "notes.txt").write_text("Jane Doe")
    (films / "small.dcm").write_bytes(content(dataset(light(1, 8, 60))))
    result = run(_config(tmp_path, limits={"max_pixels": 3000}))
    assert _rejected(result.out) == [
        ("MRN-3/06.dcm", "no_labels"),
        ("MRN-3/07.dcm", "no_labels"),
        ("again.dcm", "duplicated"),
        ("copied.dcm", "same_content"),
        ("ct.dcm", "modality"),
        ("cut.dcm", "unreadable"),
        ("large.dcm", "too_large"),
        ("notes.txt", "not_dicom"),
        ("small.dcm", "too_small"),
    ]
    assert result.images + result.rejected == 15


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _films(tmp_path), _labels(tmp_path)
    run(_config(tmp_path, out=tmp_path / "undisturbed"))
    real, done = dicom_files._convert, list[str]()

    def dying(task: Any) -> Any:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(task.path)
        return real(task)

    monkeypatch.setattr(dicom_files, "_convert", dying)
    with pytest.raises(KeyboardInterrupt):
        run(_config(tmp_path))
    journal = tmp_path / "out" / "images" / JOURNAL
    journal.write_text(journal.read_text() + '{"path": "cut')
    again: list[str] = []

    def counting(task: Any) -> Any:
        again.append(task.path)
        return real(task)

    monkeypatch.setattr(dicom_files, "_convert", counting)
    run(_config(tmp_path))
    assert len(again) == 7
    assert not set(again) & set(done)
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "undisturbed")
    run(_config(tmp_path, seed=5))
    assert len(again) == 7
    changed = tmp_path / "films" / "MRN-0" / "00.dcm"
    os.utime(changed, ns=(1, 1))
    run(_config(tmp_path))
    assert again[7:] == ["MRN-0/00.dcm"]
    run(_config(tmp_path, store="lossless"))
    assert len(again) == 20
    assert len(list((tmp_path / "out" / "images").glob("*.png"))) == 12


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    _films(tmp_path, 2), _labels(tmp_path, count=1)
    (tmp_path / "out" / "images").mkdir(parents=True)
    (tmp_path / "out" / "images" / "holiday.png").write_bytes(b"x")
    with pytest.raises(DataError, match="images: holds files that weakray did not make; name another folder"):
        run(_config(tmp_path))
    assert (tmp_path / "out" / "images" / "holiday.png").exists()


def test_without_labels_a_taxonomy_is_needed(tmp_path: Path) -> None:
    _films(tmp_path, 6)
    with pytest.raises(DataError, match="expected `labels`, whose columns are the findings, or a `taxonomy`"):
        run(_config(tmp_path, labels=None))
    (tmp_path / "t.yaml").write_text("findings: [{name: Mass}]\n")
    result = run(_config(tmp_path, labels=None, taxonomy=str(tmp_path / "t.yaml"), val_fraction=0, test_fraction=0))
    assert result.splits == {"train": 6, "val": 0, "tune": 0, "test": 0}
    assert Dataset.load(result.out).labels.isna().all().all()


def test_what_a_person_should_know_is_counted(tmp_path: Path) -> None:
    films, _ = _films(tmp_path, 4, BurnedInAnnotation="YES"), _labels(tmp_path, "StudyInstanceUID", 3, "1.3.{}")
    frames = dataset(np.stack([light(9), light(8)]), PatientID="", StudyInstanceUID="1.3.2", SOPInstanceUID="1.2.9")
    (films / "frames.dcm").write_bytes(content(frames, "rle"))
    result = run(_config(tmp_path))
    warnings = " ".join(result.warnings)
    assert "4 films may hold burnt-in text" in warnings
    assert "1 films are one frame of several" in warnings
    assert "1 films name no patient" in warnings
    info = json.loads((result.out / "dataset.json").read_text())
    assert info["rules"] == {"percentile to": 1, "window": 4}


def test_an_element_of_no_known_kind_costs_its_film_alone(tmp_path: Path) -> None:
    films, _ = _films(tmp_path, 4), _labels(tmp_path, count=2)
    odd = content(dataset(light(7), SOPInstanceUID="1.2.7", PatientID="MRN-0")).replace(
        b"\x18\x00\x01\x51CS", b"\x18\x00\x01\x51CB"
    )
    (films / "odd.dcm").write_bytes(odd)
    result = run(_config(tmp_path))
    assert _rejected(result.out) == [("odd.dcm", "unreadable")]
