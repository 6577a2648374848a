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
from typing import Protocol

import msgspec
import structlog

from detectors.tally import Tally
from streams.catalog import label_text
from streams.errors import RestartMe, StateMismatch
from streams.events import Alert, rfc3339
from streams.joining import murmur2_partition
from streams.label_report import labels
from streams.label_status import WITHHELD
from streams.log import Log, Publisher, Reader, Record
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.monitor import ModelReport, MonitorPartition, OutboxAlert
from streams.monitor_effects import recorded
from streams.monitor_rebuild import MonitorRebuild
from streams.ownership import Ownership
from streams.partition import Batch
from streams.records import MonitorCut
from streams.settings import Settings
from streams.store import Fenced, Owned, StateStore, StoreLost
from streams.topics import Topics
from streams.withholding import Doubt

HELD_MS = 30_000
"""How far one input partition may fall behind the others before it is said."""
HOUR_MS = 3_600_000

BEGINNINGS = ("fired", "reopened", "flapping", "joined")

log = structlog.get_logger(__name__)
_alert = msgspec.json.Decoder(Alert)


class Feed(Protocol):
    """Gives the records of ``checkpoints`` as they come, without waiting."""

    def drain(self) -> list[Record]:
        """What has come since the last call."""

    def close(self) -> None:
        """Stop reading."""


class ThreadedFeed:
    """Reads in a thread of its own and queues the records: a worker's loop never waits for the broker."""

    def __init__(self, reader: Reader) -> None:
        self.records: deque[Record] = deque()
        self.failure: Exception | None = None
        self._reader = reader
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
    told_hour: int = -1
    """The hour of stream time in which a cut of ours last told the settings."""


