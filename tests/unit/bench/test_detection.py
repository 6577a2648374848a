"""The yardsticks of detection are what they say."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from bench import detection, detection_robust
from bench.detection_champions import cusum_delay
from bench.detection_dating import CHANGES, DETECTORS, dating
from bench.detection_hours import SWINGS, Swing, delays_by_hour, false_alarms_by_hour, outcomes, watch_of
from bench.detection_measure import Delays, FalseAlarms, delays, false_alarms
from bench.detection_optimum import optimum
from bench.detection_peers import always, e_detector, first_focus, focus, stepd
from bench.detection_processes import (
    BLOCK,
    PERIOD,
    Rates,
    Stream,
    dumped,
    overdispersed,
    steady,
    stream,
    swinging,
)
from bench.detection_recall import recall_drop
from bench.detection_robust import CASES, QUICK, Size, cells

BY_HOUR_OR_PLAIN: tuple[Literal["day"], Literal[""]] = ("day", "")


@pytest.mark.parametrize(("after", "delay"), [(0.15, 399), (0.2, 136), (0.4, 25)])
def test_the_optimum_is_that_of_the_design(after: float, delay: float) -> None:
    """CUSUM's delays from .1 at a run length of 100,000, computed once by other means."""
    best = optimum(0.1, after, 1e5)
    assert best.run_length >= 1e5
    assert best.median_delay == pytest.approx(delay, rel=0.02)
    assert best.p95_delay > 2 * best.median_delay * 0.9


def test_the_optimum_agrees_with_simulation() -> None:
    """Streams that change after 3,000 outcomes, at a run length that can be simulated."""
    best = optimum(0.1, 0.3, 2_000)
    seen = []
    for seed in range(600):
        rng = np.random.default_rng(seed)
        errors = (rng.random(3_500) < np.repeat([0.1, 0.3], [3_000, 500])).astype(np.float64)
        gains = np.where(errors > 0.5, math.log(3.0), math.log(0.7 / 0.9))
        total, fired = 0.0, None
        for index, gain in enumerate(gains):
            total = max(0.0, total + gain)
            if total >= best.threshold:
                if index >= 3_000:
                    fired = index - 2_999
                    break
                total = 0.0
        seen.append(fired if fired is not None else math.inf)
    assert float(np.median(seen)) == pytest.approx(best.median_delay, abs=4)


def test_the_cusum_on_rows_is_the_recursion() -> None:
    """Its closed form fires where max(0, S + gain) does."""
    errors = (np.random.default_rng(3).random(2_000) < 0.2).astype(np.float64)
    total, fired = 0.0, None
    for index, error in enumerate(errors):
        total = max(0.0, total + (math.log(2.0) if error else math.log(0.8 / 0.9)))
        if total >= 6.0:
            fired = index + 1
            break
    assert fired is not None
    assert cusum_delay(errors, 0.1, 0.2, 6.0) == fired
    assert cusum_delay(np.zeros(50), 0.1, 0.2, 6.0) == math.inf


def brute_force(errors: list[int], threshold: float) -> int | None:
    """The likelihood ratio over every change, as its definition says."""

    def likelihood(wrong: int, n: int) -> float:
        return sum(k * math.log(k / n) for k in (wrong, n - wrong) if k)

    for n in range(1, len(errors) + 1):
        total = sum(errors[:n])
        for place in range(1, n):
            before = sum(errors[:place])
            if before / place < (total - before) / (n - place):
                gain = likelihood(before, place) + likelihood(total - before, n - place) - likelihood(total, n)
                if gain > threshold:
                    return n - 1
    return None


@pytest.mark.parametrize("seed", range(40))
def test_focus_is_the_exact_likelihood_ratio(seed: int) -> None:
    """The corners of the hull are enough: it fires where the maximum over all changes does."""
    rng = np.random.default_rng(seed)
    errors = (rng.random(160) < np.repeat(rng.random(2) * 0.6, 80)).astype(int)
    wrong = np.flatnonzero(errors).tolist()
    for threshold in (0.5, 1.5, 3.0):
        assert first_focus(wrong, 0, threshold) == brute_force(errors.tolist(), threshold)


