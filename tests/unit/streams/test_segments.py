"""Segments that are watched on their own: what they find, in which words, and that nobody else hears of it."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st
from pydantic import ValidationError

from detectors.baseline import Metric
from detectors.snapshot import decode, seal, unseal
from streams.arrivals import Arrivals, Minute
from streams.episodes import PublishedAlerts, drift_evidence
from streams.events import Alert, Baseline, ModelState
from streams.model_windows import ModelWindows
from streams.monitor import MonitorPartition
from streams.open_drifts import MAX_EVIDENCE
from streams.order import Errors, OrderedErrors
from streams.segment_watch import SHARE
from streams.settings import ModelSettings, MonitorSettings, Settings
from streams.version_watch import FORMAT, VersionWatch
from streams.watch import ModelWatch
from tests.unit.streams.monitor_log import (
    START_S,
    FakeStore,
    Log,
    Pair,
    champion,
    events,
    fresh,
    play,
    record,
    registered,
    settings,
)

PER_S = 4
WATCHED: dict[str, Any] = {
    "segments": ["north", "south"],
    "evidence": [],
    "baseline_outcomes": 2_000,
    "minimum_accuracy": 0.5,
    "baseline_drop": 0.5,
    "repeat_minutes": 0,
}
SHARES = {"north": 0.05, "south": 0.15, "": 0.3, "west": 0.5}


def traffic(
    rates: dict[str, float], from_minute: int, minutes: int, seed: int, *, scale: float | None = None, **more: Any
) -> list[Pair]:
    """Outcomes of segments in proportion to ``SHARES``, wrong at 5 % or at their own rate; with a scale they are the
    errors of a regression, that many times the rate.
    """
    rng = random.Random(seed)
    found = []
    for at in range(minutes * 60 * PER_S):
        [segment] = rng.choices(list(SHARES), list(SHARES.values()))
        rate = rates.get(segment, 0.05)
        error = float(rng.random() < rate) if scale is None else rng.gauss(0.0, rate * scale)
        second = START_S + 60 * from_minute + at // PER_S
        found.append(Pair(second, segment=segment, error=error, regression=scale is not None, **more))
    return found


def alerts_of(pairs: list[Pair], *models: ModelState, **changes: Any) -> list[Alert]:
    log = record(pairs, 1, ends_s=pairs[-1].second + 3_600)
    return events(play(log, settings(**{**WATCHED, **changes}), registered(*(models or (champion(),)))))


def about(alerts: list[Alert]) -> list[tuple[str, str, str]]:
    return [(a.labels["alertname"], a.labels.get("segment", ""), a.status) for a in alerts]


DRIFT = [
    *traffic({}, 0, 120, 1),
    *traffic({"north": 0.3, "west": 0.025}, 120, 30, 2),
    *traffic({}, 150, 120, 3),
]
FOUND = [("ConceptDriftDetected", "north", "firing"), ("ConceptDriftDetected", "north", "resolved")]


def test_a_drift_of_a_small_segment_is_found_and_pages_for_it_alone() -> None:
    """One outcome in twenty, while another segment gains what it loses. It ends when the segment is back."""
    found = alerts_of(DRIFT)
    assert about(found) == FOUND
    assert alerts_of(DRIFT, segments=[]) == []
    assert alerts_of(DRIFT, segments=["south", "west"]) == []
    fired, resolved = found
    assert fired.drift is not None
    assert fired.drift.change_at is not None
    assert "2023-11-15T00:12" <= fired.drift.change_at <= "2023-11-15T00:18", "minute 120 is at 14"
    [first, *_] = fired.drift.evidence
    assert (first["segment"], first["stream"], first["metric"]) == ("north", "errors", "accuracy")
    assert first["false_alarms_per_week"] == pytest.approx(SHARE * 0.25 / 2)
    assert first["outcomes_since_change"] < 100
    assert fired.fingerprint == resolved.fingerprint
    assert resolved.ends_at > "2023-11-15T00:44"


def test_the_words_say_which_segment_from_what_to_what_since_when_and_how_sure() -> None:
    """What was counted are its own outcomes, and so is the run length."""
    fired, resolved = alerts_of(DRIFT)
    summary, description = fired.annotations["summary"], fired.annotations["description"]
    assert summary.startswith(
        "Segment north of model loan (version 1) has been wrong more often since about 2023-11-15"
    )
    assert "its errors rose from 5." in summary
    assert "points of accuracy lost" in summary
    assert "in this segment; outcomes of others were not counted" in description
    assert "outcomes of the segment after the estimated change" in description
    assert "outcomes of the segment, which at this segment's rate is 0.0312 times a week" in description
    assert resolved.annotations["summary"].startswith("Resolved: Segment north of model loan (version 1) has recovered")


def test_a_segment_comes_out_alike_however_the_log_is_read() -> None:
    """Interleaved, repeated, stored and reloaded at random, and cut at other places."""
    configuration, catalog = settings(**WATCHED), registered(champion())
    log = record(DRIFT, 3, ends_s=DRIFT[-1].second + 3_600)
    expected = play(log, configuration, catalog)
    assert about(events(expected)) == FOUND
    for seed in range(2):
        assert play(log, configuration, catalog, seed) == expected


def test_a_drift_of_all_is_one_incident_with_those_of_its_segments() -> None:
    """Whoever was paged for the first is not paged again; the later ones name it."""
    everywhere = dict.fromkeys(SHARES, 0.3)
    found = alerts_of([*traffic({}, 0, 120, 1), *traffic(everywhere, 120, 20, 2)])
    firing = [each for each in found if each.status == "firing"]
    assert {each.labels.get("segment", "") for each in firing} == {"", "north", "south"}
    assert [each.reason for each in firing] == ["fired", "joined", "joined"]
    assert len({each.labels["incident"] for each in firing}) == 1
    assert firing[-1].incident is not None
    assert [each.segment for each in firing[-1].incident.alerts] == [each.labels.get("segment", "") for each in firing]
    named = [f"ConceptDriftDetected of segment {name} (firing)" for name in ("north", "south")]
    assert any(name in firing[-1].annotations["description"] for name in named)


def read(monitor: MonitorPartition, log: Log) -> None:
    """Let a monitor take in a whole log, without moving on."""
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    for partition, records in enumerate(log.checkpoints):
        for offset, value in enumerate(records):
            monitor.checkpoint_record(partition, offset, value)


def test_a_promotion_resolves_the_alert_of_a_segment() -> None:
    """What the old champion set off is over, and the new one learns its own."""
    monitor = fresh(settings(**WATCHED))
    log = record(DRIFT[: 140 * 60 * PER_S], 1)
    read(monitor, log)
    monitor.advance(registered(champion()))
    assert [(a.alertname, a.segment) for a in monitor.report()[0].alerts] == [("ConceptDriftDetected", "north")]
    monitor.advance(registered(champion(version="2")))
    [fired, resolved] = events([each.alert for each in monitor.close().alerts])
    assert (fired.status, resolved.status, resolved.reason) == ("firing", "resolved", "promoted")
    assert resolved.labels["segment"] == "north"
    assert resolved.drift is not None
    assert resolved.drift.evidence[0]["segment"] == "north"
    assert monitor.report()[0].alerts == []


def test_an_alert_of_a_segment_that_is_no_longer_named_still_resolves() -> None:
    """Against what was normal when it was found: nobody has to close it by hand."""
    ends_s, until_s = DRIFT[-1].second + 3_600, START_S + 140 * 60
    monitor, store = fresh(settings(**WATCHED)), FakeStore()
    log = record(DRIFT, 1, ends_s=ends_s)
    read(monitor, log)
    monitor.advance(registered(champion()), until_s * 1_000)
    closed = monitor.close()
    assert about(events([each.alert for each in closed.alerts])) == FOUND[:1]
    store.apply(closed.commands, closed.meta)
    again = fresh(settings(**{**WATCHED, "segments": []}))
    again.load(store.meta, store.read(again.keys()))
    again.advance(registered(champion()))
    assert about(events([each.alert for each in again.close().alerts])) == FOUND[1:]


def test_a_segment_that_is_watched_has_windows_beside_a_hundred_others() -> None:
    """Without them nobody could tell when it is back."""
    arrived = Minute(cells={("1", f"{n:03}", "1", "1"): 1 for n in range(300)})
    windows = ModelWindows(Arrivals(), {"250", "299"})
    windows.fold(arrived, 5)
    known = {segment for _, segment in windows.series}
    assert {"", "000", "250", "299"} <= known
    assert "298" not in known
    assert windows.total("1", 5, 1, "299").n == 1


def test_a_regression_has_a_scale_of_its_own_in_each_segment() -> None:
    """A segment whose normal errors are ten times those of all is not bad for that, and is found when they double."""
    usual, doubled = {"north": 0.5}, {"north": 1.0, "west": 0.01}
    pairs = [
        *traffic(usual, 0, 120, 1, scale=10.0),
        *traffic(doubled, 120, 45, 2, scale=10.0),
        *traffic(usual, 165, 120, 3, scale=10.0),
    ]
    known = ModelState(
        "loan", 1, "regression", aliases={"champion": "1"}, baselines={"1": Baseline("mae", 0.58, 5_000)}
    )
    found = alerts_of(pairs, known, baseline_drop=1.0)
    assert about(found) == FOUND
    assert "its mean absolute error rose from 3.8" in found[0].annotations["summary"]


# ----------------------------------------------------------------------------------------------------- one version

SETTINGS = MonitorSettings(baseline_outcomes=2_000, segments=["north", "south"], evidence=[])


def stream(metric: Metric, after: float, seed: int = 1, n: int = 24_000) -> Errors:
    """Ten outcomes a second, one in ten of north, whose errors change after three quarters."""
    rng = np.random.default_rng(seed)
    segments = rng.choice([0, 1, 2], n, p=[0.6, 0.1, 0.3]).astype(np.uint8)
    at = np.arange(n)
    rate = np.where((segments == 1) & (at >= 3 * n // 4), after, 0.05)
    wrong = (rng.random(n) < rate).astype(np.float64)
    errors = wrong if metric == "accuracy" else rng.laplace(0.0, 40.0 * rate)
    return Errors(START_S + at // 10, np.zeros(n, dtype=np.int64), at, errors, None, segments)


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_segments_are_the_same_in_any_batches_and_over_restarts(metric: Metric) -> None:
    """Whole seconds in any batches, stored and restored in between, give the same evidence and the same state."""
    rng = np.random.default_rng(7)
    errors = stream(metric, 0.4)
    whole = VersionWatch(metric, SETTINGS)
    expected = whole.feed(errors)
    assert {each.segment for each in expected} == {"", "north"}
    pieces, found, start = VersionWatch(metric, SETTINGS), [], 0
    while start < len(errors):
        end = min(len(errors), start + 10 * int(rng.integers(1, 200)))
        found += pieces.feed(errors.slice(start, end))
        start = end
        if rng.random() < 0.3:
            pieces = VersionWatch.restored(pieces.snapshot(), SETTINGS)
    assert found == expected
    assert pieces.snapshot() == whole.snapshot()


def test_segments_have_a_quarter_of_the_budget_in_equal_parts() -> None:
    """What is left is for all outcomes; without segments, or with nothing that pages, nothing is taken."""
    for configuration, whole, each in (
        (SETTINGS, 0.75 * 0.25, 0.25 * 0.25 / 2),
        (SETTINGS.model_copy(update={"segments": []}), 0.25, None),
    ):
        watch = VersionWatch("accuracy", configuration)
        watch.feed(stream("accuracy", 0.05))
        assert watch.pagers is not None
        assert watch.pagers.allotted[0].false_alarms_a_week == pytest.approx(whole)
        assert [s.false_alarms_per_week for s in watch.detecting.segments] == ([each, each] if each else [])
    silent = VersionWatch("accuracy", SETTINGS.model_copy(update={"detectors": []}))
    assert silent.feed(stream("accuracy", 0.9)) == []
    assert silent.detecting.segments == []


def test_a_segment_that_comes_late_learns_from_its_own_first_outcome() -> None:
    """It pages when it has had as many outcomes of the version, and of its own, as any other."""
    errors = stream("accuracy", 0.05)
    assert errors.segments is not None
    late = replace(errors, segments=np.where(np.arange(len(errors)) < 12_000, 0, errors.segments).astype(np.uint8))
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(late.slice(0, 11_990))
    assert [(s.outcomes, s.normal) for s in watch.detecting.segments] == [(0, None), (0, None)]
    watch.feed(late.slice(11_990, 13_990))
    north, south = watch.detecting.segments
    assert (north.normal, south.normal) == (None, None)
    assert 0 < south.missing < 20
    assert south.missing_own == 0
    assert 250 < north.missing_own < 350
    watch.feed(late.slice(13_990, len(late)))
    assert all(s.normal is not None and s.threshold is not None for s in watch.detecting.segments)


def test_a_state_of_format_3_begins_to_learn_its_segments() -> None:
    """An upgrade, or a segment that is named later: everything else goes on as it was."""
    errors = stream("accuracy", 0.4)
    before = VersionWatch("accuracy", SETTINGS.model_copy(update={"segments": []}))
    before.feed(replace(errors.slice(0, 6_000), segments=None))
    fields = decode(unseal(before.snapshot(), FORMAT)[1], dict)
    del fields["segments"]
    watch = VersionWatch.restored(seal(3, fields), SETTINGS)
    assert watch.baseline == before.baseline
    assert watch.pagers is not None
    assert before.pagers is not None
    assert watch.pagers.snapshot() == before.pagers.snapshot()
    assert {each.segment for each in watch.feed(errors.slice(6_000, len(errors)))} == {"", "north"}


def test_a_segment_that_is_no_longer_named_is_forgotten() -> None:
    """The others keep what they know, with what the budget gives them now."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(stream("accuracy", 0.05))
    fewer = VersionWatch.restored(watch.snapshot(), SETTINGS.model_copy(update={"segments": ["south"]}))
    assert [s.segment for s in fewer.detecting.segments] == ["south"]
    assert fewer.detecting.segments[0].normal == watch.detecting.segments[1].normal
    assert fewer.detecting.segments[0].false_alarms_per_week == 0.0625
    assert fewer.baseline_of("north") is None
    known = watch.baseline_of("north")
    assert known is not None
    assert known.value == pytest.approx(0.95, abs=0.02)


