"""How soon does a reader see something: the first answer after a drop, a map after pointing, and what the page weighs?

`python -m bench.page` serves the bundle of a finished `weakray run configs/phantom.yaml`, opens the page in Chromium,
headless, drops films of its dataset one after the other, and points at every finding of each answer.

- `answer/…/vs-limit`: from the drop until the bars are painted, 1 s at most; also with a film enlarged to 2,500 px.
- `hover/…/vs-limit`: from the mouse's event until the frame with the map is painted, 50 ms at most.
- `weight/vs-limit`: all files of the page, 300 KiB at most.

Figures are medians; `low` and `high` come from the slowest and the fastest of the runs. `--quick` does the same with
the bundle of `configs/micro.yaml` and few films: the same rows, figures without meaning.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
from playwright.sync_api import Page, sync_playwright

from bench.printing import Row, answer, at_most
from weakray.config import load
from weakray.imaging import decode
from weakray.pipeline import PipelineConfig
from weakray.pipeline import run as run_pipeline
from weakray.stack import silence

ROOT = Path(__file__).parents[1]
LARGE_PX = 2500  # longer side of the enlarged film
FILMS, QUICK_FILMS = 15, 3
ANSWER_S, HOVER_MS, WEIGHT_KIB = 1.0, 50.0, 300.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_DROP = """text => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), letter => letter.charCodeAt(0))], "film.png"));
  performance.clearMarks();
  document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
}"""
# The time of each pointing: from the event as the browser stamped it until the task after its frame.
_WATCH = """() => {
  window.pointed = [];
  document.getElementById("findings").addEventListener("pointerover", event => {
    if (!event.target.closest(".finding")) return;
    requestAnimationFrame(() => {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => window.pointed.push(performance.now() - event.timeStamp);
      channel.port2.postMessage(null);
    });
  });
}"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/phantom"), help="folder of a finished run")
    parser.add_argument("--quick", action="store_true", help="micro.yaml instead: shape of the rows only")
    given = parser.parse_args()
    silence()
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as temporary:
        run = _micro(Path(temporary)) if given.quick else given.run
        rows = _rows(run, QUICK_FILMS if given.quick else FILMS)
    answer("page", rows)


def _micro(folder: Path) -> Path:
    config = load(PipelineConfig, ROOT / "configs" / "micro.yaml").model_copy(update={"out": folder / "run"})
    run_pipeline(config)
    return config.root


def _rows(run: Path, count: int) -> list[Row]:
    films = [path.read_bytes() for path in sorted((run / "dataset" / "images").glob("*.png"))[:count]]
    with served(run / "export" / "bundle" / "bundle") as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 720})
        page.goto(url)
        _answer_s(page, films[0])  # the first one makes everything ready
        page.evaluate(_WATCH)
        answers, hovers = list[float](), list[float]()
        for film in films:
            answers.append(_answer_s(page, film))
            hovers += _hover_ms(page)
        large = [_answer_s(page, _enlarged(film)) for film in films[: max(2, count // 3)]]
        browser.close()
    weight = sum(path.stat().st_size for path in (ROOT / "serve" / "page").rglob("*") if path.is_file()) / 1024
    return [
        _median("answer/phantom", answers, ANSWER_S, "s"),
        _median(f"answer/{LARGE_PX}px", large, ANSWER_S, "s"),
        _median("hover/phantom", hovers, HOVER_MS, "ms"),
        at_most("weight", weight, WEIGHT_KIB, "KiB"),
    ]


def _median(case: str, values: Sequence[float], limit: float, unit: str) -> Row:
    row = at_most(case, statistics.median(values), limit, unit, (min(values), max(values)))
    return replace(row, runs=len(values))


def chromium() -> str:
    """The browser's program.

    Raises:
        SystemExit: where there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit("bench.page: expected Chromium on the path, found none; `make browser` brings it on Debian")
    return found


@contextlib.contextmanager
def served(bundle: Path, *flags: str, token: str | None = None) -> Iterator[str]:
    """`weakray serve` in a process of its own, on a free port; gives the page's address."""
    env = {name: value for name, value in os.environ.items() if name != "WEAKRAY_TOKEN"}
    env |= {} if token is None else {"WEAKRAY_TOKEN": token}
    command = [sys.executable, "-m", "weakray.cli", "serve", str(bundle), "--port", "0", *flags]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield _address(process) + "/"
    finally:
        process.terminate()
        process.communicate()


def _address(process: subprocess.Popen[str]) -> str:
    said = list[str]()
    for line in process.stderr or []:
        said.append(line)
        found = re.search(r" on (http://\S+)", line)
        if found:
            return found[1]
    raise RuntimeError("the server did not start:\n" + "".join(said[-20:]))


def _answer_s(page: Page, film: bytes) -> float:
    page.evaluate(_DROP, base64.b64encode(film).decode())
    while not page.evaluate("performance.getEntriesByName('weakray:answer').length"):
        if page.evaluate("!document.getElementById('alert').hidden"):
            raise RuntimeError(f"the page says: {page.locator('#alert').inner_text()}")
        page.wait_for_timeout(20)
    return float(page.evaluate("performance.measure('answer', 'weakray:drop', 'weakray:answer').duration")) / 1000


def _hover_ms(page: Page) -> list[float]:
    """Points at each finding in turn, as soon as the bars are there: nothing waits for the maps."""
    page.evaluate("window.pointed = []")
    boxes = [row.bounding_box() for row in page.locator(".finding").all()]
    for box in filter(None, boxes):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.wait_for_timeout(40)
    page.mouse.move(400, 300)
    page.wait_for_timeout(100)
    return [float(time) for time in page.evaluate("window.pointed")]


def _enlarged(film: bytes) -> bytes:
    image = decode(film)
    scale = LARGE_PX / max(image.shape[:2])
    done, content = cv2.imencode(".png", cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC))
    if not done:
        raise ArithmeticError("could not encode the enlarged film")
    return content.tobytes()


if __name__ == "__main__":
    main()
