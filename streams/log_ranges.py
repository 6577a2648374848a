"""Reads stretches of the log again: records of one input partition by offset range, model events up to an offset."""

from __future__ import annotations

import time
from collections import deque

import structlog

from streams.catalog import Catalog
from streams.codec import Undecodable, model_event_decoder
from streams.errors import StateMismatch, Unavailable
from streams.log import Log, Reader, Record
from streams.partition import Batch

WAIT_S = 120.0
"""How long a broker may take to give the next record of a stretch that is there."""

log = structlog.get_logger(__name__)


class InputStretch:
    """One partition of an input topic, read once from an offset on."""

    def __init__(self, broker: Log, topic: str, partition: int, start: int) -> None:
        self._reader = broker.reader(topic, {partition: start}, {partition})
        self._topic = topic
        self._partition = partition
        self._position = start
        self._read: deque[Record] = deque()

    def batch(self, start: int, end: int) -> Batch:
        """The records from ``start`` to before ``end``; both never fall from call to call. Holds them all.

        Raises :class:`StateMismatch` when the log ends before ``end``, :class:`Unavailable` without a broker.
        """
        self._read_to(end)
        taken: list[Record] = []
        while self._read and self._read[0].offset < end:
            record = self._read.popleft()
            if record.offset >= start:
                taken.append(record)
        runs: list[tuple[int, int]] = []
        for record in taken:
            if runs and runs[-1][0] == record.at_ms:
                runs[-1] = (record.at_ms, runs[-1][1] + 1)
            else:
                runs.append((record.at_ms, 1))
        values, offsets = [record.value for record in taken], [record.offset for record in taken]
        return Batch(self._topic, self._partition, 0, start, end, values, offsets, runs)

    def _read_to(self, end: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while self._position < end:
            records = self._reader.poll()
            self._read.extend(records)
            self._position = self._reader.next[self._partition]
            if records:
                deadline = time.monotonic() + WAIT_S
            elif self._reader.at_end[self._partition] and self._position < end:
                raise StateMismatch(
                    f"{self._topic}-{self._partition} ends at offset {self._position}, and a cut reaches to {end}",
                    "the topic was made anew: restore it, or start over in a new deployment (redis.prefix, worker.group"
                    " and kafka.topic_prefix)",
                )
            elif time.monotonic() > deadline:
                raise Unavailable(f"{self._topic}-{self._partition} cannot be read", "is the broker reachable?")

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()


class CatalogHistory:
    """The catalog as it was: model events up to an offset that never falls from call to call."""

    def __init__(self, broker: Log, topic: str) -> None:
        self._reader = broker.reader(topic, None, None)
        self._topic = topic
        self._decoder = model_event_decoder()
        self._catalog = Catalog()
        self._read: deque[Record] = deque()

    def at(self, position: int) -> Catalog:
        """The catalog after the model events before offset ``position``. The same object each time, moved on.

        Raises :class:`StateMismatch` when the topic ends before.
        """
        deadline = time.monotonic() + WAIT_S
        while self._catalog.position < position:
            if self._read:
                record = self._read.popleft()
                try:
                    event = self._decoder.decode_any(record.value)
                except Undecodable as error:
                    log.error("model_event.ignored", offset=record.offset, reason=error.reason, detail=str(error))
                    event = None
                self._catalog.apply(record.offset, event)
                continue
            self._read.extend(self._reader.poll())
            ended = all(self._reader.at_end.values()) and not self._read
            if ended and self._reader.next[0] < position:
                raise StateMismatch(
                    f"{self._topic} ends at offset {self._reader.next[0]}, and a cut knew {position} model events",
                    "it is kept for ever and never compacted: restore it",
                )
            if not self._read and time.monotonic() > deadline:
                raise Unavailable(f"{self._topic} cannot be read", "is the broker reachable?")
        return self._catalog

    def close(self) -> None:
        """Leave the broker."""
        self._reader.close()


class LookAhead:
    """A reader with one record of look-ahead, to the ends that its partitions have when they are reached."""

    def __init__(self, reader: Reader) -> None:
        self._records = reader.read_to_end()
        self._head: Record | None = None
        self.ended = False

    def head(self) -> Record | None:
        """The next record, still to be taken; None at the end."""
        if self._head is None and not self.ended:
            self._head = next(self._records, None)
            self.ended = self._head is None
        return self._head

    def take(self) -> Record:
        """Take the record that :meth:`head` gave."""
        record, self._head = self._head, None
        if record is None:
            raise LookupError("nothing is ahead")
        return record
