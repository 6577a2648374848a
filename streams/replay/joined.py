"""The inputs joined anew, by the worker's own join: what it would have written of them under these settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec

from streams.catalog import Catalog, guess_task
from streams.columns import OUTCOMES, PREDICTIONS
from streams.events import ModelEvent, ModelState
from streams.joining import effect_settings, murmur2_partition
from streams.log import Log, Record
from streams.log_ranges import LookAhead
from streams.partition import Batch, InputPartition
from streams.records import Take
from streams.replay.run import CheckpointRead, ModelEvents, Read, SummaryRead
from streams.settings import Settings
from streams.store import Owned
from streams.topics import Topics

BATCH = 4_000
"""Records of one input partition that are taken in at once."""
CHUNK_MS = 1_800_000
"""Or of so much stream time: what waits minute by minute is looked through each minute."""
CLOSE_EVENTS = 20_000
"""A cut after so many: what waits between two is held in memory."""
CLOSE_MS = 60_000
"""And one in so much stream time, so that the monitors of all partitions go on."""
EPOCH = 1


@dataclass(frozen=True, slots=True)
class Raw:
    """One record of an input. ``side``: 0 for predictions, 1 for outcomes."""

    side: int
    partition: int
    offset: int
    at_ms: int
    value: bytes | None


class Joined:
    """Joins ``partitions`` pairs of input partitions; the models are those of ``model_events``, as they are last.

    A name that is not among them is registered at first sight, as the worker does. ``model``: the only one whose
    summaries are wanted; None for all.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        summaries_partitions: int,
        model_events: ModelEvents = (),
        model: str | None = None,
    ) -> None:
        worker = settings.worker.model_copy(update={"allow_garbage": True})
        self._parts = [
            InputPartition(Owned("join", p, EPOCH, "", 0, ""), worker, effect_settings(settings))
            for p in range(partitions)
        ]
        self._catalog = Catalog()
        for offset, event in model_events:
            self._catalog.apply(offset, event)
        self.newest_ms = 0
        """The time of the newest record taken in."""
        self._only = model
        self._summaries_partitions = summaries_partitions
        self._summary_offsets = [0] * summaries_partitions
        self._cut_offsets = [0] * partitions

    def start(self, side: int, partition: int, offset: int) -> None:
        """The first record of an input that is there."""
        self._parts[partition].start(side, offset, 0, offset, "")

    def take(self, records: Sequence[Raw]) -> Iterator[Read]:
        """Join the next records, of each input in offset order; gives what a worker would have written."""
        grouped: dict[tuple[int, int], list[Raw]] = {}
        for record in records:
            grouped.setdefault((record.partition, record.side), []).append(record)
            self.newest_ms = max(self.newest_ms, record.at_ms)
        for (partition, side), mine in grouped.items():
            part = self._parts[partition]
            for at in range(0, len(mine), BATCH):
                part.accept(side, _batch(side, mine[at : at + BATCH]))
            yield from self._advance(part)

    def end(self, at_ms: int) -> Iterator[Read]:
        """Nothing earlier than ``at_ms`` comes any more: what waited for that is joined, or expires."""
        for part in self._parts:
            for side in (PREDICTIONS, OUTCOMES):
                part.timeline.idle(side, at_ms)
            yield from self._advance(part)
            yield from self._close(part)

    def _advance(self, part: InputPartition) -> Iterator[Read]:
        while unknown := part.advance(self._catalog):
            for made in unknown:
                state = ModelState(made.model, 0, guess_task(made.prediction), mode="observe")
                self._catalog.apply(self._catalog.position, ModelEvent("registered", state))
        if part.pending_events >= CLOSE_EVENTS or part.timeline.clock_ms - part.clock_ms >= CLOSE_MS:
            yield from self._close(part)

    def _close(self, part: InputPartition) -> Iterator[Read]:
        closed = part.close(self._catalog)
        partition = part.owned.partition
        part.owned.number = closed.cut.sequence
        for model, summary in closed.summaries:
            if self._only not in (None, model):
                continue
            place = murmur2_partition(model.encode(), self._summaries_partitions)
            yield SummaryRead(place, self._summary_offsets[place], msgspec.msgpack.encode(summary))
            self._summary_offsets[place] += 1
        if not self._cut_offsets[partition]:
            yield CheckpointRead(partition, 0, Take(partition, EPOCH, "", "replay"))
            self._cut_offsets[partition] = 1
        yield CheckpointRead(partition, self._cut_offsets[partition], closed.cut)
        self._cut_offsets[partition] += 1


def _batch(side: int, records: Sequence[Raw]) -> Batch:
    runs: list[tuple[int, int]] = []
    for record in records:
        if runs and runs[-1][0] == record.at_ms:
            runs[-1] = (record.at_ms, runs[-1][1] + 1)
        else:
            runs.append((record.at_ms, 1))
    return Batch(
        topic=("predictions", "outcomes")[side],
        partition=records[0].partition,
        generation=0,
        first_offset=records[0].offset,
        next_offset=records[-1].offset + 1,
        values=[record.value for record in records],
        offsets=[record.offset for record in records],
        runs=runs,
    )


def joined(joins: Joined, records: Iterable[Raw], *, until_ms: int = 0, margin_ms: int = 0) -> Iterator[Sequence[Read]]:
    """What comes of a stream of records, in chunks.

    Behind its newest record stream time goes on for ``margin_ms``, and to ``until_ms`` at least.
    """
    chunk: list[Raw] = []
    for record in records:
        if len(chunk) >= BATCH or (chunk and record.at_ms - chunk[0].at_ms >= CHUNK_MS):
            yield list(joins.take(chunk))
            chunk = []
        chunk.append(record)
    yield list(joins.take(chunk))
    yield list(joins.end(max(until_ms, joins.newest_ms + margin_ms)))


def inputs(broker: Log, topics: Topics, joins: Joined) -> Iterator[Raw]:
    """Both input topics from their earliest records to their ends, in step by the records' times."""
    names = (topics.predictions, topics.outcomes)
    with closing(broker.reader(names[0])) as predictions, closing(broker.reader(names[1])) as outcomes:
        for side, reader in enumerate((predictions, outcomes)):
            for partition, offset in reader.next.items():
                joins.start(side, partition, offset)
        heads = (LookAhead(predictions), LookAhead(outcomes))
        while ahead := [(record.at_ms, side) for side in (0, 1) if (record := heads[side].head()) is not None]:
            side = min(ahead)[1]
            yield _raw(side, heads[side].take())


def _raw(side: int, record: Record) -> Raw:
    return Raw(side, record.partition, record.offset, record.at_ms, record.value)
