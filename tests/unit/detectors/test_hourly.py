"""What recurs by the hour is learnt, what does not is not, and nothing is believed before it has foretold something."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.hourly import HOUR_S, LEAST_WINDOWS, MOST_CYCLES, SLOTS, By, Cycle, HourlyProfile, HourlyState, swing
from detectors.reference import WINDOW

START_S = 1_700_006_400
DAY_S = 24 * HOUR_S
HOURS = np.arange(24)
SINE = np.sin(2.0 * np.pi * HOURS / 24)


def cycle(rng: np.random.Generator, rates: np.ndarray, each: int = 400) -> Cycle:
    """A day of so many outcomes an hour."""
    return Cycle([each] * len(rates), rng.binomial(each, rates).astype(float).tolist())


def days(rng: np.random.Generator, factors: np.ndarray, n: int, rate: float = 0.1, each: int = 400) -> list[np.ndarray]:
    """The errors of each hour of n days."""
    return [(rng.random(each) < rate * factor).astype(float) for _ in range(n) for factor in factors]


def feed(profile: HourlyProfile, hours: list[np.ndarray], from_s: int = START_S, drifted: bool = False) -> list[int]:
    """Feed hour by hour; gives those at whose beginning factors began to be believed."""
    begun = []
    for number, errors in enumerate(hours):
        if profile.turn(from_s + number * HOUR_S, drifted):
            begun.append(number)
        profile.add(errors)
    return begun


@pytest.mark.parametrize("size", [0.3, 0.6])
def test_a_swing_that_recurs_is_learnt(size: float) -> None:
    """From four days of 400 outcomes an hour the factors are those of the hours, within a tenth on average."""
    rng = np.random.default_rng(1)
    found = swing([cycle(rng, 0.1 * (1 + size * SINE)) for _ in range(4)])
    assert np.abs(found.factors - (1 + size * SINE)).mean() < 0.1
    assert np.mean(found.factors) == pytest.approx(1.0)
    assert 0.5 < found.recurs < 1.0


def test_chance_is_no_profile() -> None:
    """Independent errors have none in nine of ten pairs of days, and what is learnt in the others is near 1."""
    learnt = [
        swing([cycle(np.random.default_rng([2, seed, each]), np.full(24, 0.1)) for each in range(2)])
        for seed in range(100)
    ]
    some = [each.factors for each in learnt if each.factors]
    assert len(some) <= 10
    assert all(min(each) > 0.8 and max(each) < 1.25 for each in some)


def test_what_differs_from_day_to_day_is_no_profile() -> None:
    """Hours of each day have rates of their own, which move by half: one day would show a swing like any other."""
    learnt = []
    for seed in range(50):
        rng = np.random.default_rng([3, seed])
        learnt.append(swing([cycle(rng, 0.1 * (1 + 0.5 * rng.uniform(-1, 1, 24))) for _ in range(2)]))
    assert sum(bool(each.factors) for each in learnt) <= 5
    assert np.median([each.recurs for each in learnt]) < 0.2


def test_hours_with_few_outcomes_are_shrunk_more() -> None:
    """Two errors in four outcomes of an hour say little of it, and hours without any nothing."""
    rng = np.random.default_rng(4)
    rates = 0.1 * (1 + 0.6 * SINE)
    made = [cycle(rng, rates) for _ in range(2)]
    for each in made:
        each.counts[18], each.totals[18] = 4, 2.0
        each.counts[19], each.totals[19] = 0, 0.0
    found = swing(made).factors
    assert found[18] < 2.0, "five times the mean is what was seen"
    assert found[19] == pytest.approx(1.0, abs=0.05)
    assert found[6] > 1.4
    unsure = swing(made).unsure
    assert unsure[19] == pytest.approx(0.42, abs=0.08), "all of the swing may be there"
    assert unsure[6] < 0.15 < unsure[18]


def test_hours_that_recur_exactly_are_taken_as_they_are() -> None:
    """Nothing is put down to chance then; hours without outcomes are like the mean."""
    some = Cycle([100, 100, 0, *[50] * 21], [10.0, 30.0, 0.0, *[10.0] * 21])
    found = swing([some, some])
    assert found.recurs == pytest.approx(1.0)
    assert found.factors[2] == pytest.approx(1.0)
    assert found.factors[1] / found.factors[0] == pytest.approx(3.0)


def test_it_is_believed_when_it_has_foretold_a_cycle() -> None:
    """Two days are learnt from, the third is foretold; from the fourth on it holds, with what is left of the swing."""
    profile = HourlyProfile("day")
    hours = days(np.random.default_rng(5), 1 + 0.6 * SINE, 4)
    assert feed(profile, hours) == [72]
    assert profile.on
    assert profile.factor == pytest.approx(1 + 0.6 * SINE[profile.slot], abs=0.2)
    known = profile.known(1.0)
    assert known is not None
    plain = np.concatenate(hours[48:72])
    swinging = np.std(plain[: len(plain) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(axis=1))
    assert known.rate == pytest.approx(0.1, abs=0.01)
    assert known.spread.wander < swinging / 2


def test_what_it_was_learnt_from_does_not_tell_how_well_it_foretells() -> None:
    """The windows of its reference are those of the third day: none of the two that the factors came from."""
    profile = HourlyProfile("day")
    feed(profile, days(np.random.default_rng(6), 1 + 0.6 * SINE, 3))
    assert not profile.on
    assert profile.state.adjusted.windows == 24 * 400 // WINDOW
    profile.turn(START_S + 3 * DAY_S, drifted=False)
    assert profile.on
    assert profile.state.known is not None
    assert profile.state.known.windows == 24 * 400 // WINDOW


def test_without_enough_outcomes_more_cycles_are_foretold() -> None:
    """How windows move cannot be told from two of them."""
    profile = HourlyProfile("day")
    [begun] = feed(profile, days(np.random.default_rng(7), 1 + 0.9 * SINE, 14, each=50))
    known = profile.known(1.0)
    assert known is not None
    assert known.windows >= LEAST_WINDOWS
    assert begun >= (2 + LEAST_WINDOWS * WINDOW // (24 * 50)) * 24


def test_what_foretells_nothing_is_not_believed() -> None:
    """Two days were alike by their hours, and those after them are otherwise."""
    rng = np.random.default_rng(8)
    profile = HourlyProfile("day")
    feed(profile, days(rng, 1 + 0.6 * SINE, 2) + days(rng, 1 - 0.6 * SINE, 2))
    assert not profile.on


def test_a_cycle_with_a_drift_is_not_learnt_from() -> None:
    """One in which it was detected, one that began with it open, and the first half of what was being foretold."""
    rng = np.random.default_rng(9)
    profile = HourlyProfile("day")
    feed(profile, days(rng, 1 + 0.6 * SINE, 2))
    profile.turn(START_S + 2 * DAY_S, drifted=False)
    learnt = list(profile.state.factors)
    assert len(profile.state.cycles) == 2
    feed(profile, days(rng, np.repeat([1.0, 4.0], 12), 1), START_S + 2 * DAY_S)
    profile.spoil()
    feed(profile, days(rng, np.repeat([4.0, 4.0], 12), 1), START_S + 3 * DAY_S, drifted=True)
    feed(profile, days(rng, np.repeat([4.0, 1.0], 12), 1), START_S + 4 * DAY_S, drifted=True)
    profile.turn(START_S + 5 * DAY_S, drifted=False)
    assert len(profile.state.cycles) == 2
    assert profile.state.factors == learnt
    assert not profile.on
    assert profile.state.adjusted.windows == 0
    feed(profile, days(rng, 1 + 0.6 * SINE, 1), START_S + 5 * DAY_S)
    assert profile.turn(START_S + 6 * DAY_S, drifted=False)
    assert len(profile.state.cycles) == 3


def night(rng: np.random.Generator, hour: int) -> list[np.ndarray]:
    """A day with two hours that are three times as wrong."""
    return days(rng, np.where((hour <= HOURS) & (hour + 2 > HOURS), 3.0, 1.0), 1)


def detected_daily(profile: HourlyProfile, nights: list[list[np.ndarray]], from_day: int = 0) -> list[int]:
    """Feed days in each of which a drift is detected that is over when the day is; gives those that began a profile."""
    begun = []
    for number, hours in enumerate(nights):
        if feed(profile, hours, START_S + (from_day + number) * DAY_S):
            begun.append(number)
        profile.spoil()
    return begun


def test_what_is_detected_each_night_at_the_same_hours_is_known_in_the_end() -> None:
    """Three nights are learnt from, the fourth is foretold; so is another habit of one that has a profile."""
    rng = np.random.default_rng(21)
    profile = HourlyProfile("day")
    assert detected_daily(profile, [night(rng, 2) for _ in range(5)]) == [4]
    mean = 28 / 24
    assert profile.state.factors[2] == pytest.approx(3.0 / mean, abs=0.3)
    known = profile.known(1.0)
    assert known is not None
    assert known.spread.wander < 0.02
    detected_daily(profile, [night(rng, 7) for _ in range(3)], 5)
    assert profile.state.factors[2] > 1.5
    profile.turn(START_S + 8 * DAY_S, drifted=False)
    assert profile.state.factors[2] < 1.3
    assert profile.state.factors[7] == pytest.approx(3.0 / mean, abs=0.3)


def test_drifts_at_other_hours_each_day_are_no_habit() -> None:
    """However many of them there are."""
    rng = np.random.default_rng(22)
    profile = HourlyProfile("day")
    assert detected_daily(profile, [night(rng, 3 * number) for number in range(8)]) == []
    assert not profile.state.factors


def test_a_drift_that_lasts_over_the_day_is_never_a_habit() -> None:
    """Not even if it is mended and comes back at the same hours: it was open when the day ended."""
    rng = np.random.default_rng(23)
    profile = HourlyProfile("day")
    late = np.where(HOURS >= 20, 4.0, 1.0)
    for number in range(8):
        feed(profile, days(rng, late, 1), START_S + number * DAY_S, drifted=number > 0)
        profile.spoil()
    assert not profile.state.factors
    assert not profile.on


def test_a_new_version_begins_with_the_hours_of_another() -> None:
    """They are on trial in its first day, and believed in its second; not if its own are otherwise."""
    rng = np.random.default_rng(24)
    known = HourlyProfile("day")
    assert not HourlyProfile("day").take_over(known)
    feed(known, days(rng, 1 + 0.6 * SINE, 4))
    from_s = START_S + 4 * DAY_S
    for size, believed in ((0.5, [24]), (-0.5, [])):
        profile = HourlyProfile("day")
        assert not profile.take_over(known), "it has not begun"
        feed(profile, days(rng, 1 + size * SINE, 1, rate=0.2)[:1], from_s)
        assert profile.take_over(known)
        assert not profile.on
        assert not profile.take_over(known), "once"
        begun = feed(profile, days(rng, np.roll(1 + size * SINE, -1), 1, rate=0.2, each=450), from_s + HOUR_S)
        assert [number + 1 for number in begun] == believed
    late = HourlyProfile("day")
    feed(late, days(rng, np.ones(24), 2), from_s)
    assert not late.take_over(known)
    assert not HourlyProfile("week", HourlyState("week", 1, 1, 0, Cycle.empty(168))).take_over(known)


def test_a_drift_that_nobody_saw_begin_is_no_profile() -> None:
    """Its level is each day's mean, its beginning one day's: neither recurs."""
    rng = np.random.default_rng(10)
    profile = HourlyProfile("day")
    flat = np.ones(24)
    feed(profile, days(rng, flat, 2) + days(rng, np.repeat([1.0, 1.5], 12), 1) + days(rng, 1.5 * flat, 3))
    assert not profile.on
    assert not profile.state.factors


def test_the_swing_of_a_week_has_days_in_it() -> None:
    """Saturday and Sunday are twice as wrong; a slot is an hour of the week."""
    weekend = np.where((np.arange(168) // 24 >= 2) & (np.arange(168) // 24 <= 3), 2.0, 1.0)
    rng = np.random.default_rng(11)
    thursday = START_S - START_S % (168 * HOUR_S)
    profile = HourlyProfile("week")
    feed(profile, days(rng, weekend, 4, each=60), thursday)
    assert profile.on
    mean = weekend.mean()
    assert np.mean(profile.state.factors[48:96]) == pytest.approx(2.0 / mean, abs=0.15)
    assert np.mean(profile.state.factors[:48]) == pytest.approx(1.0 / mean, abs=0.1)


def test_what_is_kept_is_bounded_and_follows_another_habit() -> None:
    """The newest cycles only; when the hours are no longer so, neither are the factors."""
    rng = np.random.default_rng(12)
    profile = HourlyProfile("day")
    most = MOST_CYCLES["day"]
    feed(profile, days(rng, 1 + 0.6 * SINE, most + 3))
    assert len(profile.state.cycles) == most
    feed(profile, days(rng, np.ones(24), most + 1), START_S + (most + 3) * DAY_S)
    assert profile.on
    assert min(profile.state.factors) > 0.85
    assert max(profile.state.factors) < 1.15


def test_days_without_outcomes_are_no_cycles() -> None:
    """A feed that stood still for a week goes on with the hour that it is."""
    rng = np.random.default_rng(13)
    profile = HourlyProfile("day")
    feed(profile, days(rng, 1 + 0.6 * SINE, 2))
    feed(profile, days(rng, 1 + 0.6 * SINE, 1), START_S + 9 * DAY_S)
    assert len(profile.state.cycles) == 2
    assert profile.turn(START_S + 10 * DAY_S, drifted=False)


def test_a_model_without_errors_has_no_swing() -> None:
    """Nor has one that is always wrong: nothing is divided by zero."""
    for value in (0.0, 1.0):
        profile = HourlyProfile("day")
        feed(profile, [np.full(400, value)] * 24 * 4)
        assert not profile.on
        assert profile.factor == 1.0


@settings(max_examples=30, deadline=None)
@given(
    by=st.sampled_from(["day", "week"]),
    seed=st.integers(0, 2**32),
    pieces=st.lists(st.integers(1, 900), min_size=1, max_size=20),
    fractions=st.booleans(),
)
def test_batches_and_restarts_make_no_difference(by: By, seed: int, pieces: list[int], fractions: bool) -> None:
    """Cut anywhere within hours, and stored in the middle of a cycle, it ends bit for bit the same."""
    rng = np.random.default_rng(seed)
    slots = SLOTS[by]
    factors = 1 + 0.8 * np.sin(2.0 * np.pi * np.arange(slots) / slots)
    each = 9_600 // slots
    hours = days(rng, factors, 4, each=each)[: 4 * slots - int(rng.integers(slots))]
    if fractions:
        hours = [errors * rng.random(len(errors)) for errors in hours]
    whole, parts = HourlyProfile(by), HourlyProfile(by)
    begun = feed(whole, hours)
    found = []
    sizes = iter(pieces * (1 + len(hours) * each))
    for number, errors in enumerate(hours):
        start = 0
        while start < each:
            if parts.turn(START_S + number * HOUR_S, drifted=False):
                found.append(number)
            size = next(sizes)
            parts.add(errors[start : start + size])
            start += size
            if rng.random() < 0.05:
                stored = msgspec.msgpack.encode(parts.state)
                parts = HourlyProfile(by, msgspec.msgpack.decode(stored, type=HourlyState))
    assert found == begun
    assert msgspec.msgpack.encode(parts.state) == msgspec.msgpack.encode(whole.state)
