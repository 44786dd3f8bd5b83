"""Any mixture of damaged DICOM files: taken + rejected = input, whatever the number of workers, and no crash."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from ingest.dicom import DicomConfig, run
from tests.dicom.damaging import damaged
from tests.dicom.makers import content, dataset, light
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.imaging import read_image


def _mixture(root: Path, seeds: range) -> int:
    """Six sound films of six patients, and damaged files under any name."""
    (root / "films" / "deep").mkdir(parents=True)
    (root / "t.yaml").write_text("findings: [{name: Mass}]\n")
    for at in range(6):
        found = dataset(light(at), SOPInstanceUID=f"1.2.{at}", PatientID=f"P{at}", StudyInstanceUID=f"1.3.{at}")
        (root / "films" / f"{at}.dcm").write_bytes(content(found))
    for seed in seeds:
        (root / "films" / "deep" / f"{seed}{('.dcm', '', '.png')[seed % 3]}").write_bytes(damaged(seed)[1])
    return 6 + len(seeds)


def _check(root: Path, count: int, workers: int) -> None:
    settings = {"images": root / "films", "out": root / f"out{workers}", "taxonomy": str(root / "t.yaml")}
    result = run(validate(DicomConfig, {**settings, "workers": workers, "val_fraction": 0.3}))
    with (result.out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["item"] and row["reason"] and row["detail"] for row in rows)
    assert "crashed" not in {row["reason"] for row in rows}
    assert result.images + len(rows) == count
    assert result.images >= 6
    data = Dataset.load(result.out)
    for image_id in data.image_ids:
        assert read_image(data.path_of(image_id)).shape[:2] == data.size_hw(image_id)


@pytest.mark.parametrize("start", [0, 1_000, 2_000])
def test_every_file_is_taken_or_rejected(tmp_path: Path, start: int) -> None:
    _check(tmp_path, _mixture(tmp_path, range(start, start + 60)), workers=1)


@pytest.mark.soak
def test_thousands_of_files_in_two_processes(tmp_path: Path) -> None:
    count = _mixture(tmp_path, range(10_000, 12_000))
    _check(tmp_path, count, workers=2)
    _check(tmp_path, count, workers=1)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).glob("*.*")} for name in ("out1", "out2"))
    assert one == two
