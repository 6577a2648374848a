"""The order of what the monitor reads: which checkpoints count, how late it therefore is, and every error in its turn.

Arrival has no say in it. A cut is *admitted* when all summaries that it names are here whole; only admitted summaries
have effects, and only a watermark that no input partition can fall behind any more lets those effects be seen.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from detectors.four_rates import UNKNOWN, Codes
from streams.errors import StateMismatch
from streams.records import Cut, Gap, Summary, Take

Key = tuple[int, int, int, str]
"""Input partition, sequence, part, model: one summary record.

The sequence is negative, with the epoch in its upper bits, for one that waits for the take of its epoch.
"""
EPOCH_BITS = 40
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_decode = msgspec.msgpack.Decoder(Summary).decode


class InputState(msgspec.Struct, array_like=True):
    """Where one input partition stands: all of it that has to be stored.

    ``epoch`` is that of the last take before ``offset``, the next record of ``checkpoints`` to read after a reload.
    """

    clock_ms: int = 0
    sequence: int = 0
    epoch: int = 0
    offset: int = 0
    skipped: bool = False


@dataclass(slots=True)
class _Held:
    """A summary that no admitted cut has named yet; whole when every part of it is here."""

    epoch: int
    parts: int
    records: dict[int, Summary] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return len(self.records) == self.parts


@dataclass(frozen=True, slots=True)
class _Queued:
    offset: int
    epoch: int
    record: Cut | Gap | Take


class _Input:
    """One input partition: what is admitted, and the cuts that wait for their summaries."""

    def __init__(self) -> None:
        self.state = InputState()
        self.taken = 0
        self.read = 0
        self.queue: deque[_Queued] = deque()
        self.restarts: deque[int] = deque()
        """The epochs of the takes in the queue, all of which restart."""

    @property
    def open_epoch(self) -> int:
        """The epoch up to which a summary's place is known: a take that is not read, or waits, may restart them."""
        return self.restarts[0] - 1 if self.restarts else self.taken

    def settle(self) -> None:
        """Let the stored position follow: the first cut that still waits, or the next unread record."""
        head = self.queue[0] if self.queue else None
        self.state.offset, self.state.epoch = (head.offset, head.epoch) if head else (self.read, self.taken)


