"""The law over values: what a sound log shows, and that each way to break it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from streams.audit import (
    AlertTrail,
    AuditReport,
    CutLedger,
    Evidence,
    MonitorLedger,
    SummaryNote,
    SummaryNotes,
    judge,
)
from streams.records import Counters, Cut, EffectSettings, Gap, MonitorCut, Range, Restart, Take

EFFECTS = EffectSettings(86_400_000, 3_600_000, 1000, 1000, 10)
TAKE = Take(0, 1, "t", "w")


def cut(sequence: int, **changes: Any) -> Cut:
    """The cut of a partition that reads ten predictions and ten outcomes a checkpoint, of which eight pair."""
    counters = Counters(
        predictions=10 * sequence, outcomes=10 * sequence, joined=8 * sequence, duplicates=sequence, late=sequence,
        dead_outcomes=sequence,
    )  # fmt: skip
    reads = Range(10 * sequence - 10, 10 * sequence)
    return msgspec.structs.replace(
        Cut(0, 1, sequence, reads, reads, 1000 * sequence, counters, sequence, 0, {"m": sequence}, False, 0, EFFECTS),
        **changes,
    )


def counted(sequence: int, **changes: int) -> Cut:
    """A cut with some counters changed."""
    sound = cut(sequence)
    return msgspec.structs.replace(sound, counters=msgspec.structs.replace(sound.counters, **changes))


def note(sequence: int, **changes: Any) -> SummaryNote:
    return replace(SummaryNote(1, 0, 1, 8, 8, 9, b"%d" % sequence), **changes)


def sound_evidence(cuts: int) -> Evidence:
    """What the topics hold beside so many cuts."""
    summaries = SummaryNotes()
    for sequence in range(1, cuts + 1):
        summaries.add("m", sequence, note(sequence))
    pairs = [[10 * at + row, 10 * at + row] for at in range(cuts) for row in range(8)]
    return Evidence(
        records=[10 * cuts, 10 * cuts],
        pairs=np.array(pairs, dtype=np.int64).reshape(-1, 2),
        dead=[set(), {10 * at + 9 for at in range(cuts)}],
        summaries=summaries,
    )


def audited(records: list[Take | Cut | Gap], evidence: Evidence | None = None) -> AuditReport:
    ledger = CutLedger(0)
    for record in records:
        ledger.record(record)
    last = ledger.last.sequence if ledger.last is not None else 0
    return judge([ledger], {0: evidence if evidence is not None else sound_evidence(last)})


def test_a_sound_log_is_conserved() -> None:
    """Cuts that follow each other and topics that bear them out: no violation, and the totals are the last cut's."""
    report = audited([TAKE, cut(1), cut(2), cut(3)])
    assert report.violations == []
    assert report.conserved
    assert report.totals.counters.joined == 24
    assert report.partitions[0].summarised == report.partitions[0].labelled == 24
    assert report.partitions[0].dead_letters == 3


def test_no_cut_yet_is_said_and_is_no_violation() -> None:
    """Before the first cut there is nothing to contradict."""
    report = audited([])
    assert report.conserved
    assert report.notes == ["no partition has a cut yet: has a worker run?"]


def test_a_repeat_is_dropped_as_seen() -> None:
    """A successor publishes the outbox again under its own epoch: same sequence, same contents."""
    report = audited([TAKE, cut(1), cut(2), Take(0, 2, "u", "w"), cut(2, epoch=2), cut(3, epoch=2)])
    # The summary of cut 3 came under epoch 1: it would not count.
    assert report.partitions[0].repeated_cuts == 1
    assert report.partitions[0].cuts == 3
    assert report.partitions[0].epoch == 2


