"""One input partition of the join: from fetched batches to what a checkpoint writes.

``accept`` decodes and queues, ``advance`` joins what is certain, ``close`` turns everything since the last checkpoint
into Redis commands, a cut, summaries, labelled pairs and dead letters. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import msgspec
import numpy as np

from streams import stored, summarise
from streams.catalog import Catalog, is_classification, positive_class
from streams.codec import (
    EventDecoder,
    Undecodable,
    check_outcome,
    check_prediction,
    outcome_decoder,
    prediction_decoder,
)
from streams.columns import (
    OUTCOMES,
    PREDICTIONS,
    Events,
    Original,
    fields_of,
    outcome_columns,
    plain_columns,
    prediction_columns,
)
from streams.effects import Effects
from streams.errors import GarbageInput, StateMismatch
from streams.events import MAX_VALUE_BYTES, Outcome, Prediction, Task
from streams.join import PartitionJoin
from streams.records import Cut, DeadReason, EffectSettings, Range, Summary, VersionPart
from streams.rows import Rows
from streams.settings import WorkerSettings
from streams.store import Command, Owned
from streams.summarise import all_pairs, labelled, version_parts
from streams.timeline import Piece, Timeline, Window
from streams.values import Ints

COMPLETE_EVERY_MS = 3_600_000


@dataclass(slots=True)
class Batch:
    """Records of one input partition from one fetch, in offset order; ``values`` are raw.

    ``original`` gives values again, by offset, so that they need not be kept; without it they are.
    ``runs`` are (record time in ms, number of records). ``next_offset`` is the position after the fetch, which may lie
    beyond the last record (transaction markers, compaction).
    """

    topic: str
    partition: int
    generation: int
    first_offset: int
    next_offset: int
    values: Sequence[bytes | None]
    offsets: Sequence[int] | Ints
    runs: Sequence[tuple[int, int]]
    sample_key: bytes | None = None
    original: Original | None = None


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
        self.timeline = Timeline()
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
        self.accepted = 0
        """Records taken in since the last :meth:`advance`."""
        self._dead: list[DeadLetter] = []
        self._garbage = [_Garbage(worker, "predictions"), _Garbage(worker, "outcomes")]
        self._decoders: tuple[EventDecoder[Any], EventDecoder[Any]] = (prediction_decoder(), outcome_decoder())
        self._columns: tuple[Callable[..., Events], Callable[..., Events]] = (prediction_columns, outcome_columns)
        self._checks: tuple[Callable[[Any], None], Callable[[Any], None]] = (check_prediction, check_outcome)

    # -------------------------------------------------------------------------------------------------- taking in

    def accept(self, side: int, batch: Batch) -> None:
        """Decode a batch that starts at :attr:`position` and queue its records.

        Raises :class:`GarbageInput` when too much of the input cannot be decoded; nothing of it is committed then.
        """
        times = [at_ms for at_ms, _ in batch.runs]
        at_ms = np.repeat(np.array(times, dtype=np.int64), [count for _, count in batch.runs])
        events = self._decode(side, batch, self.timeline.in_order(side, at_ms))
        self._garbage[side].add(len(events), len(events.bad))
        self.position[side] = batch.next_offset
        self.accepted += len(events)
        if len(events):
            self.timeline.add(side, events)
        elif not self.timeline.stretch(side, batch.next_offset):
            self.processed[side] = batch.next_offset  # only markers: nothing waits, so the position may move on

    def _decode(self, side: int, batch: Batch, at_ms: Ints) -> Events:
        decoder, columns = self._decoders[side], self._columns[side]
        offsets = np.ascontiguousarray(batch.offsets, dtype=np.int64)
        original = batch.original or _kept(offsets, batch.values)
        place = at_ms, offsets, original, batch.next_offset
        if (events := plain_columns(side, batch.values, *place)) is not None and events.within_bounds:
            return events
        if (plain := decoder.decode_columns(batch.values)) is not None:
            with suppress(OverflowError):  # a number that no column holds
                events = columns(plain, *place)
                if events.within_bounds:
                    events.scores = ()  # nothing else looks at them
                    return events
        found, bad = self._decode_each(side, batch.values)
        # Many may be bad: their bytes are kept, not looked up again one by one.
        kept = _kept(offsets, batch.values)
        return columns(fields_of(side, found), at_ms, offsets, kept, batch.next_offset, bad)

    def _decode_each(
        self, side: int, values: Sequence[bytes | None]
    ) -> tuple[list[Prediction | Outcome | None], dict[int, tuple[DeadReason, str]]]:
        """Every event, None for what is none, and why."""
        decoder, check = self._decoders[side], self._checks[side]
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

    def advance(self, catalog: Catalog) -> list[Prediction]:
        """Join everything whose turn is certain.

        Predictions whose models must be registered first stop it and are returned, one a model; nothing from the first
        of them on is processed.
        """
        self.accepted = 0
        while window := self.timeline.next():
            rows = self.join.unknown(window.sides[PREDICTIONS], catalog)
            if rows:
                self._take(_up_to(window, rows[0]), catalog)
                return [self._prediction(window, row) for row in rows]
            self._take(window, catalog)
        return []

    def _prediction(self, window: Window, row: int) -> Prediction:
        piece, at = _place(window, row)
        original = piece.events.original(int(piece.events.offsets[at]))
        return cast(Prediction, self._decoders[PREDICTIONS].decode_any(original))

    def _take(self, window: Window, catalog: Catalog) -> None:
        if not window:
            return
        self.join.take(window, catalog)
        for side, pieces in enumerate(window.sides):
            for piece in pieces:
                self._bury_undecodable(side, piece)
                self.processed[side] = piece.end_offset
                self.done_ms[side] = int(piece.events.at_ms[piece.end - 1])
                self.pending_events += len(piece)
            self.timeline.done(side, sum(map(len, pieces)))
        self._bury(window)
        self.join.effects.dead = []

    def _bury_undecodable(self, side: int, piece: Piece) -> None:
        for index, (reason, detail) in piece.events.bad.items():
            if piece.start <= index < piece.end:
                offset = int(piece.events.offsets[index])
                self._dead.append(
                    DeadLetter(side, offset, reason, detail, _letter(offset, piece.events.original(offset)))
                )

    def _bury(self, window: Window) -> None:
        for each in self.join.effects.dead:
            value: bytes | None = _reference(each.offset)
            if each.at_hand:
                pieces = window.sides[each.side]
                events = next(piece.events for piece in pieces if each.offset < piece.end_offset)
                value = _letter(each.offset, events.original(each.offset))
            self._dead.append(DeadLetter(each.side, each.offset, each.reason, each.detail, value))

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
        join = self.join
        join.expire(self.clock_ms)
        effects = join.take_effects()
        pairs = all_pairs(effects)
        touched = self._summaries(pairs, effects, catalog)
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
            counters=msgspec.structs.replace(join.counters),
            pending=join.predictions.waiting,
            waiting=join.outcomes.waiting,
            models=dict(self.sequences) if complete else {model: self.sequences[model] for model, _ in touched},
            complete=complete,
            model_events=catalog.position,
            settings=join.settings,
        )
        commands, meta = stored.checkpoint(self, effects, pairs, cut, touched)
        records = labelled(
            (cut.partition, cut.epoch, number), pairs, effects.corrected, join.refs.items, join.texts.items
        )
        values = [msgspec.msgpack.encode(record) for record in records]
        dead, self._dead = self._dead, []
        self.committed = list(self.processed)
        self.pending_events = 0
        join.tidy()
        return Closed(dead, values, commands, meta, cut, touched)

    def _summaries(self, pairs: Rows, effects: Effects, catalog: Catalog) -> list[tuple[str, Summary]]:
        names = self.join.refs.items

        def task(ref: int) -> Task:
            state = catalog.get(names[ref][0])
            if state is None:
                raise LookupError(f"model {names[ref][0]!r} left the catalog")
            return state.task

        found = version_parts(
            pairs,
            effects,
            self.join.texts.items,
            lambda ref: is_classification(task(ref)),
            lambda ref: positive_class(catalog.get(names[ref][0])),
        )
        by_model: dict[str, list[int]] = {}
        for ref in found:
            by_model.setdefault(names[ref][0], []).append(ref)
        summaries: list[tuple[str, Summary]] = []
        for model in sorted(by_model):
            refs = sorted(by_model[model], key=lambda ref: names[ref][1:])
            sequence = self.sequences[model] = self.sequences.get(model, 0) + 1
            for ref in refs:
                for each in found[ref]:
                    _, each.version, each.segment = names[ref]
            chunks = list(_split([each for ref in refs for each in found[ref]]))
            kind = task(refs[0])
            owned = self.owned
            summaries += [
                (model, Summary(owned.partition, owned.epoch, sequence, model, kind, chunk, part, len(chunks)))
                for part, chunk in enumerate(chunks)
            ]
        return summaries


def _place(window: Window, row: int) -> tuple[Piece, int]:
    """(the piece that has a row of a window's predictions, the row's number in its batch)."""
    for piece in window.sides[PREDICTIONS]:
        if row < len(piece):
            return piece, piece.start + row
        row -= len(piece)
    raise IndexError("the window has fewer predictions")


def _up_to(window: Window, row: int) -> Window:
    """What comes before a row of a window's predictions."""
    last, at = _place(window, row)
    pieces = list(window.sides[PREDICTIONS])
    before = pieces[: pieces.index(last)]
    if at > last.start:
        before.append(Piece(last.events, last.start, at))
    at_ms = int(last.events.at_ms[at])
    return Window((before, [cut for each in window.sides[OUTCOMES] if (cut := each.before(at_ms))]))


def _kept(offsets: Ints, values: Sequence[bytes | None]) -> Original:
    """The values as what gives them by their offsets."""
    return lambda offset: values[int(np.searchsorted(offsets, offset))]


def _letter(offset: int, value: bytes | None) -> bytes | None:
    """The original bytes, unless the producer would refuse them: no record may stop the stream for ever."""
    return value if value is None or len(value) <= MAX_VALUE_BYTES else _reference(offset)


def _reference(offset: int) -> bytes:
    """What stands for bytes that are not at hand (an event taken in earlier) or too many: where they are."""
    return msgspec.json.encode({"offset": offset, "note": "the original record is at this offset of its topic"})


def _split(parts: list[VersionPart]) -> Iterator[list[VersionPart]]:
    """Group parts into records of at most SUMMARY_ROWS pairs; there is always at least one record."""
    chunk: list[VersionPart] = []
    rows = 0
    for part in parts:
        if chunk and rows + part.pairs > summarise.SUMMARY_ROWS:
            yield chunk
            chunk, rows = [], 0
        chunk.append(part)
        rows += part.pairs
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
