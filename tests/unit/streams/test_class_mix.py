"""The mix of classes of what arrives, by second: what it says of a stretch, and that batches make no difference."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.four_rates import ACTUAL, OTHER, PREDICTED, UNKNOWN
from detectors.one_sided import Arriving
from detectors.snapshot import seal, unseal
from streams.arriving import ArrivingState
from streams.class_mix import ClassMix
from streams.settings import MonitorSettings
from streams.watch import ModelWatch
from streams.watch_state import FORMAT

MINUTE = 28_000_000
BEGIN_S = 60 * MINUTE


def known(positive: int = 20, n: int = 100, minutes: int = 10, expected: float = 0.2) -> ArrivingState:
    """Minutes that are over, before :data:`MINUTE`, of which so many outcomes were predicted to be positive."""
    of_minute = {"1": Arriving(positive, n * expected), "0": Arriving(n - positive, n - n * expected)}
    return ArrivingState(classes={MINUTE - back: dict(of_minute) for back in range(1, minutes + 1)})


def taken(state: ArrivingState, classes: list[int], from_s: int = BEGIN_S) -> ClassMix:
    """One outcome a second, predicted to be 0 or 1."""
    mix = ClassMix(state)
    codes = np.array([PREDICTED * each | ACTUAL for each in classes], dtype=np.uint8)
    mix.take(from_s + np.arange(len(classes)), codes)
    return mix


def test_one_class_alone_is_doubtful_from_the_second_in_which_it_cannot_be_chance() -> None:
    """Two positives of a fifth may be, three hardly; what came before the change, or comes after, does not count."""
    mix = taken(known(), [0, 0, 1, 1, 1, 0, 0, 0, 0])
    assert not mix.doubtful(BEGIN_S + 2, BEGIN_S + 3, "1")
    assert mix.doubtful(BEGIN_S + 2, BEGIN_S + 4, "1")
    assert not mix.doubtful(BEGIN_S, BEGIN_S + 4, "1")
    assert not mix.doubtful(BEGIN_S + 2, BEGIN_S + 8, "1")


def test_minutes_that_are_over_count_with_the_predictions_behind_them() -> None:
    """A mix that the predictions themselves have is no doubt."""
    state = known()
    mix = taken(state, [1] * 10)
    assert mix.doubtful(BEGIN_S, BEGIN_S + 9, "1")
    state.classes[MINUTE] = {"1": Arriving(10, 9.5), "0": Arriving(0, 0.5)}
    assert not mix.doubtful(BEGIN_S, BEGIN_S + 9, "1")
    state.classes[MINUTE - 2] = {"1": Arriving(40, 8.0), "0": Arriving(0, 32.0)}
    assert mix.doubtful(BEGIN_S - 180, BEGIN_S + 9, "1"), "a whole minute of the stretch was of one class"


def test_seconds_of_the_minute_before_are_known_and_older_ones_are_not() -> None:
    """A change at the end of a minute is seen from its second on; what is kept does not grow."""
    mix = taken(known(), [0] * 58 + [1, 1], BEGIN_S - 60)
    mix.take(np.array([BEGIN_S]), np.array([PREDICTED], dtype=np.uint8))
    assert mix.doubtful(BEGIN_S - 2, BEGIN_S, "1")
    mix.take(np.array([BEGIN_S + 60]), np.array([PREDICTED], dtype=np.uint8))
    assert list(mix.state.seconds) == [BEGIN_S, BEGIN_S + 60]


@pytest.mark.parametrize(
    ("state", "positive"),
    [
        (known(), ""),
        (known(minutes=0), "1"),
        (ArrivingState(classes={MINUTE - 1: {label: Arriving(9, 9.0) for label in "012"}}), "1"),
        (ArrivingState(classes={MINUTE - 1: {label: Arriving(50, 50.0) for label in ("yes", "no")}}), "1"),
    ],
)
def test_without_two_known_classes_nothing_is_doubtful(state: ArrivingState, positive: str) -> None:
    """No positive class, nothing to compare with, three classes, or others than are said."""
    assert not taken(state, [1] * 30).doubtful(BEGIN_S, BEGIN_S + 29, positive)


def test_outcomes_whose_prediction_is_not_known_to_be_of_two_classes_do_not_count() -> None:
    """Nor do those of a model without codes."""
    mix = ClassMix(known())
    mix.take(BEGIN_S + np.arange(30), np.array([OTHER, UNKNOWN] * 15, dtype=np.uint8))
    mix.take(BEGIN_S + np.arange(30), None)
    assert not mix.doubtful(BEGIN_S, BEGIN_S + 29, "1")


def test_enough_outcomes_as_they_were_predicted_end_a_doubt() -> None:
    """Not few of them, and not those of one class unless only that is predicted now."""
    state = known()
    mix = ClassMix(state)
    assert not mix.alike(MINUTE, MINUTE, "1")
    state.classes[MINUTE] = {"1": Arriving(2, 2.0), "0": Arriving(8, 8.0)}
    assert not mix.alike(MINUTE, MINUTE, "1")
    state.classes[MINUTE + 1] = {"1": Arriving(3, 4.0), "0": Arriving(17, 16.0)}
    assert mix.alike(MINUTE, MINUTE + 1, "1")
    state.classes[MINUTE + 1] = {"1": Arriving(40, 8.0), "0": Arriving(0, 32.0)}
    assert not mix.alike(MINUTE + 1, MINUTE + 1, "1")
    state.classes[MINUTE + 1] = {"1": Arriving(40, 40.0)}
    assert mix.alike(MINUTE + 1, MINUTE + 1, "1")


@given(st.lists(st.tuples(st.integers(0, 59), st.integers(0, 1)), min_size=1, max_size=200))
def test_batches_that_end_with_a_second_make_no_difference(outcomes: list[tuple[int, int]]) -> None:
    """The counts are by second."""
    outcomes.sort()
    seconds = BEGIN_S + np.array([second for second, _ in outcomes], dtype=np.int64)
    codes = np.array([PREDICTED * said for _, said in outcomes], dtype=np.uint8)
    once, often = ClassMix(ArrivingState()), ClassMix(ArrivingState())
    once.take(seconds, codes)
    for second in sorted(set(seconds.tolist())):
        often.take(seconds[seconds == second], codes[seconds == second])
    assert once.state == often.state
    assert sum(n for n, _ in once.state.seconds.values()) == len(outcomes)


def test_a_state_of_format_4_begins_to_count_seconds() -> None:
    """It knows none yet; the rest of it is read."""
    watch = ModelWatch("loan", MonitorSettings(), 0.9)
    fields = msgspec.msgpack.decode(unseal(watch.snapshot(), FORMAT)[1])
    del fields["arriving"]["seconds"]
    fields["champion"] = "3"
    watch.restore(seal(4, fields))
    assert watch.champion == "3"
    assert "seconds" in msgspec.msgpack.decode(unseal(watch.snapshot(), FORMAT)[1])["arriving"]
