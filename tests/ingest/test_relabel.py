from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ingest.phantom.command import PhantomConfig
from ingest.phantom.command import run as simulate
from ingest.relabel import RelabelConfig, run
from weakray.dataset import Dataset
from weakray.errors import DataError

SMALL = {"short_side_px": (64, 72), "train": 5, "val": 2, "tune": 2, "test": 2, "workers": 1}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("films") / "data"
    simulate(PhantomConfig.model_validate({**SMALL, "out": out}))
    return Dataset.load(out)


def table(path: Path, dataset: Dataset, *rows: str) -> Path:
    first = dataset.ids_of("train")[0]
    lines = ["image_id,Nodule,Pleural Effusion,Hernia", *(row.format(first) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_train_takes_the_table_and_other_splits_keep_theirs(phantom: Dataset, tmp_path: Path) -> None:
    labels = table(tmp_path / "l.csv", phantom, "{},-1,0,1", "nobody,1,1,1", "bad,x,,")
    result = run(RelabelConfig(data=phantom.root, labels=labels, out=tmp_path / "new"))
    new = Dataset.load(tmp_path / "new")
    first, *others = new.ids_of("train")
    assert new.labels.loc[first].dropna().to_dict() == {
        "Lung Opacity": -1,
        "Lung Lesion": -1,
        "Nodule": -1,
        "Pleural Effusion": 0,
    }
    assert np.isnan(new.labels.loc[others].to_numpy()).all()
    for split in ("val", "tune", "test"):
        ids = new.ids_of(split)
        assert new.labels.loc[ids].equals(phantom.labels.loc[ids])
    assert result.rejected == 2
    assert new.info["relabelled"]["columns_left_out"] == ["Hernia"]
    assert new.info["relabelled"]["without_row"] == 4
    assert "4 of 5 images of train have no row of labels" in result.warnings
    assert (new.root / "boxes.json").read_bytes() == (phantom.root / "boxes.json").read_bytes()
    assert (new.root / "ceiling_boxes.json").read_bytes() == (phantom.root / "ceiling_boxes.json").read_bytes()
    assert new.path_of(first).read_bytes() == phantom.path_of(first).read_bytes()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image_id,Hernia\n{},1\n", "expected a column a finding, of Enlarged Cardiomediastinum, .*; got Hernia"),
        ("image_id,Nodule\nnobody,1\n", "expected rows for images of train by image_id"),
    ],
)
def test_a_table_of_something_else(phantom: Dataset, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "l.csv"
    path.write_text(content.format(phantom.ids_of("train")[0]), encoding="utf-8")
    with pytest.raises(DataError, match=said):
        run(RelabelConfig(data=phantom.root, labels=path, out=tmp_path / "new"))


def test_a_dataset_is_not_overwritten(phantom: Dataset, tmp_path: Path) -> None:
    labels = table(tmp_path / "l.csv", phantom, "{},1,0,1")
    with pytest.raises(DataError, match="expected another folder than the dataset's own"):
        run(RelabelConfig(data=phantom.root, labels=labels, out=phantom.root))
