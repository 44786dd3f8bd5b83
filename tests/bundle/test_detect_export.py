"""The exported detector equals torch on real images, or there is no bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from classify import export as classify_export
from detect import trials
from detect.detector import load_detector, predict_boxes
from detect.export import ExportConfig, run
from detect.exporting import write_export
from detect.formats import LOSSY
from detect.opening import open_detector
from detect.parity import DetectorParity, ToleranceConfig, match_anchors
from detect.trials import ExportRow
from weakray.bundle.manifest import verify
from weakray.bundle.runtime import Bundle, Engine
from weakray.config import to_plain
from weakray.dataset import Dataset
from weakray.errors import ConfigError, RunError
from weakray.files import read_json, write_json, write_yaml
from weakray.imaging import read_image
from weakray.runs import commit


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, ensemble: Path, detector: Path
) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("export")
    classify_export.run(
        classify_export.ExportConfig(
            data=dataset.root, ensemble=ensemble, out=root / "classifiers", parity_images=2, threads=1
        )
    )
    write_yaml(root / "recipe.yaml", {"findings": {}})
    return {
        "data": dataset.root,
        "detector": detector,
        "classifiers": root / "classifiers",
        "recipe": root / "recipe.yaml",
        "out": root / "out",
        "parity_images": 10,
        "threads": 1,
        "score_thresholds": {"Nodule": 0.6},
    }


@pytest.fixture(scope="module")
def exported(settings: dict[str, Any]) -> Path:
    result = run(ExportConfig(**settings))
    assert result.bundle == settings["out"] / "bundle"
    assert result.parity_passed
    assert result.parity.images == 10
    assert result.parity.boxes > 100
    assert result.parity.matched_fraction == 1
    assert result.parity.max_score_difference < 1e-3
    assert result.bytes["detector.onnx"] == (result.bundle / "detector.onnx").stat().st_size
    return result.bundle


def test_bundle_holds_what_it_should(exported: Path, dataset: Dataset, settings: dict[str, Any]) -> None:
    manifest = verify(exported)
    assert manifest.detector.score_thresholds == {"Opacity": 0.25, "Nodule": 0.6, "Effusion": 0.25}
    assert manifest.detector.input == load_detector(settings["detector"]).network.spec
    assert manifest.origin.model_dump() == {
        "commit": commit(),
        "dataset": "made for tests",
        "dataset_sha256": dataset.sha256,
    }
    assert (exported / "recipe.yaml").read_bytes() == settings["recipe"].read_bytes()
    assert Bundle.load(exported).taxonomy == dataset.taxonomy
    assert "agree with the torch models" in (exported / "README.md").read_text()


@pytest.mark.parametrize("count", [1, 3])
def test_bundle_predicts_as_torch_does(exported: Path, dataset: Dataset, detector: Path, count: int) -> None:
    images = [read_image(dataset.path_of(i)) for i in dataset.ids_of("test")[:count]]
    assert all(image.shape[0] != image.shape[1] for image in images)
    thresholds = np.array([0.25, 0.6, 0.25])
    shown = 0
    for found, expected in zip(
        Bundle.load(exported, threads=1).predict(images),
        load_detector(detector).predict(images, score_above=0.001, iou_above=0.6, max_boxes=10_000),
        strict=True,
    ):
        wanted = expected.where(expected.score >= thresholds[expected.class_id]).best_first(100)
        np.testing.assert_array_equal(found.detections.class_id, wanted.class_id)
        np.testing.assert_allclose(found.detections.score, wanted.score, atol=1e-3)
        np.testing.assert_allclose(found.detections.boxes_xyxy_px, wanted.boxes_xyxy_px, atol=0.05)
        shown += len(wanted)
    assert shown > 10


def test_same_inputs_same_bytes(exported: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    again = run(ExportConfig(**{**settings, "out": tmp_path / "elsewhere"})).bundle
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in exported.iterdir()}


def test_finished_export_is_not_done_again_unless_damaged(exported: Path, settings: dict[str, Any]) -> None:
    before = (exported / "bundle.json").stat().st_mtime_ns
    first = run(ExportConfig(**settings))
    assert (exported / "bundle.json").stat().st_mtime_ns == before
    assert to_plain(run(ExportConfig(**settings))) == to_plain(first)
    (exported / "recipe.yaml").write_text("changed")
    run(ExportConfig(**settings))
    verify(exported)


def spoil(source: Path, path: Path) -> None:
    """Copies an exported detector and moves its every box two pixels to the right, so that small ones do not match."""
    graph = onnx.load(source)
    shift = np.zeros((1, 7, 1), np.float32)
    shift[0, 0] = 2
    graph.graph.initializer.append(onnx.numpy_helper.from_array(shift, "shift"))
    last = next(node for node in graph.graph.node if "raw" in node.output)
    last.output[list(last.output).index("raw")] = "unshifted"
    graph.graph.node.append(onnx.helper.make_node("Add", ["unshifted", "shift"], ["raw"]))
    onnx.save(graph, path)


def test_detector_that_differs_is_refused_and_can_be_forced(
    exported: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported / "detector.onnx"
    monkeypatch.setattr(trials, "export_detector", lambda _folder, path, _opset: spoil(source, path))
    changed = {**settings, "out": tmp_path / "out"}
    with pytest.raises(
        RunError, match=r"differs from torch: \d+\.\d% of \d+ boxes on 10 images .* at least 99.0%.* set"
    ):
        run(ExportConfig(**changed))
    assert not (tmp_path / "out" / "bundle").exists()
    result = run(ExportConfig(**changed, force=True))
    assert not result.parity_passed
    assert result.parity.matched_fraction < 0.99
    assert verify(result.bundle).detector.parity_passed is False
    assert "DIFFER from the torch models" in (result.bundle / "README.md").read_text()


def test_killed_export_leaves_no_half_bundle(
    exported: Path, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = exported / "detector.onnx"
    monkeypatch.setattr(trials, "export_detector", lambda _folder, path, _opset: shutil.copyfile(source, path))
    changed = ExportConfig(**{**settings, "out": tmp_path / "out"})
    with monkeypatch.context() as patch:
        patch.setattr("weakray.bundle.writing._swap_in", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(changed)
    assert not (tmp_path / "out" / "bundle").exists()
    assert not (tmp_path / "out" / "done.json").exists()
    verify(run(changed).bundle)
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def raw(*anchors: tuple[float, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array(anchors, np.float32).T[None]


def test_match_anchors_by_hand() -> None:
    # Boxes of 20 x 10 px; moved by 1 px right they share 19/21 = 0.905, by 0.4 px 19.6/20.4 = 0.961.
    expected = raw((50, 50, 20, 10, 0.9, 0.0), (50, 50, 20, 10, 0.5, 0.04), (50, 50, 20, 10, 0.0, 0.3))
    got = raw((51, 50, 20, 10, 0.9, 0.0), (50.4, 50, 20, 10, 0.509, 0.06), (50, 50, 20, 10, 0.0, 0.32))
    counted, near, placed = match_anchors(expected, got, ToleranceConfig())
    assert counted.tolist() == [[[True, True, False], [False, True, True]]]
    assert near.tolist() == [[[False, True, True], [False, False, False]]]
    assert placed.tolist() == [[[False, True, True], [False, True, True]]]


def test_boxes_without_area_never_match() -> None:
    flat = raw((50, 50, 0, 10, 0.9))
    counted, near, _ = match_anchors(flat, flat, ToleranceConfig())
    assert counted.all()
    assert not near.any()


def test_without_boxes_every_score_must_be_near() -> None:
    assert parity(boxes=0, max_score_difference=0.01).passes(ToleranceConfig(), lossy=False)
    assert not parity(boxes=0, max_score_difference=0.0101).passes(ToleranceConfig(), lossy=False)


def test_an_export_without_boxes_is_not_said_to_agree_on_all_of_them() -> None:
    row = ExportRow(format="onnx", bytes=1, parity=parity(boxes=0), parity_passed=True, refused=False)
    assert row.told() == "- `onnx`: no box on 3 val images is sure enough to be compared."
    assert (
        row.model_copy(update={"parity": parity()}).told() == "- `onnx`: 100.0% of 9 boxes on 3 val images as in torch."
    )


def parity(**changes: Any) -> DetectorParity:
    figures: dict[str, Any] = {"images": 3, "boxes": 9, "matched_fraction": 1.0, "placed_fraction": 1.0}
    return DetectorParity(**{**figures, "max_score_difference": 0.2, "mean_score_difference": 0.0, **changes})


@pytest.mark.parametrize(
    ("lossy", "loss", "passes"), [(True, 0.01, True), (True, 0.0101, False), (True, None, False), (False, 0.0, False)]
)
def test_lower_precision_passes_by_average_precision_on_tune_alone(
    lossy: bool, loss: float | None, passes: bool
) -> None:
    """Box by box it cannot agree; test has no say, however much is lost there."""
    found = parity(matched_fraction=0.5, ap50_loss_tune=loss, ap50_loss_test=0.9)
    assert found.passes(ToleranceConfig(), lossy=lossy) is passes


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"Mass": 0.5}, r"score_thresholds.Mass: no such finding; expected some of Opacity, Nodule, Effusion"),
        ({"Nodule": 1.5}, r"score_thresholds.Nodule: expected a score in \[0, 1\], got 1.5"),
    ],
)
def test_wrong_thresholds(settings: dict[str, Any], thresholds: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(ExportConfig(**{**settings, "score_thresholds": thresholds}))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("detector", r"expected a trained detector, found no detector.json; run `weakray detect train`"),
        ("classifiers", r"expected exported classifiers, found no classifiers.json; run `weakray classify export`"),
        ("recipe", r"expected a recipe, found none; run `weakray camgen search`"),
    ],
)
def test_missing_inputs_say_what_to_run(settings: dict[str, Any], tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        run(ExportConfig(**{**settings, "out": tmp_path / "out", setting: tmp_path / "nowhere"}))
    assert not (tmp_path / "out").exists()


def test_classifiers_of_other_findings(settings: dict[str, Any], tmp_path: Path) -> None:
    other = tmp_path / "classifiers"
    shutil.copytree(settings["classifiers"], other)
    part = read_json(other / "classifiers.json")
    part["findings"] = part["findings"][::-1]
    write_json(other / "classifiers.json", part)
    with pytest.raises(
        RunError, match=r"classifiers: expected the findings of .* got \['Effusion', 'Nodule', 'Opacity'\]"
    ):
        run(ExportConfig(**{**settings, "classifiers": other, "out": tmp_path / "out"}))


ENGINES: tuple[Engine, Engine] = ("openvino", "onnxruntime")


@pytest.fixture(scope="module")
def several(exported: Path, settings: dict[str, Any]) -> Path:
    """Exports in float32 that need no GPU; the one for OpenVINO is in the bundle."""
    forms = ("openvino", "torchscript")
    out = settings["out"].with_name("several")
    result = run(ExportConfig(**{**settings, "out": out, "formats": forms, "ship": "openvino"}))
    assert [row.format for row in result.exports] == ["onnx", *forms]
    assert result.refused == ()
    assert result.torch_speed is None
    for row in result.exports:
        assert row.parity_passed
        assert row.parity.images == 10
        assert row.parity.ap50_loss_tune is None  # this dataset has no true boxes
        assert row.speed is None  # nobody asked
    return out


def test_every_form_lies_whole_in_its_folder(several: Path, dataset: Dataset, detector: Path) -> None:
    images = [read_image(dataset.path_of(i)) for i in dataset.ids_of("test")[:3]]
    expected = load_detector(detector).predict(images)
    for form in ("onnx", "openvino", "torchscript"):
        model = open_detector(several / "exports" / form, threads=1)
        for mine, theirs in zip(predict_boxes(model, images), expected, strict=True):
            np.testing.assert_allclose(np.sort(mine.score), np.sort(theirs.score), atol=5e-3)


def test_the_bundle_runs_on_openvino_as_on_onnxruntime(several: Path, dataset: Dataset) -> None:
    manifest = verify(several / "bundle")
    assert manifest.detector.openvino is not None
    assert manifest.detector.openvino.model_dump() == {
        "export": "openvino",
        "precision": "f32",
        "parity_passed": True,
    }
    images = [read_image(dataset.path_of(i)) for i in dataset.ids_of("test")[:3]]
    ours, theirs = (Bundle.load(several / "bundle", 1, engine).predict(images) for engine in ENGINES)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.detections.score, other.detections.score, atol=1e-3)
        np.testing.assert_allclose(mine.detections.boxes_xyxy_px, other.detections.boxes_xyxy_px, atol=0.05)
    card = (several / "bundle" / "README.md").read_text()
    assert "OpenVINO runs the export `openvino`." in card
    assert "- `torchscript`: 100.0% of" in card


def test_exports_have_the_same_bytes_again(several: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    write_export(tmp_path / "again", "openvino", settings["detector"], several / "detector.onnx", [])
    for name in ("detector.xml", "detector.bin"):
        assert (several / "exports" / "openvino" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_form_that_differs_is_refused_and_the_others_are_made(settings: dict[str, Any], tmp_path: Path) -> None:
    """Half precision moves an untrained network's small boxes too far, and no true box says that it matters not."""
    changed = {**settings, "out": tmp_path / "out", "formats": ("openvino-fp16",)}
    result = run(ExportConfig(**changed))
    assert result.refused == ("openvino-fp16",)
    assert result.exports[1].bytes < 0.7 * result.exports[0].bytes
    assert not (tmp_path / "out" / "exports" / "openvino-fp16").exists()
    assert (tmp_path / "out" / "exports" / "onnx" / "export.json").is_file()
    assert "`openvino-fp16`" in (result.bundle / "README.md").read_text()
    assert "REFUSED: not kept." in (result.bundle / "README.md").read_text()
    with pytest.raises(RunError, match=r"the exported graph \(openvino-fp16\) differs from torch: .* set force: true"):
        run(ExportConfig(**changed, ship="openvino-fp16"))


