"""Whether outcomes come as they used to."""

from __future__ import annotations

from detectors.labels import Hour, Labelling, labelling

STEADY = {hour: Hour(1000, 900 - hour) for hour in range(24)}


def test_half_of_the_worst_usual_hour_is_slow_and_three_quarters_of_it_is_as_before() -> None:
    """Between them neither: hysteresis."""
    shares = {outcomes: labelling(Hour(1000, outcomes), STEADY, 24) for outcomes in (430, 500, 700)}
    found = {outcomes: (each.slow(0.5), each.steady(0.5)) for outcomes, each in shares.items() if each is not None}
    assert found == {430: (True, False), 500: (False, False), 700: (False, True)}


def test_the_hour_that_the_last_one_reaches_into_is_not_usual() -> None:
    """What is going wrong now does not make itself the measure."""
    history = {**STEADY, 23: Hour(1000, 100), 24: Hour(500, 10)}
    assert labelling(Hour(1000, 100), history, 24) == Labelling(0.1, 0.878, 23)


def test_a_nightly_dump_is_never_slow() -> None:
    """Most of its hours bring nothing: nothing is what is usual."""
    history = {hour: Hour(1000, 20_000 if hour == 3 else 0) for hour in range(24)}
    assert labelling(Hour(1000, 0), history, 24) is None


def test_too_little_says_nothing() -> None:
    """Few hours of history, few predictions, or none."""
    assert labelling(Hour(1000, 0), {hour: Hour(1000, 900) for hour in range(18, 23)}, 24) is None
    assert labelling(Hour(100, 0), STEADY, 24) is None
    assert labelling(Hour(0, 0), STEADY, 24) is None


def test_history_older_than_a_day_does_not_count() -> None:
    """A model that was slow last week is not measured by it."""
    history = {**{hour: Hour(1000, 1) for hour in range(5)}, **{hour: Hour(1000, 900) for hour in range(10, 34)}}
    found = labelling(Hour(1000, 100), history, 34)
    assert found is not None
    assert found.slow(0.5)
