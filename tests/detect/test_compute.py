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
from weakray.imaging import read_image

CPU = torch.device("cpu")
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


@needs_cuda
def test_a_gpu_learns_what_the_processor_learns(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset()
    images = [read_image(dataset.path_of(image_id)) for image_id in dataset.ids_of("test")]
    scores = {}
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        train(config_of(dataset, folder, tiny_architecture, device=device, bf16=False))
        there = load_detector(folder, device)
        assert there.network.device.type == device
        scores[device] = np.concatenate([np.sort(found.score) for found in there.predict(images)])
        here = np.concatenate([np.sort(found.score) for found in load_detector(folder).predict(images)])
        np.testing.assert_allclose(scores[device], here, atol=1e-3)
    np.testing.assert_allclose(scores["cuda"], scores["cpu"], atol=0.02)
