"""Labelled rows with a known concept, and a log and an announcer in memory for tests of the retrain loop."""

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from retrain.dataset import Dataset, Problem
from retrain.training import Floats
from serving.manifest import Feature
from streams.errors import AccessDenied, Unavailable
from streams.events import FullPrediction, ModelEvent, ModelState
from streams.records import Labelled, LabelledRow

FEATURES = ("a", "b", "c")
PROBLEM = Problem("loans", "binary", tuple(Feature(name) for name in FEATURES), (0, 1), 1)
SECOND_MS = 1_000
START_MS = 1_700_000_000_001


def features(rows: int, seed: int = 0) -> Floats:
    """Rows of three features within [0, 1)."""
    return np.random.default_rng(seed).random((rows, len(FEATURES))).astype(np.float32)


def concept(rows: Floats, *, changed: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Class 1 where `a` is high; after the change where it is low: an old model is wrong on every row."""
    high = rows[:, 0] > 0.5
    return np.asarray(~high if changed else high, dtype=np.float64)


def dataset(rows: Floats, target: np.ndarray[Any, Any]) -> Dataset:
    """A data set whose rows are a second apart."""
    order = START_MS + SECOND_MS * np.arange(len(rows), dtype=np.int64)
    return Dataset(rows, np.asarray(target, dtype=np.float64), np.full(len(rows), np.nan), order, {}, {0: (0, 1)})


def prediction(i: int, row: Any, said: Any, model: str = "loans", version: str = "1") -> FullPrediction:
    """A prediction with its features by name."""
    named: dict[str, float | int | str | bool | None] = {
        name: float(value) for name, value in zip(FEATURES, row, strict=True)
    }
    return FullPrediction(f"p{i}", model, version, said, None, None, None, None, named)


def labelled(
    rows: list[LabelledRow], partition: int = 0, models: list[str] | None = None, version: str = "1"
) -> Labelled:
    """A record of `labelled`, all of whose predictions are of one version."""
    return Labelled.of(partition, 1, 1, models or ["loans"], [version], rows)


def pairs(outcomes: Any, start: int = 0, start_ms: int = START_MS) -> list[LabelledRow]:
    """One pair a second: prediction and outcome have the same offset."""
    return [
        LabelledRow(start + i, start + i, start_ms + i * SECOND_MS, start_ms + i * SECOND_MS, 0, 0, int(outcome))
        for i, outcome in enumerate(outcomes)
    ]


@dataclass
class MemoryFeed:
    """A feed over a list that may grow."""

    records: list[Labelled]
    position: int = 0

    def poll(self) -> list[Labelled]:
        found = self.records[self.position :]
        self.position = len(self.records)
        return found

    def offsets(self) -> dict[int, tuple[int, int]]:
        read = Counter(record.partition for record in self.records[: self.position])
        return {partition: (0, count) for partition, count in read.items()}

    def at_end(self) -> bool:
        return self.position == len(self.records)

    def close(self) -> None:
        self.position = len(self.records)


@dataclass
class MemoryLog:
    """`labelled` and `predictions` in memory; offsets are positions, in `labelled` among those of the partition."""

    records: list[Labelled] = field(default_factory=list)
    partitions: dict[int, list[FullPrediction | None]] = field(default_factory=dict)
    labelled_topic: str = "labelled"

    def labelled(self, since_ms: int | None) -> MemoryFeed:
        return MemoryFeed(self.records)

    def labelled_within(self, offsets: Mapping[int, tuple[int, int]]) -> Iterator[Labelled]:
        for partition, (start, end) in offsets.items():
            yield from [record for record in self.records if record.partition == partition][start:end]

    def predictions(self, partition: int, offsets: Set[int]) -> Iterator[tuple[int, FullPrediction]]:
        for offset, event in enumerate(self.partitions.get(partition, [])):
            if event is not None and offset in offsets:
                yield offset, event


class DeniedLog(MemoryLog):
    """A log whose topic may not be read."""

    def labelled(self, since_ms: int | None) -> MemoryFeed:
        raise AccessDenied("labelled: Topic authorization failed", "give the user READ")


@dataclass
class MemoryAnnouncer:
    """`model-events` in memory."""

    events: list[ModelEvent] = field(default_factory=list)

    def publish(self, event: ModelEvent) -> None:
        self.events.append(event)

    def last_states(self) -> dict[str, ModelState]:
        found: dict[str, ModelState] = {}
        for event in self.events:
            if event.state.model not in found or event.state.revision >= found[event.state.model].revision:
                found[event.state.model] = event.state
        return found

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@dataclass
class UnreachableAnnouncer:
    """`model-events` of ``topic`` while its broker is away for whoever publishes."""

    topic: MemoryAnnouncer

    def publish(self, event: ModelEvent) -> None:
        raise Unavailable("no broker", "")

    def last_states(self) -> dict[str, ModelState]:
        return self.topic.last_states()
