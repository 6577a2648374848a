"""What survives every crash: the broker's log, the store's keys, the clock, and what producers have written so far."""

from __future__ import annotations

from collections.abc import Iterable

from streams.codec import encode, headers
from streams.events import MODEL_EVENT_TYPE, Baseline, ModelEvent, ModelState
from streams.settings import KafkaSettings, MonitorSettings, RedisSettings, Settings, WorkerSettings
from streams.topics import Topics, specs
from tests.simulation.traffic import PARTITIONS, START_MS, Act
from tests.support.memory.log import MemoryBroker
from tests.support.memory.redis import MemoryRedis

SETTINGS = Settings(
    kafka=KafkaSettings(partitions=PARTITIONS),
    redis=RedisSettings(prefix="sim"),
    worker=WorkerSettings(
        horizon_s=300, dedupe_s=300, dedupe_rows=60, max_pending=200, checkpoint_events=25, allow_garbage=True
    ),
    monitor=MonitorSettings(
        window_minutes=2,
        minimum_outcomes=10,
        for_minutes=0,
        clean_minutes=1,
        repeat_minutes=0,
        baseline_outcomes=30,
    ),
)
TOPICS = Topics(SETTINGS.kafka.topic_prefix)
INPUTS = (TOPICS.predictions, TOPICS.outcomes)
FETCH_MS, TICK_MS = 100, 1_900
"""From the timer to the next fetches, and to the timer: together longer than the margin of the join's clock."""


class World:
    """The broker, the store and the clock. An act begins when the one before it has been dealt with.

    ``monitors``: the partitions of the summaries, each watched for itself.
    """

    def __init__(self, acts: Iterable[Act], monitors: int = 1) -> None:
        self.acts = tuple(acts)
        self.now_ms = START_MS - 60_000
        self.store = MemoryRedis()
        counts = {spec.name: spec.partitions for spec in specs(SETTINGS)}
        counts |= dict.fromkeys((TOPICS.summaries, TOPICS.monitor_checkpoints), monitors)
        self.broker = MemoryBroker(counts, self._append_ms)
        self.act = -1
        fraud = ModelState(
            "fraud",
            1,
            "binary",
            [0, 1],
            positive=1,
            aliases={"champion": "1"},
            baselines={"1": Baseline("accuracy", 0.96, 2_000, 0.004)},
        )
        named = headers(MODEL_EVENT_TYPE.format(what="registered"), "test")
        self.broker.append(TOPICS.model_events, 0, b"fraud", encode(ModelEvent("registered", fraud)), named)

    def copy(self) -> World:
        """Another world that has come as far as this one."""
        other = World.__new__(World)
        other.acts, other.now_ms, other.act = self.acts, self.now_ms, self.act
        other.store, other.broker = self.store.copy(), self.broker.copy(other._append_ms)
        return other

    def _append_ms(self) -> int:
        self.now_ms += 1
        return self.now_ms

    @property
    def counts(self) -> dict[str, int]:
        """The partitions of each topic."""
        return {topic: len(logs) for topic, logs in self.broker.topics.items()}

    @property
    def everything(self) -> tuple[list[int], list[int]]:
        """All input partitions, and all of the summaries."""
        return list(range(self.counts[TOPICS.predictions])), list(range(self.counts[TOPICS.summaries]))

    @property
    def changes(self) -> tuple[int, int]:
        """Differs whenever the log or the store does."""
        return self.broker.appends, self.store.writes

    @property
    def target_ms(self) -> int:
        """The stream time that ends the act."""
        return self.acts[self.act].clock_ms

    @property
    def is_over(self) -> bool:
        """Whether there is no further act."""
        return self.act + 1 == len(self.acts)

    def go_on(self) -> None:
        """Producers write what the next act has, and the clock moves to its end."""
        self.act += 1
        act = self.acts[self.act]
        for each in act.records:
            self.broker.append(INPUTS[each.side], each.partition, each.key, each.value, (), each.at_ms)
        if self.now_ms >= min((each.at_ms for each in act.records), default=act.clock_ms):
            raise RuntimeError(f"act {self.act} should have begun before {self.now_ms}: a broker's time is never past")
        self.now_ms = act.clock_ms
