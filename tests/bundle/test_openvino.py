"""The runtime on OpenVINO: the same numbers as onnxruntime's, errors, and silence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bundle.conftest import SPEC
from weakray.bundle import runtime
from weakray.bundle.manifest import Manifest, OpenVinoPart, verify
from weakray.bundle.openvino import OpenVinoGraph
from weakray.bundle.runtime import Bundle, Graph
from weakray.errors import BundleError
from weakray.imaging import InputSpec
from weakray.stack import silence

WriteTiny = Callable[..., Manifest]
PART = OpenVinoPart(export="openvino", precision="f32", parity_passed=True)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, graphs: dict[str, Path]) -> Path:
    """The tiny detector for OpenVINO, every score 0.05 lower: so that one sees who ran."""
    silence()
    import openvino
    from openvino import opset13 as ops

    folder = tmp_path_factory.mktemp("converted")
    model = openvino.Core().read_model(str(graphs["detector_onnx"]))
    output = model.outputs[0].get_node()
    shift = np.zeros((1, 7, 1), np.float32)
    shift[0, 4:] = -0.05
    moved = ops.add(output.input_value(0), shift)
    moved.output(0).set_names({"raw"})
    openvino.save_model(openvino.Model([moved], model.get_parameters()), str(folder / "detector.xml"), False)
    return folder


@pytest.fixture
def both(tmp_path: Path, write_tiny: WriteTiny, converted: Path) -> Path:
    part = write_tiny(tmp_path / "plain").detector.model_copy(update={"openvino": PART})
    write_tiny(tmp_path / "both", detector=part, openvino=converted)
    return tmp_path / "both"


def scores(bundle: Bundle) -> list[float]:
    (found,) = bundle.predict([np.full((16, 32), 51, np.uint8)])
    return [round(score, 4) for score in found.detections.score.tolist()]


def test_the_bundle_takes_openvino_where_it_holds_a_graph_for_it(both: Path, bundle_folder: Path) -> None:
    assert scores(Bundle.load(both, threads=1)) == [0.85]  # Effusion's 0.25 falls below its threshold
    assert scores(Bundle.load(both, engine="onnxruntime")) == [0.9, 0.25]
    assert scores(Bundle.load(both, engine="openvino")) == [0.85]
    assert scores(Bundle.load(bundle_folder)) == [0.9, 0.25]
    with pytest.raises(BundleError, match="expected a detector for OpenVINO, the bundle holds none; export it with"):
        Bundle.load(bundle_folder, engine="openvino")


def test_without_openvino_onnxruntime_takes_over(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda _name: None)
    assert scores(Bundle.load(both)) == [0.9, 0.25]
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BundleError, match="expected OpenVINO to run it, which is not installed; install weakray"):
        Bundle.load(both, engine="openvino")


def test_its_files_are_held_to_their_hashes(both: Path) -> None:
    assert {"detector.xml", "detector.bin"} < set(verify(both).files)
    (both / "detector.bin").write_bytes(b"?")
    with pytest.raises(BundleError, match=r"detector.bin: expected \d+ bytes, got 1"):
        Bundle.load(both)


@pytest.mark.parametrize("count", [1, 3])
def test_same_numbers_as_onnxruntime(graphs: dict[str, Path], count: int) -> None:
    images = list(np.random.default_rng(count).integers(0, 256, (count, 32, 32), np.uint8))
    outputs = {"probabilities": 3, "maps": 3}
    path = graphs["classifiers_onnx"]
    ours = OpenVinoGraph(path, SPEC, outputs, threads=1).run(images, ["maps", "probabilities"])
    theirs = Graph(path, SPEC, outputs, threads=1).run(images, ["maps", "probabilities"])
    assert [value.shape for value in ours] == [(count, 3, 4, 4), (count, 3)]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)


def test_colours_keep_their_places(tmp_path: Path) -> None:
    silence()
    import openvino
    from openvino import opset13 as ops

    images = ops.parameter([-1, 3, 4, 4], np.float32)
    images.output(0).set_names({"images"})
    flat = ops.reshape(images, np.array([0, 3, 16]), special_zero=True)
    flat.output(0).set_names({"raw"})
    openvino.save_model(openvino.Model([flat], [images]), str(tmp_path / "flat.xml"), False)
    graph = OpenVinoGraph(tmp_path / "flat.xml", InputSpec(size_px=4, channels=3), {"raw": 3}, threads=1)
    films = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    for shown in (films[:1], films):
        (raw,) = graph.run(list(shown), ["raw"])
        np.testing.assert_allclose(raw, shown.transpose(0, 3, 1, 2).reshape(len(shown), 3, 16) / 255, atol=1e-6)


def test_answers_are_the_callers_own_and_threads_may_share_a_graph(graphs: dict[str, Path]) -> None:
    graph = OpenVinoGraph(graphs["classifiers_onnx"], SPEC, {"probabilities": 3, "maps": 3}, threads=1)
    greys = range(0, 250, 6)

    def ask(grey: int) -> Any:
        return graph.run([np.full((32, 32), grey, np.uint8)], ["probabilities"])[0]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, greys))
    np.testing.assert_allclose([answer[0, 0] for answer in found], np.array(greys) / 255, atol=1e-6)
    found[0][:] = 7  # may be written to, and is nobody else's
    assert ask(51)[0, 0] == pytest.approx(0.2)


def test_graphs_of_the_wrong_form(graphs: dict[str, Path], tmp_path: Path) -> None:
    path = graphs["detector_onnx"]
    with pytest.raises(BundleError, match=r"expected one input images \(n, 3, 64, 64\) with n free, got .*,1,32,32\]"):
        OpenVinoGraph(path, InputSpec(size_px=64, channels=3), {"raw": 7})
    with pytest.raises(BundleError, match=r"expected outputs with these sizes of axis 1: {'raw': 9}, got .*7,4"):
        OpenVinoGraph(path, SPEC, {"raw": 9})
    (tmp_path / "graph.xml").write_text("<net>")
    with pytest.raises(BundleError, match=r"graph.xml: expected a graph that OpenVINO can run, got: "):
        OpenVinoGraph(tmp_path / "graph.xml", SPEC, {"raw": 7})


def test_a_bundle_of_format_1_is_read(bundle_folder: Path) -> None:
    path = bundle_folder / "bundle.json"
    text = path.read_text().replace('"format_version": 2', '"format_version": 1')
    assert '"openvino": null' in text
    path.write_text(text.replace(',\n    "openvino": null', ""))
    assert scores(Bundle.load(bundle_folder)) == [0.9, 0.25]


_QUIET = """
import socket, sys
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from pathlib import Path
import numpy as np
from weakray.bundle.runtime import Bundle
print(len(Bundle.load(Path(sys.argv[1]), engine="openvino").predict([np.full((16, 32), 51, np.uint8)])[0].detections))
if len(sys.argv) > 2:
    import nncf
    print(type(nncf.telemetry.wrapper.telemetry).__name__)
assert "openvino_telemetry" not in {name for name, module in sys.modules.items() if module is not None}
"""


@pytest.mark.parametrize("words", [(), pytest.param(("nncf",), marks=pytest.mark.soak)])
def test_openvino_phones_nobody_and_writes_nothing(both: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    names = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
    folders = {name: tmp_path / "outside" / name for name in names}
    for folder in folders.values():
        folder.mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", _QUIET, str(both), *words],
        cwd=tmp_path / "outside",
        env={
            **os.environ,
            **{name: str(folder) for name, folder in folders.items()},
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", *(["MagicMock"] if words else [])]
    assert [path for path in (tmp_path / "outside").rglob("*") if path.is_file()] == []
