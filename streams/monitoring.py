"""The monitor stage of a worker: the summaries partitions it owns, fed with summaries and with all cuts.

Its checkpoint is the join's protocol again: state, offsets and alerts in one fenced transaction, then the monitor's
cut, then the alerts, then the outbox entry is removed by the next checkpoint.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import structlog

from detectors.tally import Tally
from streams.catalog import label_text
from streams.errors import RestartMe, StateMismatch
from streams.events import Alert
from streams.joining import murmur2_partition
from streams.kafka import Record, SafeProducer, TopicReader
from streams.log_ranges import Readers
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.monitor import ModelReport, MonitorPartition, OutboxAlert
from streams.monitor_rebuild import MonitorRebuild
from streams.ownership import Ownership
from streams.partition import Batch
from streams.records import MonitorCut
from streams.settings import KafkaSettings, Settings
from streams.store import Fenced, Owned, StateStore, StoreLost
from streams.topics import Topics

HELD_MS = 30_000
"""How far one input partition may fall behind the others before it is said."""

log = structlog.get_logger(__name__)
_alert = msgspec.json.Decoder(Alert)


class CutFeed:
    """Reads all of ``checkpoints`` in a thread of its own, from the offsets given, and queues the records."""

    def __init__(self, settings: KafkaSettings, topic: str, start: Mapping[int, int]) -> None:
        self.records: deque[Record] = deque()
        self.failure: Exception | None = None
        self._reader = TopicReader(settings, topic, start)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cut-feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.records.extend(self._reader.poll())
        except Exception as error:  # noqa: BLE001 - told to the thread that drains
            self.failure = error

    def drain(self) -> list[Record]:
        """What has come since the last call. Raises what ended the reading."""
        if self.failure is not None:
            raise self.failure
        return [self.records.popleft() for _ in range(len(self.records))]

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._reader.close()


@dataclass(slots=True)
class _Watched:
    """One owned summaries partition."""

    owned: Owned
    monitor: MonitorPartition
    position: int | None
    """Next offset to read; None for a partition never read."""
    committed: int


class MonitorStage:
    """Blocking; one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        producer: SafeProducer,
        models: ModelEvents,
        partition_counts: Mapping[str, int],
        metrics: WorkerMetrics,
        readers: Readers,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self.parts: dict[int, _Watched] = {}
        self._settings = settings
        self._topics = Topics(settings.kafka.topic_prefix)
        self._store = store
        self._producer = producer
        self._models = models
        self._metrics = metrics
        self._inputs = partition_counts[self._topics.checkpoints]
        self._partitions = partition_counts[self._topics.summaries]
        self._ownership = Ownership(
            "monitor", MonitorCut, self._topics.monitor_checkpoints, settings.kafka, store, producer
        )
        self._rebuild = MonitorRebuild(self._topics, store, readers, metrics, self._make, abandoned)
        self._feed: CutFeed | None = None
        self._last_s = 0.0
        self._warn_again_s = 0.0

    # ------------------------------------------------------------------------------------------------- ownership

    def take(self, partitions: Iterable[int]) -> None:
        """Give up what was owned and become the owner of ``partitions``; republish the alerts that were left.

        A state that the store has lost is rebuilt from the log first, which may take minutes.
        """
        self.close()
        taken = self._ownership.take(partitions)
        self._metrics.unwatched(set(range(self._partitions)) - taken.keys())
        for partition, each in taken.items():
            monitor, cut, alerts = self._rebuild.load(each)
            position: int | None = None
            if cut is not None:
                self._send_cut(each.owned, cut)
                self._publish(monitor, alerts)
                position = monitor.next_summary_offset
            self.parts[partition] = _Watched(each.owned, monitor, position, position or 0)
        self._producer.flush()
        if self.parts:
            offsets = {
                p: min(part.monitor.checkpoint_offsets.get(p, 0) for part in self.parts.values())
                for p in range(self._inputs)
            }
            # Nothing read of a partition: from its earliest record, which need not be at 0.
            start = {p: offset for p, offset in offsets.items() if offset}
            self._feed = CutFeed(self._settings.kafka, self._topics.checkpoints, start)

    def _make(self, owned: Owned) -> MonitorPartition:
        partition = owned.partition
        return MonitorPartition(partition, self._inputs, self._settings, self._owns(partition), owned.name)

    def _owns(self, partition: int) -> Callable[[str], bool]:
        return lambda model: murmur2_partition(model.encode(), self._partitions) == partition

    def start(self, partition: int, earliest: int) -> int:
        """Where to read a partition of ``summaries`` from.

        Raises :class:`StateMismatch` when the log does not reach back to it.
        """
        part = self.parts[partition]
        if part.position is None:
            part.position = part.committed = earliest
        elif part.position < earliest:
            raise StateMismatch(
                f"{self._topics.summaries}-{partition}: offset {part.position} is next, the log starts at {earliest}",
                "raise the topic's retention, then start over in a new deployment (redis.prefix and worker.group)",
            )
        return part.position

    def stored_offset(self, partition: int) -> int | None:
        """The next offset as of the last checkpoint."""
        part = self.parts.get(partition)
        return None if part is None else part.committed

    def close(self) -> None:
        """Give everything up."""
        self.parts.clear()
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    # ----------------------------------------------------------------------------------------------------- work

    def accept(self, batch: Batch) -> int | None:
        """Take in summaries → the offset to seek back to when the batch lies ahead of the position, else None."""
        part = self.parts.get(batch.partition)
        if part is None or part.position is None or batch.next_offset <= part.position:
            return None
        if batch.first_offset > part.position:
            return part.position
        for offset, value in zip(batch.offsets, batch.values, strict=True):
            part.monitor.summary(offset, value)
        part.position = batch.next_offset
        if time.monotonic() - self._last_s >= self._settings.worker.checkpoint_s / 2:
            self.checkpoint()
        return None

    def checkpoint(self) -> None:
        """Take in the cuts that have come, let them have their effect, write and publish."""
        if self._feed is None:
            return
        self._last_s = time.monotonic()
        for record in self._feed.drain():
            for part in self.parts.values():
                part.monitor.checkpoint_record(record.partition, record.offset, record.value)
        for partition in list(self.parts):
            self._checkpoint_one(partition)
        self._producer.flush()

    def _checkpoint_one(self, partition: int) -> None:
        part = self.parts[partition]
        catalog = self._models.catalog
        part.monitor.advance(catalog)
        closed = part.monitor.close()
        cut = closed.cut(part.owned.epoch, part.owned.number + 1, catalog.position)
        try:
            self._store.commit(part.owned, closed.commands, {**closed.meta, "cut": msgspec.json.encode(cut)})
        except StoreLost as lost:
            raise RestartMe(f"the store was emptied or set back: {lost}", "the next start rebuilds it") from None
        except Fenced as fenced:
            log.warning("partition.fenced", stage="monitor", partition=partition, reason=str(fenced))
            del self.parts[partition]
            self._metrics.unwatched([partition])
            return
        part.committed = part.position or 0
        self._send_cut(part.owned, cut)
        self._publish(part.monitor, closed.alerts)
        for notice in closed.notices:
            log.warning(
                "model.minimum_unreachable",
                model=notice.model,
                version=notice.version,
                baseline=round(notice.baseline, 4),
                minimum=notice.minimum,
                what="the version never achieved the minimum accuracy: only a drop against its baseline pages",
            )
        for alert in closed.alerts:
            self._tell(partition, alert)
        self._report(partition, part.monitor)

    def _send_cut(self, owned: Owned, cut: MonitorCut) -> None:
        """The newest cut is kept with the state and produced again by the next owner: readers drop it as seen."""
        value = msgspec.json.encode(msgspec.structs.replace(cut, epoch=owned.epoch))
        key = str(owned.partition).encode()
        self._producer.send(self._topics.monitor_checkpoints, value, key, partition=owned.partition)

    def _publish(self, monitor: MonitorPartition, alerts: Sequence[OutboxAlert]) -> None:
        """Produce alerts; once the last is acknowledged, all of them leave the outbox."""
        acknowledged: list[None] = []  # reports come from two threads: an append and a length are each atomic

        def delivered(_: object) -> None:
            acknowledged.append(None)
            if len(acknowledged) == len(alerts):
                monitor.published(alerts[-1].sequence)

        for each in alerts:
            encoded = each.alert
            self._producer.send(self._topics.alerts, encoded.value, encoded.key, encoded.headers, delivered=delivered)

    def _tell(self, partition: int, each: OutboxAlert) -> None:
        alert = _alert.decode(each.alert.value)
        name, model = alert.labels["alertname"], alert.labels["model"]
        log.warning("alert", status=alert.status, summary=alert.annotations["summary"], fingerprint=alert.fingerprint)
        self._metrics.alerted(partition, model, name, firing=alert.status == "firing")

    def _report(self, partition: int, monitor: MonitorPartition) -> None:
        """What `driftline status` and Prometheus show. For people: written beside the checkpoint, not inside it."""
        reports = monitor.report()
        self._warn_held(monitor.clocks_ms)
        self._metrics.watched(partition, monitor.watermark_ms, reports)
        if reports:
            fields = {r.model: self._status(r, monitor.watermark_ms) for r in reports}
            self._store.note("status", fields)

    def _warn_held(self, clocks_ms: Mapping[int, int]) -> None:
        """A partition that stands still holds every model's detectors: say so, and which one it is."""
        newest = max(clocks_ms.values(), default=0)
        held_ms = newest - min(clocks_ms.values(), default=0)
        self._metrics.watermark_held.set(held_ms / 1000)
        if held_ms < HELD_MS or time.monotonic() < self._warn_again_s:
            return
        self._warn_again_s = time.monotonic() + HELD_MS / 1000
        log.error(
            "watermark.held",
            partitions=[p for p, clock in clocks_ms.items() if newest - clock >= HELD_MS],
            seconds=held_ms // 1000,
            what="no detector sees anything newer until the workers that own these input partitions go on",
            mend="is a worker down, or far behind? see `driftline status`",
        )

    def _status(self, report: ModelReport, watermark_ms: int) -> bytes:
        state = self._models.catalog.get(report.model)
        positive = label_text(state.positive) if state is not None and state.positive is not None else None
        return msgspec.json.encode(
            {
                "model": report.model,
                "champion": report.champion,
                "watermark_ms": watermark_ms,
                "alerts": report.alerts,
                "versions": [
                    {
                        "version": version.version,
                        "champion": version.champion,
                        "outcomes": version.outcomes,
                        "baseline": version.baseline,
                        "windows": {name: measures(tally, positive) for name, tally in version.windows.items()},
                        "detections": version.detections,
                    }
                    for version in report.versions
                ],
            }
        )


def measures(tally: Tally, positive: str | None) -> dict[str, float | int | None]:
    """The measures of one window, by name; None where there is no denominator."""
    if tally.mae is not None:
        return {"n": tally.n, "mae": tally.mae, "rmse": tally.rmse, "bias": tally.mean_error}
    return {
        "n": tally.n,
        "accuracy": tally.accuracy,
        "precision": tally.precision(positive),
        "recall": tally.recall(positive),
        "f1": tally.f1(positive),
    }
