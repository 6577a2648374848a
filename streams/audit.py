"""The law, checked: do the cuts, and what is in the topics beside them, account for every record exactly once?

Pure: :class:`CutLedger` and :class:`MonitorLedger` fold the records of one partition of a checkpoint topic,
:class:`Evidence` holds what was counted in the other topics, :func:`judge` compares. Every contradiction is one line.
What the cuts do not cover yet is lag, never a violation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from streams.records import Counters, Cut, Gap, MonitorCut, Range, Restart, Take

PREDICTIONS, OUTCOMES = 0, 1
SIDES = ("predictions", "outcomes")
REMEMBERED_CUTS = 64
"""Cuts that a repeat is compared with. A successor repeats one or two."""

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Touched:
    """A cut as far as the summaries must bear it out: what it added, and the summary sequences that tell it."""

    sequence: int
    epoch: int
    joined: int
    fresh_predictions: int
    models: dict[str, int]


@dataclass(frozen=True, slots=True)
class Base:
    """Where counting begins in one input: an offset, and the counter there."""

    offset: int
    count: int


class CutLedger:
    """The valid cuts of one input partition, folded in log order.

    A cut of a lower epoch behind a take does not count. One of a sequence already seen is a repeat and must say the
    same. ``earliest`` are the first offsets that the two inputs still hold: counting begins at the first cut that
    reaches them.
    """

    def __init__(self, partition: int, earliest: tuple[int, int] = (0, 0)) -> None:
        self.partition = partition
        self.last: Cut | None = None
        self.epoch = 0
        self.takes = self.skips = self.cuts = self.repeated = self.ignored = 0
        self.restart: Take | None = None
        """The newest take that began the numbers anew, after an accepted loss: what was before is not judged."""
        self.whole = True
        """Whether the first cut there is the partition's first."""
        self.base: list[Base | None] = [None, None]
        self.start: list[int] = [0, 0]
        self.touched: list[Touched] = []
        self.violations: list[str] = []
        self._earliest = earliest
        self._models: dict[str, int] = {}
        self._remembered: dict[int, Cut] = {}

    def record(self, record: Take | Cut | Gap) -> None:
        """Take in the next record of ``checkpoints``."""
        if isinstance(record, Take):
            self.takes += 1
            if record.restart is not None and record.epoch > self.epoch:
                self._begin_again(record, record.restart)
            self.epoch = max(self.epoch, record.epoch)
        elif isinstance(record, Gap):
            self.skips += 1
        elif record.epoch < self.epoch:
            self.ignored += 1
        elif self.last is not None and record.sequence <= self.last.sequence:
            self._repeat(record)
        else:
            self._count(record)

    def _begin_again(self, take: Take, restart: Restart) -> None:
        self.restart, self.last, self.whole = take, None, True
        self.start = [restart.predictions, restart.outcomes]
        self.base = [None, None]
        self.touched, self._models, self._remembered = [], {}, {}

    def _violated(self, cut: Cut, what: str) -> None:
        self.violations.append(f"partition {self.partition}, cut {cut.sequence} (epoch {cut.epoch}): {what}")

    def _repeat(self, cut: Cut) -> None:
        self.repeated += 1
        first = self._remembered.get(cut.sequence)
        if first is not None and msgspec.structs.replace(cut, epoch=first.epoch) != first:
            self._violated(cut, f"was published before (epoch {first.epoch}) with other contents")

    def _count(self, cut: Cut) -> None:
        self.cuts += 1
        previous = self.last
        if cut.partition != self.partition:
            self._violated(cut, f"belongs to partition {cut.partition}")
        if previous is None:
            self.whole = cut.sequence == 1
            starts = [cut.predictions.start, cut.outcomes.start]
            if self.restart is not None and (not self.whole or starts != self.start):
                self._violated(cut, f"after the restart at offsets {self.start} it begins at {starts}")
            self.start = starts
        else:
            self._follows(previous, cut)
        if self.whole and cut.epoch > self.epoch:
            self._violated(cut, "no take before it announces its epoch")
        self._law(cut)
        for side, read in enumerate((cut.predictions, cut.outcomes)):
            self._begin(side, read, getattr(cut.counters, SIDES[side]))
        self._touch(previous, cut)
        self.epoch = max(self.epoch, cut.epoch)
        self.last = cut
        self._remembered[cut.sequence] = cut
        self._remembered.pop(cut.sequence - REMEMBERED_CUTS, None)

    def _begin(self, side: int, read: Range, count: int) -> None:
        if self.base[side] is not None:
            return
        if self.whole and self.last is None and self._earliest[side] <= read.start:
            self.base[side] = Base(read.start, 0)
        elif self._earliest[side] <= read.end:
            self.base[side] = Base(read.end, count)

    def _follows(self, previous: Cut, cut: Cut) -> None:
        if cut.sequence != previous.sequence + 1:
            self._violated(
                cut, f"the cut before it is {previous.sequence}: {_missing(previous.sequence, cut.sequence)}"
            )
        for name in SIDES:
            before, now = getattr(previous, name), getattr(cut, name)
            if now.start != before.end:
                self._violated(cut, f"its {name} begin at offset {now.start}, the cut before it ended at {before.end}")
        if cut.clock_ms < previous.clock_ms:
            self._violated(cut, f"its clock steps back from {previous.clock_ms} to {cut.clock_ms}")
        if cut.model_events < previous.model_events:
            self._violated(cut, f"its model events step back from offset {previous.model_events} to {cut.model_events}")
        for name in Counters.__struct_fields__:
            before, now = getattr(previous.counters, name), getattr(cut.counters, name)
            if now < before:
                self._violated(cut, f"its counter {name} falls from {before} to {now}")

    def _law(self, cut: Cut) -> None:
        for name, read in zip(SIDES, (cut.predictions, cut.outcomes), strict=True):
            if read.end < read.start:
                self._violated(cut, f"its {name} end at offset {read.end}, before they begin at {read.start}")
        counted = cut.counters
        fates = counted.joined + cut.pending + counted.expired_predictions + counted.duplicates
        fates += counted.dead_predictions
        if counted.predictions != fates:
            self._violated(
                cut,
                f"{counted.predictions} predictions ≠ {fates} = joined {counted.joined} + pending {cut.pending}"
                f" + expired {counted.expired_predictions} + duplicates {counted.duplicates}"
                f" + dead {counted.dead_predictions}",
            )
        fates = counted.joined + cut.waiting + counted.expired_outcomes + counted.corrections + counted.late
        fates += counted.dead_outcomes
        if counted.outcomes != fates:
            self._violated(
                cut,
                f"{counted.outcomes} outcomes ≠ {fates} = joined {counted.joined} + waiting {cut.waiting}"
                f" + expired {counted.expired_outcomes} + corrections {counted.corrections} + late {counted.late}"
                f" + dead {counted.dead_outcomes}",
            )

    def _touch(self, previous: Cut | None, cut: Cut) -> None:
        known = self._models
        grown = {model: sequence for model, sequence in cut.models.items() if sequence != known.get(model)}
        if previous is None and not self.whole:
            known.update(cut.models)
            return  # what it added is unknown
        for model, sequence in sorted(grown.items()):
            before = known.get(model)
            if before is None and not self.whole:
                continue  # its sequences began before the first cut that is still there
            if sequence != (before or 0) + 1:
                self._violated(cut, f"the summary sequence of model {model!r} goes from {before or 0} to {sequence}")
        known.update(cut.models)
        was = previous.counters if previous is not None else Counters()
        joined, fresh = cut.counters.joined - was.joined, _fresh(cut.counters) - _fresh(was)
        if grown or joined or fresh:
            self.touched.append(Touched(cut.sequence, cut.epoch, joined, fresh, grown))


