"""One version's errors: what it learns, what it keeps, and what an older release left."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from detectors.baseline import Baseline, Metric
from detectors.dump import FIRST_DAY_S
from detectors.four_rates import ACTUAL, OTHER, PREDICTED, RATES, UNKNOWN, Codes
from detectors.registry import make_detector
from detectors.snapshot import SnapshotError, decode, seal, unseal
from streams.alerts import Evidence
from streams.marks import Mark
from streams.order import Errors
from streams.settings import MonitorSettings
from streams.version_watch import FORMAT, VersionWatch

START_S = 1_700_000_000
SETTINGS = MonitorSettings(baseline_outcomes=2_000)
REGISTERED = Baseline(5_000, "accuracy", 0.9, 0.0042)


def errors(values: np.ndarray, from_s: int = START_S, per_s: float = 10) -> Errors:
    """So many outcomes a second."""
    n = len(values)
    at = np.arange(n)
    return Errors(from_s + (at // per_s).astype(np.int64), np.zeros(n, dtype=np.int64), at, values.astype(np.float64))


def bernoulli(rate: float, n: int, seed: int = 1) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < rate).astype(np.float64)


def coded(codes: Codes, from_s: int = START_S, per_s: float = 10) -> Errors:
    """The same of a binary model's outcomes."""
    wrong = (codes == ACTUAL) | (codes == PREDICTED)
    return replace(errors(wrong.astype(np.float64), from_s, per_s), codes=codes)


def classified(recall: float, n: int, seed: int = 1, prevalence: float = 0.05) -> Codes:
    """Of a class that one in twenty has; one in a hundred of the others is predicted to."""
    rng = np.random.default_rng(seed)
    actual = rng.random(n) < prevalence
    predicted = np.where(actual, rng.random(n) < recall, rng.random(n) < 0.01)
    codes: Codes = (ACTUAL * actual + PREDICTED * predicted).astype(np.uint8)
    return codes


def later(n: int) -> int:
    return START_S + n // 10


