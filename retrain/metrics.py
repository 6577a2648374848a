"""What the retrain loop tells Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import disable_created_metrics as _disable_created_metrics

from retrain.lifecycle import Run

DURATION_BUCKETS_S = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0)
RESULTS = ("promoted", "rejected", "recommended")
PROBATION_RESULTS = ("confirmed", "rolled_back", "released")


class RetrainMetrics:
    """Counters of one process in a registry of its own."""

    def __init__(self) -> None:
        _disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._runs = Counter("driftline_retrain_runs", "Runs ended, by result.", ["result"], registry=self.registry)
        for result in RESULTS:
            self._runs.labels(result)
        self._probations = Counter(
            "driftline_probations", "Probations of promoted versions ended, by result.", ["model", "result"],
            registry=self.registry,
        )  # fmt: skip
        self._watched = Gauge(
            "driftline_probation_active", "1 while a promoted version of the model is watched here.", ["model"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "driftline_retrain_run_duration_seconds",
            "From the alert's record to the run's end, waiting included.",
            buckets=DURATION_BUCKETS_S,
            registry=self.registry,
        )
        self._promotions = Counter(
            "driftline_promotions", "Versions promoted by a run.", ["model"], registry=self.registry
        )
        self._active = Gauge(
            "driftline_retrain_active", "1 while a run of the model is under way here.", ["model"],
            registry=self.registry,
        )  # fmt: skip
        self._steps = Gauge(
            "driftline_retrain_step_timestamp_seconds",
            "When the run of the model at work, here or elsewhere, took its last step.", ["model", "state"],
            registry=self.registry,
        )  # fmt: skip
        self._at_work: set[tuple[str, str]] = set()
        self.alerts = Counter("driftline_retrain_alerts", "Alerts read, by result.", ["result"], registry=self.registry)
        for result in ("triggered", "ignored", "undecodable"):
            self.alerts.labels(result)

    def at_work(self, runs: Iterable[Run]) -> None:
        """These runs, one a model, are on their way; whatever else was is no longer, or not in that state."""
        now = {(run.model, run.state): run.updated_ms / 1000 for run in runs}
        for known in self._at_work - now.keys():
            self._steps.remove(*known)
        for labels, updated_s in now.items():
            self._steps.labels(*labels).set(updated_s)
        self._at_work = set(now)

    def started(self, model: str) -> None:
        """A run of the model is under way."""
        self._active.labels(model).set(1)

    def stopped(self, model: str) -> None:
        """No run of the model is under way here."""
        self._active.remove(model)

    def watched(self, model: str) -> None:
        """A probation of the model is under way."""
        self._watched.labels(model).set(1)
        for result in PROBATION_RESULTS:  # so that the first rollback is an increase and not a first sight
            self._probations.labels(model, result)

    def unwatched(self, model: str) -> None:
        """No probation of the model is under way here."""
        self._watched.remove(model)

    def judged(self, run: Run) -> None:
        """A probation reached its end."""
        self._probations.labels(run.model, run.state).inc()

    def ended(self, run: Run) -> None:
        """A run reached its end."""
        self._runs.labels(run.state).inc()
        self._seconds.observe(max(0.0, (run.updated_ms - run.triggered_ms) / 1000))
        if run.state == "promoted":
            self._promotions.labels(run.model).inc()