def test_what_is_stored_does_not_tell_which_segment_came_first_in_a_batch() -> None:
    """South is there a few seconds before north, which a batch of them all cannot see."""
    errors = stream("accuracy", 0.05).slice(0, 100)
    south_first = replace(errors, segments=np.where(np.arange(100) < 50, 2, 1).astype(np.uint8))
    whole, pieces = VersionWatch("accuracy", SETTINGS), VersionWatch("accuracy", SETTINGS)
    whole.feed(south_first)
    for start in (0, 50):
        pieces.feed(south_first.slice(start, start + 50))
    assert pieces.snapshot() == whole.snapshot()


def test_the_detectors_of_a_segment_start_afresh_alone_or_with_all() -> None:
    """What was normal stays known."""
    watch = VersionWatch("accuracy", SETTINGS)
    watch.feed(stream("accuracy", 0.05))
    watch.start_afresh_of("north")
    assert [s.threshold is None for s in watch.detecting.segments] == [True, False]
    assert watch.pagers is not None
    watch.start_afresh()
    assert [s.threshold is None for s in watch.detecting.segments] == [True, True]
    assert all(s.normal is not None for s in watch.detecting.segments)


# ------------------------------------------------------------------------------------------------------ the pieces


@bounded(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([None, 0, 1, 2])), min_size=1, max_size=20))
def test_codes_of_segments_keep_to_their_errors(parts: list[tuple[int, int | None]]) -> None:
    """However parts interleave in time, an error comes out with the code that its part was added with."""
    ordered = OrderedErrors()
    expected: dict[int, int] = {}
    for number, (second, code) in enumerate(parts):
        seconds = np.array([second, second + 2])
        offsets = np.array([2 * number, 2 * number + 1])
        ordered.add(0, seconds, offsets, np.zeros(2), None, code)
        expected |= dict.fromkeys(offsets.tolist(), code or 0)
    released = [each for each in (ordered.release(3), ordered.release(100)) if each is not None]
    for each in released:
        if each.segments is None:
            assert not any(code is not None for _, code in parts)
            continue
        assert dict(zip(each.offsets.tolist(), each.segments.tolist(), strict=True)).items() <= expected.items()
    assert sum(len(each) for each in released) == 2 * len(parts)


