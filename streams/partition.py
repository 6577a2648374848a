"""One input partition of the join: from fetched batches to what a checkpoint writes.

``accept`` decodes and queues, ``advance`` joins what is certain, ``close`` turns everything since the last checkpoint
into Redis commands, a cut, summaries, labelled pairs and dead letters. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from streams import stored
from streams.catalog import Catalog, is_classification
from streams.codec import (
    MAX_VALUE_BYTES,
    EventDecoder,
    Undecodable,
    check_outcome,
    check_prediction,
    outcome_decoder,
    prediction_decoder,
)
from streams.errors import GarbageInput, StateMismatch
from streams.events import Outcome, Prediction
from streams.join import PartitionJoin, UnknownModel
from streams.join_rows import LabelledPair, Pairs
from streams.records import (
    Cut,
    DeadReason,
    EffectSettings,
    Labelled,
    LabelledRow,
    Range,
    Summary,
    VersionPart,
)
from streams.settings import WorkerSettings
from streams.store import Command, Owned
from streams.timeline import OUTCOMES, PREDICTIONS, Run, Timeline

SUMMARY_ROWS = 18_000
"""Pairs in one summary record: at most 28 bytes each, so a record stays below 512 kB."""
LABELLED_ROWS = 9_000
"""Rows in one labelled record: about 50 bytes each."""
COMPLETE_EVERY_MS = 3_600_000


@dataclass(slots=True)
class Batch:
    """Records of one input partition from one fetch, in offset order; ``values`` are raw.

    ``runs`` are (record time in ms, number of records). ``next_offset`` is the position after the fetch, which may lie
    beyond the last record (transaction markers, compaction).
    """

    topic: str
    partition: int
    generation: int
    first_offset: int
    next_offset: int
    values: Sequence[bytes | None]
    offsets: Sequence[int]
    runs: Sequence[tuple[int, int]]
    sample_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record for the dead-letter topic: where it came from, why it is here, and its bytes."""

    side: int
    offset: int
    reason: DeadReason
    detail: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything that one checkpoint writes, in the order in which it must be acknowledged."""

    dead: list[DeadLetter]
    labelled: list[bytes]
    commands: list[Command]
    meta: dict[str, str | bytes | int]
    cut: Cut
    summaries: list[tuple[str, Summary]]


class InputPartition:
    """State and work of one owned partition number: predictions-p and outcomes-p."""

    def __init__(self, owned: Owned, worker: WorkerSettings, effects: EffectSettings) -> None:
        self.owned = owned
        self.worker = worker
        self.join = PartitionJoin(effects)
        self.timeline: Timeline[Any] = Timeline()
        self.position: list[int | None] = [None, None]
        """Next offset to read of each input."""
        self.processed = [0, 0]
        self.committed = [0, 0]
        """Positions of the last checkpoint: what is processed since lies between them and ``processed``."""
        self.done_ms = [0, 0]
        self.sequences: dict[str, int] = {}
        self.clock_ms = 0
        self.complete_at_ms = 0
        self.layout = stored.Layout()
        self.pending_events = 0
        self._dead: list[DeadLetter] = []
        self._garbage = [_Garbage(worker, "predictions"), _Garbage(worker, "outcomes")]
        self._decoders: tuple[EventDecoder[Any], EventDecoder[Any]] = (prediction_decoder(), outcome_decoder())
        self._checks: tuple[Callable[[Any], None], Callable[[Any], None]] = (check_prediction, check_outcome)

    # -------------------------------------------------------------------------------------------------- taking in

    def accept(self, side: int, batch: Batch) -> None:
        """Decode a batch that starts at :attr:`position` and queue its runs.

        Raises :class:`GarbageInput` when too much of the input cannot be decoded; nothing of it is committed then.
        """
        events, bad = self._decode(side, batch.values)
        self._garbage[side].add(len(events), len(bad))
        start = 0
        for at_ms, count in batch.runs:
            end = start + count
            self.timeline.add(
                Run(
                    side,
                    at_ms,
                    events[start:end],
                    batch.offsets[start:end],
                    batch.values[start:end],
                    {i - start: bad[i] for i in bad if start <= i < end} if bad else {},
                    end_offset=batch.offsets[end] if end < len(events) else batch.next_offset,
                )
            )
            start = end
        self.position[side] = batch.next_offset
        if not batch.runs and not self.timeline.stretch(side, batch.next_offset):
            self.processed[side] = batch.next_offset  # only markers: nothing waits, so the position may move on

    def _decode(
        self, side: int, values: Sequence[bytes | None]
    ) -> tuple[list[Prediction | Outcome | None], dict[int, tuple[DeadReason, str]]]:
        decoder, check = self._decoders[side], self._checks[side]
        if (plain := decoder.decode_all(values)) is not None:
            return plain, {}
        events: list[Prediction | Outcome | None] = []
        bad: dict[int, tuple[DeadReason, str]] = {}
        decode = decoder.decode
        for index, value in enumerate(values):
            try:
                if value is None or len(value) > MAX_VALUE_BYTES:
                    event = decoder.decode_any(value)  # says why not
                else:
                    event = decode(value)
                    check(event)
            except (msgspec.MsgspecError, Undecodable, UnicodeDecodeError, RecursionError):
                try:
                    event = decoder.decode_any(value)
                except Undecodable as error:
                    bad[index] = (error.reason, str(error))
                    event = None
            events.append(event)
        return events, bad

    def start(self, side: int, default: int, earliest: int, end: int, topic: str) -> int:
        """The offset to read from: the stored one, or ``default`` for a partition never read.

        Raises :class:`StateMismatch` when the log does not reach back to it, or ends before it.
        """
        position = self.position[side]
        if position is None:
            self.position[side] = self.processed[side] = self.committed[side] = default
            return default
        name = f"{topic}-{self.owned.partition}"
        if position < earliest:
            raise StateMismatch(
                f"{name}: offset {position} is next, but the log starts at {earliest}: records were deleted unread",
                "raise the topic's retention, then start over in a new deployment (redis.prefix and worker.group)",
            )
        if position > end:
            raise StateMismatch(
                f"{name}: offset {position} is needed next, but the log ends at {end}: the topic was made anew",
                "restore the topic, or start over in a new deployment (redis.prefix and worker.group)",
            )
        return position

    # --------------------------------------------------------------------------------------------------- joining

    def advance(self, catalog: Catalog) -> UnknownModel | None:
        """Join every run whose turn is certain. A model that must be registered first stops it and is returned."""
        while (run := self.timeline.next()) is not None:
            try:
                if run.side == PREDICTIONS:
                    self.join.predictions(run.at_ms, run.events, run.offsets, catalog, run.start)
                else:
                    self.join.outcomes(run.at_ms, run.events, run.offsets, catalog)
            except UnknownModel as unknown:
                self._bury(run, run.start, unknown.index)
                self.pending_events += unknown.index - run.start
                run.start = unknown.index
                self.processed[run.side] = run.offsets[unknown.index]
                return unknown
            self._bury(run, run.start, len(run.events))
            self.pending_events += len(run.events) - run.start
            self.processed[run.side] = run.end_offset
            self.done_ms[run.side] = run.at_ms
            self.timeline.done(run)
        return None

    def _bury(self, run: Run[Any], start: int, end: int) -> None:
        """Make dead letters of what the codec refused and of what the join refused in records start..end of a run."""
        for index, (reason, detail) in run.bad.items():
            if start <= index < end:
                value = _letter(run.offsets[index], run.values[index])
                self._dead.append(DeadLetter(run.side, run.offsets[index], reason, detail, value))
        for dead in self.join.effects.dead:
            value = _letter(dead.offset, run.values[dead.index]) if dead.index >= 0 else _reference(dead.offset)
            self._dead.append(DeadLetter(dead.side, dead.offset, dead.reason, dead.detail, value))
        self.join.effects.dead.clear()

    # --------------------------------------------------------------------------------------------------- closing

    @property
    def changed(self) -> bool:
        """Whether a checkpoint would say anything new."""
        return self.processed != self.committed or self.timeline.clock_ms > self.clock_ms

    def close(self, catalog: Catalog, clock_ms: int | None = None) -> Closed:
        """End the checkpoint: everything since the last one, ready to be written. Mutates the state as if written.

        ``clock_ms`` is that of a published cut, when the checkpoint is one that was taken before.
        """
        self.clock_ms = max(self.clock_ms, self.timeline.clock_ms) if clock_ms is None else clock_ms
        self.join.expire(self.clock_ms)
        effects = self.join.take_effects()
        touched = self._summaries(effects.pairs, catalog)
        complete = self.clock_ms - self.complete_at_ms >= COMPLETE_EVERY_MS
        if complete:
            self.complete_at_ms = self.clock_ms
        number = self.owned.number + 1
        cut = Cut(
            partition=self.owned.partition,
            epoch=self.owned.epoch,
            sequence=number,
            predictions=Range(self.committed[PREDICTIONS], self.processed[PREDICTIONS]),
            outcomes=Range(self.committed[OUTCOMES], self.processed[OUTCOMES]),
            clock_ms=self.clock_ms,
            counters=msgspec.structs.replace(self.join.counters),
            pending=len(self.join.pending.rows),
            waiting=len(self.join.waiting.rows),
            models=dict(self.sequences) if complete else {model: self.sequences[model] for model, _ in touched},
            complete=complete,
            model_events=catalog.position,
            settings=self.join.settings,
        )
        commands, meta = stored.checkpoint(self, effects, cut, touched)
        labelled = list(self._labelled(effects.labelled, number))
        dead, self._dead = self._dead, []
        self.committed = list(self.processed)
        self.pending_events = 0
        return Closed(dead, labelled, commands, meta, cut, touched)

    def _summaries(self, pairs: dict[int, Pairs], catalog: Catalog) -> list[tuple[str, Summary]]:
        by_model: dict[str, list[tuple[str, str, Pairs]]] = {}
        for ref, found in pairs.items():
            model, version, segment = self.join.refs[ref]
            by_model.setdefault(model, []).append((version, segment, found))
        summaries: list[tuple[str, Summary]] = []
        for model in sorted(by_model):
            state = catalog.get(model)
            if state is None:
                raise LookupError(f"model {model!r} left the catalog")
            sequence = self.sequences[model] = self.sequences.get(model, 0) + 1
            versions = [
                part
                for version, segment, found in sorted(by_model[model], key=lambda x: x[:2])
                for part in _parts(version, segment, found, is_classification(state.task))
            ]
            records = list(_split(versions))
            for part, chunk in enumerate(records):
                summaries.append(
                    (
                        model,
                        Summary(
                            self.owned.partition,
                            self.owned.epoch,
                            sequence,
                            model,
                            state.task,
                            chunk,
                            part,
                            len(records),
                        ),
                    )
                )
        return summaries

    def _labelled(self, pairs: Sequence[LabelledPair], sequence: int) -> Iterator[bytes]:
        for start in range(0, len(pairs), LABELLED_ROWS):
            chunk = pairs[start : start + LABELLED_ROWS]
            models: dict[str, int] = {}
            versions: dict[str, int] = {}
            at: dict[int, tuple[int, int]] = {}
            for ref in sorted({pair.ref for pair in chunk}):
                model, version, _ = self.join.refs[ref]
                at[ref] = models.setdefault(model, len(models)), versions.setdefault(version, len(versions))
            rows = [
                LabelledRow(
                    pair.prediction_offset,
                    pair.outcome_offset,
                    pair.prediction_ms,
                    pair.outcome_ms,
                    *at[pair.ref],
                    pair.outcome,
                )
                for pair in chunk
            ]
            yield msgspec.msgpack.encode(
                Labelled(self.owned.partition, self.owned.epoch, sequence, list(models), list(versions), rows)
            )


def _letter(offset: int, value: bytes | None) -> bytes | None:
    """The original bytes, unless the producer would refuse them: no record may stop the stream for ever."""
    return value if value is None or len(value) <= MAX_VALUE_BYTES else _reference(offset)


def _reference(offset: int) -> bytes:
    """What stands for bytes that are not at hand (an event taken in earlier) or too many: where they are."""
    return msgspec.json.encode({"offset": offset, "note": "the original record is at this offset of its topic"})


def _parts(version: str, segment: str, pairs: Pairs, classification: bool) -> Iterator[VersionPart]:
    """One or more parts: the first carries the counts, each at most SUMMARY_ROWS pairs in (second, offset) order."""
    ordered = sorted(zip(pairs.seconds, pairs.offsets, pairs.errors, strict=True))  # offsets differ: no ties
    for start in range(0, max(1, len(ordered)), SUMMARY_ROWS):
        rows = ordered[start : start + SUMMARY_ROWS]
        seconds, offsets, errors = map(list, zip(*rows, strict=True)) if rows else ([], [], [])
        part = VersionPart(version, segment, seconds, offsets, bytes(map(int, errors)) if classification else errors)
        if start == 0:
            part.cells = [(*cell, n) for cell, n in pairs.cells.items()]
            part.moments = [(*at, int(m[0]), m[1], m[2], m[3]) for at, m in pairs.moments.items()]
            part.corrections = pairs.corrections
            part.predictions = pairs.predictions
            part.delays = pairs.delays
        yield part


def _split(parts: list[VersionPart]) -> Iterator[list[VersionPart]]:
    """Group parts into records of at most SUMMARY_ROWS pairs; there is always at least one record."""
    chunk: list[VersionPart] = []
    rows = 0
    for part in parts:
        if chunk and rows + len(part.seconds) > SUMMARY_ROWS:
            yield chunk
            chunk, rows = [], 0
        chunk.append(part)
        rows += len(part.seconds)
    yield chunk


class _Garbage:
    """Watches the share of records that cannot be decoded, in blocks of at least ``garbage_records``."""

    def __init__(self, settings: WorkerSettings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._seen = self._bad = 0

    def add(self, seen: int, bad: int) -> None:
        """Count a batch. Raises :class:`GarbageInput` when a block's share is too large."""
        self._seen += seen
        self._bad += bad
        if self._seen < self._settings.garbage_records:
            return
        share = self._bad / self._seen
        if share >= self._settings.garbage_share and not self._settings.allow_garbage:
            raise GarbageInput(
                f"{share:.0%} of the last {self._seen} records of {self._topic} cannot be decoded; none is committed",
                "mend the producer, or send them to dead-letters: `driftline --set worker.allow_garbage=true worker`",
            )
        self._seen = self._bad = 0
