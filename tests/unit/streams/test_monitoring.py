"""The monitor stage: when summaries are due to be written, and which input partition holds the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from streams.exposition import process_registry
from streams.log import Log, Publisher
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.monitor import MonitorPartition
from streams.monitoring import Feed, MonitorStage, _Watched, behind
from streams.partition import Batch
from streams.records import Summary
from streams.settings import Settings, load
from streams.store import Owned, StateStore
from streams.topics import NAMES, Topics
from tests.support.partition import catalog_of

LONG_S = "60"


class FakeStore:
    """Counts commits."""

    def __init__(self) -> None:
        self.commits = 0

    def commit(self, owned: Owned, commands: Sequence[Any], meta: Any) -> None:
        self.commits += 1

    def note(self, name: str, fields: Any) -> None:
        pass


class FakeProducer:
    """Takes everything."""

    def send(self, *_: Any, **__: Any) -> None:
        pass

    def flush(self) -> None:
        pass


class FakeFeed:
    """No cut ever comes."""

    def drain(self) -> list[Any]:
        return []


class FakeModels:
    """Nobody is known."""

    catalog = catalog_of({})


def stage(checkpoint_s: str) -> tuple[MonitorStage, FakeStore]:
    """A stage that owns partition 0 of ``summaries``."""
    settings: Settings = load(environ={}, flags={"worker.checkpoint_s": checkpoint_s})[0]
    store, topics = FakeStore(), Topics()
    counts = {getattr(topics, name): 1 for name in NAMES}
    made = MonitorStage(
        settings,
        cast(StateStore, store),
        cast(Log, None),
        cast(Publisher, FakeProducer()),
        cast(ModelEvents, FakeModels()),
        counts,
        WorkerMetrics(process_registry()),
    )
    owned = Owned("monitor", 0, 1, "token", 0, "m:", {})
    made.parts[0] = _Watched(owned, MonitorPartition(0, 1, settings, lambda _: True, owned.name), 0, 0)
    made._feed = cast(Feed, FakeFeed())
    return made, store


def summaries(first: int, count: int) -> Batch:
    """Records of one model at offsets from ``first`` on."""
    values = [msgspec.msgpack.encode(Summary(0, 1, first + n + 1, "m", "binary", [])) for n in range(count)]
    offsets = list(range(first, first + count))
    return Batch("summaries", 0, 0, first, first + count, values, offsets, [(0, count)])


def test_summaries_wait_for_the_next_step_whatever_silence_was_written_just_before() -> None:
    """A checkpoint without a summary does not put off the next one: those of a quiet system would wait an interval."""
    monitor, store = stage(LONG_S)
    monitor.checkpoint()
    assert not monitor.due
    monitor.accept(summaries(0, 1))
    assert monitor.due
    assert store.commits == 1, "a batch is not written by itself: those just behind it would wait for the timer"


def test_summaries_that_follow_a_written_one_wait_half_an_interval() -> None:
    """Checkpoints of the monitor have a price for every model, so that they are bounded in number under load."""
    monitor, _ = stage(LONG_S)
    monitor.accept(summaries(0, 1))
    monitor.checkpoint()
    monitor.accept(summaries(1, 1))
    assert not monitor.due


NOON_MS = 1_800_000_000_000


def test_the_slowest_partition_is_told() -> None:
    """In ms behind the fastest."""
    assert behind({0: NOON_MS, 1: NOON_MS - 40_000}, NOON_MS - 90_000) == {0: 0, 1: 40_000}


def test_a_partition_that_has_not_spoken_counts_from_when_the_first_did() -> None:
    """Not from 1970: every new deployment would begin with an alert. If it never speaks, it is told all the same."""
    assert behind({0: 0, 1: 0}, 0) == {0: 0, 1: 0}
    assert behind({0: NOON_MS, 1: 0}, NOON_MS) == {0: 0, 1: 0}
    assert behind({0: NOON_MS + 31_000, 1: 0}, NOON_MS) == {0: 0, 1: 31_000}
