"""A budget of false alarms becomes thresholds that keep it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.budget import WEEK_S, NotCalibrated, Watched, allot, explained, parameters
from detectors.registry import make_detector

PAGERS = ("adwin", "e_detector", "page_hinkley")


def test_one_alarm_a_week_at_a_thousand_a_second_is_one_in_605_million() -> None:
    """The whole budget on the error rate: the e-detector's threshold is the outcomes of a week."""
    (allotted,) = allot(1.0, 1000.0, [Watched("all outcomes", "e_detector", 1.0, 0.1)])
    assert allotted.run_length == 604_800_000
    assert allotted.parameters == {"threshold": 604_800_000}


@given(
    budget=st.floats(0.01, 100),
    rate=st.floats(0.1, 1e5),
    streams=st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.1, 10)), min_size=1, max_size=8),
)
def test_what_is_allotted_adds_up_to_the_budget(budget: float, rate: float, streams: list[tuple[float, float]]) -> None:
    """Outcomes of a week over run lengths, summed over all that can page, are no more than the operator accepted."""
    watched = [Watched(f"s{n}", "e_detector", share, 0.1, weight) for n, (share, weight) in enumerate(streams)]
    allotted = allot(budget, rate, watched)
    expected = sum(each.outcomes_per_s * WEEK_S / each.run_length for each in allotted)
    assert expected <= budget * (1 + 1e-9)
    if all(each.run_length > 100.0 for each in allotted):
        assert expected == pytest.approx(budget)


def test_a_rare_rate_gets_a_run_length_of_its_own_outcomes() -> None:
    """The positives are .5 % of the outcomes, and have the same alarms a week as the others."""
    watched = [Watched("error rate", "e_detector", 1.0, 0.01), Watched("tpr", "e_detector", 0.005, 0.2)]
    errors, recall = allot(1.0, 100.0, watched)
    assert recall.run_length == pytest.approx(errors.run_length * 0.005)
    assert errors.false_alarms_a_week == recall.false_alarms_a_week == 0.5


@pytest.mark.parametrize("detector", ["adwin", "page_hinkley"])
@pytest.mark.parametrize("rate", [0.02, 0.15, 0.3])
def test_a_run_length_from_the_table_is_what_simulation_gives(detector: str, rate: float) -> None:
    """Within a factor of two, also between the error rates of the table."""
    run_length, streams, length = 20_000.0, 10, 100_000
    made = parameters(detector, rate, run_length)
    alarms = 0
    for seed in range(streams):
        errors = (np.random.default_rng(seed).random(length) < rate).astype(np.float64)
        alarms += len(make_detector(detector, **made).update_many(errors))
    assert run_length / 2 < streams * length / alarms < run_length * 2


@given(rate=st.floats(0, 1), length=st.floats(100, 1e10))
def test_a_longer_run_length_is_never_an_easier_alarm(rate: float, length: float) -> None:
    """Parameters move one way, and every one of them makes a detector."""
    for detector in PAGERS:
        short, long = parameters(detector, rate, length), parameters(detector, rate, 10 * length)
        make_detector(detector, **short)
        make_detector(detector, **long)
        if detector == "adwin":
            assert 0.0 < long["delta"] <= short["delta"] < 1.0
        else:
            assert long["threshold"] >= short["threshold"] > 0.0


def test_what_nobody_calibrated_cannot_page() -> None:
    """A detector without a known run length is named, with those that have one."""
    with pytest.raises(NotCalibrated, match=r"ddm.*e_detector, adwin, page_hinkley can page"):
        allot(1.0, 10.0, [Watched("all outcomes", "ddm", 1.0, 0.1)])


def test_the_explanation_shows_every_number() -> None:
    """What `driftline explain` shows: budget, outcomes, and how each detector's threshold came out."""
    lines = explained(
        2.0,
        1000.0,
        [Watched("all outcomes", "e_detector", 1.0, 0.1), Watched("segment eu", "adwin", 0.25, 0.1)],
    )
    assert lines[0] == "budget: 2 false alarms a week for the model, over 2 that can page"
    assert lines[1] == "outcomes: 1000 a second are 604,800,000 a week"
    assert "one false alarm in 604,800,000 outcomes; threshold = 6.048e+08 (by proof)" in lines[2]
    assert "250 outcomes a second" in lines[3]
    assert "one false alarm in 151,200,000 outcomes; delta = " in lines[3]
    assert len(lines) == 4


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_senseless_budgets_are_refused(bad: float) -> None:
    """No alarm at all, or no outcomes, gives no threshold."""
    watched = [Watched("all outcomes", "e_detector", 1.0, 0.1)]
    with pytest.raises(ValueError, match="false alarms a week"):
        allot(bad, 10.0, watched)
    with pytest.raises(ValueError, match="outcomes a second"):
        allot(1.0, bad, watched)
    with pytest.raises(ValueError, match=r"share|rate|weight"):
        Watched("x", "e_detector", 1.0, 0.1, bad)
