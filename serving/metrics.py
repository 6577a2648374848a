"""What the inference server tells Prometheus."""

from __future__ import annotations

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import disable_created_metrics as _disable_created_metrics

INFERENCE_BUCKETS_S = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1.0)
ReloadResult = Literal["loaded", "failed"]


class ServeMetrics:
    """Counters of one server in a registry of its own; series of retired versions are removed."""

    def __init__(self) -> None:
        _disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "driftline_requests", "Inference requests by result.", ["result"], registry=self.registry
        )
        self.reloads = Counter(
            "driftline_model_reloads", "Attempts to load a version, by result.", ["result"], registry=self.registry
        )
        for result in ("loaded", "failed"):
            self.reloads.labels(result)
        self.published = Counter(
            "driftline_predictions_published",
            "Predictions acknowledged by Kafka.",
            registry=self.registry,
        )
        self.unpublished = Gauge(
            "driftline_predictions_unpublished", "Predictions not yet acknowledged by Kafka.", registry=self.registry
        )
        self.shadow_predictions = Counter(
            "driftline_shadow_predictions",
            "Rows that a live shadow was to answer, by result: scored, failed, or skipped to save time.",
            ["model", "result"],
            registry=self.registry,
        )
        self._info = Gauge(
            "driftline_model_info", "1 for the version that serves.", ["model", "version"], registry=self.registry
        )
        self._seconds = Histogram(
            "driftline_inference_duration_seconds",
            "Time in ONNX Runtime for one request.",
            ["model", "version"],
            buckets=INFERENCE_BUCKETS_S,
            registry=self.registry,
        )

    def timer(self, model: str, version: int) -> Histogram:
        """The histogram of one version. A request that ends after its version retired revives no series with it."""
        return self._seconds.labels(model, str(version))

    def serves(self, model: str, version: int, before: int | None) -> None:
        """``version`` answers for ``model`` from now on."""
        if before is not None and before != version:
            self._info.remove(model, str(before))
        self._info.labels(model, str(version)).set(1)

    def stops_serving(self, model: str, version: int) -> None:
        """Nothing answers for ``model`` any more."""
        self._info.remove(model, str(version))

    def retires(self, model: str, version: int) -> None:
        """``version`` is no longer loaded."""
        self._seconds.remove(model, str(version))
