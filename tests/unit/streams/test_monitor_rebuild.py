"""The monitor from the log: the same state and alerts, nothing pages twice, and what is gone is said to be."""

from __future__ import annotations

import copy
import random
from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from streams import codec
from streams import log as streams_log
from streams.catalog import Catalog
from streams.codec import alert_decoder
from streams.events import Alert, ModelEvent
from streams.log import Record
from streams.metrics import WorkerMetrics
from streams.monitor import MonitorPartition, OutboxAlert
from streams.monitor_rebuild import MonitorRebuild, stretches
from streams.ownership import Taken
from streams.records import MonitorCut, Range, Take
from streams.seal import checksum_of
from streams.store import Owned, StateStore
from streams.topics import Topics
from streams.trail import Trail
from tests.unit.streams.monitor_log import START_S, FakeStore, Log, Pair, champion, fresh, record, settings
from tests.unit.streams.test_monitor import traffic

TOPICS = Topics("")
KEY = "d:{monitor:0}:"


class MemoryReader:
    """A topic reader over lists of records; ``low`` cuts off what retention has removed."""

    def __init__(
        self, log: Mapping[str, list[list[Record]]], low: Mapping[str, int], topic: str, start: Any, partitions: Any
    ) -> None:
        found = log[topic]
        wanted = range(len(found)) if partitions is None else partitions
        first = low.get(topic, 0)
        self._records = {p: found[p] for p in wanted}
        self.next = {p: start[p] if start and p in start else first for p in wanted}
        assert all(offset >= first for offset in self.next.values()), "out of range"
        self.at_end = dict.fromkeys(wanted, False)

    def poll(self, timeout_s: float = 0.0) -> list[Record]:
        read: list[Record] = []
        for p, records in self._records.items():
            read += records[self.next[p] :]
            self.next[p], self.at_end[p] = len(records), True
        return read

    def read_to_end(self) -> Iterator[Record]:
        # Partition by partition, as a broker answers.
        yield from self.poll()

    def close(self) -> None:
        """Nothing is open."""


class ShortenedLog:
    """The log, of which retention has removed what is before ``low``."""

    def __init__(self, log: Mapping[str, list[list[Record]]], low: Mapping[str, int]) -> None:
        self._log, self._low = log, low

    def reader(
        self, topic: str, start: Mapping[int, int] | None = None, partitions: Collection[int] | None = None
    ) -> MemoryReader:
        return MemoryReader(self._log, self._low, topic, start, partitions)


class MemoryStore(FakeStore):
    """What a rebuild does with the store."""

    def read_all(self, commands: Collection[tuple[Any, ...]]) -> list[Any]:
        return [dict(self.hashes.get(str(key), {})) for _, key in commands]

    def replace(self, owned: Owned, commands: Any, meta: dict[str, Any], number: int) -> None:
        self.meta = {}
        for command in commands:
            for key in command[1:] if command[0] == "DEL" else ():
                self.hashes.pop(str(key), None)
        self.apply([command for command in commands if command[0] != "DEL"], {**meta, "number": number})
        owned.number = number


def logged(topic: str, partition: int, values: Collection[bytes], headers: Any = ()) -> list[Record]:
    return [Record(topic, partition, n, 1_000 + n, None, value, headers) for n, value in enumerate(values)]


