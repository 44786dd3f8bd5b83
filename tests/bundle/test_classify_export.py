"""The exported ensemble equals torch on real images, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from classify import export as command
from classify.ensemble import Ensemble, EnsembleConfig
from classify.ensemble import run as make_ensemble
from classify.export import ExportConfig, export_ensemble, run, served_input
from tests.bundle.conftest import TAXONOMY
from tests.classify.conftest import untrained
from weakray.bundle.parity import spread
from weakray.bundle.runtime import Graph
from weakray.config import to_plain
from weakray.dataset import Dataset
from weakray.errors import RunError
from weakray.imaging import prepare, read_image, to_batch


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, ensemble: Path) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("exported") / "out"
    return {"data": dataset.root, "ensemble": ensemble, "out": out, "parity_images": 10, "threads": 1}


@pytest.fixture(scope="module")
def exported(settings: dict[str, Any]) -> Path:
    result = run(ExportConfig(**settings))
    assert result.images == 10
    assert result.parity_passed
    assert result.max_probability_difference < 1e-4
    assert result.max_map_difference < 1e-4
    assert result.bytes == (settings["out"] / "classifiers.onnx").stat().st_size
    assert result.torch_p50_ms > 0
    assert result.onnxruntime_p50_ms > 0
    return Path(settings["out"])


@pytest.mark.parametrize("batch_size", [1, 3])
def test_graph_equals_the_ensemble(exported: Path, ensemble: Path, dataset: Dataset, batch_size: int) -> None:
    loaded = Ensemble.load(ensemble)
    graph = Graph(exported / "classifiers.onnx", loaded.input, {"probabilities": 3, "maps": 3}, 1)
    ids = dataset.ids_of("test")[:batch_size]
    batch = to_batch([prepare(read_image(dataset.path_of(i)), loaded.input)[0] for i in ids])
    probabilities, maps = graph.run_batch(batch, ["probabilities", "maps"])
    expected, expected_maps = loaded.both(torch.from_numpy(batch))
    assert probabilities.shape == (batch_size, 3)
    assert maps.shape == (batch_size, 3, 4, 4)  # the finer member's grid: 64 px at stride 16
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(maps, expected_maps.numpy(), atol=1e-5)
    assert (probabilities[:, 1] <= probabilities[:, 0]).all()  # nodule is a child of opacity


def test_description_fits_the_bundle(exported: Path, ensemble: Path) -> None:
    part = json.loads((exported / "classifiers.json").read_text())
    assert part["findings"] == ["Opacity", "Nodule", "Effusion"]
    assert part["input"] == {"size_px": 64, "mode": "grey", "channels": 1, "minmax": True}
    assert part["members"] == [member.sha256 for member in Ensemble.load(ensemble).members]
    assert part["decision_thresholds"]["Nodule"] == 0.5
    assert "on the 11 val images; 0.5 where there is no positive: Nodule." in part["calibration"]


def test_thresholds_are_those_of_the_graph_on_val(exported: Path, ensemble: Path, dataset: Dataset) -> None:
    loaded = Ensemble.load(ensemble)
    batch = to_batch([prepare(read_image(dataset.path_of(i)), loaded.input)[0] for i in dataset.ids_of("val")])
    probability = loaded.probabilities(torch.from_numpy(batch)).numpy()[:, 2]
    truth = dataset.labels.loc[dataset.ids_of("val"), "Effusion"].to_numpy() == 1

    def f1(threshold: float) -> float:
        called = probability >= threshold
        return float(2 * (called & truth).sum() / (called.sum() + truth.sum()))

    threshold = json.loads((exported / "classifiers.json").read_text())["decision_thresholds"]["Effusion"]
    assert f1(threshold) == max(f1(value) for value in probability)


def test_same_ensemble_same_bytes(exported: Path, ensemble: Path, tmp_path: Path) -> None:
    export_ensemble(ensemble, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (exported / "classifiers.onnx").read_bytes()
    graph = onnx.load(tmp_path / "again.onnx")
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)
    assert b"/classify/" not in (tmp_path / "again.onnx").read_bytes()


def test_finished_export_is_not_done_again(
    exported: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(ExportConfig(**settings))
    monkeypatch.setattr(command, "export_ensemble", lambda *_: pytest.fail("exported again"))
    assert to_plain(run(ExportConfig(**settings))) == to_plain(first)


def test_graph_that_differs_is_refused_and_can_be_forced(
    exported: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(folder: Path, path: Path) -> None:
        graph = onnx.load(exported / "classifiers.onnx")
        for weights in graph.graph.initializer:
            if weights.name.endswith("conv.bias"):  # the head's
                values = onnx.numpy_helper.to_array(weights) + np.float32(0.3)
                weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
        onnx.save(graph, path)

    monkeypatch.setattr(command, "export_ensemble", spoilt)
    changed = {**settings, "out": tmp_path / "out"}
    with pytest.raises(
        RunError, match=r"differs from torch on 10 images: probabilities by up to 0.\d+ .*at most 0.001"
    ):
        run(ExportConfig(**changed))
    assert not (tmp_path / "out" / "classifiers.onnx").exists()
    result = run(ExportConfig(**changed, force=True))
    assert not result.parity_passed
    assert result.max_probability_difference > 1e-3
    assert json.loads((tmp_path / "out" / "classifiers.json").read_text())["parity_passed"] is False


def of_inputs(root: Path, dataset: Dataset, *inputs: dict[str, int]) -> Path:
    """An ensemble of untrained members that see these inputs."""
    members = [untrained(root / f"m{i}", i, TAXONOMY, input=spec) for i, spec in enumerate(inputs)]
    make_ensemble(EnsembleConfig(data=dataset.root, members=members, out=root / "e", draws=5, threads=1))
    return root / "e"


def test_members_of_two_sizes_take_one_picture(dataset: Dataset, tmp_path: Path) -> None:
    sizes = of_inputs(tmp_path, dataset, {"size_px": 64}, {"size_px": 48})
    result = run(ExportConfig(data=dataset.root, ensemble=sizes, out=tmp_path / "out", parity_images=5, threads=1))
    assert result.parity_passed
    assert result.max_probability_difference < 1e-5
    loaded = Ensemble.load(sizes)
    spec = served_input(loaded)
    assert spec.size_px == 64
    graph = Graph(tmp_path / "out/classifiers.onnx", spec, {"probabilities": 3, "maps": 3}, 1)
    found: list[float] = []
    for image_id in spread(dataset.ids_of("val"), 5):
        image = read_image(dataset.path_of(image_id))
        own = [torch.from_numpy(to_batch([prepare(image, each)[0]])) for each in loaded.inputs]
        served = graph.run_batch(own[0].numpy(), ["probabilities", "maps"])
        np.testing.assert_allclose(served[1], loaded.graph(own[0])[1].detach().numpy(), atol=1e-5)
        found.append(float(np.abs(served[0] - loaded.probabilities(own).numpy()).max()))
    assert result.max_resize_difference == pytest.approx(max(found), abs=1e-6)
    assert 0 < max(found) < 0.05  # the same picture, shrunk twice
    part = json.loads((tmp_path / "out/classifiers.json").read_text())
    assert part["input"]["size_px"] == 64
    assert "Members of smaller input see the image shrunk inside the graph" in part["calibration"]


def test_inputs_that_differ_in_more_than_size_are_refused(dataset: Dataset, tmp_path: Path) -> None:
    folder = of_inputs(tmp_path, dataset, {"size_px": 64, "channels": 3}, {"size_px": 48})
    text = r"m0 and .*m1 see unlike images \(.*channels=3.*channels=1.*a bundle feeds one image"
    with pytest.raises(RunError, match=text):
        run(ExportConfig(data=dataset.root, ensemble=folder, out=tmp_path / "out"))
    assert not (tmp_path / "out/classifiers.onnx").exists()


def test_members_of_one_size_have_no_difference_to_report(exported: Path) -> None:
    assert json.loads((exported / "done.json").read_text())["result"]["max_resize_difference"] is None
