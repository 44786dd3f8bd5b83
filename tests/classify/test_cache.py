from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import classify.cache
import classify.train
from classify.cache import CachedImages, cached_images
from classify.images import PreparedImages
from classify.settings import TrainConfig
from weakray.config import validate
from weakray.dataset import Dataset
from weakray.errors import DataError, RunError
from weakray.files import sha256_file
from weakray.imaging import InputSpec, Mode, prepare, write_image

SPEC = InputSpec(size_px=48)


def opened(folder: Path, dataset: Dataset, ids: list[str] | None = None, spec: InputSpec = SPEC) -> CachedImages:
    return cached_images(folder, dataset, ids or dataset.ids_of("train"), spec, workers=2)


@pytest.mark.parametrize("mode", ["grey", "clahe"])
def test_holds_what_decoding_gives(dataset: Dataset, tmp_path: Path, mode: Mode) -> None:
    spec = InputSpec(size_px=40, mode=mode)
    for ids in (dataset.ids_of("train"), dataset.ids_of("val")[:3], dataset.ids_of("test")[:1]):
        plain = PreparedImages(dataset, ids, spec, cache=False)
        for state in ("built", "found"):
            kept = opened(tmp_path, dataset, ids, spec)
            assert (kept.state, kept.reason, len(kept)) == (state, "", len(ids))
            for row in range(len(ids)):
                np.testing.assert_array_equal(kept[row], plain[row])
            assert not kept[0].flags.writeable
    assert len(list(tmp_path.glob("*.pixels"))) == 3
    assert not list(tmp_path.glob(".*"))


def test_says_its_bytes_before_it_writes(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def build(*given: Any) -> None:
        said.append(capsys.readouterr().err)
        whole(*given)

    whole = classify.cache._build
    monkeypatch.setattr(classify.cache, "_build", build)
    path = opened(tmp_path, dataset).path
    size = 4096 + 24 * 48 * 48 + 4 * 24  # a page of header, pixels, checksums
    assert said == [f"{path}: built, 24 images, {size:,} bytes\n"]
    assert path.stat().st_size == size
    opened(tmp_path, dataset)
    assert capsys.readouterr().err == ""


def flip(path: Path, *places: int) -> None:
    content = bytearray(path.read_bytes())
    for at in places:
        content[at] ^= 0x10
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda path: flip(path, 3), "damaged: header"),
        (lambda path: flip(path, 40), "damaged: header"),
        (lambda path: cut(path, 0), "damaged: header"),
        (lambda path: cut(path, 5), "damaged: header"),
        (lambda path: cut(path, 4096), "damaged: 4,096 bytes instead of 59,488"),
        (lambda path: cut(path, 59_487), "damaged: 59,487 bytes instead of 59,488"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "damaged: 59,489 bytes instead of 59,488"),
        (lambda path: flip(path, 4096 + 5 * 48 * 48 + 7), "damaged: 1 of 24 images"),
        (lambda path: flip(path, *(4096 + k * 48 * 48 for k in (0, 9, 23))), "damaged: 3 of 24 images"),
        (lambda path: flip(path, 59_487), "damaged: 1 of 24 images"),  # the checksum, not the image
        (lambda path: path.write_bytes(b"\x89PNG" * 20_000), "damaged: header"),
    ],
)
def test_a_damaged_file_is_made_again_and_says_why(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Callable[[Path], Any], reason: str
) -> None:
    first = opened(tmp_path, dataset)
    content = first.path.read_bytes()
    assert len(content) == 59_488
    capsys.readouterr()
    harm(first.path)
    again = opened(tmp_path, dataset)
    assert (again.state, again.reason) == ("rebuilt", reason)
    assert f"rebuilt ({reason}), 24 images" in capsys.readouterr().err
    assert again.path.read_bytes() == content
    assert opened(tmp_path, dataset).state == "found"


