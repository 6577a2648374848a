"""Reads the topics for the audit: cuts first, then everything that must bear them out.

The order matters on a live system: what a cut speaks of is in the topics before the cut is (records, dead letters,
labelled pairs) or within moments after it (summaries), so that whatever is read later covers it.
"""

from __future__ import annotations

import hashlib
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import numpy as np

from streams.audit import (
    OUTCOMES,
    PREDICTIONS,
    AlertTrail,
    AuditReport,
    CutLedger,
    Evidence,
    MonitorLedger,
    SummaryNote,
    SummaryNotes,
    judge,
)
from streams.codec import Headers, Undecodable, alert_decoder
from streams.errors import StateMismatch, Unavailable
from streams.kafka import KafkaLog
from streams.log import Log, Reader, Record
from streams.records import Cut, Gap, Labelled, MonitorCut, Summary, Take
from streams.settings import KafkaSettings, Settings
from streams.topics import Topics

SUMMARIES_BOUND_S = 10.0
"""How long the summaries of the newest cuts may take to arrive."""
FOLLOW_BOUND_S = 60.0
"""Following ends when no cut has moved for so long."""
FOLLOW_POLL_S = 0.5
TAIL_RECORDS = 16
Progress = Callable[[str], None]
T = TypeVar("T")
C = TypeVar("C", Cut, MonitorCut)

_checkpoint = msgspec.json.Decoder(Take | Cut | Gap)
_monitor_checkpoint = msgspec.json.Decoder(Take | MonitorCut | Gap)
_summary = msgspec.msgpack.Decoder(Summary)
_labelled = msgspec.msgpack.Decoder(Labelled)


def audit(
    settings: Settings,
    *,
    follow_to_end: bool = False,
    progress: Progress = lambda _: None,
    broker: Log | None = None,
) -> AuditReport:
    """Check the law from cuts and the log alone, of ``broker`` or else of the broker in the settings; blocking.

    ``follow_to_end`` first waits until cuts cover what is in the inputs now, or stop moving. ``progress`` is told what
    is being read. Raises :class:`Unavailable` without a broker or a topic.
    """
    return _Audit(settings, broker or KafkaLog(settings.kafka), progress).run(follow_to_end=follow_to_end)


def newest_cuts(kafka: KafkaSettings, topic: str) -> dict[int, tuple[Cut, int]]:
    """The newest cut of each partition of ``checkpoints`` that has one, and its record time in ms.

    Raises :class:`StateMismatch` for a record there that none of ours wrote.
    """
    return _newest(KafkaLog(kafka), topic, _checkpoint, Cut)


def newest_monitor_cuts(kafka: KafkaSettings, topic: str) -> dict[int, tuple[MonitorCut, int]]:
    """The newest cut of each partition of ``monitor-checkpoints`` that has one, and its record time in ms."""
    return _newest(KafkaLog(kafka), topic, _monitor_checkpoint, MonitorCut)