def test_behind_an_accepted_loss_the_law_begins_again_and_the_report_says_so() -> None:
    """Numbers, counters and rows from nothing at the offsets that the take names; what was before is not judged."""
    restart = Restart(50, 40, 9_000, 6, "the state of input partition 0 is lost")
    take = Take(0, 2, "r", "w", restart)

    def behind(sequence: int) -> Cut:
        reads = [Range(start + 10 * sequence - 10, start + 10 * sequence) for start in (50, 40)]
        return cut(sequence, epoch=2, predictions=reads[0], outcomes=reads[1], clock_ms=9_000 + sequence)

    evidence = Evidence(
        records=[20, 20],
        pairs=np.array([[at, at] for at in range(40)] + [[50 + at, 40 + at] for at in (*range(8), *range(10, 18))]),
        dead=[set(), {9, 49, 59}],
        summaries=SummaryNotes(),
    )
    assert evidence.summaries is not None
    for sequence in range(1, 7):
        evidence.summaries.add("m", sequence, note(sequence))
    for sequence in (1, 2):
        evidence.summaries.add("m", sequence, replace(note(sequence), epoch=2, content=b"new"))
    before: list[Take | Cut | Gap] = [TAKE, *(cut(sequence) for sequence in range(1, 7))]
    report = audited([*before, take, behind(1), behind(2)], evidence)
    assert report.violations == []
    (partition,) = report.partitions
    assert (partition.sequence, partition.labelled, partition.dead_letters) == (2, 16, 2)
    assert partition.predictions == Range(50, 70)
    assert any("a loss was accepted at epoch 2" in said and restart.reason in said for said in report.notes)
    elsewhere = msgspec.structs.replace(behind(1), predictions=Range(51, 60))
    for wrong in (behind(2), elsewhere):
        assert any("after the restart" in said for said in audited([*before, take, wrong], evidence).violations)
    zombie = cut(7)
    assert audited([*before, take, zombie, behind(1), behind(2)], evidence).violations == []


def test_a_zombies_cut_behind_a_take_does_not_count() -> None:
    """A cut of a lower epoch behind a take neither counts nor violates, whatever it says."""
    evidence = sound_evidence(2)
    assert evidence.summaries is not None
    evidence.summaries.add("m", 2, note(2, epoch=2))
    zombie = counted(2, predictions=99)
    report = audited([TAKE, cut(1), Take(0, 2, "u", "w"), zombie, cut(2, epoch=2)], evidence)
    assert report.violations == []
    assert report.partitions[0].ignored_cuts == 1


@pytest.mark.parametrize(
    ("tampered", "said"),
    [
        (cut(4), "the cut before it is 2: 3 is missing"),
        (cut(5), "the cut before it is 2: 3 to 4 are missing"),
        (cut(3, predictions=Range(21, 30)), "its predictions begin at offset 21, the cut before it ended at 20"),
        (cut(3, outcomes=Range(19, 30)), "its outcomes begin at offset 19, the cut before it ended at 20"),
        (cut(3, outcomes=Range(20, 19)), "its outcomes end at offset 19, before they begin at 20"),
        (cut(3, clock_ms=1), "its clock steps back from 2000 to 1"),
        (cut(3, pending=2), "30 predictions ≠ 29"),
        (cut(3, waiting=1), "30 outcomes ≠ 31"),
        (counted(3, joined=15, duplicates=12, late=12), "its counter joined falls from 16 to 15"),
        (cut(3, models={"m": 4}), "the summary sequence of model 'm' goes from 2 to 4"),
        (cut(3, partition=1), "belongs to partition 1"),
        (cut(3, epoch=2), "no take before it announces its epoch"),
        (cut(2, clock_ms=2001), "was published before (epoch 1) with other contents"),
    ],
)
def test_a_tampered_cut_is_found(tampered: Cut, said: str) -> None:
    """Each way in which a cut can contradict those before it, or itself, is named."""
    report = audited([TAKE, cut(1), cut(2), tampered])
    assert not report.conserved
    assert any(said in violation for violation in report.violations), report.violations


def _lost_record(evidence: Evidence) -> None:
    evidence.records[0] = 29


def _extra_record(evidence: Evidence) -> None:
    evidence.records[1] = 31


def _lost_pair(evidence: Evidence) -> None:
    assert evidence.pairs is not None
    evidence.pairs = evidence.pairs[1:]


def _outcome_twice(evidence: Evidence) -> None:
    assert evidence.pairs is not None
    evidence.pairs[0, 1] = evidence.pairs[1, 1]


def _corrected_without_correction(evidence: Evidence) -> None:
    assert evidence.pairs is not None
    evidence.pairs = np.vstack([evidence.pairs, [[0, 28]]])


def _lost_dead_letter(evidence: Evidence) -> None:
    assert evidence.dead is not None
    evidence.dead[1].discard(9)