def test_peers_start_afresh_and_count_only_what_follows_the_reference() -> None:
    """An alarm in the reference is none; after one, the next needs evidence of its own."""
    rng = np.random.default_rng(1)
    rising = (rng.random(9_000) < np.repeat([0.05, 0.3, 0.7], 3_000)).astype(np.float64)
    for run in (stepd(), focus()):
        found = run(Stream(rising[:4_500], rising[4_500:]))
        assert len(found) == 1
        assert 1_500 <= found[0] < 1_800


def test_the_one_that_always_alarms_shows_what_recall_alone_is_worth() -> None:
    """Perfect recall, hardly a delay, and a thousand false alarms in 10,000."""
    alarms = false_alarms(always, steady, 0.1, 500, 2, 10_000, seed=1)
    assert alarms.rate == pytest.approx(1_000, rel=0.1)
    assert e_detector()(stream(np.random.default_rng(1), steady, 0.1, 5_000, 5_000)) == []


@pytest.mark.parametrize("rates", [swinging, overdispersed, dumped])
def test_the_processes_have_the_rate_that_they_are_given(rates: Rates) -> None:
    """On average over many periods, and moving about it."""
    each = rates(np.random.default_rng(2), 200 * PERIOD, 0.1)
    assert each.mean() == pytest.approx(0.1, rel=0.02)
    assert each.std() > 0.015
    assert 0.0 <= each.min() <= each.max() <= 1.0


def test_blocks_are_five_times_overdispersed() -> None:
    """In sums of whole blocks of 1,000."""
    rng = np.random.default_rng(4)
    rates = overdispersed(rng, 2_001 * BLOCK, 0.1)
    first = int(np.argmax(np.diff(rates) != 0)) + 1
    errors = (rng.random(2_000 * BLOCK) < rates[first : first + 2_000 * BLOCK]).reshape(-1, BLOCK).sum(axis=1)
    assert errors.var() / (0.09 * BLOCK) == pytest.approx(5.0, rel=0.15)


def test_the_upper_bound_is_poisson() -> None:
    """None in 30,000 outcomes leaves up to 1 in 10,000; ten leave up to 17."""
    assert FalseAlarms(0, 30_000).upper == pytest.approx(0.9986, abs=1e-3)
    assert FalseAlarms(10, 100_000).upper == pytest.approx(1.6962, abs=1e-3)


def test_delays_leave_out_streams_that_had_alarmed_and_keep_those_that_never_do() -> None:
    """The first are false alarms, which are counted elsewhere; the second are not found."""

    def run(each: Stream) -> list[int]:
        wrong = np.flatnonzero(each.errors)
        return [4_000] if wrong[0] % 3 == 0 else [5_009] if wrong[0] % 3 == 1 else []

    measured = delays(run, steady, 0.1, 0.1, 500, 60, seed=3)
    assert set(measured.each) == {10.0, math.inf}
    assert len(measured.each) < 60
    assert Delays((1.0, 2.0, math.inf)).quantile(0.5) == 2.0
    assert Delays((1.0, math.inf, math.inf)).quantile(0.5) is None
    assert Delays((1.0, math.inf)).recall == 0.5