def _newest(broker: Log, topic: str, decoder: msgspec.json.Decoder[Any], kind: type[C]) -> dict[int, tuple[C, int]]:
    """Read backwards until each partition has shown one, so that a long history costs nothing."""
    found: dict[int, tuple[C, int]] = {}
    wanted: set[int] | None = None  # all of them
    reach = TAIL_RECORDS
    while wanted is None or wanted:
        with broker.reader(topic, None, wanted, reach) as reader:
            left_out = {p for p, offset in reader.next.items() if offset > reader.earliest[p]}
            for record in reader.read_to_end():
                cut = _decode(decoder, record)
                if not isinstance(cut, kind):
                    continue
                known = found.get(record.partition)
                if known is None or (cut.epoch, cut.sequence) > (known[0].epoch, known[0].sequence):
                    found[record.partition] = cut, record.at_ms
        wanted = left_out - found.keys()
        reach *= 8
    return found


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The two inputs: the first offset that each partition still holds, and the end when we looked."""

    low: dict[int, tuple[int, int]]
    ends: dict[int, tuple[int, int]]


class _Audit:
    """One run."""

    def __init__(self, settings: Settings, broker: Log, progress: Progress) -> None:
        self._broker = broker
        self._request_timeout_s = settings.kafka.request_timeout_s
        self._topics = Topics(settings.kafka.topic_prefix)
        self._progress = progress
        self._notes: list[str] = []
        self._foreign: list[str] = []

    def run(self, *, follow_to_end: bool) -> AuditReport:
        if follow_to_end:
            self._follow(self._inputs().ends)
        inputs = self._inputs()
        ledgers = self._cuts(inputs)
        evidence = {p: Evidence() for p in ledgers}
        self._records(ledgers, evidence)
        self._pairs(evidence)
        self._dead(evidence)
        self._summaries(ledgers, evidence)
        monitors = self._monitor_cuts()
        alerts = self._alerts()
        ends = self._inputs().ends
        for p, ledger in ledgers.items():
            last = ledger.last
            reached = (last.predictions.end, last.outcomes.end) if last is not None else inputs.low.get(p, (0, 0))
            evidence[p].lag = [max(0, end - at) for end, at in zip(ends.get(p, (0, 0)), reached, strict=True)]
        return judge(list(ledgers.values()), evidence, monitors, alerts + self._foreign, self._notes)

    # ------------------------------------------------------------------------------------------------------ inputs

    def _inputs(self) -> _Inputs:
        low: list[dict[int, int]] = []
        ends: list[dict[int, int]] = []
        for topic in (self._topics.predictions, self._topics.outcomes):
            with self._broker.reader(topic) as reader:
                low.append(dict(reader.next))
                ends.append(dict(reader.first_ends))
        partitions = sorted(low[PREDICTIONS].keys() & low[OUTCOMES].keys())
        return _Inputs(
            {p: (low[PREDICTIONS][p], low[OUTCOMES][p]) for p in partitions},
            {p: (ends[PREDICTIONS][p], ends[OUTCOMES][p]) for p in partitions},
        )

    def _follow(self, ends: Mapping[int, tuple[int, int]]) -> None:
        """Wait until cuts reach ``ends``, or until none has moved for a while."""
        left_before = -1
        deadline = time.monotonic() + FOLLOW_BOUND_S
        while True:
            cuts = _newest(self._broker, self._topics.checkpoints, _checkpoint, Cut)
            left = 0
            for p, (predictions, outcomes) in ends.items():
                cut = cuts[p][0] if p in cuts else None
                left += max(0, predictions - (cut.predictions.end if cut is not None else 0))
                left += max(0, outcomes - (cut.outcomes.end if cut is not None else 0))
            if not left:
                return
            self._progress(f"waiting for {left} records to be covered by cuts")
            if left != left_before:
                left_before, deadline = left, time.monotonic() + FOLLOW_BOUND_S
            elif time.monotonic() > deadline:
                self._notes.append(f"{left} records were not covered after {FOLLOW_BOUND_S:g} s: does a worker run?")
                return
            time.sleep(FOLLOW_POLL_S)

    def _records(self, ledgers: Mapping[int, CutLedger], evidence: Mapping[int, Evidence]) -> None:
        """Count the records that the cuts claim, from the ledger's base to its last cut."""
        for side, topic in ((PREDICTIONS, self._topics.predictions), (OUTCOMES, self._topics.outcomes)):
            start: dict[int, int] = {}
            bounds: dict[int, int] = {}
            for p, ledger in ledgers.items():
                base, last = ledger.base[side], ledger.last
                if base is not None and last is not None:
                    start[p] = base.offset
                    bounds[p] = (last.predictions, last.outcomes)[side].end
            counts = dict.fromkeys(bounds, 0)
            for record in self._read_until(topic, start, bounds):
                counts[record.partition] += 1
            for p, count in counts.items():
                evidence[p].records[side] = count

    def _read_until(self, topic: str, start: Mapping[int, int], bounds: Mapping[int, int]) -> Iterator[Record]:
        """Every record from ``start`` to before ``bounds``; a log that ends earlier ends the reading."""
        if not bounds:
            return
        read = 0
        with self._broker.reader(topic, start, set(bounds)) as reader:
            deadline = time.monotonic() + self._request_timeout_s
            while behind := [p for p, end in bounds.items() if reader.next[p] < end]:
                records = reader.poll()
                for record in records:
                    if record.offset < bounds[record.partition]:
                        yield record
                read += len(records)
                self._progress(f"{topic}: {read} records")
                if records:
                    deadline = time.monotonic() + self._request_timeout_s
                elif time.monotonic() > deadline:
                    if all(reader.at_end[p] for p in behind):
                        return  # a log that is shorter than its cuts say: the count tells
                    raise Unavailable(f"{topic} could not be read to its end", "is the broker reachable?")

    # -------------------------------------------------------------------------------------------------------- cuts

    def _cuts(self, inputs: _Inputs) -> dict[int, CutLedger]:
        ledgers = {p: CutLedger(p, low) for p, low in inputs.low.items()}
        for record in self._whole(self._topics.checkpoints):
            ledger = ledgers.get(record.partition)
            if ledger is None:
                ledger = ledgers[record.partition] = CutLedger(record.partition)
            if (found := self._ours(_checkpoint, record)) is not None:
                ledger.record(found)
        return ledgers

    def _monitor_cuts(self) -> list[MonitorLedger]:
        ledgers: dict[int, MonitorLedger] = {}
        for record in self._whole(self._topics.monitor_checkpoints):
            ledger = ledgers.setdefault(record.partition, MonitorLedger(record.partition))
            if (found := self._ours(_monitor_checkpoint, record)) is not None:
                ledger.record(found)
        return [ledgers[p] for p in sorted(ledgers)]

    def _whole(self, topic: str) -> Iterator[Record]:
        """Every record of a topic of ours."""
        with self._broker.reader(topic) as reader:
            yield from self._counted(topic, reader.read_to_end())

    def _counted(self, topic: str, records: Iterator[Record]) -> Iterator[Record]:
        for number, record in enumerate(records, start=1):
            if number % 1_000 == 0:
                self._progress(f"{topic}: {number} records")
            yield record

    def _ours(self, decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], record: Record) -> T | None:
        """The record decoded; None, and a violation, for one that none of ours wrote."""
        try:
            return _decode(decoder, record)
        except StateMismatch as error:
            self._foreign.append(error.message)
            return None

    def _still_whole(self, reader: Reader) -> bool:
        """Whether retention has removed nothing yet; says so in the report otherwise."""
        if not any(reader.next.values()):
            return True
        self._notes.append(f"{reader.topic} no longer reaches back to its beginning: it is not checked")
        return False

    # ---------------------------------------------------------------------------------------------------- evidence

    def _pairs(self, evidence: Mapping[int, Evidence]) -> None:
        offsets: dict[int, array[int]] = {p: array("q") for p in evidence}
        with self._broker.reader(self._topics.labelled) as reader:
            if not self._still_whole(reader):
                return
            for record in self._counted(reader.topic, reader.read_to_end()):
                if (batch := self._ours(_labelled, record)) is None:
                    continue
                offsets.setdefault(batch.partition, array("q")).frombytes(batch.offsets.tobytes())
        for p, found in evidence.items():
            found.pairs = np.array(offsets[p], dtype=np.int64).reshape(-1, 2)

    def _dead(self, evidence: Mapping[int, Evidence]) -> None:
        sides = {self._topics.predictions: PREDICTIONS, self._topics.outcomes: OUTCOMES}
        dead: dict[int, list[set[int]]] = {p: [set(), set()] for p in evidence}
        with self._broker.reader(self._topics.dead_letters) as reader:
            if not self._still_whole(reader):
                return
            for record in self._counted(reader.topic, reader.read_to_end()):
                place = _place(record.headers)
                if place is None or place[0] not in sides or place[1] not in dead:
                    continue  # others may write their dead letters here too
                topic, p, offset = place
                dead[p][sides[topic]].add(offset)
                if _displaced(record, offset):
                    evidence[p].displaced[sides[topic]].add(offset)
        for p, found in evidence.items():
            found.dead = dead[p]

    def _summaries(self, ledgers: Mapping[int, CutLedger], evidence: Mapping[int, Evidence]) -> None:
        """Read the topic, and for a moment longer while those of the newest cuts are still on their way."""
        notes = {p: SummaryNotes() for p in ledgers}
        with self._broker.reader(self._topics.summaries) as reader:
            if not self._still_whole(reader):
                return
            for record in self._counted(reader.topic, reader.read_to_end()):
                _note(notes, self._ours(_summary, record))
            deadline = time.monotonic() + SUMMARIES_BOUND_S
            while _awaited(ledgers, notes) and time.monotonic() < deadline:
                self._progress("waiting for the summaries of the newest cuts")
                for record in reader.poll():
                    _note(notes, self._ours(_summary, record))
        for p, found in evidence.items():
            found.summaries = notes[p]

    def _alerts(self) -> list[str]:
        trail = AlertTrail()
        decoder = alert_decoder()
        offsets: dict[int, tuple[int, int]] = {}
        read: dict[int, int] = {}
        for record in self._whole(self._topics.alerts):
            first, _ = offsets.get(record.partition, (record.offset, 0))
            offsets[record.partition] = first, record.offset
            read[record.partition] = read.get(record.partition, 0) + 1
            if record.value is None:
                continue
            try:
                alert = decoder.decode_any(record.value, record.headers)
            except Undecodable as error:
                self._notes.append(f"{record.topic}-{record.partition}: offset {record.offset} is no alert: {error}")
                continue
            ce_id = _text(record.headers, "ce_id") or f"{alert.fingerprint}/{alert.starts_at}/{alert.sequence}"
            trail.add(ce_id, alert.fingerprint, alert.starts_at, alert.sequence, hashlib.sha256(record.value).digest())
        compacted = any(first > 0 or last - first + 1 != read[p] for p, (first, last) in offsets.items())
        return trail.violations(compacted=compacted)