def test_half_precision_is_half_the_size_and_takes_and_gives_float32(
    settings: dict[str, Any], dataset: Dataset, detector: Path, tmp_path: Path
) -> None:
    changed = {**settings, "out": tmp_path / "out", "formats": ("onnx-fp16",), "force": True}
    row = run(ExportConfig(**changed)).exports[1]
    assert (row.format, row.refused) == ("onnx-fp16", False)
    assert row.bytes < 0.6 * run(ExportConfig(**changed)).exports[0].bytes
    assert 0 < row.parity.mean_score_difference < 0.01
    folder = tmp_path / "out" / "exports" / "onnx-fp16"
    graph = onnx.load(folder / "detector.onnx").graph
    assert [end.type.tensor_type.elem_type for end in (*graph.input, *graph.output)] == [onnx.TensorProto.FLOAT] * 2
    weights = [tensor for tensor in graph.initializer if np.prod(tensor.dims) > 64]
    assert {tensor.data_type for tensor in weights} == {onnx.TensorProto.FLOAT16}
    assert len(weights) > 20
    images = [read_image(dataset.path_of(i)) for i in dataset.ids_of("test")[:3]]
    for mine, theirs in zip(
        predict_boxes(open_detector(folder, threads=1), images), load_detector(detector).predict(images), strict=True
    ):
        np.testing.assert_allclose(np.sort(mine.score)[-20:], np.sort(theirs.score)[-20:], atol=0.05)
    write_export(tmp_path / "again", "onnx-fp16", detector, tmp_path / "out/exports/onnx/detector.onnx", [])
    assert (tmp_path / "again" / "detector.onnx").read_bytes() == (folder / "detector.onnx").read_bytes()