class Inputs:
    """The summaries of some models and the checkpoints of all ``partitions`` input partitions.

    ``owns`` tells whether a model's summaries come to us. Nothing here depends on when or how often a record arrives.
    """

    def __init__(self, partitions: int, owns: Callable[[str], bool]) -> None:
        self._owns = owns
        self._owned: dict[str, bool] = {}
        self._inputs = [_Input() for _ in range(partitions)]
        self._held: dict[tuple[int, str, int], _Held] = {}
        self._watermark_ms = 0
        self.admitted: dict[tuple[int, str], int] = {}
        """(input partition, model) → the last summary sequence that took effect."""
        self._records: dict[Key, bytes] = {}
        self._stored: set[Key] = set()
        self._dropped: set[Key] = set()
        self._unfed: list[tuple[int, Key]] = []
        self._moved: set[tuple[int, str]] = set()
        self._early: dict[int, list[tuple[Key, Summary, bytes]]] = {}
        """Summaries of an epoch whose take is still to be read: it may begin the sequences anew."""

    # --------------------------------------------------------------------------------------------------- taking in

    def summary(self, value: bytes) -> None:
        """Hold a summary record until a cut names it; what was admitted or is of an older epoch is dropped as seen."""
        try:
            summary = _decode(value)
        except msgspec.MsgspecError as error:
            raise StateMismatch(f"a record of summaries is none: {error}", "only workers may write there") from None
        if summary.epoch > self._input(summary.partition).open_epoch:
            self._hold_early(summary, value)
        else:
            self._hold(summary, value)

    def _hold_early(self, summary: Summary, value: bytes) -> None:
        # No place of an admitted record, and not that of an early one of another epoch.
        place = (summary.partition, -(summary.epoch << EPOCH_BITS | summary.sequence), summary.part, summary.model)
        self._early.setdefault(summary.partition, []).append((place, summary, value))
        self._dropped.discard(place)
        self._records[place] = value

    def _release_early(self, partition: int) -> None:
        """More takes have been read: what waited for them is as any other summary now."""
        waiting = self._early.get(partition)
        epoch = self._inputs[partition].open_epoch
        if not waiting or all(summary.epoch > epoch for _, summary, _ in waiting):
            return
        self._early[partition] = []
        for place, _, _ in waiting:
            self._forget(place)
        for _, summary, value in waiting:
            if summary.epoch <= epoch:
                self._hold(summary, value)
            else:
                self._hold_early(summary, value)

    def _hold(self, summary: Summary, value: bytes) -> None:
        key = (summary.partition, summary.model, summary.sequence)
        if summary.sequence <= self.admitted.get(key[:2], 0):
            return
        held = self._held.get(key)
        if held is not None and (held.epoch > summary.epoch or (held.epoch == summary.epoch and _has(held, summary))):
            return
        if held is None or held.epoch < summary.epoch:
            for part in held.records if held is not None else ():
                self._forget(_key(summary, part))
            held = self._held[key] = _Held(summary.epoch, summary.parts)
        held.records[summary.part] = summary
        record = _key(summary, summary.part)
        self._dropped.discard(record)
        self._records[record] = value

    def checkpoint(self, partition: int, offset: int, record: Take | Cut | Gap) -> None:
        """Take in the record at an offset of ``checkpoints``; one that was read before is ignored."""
        source = self._input(partition)
        if offset < source.read:
            return
        source.read = offset + 1
        if isinstance(record, Take):
            if record.restart is not None and record.epoch > source.taken:
                last = record.restart.last
                source.queue = deque(
                    each for each in source.queue if not isinstance(each.record, Cut) or each.record.sequence <= last
                )
                source.queue.append(_Queued(offset, source.taken, record))
                source.restarts.append(record.epoch)
            source.taken = max(source.taken, record.epoch)
        elif record.epoch >= source.taken:
            source.queue.append(_Queued(offset, source.taken, record))
            if isinstance(record, Cut):
                source.taken = record.epoch  # its take is older than the log may be
        self._release_early(partition)

    def _input(self, partition: int) -> _Input:
        if not 0 <= partition < len(self._inputs):
            raise StateMismatch(
                f"a record speaks of input partition {partition}, and there are {len(self._inputs)}",
                "the partition count changed: start over in a new deployment (redis.prefix and worker.group)",
            )
        return self._inputs[partition]

    # --------------------------------------------------------------------------------------------------- admitting

    def admit(self) -> Iterator[Summary]:
        """Admit every cut whose summaries are whole; gives their records, to be taken in at once, in no order."""
        for source in self._inputs:
            while source.queue and (summaries := self._admissible(source)) is not None:
                done = source.queue.popleft().record
                yield from summaries
                if isinstance(done, Take):
                    source.restarts.popleft()
                    self._release_early(done.partition)
            source.settle()
        running = [source.state.clock_ms for source in self._inputs if not source.state.skipped]
        if running:
            self._watermark_ms = max(self._watermark_ms, min(running))

    @property
    def watermark_ms(self) -> int:
        """No pair that is not admitted yet was complete before: the lowest clock over all input partitions."""
        return self._watermark_ms

    def begin_after(self, sequences: Mapping[tuple[int, str], int]) -> None:
        """Do without the summaries up to these sequences of (input partition, model): the log has them no more."""
        for key, sequence in sequences.items():
            if sequence > self.admitted.get(key, 0):
                self.admitted[key] = sequence
                self._moved.add(key)

    def hold_watermark(self, at_ms: int) -> None:
        """The watermark was here before: it does not step back."""
        self._watermark_ms = max(self._watermark_ms, at_ms)

    @property
    def stored_records(self) -> int:
        """How many records are in the store."""
        return len(self._stored)

    @property
    def clocks_ms(self) -> dict[int, int]:
        """The clock of each input partition that the watermark waits for."""
        return {p: i.state.clock_ms for p, i in enumerate(self._inputs) if not i.state.skipped}

    def _admissible(self, source: _Input) -> list[Summary] | None:
        """The records that the first waiting cut lets take effect, or None while one of them is missing."""
        cut = source.queue[0].record
        if isinstance(cut, Gap):
            source.state.skipped = True
            return []
        if isinstance(cut, Take):
            self._restart(source, cut)
            return []
        if cut.sequence <= source.state.sequence:
            return []
        partition = cut.partition
        needed: list[tuple[int, str, int]] = []
        for model, sequence in cut.models.items():
            if not self._is_ours(model):
                continue
            for number in range(self.admitted.get((partition, model), 0) + 1, sequence + 1):
                held = self._held.get((partition, model, number))
                if held is None or held.epoch < cut.epoch or not held.whole:
                    return None
                needed.append((partition, model, number))
        state = source.state
        state.clock_ms, state.sequence, state.skipped = max(state.clock_ms, cut.clock_ms), cut.sequence, False
        return [record for key in needed for record in self._take(key)]

    def _restart(self, source: _Input, take: Take) -> None:
        """The sequences of an input partition begin again; what was held under the old ones is of no cut any more."""
        source.state.sequence = 0
        for at in [at for at in self.admitted if at[0] == take.partition]:
            self.admitted[at] = 0
            self._moved.add(at)
        for key, held in list(self._held.items()):
            if key[0] == take.partition and held.epoch < take.epoch:
                for part in self._held.pop(key).records:
                    self._forget((key[0], key[2], part, key[1]))

    def _take(self, key: tuple[int, str, int]) -> list[Summary]:
        partition, model, sequence = key
        self.admitted[partition, model] = sequence
        self._moved.add((partition, model))
        records = [record for _, record in sorted(self._held.pop(key).records.items())]
        for record in records:
            self._keep_until_fed(record)
        return records

    def _keep_until_fed(self, record: Summary) -> None:
        """Its counts are in the state now; the record itself is needed until its last error is fed."""
        last_s = max((part.last_second for part in record.versions), default=-1)
        heapq.heappush(self._unfed, (last_s, _key(record, record.part)))

    def _is_ours(self, model: str) -> bool:
        known = self._owned.get(model)
        if known is None:
            known = self._owned[model] = self._owns(model)
        return known

    # --------------------------------------------------------------------------------------------------- storing

    def fed(self, before_s: int) -> None:
        """All errors of admitted summaries before a second are fed: their records need not be stored any longer."""
        while self._unfed and self._unfed[0][0] < before_s:
            key = heapq.heappop(self._unfed)[1]
            held = self._held.get((key[0], key[3], key[1]))
            if held is None or key[2] not in held.records:  # else one behind a restart has taken its number
                self._forget(key)

    def _forget(self, key: Key) -> None:
        self._records.pop(key, None)
        if key in self._stored:
            self._dropped.add(key)

    def changed(self) -> tuple[dict[str, bytes], list[str], dict[str, int]]:
        """What became different since the last call: records to store, records to delete, sequences to store."""
        written, self._records = self._records, {}
        dropped = sorted(_field(key) for key in self._dropped)
        self._stored = (self._stored | written.keys()) - self._dropped
        self._dropped = set()
        sequences = {f"{at[0]}:{at[1]}": self.admitted[at] for at in sorted(self._moved)}
        self._moved = set()
        return {_field(key): value for key, value in written.items()}, dropped, sequences

    @property
    def states(self) -> dict[int, InputState]:
        """The stored state of each input partition."""
        return {number: source.state for number, source in enumerate(self._inputs)}

    @property
    def offsets(self) -> dict[int, int]:
        """The next record of ``checkpoints`` to read after a reload, a partition."""
        return {number: source.state.offset for number, source in enumerate(self._inputs)}

    def load(
        self,
        states: Mapping[int, InputState],
        sequences: Mapping[str, int],
        records: Mapping[str, bytes],
        watermark_ms: int,
    ) -> Iterator[Summary]:
        """Take over what was stored; gives the records that were admitted but perhaps not fed whole."""
        self._watermark_ms = watermark_ms
        for number, state in states.items():
            source = self._input(number)
            source.state, source.taken, source.read = state, state.epoch, state.offset
        for name, sequence in sequences.items():
            partition, _, model = name.partition(":")
            self.admitted[int(partition), model] = sequence
        for name, value in records.items():
            key = _parse(name)
            self._stored.add(key)
            if key[1] < 0:
                self._hold_early(_decode(value), value)
                self._records.pop(key)
            elif key[1] > self.admitted.get((key[0], key[3]), 0):
                self.summary(value)
                self._records.pop(key, None)
            else:
                record = _decode(value)
                self._keep_until_fed(record)
                yield record