def test_other_images_under_the_same_ids_make_it_stale(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data")
    ids = data.ids_of("train")
    opened(tmp_path / "cache", data)
    path = data.path_of(ids[5])
    changed = np.full((30, 44), 9, np.uint8)
    changed[3] = 200
    write_image(path, changed)
    data.images.loc[ids[5], "sha256"] = sha256_file(path)
    again = opened(tmp_path / "cache", data)
    assert (again.state, again.reason) == ("rebuilt", "stale: made from other images, or by another version")
    np.testing.assert_array_equal(again[5], prepare(changed, SPEC)[0])
    assert len(list((tmp_path / "cache").glob("*.pixels"))) == 1


def test_images_that_are_prepared_differently_now_make_it_stale(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(tmp_path, dataset)
    monkeypatch.setattr("weakray.imaging.stretch", lambda image: 255 - image)
    again = opened(tmp_path, dataset)
    assert (again.state, again.reason) == ("rebuilt", "stale: images are prepared differently now")


def test_other_ids_inputs_and_datasets_have_files_of_their_own(
    dataset: Dataset, make_spots: Callable[..., Dataset], tmp_path: Path
) -> None:
    ids, other = dataset.ids_of("train"), make_spots(tmp_path / "other", seed=1)
    for again in ("built", "found"):
        states = [
            opened(tmp_path / "cache", dataset, ids).state,
            opened(tmp_path / "cache", dataset, ids[::-1]).state,
            opened(tmp_path / "cache", dataset, ids, InputSpec(size_px=48, minmax=False)).state,
            opened(tmp_path / "cache", dataset, ids, InputSpec(size_px=48, mode="clahe")).state,
            opened(tmp_path / "cache", other, ids).state,
        ]
        assert states == [again] * 5


def test_a_build_that_fails_leaves_nothing(make_spots: Callable[..., Dataset], tmp_path: Path) -> None:
    data = make_spots(tmp_path / "data")
    data.path_of(data.ids_of("train")[20]).write_bytes(b"broken")
    with pytest.raises(DataError, match="could not decode it"):
        opened(tmp_path / "cache", data)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def test_a_disk_that_is_too_small_is_refused_before_and_one_that_fills_up_leaves_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 990_000, 10_000))  # type: ignore[attr-defined]
        with pytest.raises(RunError, match=r"needs 59,488 bytes, 10,000 are free; .*another cache_folder"):
            opened(tmp_path, dataset)

    def full(*_: Any) -> Iterator[np.ndarray]:
        yield np.zeros((48, 48), np.uint8)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(classify.cache, "_in_order", full)
    with pytest.raises(RunError, match=r"could not write the cache \(No space left on device\)"):
        opened(tmp_path, dataset)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_that_is_a_file_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be used as a cache folder"):
        opened(tmp_path / "file", dataset)


_BUILD = """
import os, signal, sys
from pathlib import Path
import classify.cache
from classify.cache import cached_images
from weakray.dataset import Dataset
from weakray.imaging import InputSpec
root, folder, kill_at = sys.argv[1:]
made = classify.cache._in_order
def fragile(*given):
    for row, image in enumerate(made(*given)):
        if row == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)
        yield image
classify.cache._in_order = fragile
dataset = Dataset.load(Path(root))
print(cached_images(Path(folder), dataset, dataset.ids_of("train"), InputSpec(size_px=48), 2).state)
"""


def started(dataset: Dataset, folder: Path, kill_at: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", _BUILD, str(dataset.root), str(folder), str(kill_at)]
    root = Path(classify.cache.__file__).parents[1]
    return subprocess.Popen(words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_build_leaves_no_half_file_and_the_next_one_clears_up(dataset: Dataset, tmp_path: Path) -> None:
    killed = started(dataset, tmp_path, kill_at=11)
    killed.communicate()
    assert killed.returncode == -9
    assert sorted(path.suffixes[-2:] for path in tmp_path.iterdir()) == [[".lock"], [".part", ".pixels"]]
    assert opened(tmp_path, dataset).state == "built"
    assert not list(tmp_path.glob(".*"))


def test_of_two_processes_one_builds_and_both_read(dataset: Dataset, tmp_path: Path) -> None:
    both = [started(dataset, tmp_path, kill_at=-1) for _ in range(2)]
    said = sorted(process.communicate()[0].strip() for process in both)
    assert said == ["built", "found"]


def test_of_several_threads_one_builds(dataset: Dataset, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        states = sorted(pool.map(lambda _: opened(tmp_path, dataset).state, range(3)))
    assert states == ["built", "found", "found"]


def test_training_from_the_cache_gives_the_same_bytes(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = {
        "data": dataset.root,
        "model": {"backbone": "test_resnet", "input": {"size_px": 48, "mode": "clahe"}},
        "epochs": 1,
        "batch_size": 6,
        "threads": 1,
        "precision": "fp32",
    }
    for name, cache in (("memory", None), ("built", tmp_path / "cache"), ("found", tmp_path / "cache")):
        classify.train.run(validate(TrainConfig, plain | {"out": tmp_path / name, "cache_folder": cache}))
    assert len(list((tmp_path / "cache").glob("48px-clahe-*.pixels"))) == 2  # train and val
    assert capsys.readouterr().err.count(": built, ") == 2
    for name in ("built", "found"):
        for file in ("model.safetensors", "metrics.jsonl"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "memory" / file).read_bytes()