def test_half_precision_passes_by_average_precision() -> None:
    assert "onnx-fp16" in LOSSY


def test_killed_between_two_forms_it_goes_on_after_the_first(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = ExportConfig(**{**settings, "out": tmp_path / "out", "formats": ("openvino", "torchscript")})
    real, made = write_export, list[str]()

    def counted(folder: Path, kind: Any, *rest: Any) -> None:
        made.append(kind)
        real(folder, kind, *rest)
        if made == ["onnx", "openvino"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(trials, "write_export", counted)
    with pytest.raises(KeyboardInterrupt):
        run(changed)
    run(changed)
    assert made == ["onnx", "openvino", "openvino", "torchscript"]


def test_a_form_to_ship_must_be_made(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"ship: expected one of formats, \['openvino'\], got 'openvino-int8'; add"):
        run(ExportConfig(**{**settings, "formats": ("openvino",), "ship": "openvino-int8"}))


def test_tensorrt_without_a_gpu_is_refused_before_any_work(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"formats: tensorrt-fp16: expected an NVIDIA GPU on this machine"):
        run(ExportConfig(**{**settings, "out": tmp_path / "out", "formats": ("tensorrt-fp16",)}))
    assert not (tmp_path / "out").exists()


@pytest.mark.soak  # NNCF alone takes seconds to import
def test_integers_are_scaled_by_val_images_and_the_head_stays_exact(settings: dict[str, Any], tmp_path: Path) -> None:
    forms = ("openvino-int8",)
    changed = {**settings, "formats": forms, "calibration_images": 4, "force": True}
    result = run(ExportConfig(**{**changed, "out": tmp_path / "out"}))
    row = result.exports[1]
    assert row.bytes < 0.55 * result.exports[0].bytes
    assert 0.0005 < row.parity.mean_score_difference < 0.2
    xml = (tmp_path / "out" / "exports" / "openvino-int8" / "detector.xml").read_text()
    assert 50 < xml.count('type="FakeQuantize"') < 230  # with the head's there are 271
    run(ExportConfig(**{**changed, "out": tmp_path / "again"}))
    for name in ("detector.xml", "detector.bin"):
        here, there = (tmp_path / root / "exports" / "openvino-int8" / name for root in ("out", "again"))
        assert here.read_bytes() == there.read_bytes()
