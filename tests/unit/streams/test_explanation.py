"""What `driftline explain` says of a model."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from detectors.four_rates import ACTUAL, PREDICTED
from streams.detecting import Detecting, Normal, Paging
from streams.errors import MissingInput, Unavailable
from streams.explanation import ModelDetecting, VersionDetecting, chosen, collect, parsed, told
from streams.order import Errors
from streams.settings import MonitorSettings, RedisSettings
from streams.version_watch import VersionWatch
from tests.support.ports import free_port

START_S = 1_700_000_000


def watched(settings: MonitorSettings, n: int = 6_000, regression: bool = False) -> Detecting:
    """How a version is watched after so many outcomes, ten a second."""
    rng = np.random.default_rng(1)
    values = rng.laplace(0.0, 40.0, n) if regression else (rng.random(n) < 0.1).astype(np.float64)
    watch = VersionWatch("mae" if regression else "accuracy", settings)
    seconds = START_S + np.arange(n) // 10
    watch.feed(Errors(seconds, np.zeros(n, dtype=np.int64), np.arange(n), values))
    return watch.detecting


def report(found: Detecting | None, **more: Any) -> ModelDetecting:
    return ModelDetecting("loan", "1", [VersionDetecting("1", True, detection=found, **more)])


def said(found: Detecting, **more: Any) -> str:
    model = report(found, **more)
    return "\n".join(told(model, model.versions[0]))


def test_the_arithmetic_leads_from_the_budget_to_the_threshold() -> None:
    """Ten a second are 6,048,000 a week; a quarter of a false alarm in them is one in 24,192,000."""
    text = said(watched(MonitorSettings()))
    assert "budget: 0.25 false alarms a week" in text
    assert "10 a second are 6,048,000 a week" in text
    assert "one false alarm in 24,192,000 outcomes; threshold = 2.4192e+07 (by proof)" in text
    assert "error rate 0.1" in text
    assert "from 5,000 outcomes" in text
    assert "acceptable to e_detector: up to 0.1" in text
    for factor in ("× 1.5 (0.15", "× 2 (0.2", "× 4 (0.4"):
        assert f"delay to {factor}" in text
    assert "seconds" in text


def test_detectors_that_share_are_told_with_their_parts() -> None:
    """Each has a line with its own part of the budget."""
    text = said(watched(MonitorSettings(detectors=["e_detector", "adwin"])))
    assert text.count("/ 0.125 = one false alarm in 48,384,000") == 2
    assert "delta = " in text


def test_a_regression_is_told_in_its_own_unit() -> None:
    """Errors of 40 are told as 40, not as a share of the scale; four times that is beyond what is clipped."""
    text = said(watched(MonitorSettings(), regression=True), metric="mae")
    assert "normal: mean absolute error 39.84" in text
    assert "acceptable to e_detector: up to 4" in text
    assert "delay to × 2 (79.68)" in text
    assert "delay to × 4" not in text


def segmented(settings: MonitorSettings, n: int, regression: bool = False) -> Detecting:
    """The same with one outcome in ten of north; none is of south."""
    rng = np.random.default_rng(1)
    values = rng.laplace(0.0, 40.0, n) if regression else (rng.random(n) < 0.1).astype(np.float64)
    watch = VersionWatch("mae" if regression else "accuracy", settings)
    at = np.arange(n)
    watch.feed(
        Errors(START_S + at // 10, np.zeros_like(at), at, values, segments=(rng.random(n) < 0.1).astype(np.uint8))
    )
    return watch.detecting


def test_segments_are_told_with_their_own_arithmetic() -> None:
    """What is normal in it, its part of the budget, and how many of its own outcomes a drift takes."""
    text = said(segmented(MonitorSettings(segments=["north", "south"]), 9_000))
    assert "0.1875 for the errors of all outcomes, 0.0625 for the segments north, south" in text
    assert "segment north: 0.109 of the outcomes; normal: error rate 0.0988 ± 0.013" in text
    assert "from 500 of its own; dispersion" in text
    assert "/ 0.03125 = one false alarm in" in text
    assert "of its outcomes, " in text
    assert "segment south: no outcome of it yet" in text


def test_a_segment_that_learns_says_how_long() -> None:
    """A tenth of the outcomes: 500 of its own are 5,000 of the version."""
    text = said(segmented(MonitorSettings(segments=["north"]), 3_000))
    assert "segment north: 0.106 of the outcomes; learning what is normal: about 217" in text
    assert "of its own to go" in text


def test_a_segment_of_a_regression_is_told_in_its_own_unit() -> None:
    """Not as a share of its scale."""
    text = said(segmented(MonitorSettings(segments=["north"]), 9_000, regression=True), metric="mae")
    north = text[text.index("segment north") :]
    assert "normal: mean absolute error 4" in north or "normal: mean absolute error 3" in north
    assert "acceptable: up to 4" in north
    assert "delay to × 2 (" in north
    assert "delay to × 4" not in north


def binary(settings: MonitorSettings, n: int, prevalence: float = 0.05) -> Detecting:
    """The same of a binary model, whose recall is .8."""
    rng = np.random.default_rng(1)
    actual = rng.random(n) < prevalence
    predicted = np.where(actual, rng.random(n) < 0.8, rng.random(n) < 0.01)
    codes = (ACTUAL * actual + PREDICTED * predicted).astype(np.uint8)
    watch = VersionWatch("accuracy", settings)
    at = np.arange(n)
    watch.feed(Errors(START_S + at // 10, np.zeros_like(at), at, (actual != predicted).astype(np.float64), codes))
    return watch.detecting


def test_the_four_rates_have_their_own_arithmetic() -> None:
    """Half of the budget in equal parts, of their own outcomes; how soon a fall of 5, 10 and 40 points is found."""
    text = said(binary(MonitorSettings(), 30_000))
    assert text.count("budget: ") == 1
    assert "0.125 for the errors of all outcomes, 0.125 for recall, specificity, precision, negative" in text
    assert "/ 0.125 = one false alarm in 48,384,000 outcomes" in text
    assert "recall (the share of the positives that it finds): 0.0" in text
    assert "of the outcomes are positives; normal: 0.8" in text
    assert "positives a second × 604,800 s / 0.03125 = one false alarm in" in text
    assert "of them; acceptable: down to 0.8" in text
    assert "40 points less: about" in text
    assert " predicted negatives, " in text


def test_a_rate_that_still_learns_says_for_how_long() -> None:
    """Where positives are rare, recall pages later than accuracy, and how much later is told."""
    text = said(binary(MonitorSettings(), 20_000, prevalence=0.005))
    recall = next(line for line in text.splitlines() if line.startswith("recall"))
    assert "learning what is normal: about 4" in recall
    assert "of them to go, " in recall
    assert "hours; it pages from then on" in recall
    early = said(binary(MonitorSettings(), 1_000))
    assert "specificity" in early
    assert "it pages from then on" in early


def test_what_is_being_learnt_is_said() -> None:
    """Nothing pages yet, and how many outcomes are missing."""
    text = said(watched(MonitorSettings(), n=3_000))
    assert "learning what is normal: 2,000 outcomes to go; nothing pages on drift" in text
    assert "threshold" not in text


def test_a_day_of_learning_is_told_with_its_end() -> None:
    """Enough outcomes have come, and the day is not over."""
    text = said(watched(MonitorSettings(baseline_hours=24)))
    assert "learning what is normal: 0 outcomes to go, and until 2023-11-15T22:13:20.000Z; nothing pages on" in text


def test_a_slow_model_is_told_that_it_has_the_least_run_length_and_what_it_never_finds() -> None:
    """One outcome a day has seven a week: a run length of 100, and delays of years."""
    found = Detecting(
        0.25, 1 / 86_400, 0, 1.0, Normal(5_000, 0.1, 0.004, 1.0, 0.0), 0.14, [Paging("errors", "e_detector", 1.0, 100)]
    )
    text = said(found)
    assert "one false alarm in 100 outcomes; the least that says anything, so it alarms less often" in text
    assert "delay to × 1.5 (0.15): not within a year" in text


def test_nothing_pages_without_detectors() -> None:
    """An empty list is a choice, and is told as one."""
    assert "nothing pages on drift" in said(watched(MonitorSettings(detectors=[])))


def test_the_champion_is_chosen_or_the_version_asked_for() -> None:
    """One without outcomes, or a name nobody knows, is an error that names those there are."""
    found = watched(MonitorSettings(), n=100)
    model = ModelDetecting("loan", "1", [VersionDetecting("1", True, detection=found), VersionDetecting("2")])
    assert chosen(model, None).version == "1"
    for asked in ("2", "7"):
        with pytest.raises(MissingInput, match=f"know no version '{asked}'.*with outcomes: 1"):
            chosen(model, asked)


def test_reports_of_other_releases_are_refused_or_read_without_what_they_lack() -> None:
    """A report without detection is of a version that nobody can explain; one of another shape is named."""
    old = parsed(b'{"model": "loan", "champion": "1", "versions": [{"version": "1", "windows": {}}]}', "loan")
    with pytest.raises(MissingInput, match="with outcomes: none"):
        chosen(old, None)
    with pytest.raises(MissingInput, match="another release"):
        parsed(b'{"model": 3}', "loan")
    sent = report(watched(MonitorSettings(), n=100))
    assert parsed(msgspec.json.encode(sent), "loan") == sent


def test_a_store_that_does_not_answer_is_told() -> None:
    """With its address, as every command does."""
    with pytest.raises(Unavailable):
        collect(RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0"), "loan")


def test_a_day_that_is_learnt_for_its_dumps_is_told_with_the_reason() -> None:
    """Why nothing pages though enough outcomes have come."""
    text = said(Detecting(0.25, 1.0, 0, until_s=1_700_090_000, at_once=True))
    assert (
        "0 outcomes to go, and until 2023-11-15T23:13:20.000Z (a whole day, because outcomes came all at once); nothing"
        in text
    )


def by_hour(days: float, size: float = 0.6, by: str = "day", swing: int = 24) -> Detecting:
    """How a version is watched that swings so much over so many hours, one outcome in ten seconds."""
    n = int(8_640 * days)
    seconds = START_S + 10 * np.arange(n)
    rates = 0.1 * (1.0 + size * np.sin(2.0 * np.pi * seconds / (3_600 * swing)))
    values = (np.random.default_rng(1).random(n) < rates).astype(np.float64)
    watch = VersionWatch("accuracy", MonitorSettings(by_hour=by, evidence=[]))
    watch.feed(Errors(seconds, np.zeros(n, dtype=np.int64), np.arange(n), values))
    return watch.detecting


def test_what_is_known_of_the_hours_is_told_at_each_step() -> None:
    """The first day, before there are two; the day that is foretold; and what is expected of the hours from then on."""
    text = said(by_hour(0.5))
    assert "0 outcomes to go, and until 2023-11-15T22:13:20.000Z" in text
    assert "by hour of the day: 0 days learnt from, of 2 at least; until then a swing counts as wander" in text
    text = said(by_hour(2.5))
    assert "by hour of the day: 2 days learnt from: × 0." in text
    assert "of 5,000 outcomes of whole days so far" in text
    assert "in an average hour" not in text
    text = said(by_hour(4.5))
    assert "by hour of the day: 4 days learnt from: × 0." in text
    assert "% of the variance between hours recurs" in text
    assert "not believed" not in text
    assert "of errors divided by what their hour lets expect" in text
    assert " in an average hour, 0." in text
    assert "by hour" not in said(watched(MonitorSettings()))


def test_hours_that_are_all_alike_are_told_so() -> None:
    """Four days have been looked at, and nothing recurs."""
    text = said(by_hour(4.5, size=0.0))
    assert "by hour of the day: 4 days learnt from; " in text
    assert "which may be chance" in text


def test_an_hour_of_the_week_has_a_day() -> None:
    """In UTC, as in the log."""
    text = said(by_hour(15, by="week", swing=168))
    assert "by hour of the week: 2 weeks learnt from: × 0." in text
    assert re.search(r"× 0\.\d\d \((Mon|Tues|Wednes)day \d\d:00 UTC\) to × 1\.\d\d \((Fri|Satur|Thurs)day", text)
