"""What the retrain loop relies on of the log and of the announcer; the fakes here, Kafka in tests/integration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from retrain.announce import Announcer
from retrain.log import LabelledFeed, Log
from streams.events import FullPrediction, ModelEvent, ModelState
from streams.records import Labelled
from tests.unit.retrain.rows import START_MS, MemoryAnnouncer, MemoryLog, features, labelled, pairs, prediction

Writer = Callable[[Sequence[Labelled], Sequence[FullPrediction | None]], None]
"""Appends to `labelled` and to partition 0 of `predictions`; None is a record that does not decode."""


def read_all(feed: LabelledFeed, expected: int) -> list[Labelled]:
    """Everything up to the end, which must come."""
    found: list[Labelled] = []
    for _ in range(1_000):
        found += feed.poll()
        if len(found) >= expected and feed.at_end():
            return found
    raise AssertionError(f"the end was not reached with {len(found)} of {expected} records")


def event(revision: int, model: str = "loans") -> ModelEvent:
    """A model event."""
    return ModelEvent("registered", ModelState(model, revision, "binary"), version="1")


class LogContract:
    """Every log passes these."""

    def test_labelled_records_come_whole_and_then_the_new_ones(self, log: Log, write: Writer) -> None:
        """History first, then what is appended while the feed is open."""
        write([labelled(pairs([0, 1])), labelled(pairs([1], start=2))], [])
        feed = log.labelled(None)
        try:
            assert [len(record.rows()) for record in read_all(feed, 2)] == [2, 1]
            write([labelled(pairs([1, 1, 1], start=3))], [])
            assert [len(record.rows()) for record in read_all(feed, 1)] == [3]
        finally:
            feed.close()

    def test_a_feed_since_a_change_misses_nothing_after_it(self, log: Log, write: Writer) -> None:
        """Records written after the change are all there, whatever else is."""
        write([labelled(pairs([0, 1]))], [])
        feed = log.labelled(START_MS)
        try:
            assert len(read_all(feed, 1)) == 1
        finally:
            feed.close()

    def test_what_a_feed_has_read_can_be_read_again(self, log: Log, write: Writer) -> None:
        """Its offsets grow with what it returns; between them are the same records, whatever came since."""
        write([labelled(pairs([0, 1])), labelled(pairs([1], start=2))], [])
        feed = log.labelled(None)
        try:
            first = read_all(feed, 2)
            offsets = feed.offsets()
            assert offsets[0] == (0, 2)
            write([labelled(pairs([1, 1, 1], start=3))], [])
            (second,) = read_all(feed, 1)
            assert feed.offsets()[0] == (0, 3)
        finally:
            feed.close()
        assert list(log.labelled_within(offsets)) == first
        assert list(log.labelled_within({0: (1, 9)})) == [first[1], second]
        assert list(log.labelled_within({0: (2, 2)})) == []

    def test_an_empty_feed_has_an_end(self, log: Log) -> None:
        """A run must see that there is nothing yet."""
        feed = log.labelled(None)
        try:
            assert read_all(feed, 0) == []
        finally:
            feed.close()

    def test_a_scan_returns_what_is_wanted_in_order(self, log: Log, write: Writer) -> None:
        """By offset; what does not decode is left out; past the end is no error."""
        made: list[FullPrediction | None] = [prediction(i, row, 0) for i, row in enumerate(features(20))]
        made[7] = None
        write([], made)
        found = list(log.predictions(0, {9, 5, 7, 8}))
        assert [offset for offset, _ in found] == [5, 8, 9]
        assert [got for _, got in found] == [made[offset] for offset, _ in found]
        assert [offset for offset, _ in log.predictions(0, {18, 19, 99})] == [18, 19]
        assert list(log.predictions(0, set())) == []

    def test_a_scan_reaches_the_end_of_large_batches(self, log: Log, write: Writer) -> None:
        """Hundreds of records in one batch: the last one is found as the first one is."""
        made: list[FullPrediction | None] = [prediction(i, row, 0) for i, row in enumerate(features(700))]
        write([], made)
        wanted = set(range(0, 700, 3)) | {699}
        assert [offset for offset, _ in log.predictions(0, wanted)] == sorted(wanted)


class AnnouncerContract:
    """Every announcer passes these."""

    def test_nothing_was_told_at_first(self, announcer: Announcer) -> None:
        """An empty topic has no states."""
        assert announcer.last_states() == {}

    def test_the_highest_revision_of_each_model_is_the_last_state(self, announcer: Announcer) -> None:
        """Two processes may publish out of order."""
        for revision, model in ((1, "loans"), (3, "loans"), (2, "loans"), (1, "cards")):
            announcer.publish(event(revision, model))
        assert {model: state.revision for model, state in announcer.last_states().items()} == {"loans": 3, "cards": 1}


class TestMemoryLog(LogContract):
    """The fake."""

    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()

    @pytest.fixture
    def write(self, log: MemoryLog) -> Writer:
        def append(records: Sequence[Labelled], predictions: Sequence[FullPrediction | None]) -> None:
            log.records += records
            log.partitions.setdefault(0, []).extend(predictions)

        return append


class TestMemoryAnnouncer(AnnouncerContract):
    """The fake."""

    @pytest.fixture
    def announcer(self) -> MemoryAnnouncer:
        return MemoryAnnouncer()
