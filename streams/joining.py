"""The join stage of a worker: the partitions it owns, their checkpoints, and what is published after them.

The order of one checkpoint is the commit protocol: (1) dead letters and labelled pairs are acknowledged, (2) state,
offsets and outbox are written to the store in one fenced transaction, (3) the cut is produced, then the summaries,
(4) the outbox entry is removed by the next checkpoint. A crash after any step repeats only what readers drop as seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from zlib import crc32

import msgspec
import numpy as np
import structlog
from aiokafka.partitioner import murmur2

from streams.codec import Header
from streams.columns import OUTCOMES, PREDICTIONS
from streams.errors import RestartMe
from streams.log import Delivery, Log, Publisher
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.ownership import Ownership
from streams.partition import Batch, Closed, DeadLetter, InputPartition
from streams.rebuilding import JoinRebuild
from streams.records import Cut, EffectSettings, Summary
from streams.settings import Settings
from streams.store import Fenced, StateStore, StoreLost
from streams.topics import Topics

APPEND_MARGIN_MS = 1_000
"""How far the broker's append times may step back between partitions."""
CUTS_REMEMBERED = 32
"""Cuts whose append times are kept: an empty fetch may have begun before the newest of them."""
WARN_EVERY_S = 60.0
JOIN_ROWS = 16_384
"""Records of a partition taken in before they are joined between two steps of the timer: a window costs half a
millisecond however few rows it has. What is fewer waits for the next step; nothing is seen before a checkpoint."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Acknowledged:
    """When the broker took a cut of ours: its append time, and our monotonic clock after the delivery report."""

    append_ms: int
    seen_s: float


def effect_settings(settings: Settings) -> EffectSettings:
    """The settings that change what the join does, as a cut records them."""
    worker = settings.worker
    return EffectSettings(
        horizon_ms=int(worker.horizon_s * 1000),
        dedupe_ms=int(worker.dedupe_s * 1000),
        dedupe_rows=worker.dedupe_rows,
        max_pending=worker.max_pending,
        max_undeclared=worker.max_undeclared_models,
    )


class JoinStage:
    """Blocking; one thread at a time. ``monotonic`` gives seconds on the clock that :meth:`idle` is told of."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        broker: Log,
        publisher: Publisher,
        models: ModelEvents,
        partition_counts: Mapping[str, int],
        metrics: WorkerMetrics,
        monotonic: Callable[[], float] = time.monotonic,
        abandoned: Callable[[], bool] = lambda: False,
        *,
        accept_loss: bool = False,
    ) -> None:
        self.parts: dict[int, InputPartition] = {}
        self.acknowledged: dict[int, deque[Acknowledged]] = {}
        self.join_rows = JOIN_ROWS
        self._settings = settings
        self._topics = Topics(settings.kafka.topic_prefix)
        self._store = store
        self._publisher = publisher
        self._models = models
        self._partitions = partition_counts[self._topics.predictions]
        self._summary_partitions = partition_counts[self._topics.summaries]
        self._metrics = metrics
        self._monotonic = monotonic
        self._ownership = Ownership("join", Cut, self._topics.checkpoints, broker, store, publisher)
        self._rebuild = JoinRebuild(
            self._topics,
            settings.worker,
            effect_settings(settings),
            store,
            broker,
            metrics,
            abandoned,
            self._ownership,
            accept_loss=accept_loss,
        )
        self._warn_again_s = 0.0
        self._wrong_keys: dict[int, dict[str, int]] = {PREDICTIONS: {}, OUTCOMES: {}}

    def side(self, topic: str) -> int:
        """0 for predictions, 1 for outcomes."""
        return PREDICTIONS if topic == self._topics.predictions else OUTCOMES

    # ------------------------------------------------------------------------------------------------- ownership

    def take(self, partitions: Iterable[int]) -> None:
        """Give up what was owned and become the owner of ``partitions``; republish what their last owners left.

        A state that the store has lost is rebuilt from the log first, which may take minutes.
        """
        self.parts.clear()
        self.acknowledged.clear()
        taken = self._ownership.take(partitions)
        self._models.catch_up()  # behind the take: the last owner has written its last checkpoint
        for partition, each in taken.items():
            part, outbox = self._rebuild.load(each)
            for entry in outbox:
                self._publish(part, entry.cut, entry.summaries)
            self.parts[partition] = part
            self._metrics.written("join", partition)
        self._publisher.flush()

    def drop(self, partition: int) -> None:
        """Forget a partition that is not ours any more, and its series."""
        self._metrics.revoked([partition])
        self.parts.pop(partition, None)
        self.acknowledged.pop(partition, None)

    # --------------------------------------------------------------------------------------------------- batches

    def take_in(self, batch: Batch) -> int | None:
        """Take in a batch; join when enough has come to be worth it, and write a checkpoint when enough is joined.

        → the offset to seek back to when the batch lies ahead of the position, else None.
        """
        seek_to = self._accept(batch)
        part = self.parts.get(batch.partition)
        if seek_to is None and part is not None and part.accepted >= self.join_rows:
            self.advance(batch.partition)
            if sum(part.pending_events for part in self.parts.values()) >= self._settings.worker.checkpoint_events:
                self.checkpoint()
        return seek_to

    def _accept(self, batch: Batch) -> int | None:
        part = self.parts.get(batch.partition)
        if part is None:
            return None
        side = self.side(batch.topic)
        position = part.position[side]
        if position is None or batch.next_offset <= position:
            return None  # prefetched before the seek
        if batch.first_offset > position:
            return position
        if batch.first_offset < position:
            batch = _cut(batch, position)
        self._check_key(side, batch)
        part.accept(side, batch)
        self._metrics.consumed(batch.topic, len(batch.values))
        return None

    def advance(self, partition: int) -> None:
        """Join what is certain; undeclared models are registered on the way, behind a checkpoint of everything."""
        part = self.parts.get(partition)
        while part is not None and (unknown := part.advance(self._models.catalog)):
            self.checkpoint()
            if partition not in self.parts:
                return  # fenced
            self._models.register(unknown)

    def _check_key(self, side: int, batch: Batch) -> None:
        """Sample one key a batch: producers with different partitioners never meet, and nothing else would say so."""
        key = batch.sample_key
        if not key:
            return
        kind = key_partitioner(key, batch.partition, self._partitions)
        seen = self._wrong_keys[side]
        seen[kind] = seen.get(kind, 0) + 1
        if kind != "murmur2":
            self._metrics.wrong_partition(batch.topic)
            self._warn_partitioner()

    def _warn_partitioner(self) -> None:
        kinds = [max(seen, key=lambda k: seen[k]) if seen else None for seen in self._wrong_keys.values()]
        if None in kinds or kinds[0] == kinds[1]:
            return
        worst = self._topics.predictions if kinds[PREDICTIONS] != "murmur2" else self._topics.outcomes
        if self._monotonic() < self._warn_again_s:
            return
        self._warn_again_s = self._monotonic() + WARN_EVERY_S
        log.error(
            "partitioner.mismatch",
            predictions=kinds[PREDICTIONS],
            outcomes=kinds[OUTCOMES],
            what=f"{worst} is not partitioned by murmur2 of the key, so its records meet their partners only by chance",
            mend="key by prediction_id and set partitioner=murmur2_random in its producer"
            " (kcat: -X partitioner=murmur2_random)",
        )

    def idle(self, partition: int, side: int, offset: int, began_s: float) -> None:
        """A fetch that began at ``began_s`` found nothing from ``offset`` on.

        If it began after the broker had taken one of our cuts, nothing older than its append time is still unread.
        """
        part = self.parts.get(partition)
        if part is None or part.position[side] != offset:
            return
        for acknowledged in self.acknowledged.get(partition, ()):
            if acknowledged.seen_s < began_s:
                part.timeline.idle(side, acknowledged.append_ms - APPEND_MARGIN_MS)

    # ------------------------------------------------------------------------------------------------ checkpoint

    def checkpoint(self, *, always: bool = False) -> None:
        """Write and publish every owned partition that has something to say. Fenced partitions are dropped.

        ``always``: silence is said too. The append time of its cut is what lets the clock of an idle input move on.
        """
        started = self._monotonic()
        catalog = self._models.catalog
        closed = [(part, part.close(catalog)) for part in self.parts.values() if always or part.changed]
        for part, result in closed:
            for letter in result.dead:
                self._bury(part.owned.partition, letter)
            for value in result.labelled:
                self._send(self._topics.labelled, part.owned.partition, value)
        if any(result.dead or result.labelled for _, result in closed):
            self._publisher.flush()
        for part, result in closed:
            self._commit(part, result)
        self._publisher.flush()
        self._models.refresh()
        if closed:
            self._metrics.checkpoint_duration.observe(self._monotonic() - started)

    def _commit(self, part: InputPartition, closed: Closed) -> None:
        partition = part.owned.partition
        try:
            self._store.commit(part.owned, closed.commands, closed.meta)
        except StoreLost as lost:
            raise RestartMe(f"the store was emptied or set back: {lost}", "the next start rebuilds it") from None
        except Fenced as fenced:
            log.warning("partition.fenced", partition=partition, reason=str(fenced))
            self.drop(partition)
            return
        self._publish(part, closed.cut, closed.summaries)
        self._metrics.joined(part, closed)

    def _publish(self, part: InputPartition, cut: Cut, summaries: list[tuple[str, Summary]]) -> None:
        """Produce a cut, then its summaries, with our epoch; the last acknowledgement clears the outbox entry."""
        partition, epoch = part.owned.partition, part.owned.epoch
        acknowledged: list[None] = []  # reports come from two threads: an append and a length are each atomic

        def delivered(delivery: Delivery) -> None:
            acknowledged.append(None)
            if delivery.topic == self._topics.checkpoints:
                cuts = self.acknowledged.setdefault(partition, deque(maxlen=CUTS_REMEMBERED))
                cuts.append(Acknowledged(delivery.at_ms, self._monotonic()))
            if len(acknowledged) == 1 + len(summaries):
                part.layout.published.append(cut.sequence)

        value = msgspec.json.encode(msgspec.structs.replace(cut, epoch=epoch))
        key = str(partition).encode()
        self._publisher.send(self._topics.checkpoints, value, key, partition=partition, delivered=delivered)
        for model, summary in summaries:
            self._publisher.send(
                self._topics.summaries,
                msgspec.msgpack.encode(msgspec.structs.replace(summary, epoch=epoch)),
                model.encode(),
                partition=murmur2_partition(model.encode(), self._summary_partitions),
                delivered=delivered,
            )

    def _send(self, topic: str, partition: int, value: bytes) -> None:
        self._publisher.send(topic, value, str(partition).encode(), partition=partition)

    def _bury(self, partition: int, letter: DeadLetter) -> None:
        topic = self._topics.predictions if letter.side == PREDICTIONS else self._topics.outcomes
        place = f"{topic}-{partition}-{letter.offset}"
        headers: list[Header] = [
            ("driftline_reason", letter.reason.encode()),
            ("driftline_detail", letter.detail[:500].encode()),
            ("driftline_topic", topic.encode()),
            ("driftline_partition", str(partition).encode()),
            ("driftline_offset", str(letter.offset).encode()),
        ]
        self._publisher.send(self._topics.dead_letters, letter.value, place.encode(), headers)
        self._metrics.dead(topic, letter.reason)


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Java's default partition of a key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def key_partitioner(key: bytes, partition: int, partitions: int) -> str:
    """Which partitioner put ``key`` into ``partition``: murmur2 (ours and Java's), crc32 (librdkafka's own), other."""
    if murmur2_partition(key, partitions) == partition:
        return "murmur2"
    return "crc32" if crc32(key) % partitions == partition else "other"


def _cut(batch: Batch, position: int) -> Batch:
    """The part of a batch from ``position`` on."""
    skip = int(np.searchsorted(batch.offsets, position))
    runs: list[tuple[int, int]] = []
    left = skip
    for at_ms, count in batch.runs:
        kept = max(0, count - left)
        left = max(0, left - count)
        if kept:
            runs.append((at_ms, kept))
    return Batch(
        batch.topic,
        batch.partition,
        batch.generation,
        position,
        batch.next_offset,
        batch.values[skip:],
        batch.offsets[skip:],
        runs,
        batch.sample_key,
        batch.original,
    )
