"""`detect predict`, `evaluate` and `benchmark`: from weights, exports and bundles; on datasets and folders of films."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from detect.benchmark import DetectBenchmarkConfig
from detect.benchmark import run as benchmark
from detect.detector import load_detector, predict_boxes
from detect.evaluate import DetectEvaluateConfig
from detect.evaluate import run as evaluate
from detect.exporting import export_detector, write_export
from detect.formats import Format, files_of, open_graph, seal
from detect.network import new_network, save_network
from detect.opening import open_detector
from detect.output import picture
from detect.predict import DetectPredictConfig
from detect.predict import run as predict
from eval.boxes import BoxesConfig
from eval.boxes import run as score
from tests.detect.conftest import NAMES, DatasetMaker, found_boxes
from weakray.bundle.manifest import DETECTOR
from weakray.coco import load_results
from weakray.dataset import Dataset
from weakray.detections import Detections
from weakray.errors import BundleError, ConfigError, DataError
from weakray.files import sha256_file, write_json
from weakray.imaging import InputSpec, read_image, write_image


@pytest.fixture
def detector(tiny_architecture: Path, tmp_path: Path) -> Path:
    """An untrained network whose scores are spread and whose boxes are small."""
    folder = tmp_path / "detector"
    folder.mkdir()
    save_network(folder, new_network(str(tiny_architecture), NAMES, InputSpec(size_px=64), seed=3), {"source": "made"})
    return folder


@pytest.fixture
def films(make_dataset: DatasetMaker, tmp_path: Path) -> tuple[Dataset, Path]:
    """A dataset, and its test films as a folder: PNG, JPEG in a subfolder, DICOM; beside a text and a broken film."""
    dataset = make_dataset()
    root = tmp_path / "films"
    (root / "ward 7").mkdir(parents=True)
    images = [read_image(dataset.path_of(image_id)) for image_id in dataset.ids_of("test")]
    write_image(root / "one.png", images[0])
    import cv2

    cv2.imwrite(str(root / "ward 7" / "two.jpg"), images[1])
    write_dicom(root / "three", images[2])
    (root / "notes.txt").write_text("no film")
    (root / "cut.png").write_bytes((root / "one.png").read_bytes()[:200])
    (root / ".hidden.png").write_bytes((root / "one.png").read_bytes())
    return dataset, root


def write_dicom(path: Path, image: Any) -> None:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    content = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    content.SOPClassUID, content.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    content.Modality, content.PhotometricInterpretation = "DX", "MONOCHROME2"
    content.Rows, content.Columns = image.shape
    content.SamplesPerPixel, content.PixelRepresentation = 1, 0
    content.BitsAllocated = content.BitsStored = 8
    content.HighBit = 7
    content.PixelData = image.tobytes() + b"\0" * (image.size % 2)
    content.save_as(path, enforce_file_format=True)


def exported(detector: Path, root: Path, kind: Format) -> Path:
    """A sealed export of an untrained detector."""
    export_detector(detector, root / DETECTOR, 18)
    write_export(root / kind, kind, detector, root / DETECTOR, [])
    model = open_graph(root / kind, kind, NAMES, InputSpec(size_px=64), 1)
    seal(root / kind, kind, model, sha256_file(detector / "detector.safetensors"), parity_passed=True)
    return root / kind


def test_a_folder_of_films_of_every_kind(films: tuple[Dataset, Path], detector: Path, tmp_path: Path) -> None:
    _, root = films
    config = DetectPredictConfig(
        images=root,
        detector=detector,
        out=tmp_path / "found",
        formats=("coco", "yolo", "csv"),
        pictures=2,
        drawn_from=0,
        max_boxes=5,
        threads=1,
    )
    result = predict(config)
    assert (result.images, result.rejected) == (3, 2)
    out = tmp_path / "found"
    rejected = list(csv.DictReader((out / "rejected.csv").read_text().splitlines()))
    assert [row["item"] for row in rejected] == ["cut.png", "notes.txt"]
    assert "expected a PNG, JPEG or DICOM file" in rejected[1]["detail"]
    found = load_results(out / "boxes.json")
    assert list(found) == ["one.png", "three", "ward 7/two.jpg"]
    assert result.boxes == sum(map(len, found.values())) > 0
    sizes = {name: read_image(root / name).shape[:2] for name in ("one.png", "ward 7/two.jpg")}
    coco = COCO(str(out / "coco.json"))
    assert [coco.imgs[i]["file_name"] for i in coco.getImgIds()] == list(found)
    assert (coco.imgs[1]["height"], coco.imgs[1]["width"]) == sizes["one.png"]
    assert len(coco.loadRes(coco.dataset["annotations"]).anns) == result.boxes
    rows = list(csv.DictReader((out / "boxes.csv").read_text().splitlines()))
    assert len(rows) == result.boxes
    first = found["one.png"]
    assert (rows[0]["image_id"], rows[0]["finding"]) == ("one.png", NAMES[first.class_id[0]])
    assert [float(rows[0][key]) for key in ("x0", "y0", "x1", "y1")] == pytest.approx(
        first.boxes_xyxy_px[0].tolist(), abs=2e-3
    )
    height, width = sizes["ward 7/two.jpg"]
    lines = (out / "yolo" / "labels" / "ward%207%2Ftwo.jpg.txt").read_text().splitlines()
    class_id, *box, told = lines[0].split()
    two = found["ward 7/two.jpg"]
    x0, y0, x1, y1 = two.boxes_xyxy_px[0].tolist()
    assert [float(value) for value in box] == pytest.approx(
        [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height], abs=2e-4
    )
    assert int(class_id) == two.class_id[0]
    assert float(told) == pytest.approx(two.score[0], abs=1e-5)
    assert (out / "yolo" / "classes.txt").read_text().split() == NAMES
    assert sorted(path.name for path in (out / "pictures").iterdir()) == ["one.png.png", "three.png"]
    assert read_image(out / "pictures" / "one.png.png").shape == (*sizes["one.png"], 3)
    assert predict(config) == result
    (root / "notes.txt").unlink()
    assert predict(config).rejected == 1


def test_a_folder_without_a_film_is_refused(detector: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    config = {"images": tmp_path / "films", "detector": detector, "out": tmp_path / "found"}
    with pytest.raises(DataError, match="expected PNG, JPEG or DICOM films, found no file"):
        predict(DetectPredictConfig(**config))
    (tmp_path / "films" / "notes.txt").write_text("?")
    with pytest.raises(DataError, match=r"found none that can be read among 1 files; .*rejected.csv says why"):
        predict(DetectPredictConfig(**config))
    with pytest.raises(DataError, match="images: expected a folder of films, found none at"):
        predict(DetectPredictConfig(**{**config, "images": tmp_path / "nowhere"}))
    with pytest.raises(ConfigError, match="expected either data .* or images .*, got both or neither"):
        predict(DetectPredictConfig(**{**config, "data": tmp_path}))


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torchscript"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_export_predicts_as_the_weights_do(
    make_dataset: DatasetMaker, detector: Path, tmp_path: Path, kind: Format, count: int
) -> None:
    dataset = make_dataset()
    images = [read_image(dataset.path_of(image_id)) for image_id in dataset.ids_of("test")[:count]]
    model = open_detector(exported(detector, tmp_path, kind), threads=1)
    assert (model.findings, model.spec) == (tuple(NAMES), InputSpec(size_px=64))
    for mine, theirs in zip(predict_boxes(model, images), load_detector(detector).predict(images), strict=True):
        np.testing.assert_allclose(np.sort(mine.score), np.sort(theirs.score), atol=1e-4)
        assert len(mine) > 0
    (tmp_path / kind / files_of(kind)[-1]).write_bytes(b"?")
    with pytest.raises(BundleError, match=r"not the file that export.json speaks of; export the detector again"):
        open_detector(tmp_path / kind)


def test_scores_are_those_of_the_boxes(make_dataset: DatasetMaker, detector: Path, tmp_path: Path) -> None:
    dataset = make_dataset()
    config = DetectEvaluateConfig(
        data=dataset.root, detector=detector, out=tmp_path / "scores", split="tune", draws=20, threads=1
    )
    result = evaluate(config)
    assert result.images == 3
    again = score(BoxesConfig(data=dataset.root, boxes=tmp_path / "scores/boxes/boxes.json", split="tune", draws=20))
    assert result == again
    written = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert written["split"] == "tune"
    assert {"ap50", "errors", "per_finding"} <= set(written)
    shutil.rmtree(tmp_path / "scores" / "boxes")
    assert evaluate(config) == result  # found, not done again


def test_a_detector_of_other_findings_is_refused(
    make_dataset: DatasetMaker, tiny_architecture: Path, tmp_path: Path
) -> None:
    dataset = make_dataset()
    (tmp_path / "other").mkdir()
    save_network(tmp_path / "other", new_network(str(tiny_architecture), ["Bar", "Disc"], InputSpec(size_px=64), 0), {})
    message = r"expected a detector of the findings of .*, \['Disc', 'Bar'\], got one of \['Bar', 'Disc'\]; name the"
    with pytest.raises(DataError, match=message):
        predict(DetectPredictConfig(data=dataset.root, detector=tmp_path / "other", out=tmp_path / "found"))
    with pytest.raises(DataError, match=message):
        evaluate(DetectEvaluateConfig(data=dataset.root, detector=tmp_path / "other", out=tmp_path / "scores"))


def test_a_folder_that_is_no_detector_is_refused(make_dataset: DatasetMaker, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected a detector .*, an export or a bundle .*, found no detector.json"):
        predict(DetectPredictConfig(data=make_dataset().root, detector=tmp_path, out=tmp_path / "found"))


def test_a_deleted_image_of_a_dataset_is_an_error(make_dataset: DatasetMaker, detector: Path, tmp_path: Path) -> None:
    dataset = make_dataset()
    dataset.path_of(dataset.ids_of("test")[1]).unlink()
    config = DetectPredictConfig(data=dataset.root, detector=detector, out=tmp_path / "found", threads=1)
    with pytest.raises(DataError, match=r"10.png: expected an image file, got No such file or directory"):
        predict(config)
    assert not (tmp_path / "found" / "done.json").exists()


def test_detectors_are_timed_side_by_side(make_dataset: DatasetMaker, detector: Path, tmp_path: Path) -> None:
    dataset, onnx = make_dataset(), exported(detector, tmp_path, "onnx")
    config = DetectBenchmarkConfig(
        data=dataset.root,
        detectors=(detector, onnx),
        split="test",
        images=3,
        turns=1,
        threads=1,
        out=tmp_path / "speeds.json",
    )
    result = benchmark(config)
    torch_speed, graph_speed = (result.speeds[str(folder)] for folder in (detector, onnx))
    for speed in (torch_speed, graph_speed):
        assert 0 < speed.p50_ms <= speed.p95_ms
        assert speed.images_per_s > 0
        assert speed.threads == 1
    assert 50 < graph_speed.peak_mib < torch_speed.peak_mib / 1.5  # torch is not in its process
    written = json.loads((tmp_path / "speeds.json").read_text())
    assert written["speeds"][str(onnx)]["sha256"] == sha256_file(onnx / "export.json")
    with pytest.raises(DataError, match="split 'val' has no image to time; choose another split"):
        benchmark(config.model_copy(update={"split": "val"}))


def test_a_picture_shows_boxes_in_their_places() -> None:
    image = np.full((40, 64), 100, np.uint8)
    found = found_boxes([[10, 22, 30, 34], [40, 20, 60, 36]], [0, 1], [0.9, 0.4])
    shown = picture(image, found, NAMES, true=Detections(np.array([[2, 2, 8, 8]]), np.array([0]), np.ones(1)))
    assert shown.shape == (40, 64, 3)
    assert image.max() == 100  # the image given is left alone
    assert shown[28, 10].tolist() == shown[33, 29].tolist() == [230, 159, 0]
    assert shown[30, 59].tolist() == [86, 180, 233]
    assert shown[2, 2].tolist() == [255, 255, 255]
    assert shown[28, 20].tolist() == [100, 100, 100]
    plain = picture(np.zeros((20, 30, 3), np.uint8), Detections.empty(), NAMES)
    assert plain.max() == 0


def test_made_json_of_an_export_of_another_time_is_refused(detector: Path, tmp_path: Path) -> None:
    folder = exported(detector, tmp_path, "onnx")
    write_json(folder / "export.json", {"format_version": 2})
    with pytest.raises(ConfigError, match=r"export.json.format_version: input should be 1"):
        open_detector(folder)
