"""A recorded log for the monitor's tests, a store for its state, and a way to play one into the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from detectors.four_rates import ACTUAL, PREDICTED
from streams.alerts import EncodedAlert
from streams.catalog import Catalog
from streams.codec import alert_decoder
from streams.events import Alert, Baseline, ModelEvent, ModelState
from streams.monitor import MonitorPartition
from streams.records import Correction, Counters, Cut, EffectSettings, Range, Summary, Take, VersionPart
from streams.settings import MonitorSettings, Settings
from streams.store import Command

START_S = 1_700_000_040
"""A whole minute."""
EFFECTS = EffectSettings(86_400_000, 3_600_000, 1000, 1000, 10)


def settings(**monitor: Any) -> Settings:
    """Settings with rules that speak soon."""
    values: dict[str, Any] = {
        "baseline_outcomes": 200,
        "window_minutes": 5,
        "minimum_outcomes": 20,
        "for_minutes": 2,
        "clean_minutes": 3,
        "repeat_minutes": 10,
        "outcomes_missing_minutes": 30,
    }
    return Settings(monitor=MonitorSettings(**{**values, **monitor}))


class FakeStore:
    """Redis as far as the monitor needs it: hashes, and the three commands that change them."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.meta: dict[str, bytes] = {}

    def apply(self, commands: Iterable[Command], meta: dict[str, str | bytes | int]) -> None:
        for command, key, *rest in commands:
            fields = self.hashes.setdefault(str(key), {})
            items = [_bytes(item) for item in rest]
            if command == "HSET":
                fields.update(zip(items[::2], items[1::2], strict=True))
            elif command == "HDEL":
                for item in items:
                    fields.pop(item, None)
            elif command == "DEL":
                fields.clear()
            else:
                raise ValueError(command)
        self.meta.update({name: _bytes(value) for name, value in meta.items()})

    def hash(self, monitor: MonitorPartition, part: int) -> dict[bytes, bytes]:
        """One of the monitor's hashes, by its place among the keys."""
        return self.hashes.get(monitor.keys()[part], {})

    def read(self, keys: Iterable[str]) -> list[dict[bytes, bytes]]:
        return [dict(self.hashes.get(key, {})) for key in keys]


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass
class Log:
    """What workers wrote: the records of one partition of summaries, and of every partition of checkpoints."""

    summaries: list[bytes] = field(default_factory=list)
    checkpoints: list[list[bytes]] = field(default_factory=list)


@dataclass
class Pair:
    """One outcome of a classification, or of a regression (``error`` then is a number)."""

    second: int
    model: str = "loan"
    version: str = "1"
    segment: str = ""
    error: float = 0.0
    regression: bool = False
    predictions: int = 1
    """How many predictions arrived with it; 0 and ``outcome=False`` say less."""
    outcome: bool = True
    corrected_s: int | None = None
    predicted: int | None = None
    """0 or 1 of a binary model, whose summaries then have codes; None: 1, and no codes."""

    @property
    def labels(self) -> tuple[int, int]:
        """(prediction, outcome)."""
        predicted = 1 if self.predicted is None else self.predicted
        return predicted, predicted ^ int(bool(self.error))

    @property
    def code(self) -> int:
        predicted, outcome = self.labels
        return PREDICTED * predicted | ACTUAL * outcome


def record(pairs: list[Pair], seed: int, partitions: int = 2, ends_s: int | None = None, parts: bool = False) -> Log:
    """Deal pairs to input partitions and write them as cuts of random length."""
    rng = random.Random(seed)
    log = Log(checkpoints=[[] for _ in range(partitions)])
    dealt: list[list[Pair]] = [[] for _ in range(partitions)]
    for pair in sorted(pairs, key=lambda each: each.second):
        dealt[rng.randrange(partitions)].append(pair)
    end = ends_s if ends_s is not None else max((pair.second for pair in pairs), default=START_S) + 1
    for partition, mine in enumerate(dealt):
        take = Take(partition, 1, "t", "w")
        log.checkpoints[partition].append(msgspec.json.encode(take))
        sequences: dict[str, int] = {}
        offset, start, clock = 0, 0, START_S - 1
        number = 0
        while clock < end:
            number += 1
            clock = min(end, clock + rng.choice([1, 1, 2, 7, 45, 400]))
            upto = start
            while upto < len(mine) and mine[upto].second < clock:
                upto += 1
            chunk, start = mine[start:upto], upto
            touched = {}
            for model in sorted({pair.model for pair in chunk}):
                sequences[model] = touched[model] = sequences.get(model, 0) + 1
                rows = [pair for pair in chunk if pair.model == model]
                halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]] if parts and len(rows) > 1 else [rows]
                for part, half in enumerate(halves):
                    summary = _summary(partition, sequences[model], model, half, offset, part, len(halves))
                    log.summaries.append(msgspec.msgpack.encode(summary))
                    offset += len(half)
            log.checkpoints[partition].append(msgspec.json.encode(cut(partition, number, clock * 1000, touched)))
    return log


def cut(partition: int, sequence: int, clock_ms: int, models: dict[str, int], epoch: int = 1) -> Cut:
    """A cut of which only what the monitor reads matters."""
    none = Range(0, 0)
    return Cut(partition, epoch, sequence, none, none, clock_ms, Counters(), 0, 0, models, False, 0, EFFECTS)