def _extra_dead_letter(evidence: Evidence) -> None:
    assert evidence.dead is not None
    evidence.dead[0].add(3)


def _lost_summary(evidence: Evidence) -> None:
    assert evidence.summaries is not None
    del evidence.summaries.notes["m", 2]


def _summary_of_fewer_pairs(evidence: Evidence) -> None:
    assert evidence.summaries is not None
    evidence.summaries.notes["m", 2] = [note(2, pairs=7, cells=7)]


def _summary_of_fewer_cells(evidence: Evidence) -> None:
    assert evidence.summaries is not None
    evidence.summaries.notes["m", 2] = [note(2, cells=7)]


def _summary_of_fewer_predictions(evidence: Evidence) -> None:
    assert evidence.summaries is not None
    evidence.summaries.notes["m", 2] = [note(2, predictions=8)]


def _summary_twice(evidence: Evidence) -> None:
    assert evidence.summaries is not None
    evidence.summaries.add("m", 2, note(2, content=b"other"))


def _summary_without_its_second_part(evidence: Evidence) -> None:
    assert evidence.summaries is not None
    evidence.summaries.notes["m", 2] = [note(2, parts=2)]


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (_lost_record, "predictions holds 29 records from offset 0 to 30, its cuts count 30"),
        (_extra_record, "outcomes holds 31 records from offset 0 to 30, its cuts count 30"),
        (_lost_pair, "labelled holds 23 predictions, its cuts count 24 joined"),
        (_outcome_twice, "labelled gives one outcome to two predictions"),
        (_corrected_without_correction, "labelled replaces 1 outcomes, its cuts count 0 corrections"),
        (_lost_dead_letter, "dead-letters holds 2 outcomes, its cuts count 3 dead"),
        (_extra_dead_letter, "dead-letters holds 1 predictions, its cuts count 0 dead"),
        (_lost_summary, "cut 2 (epoch 1): summary 2 of model 'm' is missing"),
        (_summary_without_its_second_part, "cut 2 (epoch 1): summary 2 of model 'm' is missing"),
        (_summary_of_fewer_pairs, "its summaries hold 7 pairs, it joined 8"),
        (_summary_of_fewer_cells, "has 8 pairs, but 7 in its cells"),
        (_summary_of_fewer_predictions, "its summaries hold 8 predictions, it took in 9"),
        (_summary_twice, "came twice with other contents"),
    ],
)
def test_topics_that_contradict_the_cuts_are_found(tamper: Callable[[Evidence], None], said: str) -> None:
    """Whatever is lost from, added to or changed in a topic beside the cuts is named."""
    evidence = sound_evidence(3)
    tamper(evidence)
    report = audited([TAKE, cut(1), cut(2), cut(3)], evidence)
    assert len(report.violations) == 1
    assert said in report.violations[0]


def test_what_lies_behind_the_last_cut_does_not_count() -> None:
    """Pairs, dead letters and summaries of the next checkpoint may be there before its cut is."""
    report = audited([TAKE, cut(1), cut(2)], replace_records(sound_evidence(3), 20))
    assert report.violations == []


def replace_records(evidence: Evidence, records: int) -> Evidence:
    evidence.records = [records, records]
    return evidence


def test_the_last_cut_may_wait_for_its_summaries() -> None:
    """A worker that died after the cut leaves its summaries in the outbox: said, but no violation."""
    evidence = sound_evidence(2)
    assert evidence.summaries is not None
    del evidence.summaries.notes["m", 2]
    report = audited([TAKE, cut(1), cut(2)], evidence)
    assert report.conserved
    assert report.partitions[0].unpublished_summaries == 1


def test_a_summary_of_a_lower_epoch_than_its_cut_does_not_count() -> None:
    """A zombie's summary does not stand in for the one that the cut's owner publishes."""
    evidence = sound_evidence(3)
    report = audited([TAKE, cut(1), Take(0, 2, "u", "w"), cut(2, epoch=2), cut(3, epoch=2)], evidence)
    assert "cut 2 (epoch 2): summary 2 of model 'm' is missing" in report.violations[0]


def test_an_early_outcomes_death_may_be_told_before_its_cut() -> None:
    """A dead letter for an outcome taken in long before counts either way until the cut of the killing prediction."""
    evidence = sound_evidence(2)
    assert evidence.dead is not None
    evidence.dead[1].add(5)
    assert not audited([TAKE, cut(1), cut(2)], evidence).conserved
    evidence.displaced[1].add(5)
    assert audited([TAKE, cut(1), cut(2)], evidence).conserved


