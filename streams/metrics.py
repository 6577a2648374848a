"""What Prometheus scrapes from a worker."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from streams.allocator import used_bytes

if TYPE_CHECKING:
    from streams.monitor import ModelReport
    from streams.partition import Closed, InputPartition
    from streams.store import Stage

DELAY_BUCKETS = tuple(float(1 << k) for k in range(0, 24, 2))


class CountedHistogram(Collector):
    """A histogram that is told how often a value was seen.

    :meth:`prometheus_client.Histogram.observe` takes one value at a time and costs 0.7 µs: called for every pair it was
    7 % of the worker's CPU. Thread-safe.
    """

    def __init__(self, name: str, what: str, bounds: Sequence[float], registry: CollectorRegistry) -> None:
        self._name = name
        self._what = what
        self._bounds = (*bounds, float("inf"))
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe(self, value: float, times: int) -> None:
        """``value`` was seen so often."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += times
            self._sum += value * times

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads: the buckets, cumulative."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        go = floatToGoString  # as Prometheus writes its bounds
        buckets = [
            (go(bound), count)  # type: ignore[no-untyped-call]  # the library has no types
            for bound, count in zip(self._bounds, counts, strict=True)
        ]
        yield HistogramMetricFamily(self._name, self._what, buckets=buckets, sum_value=total)


