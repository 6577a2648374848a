"""Taking a partition: an epoch higher than any before, in the store and in the log before anything else is done.

The store's compare-and-set refuses the writes of older epochs; the ``take`` record makes readers ignore cuts of older
epochs that were still in flight. Kafka's group generation is not the fence: it restarts with the group.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import getpid
from typing import Generic

import msgspec
import structlog

from streams.errors import RestartMe, Unavailable
from streams.log import Log, Publisher, Reader, Record
from streams.records import Gap, Restart, Take
from streams.store import EpochTaken, Owned, Stage, StateStore
from streams.trail import C, Trail

TAIL_RECORDS = 64
TAKE_ATTEMPTS = 8
FLUSH_S = 30.0
READ_S = 120.0

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Taken(Generic[C]):
    """A partition that is ours now, and what was published of it before our take."""

    owned: Owned
    trail: Trail[C]
    end: int
    """The offset of our take in the checkpoint topic."""


class Ownership(Generic[C]):
    """Takes partitions of one stage. Blocking."""

    def __init__(
        self, stage: Stage, kind: type[C], topic: str, broker: Log, store: StateStore, publisher: Publisher
    ) -> None:
        self._stage: Stage = stage
        self._decoder = msgspec.json.Decoder(Take | Gap | kind)
        self._topic = topic
        self._broker = broker
        self._store = store
        self._publisher = publisher
        self._worker = f"{socket.gethostname()}:{getpid()}"

    def take(self, partitions: Iterable[int]) -> dict[int, Taken[C]]:
        """Become the owner of ``partitions``; what the store has may be behind what was published.

        Raises :class:`RestartMe` if another worker takes the same partitions again and again.
        """
        wanted = set(partitions)
        if not wanted:
            return {}
        # One reader for all of it: making one costs several round trips, and nothing is consumed meanwhile.
        with self._broker.reader(self._topic, None, wanted, TAIL_RECORDS) as reader:
            trails = self._tails(reader)
            owned = {partition: self._take_one(partition, trail.epoch) for partition, trail in trails.items()}
            ends = self._announce([Take(p, each.epoch, each.token, self._worker) for p, each in owned.items()])
            for record in self._up_to(reader, ends):
                trail = trails[record.partition]
                if trail.next_offset <= record.offset < ends[record.partition]:
                    trail.add(record.offset, self._decode(record))
        taken = {partition: Taken(each, trails[partition], ends[partition]) for partition, each in owned.items()}
        for partition, each in taken.items():
            if each.trail.epoch > each.owned.epoch:
                raise RestartMe(f"{self._stage} partition {partition} was taken by another worker meanwhile", "")
        return taken

    def restart(self, taken: Taken[C], restart: Restart, empty: Callable[[Owned], None]) -> None:
        """Let a partition's numbers begin again, under an epoch of its own. ``empty`` writes the state it begins with.

        The store first: an owner that dies before the log says it finds that the store is behind, as it was.
        """
        owned = taken.owned
        token = secrets.token_hex(8)
        begun = self._store.take(self._stage, owned.partition, owned.epoch + 1, token)
        owned.epoch, owned.token = begun.epoch, token
        empty(owned)
        ends = self._announce([Take(owned.partition, owned.epoch, token, self._worker, restart)])
        taken.end = ends[owned.partition]
        taken.trail = Trail(owned.epoch)
        taken.trail.restart = restart

    def _take_one(self, partition: int, known: int) -> Owned:
        """Take in the store, with an epoch above the ``known`` one of the log. To be announced next.

        The store first: an announced take whose owner died before the store knew it would leave the last owner free to
        write checkpoints whose cuts no reader counts, and the outbox keeps only the newest of them.
        """
        token = secrets.token_hex(8)
        for _ in range(TAKE_ATTEMPTS):
            epoch = max(self._store.stored_epoch(self._stage, partition), known) + 1
            try:
                owned = self._store.take(self._stage, partition, epoch, token)
            except EpochTaken as taken:
                known = taken.stored
                continue
            log.info("partition.taken", stage=self._stage, partition=partition, epoch=epoch, checkpoint=owned.number)
            return owned
        raise RestartMe(
            f"{self._stage} partition {partition} was taken by another worker {TAKE_ATTEMPTS} times in a row",
            "are two deployments using the same redis.prefix?",
        )

    def _announce(self, takes: Sequence[Take]) -> dict[int, int]:
        """Publish takes → their offsets by partition."""
        offsets: dict[int, int] = {}
        for take in takes:
            self._publisher.send(
                self._topic,
                msgspec.json.encode(take),
                key=str(take.partition).encode(),
                partition=take.partition,
                delivered=lambda delivery: offsets.__setitem__(delivery.partition, delivery.offset),
            )
        self._publisher.flush(FLUSH_S)
        return offsets

    def _up_to(self, reader: Reader, ends: Mapping[int, int]) -> Iterator[Record]:
        """What a reader finds until it is behind an offset of each partition, of which records are known to be there.

        To read to the end would take a fetch that comes back empty.
        """
        deadline = time.monotonic() + READ_S
        while any(reader.next[p] <= end for p, end in ends.items()):
            yield from reader.poll()
            if time.monotonic() > deadline:
                raise Unavailable(f"{self._topic} could not be read up to our take", "is the broker reachable?")

    def _tails(self, reader: Reader) -> dict[int, Trail[C]]:
        """The end of each partition of the checkpoint topic, which the reader is at the beginning of.

        What has no cut there is read backwards, in longer and longer pieces, until its newest one is found.
        """
        trails, begun = self._read(reader)
        reach = TAIL_RECORDS
        while wanted := {p for p, low in begun.items() if not trails[p].number and not trails[p].restart and low}:
            reach *= 8
            with self._broker.reader(self._topic, None, wanted, reach) as deeper:
                found, begun = self._read(deeper)
            trails |= found
        return trails

    def _read(self, reader: Reader) -> tuple[dict[int, Trail[C]], dict[int, int]]:
        """(what a reader finds, how many older records it leaves out of each partition)."""
        left_out = {p: offset - reader.earliest[p] for p, offset in reader.next.items()}
        trails: dict[int, Trail[C]] = {p: Trail() for p in reader.partitions}
        for p, end in reader.first_ends.items():
            trails[p].next_offset = end
        for record in reader.read_to_end():
            trails[record.partition].add(record.offset, self._decode(record))
        return trails, left_out

    def _decode(self, record: Record) -> Take | C | Gap:
        decoded: Take | C | Gap = self._decoder.decode(record.value or b"")
        return decoded