class Run:
    """A monitor that lost nothing, checkpoint by checkpoint, and everything that it and the join have published."""

    def __init__(self, log: Log, steps: int = 12, *, promotes: bool = True) -> None:
        self.configuration = settings()
        self.states = [champion(accuracy=0.95), champion("house", "1", baselines={})]
        promoted = msgspec.structs.replace(champion(accuracy=0.95), revision=2, aliases={"champion": "2"})
        self.events = [ModelEvent("registered", state) for state in self.states]
        self.events.append(ModelEvent("promoted", promoted))
        catalog = Catalog()
        self.store, self.stores = MemoryStore(), [MemoryStore()]
        self.cuts: list[MonitorCut] = []
        self.alerts: list[list[OutboxAlert]] = []
        self.log = log
        monitor = fresh(self.configuration, len(log.checkpoints))
        for step in range(1, steps + 1):
            while catalog.position < (3 if promotes and step > steps * 2 // 3 else 2):
                catalog.apply(catalog.position, self.events[catalog.position])
            upto = len(log.summaries) * step // steps
            for offset in range(monitor.next_summary_offset, upto):
                monitor.summary(offset, log.summaries[offset])
            for partition, records in enumerate(log.checkpoints):
                for offset, value in enumerate(records[: len(records) * step // steps]):
                    monitor.checkpoint_record(partition, offset, value)
            monitor.advance(catalog)
            closed = monitor.close()
            cut = closed.cut(1, step, catalog.position)
            self.store.apply(closed.commands, {**closed.meta, "cut": msgspec.json.encode(cut), "number": step})
            monitor.published(monitor.alert_sequence)
            self.cuts.append(cut)
            self.alerts.append(closed.alerts)
            self.stores.append(copy.deepcopy(self.store))
        self.monitor = monitor

    def topics(self, unsent: int = 0) -> dict[str, list[list[Record]]]:
        """The log; the newest ``unsent`` alerts are not in it."""
        sent = [each for alerts in self.alerts for each in alerts]
        sent = sent[: len(sent) - unsent]
        alerts = [
            Record("alerts", 0, n, 1_000 * START_S, each.alert.key, each.alert.value, tuple(each.alert.headers))
            for n, each in enumerate(sent)
        ]
        cuts = [msgspec.json.encode(each) for each in (Take(0, 1, "t", "w"), *self.cuts)]
        return {
            TOPICS.summaries: [logged("summaries", 0, self.log.summaries)],
            TOPICS.checkpoints: [logged("checkpoints", p, each) for p, each in enumerate(self.log.checkpoints)],
            TOPICS.monitor_checkpoints: [logged("monitor-checkpoints", 0, cuts)],
            TOPICS.alerts: [alerts],
            TOPICS.model_events: [logged("model-events", 0, [codec.encode(each) for each in self.events])],
        }

    def rebuild(
        self, store: MemoryStore, unsent: int = 0, low: Mapping[str, int] | None = None
    ) -> tuple[MonitorPartition, list[OutboxAlert]]:
        """Take the partition with what a store has."""
        trail: Trail[MonitorCut] = Trail()
        trail.add(0, Take(0, 1, "t", "w"))
        for offset, each in enumerate(self.cuts, start=1):
            trail.add(offset, each)
        owned = Owned("monitor", 0, 2, "u", int(store.meta.get("number", 0)), KEY, dict(store.meta))
        owned.meta["checksum"] = checksum_of({k: v for k, v in owned.meta.items() if k != "checksum"})
        rebuilding = MonitorRebuild(
            TOPICS,
            cast(StateStore, store),
            cast(streams_log.Log, ShortenedLog(self.topics(unsent), low or {})),
            WorkerMetrics(CollectorRegistry()),
            lambda _: fresh(self.configuration, len(self.log.checkpoints)),
            lambda: False,
        )
        monitor, cut, alerts = rebuilding.load(Taken(owned, trail, len(self.cuts) + 1))
        assert cut == self.cuts[-1]
        return monitor, alerts


@pytest.fixture(scope="module")
def run() -> Run:
    return Run(record(traffic(3), 3, ends_s=START_S + 2_500))


def reloaded(run: Run, store: MemoryStore) -> MonitorPartition:
    monitor = fresh(run.configuration, len(run.log.checkpoints))
    monitor.load(store.meta, store.read(monitor.keys()))
    return monitor


@pytest.mark.parametrize("number", range(12))
def test_any_lost_end_gives_the_same_state_and_only_the_alerts_that_were_not_sent(run: Run, number: int) -> None:
    """From any earlier checkpoint and from nothing, over a promotion; ids and numbers of alerts are the same."""
    for unsent in range(len(run.alerts[-1]) + 1):
        store = copy.deepcopy(run.stores[number])
        monitor, alerts = run.rebuild(store, unsent)
        last = run.alerts[-1]
        assert alerts == last[len(last) - unsent :]
        assert monitor.report() == run.monitor.report()
        assert (monitor.fed_s, monitor.alert_sequence) == (run.monitor.fed_s, run.monitor.alert_sequence)
        assert monitor.pairs >= run.cuts[-1].pairs
        assert store.meta["number"] == b"12"
        assert reloaded(run, store).report() == run.monitor.report()
        assert monitor.next_summary_offset == run.cuts[-1].summaries.end


def test_a_damaged_field_of_any_hash_is_rebuilt(run: Run) -> None:
    """One bit, or a whole hash that is gone: neither is trusted, and neither is the end."""
    hashes = [name for name, fields in run.store.hashes.items() if fields and not name.endswith("outbox")]
    assert len(hashes) >= 6
    for name in hashes:
        for damage in ("flip", "lose"):
            store = copy.deepcopy(run.store)
            field, value = next(iter(store.hashes[name].items()))
            if damage == "flip":
                store.hashes[name][field] = value[:-1] + bytes([value[-1] ^ 8])
            else:
                del store.hashes[name]
            monitor, alerts = run.rebuild(store)
            assert alerts == []
            assert monitor.report() == run.monitor.report()


def firing(monitor: MonitorPartition) -> set[tuple[str, str, int]]:
    """Model, name and start of every alert that fires."""
    return {
        (model.model, each.alertname, each.started_at_ms)
        for model in monitor.report()
        for each in model.alerts
        if each.state == "firing"
    }


def test_a_log_that_begins_later_opens_no_alert_a_second_time() -> None:
    """Windows begin with what is left; what fires is what was published as firing, and goes on from there."""
    rng = random.Random(5)
    pairs = [
        Pair(START_S + at, error=float(rng.random() < (0.5 if at > 900 else 0.05))) for at in range(2_400) for _ in "12"
    ]
    run = Run(record(pairs, 3, ends_s=START_S + 2_400), promotes=False)
    assert firing(run.monitor), "something fires at the end"
    store, last = MemoryStore(), run.cuts[-1]
    monitor, alerts = run.rebuild(store, low={TOPICS.summaries: len(run.log.summaries) * 3 // 4})
    assert alerts == []
    assert (monitor.alert_sequence, monitor.pairs) == (last.alert_sequence, last.pairs)
    assert monitor.watermark_ms >= last.watermark_ms
    assert firing(monitor) == firing(run.monitor) == firing(reloaded(run, store))
    newest = {alert.fingerprint: alert for alert in (alert_of(each) for alerts in run.alerts for each in alerts)}
    monitor.inputs.hold_watermark(last.watermark_ms + 1_200_000)
    monitor.advance(Catalog())
    raised = [alert_of(each) for each in monitor.close().alerts]
    assert raised, "what fires is sent again, or resolves"
    for alert in raised:
        known = newest.get(alert.fingerprint)
        if known is not None and known.status == "firing":
            assert (alert.starts_at, alert.sequence) == (known.starts_at, known.sequence + 1)
            newest[alert.fingerprint] = alert


def alert_of(each: OutboxAlert) -> Alert:
    return alert_decoder().decode_any(each.alert.value, each.alert.headers)


def test_stretches_are_where_the_catalog_did_not_change() -> None:
    """One for each catalog, up to the last watermark that was reached under it."""
    cuts = [MonitorCut(0, 1, n, Range(0, 0), 100 * n, 0, 0, position) for n, position in enumerate((2, 2, 3, 3, 3, 5))]
    assert [(each.until_ms, each.model_events) for each in stretches(cuts)] == [(100, 2), (400, 3), (500, 5)]