def _note(notes: Mapping[int, SummaryNotes], summary: Summary | None) -> None:
    if summary is None or summary.partition not in notes:
        return
    content = msgspec.msgpack.encode(msgspec.structs.replace(summary, epoch=0))
    versions = summary.versions
    notes[summary.partition].add(
        summary.model,
        summary.sequence,
        SummaryNote(
            epoch=summary.epoch,
            part=summary.part,
            parts=summary.parts,
            pairs=sum(version.pairs for version in versions),
            cells=sum(cell[4] for version in versions for cell in version.cells)
            + sum(moment[2] for version in versions for moment in version.moments),
            predictions=sum(n for version in versions for n in version.predictions.values()),
            content=hashlib.blake2b(content, digest_size=16).digest(),
        ),
    )


def _awaited(ledgers: Mapping[int, CutLedger], notes: Mapping[int, SummaryNotes]) -> bool:
    """Whether a partition's last cut still lacks a summary."""
    for p, ledger in ledgers.items():
        if not ledger.touched or ledger.last is None or ledger.touched[-1].sequence != ledger.last.sequence:
            continue
        cut = ledger.touched[-1]
        for model, sequence in cut.models.items():
            parts = notes[p].of(model, sequence, cut.epoch)
            if not parts or len(parts) < next(iter(parts.values())).parts:
                return True
    return False


