"""Which part of `labelled` a run has read: its rows are found again by those offsets alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrain.collecting import HOUR_MS, Collector
from retrain.dataset import Dataset, References, gather
from retrain.reproduction import rows_from_log
from retrain.training import Refused
from serving.manifest import Manifest, Signature
from streams.records import Labelled, LabelledRow
from tests.unit.retrain.rows import (
    PROBLEM,
    SECOND_MS,
    START_MS,
    MemoryFeed,
    MemoryLog,
    concept,
    features,
    labelled,
    pairs,
    prediction,
)

FRESH_MS = START_MS + 30 * HOUR_MS


@dataclass
class LateFeed(MemoryFeed):
    """A feed that does not begin with the first record."""

    start: int = 0

    def offsets(self) -> dict[int, tuple[int, int]]:
        return {0: (self.start, self.position)}


@dataclass
class DatedLog(MemoryLog):
    """A log that finds records by the time at which they were written, as Kafka does."""

    written_ms: list[int] = field(default_factory=list)

    def append(self, rows: int, start_ms: int, written_ms: int) -> None:
        """Rows complete from ``start_ms`` on, one a second, in one record."""
        before = self.partitions.setdefault(0, [])
        start, table = len(before), features(rows, seed=len(before))
        before += [prediction(start + i, row, 0) for i, row in enumerate(table)]
        self.records.append(labelled(pairs(concept(table, changed=False), start, start_ms)))
        self.written_ms.append(written_ms)

    def labelled(self, since_ms: int | None) -> MemoryFeed:
        start = 0 if since_ms is None else int(np.searchsorted(self.written_ms, since_ms))
        return LateFeed(self.records, start, start)


def hourly(hours: int) -> DatedLog:
    """Ten rows an hour, written as the last is complete."""
    log = DatedLog()
    for hour in range(hours):
        at_ms = START_MS + hour * HOUR_MS
        log.append(10, at_ms, at_ms + 9 * SECOND_MS)
    return log


def collected(log: MemoryLog, maximum: int, minimum: int = 10) -> Dataset:
    """What a run collects."""
    collector = Collector(log, PROBLEM, maximum)
    return collector.collect(FRESH_MS, minimum, lambda: None, lambda _: None, lambda: True)


def read_again(log: MemoryLog, offsets: Mapping[int, tuple[int, int]], maximum: int) -> Dataset:
    """The rows of these offsets."""
    references = References("loans", None, maximum)
    records: Iterator[Labelled] = log.labelled_within(offsets)
    for record in records:
        references.add(record)
    return gather(references.newest(), PROBLEM, log.predictions)


def test_what_was_read_reaches_as_far_back_as_it_was_looked_for() -> None:
    """Ten new rows are there, forty are wanted: two looks back, the first of which finds nothing."""
    log = hourly(31)
    assert collected(log, 10).labelled == {0: (30, 31)}
    assert collected(log, 30).labelled == {0: (28, 31)}
    assert collected(log, 40).labelled == {0: (14, 31)}
    assert collected(log, 1_000).labelled == {0: (0, 31)}


def test_what_comes_while_older_rows_are_looked_for_was_read_too() -> None:
    """The look back goes to the end of the log, further than the wait for new rows had gone."""
    log = hourly(31)

    class Growing(DatedLog):
        def labelled(self, since_ms: int | None) -> MemoryFeed:
            if since_ms != FRESH_MS and len(self.records) == 31:
                self.append(10, FRESH_MS + HOUR_MS, FRESH_MS + HOUR_MS + 9 * SECOND_MS)
            return super().labelled(since_ms)

    found = collected(Growing(log.records, log.partitions, written_ms=log.written_ms), 1_000)
    assert found.labelled == {0: (0, 32)}
    assert len(found) == 320


def test_rows_are_found_again_by_where_reading_began() -> None:
    """A record that was written late has rows from before the others' first: a reader that begins earlier would find
    rows between them, and other ones would be the newest."""
    log = hourly(30)
    log.append(10, FRESH_MS - 2 * HOUR_MS - 40 * SECOND_MS, FRESH_MS + SECOND_MS)
    log.append(10, FRESH_MS, FRESH_MS + 9 * SECOND_MS)
    found = collected(log, 15)
    assert found.labelled == {0: (30, 32)}
    assert found.complete_ms[0] < FRESH_MS - 2 * HOUR_MS
    assert read_again(log, found.labelled, 15).sha256 == found.sha256
    assert read_again(log, {0: (0, 32)}, 15).sha256 != found.sha256


@dataclass(frozen=True)
class Said:
    """An outcome of the newest prediction of a partition but ``back``; it is the last of its record if ``ends``."""

    partition: int
    back: int
    outcome: int
    later_ms: int
    ends: bool


SAID = st.builds(
    Said, st.integers(0, 1), st.integers(-2, 3), st.sampled_from([0, 1, 7]), st.integers(0, 2), st.booleans()
)


def told(log: MemoryLog, said: list[Said]) -> None:
    """Write outcomes of new and of earlier predictions to a log whose clock goes on; every third record comes twice."""
    offset, now_ms = 1 + sum(len(record.rows()) for record in log.records), START_MS + 10 * len(log.records)
    waiting: dict[int, list[LabelledRow]] = {0: [], 1: []}
    for i, each in enumerate(said):
        now_ms += each.later_ms
        of = log.partitions.setdefault(each.partition, [])
        row = len(of) - 1 - each.back
        if not 0 <= row < len(of):
            row = len(of)
            of.append(prediction(row, features(1, seed=row)[0], 0))
        waiting[each.partition].append(LabelledRow(row, offset + i, START_MS, now_ms, 0, 0, each.outcome))
        if each.ends or i == len(said) - 1:
            record = labelled(waiting[each.partition], each.partition)
            log.records += [record] * (2 if len(log.records) % 3 == 0 else 1)
            waiting[each.partition] = []
    log.records += [labelled(rows, partition) for partition, rows in waiting.items() if rows]


@given(st.lists(SAID, min_size=1, max_size=60), st.lists(SAID, max_size=60), st.integers(1, 12))
def test_rows_are_found_again_whatever_was_corrected_came_twice_or_came_since(
    before: list[Said], since: list[Said], maximum: int
) -> None:
    """Of two partitions, with ties, and with outcomes that are of no use: only the newest rows were kept then."""
    log = MemoryLog()
    told(log, before)
    collector = Collector(log, PROBLEM, maximum)
    try:
        found = collector.collect(START_MS, 1, lambda: None, lambda _: None, lambda: True)
    except Refused:
        return
    told(log, since)
    again = rows_from_log(manifest(found.describe("predictions", log.labelled_topic)), log)
    assert again.complete_ms.tolist() == found.complete_ms.tolist()
    assert again.sha256 == found.sha256


def manifest(source: dict[str, Any]) -> Manifest:
    """The manifest of a version that was made of these rows."""
    return Manifest(
        model="loans",
        version=2,
        sha256="",
        size_bytes=0,
        created_at="2023-11-14T22:13:20Z",
        task="binary",
        signature=Signature(features=list(PROBLEM.features), label="label"),
        classes=[0, 1],
        positive=1,
        trained_from=source,
    )
