"""Counts of one server, in Prometheus' text format."""

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from uniface_jax.serve.batches import Result
from uniface_jax.serve.problems import Problem

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Counts:
    """Requests by route and status with their seconds, refusals, photographs, faces and batches."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "uniface_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "uniface_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._photographs = Counter(
            "uniface_photographs",
            "Photographs by what became of them: embedded, or a reason.",
            ["result"],
            registry=registry,
        )
        self._faces = Counter("uniface_faces", "Faces embedded.", registry=registry)
        self._batches = Histogram(
            "uniface_batch_faces", "Faces of a batch.", buckets=_SIZES, registry=registry
        )
        self.waiting = Gauge(
            "uniface_waiting_photographs",
            "Photographs in the queue or worked on.",
            registry=registry,
        )
        self.held = Gauge("uniface_held_bytes", "Bytes of requests in progress.", registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count one answer; route: one of few."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def results(self, results: Sequence[Result]) -> None:
        """Count photographs by what became of them."""
        for result in results:
            if isinstance(result, Problem):
                self._photographs.labels(result.reason).inc()
            else:
                self._photographs.labels("embedded").inc()
                self._faces.inc(len(result))

    def batch(self, faces: int) -> None:
        """Count one batch."""
        self._batches.observe(faces)

    def text(self) -> bytes:
        """Return all counts, as Prometheus reads them."""
        return generate_latest(self._registry)
