"""When no verdict is given, the same however records come; and what is told of it."""

from __future__ import annotations

import io
import random

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from rich.console import Console

from streams.alerts import OUTCOMES_ONE_SIDED, OUTCOMES_SLOW
from streams.label_report import labels
from streams.metrics import WorkerMetrics
from streams.monitor import MonitorPartition
from streams.status import Status, describe, parse_reports, render
from streams.watch import ModelWatch
from streams.withholding import Doubt, Withheld, doubts, withheld
from tests.unit.streams.label_traffic import MIDNIGHT_S, NEVER, Traffic, log_of, traffic, watched
from tests.unit.streams.monitor_log import champion, play, registered, settings

HOUR_S = 3_600


@pytest.mark.parametrize(
    ("names", "settling", "reason"),
    [
        ({OUTCOMES_ONE_SIDED, OUTCOMES_SLOW}, True, "one_sided"),
        ({OUTCOMES_SLOW}, True, "dump"),
        ({OUTCOMES_SLOW, "ModelAccuracyDropped"}, False, "slow"),
        ({"ModelAccuracyDropped"}, False, ""),
    ],
)
def test_the_gravest_reason_counts(names: set[str], settling: bool, reason: str) -> None:
    """One side is no basis at all; a dump will be one soon; a slow feed is one for detectors."""
    found = withheld(None, 7, names, settling=settling)
    assert (found.reason if found is not None else "") == reason
    assert found is None or (found.since_s, found.whole) == (420, reason != "slow")


def test_a_reason_that_stays_keeps_its_beginning_and_one_side_is_remembered() -> None:
    """A dump at the end of a one-sided time does not make believable what came before."""
    first = withheld(None, 7, {OUTCOMES_ONE_SIDED}, settling=False)
    assert withheld(first, 8, {OUTCOMES_ONE_SIDED}, settling=True) == first
    dump = withheld(first, 9, set(), settling=True)
    assert dump == Withheld("dump", 540, tainted=True)
    assert withheld(dump, 14, set(), settling=False) is None
    assert list(doubts("m", "1", first, dump)) == [
        Doubt("m", "1", "one_sided", 420, True),
        Doubt("m", "1", "dump", 540, False),
    ]
    assert list(doubts("m", "1", dump, dump)) == []


def test_a_doubt_is_told_as_one_side_and_becomes_it_when_its_alert_says_so() -> None:
    """Since its first minute, in one line of the log; only what was certain taints what was found."""
    doubt = withheld(None, 7, {OUTCOMES_SLOW}, settling=False, doubtful=True)
    assert doubt == Withheld("one_sided", 420, tainted=False)
    sure = withheld(doubt, 8, {OUTCOMES_ONE_SIDED}, settling=False)
    assert sure == Withheld("one_sided", 420, tainted=True)
    assert list(doubts("m", "1", doubt, sure)) == []
    assert withheld(None, 7, set(), settling=True, doubtful=True) == Withheld("dump", 420)
    assert withheld(doubt, 8, set(), settling=False) is None


class EveryMinute(ModelWatch):
    """A watch that passes over no minute."""

    def _due_in_silence(self, minute: int) -> int | None:
        return minute


class EveryMinuteMonitor(MonitorPartition):
    def watch(self, model: str) -> ModelWatch:
        if model not in self.watches:
            self.watches[model] = EveryMinute(model, self.monitor_settings, self.monitor_settings.minimum_accuracy)
            self.fed_s = max(self.fed_s, MIDNIGHT_S - 600)
        return self.watches[model]


def mischief(seed: int) -> Traffic:
    """Some hours of predictions whose outcomes are late, dumped, blocked or of one class, and then nothing."""
    rng = random.Random(seed)
    found = traffic(rng.choice([100, 300]), (0.02, 0.4), a_minute=rng.choice([1, 5, 30]), seed=seed)
    found = found.delayed(np.random.default_rng(seed).integers(0, rng.choice([1, 30, 3_000]), len(found.at_s)))
    for _ in range(rng.randrange(3)):
        begin = MIDNIGHT_S + rng.randrange(5 * HOUR_S)
        end = begin + rng.choice([60, 1_000, 2 * HOUR_S])
        found = found.blocked(begin, end, rng.choice([None, 0, 1]), back=rng.random() < 0.5)
    return Traffic(
        found.at_s, found.predicted, found.actual, np.where(found.known_s < MIDNIGHT_S, NEVER, found.known_s)
    )


@profile(max_examples=8, deadline=None)
@given(st.integers(0, 10**6))
@example(56_005)
def test_records_may_come_as_they_like_and_minutes_be_passed_over(seed: int) -> None:
    """What is held back, dropped or told does not depend on where an unfinished minute is cut."""
    found = mischief(seed)
    log = log_of(found, int(found.at_s[-1]) + 6 * HOUR_S, every_s=random.Random(seed).choice([7, 60, 600]))
    configuration = settings(minimum_outcomes=20, for_minutes=1, outcomes_missing_minutes=100)
    catalog = registered(champion(accuracy=0.87))
    plain = play(log, configuration, catalog)
    assert play(log, configuration, catalog, seed=seed) == plain

    def every_minute(asked: object, partitions: int) -> MonitorPartition:
        return EveryMinuteMonitor(0, partitions, configuration, lambda _: True, lambda part: part)

    assert play(log, configuration, catalog, make=every_minute) == plain


def test_status_prometheus_and_the_log_say_that_no_verdict_is_given() -> None:
    """With the reason, since when, and that it is over."""
    found = traffic(180, (0.01, 0.25)).blocked(MIDNIGHT_S + 2 * HOUR_S, MIDNIGHT_S + 3 * HOUR_S, 0, back=False)
    monitor = watched(log_of(found, MIDNIGHT_S + 3 * HOUR_S), settings(), registered(champion(accuracy=0.942)))
    (report,) = monitor.report()
    told = labels(report.labels, report.champion_metric)
    assert told is not None
    assert told.withheld is not None
    assert told.withheld.reason == "one_sided"
    assert "2023-11-15T02:0" in told.withheld.since
    (model,) = describe([], parse_reports({b"loan": msgspec.json.encode({"model": "loan", "labels": told})}))
    out = io.StringIO()
    render(Status("now", [model], [], [], [], None, {}), Console(file=out, width=250))
    assert "loan: verdict withheld since 2023-11-15T02:0" in out.getvalue()
    registry = CollectorRegistry()
    metrics = WorkerMetrics(registry)
    metrics.watched(0, monitor.watermark_ms, [report])
    series = {"model": "loan", "reason": "one_sided"}
    assert registry.get_sample_value("driftline_verdict_withheld", series) == 1.0
    first = monitor.close().notices[0]
    assert isinstance(first, Doubt)
    assert (first.reason, first.over, first.model) == ("one_sided", False, "loan")