def _summary(
    partition: int, sequence: int, model: str, rows: list[Pair], offset: int, part: int, parts: int
) -> Summary:
    versions = []
    for version, segment in sorted({(row.version, row.segment) for row in rows}):
        mine = [(offset + at, row) for at, row in enumerate(rows) if (row.version, row.segment) == (version, segment)]
        said = [(at, row) for at, row in mine if row.outcome]
        errors = [row.error for _, row in said]
        regression = rows[0].regression
        cells: dict[tuple[int, int, Any, Any], int] = {}
        predictions: dict[int, int] = {}
        moments = []
        for _, row in said:
            minute = row.second // 60
            if regression:
                moments.append((minute, minute, 1, abs(row.error), row.error**2, row.error))
            else:
                cell = (minute, minute, *row.labels)
                cells[cell] = cells.get(cell, 0) + 1
        for _, row in mine:
            predictions[row.second // 60] = predictions.get(row.second // 60, 0) + row.predictions
        versions.append(
            VersionPart.of(
                version,
                segment,
                [row.second for _, row in said],
                [at for at, _ in said],
                np.array(errors, dtype=np.float64) if regression else np.array(errors, dtype=np.uint8),
                cells=[(*cell, n) for cell, n in cells.items()],
                moments=moments,
                corrections=[
                    Correction(row.corrected_s, row.second // 60, row.second // 60, 1, int(not row.error), 1)
                    for _, row in said
                    if row.corrected_s is not None and not regression and row.error
                ],
                predictions={minute: n for minute, n in predictions.items() if n},
                codes=bytes(row.code for _, row in said) if said and said[0][1].predicted is not None else b"",
            )
        )
    task = "regression" if rows[0].regression else "classification"
    return Summary(partition, 1, sequence, model, task, versions, part, parts)


def registered(*states: ModelState) -> Catalog:
    """A catalog that knows these models."""
    catalog = Catalog()
    for offset, state in enumerate(states):
        catalog.apply(offset, ModelEvent("registered", state))
    return catalog


def champion(model: str = "loan", version: str = "1", accuracy: float = 0.95, **changes: Any) -> ModelState:
    """A registered binary model."""
    state = ModelState(
        model, 1, "binary", aliases={"champion": version}, baselines={version: Baseline("accuracy", accuracy, 5000)}
    )
    return msgspec.structs.replace(state, **changes)


def fresh(configuration: Settings, partitions: int = 2) -> MonitorPartition:
    """A monitor that owns every model."""
    return MonitorPartition(0, partitions, configuration, lambda _: True, lambda part: f"d:{{monitor:0}}:{part}")


def play(
    log: Log,
    configuration: Settings,
    catalog: Catalog | None = None,
    seed: int | None = None,
    make: Callable[[Settings, int], MonitorPartition] = fresh,
) -> list[EncodedAlert]:
    """The alerts of a log. With a seed: interleaved, repeated, advanced and reloaded at random; else in one go."""
    known = catalog if catalog is not None else Catalog()
    partitions = len(log.checkpoints)
    monitor = make(configuration, partitions)
    if seed is None:
        for offset, value in enumerate(log.summaries):
            monitor.summary(offset, value)
        for partition, records in enumerate(log.checkpoints):
            for offset, value in enumerate(records):
                monitor.checkpoint_record(partition, offset, value)
        monitor.advance(known)
        return [each.alert for each in monitor.close().alerts]
    rng = random.Random(seed)
    store = FakeStore()
    got: dict[int, EncodedAlert] = {}
    topic = list(log.summaries)
    for value in rng.sample(topic, len(topic) // 3):
        topic.insert(rng.randrange(len(topic) + 1), value)  # sent twice: at another offset, perhaps before the first
    positions = monitor.checkpoint_offsets
    while monitor.next_summary_offset < len(topic) or any(
        positions[p] < len(log.checkpoints[p]) for p in range(partitions)
    ):
        for _ in range(rng.choice([1, 1, 3, 20])):
            if monitor.next_summary_offset < len(topic):
                monitor.summary(monitor.next_summary_offset, topic[monitor.next_summary_offset])
        for partition in range(partitions):
            for _ in range(rng.choice([0, 0, 1, 5])):
                if positions[partition] < len(log.checkpoints[partition]):
                    value = log.checkpoints[partition][positions[partition]]
                    monitor.checkpoint_record(partition, positions[partition], value)
                    positions[partition] += 1
        if rng.random() < 0.6:
            monitor.advance(known)
        if rng.random() < 0.3:
            closed = monitor.close()
            store.apply(closed.commands, closed.meta)
            for each in closed.alerts:
                got.setdefault(each.sequence, each.alert)
            if closed.alerts and rng.random() < 0.5:
                monitor.published(closed.alerts[-1].sequence)
        if rng.random() < 0.15:
            monitor = make(configuration, partitions)
            for each in monitor.load(store.meta, store.read(monitor.keys())):
                if got[each.sequence] != each.alert:
                    raise ValueError("the outbox gave another alert")
            positions = monitor.checkpoint_offsets
    monitor.advance(known)
    for each in monitor.close().alerts:
        got.setdefault(each.sequence, each.alert)
    return [got[sequence] for sequence in sorted(got)]


def events(alerts: list[EncodedAlert]) -> list[Alert]:
    """The alerts as a reader of the topic sees them."""
    return [alert_decoder().decode_any(each.value, each.headers) for each in alerts]
