"""Any mixture of broken films and rows, in every layout: taken + rejected = input, no crash, the same again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import chexpert, mimic, padchest, plain_csv, rsna, vindr, voc, yolo
from ingest.result import IngestResult
from tests.ingest import layouts
from tests.ingest.readers.reading import rejected
from weakray.config import validate
from weakray.dataset import Dataset

FILMS = 12
KINDS = (
    *("zero_byte", "truncated", "wrong_extension", "palette", "cmyk", "alpha", "animated", "too_small", "unreadable"),
    *("unsupported_format", "missing", "colour_jpg", "twin"),
)
mixtures = st.dictionaries(st.integers(0, FILMS - 1), st.sampled_from(KINDS), max_size=4)
calm = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Kinds = dict[str, tuple[str, Callable[[int], bytes]]]


@dataclass(frozen=True)
class Layout:
    """A made data set: what reads it, and how many boxes its tables hold."""

    module: Any
    config: Any
    settings: dict[str, Any]
    boxes: int = 0


def _chexpert(root: Path) -> Layout:
    rows = [
        layouts.chexpert_row(f"CheXpert-v1.0-small/train/patient{at:05d}/study1/view1_frontal.jpg", Edema=at % 2)
        for at in range(FILMS)
    ]
    files = layouts.make_chexpert(root, rows, [])
    files["valid"].unlink()  # a table that no setting names would count as a file without a row
    return Layout(chexpert, chexpert.ChexpertConfig, {"images": root, "train": files["train"], "lists": False})


def _mimic(root: Path) -> Layout:
    rows = [
        {
            "subject": f"1000{at:04d}",
            "study": f"5{at}",
            "dicom": f"d{at}",
            "split": "train",
            "labels": {"Edema": at % 2},
        }
        for at in range(FILMS)
    ]
    files = layouts.make_mimic(root, rows)
    files.pop("split_list").unlink()
    return Layout(mimic, mimic.MimicConfig, files)


def _padchest(root: Path) -> Layout:
    rows = [{"image": f"{at}.png", "labels": "['cardiomegaly']"} for at in range(FILMS)]
    return Layout(padchest, padchest.PadchestConfig, layouts.make_padchest(root, rows))


def _vindr(root: Path) -> Layout:
    box = ("Cardiomegaly", (4.0, 4.0, 14.0, 14.0))
    films = {f"{at:03d}": {"R1": [box], "R2": [box], "R3": []} for at in range(FILMS)}
    return Layout(vindr, vindr.VindrConfig, layouts.make_vindr(root, films), boxes=FILMS)


def _rsna(root: Path) -> Layout:
    films = {f"f{at:03d}": [(256.0, 512.0, 512.0, 256.0)] for at in range(FILMS)}
    return Layout(rsna, rsna.RsnaConfig, layouts.make_rsna(root, films), boxes=FILMS)


def _yolo(root: Path) -> Layout:
    return Layout(yolo, yolo.YoloConfig, {**layouts.make_yolo(root, {"train": FILMS}, {}), "lists": False}, boxes=FILMS)


def _voc(root: Path) -> Layout:
    files = layouts.make_voc(root, FILMS)
    return Layout(voc, voc.VocConfig, {k: v for k, v in files.items() if k != "lists"}, boxes=FILMS)


def _csv(root: Path) -> Layout:
    for at in range(FILMS):
        layouts.film(root / f"{at:03d}.png", at)
    rows = [[f"{at:03d}.png", at % 2] for at in range(FILMS)]
    mine = layouts.table(root / "mine.csv", ["file_name", "mass"], rows)
    drawn = [[f"{at:03d}.png", "mass", 2, 2, 9, 9] for at in range(FILMS)]
    boxes = layouts.table(root / "boxes.csv", ["file_name", "finding", "x", "y", "width", "height"], drawn)
    return Layout(plain_csv, plain_csv.PlainCsvConfig, {"images": root, "table": mine, "boxes": boxes}, boxes=FILMS)


LAYOUTS = {
    "chexpert": _chexpert,
    "mimic": _mimic,
    "padchest": _padchest,
    "vindr": _vindr,
    "rsna": _rsna,
    "yolo": _yolo,
    "voc": _voc,
    "csv": _csv,
}


def _run(layout: Layout, root: Path, workers: int) -> IngestResult:
    sizes = {"tune_images": 1} | ({"test_images": 1} if layout.boxes and layout.module is not plain_csv else {})
    plain = {**layout.settings, **sizes, "out": root / "out", "workers": workers}
    result: IngestResult = layout.module.run(validate(layout.config, plain))
    return result


def _boxes_in(data: Dataset) -> int:
    ceiling = data.ceiling_truth()
    kept = [*data.truth.boxes.values(), *(ceiling.boxes.values() if ceiling else ())]
    return sum(map(len, kept)) + int(data.info["boxes"]["val_unused"])


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@calm
@given(kinds=mixtures)
def test_broken_films_of_every_layout(
    tmp_path_factory: pytest.TempPathFactory, broken: Kinds, sound: Kinds, name: str, kinds: dict[int, str]
) -> None:
    root = tmp_path_factory.mktemp(name)
    layout = LAYOUTS[name](root / "in")
    films = sorted(path for path in (root / "in").rglob("*") if path.suffix in (".png", ".jpg"))
    assert len(films) == FILMS
    for at, kind in kinds.items():
        if kind == "missing":
            films[at].unlink()
        elif kind == "twin":
            films[at].write_bytes(films[(at + 1) % FILMS].read_bytes() if films[(at + 1) % FILMS].is_file() else b"")
        else:
            films[at].write_bytes({**sound, **broken}[kind][1](at))
    result = _run(layout, root, 1)
    data = Dataset.load(result.out)
    refused = [reason for _, reason in rejected(data.root)]
    of_boxes = refused.count("image_rejected")
    assert result.images + len(refused) - of_boxes == FILMS
    unread = sum(kind == "missing" for kind in kinds.values()) if name == "yolo" else 0  # its label file is the stray
    assert _boxes_in(data) + of_boxes == layout.boxes - unread
    before = {path.name: path.read_bytes() for path in result.out.iterdir()}
    again = _run(layout, root, 3)
    assert {path.name: path.read_bytes() for path in again.out.iterdir()} == before


cells = st.sampled_from(["", "1.0", "0.0", "-1.0", "-1", "2", "nan", "1e400", "x", "é", '"', "\n", "None", "0x1"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(cells, min_size=1, max_size=len(layouts.CHEXPERT_HEADER) + 1), max_size=6), data=st.data()
)
def test_any_cells_in_chexperts_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("cells")
    layout = _chexpert(root / "in")
    path = st.sampled_from(
        [None, "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", "patient1/study2/view3_lateral.png"]
    )
    added = [[data.draw(path) or row[0], *row[1:]] for row in rows]
    sound = [
        layouts.chexpert_row(f"CheXpert-v1.0-small/train/patient{at:05d}/study1/view1_frontal.jpg", Edema=at % 2)
        for at in range(FILMS)
    ]
    layouts.table(layout.settings["train"], layouts.CHEXPERT_HEADER, [*sound, *added])
    result = _run(layout, root, 1)
    named = sum(any(cell.strip() for cell in row) for row in added)  # blank lines are no input
    assert (result.images, result.rejected) == (FILMS, named)


lines = st.lists(st.sampled_from(["0", "1", "0.5", "7", "-1", "nan", "inf", "x", "1e999", "0.25"]), max_size=9).map(
    " ".join
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(added=st.lists(lines, max_size=6))
def test_any_lines_in_a_yolo_file(tmp_path_factory: pytest.TempPathFactory, added: list[str]) -> None:
    root = tmp_path_factory.mktemp("lines")
    layout = _yolo(root / "in")
    (root / "in/labels/train/000.txt").write_text("\n".join(["0 0.5 0.5 0.25 0.5", *added]), encoding="utf-8")
    result = _run(layout, root, 1)
    assert result.images == FILMS
    assert _boxes_in(Dataset.load(result.out)) + result.rejected == FILMS + sum(bool(line) for line in added)
