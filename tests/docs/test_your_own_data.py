"""The tutorial does what it says: its files are written as they stand there, its commands run on made films."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import generate_uid

from tests.dicom.makers import content, dataset, light
from tests.ingest.layouts import CHEXPERT_HEADER, chexpert_row, film, observations, table
from weakray.cli import main
from weakray.config import load
from weakray.dataset import Dataset
from weakray.pipeline import PipelineConfig, plan
from weakray.taxonomy import Taxonomy

TEXT = (Path(__file__).parents[2] / "docs" / "your-own-data.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w.]+)`:\n\n```(?:csv|yaml)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
COMMANDS = [
    shlex.split(line.replace("\\\n", " "))
    for block in re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    for line in re.split(r"\n(?=weakray )", block.strip())
]


def _films(root: Path) -> None:
    small = root / "CheXpert-v1.0-small"
    train = [
        chexpert_row(
            f"CheXpert-v1.0-small/train/patient{at:05d}/study1/view1_frontal.jpg", Cardiomegaly=at % 2, Edema=-1
        )
        for at in range(1, 15)
    ]
    valid = [
        chexpert_row(f"CheXpert-v1.0-small/valid/patient{64541 + at}/study1/view1_frontal.jpg", Edema=0)
        for at in range(3)
    ]
    tests = [f"test/patient{64741 + at}/study1/view1_frontal.jpg" for at in range(3)]
    for seed, path in enumerate(
        [*(row[0] for row in [*train, *valid]), *(f"CheXpert-v1.0-small/{path}" for path in tests)]
    ):
        film(root / path, seed, size_hw=(320, 390))
    table(small / "train.csv", CHEXPERT_HEADER, train)
    table(small / "valid.csv", CHEXPERT_HEADER, valid)
    rows = [[path, *observations(Cardiomegaly=1)] for path in tests]
    table(root / "chexlocalize" / "test_labels.csv", ["Path", *CHEXPERT_HEADER[5:]], rows)
    for name, patients in (("val", range(64541, 64544)), ("test", range(64741, 64744))):
        drawn = {
            f"patient{at}_study1_view1_frontal": {"img_size": [320, 390], "Cardiomegaly": [[[90, 100], [290, 250]]]}
            for at in patients
        }
        (root / "chexlocalize" / f"gt_annotations_{name}.json").write_text(json.dumps(drawn), encoding="utf-8")
    for at in range(1, 9):
        film(root / "films" / "a" / f"{at:02d}.png", 100 + at)
    (root / "dicom").mkdir()
    for at in range(1, 7):
        pixels = light(at, 24, 36, bits=8).astype(np.uint8)
        uid = str(generate_uid(entropy_srcs=[str(at)]))
        found = dataset(pixels, bits=8, PatientID=f"P{at}", SOPInstanceUID=uid, StudyInstanceUID=f"{uid}.1"[:64])
        (root / "dicom" / f"{at}.dcm").write_bytes(content(found))


def test_every_command_runs_on_the_files_that_stand_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _films(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert [words[:3] for words in COMMANDS] == [
        ["weakray", "ingest", "chexpert"],
        ["weakray", "ingest", "chexpert"],
        ["weakray", "ingest", "csv"],
        ["weakray", "ingest", "dicom"],
    ]
    for words in COMMANDS:
        few = [word if words[at - 1] != "--tune-images" else "1" for at, word in enumerate(words)]
        assert main(few[1:]) == 0, capsys.readouterr().err
    localized = Dataset.load(Path("data/chexpert"))
    assert localized.info["counts"]["splits"] == {"train": 13, "val": 1, "tune": 3, "test": 3}
    assert len(localized.truth.boxes) == 6
    assert Dataset.load(Path("data/chexpert-mine")).info["boxes"]["tune_and_test"] == 3
    mine = Dataset.load(Path("data/mine"))
    assert mine.info["boxes"]["tune_and_test"] == 3
    assert mine.labels.loc[["a__03"], ["Pleural Effusion", "Cardiomegaly", "Enlarged Cardiomediastinum"]].to_numpy()[
        0
    ].tolist() == [
        -1,
        1,
        1,
    ]
    assert mine.info["counts"]["rejected"] == 0
    assert Dataset.load(Path("data/dicom")).info["counts"]["images"] == 6


def test_its_config_and_its_taxonomy_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    stages = plan(load(PipelineConfig, Path("run.yaml")))
    assert stages[0].name == "ingest"
    own = Taxonomy.load(Path("findings.yaml"))
    assert own.spoken_in("padchest").resolve("Infiltrates") == 0
    assert own.resolve("epanchement pleural") == 2
