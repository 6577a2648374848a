"""The engine of a stream worker: between Faust, which moves fetches, and the stages, which block.

Everything that blocks (unpacking, joining, the store, producing) runs in one thread at a time, behind one lock; the
event loop only moves fetches, so heartbeats never wait for Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from streams.blocking import to_its_end
from streams.errors import DriftlineError, RestartMe
from streams.fetched import Fetched
from streams.holding import Progress, to_hold
from streams.joining import JoinStage
from streams.kafka import KafkaLog, SafeProducer, is_readable
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.monitoring import MonitorStage
from streams.permissions import require
from streams.rebuilding import Abandoned
from streams.settings import Settings
from streams.steps import STEPS, Empty, is_idle, take_step
from streams.stopping import give_up
from streams.store import StateStore
from streams.store_client import Lifeline, connect, require_durable
from streams.topics import TopicAdmin, Topics
from streams.transport import Consumer
from streams.watchdog import Signs, Watchdog

FENCED_GRACE_S = 30.0
WATCH_EVERY_S = 1.0
STORE_SLOW_S = 1.0
"""A call of the store that takes longer counts as waiting for it."""
BROKER = "is the broker reachable? restarting is safe"

log = structlog.get_logger(__name__)


class Engine:
    """What the Faust app drives: owns the partitions' state, decides offsets, takes checkpoints."""

    def __init__(
        self,
        settings: Settings,
        metrics: WorkerMetrics,
        fatal: Callable[[BaseException], None],
        *,
        accept_loss: bool = False,
    ) -> None:
        self.settings = settings
        self.topics = Topics(settings.kafka.topic_prefix)
        self.consumer: Consumer | None = None
        self.stopping = False
        self.unfinished: DriftlineError | None = None
        """Why the last checkpoint could not be taken: said once the group has been left."""
        self._fatal = fatal
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._generation = -1
        self._steps = 0
        self._taken_for = -1
        self._lifeline = Lifeline()
        client = connect(settings.redis, lifeline=self._lifeline)
        require_durable(client, settings.redis)
        require(settings, "worker")
        admin = TopicAdmin(settings)
        if created := admin.create():
            log.info("topics.created", topics=created)
        self.counts = admin.verify()
        self._store = StateStore(client, settings.redis.prefix, lambda: self.stopping)
        self._store.check_layout(self.counts)
        self._producer = SafeProducer(settings.kafka)
        broker = KafkaLog(settings.kafka)
        self.models = ModelEvents(settings, broker, self._producer)
        self.models.start()
        stage = settings, self._store, broker, self._producer, self.models, self.counts, metrics
        self.join = JoinStage(*stage, abandoned=self._abandoned, accept_loss=accept_loss)
        self.monitor = MonitorStage(*stage, abandoned=self._abandoned)
        self._moved_s = time.monotonic()
        self._taking = False
        self._watchdog = Watchdog(settings.worker.watchdog_s, self._moved_s)

    # -------------------------------------------------------------------------------------- transport.BatchOwner

    async def take(self, assigned: set[TP], generation: int) -> Mapping[TP, int]:
        """Become the owner of what Faust assigned → where to read on; nothing is taken any more by one that stops."""
        consumer = self._consumer()
        try:
            earliest = await consumer.earliest_offsets(*assigned) if assigned else {}
            ends = await consumer.highwaters(*assigned) if assigned else {}
        except KafkaError as error:
            raise RestartMe(f"the broker did not say where its partitions end ({error!r})", BROKER) from None
        async with self._lock:
            self._taking, self._taken_for = True, generation
            try:
                return await self._take(assigned, generation, earliest, ends)
            finally:
                self._taking = False

    async def _take(
        self, assigned: set[TP], generation: int, earliest: Mapping[TP, int], ends: Mapping[TP, int]
    ) -> Mapping[TP, int]:
        if self.stopping:
            return {}
        started = time.monotonic()
        inputs = {tp for tp in assigned if tp.topic in (self.topics.predictions, self.topics.outcomes)}
        summaries = {tp for tp in assigned if tp.topic == self.topics.summaries}
        partitions = {tp.partition for tp in inputs}
        if len(inputs) != 2 * len(partitions):
            # Faust leaves a topic out that was deleted under it, and would read the other one alone for ever.
            await to_its_end(TopicAdmin(self.settings).verify)
            raise RestartMe("predictions and outcomes of a partition were not assigned together", "restarting is safe")
        # Of all that are not ours, not of those that were: a fenced partition has been dropped before.
        self._metrics.revoked(set(range(self.counts[self.topics.predictions])) - partitions)
        try:
            await to_its_end(self.join.take, partitions)
            await to_its_end(self.monitor.take, {tp.partition for tp in summaries})
        except (Abandoned, DriftlineError) as error:
            if not self.stopping:
                raise
            if isinstance(error, DriftlineError):
                self.unfinished = error
            self.join.parts.clear()
            await to_its_end(self.monitor.close)
            return {}
        self._generation = generation
        offsets: dict[TP, int] = {}
        for tp in inputs:
            part = self.join.parts[tp.partition]
            low = int(earliest[tp])
            end = await self._real_end(tp, part.position[self.join.side(tp.topic)], int(ends[tp]))
            offsets[tp] = part.start(self.join.side(tp.topic), low, low, end, tp.topic)
        for tp in summaries:
            end = await self._real_end(tp, self.monitor.parts[tp.partition].position, int(ends[tp]))
            offsets[tp] = self.monitor.start(tp.partition, int(earliest[tp]), end)
        self._moved_s = time.monotonic()
        log.info(
            "partitions.assigned",
            inputs=sorted(partitions),
            summaries=sorted(tp.partition for tp in summaries),
            generation=generation,
            seconds=round(time.monotonic() - started, 3),
        )
        return offsets

    def _abandoned(self) -> bool:
        """Whether the partitions that are being taken are another generation's by now, or nobody's."""
        return self.stopping or self._consumer().app.consumer_generation_id != self._taken_for

    async def _real_end(self, tp: TP, position: int | None, end: int) -> int:
        """An embedded broker tells end offsets that are too low: ask a fetch before calling a log too short."""
        if position is None or position <= end:
            return end
        readable = await to_its_end(is_readable, self.settings.kafka, tp.topic, tp.partition, position)
        return position if readable else end

    async def _require_reach(self, fetched: Fetched) -> None:
        """A fetch that does not follow the one before: prefetched before a seek, or the log was cut under us.

        The client goes on at the earliest record when its offset is not there any more, and says nothing. Raises
        :class:`StateMismatch` if the next offset is no longer within the log.
        """
        tp = TP(fetched.topic, fetched.partition)
        consumer = self._consumer()
        try:
            low = int((await consumer.earliest_offsets(tp))[tp])
            end = int((await consumer.highwaters(tp))[tp])
        except KafkaError as error:
            raise RestartMe(f"the broker did not say where {tp.topic} ends ({error!r})", BROKER) from None
        if tp.topic == self.topics.summaries:
            end = await self._real_end(tp, self.monitor.parts[tp.partition].position, end)
            self.monitor.start(tp.partition, low, end)
        else:
            part, side = self.join.parts[tp.partition], self.join.side(tp.topic)
            part.start(side, low, low, await self._real_end(tp, part.position[side], end), tp.topic)

    def stored_offset(self, tp: TP) -> int | None:
        """The next offset as of the last checkpoint."""
        if tp.topic == self.topics.summaries:
            return self.monitor.stored_offset(tp.partition)
        part = self.join.parts.get(tp.partition)
        return None if part is None else part.committed[self.join.side(tp.topic)]

    def failed(self, error: BaseException) -> None:
        """Partitions could not be taken."""
        self._fatal(error)

    def polled(self) -> Iterable[TP] | None:
        """Hold back the inputs that are far ahead in stream time, so that nothing piles up while catching up."""
        consumer = self._consumer()
        inputs: dict[TP, Progress] = {}
        for partition, part in list(self.join.parts.items()):
            for side, topic in enumerate((self.topics.predictions, self.topics.outcomes)):
                tp = TP(topic, partition)
                position, end = part.position[side], consumer.fetch_position(tp)
                behind = end is None or position is None or position < end
                inputs[tp] = Progress(partition, side, part.timeline.progress(side), behind, part.timeline.held)
        hold = set(to_hold(inputs.values(), self.settings.worker.skew_s * 1000))
        return [tp for tp, each in inputs.items() if each in hold]

    # ------------------------------------------------------------------------------------------------- the agents

    async def take_inputs(self, fetched: Fetched) -> None:
        """A fetch of predictions or outcomes."""
        async with self._lock:
            if fetched.generation != self._generation:
                return
            part = self.join.parts.get(fetched.partition)
            if part is not None and fetched.first_offset != part.position[self.join.side(fetched.topic)]:
                await self._require_reach(fetched)
            seek_to = await to_its_end(lambda: self.join.take_in(fetched.unpack()))
            if seek_to is not None:
                tp = TP(fetched.topic, fetched.partition)
                log.warning("input.gap", topic=fetched.topic, partition=fetched.partition, expected=seek_to)
                await self._consumer().seek_wait({tp: seek_to})
            self._moved_s = time.monotonic()

    async def take_summaries(self, fetched: Fetched) -> None:
        """A fetch of summaries."""
        async with self._lock:
            if fetched.generation != self._generation:
                return
            part = self.monitor.parts.get(fetched.partition)
            if part is not None and fetched.first_offset != part.position:
                await self._require_reach(fetched)
            seek_to = await to_its_end(lambda: self.monitor.accept(fetched.unpack()))
            if seek_to is not None:
                await self._consumer().seek_wait({TP(fetched.topic, fetched.partition): seek_to})
            self._moved_s = time.monotonic()

    async def tick(self) -> None:
        """The timer, :data:`STEPS` times an interval: clocks of idle inputs move on, checkpoints are taken."""
        consumer, step = self._consumer(), self._steps % STEPS
        self._steps += 1
        if is_idle(step, self.monitor):
            return
        async with self._lock:
            generation = self._generation
            found: dict[tuple[int, int], Empty | None] = {
                (partition, side): consumer.read_to_end(TP(topic, partition))
                for partition in self.join.parts
                for side, topic in enumerate((self.topics.predictions, self.topics.outcomes))
            }
            owned = set(self.join.parts) | set(self.monitor.parts)
            await to_its_end(take_step, step, self.join, self.monitor, found)
            lost = owned - set(self.join.parts) - set(self.monitor.parts)
        if lost:
            asyncio.get_running_loop().call_later(FENCED_GRACE_S, self._still_fenced, generation)

    def _still_fenced(self, generation: int) -> None:
        """A rebalance gives a fenced partition back, or to another worker; if none has come, start afresh."""
        if generation == self._generation and not self.stopping:
            self._fatal(RestartMe("a partition was taken by another worker and no rebalance followed", ""))

    async def watch(self, crash: Callable[[], BaseException | None]) -> None:
        """Measure lag, and end the process when it has stalled or Faust has crashed; runs until it is cancelled.

        Beside the timer and without its lock: what stalls holds it.
        """
        every_s = min(WATCH_EVERY_S, self.settings.worker.watchdog_s / 4)
        while True:
            await asyncio.sleep(every_s)
            if self.stopping:
                continue  # the stop has a deadline of its own
            if (error := crash()) is not None:
                self._fatal(RestartMe(f"the consumer failed ({error!r})", BROKER))
            if (consumer := self.consumer) is not None and (reason := self._stalled(consumer)):
                self._fatal(RestartMe(reason, BROKER))

    def _stalled(self, consumer: Consumer) -> str | None:
        answered_s, fetched_s = consumer.heard_s()
        signs = Signs(
            answered_s=answered_s,
            fetched_s=fetched_s,
            moved_s=self._moved_s,
            waiting=self._taking or self._store.waited_s() > STORE_SLOW_S,
            owns=bool(self.join.parts or self.monitor.parts),
            lagging=self._measure(consumer),
        )
        return self._watchdog.judge(signs, time.monotonic())

    def _measure(self, consumer: Consumer) -> bool:
        """Export lag and progress → whether there is lag."""
        lagging = False
        for partition, part in list(self.join.parts.items()):
            for side, name in enumerate(("predictions", "outcomes")):
                end = consumer.fetch_position(TP((self.topics.predictions, self.topics.outcomes)[side], partition))
                if end is not None:
                    self._metrics.lag.labels(name, str(partition)).set(max(0, end - part.processed[side]))
                    lagging = lagging or end > (part.position[side] or 0)
                if part.done_ms[side]:
                    self._metrics.last_event.labels(name).set(part.done_ms[side] / 1000)
        return lagging

    async def drain(self) -> None:
        """The last checkpoint, before the partitions are given back.

        What keeps it from being taken is kept in :attr:`unfinished`: the group must be left all the same, and soon.
        """
        self.stopping = True
        impatient = asyncio.create_task(give_up(self._store.waited_s, self._give_up_the_store))
        try:
            async with self._lock:
                await self._drain()
        finally:
            impatient.cancel()

    def _give_up_the_store(self) -> None:
        # Said here, not only by the call that is cut: a rebalance may have cancelled the taking whose call it was, and
        # nobody waits for its error any more.
        self.unfinished = RestartMe("the store did not answer while stopping", "")
        self._lifeline.cut()

    async def _drain(self) -> None:
        try:
            if self.unfinished is None:  # a checkpoint that failed half-way must not be followed by the next one
                await to_its_end(self._last)
                self.unfinished = None  # it was only on the broker that the last checkpoint waited for too long
        except DriftlineError as error:
            self.unfinished = error
        finally:
            self.join.parts.clear()
            await to_its_end(self.monitor.close)

    def _last(self) -> None:
        self.join.checkpoint()
        self.monitor.checkpoint()

    def close(self) -> None:
        """Leave the broker."""
        self.models.close()
        self._producer.close()

    def _consumer(self) -> Consumer:
        if self.consumer is None:
            raise RuntimeError("the consumer has not been started")
        return self.consumer