class MonitorStage:
    """Blocking; one thread at a time. ``feed`` makes the feed of cuts of a reader of ``checkpoints``, and closes it."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        broker: Log,
        publisher: Publisher,
        models: ModelEvents,
        partition_counts: Mapping[str, int],
        metrics: WorkerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        feed: Callable[[Reader], Feed] = ThreadedFeed,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> None:
        self.parts: dict[int, _Watched] = {}
        self._settings = settings
        self._recorded = recorded(settings)
        self._topics = Topics(settings.kafka.topic_prefix)
        self._store = store
        self._broker = broker
        self._publisher = publisher
        self._models = models
        self._metrics = metrics
        self._monotonic = monotonic
        self._new_feed = feed
        self._inputs = partition_counts[self._topics.checkpoints]
        self._partitions = partition_counts[self._topics.summaries]
        self._ownership = Ownership("monitor", MonitorCut, self._topics.monitor_checkpoints, broker, store, publisher)
        self._rebuild = MonitorRebuild(self._topics, store, broker, metrics, self._make, abandoned)
        self._feed: Feed | None = None
        self._last_s = float("-inf")
        self._warn_again_s = 0.0
        self._heard_ms = 0

    # ------------------------------------------------------------------------------------------------- ownership

    def take(self, partitions: Iterable[int]) -> None:
        """Give up what was owned and become the owner of ``partitions``; republish the alerts that were left.

        A state that the store has lost is rebuilt from the log first, which may take minutes.
        """
        self.close()
        taken = self._ownership.take(partitions)
        self._models.catch_up()
        self._metrics.unwatched(set(range(self._partitions)) - taken.keys())
        for partition, each in taken.items():
            monitor, cut, alerts = self._rebuild.load(each)
            position: int | None = None
            if cut is not None:
                self._send_cut(each.owned, cut)
                self._publish(monitor, alerts)
                position = monitor.next_summary_offset
            self.parts[partition] = _Watched(each.owned, monitor, position, position or 0)
        self._publisher.flush()
        if self.parts:
            offsets = {
                p: min(part.monitor.checkpoint_offsets.get(p, 0) for part in self.parts.values())
                for p in range(self._inputs)
            }
            # Nothing read of a partition: from its earliest record, which need not be at 0.
            start = {p: offset for p, offset in offsets.items() if offset}
            self._feed = self._new_feed(self._broker.reader(self._topics.checkpoints, start))

    def _make(self, owned: Owned) -> MonitorPartition:
        partition = owned.partition
        return MonitorPartition(partition, self._inputs, self._settings, self._owns(partition), owned.name)

    def _owns(self, partition: int) -> Callable[[str], bool]:
        return lambda model: murmur2_partition(model.encode(), self._partitions) == partition

    def start(self, partition: int, earliest: int, end: int) -> int:
        """Where to read a partition of ``summaries`` from.

        Raises :class:`StateMismatch` when the log does not reach back to it, or ends before it.
        """
        part = self.parts[partition]
        if part.position is None:
            part.position = part.committed = earliest
        elif part.position < earliest:
            raise StateMismatch(
                f"{self._topics.summaries}-{partition}: offset {part.position} is next, the log starts at {earliest}",
                "raise the topic's retention, then start over in a new deployment (redis.prefix and worker.group)",
            )
        elif part.position > end:
            raise StateMismatch(
                f"{self._topics.summaries}-{partition}: offset {part.position} is needed next, but the log ends at"
                f" {end}: the topic was made anew",
                "restore the topic, or start over in a new deployment (redis.prefix and worker.group)",
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
        for offset, value in zip(map(int, batch.offsets), batch.values, strict=True):
            part.monitor.summary(offset, value)
        part.position = batch.next_offset
        return None

    @property
    def due(self) -> bool:
        """Whether summaries have come since the last checkpoint, and half an interval is over since one had any.

        A checkpoint of every batch as it comes would leave the batches just behind it for the timer, a whole interval
        later; one that had nothing to say does not delay the next.
        """
        return self._fresh and self._monotonic() - self._last_s >= self._settings.worker.checkpoint_s / 2

    @property
    def _fresh(self) -> bool:
        # A copy: the event loop asks while a thread may take or drop partitions.
        return any(part.position != part.committed for part in list(self.parts.values()))

    def checkpoint(self) -> None:
        """Take in the cuts that have come, let them have their effect, write and publish."""
        if self._feed is None:
            return
        if self._fresh:
            self._last_s = self._monotonic()
        for record in self._feed.drain():
            for part in self.parts.values():
                part.monitor.checkpoint_record(record.partition, record.offset, record.value)
        for partition in list(self.parts):
            self._checkpoint_one(partition)
        self._publisher.flush()

    def _checkpoint_one(self, partition: int) -> None:
        part = self.parts[partition]
        catalog = self._models.catalog
        part.monitor.advance(catalog)
        closed = part.monitor.close()
        hour = closed.watermark_ms // HOUR_MS
        told = self._recorded if hour != part.told_hour else msgspec.UNSET
        cut = closed.cut(part.owned.epoch, part.owned.number + 1, catalog.position, told)
        try:
            self._store.commit(part.owned, closed.commands, {**closed.meta, "cut": msgspec.json.encode(cut)})
        except StoreLost as lost:
            raise RestartMe(f"the store was emptied or set back: {lost}", "the next start rebuilds it") from None
        except Fenced as fenced:
            log.warning("partition.fenced", stage="monitor", partition=partition, reason=str(fenced))
            del self.parts[partition]
            self._metrics.unwatched([partition])
            return
        part.committed, part.told_hour = part.position or 0, hour
        self._send_cut(part.owned, cut)
        self._publish(part.monitor, closed.alerts)
        for notice in closed.notices:
            if isinstance(notice, Doubt):
                _tell_doubt(notice)
                continue
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
        self._publisher.send(self._topics.monitor_checkpoints, value, key, partition=owned.partition)

    def _publish(self, monitor: MonitorPartition, alerts: Sequence[OutboxAlert]) -> None:
        """Produce alerts; once the last is acknowledged, all of them leave the outbox."""
        acknowledged: list[None] = []  # reports come from two threads: an append and a length are each atomic

        def delivered(_: object) -> None:
            acknowledged.append(None)
            if len(acknowledged) == len(alerts):
                monitor.published(alerts[-1].sequence)

        for each in alerts:
            encoded = each.alert
            self._publisher.send(self._topics.alerts, encoded.value, encoded.key, encoded.headers, delivered=delivered)

    def _tell(self, partition: int, each: OutboxAlert) -> None:
        alert = _alert.decode(each.alert.value)
        about = alert.labels["model"], alert.labels["alertname"], alert.labels.get("segment", "")
        log.warning("alert", status=alert.status, summary=alert.annotations["summary"], fingerprint=alert.fingerprint)
        began = alert.reason in BEGINNINGS
        self._metrics.alerted(partition, *about, firing=alert.status == "firing", began=began)

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
        self._heard_ms = self._heard_ms or max(clocks_ms.values(), default=0)
        late_ms = behind(clocks_ms, self._heard_ms)
        held_ms = max(late_ms.values(), default=0)
        self._metrics.watermark_held.set(held_ms / 1000)
        if held_ms < HELD_MS or self._monotonic() < self._warn_again_s:
            return
        self._warn_again_s = self._monotonic() + HELD_MS / 1000
        log.error(
            "watermark.held",
            partitions=[p for p, late in late_ms.items() if late >= HELD_MS],
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
                "labels": labels(report.labels, report.champion_metric),
                "versions": [
                    {
                        "version": version.version,
                        "champion": version.champion,
                        "outcomes": version.outcomes,
                        "baseline": version.baseline,
                        "windows": {name: measures(tally, positive) for name, tally in version.windows.items()},
                        "detections": version.detections,
                        "metric": version.metric,
                        "detection": version.detection,
                    }
                    for version in report.versions
                ],
            }
        )


def _tell_doubt(doubt: Doubt) -> None:
    told = {"model": doubt.model, "version": doubt.version, "since": rfc3339(1000 * doubt.since_s)}
    if doubt.over:
        log.info("verdict.given", reason_was=doubt.reason, **told)
    else:
        log.warning("verdict.withheld", reason=doubt.reason, what=WITHHELD[doubt.reason], **told)


def behind(clocks_ms: Mapping[int, int], heard_ms: int) -> dict[int, int]:
    """How many ms each input partition is behind the fastest.

    One that has not said anything yet (its clock is 0) counts from ``heard_ms``, when the first of them spoke.
    """
    newest = max(clocks_ms.values(), default=0)
    return {partition: newest - (clock or min(heard_ms, newest)) for partition, clock in clocks_ms.items()}


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
