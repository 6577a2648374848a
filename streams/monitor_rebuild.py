"""Loads the state of monitor partitions, and rebuilds it from the log when the store lost it, is behind, or is damaged.

The summaries up to the last published cut are fed again, with the catalog as it was then: the monitor's cuts say under
which model events each stretch of stream time took effect. While the log reaches back to its beginning, or to where the
store is, and the monitor's settings have not changed, that is exact: the alerts come out with the same numbers and ids,
and those that were published are dropped. Otherwise windows, detectors and learnt baselines begin with the oldest
summary that is left, and which alerts are open is taken from the topic ``alerts``: nothing pages a second time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import msgspec
import structlog

from streams import monitor_stored
from streams.codec import Undecodable, alert_decoder
from streams.episodes import PublishedAlerts, drift_evidence, episode, incidents
from streams.errors import RestartMe
from streams.log import Log, Record
from streams.log_beginning import first_sequences, reaches_back
from streams.log_ranges import CatalogHistory, LookAhead
from streams.metrics import WorkerMetrics
from streams.monitor import MonitorPartition, OutboxAlert
from streams.ownership import Taken
from streams.rebuilding import TOLD_EVERY_S, Abandoned
from streams.records import Gap, MonitorCut, Take
from streams.seal import Damaged
from streams.store import Command, Fenced, Owned, StateStore
from streams.topics import Topics
from streams.trail import Trail

FIRST_REACH = 64
CHUNK = 2_000
"""Records that are fed before their effect is taken."""

log = structlog.get_logger(__name__)
_record = msgspec.json.Decoder(Take | MonitorCut | Gap)
_cut = msgspec.json.Decoder(MonitorCut)


@dataclass(slots=True)
class Stretch:
    """Stream time up to ``until_ms`` took effect under the model events before ``model_events``."""

    until_ms: int
    model_events: int


def stretches(cuts: Iterable[MonitorCut]) -> list[Stretch]:
    """The stretches of stream time between changes of the catalog, in order."""
    found: list[Stretch] = []
    for cut in cuts:
        if found and found[-1].model_events == cut.model_events:
            found[-1].until_ms = cut.watermark_ms
        else:
            found.append(Stretch(cut.watermark_ms, cut.model_events))
    return found


class MonitorRebuild:
    """Blocking; one thread at a time. ``make`` gives the fresh monitor of an owned partition."""

    def __init__(
        self,
        topics: Topics,
        store: StateStore,
        broker: Log,
        metrics: WorkerMetrics,
        make: Callable[[Owned], MonitorPartition],
        abandoned: Callable[[], bool],
    ) -> None:
        self._topics = topics
        self._store = store
        self._broker = broker
        self._metrics = metrics
        self._make = make
        self._abandoned = abandoned
        self._told_s = 0.0

    def load(self, taken: Taken[MonitorCut]) -> tuple[MonitorPartition, MonitorCut | None, list[OutboxAlert]]:
        """The monitor as of the newest checkpoint, that checkpoint's cut if there is one, and the alerts to publish."""
        owned, last = taken.owned, taken.trail.last
        stored: MonitorPartition | None = None
        damage: str | None = None
        cut: MonitorCut | None = None
        try:
            owned.check()
            if "cut" in owned.meta:
                monitor, alerts = self._stored(owned)
                cut = _cut.decode(owned.meta["cut"])
                if owned.number >= taken.trail.number and not (
                    last is not None and last.sequence == cut.sequence and _differs(cut, last)
                ):
                    return monitor, cut, alerts
                stored = monitor
                stored.published(max((each.sequence for each in alerts), default=0))
        except Damaged as found:
            damage = str(found)
        if last is None:
            if damage is not None:
                log.error("monitor.damaged", partition=owned.partition, what=damage, mend="it begins anew")
                self._write(lambda: self._store.replace(owned, [self._wipe(owned)], {}, 0))
            return self._make(owned), None, []
        monitor, alerts = self._rebuild(taken, last, stored, cut, damage)
        return monitor, last, alerts

    def _stored(self, owned: Owned) -> tuple[MonitorPartition, list[OutboxAlert]]:
        monitor = self._make(owned)
        commands: list[Command] = [("HGETALL", owned.name(part)) for part in monitor_stored.PARTS]
        return monitor, monitor.load(owned.meta, self._store.read_all(commands))

    def _wipe(self, owned: Owned) -> Command:
        return ("DEL", *(owned.name(part) for part in monitor_stored.PARTS))

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Fenced as fenced:
            raise RestartMe(f"the partition was lost while it was rebuilt: {fenced}", "restarting is safe") from None

    # ------------------------------------------------------------------------------------------------- rebuilding

    def _rebuild(
        self,
        taken: Taken[MonitorCut],
        last: MonitorCut,
        stored: MonitorPartition | None,
        stored_cut: MonitorCut | None,
        damage: str | None,
    ) -> tuple[MonitorPartition, list[OutboxAlert]]:
        owned, partition = taken.owned, taken.owned.partition
        reason = damage or f"the store is at checkpoint {owned.number}, and {last.sequence} was published"
        log.warning("rebuild.started", stage="monitor", partition=partition, reason=reason, to=last.sequence)
        began_s = time.monotonic()
        cuts, reaches = self._cuts(taken, stored_cut)
        if stored is not None and not reaches:
            stored = None  # the cut of the stored state is not the one that was published, or is gone
            cuts, reaches = self._cuts(taken, None)
        monitor = stored if stored is not None else self._make(owned)
        exact = reaches
        if stored is None and not reaches_back(self._broker, self._topics, {partition}):
            exact = False
            monitor.inputs.begin_after(
                first_sequences(self._broker, self._topics, {partition}, self._require_wanted)[partition]
            )
        published = self._published()
        exact = self._feed(monitor, last, stretches(cuts), published, keep=exact) and exact
        exact = exact and monitor.alert_sequence == last.alert_sequence
        monitor.fed_s = max(monitor.fed_s, last.watermark_ms // 1000)
        monitor.inputs.hold_watermark(last.watermark_ms)
        if not exact:
            take_from(monitor, last, published)
        monitor.next_summary_offset = max(monitor.next_summary_offset, last.summaries.end)
        closed = monitor.close()
        commands = closed.commands if stored is not None else [self._wipe(owned), *closed.commands]
        meta = {**closed.meta, "cut": msgspec.json.encode(last)}
        self._write(lambda: self._store.replace(owned, commands, meta, last.sequence))
        self._metrics.rebuilt("monitor")
        log.warning(
            "rebuild.done",
            stage="monitor",
            partition=partition,
            checkpoint=last.sequence,
            exact=exact,
            began="from the store" if stored is not None else "from the log",
            alerts=monitor.alert_sequence,
            republished=len(closed.alerts),
            seconds=round(time.monotonic() - began_s, 3),
        )
        return monitor, closed.alerts

    def _cuts(self, taken: Taken[MonitorCut], stored: MonitorCut | None) -> tuple[list[MonitorCut], bool]:
        """The cuts behind the stored one, thinned to changes of the catalog; and whether none of them is missing."""
        partition = taken.owned.partition
        topic = self._topics.monitor_checkpoints
        with closing(self._broker.reader(topic, None, {partition})) as probe:
            low = probe.next[partition]
        reach = FIRST_REACH
        while True:
            start = max(low, taken.end - reach) if stored is not None else low
            found, reaches = self._thinned(partition, start, taken.end, stored)
            if reaches or start == low:
                return found, reaches
            reach *= 8

    def _thinned(
        self, partition: int, start: int, end: int, stored: MonitorCut | None
    ) -> tuple[list[MonitorCut], bool]:
        trail: Trail[MonitorCut] = Trail()
        found: list[MonitorCut] = []
        reaches = False
        for record in self._records(self._topics.monitor_checkpoints, partition, start, end):
            cut = trail.add(record.offset, _record.decode(record.value or b""))
            if cut is None:
                continue
            if stored is None:
                reaches = reaches or cut.sequence == 1
            elif cut.sequence <= stored.sequence:
                reaches = cut.sequence == stored.sequence and not _differs(cut, stored)
                continue
            if found and found[-1].model_events == cut.model_events:
                found[-1] = cut
            else:
                found.append(cut)
        return found, reaches

    def _published(self) -> PublishedAlerts:
        found = PublishedAlerts()
        decoder = alert_decoder()
        with closing(self._broker.reader(self._topics.alerts, None, None)) as reader:
            for record in reader.read_to_end():
                if record.value is None:
                    continue
                try:
                    found.add(decoder.decode_any(record.value, record.headers), record.at_ms // 1000)
                except Undecodable as error:
                    log.error("alert.ignored", offset=record.offset, reason=error.reason, detail=str(error))
        return found

    def _feed(
        self,
        monitor: MonitorPartition,
        last: MonitorCut,
        plan: list[Stretch],
        published: PublishedAlerts,
        *,
        keep: bool,
    ) -> bool:
        """Feed the summaries and cuts up to the last cut's watermark → whether the log had them all."""
        began_ms = monitor.watermark_ms
        with closing(CatalogHistory(self._broker, self._topics.model_events)) as catalogs:
            feeding = self._merged(monitor, last)
            ended = False
            while plan:
                step = plan[0]
                catalog = catalogs.at(step.model_events)
                monitor.advance(catalog, step.until_ms)
                self._drop_published(monitor, published, keep=keep)
                whole = len(plan) > 1 or monitor.next_summary_offset >= last.summaries.end
                if monitor.watermark_ms >= step.until_ms and whole:
                    plan.pop(0)
                    continue
                if ended:
                    log.warning("rebuild.short", partition=monitor.partition, watermark_ms=monitor.watermark_ms)
                    return False
                ended = not next(feeding, False)
                self._require_wanted()
                self._tell(monitor, began_ms, last.watermark_ms)
            feeding.close()
        return True

    def _drop_published(self, monitor: MonitorPartition, published: PublishedAlerts, *, keep: bool) -> None:
        """Of the alerts that a replay raises, only those count that were not published: the newest cut's, perhaps."""
        decoder = alert_decoder()
        monitor.outbox = [
            each
            for each in monitor.outbox
            if keep and not published.includes(decoder.decode_any(each.alert.value, each.alert.headers))
        ]

    def _merged(self, monitor: MonitorPartition, last: MonitorCut) -> Generator[bool, None, None]:
        """Feed summaries and cuts in the order of their record times, a chunk at each step, to the end of both."""
        partition = monitor.partition
        start, offsets = self._from(monitor.next_summary_offset, partition), monitor.checkpoint_offsets
        with (
            closing(self._broker.reader(self._topics.summaries, start, {partition})) as summaries,
            closing(self._broker.reader(self._topics.checkpoints, self._known(offsets), None)) as checkpoints,
        ):
            told = LookAhead(summaries)
            cuts = LookAhead(checkpoints)
            fed = 0
            while True:
                summary = told.head() if monitor.next_summary_offset < last.summaries.end else None
                cut = cuts.head()
                if summary is None and told.ended:
                    monitor.next_summary_offset = max(monitor.next_summary_offset, last.summaries.end)
                if summary is not None and summary.offset >= last.summaries.end:
                    monitor.next_summary_offset, summary = last.summaries.end, None
                if summary is None and cut is None:
                    return
                if cut is None or (summary is not None and summary.at_ms <= cut.at_ms):
                    record = told.take()
                    monitor.summary(record.offset, record.value)
                else:
                    record = cuts.take()
                    monitor.checkpoint_record(record.partition, record.offset, record.value)
                fed += 1
                if fed % CHUNK == 0:
                    yield True

    def _from(self, offset: int, partition: int) -> Mapping[int, int] | None:
        return {partition: offset} if offset else None

    def _known(self, offsets: Mapping[int, int]) -> Mapping[int, int] | None:
        """Where to read the cuts from; a partition of which nothing is known starts at its earliest record."""
        return {partition: offset for partition, offset in offsets.items() if offset}

    def _records(self, topic: str, partition: int, start: int, end: int) -> Iterator[Record]:
        if start >= end:
            return
        with closing(self._broker.reader(topic, {partition: start}, {partition})) as reader:
            for record in reader.read_to_end():
                self._require_wanted()
                if record.offset < end:
                    yield record
                if record.offset >= end - 1:
                    return

    def _require_wanted(self) -> None:
        if self._abandoned():
            raise Abandoned

    def _tell(self, monitor: MonitorPartition, began_ms: int, until_ms: int) -> None:
        if time.monotonic() - self._told_s >= TOLD_EVERY_S and until_ms > began_ms:
            self._told_s = time.monotonic()
            share = max(0, monitor.watermark_ms - began_ms) / (until_ms - began_ms)
            log.info("rebuild.progress", stage="monitor", partition=monitor.partition, done=round(min(1.0, share), 3))


def take_from(monitor: MonitorPartition, last: MonitorCut, published: PublishedAlerts) -> None:
    """What the log cannot give again is taken from the last cut and from the alerts that were published."""
    monitor.outbox = []
    monitor.alert_sequence = last.alert_sequence
    monitor.pairs = max(monitor.pairs, last.pairs)
    for model in sorted(published.models | monitor.watches.keys()):
        if monitor.owns(model):
            alerts = published.of_model(model)
            found = [episode(each, monitor.fed_s) for each in alerts]
            monitor.watch(model).adopt(found, drift_evidence(alerts), incidents(alerts))


def _differs(one: MonitorCut, other: MonitorCut) -> bool:
    return msgspec.structs.replace(one, epoch=0) != msgspec.structs.replace(other, epoch=0)
