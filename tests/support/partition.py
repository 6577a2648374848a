"""Drives an :class:`InputPartition` over two logs as a worker would: in batches, with checkpoints and crashes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from streams import stored
from streams.catalog import Catalog
from streams.events import ModelEvent, ModelState
from streams.partition import Batch, Closed, InputPartition
from streams.records import Cut, EffectSettings, Labelled
from streams.settings import WorkerSettings
from streams.store import Owned
from tests.support.model_join import Declared, Logged, Told

TOPICS = ("predictions", "outcomes")


class FakeRedis:
    """The commands of a checkpoint on lists and hashes, values as bytes."""

    def __init__(self) -> None:
        self.lists: dict[str, list[bytes]] = {}
        self.hashes: dict[str, dict[bytes, bytes]] = {}

    def execute(self, *command: Any) -> Any:
        """Run one command as a server would."""
        verb, key, *arguments = command
        return getattr(self, f"_{verb.lower()}")(key, *arguments)

    def _rpush(self, key: str, *values: bytes) -> None:
        assert values, "RPUSH without a value is an error"
        self.lists.setdefault(key, []).extend(map(_bytes, values))

    def _ltrim(self, key: str, start: int, stop: int) -> None:
        assert stop == -1
        self.lists[key] = self.lists.get(key, [])[start:]

    def _lrange(self, key: str, start: int, stop: int) -> list[bytes]:
        assert (start, stop) == (0, -1)
        return list(self.lists.get(key, []))

    def _del(self, *keys: str) -> None:
        for key in keys:
            self.lists.pop(key, None)
            self.hashes.pop(key, None)

    def _hset(self, key: str, *pairs: Any) -> None:
        self.hashes.setdefault(key, {}).update(zip(map(_bytes, pairs[::2]), map(_bytes, pairs[1::2]), strict=True))

    def _hdel(self, key: str, *names: Any) -> None:
        for name in names:
            self.hashes.get(key, {}).pop(_bytes(name), None)

    def _hgetall(self, key: str) -> dict[bytes, bytes]:
        # Redis gives the fields of a large hash in no order.
        return dict(reversed(list(self.hashes.get(key, {}).items())))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def catalog_of(models: Mapping[str, Declared]) -> Catalog:
    """A catalog that knows ``models``."""
    catalog = Catalog()
    for offset, (name, declared) in enumerate(models.items()):
        classes = None if declared.classes is None else list(declared.classes)
        catalog.apply(offset, ModelEvent("registered", ModelState(name, 1, declared.task, classes)))
    return catalog


class Driver:
    """One partition, its fake store, and everything that its checkpoints have said."""

    def __init__(
        self, logs: tuple[Sequence[Logged], Sequence[Logged]], settings: EffectSettings, catalog: Catalog
    ) -> None:
        self.logs = logs
        self.settings = settings
        self.catalog = catalog
        self.redis = FakeRedis()
        self.told = Told()
        self.cuts: list[Cut] = []
        self.summary_sequences: dict[str, int] = {}
        self.part = self.fresh()

    # ------------------------------------------------------------------------------------------------------- verbs

    def fresh(self) -> InputPartition:
        """A partition as a new owner loads it."""
        owned = Owned("join", 0, 1, "token", 0, "p:{join:0}:")
        meta = self.redis.execute("HGETALL", owned.name("meta"))
        owned.meta = {name.decode(): value for name, value in meta.items()}
        owned.number = int(owned.meta.get("number", 0))
        part = InputPartition(owned, WorkerSettings(allow_garbage=True), self.settings)
        stored.load(part, [self.redis.execute(*command) for command in stored.read_commands(owned)])
        for side in (0, 1):
            part.start(side, 0, 0, self.end(side), TOPICS[side])
        return part

    def outbox(self) -> list[stored.OutboxEntry]:
        """What a new owner would publish again."""
        owned = Owned("join", 0, 1, "token", 0, "p:{join:0}:")
        raw = [self.redis.execute(*command) for command in stored.read_commands(owned)]
        meta = self.redis.execute("HGETALL", owned.name("meta"))
        owned.meta = {name.decode(): value for name, value in meta.items()}
        return stored.load(InputPartition(owned, WorkerSettings(), self.settings), raw)

    def end(self, side: int) -> int:
        """The offset after the log."""
        return self.logs[side][-1].offset + 1 if self.logs[side] else 0

    def unread(self, side: int) -> list[Logged]:
        """Records that have not been fetched."""
        position = self.part.position[side] or 0
        return [record for record in self.logs[side] if record.offset >= position]

    def accept(self, side: int, count: int, whole_runs: bool = True) -> None:
        """Fetch the next ``count`` records of a topic, or an empty batch that ends behind a hole."""
        records = self.unread(side)[:count]
        first = self.part.position[side] or 0
        rest = self.unread(side)[count:]
        following = rest[0].offset if rest else self.end(side)
        runs: list[tuple[int, int]] = []
        for record in records:
            if whole_runs and runs and runs[-1][0] == record.at_ms:
                runs[-1] = (record.at_ms, runs[-1][1] + 1)
            else:
                runs.append((record.at_ms, 1))
        offsets, values = [r.offset for r in records], [r.value for r in records]
        self.part.accept(side, Batch(TOPICS[side], 0, 0, first, following, values, offsets, runs))

    def advance(self) -> None:
        """Join what is certain."""
        assert self.part.advance(self.catalog) == []

    def idle(self, side: int, ahead_ms: int) -> None:
        """Say that nothing comes before the next unread record, or, at the log's end, for ``ahead_ms``."""
        self.part.timeline.idle(side, self.silent_until(side, ahead_ms))

    def silent_until(self, side: int, ahead_ms: int) -> int:
        """The time up to which the log has nothing more of a topic."""
        latest = 0
        position = self.part.position[side] or 0
        for record in self.logs[side]:
            latest = max(latest, record.at_ms)
            if record.offset >= position:
                return latest
        return latest + ahead_ms

    def close(self) -> Closed:
        """A checkpoint, written."""
        closed = self.part.close(self.catalog)
        key = self.part.owned.name("meta")
        for command in closed.commands:
            self.redis.execute(*command)
        self.part.owned.number += 1
        meta = {**closed.meta, "number": self.part.owned.number}
        self.redis.execute("HSET", key, *(item for pair in meta.items() for item in pair))
        self._hear(closed)
        return closed

    def crash(self) -> None:
        """Forget everything since the last checkpoint and load."""
        self.part = self.fresh()

    def finish(self, clock_ms: int) -> Told:
        """Read what is left, move the clock to ``clock_ms`` and close."""
        for side in (0, 1):
            self.accept(side, len(self.logs[side]))
            self.part.timeline.idle(side, clock_ms)
        self.advance()
        self.close()
        return self.told.sorted()

    # --------------------------------------------------------------------------------------------------- listening

    def _hear(self, closed: Closed) -> None:
        cut, told = closed.cut, self.told
        self.cuts.append(cut)
        told.counters, told.pending, told.waiting = cut.counters, cut.pending, cut.waiting
        told.dead += [(letter.side, letter.offset, letter.reason) for letter in closed.dead]
        for value in closed.labelled:
            record = msgspec.msgpack.decode(value, type=Labelled)
            for row in record.rows():
                model, version = record.models[row.model], record.versions[row.version]
                times = row.prediction_ms, row.outcome_ms
                told.labelled.append((row.prediction_offset, row.outcome_offset, *times, model, version, row.outcome))
        seen: dict[str, list[int]] = {}
        for model, summary in closed.summaries:
            seen.setdefault(model, []).append(summary.part)
            assert summary.sequence == self.summary_sequences.get(model, 0) + 1
            told.hear(summary)
        for model, parts in seen.items():
            assert parts == list(range(len(parts)))
            self.summary_sequences[model] = cut.models[model]