def test_after_retention_only_what_is_left_is_checked() -> None:
    """Where the first cuts are gone, counting begins at the first one that is there, and the report says so."""
    evidence = sound_evidence(3)
    evidence.records = [10, 10]
    report = audited([cut(2), cut(3)], evidence)
    assert report.violations == []
    assert report.notes == ["partition 0: its first cuts are gone, so only what came later is checked"]


def test_counting_begins_where_the_input_still_reaches() -> None:
    """Inputs that lost their beginning to retention are counted from the first cut whose end they still hold."""
    ledger = CutLedger(0, earliest=(7, 25))
    for record in (TAKE, cut(1), cut(2), cut(3)):
        ledger.record(record)
    evidence = sound_evidence(3)
    evidence.records = [20, 0]
    assert [base and (base.offset, base.count) for base in ledger.base] == [(10, 10), (30, 30)]
    assert judge([ledger], {0: evidence}).violations == []


def test_lag_is_told_and_is_no_violation() -> None:
    """Records behind the last cut are lag."""
    evidence = sound_evidence(1)
    evidence.lag = [4, 5]
    report = audited([TAKE, cut(1)], evidence)
    assert report.conserved
    assert report.lag == {"predictions": 4, "outcomes": 5}


def monitor_cut(sequence: int, **changes: Any) -> MonitorCut:
    reads = Range(10 * sequence - 10, 10 * sequence)
    return msgspec.structs.replace(MonitorCut(0, 1, sequence, reads, 100 * sequence, sequence, 5), **changes)


@pytest.mark.parametrize(
    ("third", "said"),
    [
        (monitor_cut(4), "3 is missing"),
        (monitor_cut(3, summaries=Range(21, 30)), "its summaries begin at offset 21"),
        (monitor_cut(3, watermark_ms=1), "its watermark_ms steps back from 200 to 1"),
        (monitor_cut(3, alert_sequence=1), "its alert_sequence steps back from 2 to 1"),
        (monitor_cut(3, pairs=4), "its pairs steps back from 5 to 4"),
    ],
)
def test_a_tampered_monitor_cut_is_found(third: MonitorCut, said: str) -> None:
    """The monitor's cuts are held to the same rule."""
    ledger = MonitorLedger(0)
    for record in (TAKE, monitor_cut(1), monitor_cut(2), monitor_cut(2), third):
        ledger.record(record)
    report = judge([], {}, [ledger])
    assert len(report.violations) == 1
    assert said in report.violations[0]


def test_a_monitor_cut_that_its_next_owner_did_not_publish_is_missing() -> None:
    """The newest cut is kept with the state: the next owner produces it again, so a hole is a violation."""
    take = Take(0, 2, "u", "w")
    for records, violations in (
        ((TAKE, monitor_cut(1), take, monitor_cut(2, epoch=2), monitor_cut(3, epoch=2)), 0),
        ((TAKE, monitor_cut(1), take, monitor_cut(3, epoch=2)), 1),
    ):
        ledger = MonitorLedger(0)
        for record in records:
            ledger.record(record)
        assert len(judge([], {}, [ledger]).violations) == violations


def test_alerts_are_numbered_without_a_gap() -> None:
    """A repeat is dropped by its id, a gap and a changed repeat are named; compaction excuses the gap alone."""
    trail = AlertTrail()
    trail.add("f/s/1", "f", "s", 1, b"a")
    trail.add("f/s/1", "f", "s", 1, b"a")
    trail.add("f/s/2", "f", "s", 2, b"b")
    assert trail.violations(compacted=False) == []
    assert trail.distinct == 2
    trail.add("f/s/4", "f", "s", 4, b"c")
    assert trail.violations(compacted=False) == ["alert f/s: 3 is missing"]
    assert trail.violations(compacted=True) == []
    trail.add("f/s/4", "f", "s", 4, b"d")
    trail.add("odd", "f", "s", 3, b"e")
    assert trail.violations(compacted=True) == [
        "alert f/s/4 was published twice with other contents",
        "alert f/s: number 3 comes after 4",
    ]
