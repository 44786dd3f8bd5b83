"""How long does the recipe search take, against the same search with cv2 per threshold and COCOeval per candidate?

`python -m bench.search` scores 2,000 candidates of one finding on 500 made images in both ways, one thread each. The
plain way (`bench.plain_search`) is timed on a sample of the candidates, spread evenly, and scaled up to all: its row
says so. Upsampled maps are handed to it for nothing. Boxes are not calibrated in either. The average precisions of the
sample must agree to 1e-9, or the bench fails. `--quick` does the same with fewer images and candidates.
"""

from __future__ import annotations

import argparse
import time
from itertools import product

import cv2
import numpy as np

from bench.plain_search import coco_truth, plain_boxes, plain_precisions
from bench.printing import Row, answer
from camgen.candidates import Cutter, Option
from camgen.layers import LAST
from camgen.maps import UNIT_RANGE, MapName, MapSet
from camgen.recipe import Threshold
from camgen.scoring import PaddedTruth
from camgen.sources import MapSource
from camgen.tuning import IOUS, TuneFinding, judge
from weakray.imaging import letterbox

GRID, RESOLUTION, MIN_AREA = 24, 96, 0.0005
SIZES_HW = ((200, 160), (160, 200), (190, 190))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 images, 648 candidates")
    quick = parser.parse_args().quick
    cv2.setNumThreads(1)
    images, cuts, sample, runs = (60, 12, 6, 3) if quick else (500, 37, 20, 3)
    maps, finding = _problem(images)
    options = _options(cuts)
    ours = []
    for _ in range(runs):
        start = time.perf_counter()
        ap50 = _ours(maps, finding, options)
        ours.append(time.perf_counter() - start)
    chosen = np.linspace(0, len(options) - 1, sample).round().astype(int)
    plain = []
    for _ in range(runs):
        seconds, found = _plain(maps, finding, [options[o] for o in chosen])
        plain.append(seconds * len(options) / sample)
        worst = float(np.abs(ap50[chosen] - found).max())
        if not worst <= 1e-9:
            raise SystemExit(f"expected equal AP50 to 1e-9, got a difference of {worst:g}")
    ratios = sorted(peer / own for peer, own in zip(sorted(plain), sorted(ours, reverse=True), strict=True))
    own, peer = float(np.median(ours)), float(np.median(plain))
    unit = f"s for {len(options)} candidates on {images} images (peer: {sample} timed, scaled up)"
    case = f"search/{images}x{len(options)}/vs-pycocotools"
    answer("search", [Row(case, own, peer, unit, peer / own, ratios[0], ratios[-1], runs)])


def _problem(images: int) -> tuple[MapSet, TuneFinding]:
    """Two members' PCAM and Grad-CAM maps: hills near the true boxes of a third of the images, and false ones."""
    rng = np.random.default_rng(0)
    sizes = [SIZES_HW[i % len(SIZES_HW)] for i in range(images)]
    placements = [letterbox(np.zeros(size, np.uint8), 4 * GRID)[1] for size in sizes]
    at = (np.arange(GRID) + 0.5) / GRID
    true, valid = np.zeros((images, 2, 4)), np.zeros((images, 2), bool)
    pcam = rng.uniform(0, 0.05, (2, images, GRID, GRID))
    for i in range(images):
        valid[i] = (np.arange(2) < rng.integers(1, 3)) & (rng.random() < 0.35)
        for j in range(2):
            x, y, w, h = *rng.uniform(0.3, 0.7, 2), *rng.uniform(0.1, 0.3, 2)
            true[i, j] = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            for member in range(2):
                dx, dy = rng.normal(0, 0.03, 2)
                hill = np.exp(-2 * ((at - x - dx) / w) ** 2) * np.exp(-2 * ((at - y - dy) / h) ** 2)[:, None]
                pcam[member, i] += rng.uniform(0.2, 0.9) * hill * (1.0 if valid[i, j] else 0.6)
    clipped = np.clip(pcam, 0, 1).astype(np.float32)
    scaled = {"pcam": clipped, "gradcam": (clipped**2 * 1e-3).astype(np.float32)}
    named = {MapName(m, method, LAST, 0): whole[m] for method, whole in scaled.items() for m in range(2)}
    probability = np.clip(rng.normal(0.3, 0.1, (images, 1)) + 0.4 * valid[:, :1], 0.01, 0.99)
    maps = MapSet(
        [f"i{i}" for i in range(images)], placements, named, probability, np.stack([probability] * 2), (GRID, GRID)
    )
    return maps, TuneFinding(np.arange(images), PaddedTruth(true, valid), np.arange(images) % 5)


def _options(cuts: int) -> list[Option]:
    """Cuts x members x methods x priors x numbers of boxes."""
    values = np.linspace(0.05, 0.9, cuts).round(6).tolist()
    kinds = product((1, 2, 3), ((0, 1), (0,), (1,)), ("pcam", "gradcam"), (0.0, 0.5, 1.0))
    return [
        Option(members, MapSource(method), exponent, Threshold(kind="range", value=value), boxes)
        for boxes, members, method, exponent in kinds
        for value in values
    ]


def _ours(maps: MapSet, finding: TuneFinding, options: list[Option]) -> np.ndarray:
    """AP50 `(o,)` of all options."""
    cutter = Cutter(maps, finding, 0, RESOLUTION, MIN_AREA)
    ap50 = np.zeros(len(options))
    for index, found in cutter.candidates(options):
        ap50[index] = judge(found, cutter.probability, finding, gate=0, strengths=(np.inf,)).ap50[:, 0]
    return ap50


def _plain(maps: MapSet, finding: TuneFinding, options: list[Option]) -> tuple[float, np.ndarray]:
    """Seconds, and AP50 of each option."""
    cutter, truth = Cutter(maps, finding, 0, RESOLUTION, MIN_AREA), coco_truth(finding.truth)
    seconds, ap50 = 0.0, []
    for option in options:
        fine = cutter.fine(option.kind)
        start = time.perf_counter()
        found = []
        for one in fine:
            cut = one.low + option.threshold.value * (one.high - one.low)
            unit = 1.0 if option.source.method in UNIT_RANGE else one.high
            found.append(plain_boxes(one, cut, MIN_AREA, unit, option.max_boxes))
        precisions = plain_precisions(truth, found, cutter.probability, IOUS)
        seconds += time.perf_counter() - start
        ap50.append(precisions[IOUS.index(0.5)])
    return seconds, np.array(ap50)


if __name__ == "__main__":
    main()