def _has(held: _Held, summary: Summary) -> bool:
    return summary.part in held.records


def _key(summary: Summary, part: int) -> Key:
    return summary.partition, summary.sequence, part, summary.model


def _field(key: Key) -> str:
    return f"{key[0]}:{key[1]}:{key[2]}:{key[3]}"


def _parse(name: str) -> Key:
    partition, sequence, part, model = name.split(":", 3)
    return int(partition), int(sequence), int(part), model


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors in order, one entry each: second of completion, input partition, outcome offset, the error itself.

    ``codes`` are those of :mod:`detectors.four_rates`; None for a model without a positive class. ``segments`` are
    codes of the segments that are watched, 0 for any other; None if none is.
    """

    seconds: Ints
    partitions: Ints
    offsets: Ints
    errors: Floats
    codes: Codes | None = None
    segments: Codes | None = None

    def __len__(self) -> int:
        return len(self.seconds)

    def slice(self, start: int, end: int) -> Errors:
        """Entries start..end, without copying."""
        at = np.s_[start:end]
        codes = self.codes[at] if self.codes is not None else None
        segments = self.segments[at] if self.segments is not None else None
        return Errors(self.seconds[at], self.partitions[at], self.offsets[at], self.errors[at], codes, segments)


class OrderedErrors:
    """The errors of one version, released in the order (second, input partition, outcome offset)."""

    def __init__(self) -> None:
        self._added: list[Errors] = []
        self._sorted: Errors | None = None
        self.first_second: int | None = None
        """The second of the first error that waits."""

    def add(
        self,
        partition: int,
        seconds: Ints,
        offsets: Ints,
        errors: Floats,
        codes: Codes | None = None,
        segment: int | None = None,
    ) -> None:
        """Take in errors of one segment's code, ``seconds`` rising."""
        if not len(seconds):
            return
        segments = None if segment is None else np.full(len(seconds), segment, dtype=np.uint8)
        self._added.append(Errors(seconds, np.full(len(seconds), partition), offsets, errors, codes, segments))
        first = int(seconds[0])
        self.first_second = first if self.first_second is None else min(self.first_second, first)

    def release(self, before_s: int) -> Errors | None:
        """The errors of all seconds before ``before_s``, or None when there are none."""
        if self.first_second is None or self.first_second >= before_s:
            return None
        waiting = self._sort()
        end = int(np.searchsorted(waiting.seconds, before_s))
        rest = waiting.slice(end, len(waiting))
        self._sorted = rest if len(rest) else None
        self.first_second = int(rest.seconds[0]) if len(rest) else None
        return waiting.slice(0, end)

    def _sort(self) -> Errors:
        """Everything that waits, in order; what was sorted before is not sorted again unless something was added."""
        chunks = [*([self._sorted] if self._sorted is not None else []), *self._added]
        if len(chunks) == 1 and not self._added:
            return chunks[0]
        self._added = []
        seconds = np.concatenate([chunk.seconds for chunk in chunks])
        partitions = np.concatenate([chunk.partitions for chunk in chunks])
        offsets = np.concatenate([chunk.offsets for chunk in chunks])
        errors = np.concatenate([chunk.errors for chunk in chunks])
        order = np.lexsort((offsets, partitions, seconds))
        codes = _joined([chunk.codes for chunk in chunks], chunks, UNKNOWN)
        segments = _joined([chunk.segments for chunk in chunks], chunks, 0)
        return Errors(
            seconds[order],
            partitions[order],
            offsets[order],
            errors[order],
            codes[order] if codes is not None else None,
            segments[order] if segments is not None else None,
        )


def _joined(columns: list[Codes | None], chunks: list[Errors], missing: int) -> Codes | None:
    """A column of chunks one behind the other, ``missing`` where a chunk has none; None if none has any."""
    if all(column is None for column in columns):
        return None
    return np.concatenate(
        [
            np.full(len(chunk), missing, dtype=np.uint8) if column is None else column
            for column, chunk in zip(columns, chunks, strict=True)
        ]
    )
