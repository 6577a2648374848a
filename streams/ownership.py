"""Taking a partition: an epoch higher than any before, in the store and in the log before anything else is done.

The store's compare-and-set refuses the writes of older epochs; the ``take`` record makes readers ignore cuts of older
epochs that were still in flight. Kafka's group generation is not the fence: it restarts with the group.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from os import getpid

import msgspec
import structlog

from streams.errors import RestartMe, StateMismatch
from streams.log import Log, Publisher
from streams.records import Cut, Gap, MonitorCut, Take
from streams.store import EpochTaken, Owned, Stage, StateStore

TAIL_RECORDS = 64
TAKE_ATTEMPTS = 8
FLUSH_S = 30.0

log = structlog.get_logger(__name__)

_join_record = msgspec.json.Decoder(Take | Cut | Gap)
_monitor_record = msgspec.json.Decoder(Take | MonitorCut | Gap)


@dataclass(slots=True)
class Tail:
    """The end of one partition of a checkpoint topic: the highest epoch, the newest cut, the next offset."""

    epoch: int = 0
    cut_epoch: int = 0
    sequence: int = 0
    next_offset: int = 0


class Ownership:
    """Takes partitions of one stage. Blocking."""

    def __init__(self, stage: Stage, topic: str, broker: Log, store: StateStore, publisher: Publisher) -> None:
        self._stage: Stage = stage
        self._topic = topic
        self._broker = broker
        self._store = store
        self._publisher = publisher
        self._worker = f"{socket.gethostname()}:{getpid()}"

    def take(self, partitions: Iterable[int]) -> dict[int, Owned]:
        """Become the owner of ``partitions``.

        Raises :class:`StateMismatch` if the store is behind the last published cut, :class:`RestartMe` if another
        worker takes the same partitions again and again.
        """
        tails = read_tails(self._broker, self._topic, self._stage, partitions)
        owned: dict[int, Owned] = {}
        announced: dict[int, int] = {}
        for partition, tail in tails.items():
            owned[partition], announced[partition] = self._take_one(partition, tail)
        with self._broker.reader(self._topic, {p: t.next_offset for p, t in tails.items()}, set(tails)) as reader:
            for record in reader.read_to_end():
                if record.offset < announced[record.partition]:
                    _note(tails[record.partition], self._stage, record.offset, record.value)
        for partition, tail in tails.items():
            if tail.epoch > owned[partition].epoch:
                raise RestartMe(f"{self._stage} partition {partition} was taken by another worker meanwhile", "")
            if owned[partition].number < tail.sequence:
                raise StateMismatch(
                    f"the store is at checkpoint {owned[partition].number} of {self._stage} partition {partition},"
                    f" but checkpoint {tail.sequence} was published: it was rolled back or wiped",
                    "restore the newest state of Redis, or start over in a new deployment (redis.prefix, worker.group"
                    " and kafka.topic_prefix)",
                )
        return owned

    def _take_one(self, partition: int, tail: Tail) -> tuple[Owned, int]:
        """Take in the store, then announce.

        The store first: an announced take whose owner died before the store knew it would leave the last owner free to
        write checkpoints whose cuts no reader counts, and the outbox keeps only the newest of them.
        """
        token = secrets.token_hex(8)
        for _ in range(TAKE_ATTEMPTS):
            epoch = max(self._store.stored_epoch(self._stage, partition), tail.epoch) + 1
            try:
                owned = self._store.take(self._stage, partition, epoch, token)
            except EpochTaken as taken:
                tail.epoch = taken.stored
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


def read_tails(broker: Log, topic: str, stage: Stage, partitions: Iterable[int]) -> dict[int, Tail]:
    """The end of each partition of a checkpoint topic, read backwards until its newest cut is found."""
    wanted = set(partitions)
    tails = {p: Tail() for p in wanted}
    reach = TAIL_RECORDS
    while wanted:
        with broker.reader(topic, None, wanted) as probe:
            low, ends = dict(probe.next), probe.first_ends
        start = {p: max(low[p], ends[p] - reach) for p in wanted}
        with broker.reader(topic, start, wanted) as reader:
            found = {p: Tail(next_offset=ends[p]) for p in wanted}
            for record in reader.read_to_end():
                _note(found[record.partition], stage, record.offset, record.value)
        tails |= found
        wanted = {p for p in wanted if not found[p].sequence and start[p] > low[p]}
        reach *= 8
    return tails


def _note(tail: Tail, stage: Stage, offset: int, value: bytes | None) -> None:
    decoder = _join_record if stage == "join" else _monitor_record
    record = decoder.decode(value or b"")
    tail.next_offset = offset + 1
    tail.epoch = max(tail.epoch, record.epoch)
    if isinstance(record, Cut | MonitorCut) and (record.epoch, record.sequence) > (tail.cut_epoch, tail.sequence):
        tail.cut_epoch, tail.sequence = record.epoch, record.sequence
