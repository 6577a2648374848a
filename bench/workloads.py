"""What is measured: workloads, and the records of each on a broker.

Records look as a producer with Java's defaults would write them: batches of 16 kB (some 50 predictions with ten
features, 120 outcomes), lz4, keyed by prediction id. A batch closes by its size, not by time, so that the log does not
depend on how busy the machine is while it is written. Features differ from row to row, so that they compress no better
than real ones.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, replace

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from streams.kafka import client_config
from streams.settings import Settings
from streams.topics import Topics

PRODUCER_BATCH_BYTES = 16_384
FEATURE_ROWS = 1_009
"""Distinct feature vectors: 200 kB and more of text, beyond the 64 kB in which lz4 finds repetitions."""
WRONG_EVERY = 9
FLUSH_S = 300.0
LINGER_MS = 500
TRANSACTION = {"transaction.timeout.ms": 900_000}

UNWATCHED = {f"monitor.{name}": "[]" for name in ("detectors", "evidence", "rates")}


@dataclass(frozen=True, slots=True)
class Workload:
    """Predictions and their outcomes. ``shuffle``: how many predictions an outcome may lag behind its own.

    With ``later`` the outcomes begin only when all predictions have been written. ``changes`` are settings of the
    worker (dotted names) that belong to the workload.
    """

    name: str
    what: str
    pairs: int
    shuffle: int = 10_000
    features: int = 10
    models: int = 1
    later: bool = False
    changes: dict[str, str] = field(default_factory=dict)

    def scaled(self, factor: float) -> Workload:
        """The same with fewer or more pairs; the shuffle shrinks with them, so that outcomes still come late."""
        pairs = max(self.models, int(self.pairs * factor))
        return replace(self, pairs=pairs, shuffle=min(self.shuffle, max(1, pairs // 10)))


WORKLOADS: dict[str, Workload] = {
    each.name: each
    for each in (
        Workload("near", "outcomes shuffled within 10,000 predictions, 10 features, 1 model", 1_200_000),
        Workload("far", "1 million predictions before their outcomes", 1_000_000, shuffle=1_000_000, later=True),
        Workload("features", "100 features", 200_000, features=100),
        Workload("models", "200 models", 400_000, models=200),
        Workload(
            "unwatched", "near without detectors: what is more in near is their cost", 1_200_000, changes=UNWATCHED
        ),
    )
}


class Writer:
    """Writes the records of one workload into the input topics of a deployment.

    ``first`` numbers its first pair. With a ``transaction`` (its id) nothing is seen by readers before :meth:`commit`.
    """

    def __init__(
        self,
        settings: Settings,
        workload: Workload,
        *,
        first: int = 0,
        linger_ms: int = LINGER_MS,
        transaction: str | None = None,
        seed: int = 1,
    ) -> None:
        self._topics = Topics(settings.kafka.topic_prefix)
        self._workload = workload
        self._chooser = random.Random(seed)
        self._failure: str | None = None
        self._producer = Producer(
            {
                **client_config(settings.kafka),
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "enable.idempotence": True,
                "linger.ms": linger_ms,
                "batch.size": PRODUCER_BATCH_BYTES,
                "queue.buffering.max.messages": 200_000,
                "delivery.report.only.error": True,
                **({} if transaction is None else {"transactional.id": transaction, **TRANSACTION}),
            }
        )
        if transaction is not None:
            self._producer.init_transactions()
            self._producer.begin_transaction()
        names = [f"f{number}" for number in range(workload.features)]
        self._features = [
            msgspec.json.encode({name: round(self._chooser.gauss(0, 10), 6) for name in names}).decode()
            for _ in range(FEATURE_ROWS)
        ]
        self._written = first
        self._waiting: list[int] = []

    def write(self) -> None:
        """All of it. Raises :class:`RuntimeError` if a record could not be delivered."""
        self.predictions(self._workload.pairs)
        self.outcomes()

    def commit(self) -> None:
        """Let readers see all that has been written, at once."""
        self._producer.commit_transaction()

    def predictions(self, count: int, *, flush: bool = True) -> None:
        """The next ``count`` predictions, and between them the outcomes whose turn has come."""
        shuffle, later = self._workload.shuffle, self._workload.later
        for number in range(self._written, self._written + count):
            self._send(self._topics.predictions, *self._prediction(number))
            self._waiting.append(number)
            if not later and len(self._waiting) > shuffle:
                self._outcome()
        self._written += count
        if flush:
            self._flush()

    def outcomes(self) -> None:
        """The outcomes of everything that still waits for one."""
        while self._waiting:
            self._outcome()
        self._flush()

    def _prediction(self, number: int) -> tuple[bytes, bytes]:
        key = prediction_id(number)
        label = number & 1
        value = (
            f'{{"prediction_id":"{key}","model":"{model_name(number % self._workload.models)}","version":"1",'
            f'"predicted_at":{_now_ms()},"prediction":{label if number % WRONG_EVERY else 1 - label},"score":0.5,'
            f'"features":{self._features[number % FEATURE_ROWS]}}}'
        )
        return value.encode(), key.encode()

    def _outcome(self) -> None:
        waiting = self._waiting
        at = self._chooser.randrange(len(waiting))
        waiting[at], waiting[-1] = waiting[-1], waiting[at]
        number = waiting.pop()
        key = prediction_id(number)
        value = f'{{"prediction_id":"{key}","outcome":{number & 1},"observed_at":{_now_ms()}}}'
        self._send(self._topics.outcomes, value.encode(), key.encode())

    def _send(self, topic: str, value: bytes, key: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, on_delivery=self._report)
                return
            except BufferError:
                self._producer.poll(0.05)

    def _report(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failure = error.str()

    def _flush(self) -> None:
        left = self._producer.flush(FLUSH_S)
        if left or self._failure:
            raise RuntimeError(f"{left} records of the workload are not delivered: {self._failure}")


def model_name(number: int) -> str:
    """The name of a workload's model."""
    return f"m{number}"


def prediction_id(number: int) -> str:
    """A version-4 UUID that is a function of ``number``, without the cost of :mod:`uuid`."""
    bits = (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 + 0x5851F42D4C957F2D14057B7EF767814F) & ((1 << 128) - 1)
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def expected_errors(workload: Workload) -> int:
    """How many pairs of a workload are wrong."""
    return len(range(0, workload.pairs, WRONG_EVERY))
