"""Where a detector is trained and finds its boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detect.compute import bf16_pays, torch_device
from detect.detector import load_detector
from detect.train import run as train
from tests.detect.conftest import DatasetMaker, config_of
from weakray.errors import ConfigError
from weakray.imaging import InputSpec, prepare, read_image

CPU = torch.device("cpu")
# Only a GPU can show that it learns as a processor does. What is chosen where there is none is tested without the mark.
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_cuda_is_taken_where_it_is_and_missed_aloud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [torch_device(name).type for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [torch_device(name).type for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(ConfigError, match="device: expected a CUDA device, torch finds none; set device to cpu or"):
        torch_device("cuda")


@pytest.mark.parametrize(
    ("found", "pays"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True}, False)]
)
def test_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], pays: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", found.copy)
    assert bf16_pays(CPU) is pays


def test_a_missing_device_leaves_no_run_folder(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: expected a CUDA device"):
        train(config_of(make_dataset(), tmp_path / "run", tiny_architecture, device="cuda"))
    assert not (tmp_path / "run").exists()


def test_a_run_is_found_again_whatever_device_is_asked_for(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset()
    first = train(config_of(dataset, tmp_path / "run", tiny_architecture, device="cpu"))
    written = (tmp_path / "run" / "done.json").stat().st_mtime_ns
    assert train(config_of(dataset, tmp_path / "run", tiny_architecture, device="auto")) == first
    assert (tmp_path / "run" / "done.json").stat().st_mtime_ns == written


@needs_cuda
def test_a_gpu_learns_what_the_processor_learns(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset, spec = make_dataset(), InputSpec(size_px=64)
    images = [prepare(read_image(dataset.path_of(image_id)), spec)[0] for image_id in dataset.ids_of("test")]
    raw = {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        train(config_of(dataset, folder, tiny_architecture, device=device, bf16=False))
        there = load_detector(folder, device)
        assert there.network.device.type == device
        raw[device] = there.raw(images)
        np.testing.assert_allclose(raw[device][:, 4:], load_detector(folder).raw(images)[:, 4:], atol=1e-3)
    np.testing.assert_allclose(raw["cuda"][:, 4:], raw["cpu"][:, 4:], atol=0.02)
