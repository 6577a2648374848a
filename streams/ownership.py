"""Taking a partition: an epoch higher than any before, in the store and in the log before anything else is done.

The store's compare-and-set refuses the writes of older epochs; the ``take`` record makes readers ignore cuts of older
epochs that were still in flight. Kafka's group generation is not the fence: it restarts with the group.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import getpid
from typing import Generic

import msgspec
import structlog

from streams.errors import RestartMe
from streams.log import Log, Publisher, Record
from streams.records import Gap, Restart, Take
from streams.store import EpochTaken, Owned, Stage, StateStore
from streams.trail import C, Trail

TAIL_RECORDS = 64
TAKE_ATTEMPTS = 8
FLUSH_S = 30.0

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
        trails = self._tails(partitions)
        taken: dict[int, Taken[C]] = {}
        for partition, trail in trails.items():
            owned, announced = self._take_one(partition, trail)
            taken[partition] = Taken(owned, trail, announced)
        start = {p: trail.next_offset for p, trail in trails.items()}
        with self._broker.reader(self._topic, start, set(trails)) as reader:
            for record in reader.read_to_end():
                if record.offset < taken[record.partition].end:
                    trails[record.partition].add(record.offset, self._decode(record))
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
        taken.end = self._announce(Take(owned.partition, owned.epoch, token, self._worker, restart))
        taken.trail = Trail(owned.epoch)
        taken.trail.restart = restart

    def _take_one(self, partition: int, trail: Trail[C]) -> tuple[Owned, int]:
        """Take in the store, then announce.

        The store first: an announced take whose owner died before the store knew it would leave the last owner free to
        write checkpoints whose cuts no reader counts, and the outbox keeps only the newest of them.
        """
        token = secrets.token_hex(8)
        known = trail.epoch
        for _ in range(TAKE_ATTEMPTS):
            epoch = max(self._store.stored_epoch(self._stage, partition), known) + 1
            try:
                owned = self._store.take(self._stage, partition, epoch, token)
            except EpochTaken as taken:
                known = taken.stored
                continue
            announced = self._announce(Take(partition, epoch, token, self._worker))
            log.info("partition.taken", stage=self._stage, partition=partition, epoch=epoch, checkpoint=owned.number)
            return owned, announced
        raise RestartMe(
            f"{self._stage} partition {partition} was taken by another worker {TAKE_ATTEMPTS} times in a row",
            "are two deployments using the same redis.prefix?",
        )

    def _announce(self, take: Take) -> int:
        """Publish a take → its offset."""
        offsets: list[int] = []
        self._publisher.send(
            self._topic,
            msgspec.json.encode(take),
            key=str(take.partition).encode(),
            partition=take.partition,
            delivered=lambda delivery: offsets.append(delivery.offset),
        )
        self._publisher.flush(FLUSH_S)
        return offsets[0]

    def _tails(self, partitions: Iterable[int]) -> dict[int, Trail[C]]:
        """The end of each partition of the checkpoint topic, read backwards until its newest cut is found."""
        wanted = set(partitions)
        trails: dict[int, Trail[C]] = {p: Trail() for p in wanted}
        reach = TAIL_RECORDS
        while wanted:
            with self._broker.reader(self._topic, None, wanted) as probe:
                low, ends = dict(probe.next), probe.first_ends
            start = {p: max(low[p], ends[p] - reach) for p in wanted}
            with self._broker.reader(self._topic, start, wanted) as reader:
                found: dict[int, Trail[C]] = {p: Trail() for p in wanted}
                for p in wanted:
                    found[p].next_offset = ends[p]
                for record in reader.read_to_end():
                    found[record.partition].add(record.offset, self._decode(record))
            trails |= found
            wanted = {p for p in wanted if not found[p].number and not found[p].restart and start[p] > low[p]}
            reach *= 8
        return trails

    def _decode(self, record: Record) -> Take | C | Gap:
        decoded: Take | C | Gap = self._decoder.decode(record.value or b"")
        return decoded
