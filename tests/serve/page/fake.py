"""A server of the page's tests: stdlib, loopback, the strictest content policy, answers made up to order."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PAGE = Path(__file__).parents[3] / "serve" / "page"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# name, parent, probability, threshold, boxes
FINDINGS: list[tuple[str, str | None, float, float, list[list[float]]]] = [
    ("Enlarged Cardiomediastinum", None, 0.72, 0.43, []),
    ("Cardiomegaly", "Enlarged Cardiomediastinum", 0.70, 0.31, [[60, 110, 170, 190]]),
    ("Lung Opacity", None, 0.40, 0.46, []),
    ("Consolidation", "Lung Opacity", 0.11, 0.20, [[30, 40, 70, 90]]),
    ("Pneumonia", "Consolidation", 0.004, 0.27, []),
    ("Atelectasis", "Lung Opacity", 0.07, 0.25, []),
    ("Lung Lesion", "Lung Opacity", 0.08, 0.29, []),
    ("Nodule", "Lung Lesion", 0.03, 0.22, []),
    ("Mass", "Lung Lesion", 0.06, 0.29, []),
    ("Pleural Effusion", None, 0.33, 0.25, [[20, 150, 60, 200], [160, 150, 190, 200]]),
    ("Pneumothorax", None, 0.02, 0.29, []),
    ("Fracture", None, 0.01, 0.3, []),
    ("Support Devices", None, 0.05, 0.5, []),
    ("Strange_thing", None, 0.02, 0.5, []),
]
TRUTH = {"boxes": [{"finding": "Cardiomegaly", "xyxy_px": [62, 108, 168, 192]}]}


def png(values: Any) -> bytes:
    """An array as PNG."""
    done, content = cv2.imencode(".png", values)
    assert done
    return content.tobytes()


def film(height: int = 220, width: int = 200, seed: int = 0) -> Any:
    """A grey picture, darker to the left, `(height, width)`; its seed is a pale patch's place."""
    rows, columns = np.mgrid[:height, :width]
    values = 40 + 150 * columns / width + 20 * np.sin(rows / 15)
    top = 20 + 30 * seed
    values[top : top + 20, 20:40] = 250
    return values.astype(np.uint8)


def heat(column: int, height: int = 7, width: int = 6) -> dict[str, Any]:
    """A map with its peak in one column, as the server sends it."""
    rows, columns = np.mgrid[:height, :width]
    values = 255 * np.exp(-((columns - column % width) ** 2 + (rows - 4) ** 2) / 3)
    return {"png": base64.b64encode(png(values.astype(np.uint8))).decode(), "low": 0.0, "high": 0.8}


def answer(images: int = 1, *, sent_film: bool = False, height: int = 220, width: int = 200) -> dict[str, Any]:
    """What the server says of a study; a second film is a little less sure of everything and has no boxes."""
    shown = []
    for index in range(images):
        findings = []
        for order, (name, parent, sure, threshold, boxes) in enumerate(FINDINGS):
            own = sure * 0.8**index
            found = [
                {"xyxy_px": box, "score": 0.81 - 0.3 * rank} for rank, box in enumerate(boxes if index == 0 else [])
            ]
            decision = own >= threshold
            agreement = "agree"
            if decision != bool(found):
                agreement = "box_without_decision" if found else "decision_without_box"
            flat = name == "Pneumothorax"
            heated = {**heat(order), "high": 0.0} if flat else heat(order)
            findings.append(
                {
                    "finding": name,
                    "parent": parent,
                    "probability": own,
                    "threshold": threshold,
                    "decision": decision,
                    "agreement": agreement,
                    "boxes": found,
                    "map": heated,
                }
            )
        picture = base64.b64encode(png(film(height, width, 3))).decode() if sent_film else None
        shown.append(
            {
                "index": index,
                "height": height,
                "width": width,
                "source": "dicom" if sent_film else "png",
                "notes": ["MONOCHROME1 inverted"] if sent_film else [],
                "findings": findings,
                "film": picture,
            }
        )
    study = [{"finding": n, "probability": p, "threshold": t, "decision": p >= t} for n, _, p, t, _ in FINDINGS]
    timings = {"queue": 1, "decode": 2, "prepare": 1, "predict": 20, "encode": 3, "total": 27}
    return {
        "request_id": "0",
        "bundle": {"weakray": "0.1.0", "sha256": "ab" * 32},
        "study": {"findings": study},
        "images": shown,
        "timings_ms": timings,
    }


@dataclass
class Fake:
    """What the server does, to be changed by a test.

    Attributes:
        url: where it listens.
        token: what it asks for; None for nothing.
        refusals: status, message and headers of the next answers to a prediction, one after the other.
        asked: path of every request, in order.
        bodies: what was posted.
        examples: whether it has some.
        hold: where cleared, predictions wait for it.
    """

    url: str = ""
    token: str | None = None
    refusals: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    examples: bool = True
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()


def _handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer in one packet: in two, the second waits for the first one's receipt

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name is the base class's
            pass

        def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            own = {"Content-Type": kind, "Content-Length": str(len(content)), "Content-Security-Policy": POLICY}
            for name, value in {**own, "X-Content-Type-Options": "nosniff", **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            self._send(status, json.dumps(value).encode(), "application/json", headers)

        def _fault(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
            self._json({"error": {"code": "made_up", "message": message}}, status, headers)

        def _welcome(self) -> bool:
            fake.asked.append(self.path)
            if fake.token is None or self.headers.get("Authorization") == f"Bearer {fake.token}":
                return True
            self._fault(401, "expected a bearer token")
            return False

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = "index.html" if path == "/" else path.removeprefix("/page/")
            if path == "/" or path.startswith("/page/"):
                file = PAGE / name
                self._send(200, file.read_bytes(), TYPES[file.suffix])
            elif not self._welcome():
                return
            elif path == "/v1/models":
                self._json({"weakray": "0.1.0", "bundle_sha256": "ab" * 32})
            elif path == "/v1/examples":
                entries = [{"id": f"e{i}", "title": f"film {i}", "truth": i == 0} for i in range(3)]
                self._json({"examples": entries if fake.examples else []})
            elif path.endswith("/truth"):
                self._json(TRUTH)
            elif path.startswith("/v1/examples/"):
                self._send(200, png(film(seed=int(path[-1]))), "image/png")
            else:
                self._fault(404, "expected a path that is served")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._welcome():
                return
            fake.hold.wait(20)
            fake.bodies.append(body)
            if fake.refusals:
                status, message, headers = fake.refusals.pop(0)
                self._fault(status, message, headers)
                return
            images = body.count(b'name="image"')
            self._json(answer(images, sent_film="include=film" in self.path))

    return Handler


@contextmanager
def serving() -> Iterator[Fake]:
    """The server in a thread, for a while."""
    fake = Fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield fake
    finally:
        fake.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