class _Note(msgspec.Struct):
    """The value of a dead letter whose original is not at hand: see ``streams.partition``."""

    offset: int
    note: str


_dead_note = msgspec.json.Decoder(_Note)


def _displaced(record: Record, offset: int) -> bool:
    """Whether a dead letter stands for a record that was taken in earlier, and made dead by a later one."""
    if _text(record.headers, "driftline_reason") == "too_large":
        return False  # a note stands for its bytes too, but it was dead when it was read
    try:
        return _dead_note.decode(record.value or b"").offset == offset
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def _place(headers: Headers) -> tuple[str, int, int] | None:
    """Where a dead letter came from."""
    topic, partition, offset = (_text(headers, f"driftline_{name}") for name in ("topic", "partition", "offset"))
    if topic is None or partition is None or offset is None or not (partition.isdecimal() and offset.isdecimal()):
        return None
    return topic, int(partition), int(offset)


def _text(headers: Headers, name: str) -> str | None:
    found = next((value for key, value in headers if key == name), None)
    return None if found is None else found.decode("utf-8", "replace")


def _decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], record: Record) -> T:
    try:
        return decoder.decode(record.value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StateMismatch(
            f"{record.topic}-{record.partition}: the record at offset {record.offset} is none of ours: {error}",
            "only Driftline may write to this topic; start over in a new deployment (kafka.topic_prefix)",
        ) from None