def test_what_is_published_of_two_drifts_is_taken_up_again_apart() -> None:
    """A rebuilt monitor has the evidence of each where it was."""
    everywhere = dict.fromkeys(SHARES, 0.3)
    found = alerts_of([*traffic({}, 0, 120, 1), *traffic(everywhere, 120, 20, 2)])
    published = PublishedAlerts()
    for each in found:
        if each.status == "firing":
            published.add(each, START_S)
    evidence = drift_evidence(published.of_model("loan"))
    watch = ModelWatch("loan", settings(**WATCHED).monitor, 0.5)
    watch.adopt([], evidence)
    again = ModelWatch("loan", settings(**WATCHED).monitor, 0.5)
    again.restore(watch.snapshot())
    for segment in ("", "north", "south"):
        kept = again._at.evidence_of(segment)
        assert kept == [each for each in evidence if each.segment == segment]
        assert 0 < len(kept) <= MAX_EVIDENCE


def test_a_model_may_name_segments_of_its_own() -> None:
    """They stand for those of all models; an empty list watches none."""
    pairs = traffic({}, 0, 1, 1)
    for own, expected in ((["west"], ["west"]), ([], []), (None, ["north", "south"])):
        configuration = Settings(monitor=settings(**WATCHED).monitor, models={"loan": ModelSettings(segments=own)})
        monitor = fresh(configuration)
        log = record(pairs, 1)
        read(monitor, log)
        monitor.advance(registered(champion()))
        detection = monitor.report()[0].versions[0].detection
        assert detection is not None
        assert [each.segment for each in detection.segments] == expected


@pytest.mark.parametrize("names", [["north", "north"], [""], [str(n) for n in range(21)]])
def test_segments_that_make_no_sense_are_refused(names: list[str]) -> None:
    """A list with a name twice, an empty one, or more than the budget can be shared by."""
    with pytest.raises(ValidationError):
        MonitorSettings(segments=names)
    with pytest.raises(ValidationError):
        ModelSettings(segments=names)