def require_same_in_pieces(
    stream: Errors, settings: MonitorSettings, rng: np.random.Generator, a_second: int = 10
) -> tuple[VersionWatch, list[Evidence]]:
    """All is found alike in whole seconds at a time, with restarts between → who saw the whole, and what it found."""
    whole = VersionWatch("accuracy", settings)
    expected = whole.feed(stream)
    pieces, found, start = VersionWatch("accuracy", settings), [], 0
    while start < len(stream):
        end = min(len(stream), start + a_second * int(rng.integers(1, 600 // a_second)))
        found += pieces.feed(stream.slice(start, end))
        start = end
        if rng.random() < 0.2:
            pieces = VersionWatch.restored(pieces.snapshot(), settings)
    assert found == expected
    assert pieces.snapshot() == whole.snapshot()
    return whole, expected


def test_a_learnt_baseline_is_the_reference_with_how_errors_cluster() -> None:
    """Errors that come in runs have a dispersion far above 1, which a rate alone would not tell."""
    rng = np.random.default_rng(3)
    clustered = np.repeat(rng.random(200) < 0.1, 10).astype(np.float64)
    watch = VersionWatch("accuracy", SETTINGS)
    assert watch.reference is None
    watch.feed(errors(clustered))
    assert watch.missing == 0
    assert watch.reference is not None
    assert watch.reference.spread.dispersion > 3.0
    alike = VersionWatch("accuracy", SETTINGS)
    alike.feed(errors(bernoulli(0.1, 2_000)))
    assert alike.reference is not None
    assert alike.reference.spread.dispersion < 2.0


def test_a_learnt_regression_is_watched_in_its_own_unit() -> None:
    """The scale comes from the baseline, and so does what is acceptable: about the mean absolute error."""
    rng = np.random.default_rng(5)
    watch = VersionWatch("mae", SETTINGS)
    assert watch.feed(errors(rng.laplace(0.0, 40.0, 6_000))) == []
    assert watch.pagers is not None
    level = watch.pagers.level
    assert level is not None
    assert 38.0 < level < 48.0
    found = watch.feed(errors(rng.laplace(0.0, 80.0, 1_000), later(6_000)))
    assert found[0].detector == "e_detector"
    assert found[0].metric == "mae"


def test_a_champion_that_returns_keeps_what_was_learnt() -> None:
    """The detectors start afresh against the old reference: what is bad now is found at once."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(errors(bernoulli(0.05, 3_000)))
    before = watch.reference
    watch.start_afresh()
    assert watch.pagers is None
    assert watch.reference == before
    found = watch.feed(errors(bernoulli(0.5, 300), later(3_000)))
    assert found[0].detector == "e_detector"
    assert found[0].outcomes_since_change < 100


def test_another_registered_baseline_is_another_reference() -> None:
    """Said late or anew, it is what counts from then on; said again it changes nothing."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(errors(bernoulli(0.3, 3_000)))
    learnt = watch.pagers
    watch.register(None)
    assert watch.pagers is learnt
    watch.register(REGISTERED)
    assert watch.reference is not None
    assert watch.reference.rate == pytest.approx(0.1, abs=1e-3)
    assert [each.detector for each in watch.feed(errors(bernoulli(0.3, 500), later(3_000)))] == ["e_detector"]
    known = watch.pagers
    watch.register(REGISTERED)
    assert watch.pagers is known


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_batches_and_restarts_make_no_difference(metric: Metric) -> None:
    """Whole seconds in any batches, stored and restored in between, give the same evidence and the same state."""
    rng = np.random.default_rng(7)
    values = np.concatenate((bernoulli(0.1, 5_000), bernoulli(0.4, 1_000)))
    values = values if metric == "accuracy" else rng.laplace(0.0, 1.0 + 5.0 * values)
    settings = SETTINGS.model_copy(update={"detectors": ["e_detector", "page_hinkley"], "evidence": ["adwin"]})
    stream = errors(values)
    whole = VersionWatch(metric, settings)
    expected = whole.feed(stream)
    assert {"e_detector"} < {each.detector for each in expected}
    pieces = VersionWatch(metric, settings)
    found = []
    start = 0
    while start < len(stream):
        end = min(len(stream), start + 10 * int(rng.integers(1, 60)))
        found += pieces.feed(stream.slice(start, end))
        start = end
        if rng.random() < 0.2:
            pieces = VersionWatch.restored(pieces.snapshot(), settings)
    assert found == expected
    assert pieces.snapshot() == whole.snapshot()


def test_a_state_of_format_1_is_taken_over() -> None:
    """Its detectors go on beside, its baseline is the reference, and its marks give the rate of outcomes."""
    adwin = make_detector("adwin")
    adwin.update_many(bernoulli(0.1, 1_000))
    old = {
        "metric": "accuracy",
        "count": 9_000,
        "learner": seal(1, {"metric": "accuracy", "required": 8_000, "n": 8_000, "total": 800.0, "squares": 800.0}),
        "scale": None,
        "detectors": {adwin.structure: adwin.snapshot()},
        "detections": {"adwin": 3},
        "marks": [Mark(1, START_S, {0: 7}), Mark(9_000, START_S + 899, {0: 9_000})],
        "registered": None,
    }
    watch = VersionWatch.restored(seal(1, old), SETTINGS)
    assert watch.baseline is not None
    assert watch.baseline.value == 0.9
    assert watch.outcomes_per_s == pytest.approx(10.0, rel=0.01)
    assert watch.detections == {"adwin": 3}
    assert adwin.snapshot() in decode(unseal(watch.snapshot(), FORMAT)[1], dict)["detectors"].values()
    found = watch.feed(errors(bernoulli(0.6, 400), START_S + 900))
    assert found[0].detector == "e_detector"
    assert watch.count == 9_400


def test_a_state_of_a_newer_release_is_refused() -> None:
    """Nobody can know what it says."""
    with pytest.raises(SnapshotError, match="upgrade"):
        VersionWatch.restored(seal(FORMAT + 1, {}), SETTINGS)


def rates_of(watch: VersionWatch) -> dict[str, float | None]:
    """The run length of each rate that is watched."""
    return {each.rate: each.threshold for each in watch.detecting.rates}


def test_a_fall_of_recall_is_evidence_of_its_own() -> None:
    """It says the rate, what it was and is, since when, and how many positives that took."""
    watch = VersionWatch("accuracy", SETTINGS)
    assert watch.feed(coded(classified(0.8, 30_000))) == []
    found = watch.feed(coded(classified(0.3, 2_000, 2), later(30_000)))
    fell = next(each for each in found if each.stream == "recall")
    assert (fell.detector, fell.metric, fell.of_rate) == ("e_detector", "recall", True)
    assert fell.before == pytest.approx(0.2, abs=0.03)
    assert fell.after == pytest.approx(0.7, abs=0.15)
    assert later(30_000) - 5 <= fell.change_s <= later(30_000) + 40
    assert fell.change_offsets[0] >= 29_900
    assert fell.outcomes_since_change < 60
    assert fell.outcomes_seen == 31_000, "when a thousand were gathered"
    assert fell.detected_s == later(31_000) - 1
    assert fell.false_alarms_per_week == SETTINGS.false_alarms_per_week / 8


def test_the_rates_of_a_binary_model_have_half_of_the_budget() -> None:
    """The error rate's detector has the other half; without codes, or without rates to watch, it has all of it."""
    for settings, stream, share in (
        (SETTINGS, coded(classified(0.8, 4_000)), 0.5),
        (SETTINGS, errors(bernoulli(0.1, 4_000)), 1.0),
        (SETTINGS.model_copy(update={"rates": []}), coded(classified(0.8, 4_000)), 1.0),
        (SETTINGS.model_copy(update={"detectors": []}), coded(classified(0.8, 4_000)), 0.5),
    ):
        watch = VersionWatch("accuracy", settings)
        watch.feed(stream)
        assert watch.pagers is not None
        paging = bool(settings.detectors)
        assert [each.false_alarms_a_week for each in watch.pagers.allotted] == [0.25 * share] * paging
        assert set(rates_of(watch)) == (set(RATES) if share == 0.5 and paging else set())


def test_a_third_label_ends_the_rates() -> None:
    """Two classes that were only assumed: from the second in which another label comes the whole budget is back."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(coded(classified(0.8, 10_000)))
    assert rates_of(watch)
    codes = classified(0.8, 1_000, 2)
    codes[500] = OTHER
    watch.feed(coded(codes, later(10_000)))
    assert rates_of(watch) == {}
    assert watch.pagers is not None
    assert watch.pagers.allotted[0].false_alarms_a_week == 0.25
    watch.feed(coded(classified(0.8, 1_000, 3), later(11_000)))
    assert rates_of(watch) == {}


def test_another_positive_class_is_other_rates() -> None:
    """They are learnt anew; the same one, said again, changes nothing."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.name_positive("1")
    watch.feed(coded(classified(0.8, 30_000)))
    before = rates_of(watch)
    assert before["recall"] is not None
    watch.name_positive("1")
    assert rates_of(watch) == before
    watch.name_positive("fraud")
    assert rates_of(watch) == {}
    watch.feed(coded(classified(0.8, 100), later(30_000)))
    assert set(rates_of(watch).values()) == {None}


def test_what_is_gathered_is_looked_at_when_the_minute_ends() -> None:
    """A slow model's recall need not wait for a thousand outcomes; what is found is dated when it was looked at."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(coded(classified(0.8, 30_000)))
    found = watch.feed(coded(classified(0.0, 900, 2), later(30_000)))
    assert {each.stream for each in found} <= {"errors"}
    again = VersionWatch.restored(watch.snapshot(), SETTINGS)
    looked = watch.look(later(31_000))
    assert looked[0].stream == "recall"
    assert (looked[0].detected_s, looked[0].outcomes_seen, looked[0].detected_offset) == (later(31_000), 30_900, 899)
    assert again.look(later(31_000)) == looked
    assert watch.look(later(32_000)) == []


@pytest.mark.parametrize("mixed", [False, True])
def test_rates_are_the_same_in_any_batches_and_over_restarts(mixed: bool) -> None:
    """Also where codes begin within a batch, are missing for a while, and where a third label ends them."""
    rng = np.random.default_rng(11)
    codes = np.concatenate((classified(0.9, 12_000, 1, 0.2), classified(0.5, 1_500, 2, 0.2)))
    codes[:733], codes[3_003:3_111] = UNKNOWN, UNKNOWN
    if mixed:
        codes[13_277] = OTHER
    settings = SETTINGS.model_copy(update={"evidence": ["adwin"]})
    stream = coded(codes)
    _, found = require_same_in_pieces(stream, settings, rng)
    assert {"recall", "errors"} <= {each.stream for each in found}, "a fall of recall, and of all outcomes"


def test_a_champion_that_returns_keeps_its_rates() -> None:
    """What they were is known; what they saw is forgotten."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(coded(classified(0.8, 30_000)))
    watch.start_afresh()
    recall = watch.detecting.rates[0]
    assert recall.normal is not None
    assert recall.threshold is None
    found = watch.feed(coded(classified(0.3, 2_000, 2), later(30_000)))
    assert "recall" in {each.stream for each in found}


def test_a_state_of_format_2_begins_to_learn_its_rates() -> None:
    """It goes on with what it has, and the error rate keeps its detector."""
    before = VersionWatch("accuracy", SETTINGS)
    stream = coded(classified(0.8, 30_000))
    before.feed(replace(stream, codes=None))
    fields = decode(unseal(before.snapshot(), FORMAT)[1], dict)
    for name in ("binary", "last"):
        del fields[name]
    watch = VersionWatch.restored(seal(2, fields), SETTINGS)
    assert rates_of(watch) == {}
    assert watch.pagers is not None
    assert before.pagers is not None
    assert watch.pagers.snapshot() == before.pagers.snapshot()
    watch.feed(coded(classified(0.8, 3_000, 2), later(30_000)))
    assert watch.pagers.allotted[0].false_alarms_a_week == 0.125
    known = {each.rate: each.normal is not None for each in watch.detecting.rates}
    assert known == {"recall": False, "specificity": True, "precision": False, "npv": True}


def test_a_change_is_placed_alike_in_batches_of_any_length() -> None:
    """Seconds that are remembered sparsely later were all there when the drift was found."""
    values = np.concatenate((bernoulli(0.05, 9_000), bernoulli(0.12, 1_500), bernoulli(0.05, 9_000)))
    whole = VersionWatch("accuracy", SETTINGS).feed(errors(values))
    watch, pieces = VersionWatch("accuracy", SETTINGS), []
    stream = errors(values)
    for start in range(0, len(stream), 10):
        pieces += watch.feed(stream.slice(start, start + 10))
    assert whole
    assert pieces == whole


DAY = SETTINGS.model_copy(update={"baseline_hours": 0.25, "false_alarms_per_week": 60.0, "evidence": []})
"""A quarter of an hour stands for the day."""


def dumps(days: int, seed: int = 1) -> Errors:
    """Of each 9,000 outcomes, which are a quarter of an hour, the last 900 are wrong three times as often."""
    rates = np.where(np.arange(9_000 * days) % 9_000 < 8_100, 0.05, 0.15)
    return errors((np.random.default_rng(seed).random(len(rates)) < rates).astype(np.float64))


def test_a_baseline_that_covers_a_day_knows_its_dumps() -> None:
    """With the first outcomes only, the first dump is a drift; with a day it is how things are."""
    assert VersionWatch("accuracy", DAY.model_copy(update={"baseline_hours": 0.0})).feed(dumps(6))
    watch = VersionWatch("accuracy", DAY)
    assert watch.feed(dumps(6)) == []
    assert watch.pagers is not None
    assert watch.pagers.reference_outcomes == 9_000
    assert watch.baseline is not None
    assert watch.baseline.n == 2_000
    found = watch.feed(errors(bernoulli(0.5, 900), later(54_000)))
    assert found[0].detector == "e_detector"


def test_rules_have_a_baseline_before_detectors_watch() -> None:
    """And it is said until when they learn; a registered version does not wait."""
    watch = VersionWatch("accuracy", DAY)
    watch.feed(dumps(1).slice(0, 5_000))
    assert watch.baseline is not None
    assert watch.pagers is None
    assert (watch.detecting.missing, watch.detecting.until_s) == (0, later(9_000))
    assert {each.normal for each in watch.detecting.rates} <= {None}
    registered = VersionWatch("accuracy", DAY)
    registered.register(REGISTERED)
    registered.feed(dumps(1).slice(0, 5_000))
    assert registered.pagers is not None


def test_rates_learn_for_a_day_too() -> None:
    """Negatives, of which there are enough at once, wait for it."""
    watch = VersionWatch("accuracy", DAY)
    watch.feed(coded(classified(0.8, 8_990)))
    assert {each.normal for each in watch.detecting.rates} == {None}
    watch.feed(coded(classified(0.8, 3_000, 2), later(8_990)))
    known = {each.rate: each.normal.outcomes for each in watch.detecting.rates if each.normal is not None}
    assert known["specificity"] >= 8_000


def test_a_day_of_learning_is_the_same_in_any_batches_and_over_restarts() -> None:
    """Its end is a second of the stream."""
    rng = np.random.default_rng(13)
    codes = np.concatenate((classified(0.9, 11_000, 1, 0.2), classified(0.4, 3_000, 2, 0.2)))
    stream = coded(codes)
    _, found = require_same_in_pieces(stream, DAY, rng)
    assert {"recall", "errors"} <= {each.stream for each in found}, "a fall of recall, and of all outcomes"


def test_outcomes_that_come_all_at_once_in_the_first_day_make_a_day_of_learning() -> None:
    """What detectors had seen of the day is part of the reference; they watch again when it is over, and it is said."""
    settings = SETTINGS.model_copy(update={"evidence": []})
    watch = VersionWatch("accuracy", settings)
    watch.feed(errors(bernoulli(0.05, 4_000), per_s=0.1))
    assert watch.pagers is not None
    assert watch.pagers.reference_outcomes == 2_000
    watch.learn_dumps(START_S + 40_000)
    detecting = watch.detecting
    assert (detecting.normal, detecting.at_once, detecting.until_s) == (None, True, START_S + FIRST_DAY_S)
    assert watch.feed(errors(bernoulli(0.15, 900), START_S + 40_000, per_s=30)) == []
    assert watch.feed(errors(bernoulli(0.05, 6_000), START_S + 40_030, per_s=0.1)) == []
    assert watch.pagers is not None
    assert watch.pagers.reference_outcomes == 9_500
    assert not watch.detecting.at_once
    assert watch.feed(errors(bernoulli(0.15, 900, 2), START_S + 101_000, per_s=30)) == [], "it is normal now"
    assert watch.feed(errors(bernoulli(0.5, 500), START_S + 101_030))


def test_after_the_first_day_how_outcomes_come_is_known() -> None:
    """A dump on the second day changes nothing, nor does another on the first."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(errors(bernoulli(0.05, 9_100), per_s=0.1))
    before = watch.snapshot()
    watch.learn_dumps(START_S + FIRST_DAY_S + 60)
    assert watch.snapshot() == before
    early = VersionWatch("accuracy", SETTINGS)
    early.learn_dumps(START_S)
    early.feed(errors(bernoulli(0.05, 3_000), per_s=1))
    early.learn_dumps(START_S + 3_000)
    before = early.snapshot()
    early.learn_dumps(START_S + 3_060)
    assert early.snapshot() == before


def test_a_registered_version_is_watched_on_the_first_day_and_learns_from_it_how_its_errors_move() -> None:
    """What the dump holds is dropped, what comes behind it is told; a baseline says nothing of rates, which learn."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.register(REGISTERED)
    watch.feed(coded(classified(0.8, 9_000), per_s=1))
    watch.learn_dumps(START_S + 9_000)
    assert {each.normal for each in watch.detecting.rates} == {None}
    assert watch.pagers is None, "they begin anew"
    [found] = watch.feed(errors(bernoulli(0.5, 200), START_S + 9_000))[:1]
    assert watch.drops(msgspec.structs.replace(found, stream="recall"))
    assert watch.pagers is not None, "a rate's own detector is another"
    assert watch.drops(found)
    assert watch.pagers is None
    late = msgspec.structs.replace(found, detected_s=START_S + FIRST_DAY_S + 1)
    watch.feed(coded(classified(0.8, 90_000, 2), START_S + 9_020, per_s=1))
    assert not watch.drops(late)
    known = {each.rate: each.normal.outcomes for each in watch.detecting.rates if each.normal is not None}
    assert known["specificity"] > 80_000


def nightly(days: int) -> Errors:
    """An error rate of .1 over all, and .2 in the 1,000 outcomes at the end of each 9,000, which last 25 hours."""
    rng = np.random.default_rng(23)
    day = [np.r_[rng.random(8_000) < 0.0875, rng.random(1_000) < 0.2] for _ in range(days)]
    return errors(np.concatenate(day).astype(np.float64), per_s=0.1)


def test_a_registered_version_expects_what_its_first_day_had_all_at_once() -> None:
    """Without that its second night is a drift, and twice the errors of the day are one still."""
    days = nightly(4)
    settings = SETTINGS.model_copy(update={"evidence": []})
    told, untold = VersionWatch("accuracy", settings), VersionWatch("accuracy", settings)
    for watch, learns in ((told, True), (untold, False)):
        watch.register(REGISTERED)
        watch.feed(days.slice(0, 8_000))
        if learns:
            watch.learn_dumps(START_S + 79_999)
        held = watch.feed(days.slice(8_000, 9_000))
        assert held
        if learns:
            assert watch.drops(held[0])
    assert untold.feed(days.slice(9_000, 36_000))
    assert told.feed(days.slice(9_000, 36_000)) == []
    normal = told.detecting.normal
    assert normal is not None
    assert normal.outcomes == REGISTERED.n
    assert normal.wander > 0.02
    restored = VersionWatch.restored(told.snapshot(), settings)
    assert restored.detecting.normal == normal, "after a restart too"
    restored.start_afresh()
    worse = errors(bernoulli(0.35, 500), START_S + 400_000)
    assert restored.feed(worse)
    assert restored.detecting.normal == normal, "and for detectors that begin anew"
    assert told.feed(worse)


def test_a_day_learnt_for_its_dumps_is_the_same_in_any_batches_and_over_restarts() -> None:
    """It begins between two minutes of the stream, however that is read."""
    rng = np.random.default_rng(17)
    first, rest = (
        coded(classified(0.9, 6_000, 1, 0.2), per_s=1),
        coded(classified(0.9, 85_000, 2, 0.2), START_S + 6_000, 1),
    )
    fallen = coded(classified(0.4, 4_000, 3, 0.2), START_S + 91_000)
    whole = VersionWatch("accuracy", SETTINGS)
    pieces = VersionWatch("accuracy", SETTINGS)
    expected, found = [], []
    for stream in (first, rest, fallen):
        expected += whole.feed(stream)
        start = 0
        while start < len(stream):
            end = min(len(stream), start + 10 * int(rng.integers(1, 500)))
            found += pieces.feed(stream.slice(start, end))
            start = end
            if rng.random() < 0.2:
                pieces = VersionWatch.restored(pieces.snapshot(), SETTINGS)
        for each in (whole, pieces):
            each.learn_dumps(START_S + 6_000)
    assert {"recall", "errors"} <= {each.stream for each in expected}
    assert found == expected
    assert pieces.snapshot() == whole.snapshot()


def test_a_state_of_format_4_knows_nothing_of_a_first_day() -> None:
    """It goes on; a day that is learnt begins with what comes now."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(errors(bernoulli(0.05, 3_000), per_s=1))
    _, payload = unseal(watch.snapshot(), FORMAT)
    old = decode(payload, dict)
    del old["day"], old["dumps_until_s"]
    restored = VersionWatch.restored(seal(4, old), SETTINGS)
    assert restored.pagers is not None
    assert restored.learns_until_s == 0
    restored.learn_dumps(START_S + 3_000)
    assert restored.learns_until_s == START_S + FIRST_DAY_S


HOURLY = SETTINGS.model_copy(update={"by_hour": "day", "false_alarms_per_week": 0.7, "evidence": []})
A_DAY = 8_640
"""Outcomes, one in ten seconds."""


def by_hour(days: float, size: float = 0.6, seed: int = 1, rate: float = 0.1, from_s: int = START_S) -> Errors:
    """Errors that swing so much over a day."""
    n = int(A_DAY * days)
    seconds = from_s + 10 * np.arange(n)
    rates = rate * (1.0 + size * np.sin(2.0 * np.pi * seconds / 86_400))
    values = (np.random.default_rng(seed).random(n) < rates).astype(np.float64)
    return Errors(seconds.astype(np.int64), np.zeros(n, dtype=np.int64), np.arange(n), values)


def joined(*parts: Errors) -> Errors:
    """One behind the other."""
    n = sum(len(each) for each in parts)
    seconds, values = (np.concatenate([getattr(each, of) for each in parts]) for of in ("seconds", "errors"))
    return Errors(seconds, np.zeros(n, dtype=np.int64), np.arange(n), values)


def test_a_swing_by_the_hour_is_learnt_and_a_drift_on_top_is_found() -> None:
    """The reference is the first day; two are learnt from, and the third is foretold. Then half as much again is news
    at any hour, where a detector that does not know the hours accepts twice as much.
    """
    plain = VersionWatch("accuracy", HOURLY.model_copy(update={"by_hour": "", "baseline_hours": 24}))
    watch = VersionWatch("accuracy", HOURLY)
    assert watch.feed(by_hour(0.9)) == []
    assert (watch.pagers, watch.learns_until_s) == (None, START_S + 86_400)
    for each in (plain, watch):
        each.feed(by_hour(6.3, from_s=START_S + 77_760 if each is watch else START_S, seed=2))
        assert each.pagers is not None
    told = watch.detecting.hours
    assert told is not None
    assert told.on
    assert told.cycles == 7
    assert 0.3 < told.best < 0.6 < 1.4 < told.worst < 1.8
    assert 15 <= told.best_hour <= 20
    assert 3 <= told.worst_hour <= 8
    assert watch.pagers is not None
    assert plain.pagers is not None
    assert (watch.pagers.level or 1.0) < 0.13
    assert (plain.pagers.level or 0.0) > 0.2
    assert plain.detecting.hours is None
    for hour in (0, 6, 18):
        drifted = VersionWatch.restored(watch.snapshot(), HOURLY)
        quiet_s = drifted.last_s + 10
        at_s = quiet_s + (hour * 3_600 - quiet_s) % 86_400
        assert drifted.feed(by_hour((at_s - quiet_s) / 86_400, from_s=quiet_s, seed=3)) == []
        found = drifted.feed(by_hour(0.3, rate=0.16, from_s=at_s, seed=4))
        assert found
        assert found[0].by_hour
        assert 0.12 < found[0].after < 0.25, "as it is in an average hour, by chance more in the first outcomes"


def test_hours_make_no_difference_to_batches_and_restarts() -> None:
    """In whole seconds at a time, restored in between, a profile begins at the same outcome, and all ends alike."""
    rng = np.random.default_rng(17)
    stream = joined(by_hour(4.5), by_hour(0.7, rate=0.25, from_s=START_S + 388_800, seed=2))
    settings = HOURLY.model_copy(update={"detectors": ["e_detector", "page_hinkley"], "evidence": ["adwin"]})
    whole, expected = require_same_in_pieces(stream, settings, rng, a_second=1)
    assert whole.detecting.hours is not None
    assert whole.detecting.hours.on
    assert "e_detector" in {each.detector for each in expected}


def test_a_drift_is_not_learnt_into_the_hours() -> None:
    """A day in which errors double at noon and stay so, and the days until it is mended, are not among those known."""
    watch = VersionWatch("accuracy", HOURLY)
    watch.feed(by_hour(5))
    before = watch.detecting.hours
    assert before is not None
    assert before.on
    assert watch.feed(by_hour(1.6, rate=0.25, from_s=START_S + 5 * 86_400 + 43_200, seed=2))
    watch.feed(by_hour(0.8, from_s=START_S + 7 * 86_400 + 8_640, seed=3))
    during = watch.detecting.hours
    assert during is not None
    assert (during.cycles, during.best, during.worst) == (before.cycles, before.best, before.worst)
    watch.feed(by_hour(2.5, from_s=START_S + 8 * 86_400, seed=4))
    after = watch.detecting.hours
    assert after is not None
    assert after.cycles == before.cycles + 2


def test_a_state_of_format_5_begins_to_learn_its_hours() -> None:
    """It goes on with its detectors until they are known."""
    watch = VersionWatch("accuracy", HOURLY.model_copy(update={"by_hour": ""}))
    watch.feed(by_hour(2, size=0.3))
    _, payload = unseal(watch.snapshot(), FORMAT)
    old = decode(payload, dict)
    del old["hours"]
    restored = VersionWatch.restored(seal(5, old), HOURLY)
    assert restored.pagers is not None
    assert watch.pagers is not None
    assert restored.pagers.snapshot() == watch.pagers.snapshot()
    restored.feed(by_hour(3.5, from_s=START_S + 2 * 86_400, seed=2))
    assert restored.detecting.hours is not None
    assert restored.detecting.hours.on


def test_what_is_known_of_the_hours_outlives_detectors_and_ends_with_the_setting() -> None:
    """A champion that returns, or another registered baseline, is judged by the hour at once; without the setting the
    detectors start afresh.
    """
    watch = VersionWatch("accuracy", HOURLY)
    watch.feed(by_hour(4.2))
    for change in (watch.start_afresh, lambda: watch.register(REGISTERED)):
        change()
        assert watch.pagers is None
        found = watch.feed(by_hour(0.1, from_s=watch.last_s + 10, seed=2))
        assert found == []
        assert watch.pagers is not None
        assert (watch.pagers.level or 1.0) < 0.16, "of the swing alone it would be .24"
    assert watch.pagers is not None
    assert [*watch.pagers.snapshot()] == ["e_detector reference_outcomes=5000 by hour"]
    plain = VersionWatch.restored(watch.snapshot(), SETTINGS)
    assert plain.detecting.hours is None
    plain.feed(by_hour(0.1, size=0.0, from_s=watch.last_s + 10, seed=3))
    assert plain.pagers is not None
    assert "e_detector reference_outcomes=5000" in plain.pagers.snapshot()
    weekly = VersionWatch.restored(watch.snapshot(), HOURLY.model_copy(update={"by_hour": "week"}))
    assert weekly.detecting.hours is not None
    assert (weekly.detecting.hours.by, weekly.detecting.hours.cycles, weekly.detecting.hours.on) == ("week", 0, False)


def test_a_regression_is_watched_by_the_hour_too() -> None:
    """In its own unit: what is acceptable is a mean absolute error, and half as much again is found."""

    def prices(days: float, scale: float, seed: int, from_s: int = START_S) -> Errors:
        stream = by_hour(days, from_s=from_s)
        swing = 1.0 + 0.6 * np.sin(2.0 * np.pi * stream.seconds / 86_400)
        return replace(stream, errors=np.random.default_rng(seed).laplace(0.0, scale * swing))

    watch = VersionWatch("mae", HOURLY)
    assert watch.feed(prices(5, 40.0, 1)) == []
    assert watch.detecting.hours is not None
    assert watch.detecting.hours.on
    assert watch.pagers is not None
    assert 38.0 < (watch.pagers.level or 0.0) < 50.0
    found = watch.feed(prices(0.3, 64.0, 2, START_S + 5 * 86_400))
    assert [each.detector for each in found] == ["e_detector"]


def test_a_drift_tells_when_it_began_and_where_to_train_from() -> None:
    """The first is before the change as often as behind it; the second is later where errors are rare."""
    began = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        watch = VersionWatch("accuracy", SETTINGS)
        watch.feed(errors((rng.random(6_000) < 0.02).astype(np.float64)))
        found = watch.feed(errors((rng.random(3_000) < 0.08).astype(np.float64), later(6_000)))
        first = next(each for each in found if each.detector == "e_detector")
        assert first.train_from_s is not None
        assert first.change_s <= first.train_from_s <= first.detected_s
        began.append(first.change_s - later(6_000))
    assert abs(np.median(began)) <= 8