def _fresh(counters: Counters) -> int:
    """Predictions that took part in the join: neither duplicates nor dead."""
    return counters.predictions - counters.duplicates - counters.dead_predictions


def _missing(before: int, now: int) -> str:
    if now - before == 2:
        return f"{before + 1} is missing"
    return f"{before + 1} to {now - 1} are missing"


class MonitorLedger:
    """The valid cuts of one monitor partition, folded in log order by the same rule."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.last: MonitorCut | None = None
        self.epoch = 0
        self.violations: list[str] = []

    def record(self, record: Take | MonitorCut | Gap) -> None:
        """Take in the next record of ``monitor-checkpoints``."""
        if isinstance(record, Take):
            self.epoch = max(self.epoch, record.epoch)
            return
        if isinstance(record, Gap) or record.epoch < self.epoch:
            return
        last = self.last
        if last is not None:
            if record.sequence <= last.sequence:
                return
            self._follows(last, record)
        self.epoch, self.last = max(self.epoch, record.epoch), record

    def _follows(self, last: MonitorCut, cut: MonitorCut) -> None:
        where = f"monitor partition {self.partition}, cut {cut.sequence} (epoch {cut.epoch})"
        if cut.sequence != last.sequence + 1:
            gap = _missing(last.sequence, cut.sequence)
            self.violations.append(f"{where}: the cut before it is {last.sequence}: {gap}")
        elif cut.summaries.start != last.summaries.end:
            self.violations.append(
                f"{where}: its summaries begin at offset {cut.summaries.start}, the cut before it ended at"
                f" {last.summaries.end}"
            )
        for name in ("watermark_ms", "alert_sequence", "pairs"):
            before, now = getattr(last, name), getattr(cut, name)
            if now < before:
                self.violations.append(f"{where}: its {name} steps back from {before} to {now}")


@dataclass(frozen=True, slots=True)
class SummaryNote:
    """What one summary record says, as counts. ``content`` is a hash of everything but the epoch."""

    epoch: int
    part: int
    parts: int
    pairs: int
    cells: int
    predictions: int
    content: bytes


class SummaryNotes:
    """The summaries of one input partition: by (model, sequence), every record of it."""

    def __init__(self) -> None:
        self.notes: dict[tuple[str, int], list[SummaryNote]] = {}

    def add(self, model: str, sequence: int, note: SummaryNote) -> None:
        """Note one record; an exact repeat is nothing new."""
        known = self.notes.setdefault((model, sequence), [])
        if note not in known:
            known.append(note)

    def of(self, model: str, sequence: int, epoch: int) -> dict[int, SummaryNote]:
        """The parts of a summary that count under a cut of ``epoch``: the first of each."""
        parts: dict[int, SummaryNote] = {}
        for note in self.notes.get((model, sequence), ()):
            if note.epoch >= epoch:
                parts.setdefault(note.part, note)
        return parts

    def contradict(self, model: str, sequence: int, epoch: int) -> bool:
        """Whether two records of the same part that both count say different things."""
        counted = [note for note in self.notes.get((model, sequence), ()) if note.epoch >= epoch]
        return len({(note.part, note.content) for note in counted}) > len({note.part for note in counted})


@dataclass(slots=True)
class Evidence:
    """What was counted in the topics for one input partition.

    ``records``: records of each input from the ledger's base to its last cut, None where that was not counted.
    ``pairs``: labelled pairs, one row each: prediction offset, outcome offset. ``dead``: per input, the offsets of
    dead-lettered records; ``displaced`` those among them that a later record of the other input made dead. Each is
    None when its topic no longer reaches back to the first cut. ``lag``: records of each input behind the last cut.
    """

    records: list[int | None] = field(default_factory=lambda: [None, None])
    pairs: Offsets | None = None
    dead: list[set[int]] | None = None
    displaced: list[set[int]] = field(default_factory=lambda: [set(), set()])
    summaries: SummaryNotes | None = None
    lag: list[int] = field(default_factory=lambda: [0, 0])


class PartitionReport(msgspec.Struct):
    """One input partition: the cuts that count, the last of them, and what was counted beside them."""

    partition: int
    cuts: int
    repeated_cuts: int
    ignored_cuts: int
    takes: int
    epoch: int
    sequence: int
    clock_ms: int
    predictions: Range
    outcomes: Range
    counters: Counters
    pending: int
    waiting: int
    counted_predictions: int | None
    counted_outcomes: int | None
    labelled: int | None
    dead_letters: int | None
    summarised: int | None
    unpublished_summaries: int
    lag_predictions: int
    lag_outcomes: int


class Totals(msgspec.Struct):
    """All partitions together."""

    counters: Counters
    pending: int
    waiting: int


class AuditReport(msgspec.Struct):
    """The verdict. ``notes`` say what could not be checked; ``lag`` counts records that no cut covers yet."""

    conserved: bool
    partitions: list[PartitionReport]
    totals: Totals
    violations: list[str]
    notes: list[str]
    lag: dict[str, int]


def judge(
    ledgers: Sequence[CutLedger],
    evidence: Mapping[int, Evidence],
    monitors: Iterable[MonitorLedger] = (),
    others: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> AuditReport:
    """Compare the cuts of every partition with what the topics hold. ``others`` are violations found elsewhere."""
    violations: list[str] = []
    reports: list[PartitionReport] = []
    for ledger in ledgers:
        violations += ledger.violations
        found = evidence.get(ledger.partition, Evidence())
        reports.append(_partition(ledger, found, violations))
    said = list(notes)
    for monitor in monitors:
        violations += monitor.violations
    violations += others
    if not any(ledger.cuts for ledger in ledgers):
        said.append("no partition has a cut yet: has a worker run?")
    for ledger in ledgers:
        if ledger.cuts and not ledger.whole:
            said.append(f"partition {ledger.partition}: its first cuts are gone, so only what came later is checked")
        if ledger.restart is not None and ledger.restart.restart is not None:
            said.append(
                f"partition {ledger.partition}: a loss was accepted at epoch {ledger.restart.epoch}, and only what"
                f" came later is checked ({ledger.restart.restart.reason})"
            )
    totals = Totals(
        Counters(
            **{name: sum(getattr(report.counters, name) for report in reports) for name in Counters.__struct_fields__}
        ),
        sum(report.pending for report in reports),
        sum(report.waiting for report in reports),
    )
    lag = {
        "predictions": sum(report.lag_predictions for report in reports),
        "outcomes": sum(report.lag_outcomes for report in reports),
    }
    return AuditReport(not violations, reports, totals, violations, said, lag)


def _partition(ledger: CutLedger, found: Evidence, violations: list[str]) -> PartitionReport:
    last = ledger.last
    labelled = dead = summarised = None
    unpublished = 0
    if last is not None:
        violations += _records(ledger, last, found)
        if ledger.whole and found.pairs is not None:
            labelled = _labelled(ledger, last, found.pairs, violations)
        if ledger.whole and found.dead is not None:
            dead = _dead(ledger, last, found.dead, found.displaced, violations)
        if found.summaries is not None:
            summarised, unpublished = _summaries(ledger, found.summaries, violations)
    return PartitionReport(
        partition=ledger.partition,
        cuts=ledger.cuts,
        repeated_cuts=ledger.repeated,
        ignored_cuts=ledger.ignored,
        takes=ledger.takes,
        epoch=ledger.epoch,
        sequence=last.sequence if last is not None else 0,
        clock_ms=last.clock_ms if last is not None else 0,
        predictions=Range(ledger.start[PREDICTIONS], last.predictions.end if last is not None else 0),
        outcomes=Range(ledger.start[OUTCOMES], last.outcomes.end if last is not None else 0),
        counters=last.counters if last is not None else Counters(),
        pending=last.pending if last is not None else 0,
        waiting=last.waiting if last is not None else 0,
        counted_predictions=found.records[PREDICTIONS],
        counted_outcomes=found.records[OUTCOMES],
        labelled=labelled,
        dead_letters=dead,
        summarised=summarised,
        unpublished_summaries=unpublished,
        lag_predictions=found.lag[PREDICTIONS],
        lag_outcomes=found.lag[OUTCOMES],
    )


def _records(ledger: CutLedger, last: Cut, found: Evidence) -> Iterable[str]:
    for side, name in enumerate(SIDES):
        base, counted = ledger.base[side], found.records[side]
        if base is None or counted is None:
            continue
        claimed = getattr(last.counters, name) - base.count
        if counted != claimed:
            end = getattr(last, name).end
            yield (
                f"partition {ledger.partition}: {name} holds {counted} records from offset {base.offset} to {end},"
                f" its cuts count {claimed}"
            )


def _labelled(ledger: CutLedger, last: Cut, pairs: Offsets, violations: list[str]) -> int:
    """Pairs that the last cut covers: their prediction and outcome both lie before its end."""
    covered = pairs[(pairs[:, 0] < last.predictions.end) & (pairs[:, 1] < last.outcomes.end)]
    covered = covered[(covered[:, 0] >= ledger.start[PREDICTIONS]) & (covered[:, 1] >= ledger.start[OUTCOMES])]
    distinct = np.unique(covered, axis=0)
    joined = len(np.unique(distinct[:, 0]))
    where = f"partition {ledger.partition}: labelled"
    if joined != last.counters.joined:
        violations.append(f"{where} holds {joined} predictions, its cuts count {last.counters.joined} joined")
    if len(np.unique(distinct[:, 1])) != len(distinct):
        violations.append(f"{where} gives one outcome to two predictions")
    if len(distinct) - joined > last.counters.corrections:
        violations.append(
            f"{where} replaces {len(distinct) - joined} outcomes,"
            f" its cuts count {last.counters.corrections} corrections"
        )
    return joined


def _dead(
    ledger: CutLedger, last: Cut, dead: Sequence[set[int]], displaced: Sequence[set[int]], violations: list[str]
) -> int:
    """Dead letters before the last cut's end, distinct by the record they came from.

    An outcome that a prediction behind the last cut made dead may be announced before its own cut comes.
    """
    total = 0
    for side, name in enumerate(SIDES):
        end = getattr(last, name).end
        found = {offset for offset in dead[side] if ledger.start[side] <= offset < end}
        early = {offset for offset in displaced[side] if offset < end} & found
        claimed = getattr(last.counters, f"dead_{name}")
        if not len(found) - len(early) <= claimed <= len(found):
            violations.append(
                f"partition {ledger.partition}: dead-letters holds {len(found)} {name}, its cuts count {claimed} dead"
            )
        total += len(found)
    return total


def _summaries(ledger: CutLedger, notes: SummaryNotes, violations: list[str]) -> tuple[int, int]:
    """Hold each cut against its summaries → pairs summarised, summaries of the last cut not published yet.

    A worker publishes the next cut only when all summaries of this one are acknowledged, so that only the last cut
    may still lack some.
    """
    summarised = unpublished = 0
    oldest: dict[str, int] = {}
    for model, sequence in notes.notes:
        oldest[model] = min(sequence, oldest.get(model, sequence))
    last_sequence = ledger.last.sequence if ledger.last is not None else 0
    for cut in ledger.touched:
        where = f"partition {ledger.partition}, cut {cut.sequence} (epoch {cut.epoch})"
        pairs = predictions = 0
        incomplete = False
        for model, sequence in sorted(cut.models.items()):
            parts = notes.of(model, sequence, cut.epoch)
            if not parts or len(parts) < next(iter(parts.values())).parts:
                incomplete = True
                if cut.sequence == last_sequence:
                    unpublished += 1
                elif ledger.whole or sequence >= oldest.get(model, 0):
                    violations.append(f"{where}: summary {sequence} of model {model!r} is missing")
                continue
            if notes.contradict(model, sequence, cut.epoch):
                violations.append(f"{where}: summary {sequence} of model {model!r} came twice with other contents")
            told, cells = (sum(getattr(part, name) for part in parts.values()) for name in ("pairs", "cells"))
            if told != cells:
                violations.append(
                    f"{where}: summary {sequence} of model {model!r} has {told} pairs, but {cells} in its cells"
                )
            pairs += told
            predictions += sum(part.predictions for part in parts.values())
        summarised += pairs
        if incomplete:
            continue
        if pairs != cut.joined:
            violations.append(f"{where}: its summaries hold {pairs} pairs, it joined {cut.joined}")
        if predictions != cut.fresh_predictions:
            violations.append(
                f"{where}: its summaries hold {predictions} predictions, it took in {cut.fresh_predictions}"
            )
    return summarised, unpublished


class AlertTrail:
    """The alerts in log order: per episode no number may be missing, and a repeat must say the same.

    ``compacted``: the broker has removed superseded alerts, so that a missing number proves nothing.
    """

    def __init__(self) -> None:
        self.distinct = 0
        self._contents: dict[str, bytes] = {}
        self._last: dict[tuple[str, str], int] = {}
        self._gaps: list[str] = []
        self._violations: list[str] = []

    def add(self, ce_id: str, fingerprint: str, starts_at: str, sequence: int, content: bytes) -> None:
        """Take in the next alert; ``content`` is its value or a hash of it."""
        known = self._contents.get(ce_id)
        if known is not None:
            if known != content:
                self._violations.append(f"alert {ce_id} was published twice with other contents")
            return
        self._contents[ce_id] = content
        self.distinct += 1
        episode = (fingerprint, starts_at)
        last = self._last.get(episode, 0)
        if sequence <= last:
            self._violations.append(f"alert {fingerprint}/{starts_at}: number {sequence} comes after {last}")
        elif sequence != last + 1:
            self._gaps.append(f"alert {fingerprint}/{starts_at}: {_missing(last, sequence)}")
        self._last[episode] = max(last, sequence)

    def violations(self, *, compacted: bool) -> list[str]:
        """What contradicts itself."""
        return self._violations if compacted else self._violations + self._gaps
