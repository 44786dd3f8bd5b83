"""The runtime's numbers, by hand; and that it needs nothing but onnxruntime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from weakray.bundle.manifest import Manifest, record
from weakray.bundle.runtime import Bundle
from weakray.errors import BundleError, DataError
from weakray.imaging import InputSpec

WriteTiny = Callable[..., Manifest]


def grey(height: int, width: int, value: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width), value, np.uint8)


def test_wide_grey_image_by_hand(bundle_folder: Path) -> None:
    # 16 x 32 px in a square of 32: eight black rows above and below. Half the square is 51/255 = 0.2: its mean is 0.1.
    (found,) = Bundle.load(bundle_folder).predict([grey(16, 32, 51)], with_maps=True)
    np.testing.assert_allclose(found.probabilities, [0.1, 0.05, 0.9], atol=1e-6)
    assert found.decision.tolist() == [False, False, True]
    assert found.maps is not None
    assert found.maps.shape == (3, 4, 4)
    np.testing.assert_allclose(found.maps[0][:, 0], [0, 0.2, 0.2, 0], atol=1e-6)
    assert (found.placement.left_px, found.placement.top_px) == (0, 8)
    # Opacity 12,14,20,18 and Effusion 21,10,27,18 in the square, eight pixels up in the image.
    assert found.detections.boxes_xyxy_px.tolist() == [[12, 6, 20, 10], [21, 2, 27, 10]]
    assert found.detections.class_id.tolist() == [0, 2]
    np.testing.assert_allclose(found.detections.score, [0.9, 0.25])


def test_tall_colour_image_by_hand(bundle_folder: Path) -> None:
    # 64 x 32 px of pure red at scale 0.5, eight black columns left and right; red's luma is 76.
    image = np.zeros((64, 32, 3), np.uint8)
    image[..., 0] = 255
    (found,) = Bundle.load(bundle_folder).predict([image])
    np.testing.assert_allclose(found.probabilities[0], 76 / 255 / 2, atol=1e-6)
    assert found.maps is None
    # x' = (x - 8) * 2, y' = y * 2; the second box ends at 38 and is cut at the border, 32.
    assert found.detections.boxes_xyxy_px.tolist() == [[8, 28, 24, 36], [26, 20, 32, 36]]


def test_batch_of_three_equals_three_of_one(bundle_folder: Path) -> None:
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in [(20, 31), (50, 17, 3), (33, 32)]]
    bundle = Bundle.load(bundle_folder, threads=1)
    together = bundle.predict(images, with_maps=True)
    assert len(together) == 3
    for image, found in zip(images, together, strict=True):
        (alone,) = bundle.predict([image], with_maps=True)
        np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-6)
        assert found.maps is not None
        assert alone.maps is not None
        np.testing.assert_allclose(found.maps, alone.maps, atol=1e-6)
        assert found.placement == alone.placement
        np.testing.assert_array_equal(found.detections.boxes_xyxy_px, alone.detections.boxes_xyxy_px)
    assert len({found.probabilities[0] for found in together}) == 3


def test_no_images(bundle_folder: Path) -> None:
    assert Bundle.load(bundle_folder).predict([]) == []


def test_threads_may_share_a_bundle(bundle_folder: Path) -> None:
    bundle = Bundle.load(bundle_folder, threads=1)
    images = [grey(16, 32, value) for value in range(0, 250, 10)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: bundle.predict([image])[0].probabilities[0], images))
    np.testing.assert_allclose(found, [value / 255 / 2 for value in range(0, 250, 10)], atol=1e-6)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 6), np.float32), r"image 1: expected uint8 of shape .* got float32 \(4, 6\)"),
        (np.zeros((4, 6, 4), np.uint8), r"image 1: .* got uint8 \(4, 6, 4\); decode it with"),
        (np.zeros((0, 6), np.uint8), r"image 1: .* got uint8 \(0, 6\)"),
        ("film.png", r"image 1: .* got str"),
    ],
)
def test_other_images_are_refused(bundle_folder: Path, image: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Bundle.load(bundle_folder).predict([grey(4, 6, 9), image])


def test_unshown_boxes_take_no_place(tmp_path: Path, write_tiny: WriteTiny, bundle_folder: Path) -> None:
    # Two boxes an image at most: Nodule's 0.3 is above Effusion's threshold but below its own, and must not count.
    part = Bundle.load(bundle_folder).manifest.detector.model_copy(update={"max_boxes": 2})
    write_tiny(tmp_path / "two", detector=part)
    (found,) = Bundle.load(tmp_path / "two").predict([grey(32, 20, 9)])
    assert found.detections.class_id.tolist() == [0, 2]


def test_detector_and_classifiers_may_see_different_sizes(tmp_path: Path, write_tiny: WriteTiny, graphs: Any) -> None:
    bundle_part = write_tiny(tmp_path / "plain").classifiers
    stretched = bundle_part.model_copy(update={"input": InputSpec(size_px=32, channels=1, minmax=True)})
    write_tiny(tmp_path / "bundle", classifiers=stretched)
    image = grey(32, 32, 10)
    image[16:] = 60  # stretched: 0 and 255, so the mean is a half
    (found,) = Bundle.load(tmp_path / "bundle").predict([image])
    np.testing.assert_allclose(found.probabilities[0], 0.5, atol=1e-6)
    (plain,) = Bundle.load(tmp_path / "plain").predict([image])
    np.testing.assert_allclose(plain.probabilities[0], 35 / 255, atol=1e-6)
    assert found.detections.boxes_xyxy_px.tolist() == plain.detections.boxes_xyxy_px.tolist()


def rewrite(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    path = folder / "bundle.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = record(folder / name).model_dump()
    path.write_text(json.dumps(manifest))


def test_file_that_is_no_graph(bundle_folder: Path) -> None:
    rewrite(bundle_folder, "detector.onnx", b"not a graph")
    with pytest.raises(BundleError, match=r"detector.onnx: expected a graph that onnxruntime can run, got: "):
        Bundle.load(bundle_folder)


def test_graphs_of_the_wrong_form(bundle_folder: Path) -> None:
    detector = (bundle_folder / "detector.onnx").read_bytes()
    rewrite(bundle_folder, "classifiers.onnx", detector)
    with pytest.raises(BundleError, match=r"classifiers.onnx: expected outputs .*'maps': 3.* got .*'raw'"):
        Bundle.load(bundle_folder)


def test_input_of_another_size(tmp_path: Path, write_tiny: WriteTiny, bundle_folder: Path) -> None:
    part = Bundle.load(bundle_folder).manifest.detector
    other = part.model_copy(update={"input": InputSpec(size_px=64, channels=3, minmax=False)})
    with pytest.raises(BundleError, match=r"detector.onnx: expected one input images \(n, 3, 64, 64\) with n free"):
        write_tiny(tmp_path / "other", detector=other)
    assert not (tmp_path / "other").exists()


def test_needs_no_torch_pandas_or_pyarrow(bundle_folder: Path, tmp_path: Path) -> None:
    code = """
import sys
for name in ("torch", "pandas", "pyarrow", "onnx", "ultralytics", "timm", "pycocotools"):
    sys.modules[name] = None  # importing it raises ImportError
from pathlib import Path
import numpy as np
from weakray.bundle.runtime import Bundle
found = Bundle.load(Path(sys.argv[1])).predict([np.full((16, 32), 51, np.uint8)], with_maps=True)[0]
print(len(found.detections), round(float(found.probabilities[0]), 6))
heavy = ("torch", "pandas", "pyarrow", "onnx", "ultralytics", "timm", "pycocotools", "matplotlib", "sklearn")
print(sorted(name for name in heavy if sys.modules.get(name) is not None))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(bundle_folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["2 0.1", "[]"]
    assert done.stderr == ""
