"""The measured rate of outcomes: when it is measured, and that batches make no difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.outcome_rate import DAY_S, OutcomeRate, Seconds
from detectors.snapshot import decode, seal, unseal

START_S = 1_700_000_000


def followed(seconds: Seconds, ends: set[int], rate: OutcomeRate | None = None) -> list[float]:
    """The rate that held for each outcome, with batches that end after these seconds."""
    rate = rate or OutcomeRate()
    held: list[float] = []
    start = 0
    for end in [*sorted(set(np.searchsorted(seconds, sorted(ends), side="right").tolist())), len(seconds)]:
        while start < end:
            taken, _ = rate.take(seconds[start:end])
            held += [rate.per_s] * taken
            start += taken
    return held


def evenly(per_s: float, from_s: int, for_s: int) -> Seconds:
    """So many outcomes a second, one by one."""
    return from_s + (np.arange(int(per_s * for_s)) / per_s).astype(np.int64)


def test_a_steady_stream_has_its_rate_from_the_first_second_on() -> None:
    """The first second counts itself; every later measurement agrees."""
    assert set(followed(evenly(20, START_S, 3000), set())) == {20.0}


def test_chance_does_not_move_the_rate() -> None:
    """Outcomes that come as they like are measured anew some twenty times, and differ from the rate once or twice."""
    rng = np.random.default_rng(1)
    seconds = START_S + np.repeat(np.arange(3 * DAY_S), rng.poisson(5.0, 3 * DAY_S))
    held = followed(seconds, set())
    assert 1 <= len(set(held)) <= 5
    assert held[-1] == pytest.approx(5.0, rel=0.1)


def test_a_week_is_averaged_over_its_days() -> None:
    """Five busy days and two quiet ones: the budget of a week is over both."""
    days = [10, 10, 10, 10, 10, 3, 3]
    seconds = np.concatenate([evenly(each, START_S + n * DAY_S, DAY_S) for n, each in enumerate([*days, *days])])
    held = followed(seconds, set())
    assert held[-1] == pytest.approx(sum(days) / 7, rel=0.11)
    assert held[len(seconds) // 2] == pytest.approx(sum(days) / 7, rel=0.11)


def test_a_stream_that_goes_live_is_not_judged_by_its_idle_rate() -> None:
    """One trial a day for a week, then 50 a second: after twice a day's worth of trials the rate has followed."""
    trials = START_S + DAY_S * np.arange(8)
    live = evenly(50, START_S + 7 * DAY_S + 3_600, 7_200)
    held = np.array(followed(np.concatenate((trials, live)), set())[len(trials) :])
    so_far = np.arange(1, len(live) + 1)
    behind = so_far[1_000:] / DAY_S / held[1_000:]
    assert held[0] == pytest.approx(1 / DAY_S)
    assert behind.max() < 2.1, "the day's outcomes so far are never more than twice what the rate says, and a second"
    assert held[-1] > 1.0


def test_a_week_of_silence_leaves_the_rate() -> None:
    """A rate of nothing would make a budget of nothing: the last week that had any outcomes decides."""
    held = followed(np.concatenate((evenly(5, START_S, DAY_S), [START_S + 30 * DAY_S])), set())
    assert held[-1] == pytest.approx(5.0 / 7, rel=0.11)
    held = followed(np.array([START_S, START_S + 3 * DAY_S]), set())
    assert 0.0 < held[-1] <= 1 / DAY_S


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pauses=st.lists(st.sampled_from([0, 1, 3, 50, 4_000, 30_000, 200_000]), min_size=1, max_size=12),
    at=st.integers(0, 11),
)
def test_batches_and_restarts_make_no_difference(seed: int, pauses: list[int], at: int) -> None:
    """However whole seconds are put into batches, and stored in between, each outcome has the same rate."""
    rng = np.random.default_rng(seed)
    steps = [rng.choice([0, 0, 0, 1, 2], int(rng.integers(1, 300))) for _ in pauses]
    for step, pause in zip(steps, pauses, strict=True):
        step[0] += pause
    seconds = START_S + np.cumsum(np.concatenate(steps))
    expected = followed(seconds, set())
    ends = {int(each) for each in rng.choice(seconds, min(len(seconds), 40))}
    assert followed(seconds, ends) == expected
    split = int(np.searchsorted(seconds, seconds[min(at * 50, len(seconds) - 1)], side="right"))
    rate = OutcomeRate()
    held = followed(seconds[:split], ends, rate)
    stored = decode(unseal(seal(1, rate.state), 1)[1], type(rate.state))
    assert held + followed(seconds[split:], ends, OutcomeRate(stored)) == expected
