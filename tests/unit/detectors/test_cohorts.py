"""What is known of cohorts."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.cohorts import MAX_CLASSES, OTHER, TIERS, Cohorts, Count, rounded

DAY = 1_440


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6 * DAY), st.integers(0, 3 * DAY), st.sampled_from("ab"), st.booleans()), max_size=60
    ),
    delay=st.integers(0, 3 * DAY),
    span=st.sampled_from([60, DAY, 7 * DAY]),
    now=st.integers(0, 10 * DAY),
)
def test_mature_cohorts_hold_what_was_predicted_in_them_and_what_became_of_it(
    rows: list[tuple[int, int, str, bool]], delay: int, span: int, now: int
) -> None:
    """Against a count one by one, whatever size of cohorts it is taken from; outcomes of old ones come rounded."""
    cohorts = Cohorts()
    cohorts.advance(0)
    events = [(made, made, label, Count(1)) for made, _, label, _ in rows]
    events += [(made + after, made, label, Count(0, 1, float(wrong))) for made, after, label, wrong in rows]
    for at, made, label, count in sorted(events):
        if at <= now:
            cohorts.advance(at)
            one = rounded(np.array([made]), np.array([at]))
            cohorts.add(at, int(one[0]), label, count)
    cohorts.advance(now)
    found = cohorts.mature(now, delay, span)
    if found is None:
        assert now + 1 - delay < DAY, "whole cohorts are always known behind the first day"
        return
    assert 0 <= found.first < found.end <= now + 1 - delay
    expected: Counter[tuple[str, str]] = Counter()
    for made, after, label, wrong in rows:
        if found.first <= made < found.end and made <= now:
            expected[label, "predictions"] += 1
            if made + after <= now:
                expected[label, "outcomes"] += 1
                expected[label, "loss"] += wrong
    told = {(label, name): n for label, c in found.counts.items() for name, n in c._asdict().items() if n}
    assert told == +expected


def test_cohorts_that_began_before_anything_was_counted_are_left_out() -> None:
    """Else their outcomes would stand beside half of their predictions."""
    cohorts = Cohorts()
    cohorts.advance(1_000)  # 16:40
    cohorts.add(1_000, 990, "a", Count(0, 1))
    cohorts.add(1_000, 1_000, "a", Count(1))
    cohorts.add(1_030, 1_030, "a", Count(1, 1))
    assert cohorts.mature(1_100, 0, 60) is not None
    found = cohorts.mature(1_150, 30, DAY)
    assert found is not None
    assert (found.first, found.end) == (1_020, 1_080), "whole hours"
    assert found.total == Count(1, 1)
    assert cohorts.mature(1_100, 0, 7 * DAY) is None, "no whole day"


def test_a_cohort_tells_apart_a_bounded_number_of_classes() -> None:
    """A model that predicts ids does not fill the store; nothing is lost."""
    cohorts = Cohorts()
    for number in range(3 * MAX_CLASSES):
        cohorts.advance(number // 30)
        cohorts.add(number // 30, 0, f"c{number}", Count(1))
    counts = cohorts.mix(0)
    assert counts is not None
    assert len(counts) == MAX_CLASSES + 1
    assert sum(each.predictions for each in counts.values()) == 3 * MAX_CLASSES
    assert counts[OTHER].predictions == 2 * MAX_CLASSES


def test_old_cohorts_are_let_go() -> None:
    """Each size for its own time, so that the state is bounded."""
    cohorts = Cohorts()
    for minute in range(0, 70 * DAY, 30):
        cohorts.advance(minute)
        cohorts.add(minute, minute, "a", Count(1))
    assert [len(each) for each in cohorts.tiers] == [6, 96, 62]
    assert [tier.kept_minutes // tier.minutes for tier in TIERS] == [180, 96, 62]


def test_few_predictions_of_a_minute_do_not_tell_its_mix() -> None:
    """The one prediction of a minute would explain whatever outcome comes of it."""
    cohorts = Cohorts()
    cohorts.advance(0)
    for minute in range(60):
        cohorts.add(minute, minute, "ab"[minute % 2], Count(1))
    assert cohorts.mix(7) == {"a": Count(30), "b": Count(30)}
    cohorts.add(59, 7, "a", Count(40))
    assert cohorts.mix(7) == {"a": Count(40), "b": Count(1)}