class WorkerMetrics:
    """The worker's metrics. Labels are bounded: topics, partitions, models, versions; never an id."""

    def __init__(self, registry: CollectorRegistry) -> None:

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"driftline_{name}_total", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"driftline_{name}", what, labels, registry=registry)

        self.events = counter("events_consumed", "Records read, by what became of them.", "topic", "result")
        self.pairs = counter("pairs", "Predictions joined with their outcome.")
        self.pending = gauge("join_pending", "Rows without a partner.", "topic", "partition")
        self.delay = CountedHistogram(
            "driftline_join_delay_seconds",
            "Time from prediction to outcome, by the events' own times (in powers of two).",
            DELAY_BUCKETS,
            registry,
        )
        self.lag = gauge("consumer_lag", "Records of an input not yet processed.", "topic", "partition")
        self.last_event = gauge("last_event_timestamp_seconds", "Time of the last record processed.", "topic")
        self.checkpoint_duration = Histogram(
            "driftline_checkpoint_duration_seconds",
            "Time that a checkpoint of all partitions takes.",
            registry=registry,
        )
        self.checkpoint_time = gauge("checkpoint_timestamp_seconds", "When a partition was last written.", "partition")
        self.checkpoint_age = gauge(
            "checkpoint_age_seconds",
            "Time since a partition was last written: grows while the store is waited for.",
            "stage",
            "partition",
        )
        self.dead_letters = counter("dead_letters", "Records sent to the dead letters.", "topic", "reason")
        self.wrong = counter("wrong_partition", "Sampled keys that murmur2 would have put elsewhere.", "topic")
        self.rebuilds = counter("rebuilds", "States rebuilt from the log, because the store had lost them.", "stage")
        self.cut_short = counter("bound_reached", "Rows forgotten early because a bound was reached.", "bound")
        gauge(
            "memory_used_bytes",
            "Memory in use, about; resident memory stays at its highest mark, to be used again. 0: not known.",
        ).set_function(used_bytes)
        self.watermark = gauge("watermark_timestamp_seconds", "Stream time fed to the detectors.", "partition")
        self.watermark_held = gauge(
            "watermark_held_seconds", "How far the slowest input partition is behind the fastest."
        )
        self.accuracy = gauge("windowed_accuracy_ratio", "Share of right predictions.", "model", "version", "window")
        self.error = gauge("windowed_absolute_error", "Mean absolute error.", "model", "version", "window")
        self.mature = gauge(
            "mature_accuracy_ratio",
            "Share of right predictions among those so old that nearly all their outcomes have come.",
            "model",
            "window",
        )
        self.mature_error = gauge("mature_absolute_error", "The same, mean absolute error.", "model", "window")
        self.coverage = gauge(
            "label_coverage_ratio",
            "Labelled share of a day's mature predictions of the champion, by predicted class (20 at most).",
            "model",
            "predicted",
        )
        self.label_delay = gauge(
            "label_delay_seconds",
            "Within this time so many outcomes of the last week arrived, rounded up.",
            "model",
            "quantile",
        )
        self.withheld = gauge(
            "verdict_withheld", "1 while outcomes do not tell how good the model is.", "model", "reason"
        )
        about = ("model", "alertname", "segment")  # empty, which is no label, unless it is about a watched segment
        self.drift = gauge("drift_active", "1 while an alert fires.", *about)
        self.detections = counter("drift_detections", "Alerts that began to fire.", *about)
        self._series: dict[int, set[tuple[Gauge, tuple[str, ...]]]] = {}
        self._alerted: dict[int, set[tuple[str, str, str]]] = {}
        self._counted: dict[int, dict[str, int]] = {}
        self._bounds: dict[int, tuple[int, int]] = {}

    def consumed(self, topic: str, records: int) -> None:
        """Records handed over by the transport."""
        self.events.labels(topic, "read").inc(records)

    def dead(self, topic: str, reason: str) -> None:
        """One dead letter."""
        self.dead_letters.labels(topic, reason).inc()

    def rebuilt(self, stage: str) -> None:
        """A partition's state was rebuilt from the log."""
        self.rebuilds.labels(stage).inc()

    def wrong_partition(self, topic: str) -> None:
        """A sampled key that murmur2 would have put elsewhere."""
        self.wrong.labels(topic).inc()

    def written(self, stage: Stage, partition: int) -> None:
        """A partition was taken or written just now: its checkpoint's age, asked at each scrape, begins anew."""
        at_s = time.monotonic()
        self.checkpoint_age.labels(stage, str(partition)).set_function(lambda: time.monotonic() - at_s)

    def joined(self, part: InputPartition, closed: Closed) -> None:
        """A checkpoint was written."""
        partition, cut = part.owned.partition, closed.cut
        self.written("join", partition)
        self.pending.labels("predictions", str(partition)).set(cut.pending)
        self.pending.labels("outcomes", str(partition)).set(cut.waiting)
        self.checkpoint_time.labels(str(partition)).set_to_current_time()
        before = self._counted.get(partition)
        now = {name: getattr(cut.counters, name) for name in cut.counters.__struct_fields__}
        if before is not None:
            self.pairs.inc(now["joined"] - before["joined"])
            for name, topic, result in _RESULTS:
                self.events.labels(topic, result).inc(now[name] - before[name])
        self._counted[partition] = now
        bounds = (part.join.dedupe_cut_short, part.join.pending_cut_short)
        last = self._bounds.get(partition, (0, 0))
        self.cut_short.labels("dedupe_rows").inc(max(0, bounds[0] - last[0]))
        self.cut_short.labels("max_pending").inc(max(0, bounds[1] - last[1]))
        self._bounds[partition] = bounds
        for _, summary in closed.summaries:
            for version in summary.versions:
                for bucket, count in version.delays.items():
                    self.delay.observe((1 << bucket) - 1, count)

    def alerted(
        self, partition: int, model: str, alertname: str, segment: str = "", *, firing: bool, began: bool
    ) -> None:
        """A monitor partition published an alert; ``began``: it did not fire before."""
        about = (model, alertname, segment)
        self._alerted.setdefault(partition, set()).add(about)
        if began:
            self.detections.labels(*about).inc()
        self.drift.labels(*about).set(firing)

    def watched(self, partition: int, watermark_ms: int, reports: Sequence[ModelReport]) -> None:
        """A monitor partition wrote its checkpoint: export its windows; series of versions that are gone go away."""
        self.watermark.labels(str(partition)).set(watermark_ms / 1000)
        self.written("monitor", partition)
        series: set[tuple[Gauge, tuple[str, ...]]] = set()
        for report in reports:
            for version in report.versions:
                for window, tally in version.windows.items():
                    gauge, value = (self.accuracy, tally.accuracy) if tally.mae is None else (self.error, tally.mae)
                    if value is not None:
                        labels: tuple[str, ...] = (report.model, version.version, window)
                        gauge.labels(*labels).set(value)
                        series.add((gauge, labels))
            for gauge, name, value in self._about_labels(report):
                gauge.labels(report.model, name).set(value)
                series.add((gauge, (report.model, name)))
        for gauge, labels in self._series.get(partition, set()) - series:
            _remove(gauge, *labels)
        self._series[partition] = series

    def _about_labels(self, report: ModelReport) -> Iterator[tuple[Gauge, str, float]]:
        """(gauge, its label beside the model, value)."""
        found = report.labels
        if found is None:
            return
        if found.withheld is not None:
            yield self.withheld, found.withheld.reason, 1.0
        for share, seconds in found.delays_s.items():
            yield self.label_delay, f"{share:g}", float(seconds)
        gauge, best = (self.mature, 1.0) if report.champion_metric == "accuracy" else (self.mature_error, 0.0)
        for name, window in found.windows.items():
            total = window.total
            if total.outcomes:
                yield gauge, name, abs(best - total.loss / total.outcomes)
        day = found.windows.get("24h")
        for label, count in day.counts.items() if day is not None else ():
            if count.share is not None:
                yield self.coverage, label, count.share

    def unwatched(self, partitions: Iterable[int]) -> None:
        """Series of monitor partitions that are not ours any more go away."""
        for partition in partitions:
            _remove(self.watermark, str(partition))
            _remove(self.checkpoint_age, "monitor", str(partition))
            for gauge, labels in self._series.pop(partition, set()):
                _remove(gauge, *labels)
            for alert in self._alerted.pop(partition, set()):
                _remove(self.drift, *alert)

    def revoked(self, partitions: Iterable[int]) -> None:
        """Series of partitions that are not ours any more go away."""
        for partition in partitions:
            self._counted.pop(partition, None)
            self._bounds.pop(partition, None)
            for topic in ("predictions", "outcomes"):
                _remove(self.pending, topic, str(partition))
                _remove(self.lag, topic, str(partition))
            _remove(self.checkpoint_time, str(partition))
            _remove(self.checkpoint_age, "join", str(partition))


_RESULTS = (
    ("joined", "predictions", "joined"),
    ("expired_predictions", "predictions", "expired"),
    ("duplicates", "predictions", "duplicate"),
    ("dead_predictions", "predictions", "dead"),
    ("joined", "outcomes", "joined"),
    ("expired_outcomes", "outcomes", "expired"),
    ("corrections", "outcomes", "correction"),
    ("late", "outcomes", "late"),
    ("dead_outcomes", "outcomes", "dead"),
)


def _remove(gauge: Gauge, *labels: str) -> None:
    try:
        gauge.remove(*labels)
    except KeyError:
        return  # never set