def test_every_case_is_measured_at_every_rate_and_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run has all cells, with the false alarms within reach of the budget where the reference is whole.

    What is monitored takes seconds a stream: the next test has one.
    """
    monkeypatch.setattr(detection_robust, "CASES", [each for each in CASES if not each.monitored])
    table = list(cells(Size({1.0: 1, 0.1: 1, 0.01: 1}, 40_000, 2, 1, 0), seed=5))
    assert len(table) == 9 * (len(CASES) - 2)
    whole = [each for each in table if each["case"] == "swing" and each["reference"] == PERIOD]
    assert sum(float(str(each["realised"])) > 1.0 for each in whole) == 0


def test_the_monitor_learns_a_night_that_the_detector_alone_takes_for_a_drift() -> None:
    """Both have learnt from 5,000 outcomes of a day of 10,000, and twice the errors in its dump are to be learnt."""
    size = Size({0.1: 1}, 40_000, 0, 0, 0)
    for monitored in (each for each in CASES if each.monitored):
        alarms, _ = detection_robust.measured(monitored, 0.3, 0.1, size, seed=5)
        assert alarms.alarms == 0
        assert alarms.outcomes >= 39_000
    alone = detection_robust.Case("dumps", dumped, 5_000)
    assert sum(detection_robust.measured(alone, 0.3, 0.1, size, seed)[0].alarms for seed in range(4)) > 0


def test_a_fall_of_recall_is_found_before_accuracy_shows_it() -> None:
    """Some two dozen positives, within the budget."""
    measured = recall_drop(2, seed=1)
    assert measured["found"] == 2
    assert float(str(measured["delay_positives"])) < 60


def test_one_object_with_the_keys_that_were_agreed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--json` prints what a script reads; without the data, the streams are null and said to be missing."""
    monkeypatch.delenv("DRIFTLINE_DATA", raising=False)
    small = detection.Amount((2, 4), (1, 2), QUICK, 1, 1)
    monkeypatch.setattr(detection, "AMOUNTS", {True: small})
    detection.main(["--quick", "--json", "--only", "frozen", "--only", "streams"])
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert set(result) == {"frozen", "streams"}
    assert result["streams"] is None
    assert "DRIFTLINE_DATA" in printed.err
    assert {"default", "adwin", "page_hinkley", "stepd", "focus", "optimum", "always"} == set(result["frozen"])
    for entry in result["frozen"].values():
        assert {"fa_per_10k", "fa_upper", "delay", "p95", "recall"} <= set(entry)
        assert set(entry["delay"]) == {".15", ".20", ".40"}
    detection.main(["--quick", "--only", "frozen"])
    assert "optimum" in capsys.readouterr().out


def test_the_recorded_streams_have_their_drifts_found(driftline_data: Path) -> None:
    """Every drift that costs two points, without a false alarm, within 1.5 times what the CUSUM takes on the same
    rows; both are whole rows.
    """
    from bench.detection_champions import recorded_streams

    for name, entry in recorded_streams(driftline_data):
        assert entry["found"] == entry["of"], name
        assert entry["false_alarms"] == 0, name
        drifts: Any = entry["drifts"]
        for each in drifts:
            assert each["delay"] <= 1.5 * each["optimum_here"], (name, each)
            assert isinstance(each["optimum"], int)


@pytest.mark.parametrize("swing", SWINGS, ids=[each.name for each in SWINGS])
def test_a_swing_by_the_hour_keeps_the_budget_once_it_is_known_and_before(swing: Swing) -> None:
    """From the first outcome on; and pure chance costs nothing."""
    alarms = false_alarms_by_hour(swing, "day", 0.1, 0.1, 3, 250_000, seed=3, early=50_000)
    assert alarms.outcomes == 750_000
    assert alarms.rate <= 0.1


@pytest.mark.parametrize(("swing", "shift"), [*zip(SWINGS[:4], [0.5, 0.5, 1.0, 1.0], strict=True)])
def test_a_drift_on_a_swing_is_found_sooner_when_the_hours_are_known(swing: Swing, shift: float) -> None:
    """In six tenths at most of what it takes a null that is as wide as the swing, which may not find it at all."""
    known, plain = (
        delays_by_hour(swing, by_hour, 0.1, 0.1, shift, 10, seed=4).quantile(0.5) for by_hour in BY_HOUR_OR_PLAIN
    )
    assert known is not None
    assert plain is None or known < 0.6 * plain


def test_hours_of_a_rate_that_does_not_swing_are_all_alike() -> None:
    """Of ten streams most learn that nothing recurs; the others, factors near 1."""
    far = []
    for seed in range(10):
        watch = watch_of(0.1, "day")
        watch.feed(outcomes(np.random.default_rng([5, seed]), Swing(0.0), 8, 0.1))
        told = watch.detecting.hours
        assert told is not None
        far.append(max(told.worst - 1.0, 1.0 - told.best))
    assert sum(each > 0.0 for each in far) <= 4
    assert max(far) < 0.15


def test_every_change_is_dated_by_every_detector() -> None:
    """Shares rise from quantile to quantile, and what was found is counted."""
    table = list(dating(2, seed=2))
    assert [(each["before"], each["after"], each["detector"]) for each in table] == [
        (*change, name) for change in CHANGES for name in DETECTORS
    ]
    for each in table:
        assert each["of"] == 2
        if each["found"]:
            assert isinstance(each["quantiles"], dict)
            shares = list(each["quantiles"].values())
            assert shares == sorted(shares)
            assert shares[0] > 0.0
