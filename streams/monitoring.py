"""The monitor stage of a worker: the summaries partitions it owns, fed with summaries and with all cuts.

Its checkpoint is the join's protocol again: state, offsets and alerts in one fenced transaction, then the monitor's
cut, then the alerts, then the outbox entry is removed by the next checkpoint.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping

from streams.kafka import Record, SafeProducer, TopicReader
from streams.metrics import WorkerMetrics
from streams.models import ModelEvents
from streams.ownership import Ownership
from streams.partition import Batch
from streams.settings import KafkaSettings, Settings
from streams.store import Owned, StateStore
from streams.topics import Topics


class CutFeed:
    """Reads all of ``checkpoints`` in a thread of its own, from the offsets given, and queues the records."""

    def __init__(self, settings: KafkaSettings, topic: str, start: Mapping[int, int]) -> None:
        self.records: deque[Record] = deque()
        self.failure: Exception | None = None
        self._reader = TopicReader(settings, topic, start)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cut-feed", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.records.extend(self._reader.poll())
        except Exception as error:  # noqa: BLE001 - told to the thread that drains
            self.failure = error

    def drain(self) -> list[Record]:
        """What has come since the last call. Raises what ended the reading."""
        if self.failure is not None:
            raise self.failure
        return [self.records.popleft() for _ in range(len(self.records))]

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._reader.close()


class MonitorStage:
    """Blocking; one thread at a time."""

    def __init__(
        self,
        settings: Settings,
        store: StateStore,
        producer: SafeProducer,
        models: ModelEvents,
        partition_counts: Mapping[str, int],
        metrics: WorkerMetrics,
    ) -> None:
        self.parts: dict[int, Owned] = {}
        self._settings = settings
        self._topics = Topics(settings.kafka.topic_prefix)
        self._store = store
        self._producer = producer
        self._models = models
        self._metrics = metrics
        self._counts = partition_counts
        self._ownership = Ownership("monitor", self._topics.monitor_checkpoints, settings.kafka, store, producer)

    def take(self, partitions: Iterable[int]) -> None:
        pass

    def start(self, partition: int, earliest: int, end: int) -> int:
        return earliest

    def stored_offset(self, partition: int) -> int | None:
        return None

    def accept(self, batch: Batch) -> None:
        pass

    def checkpoint(self) -> None:
        pass

    def close(self) -> None:
        pass
