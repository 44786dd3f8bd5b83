"""What Prometheus may ask: how fast, how full, how much refused and why, how often each finding is called present."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serve.answers import ImageAnswer, Timings

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6)
_SIZES = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The server's own registry: two servers in one process do not share figures.

    Args:
        waiting: images that wait for the graphs now.
        held: requests that are held now.
    """

    def __init__(self, waiting: Callable[[], float], held: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        own = self._registry
        self.request_s = Histogram(
            "weakray_request_seconds",
            "From a request's head to its answer.",
            ["path", "status"],
            buckets=_SECONDS,
            registry=own,
        )
        self._part_s = Histogram(
            "weakray_predict_part_seconds",
            "Where the time of predicting goes.",
            ["part"],
            buckets=_SECONDS,
            registry=own,
        )
        self._batch = Histogram(
            "weakray_batch_images", "Images of a pass through the graphs.", buckets=_SIZES, registry=own
        )
        self._batch_s = Histogram("weakray_batch_seconds", "Time of a pass.", buckets=_SECONDS, registry=own)
        self.refused = Counter("weakray_refused_total", "Requests not served, by reason.", ["reason"], registry=own)
        self._images = Counter("weakray_images_total", "Images answered, by kind of file.", ["source"], registry=own)
        self._positive = Counter(
            "weakray_positive_total", "Images in which a finding was called present.", ["finding"], registry=own
        )
        self._disagreed = Counter(
            "weakray_disagreement_total",
            "Images in which classifiers and detector differ.",
            ["finding", "how"],
            registry=own,
        )
        self.reloads = Counter("weakray_reloads_total", "Times the bundle was read again.", ["outcome"], registry=own)
        self.bundle = Gauge("weakray_bundle_info", "The bundle that answers.", ["sha256"], registry=own)
        Gauge("weakray_queue_images", "Images that wait for the graphs.", registry=own).set_function(waiting)
        Gauge("weakray_held_requests", "Requests held: read, decoded, waiting.", registry=own).set_function(held)

    def batch(self, images: int, seconds: float) -> None:
        """Takes down a pass through the graphs."""
        self._batch.observe(images)
        self._batch_s.observe(seconds)

    def answered(self, images: Iterable[ImageAnswer], timings: Timings) -> None:
        """Takes down an answer."""
        for part, milliseconds in timings.model_dump().items():
            self._part_s.labels(part).observe(milliseconds / 1000)
        for image in images:
            self._images.labels(image.source).inc()
            for finding in image.findings:
                if finding.decision:
                    self._positive.labels(finding.finding).inc()
                if finding.agreement != "agree":
                    self._disagreed.labels(finding.finding, finding.agreement).inc()

    def speaks(self, sha256: str) -> None:
        """Says which bundle answers."""
        self.bundle.clear()
        self.bundle.labels(sha256).set(1)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
