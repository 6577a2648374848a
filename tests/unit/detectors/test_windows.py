"""Windows against a naive oracle that keeps every outcome."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from detectors.snapshot import SnapshotError, seal
from detectors.tally import Tally
from detectors.windows import SPAN_MINUTES, Windows

START = 29_300_000  # minutes from the epoch; neither an hour nor a day begins here
LABELS = ("approve", "decline", "refer")


def oracle(added: list[tuple[int, str, str, int]], end: int, span: int) -> dict[tuple[str, str], int]:
    """Everything counted from the rounded start to the end."""
    unit = 1 if span <= 1_440 else 60 if span <= 10_080 else 1_440
    start = (end - span + 1) // unit * unit
    cells: Counter[tuple[str, str]] = Counter()
    for minute, predicted, outcome, n in added:
        if start <= minute <= end:
            cells[predicted, outcome] += n
    return {cell: n for cell, n in cells.items() if n > 0}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.lists(st.sampled_from([1, 7, 61, 700, 1_500, 9_000]), max_size=40))
def test_every_window_counts_what_lies_in_it(seed: int, steps: list[int]) -> None:
    """In a stream with gaps, corrections and stored state, all four windows are exact to their rounding."""
    rng = random.Random(seed)
    windows, stored = Windows(), dict[str, bytes]()
    added: list[tuple[int, str, str, int]] = []
    minute = START
    for step in steps:
        minute += step
        late = minute - rng.choice([0, 0, 1, 50])
        cells = [(rng.choice(LABELS), rng.choice(LABELS), rng.randint(1, 9)) for _ in range(rng.randint(0, 4))]
        if added and rng.random() < 0.3:  # undo one that is recent enough to be in every tier
            undone = rng.choice(added)
            if undone[0] > minute - 1_000 and undone[3] > 0:
                windows.add(undone[0], [(undone[1], undone[2], -1)])
                added.append((*undone[:3], -1))
        windows.add(late, cells)
        added += [(late, *cell) for cell in cells]
        windows.advance(minute)
        if rng.random() < 0.5:
            changes = windows.changed()
            stored.update(changes.written)
            for name in changes.dropped:
                stored.pop(name, None)
            windows = Windows()
            windows.load({name.encode(): sealed for name, sealed in stored.items()})
        for end in (minute, minute - rng.randint(0, 60)):
            for span in SPAN_MINUTES.values():
                tally = windows.total(end, span)
                assert tally.confusion == oracle(added, end, span)
                assert tally.n == sum(tally.confusion.values())


@pytest.mark.parametrize(
    "minute", [START, START // 60 * 60 + 58, START // 60 * 60 + 59, START // 1_440 * 1_440 + 1_438]
)
def test_a_window_does_not_see_later_minutes(minute: int) -> None:
    """A policy that judges a minute late judges what was known then, also at the edge of an hour and of a day."""
    windows = Windows()
    windows.add(minute, [("a", "a", 5)])
    windows.add(minute + 1, [("a", "b", 7)])
    for span in SPAN_MINUTES.values():
        assert windows.total(minute, span).n == 5
        assert windows.total(minute + 1, span).n == 12
    assert windows.total(minute + 60, 60).n == 7
    assert windows.total(minute + 61, 60).accuracy is None


def test_a_window_is_summed_once_until_something_changes() -> None:
    """Asked again it costs nothing; what was added, undone, loaded or advanced past since then counts."""
    windows = Windows()
    windows.add(1_000, [("1", "1", 3)])
    first = windows.total(1_000, 60)
    assert windows.total(1_000, 60) is first
    windows.add(1_000, [("1", "0", 1)])
    assert windows.total(1_000, 60).n == 4
    windows.add_regression(999, 2, 1.0, 1.0, 1.0)
    windows.add(1_000, [("1", "1", -3), ("1", "0", -1)])
    assert windows.total(1_000, 60) == Tally(2, {}, 1.0, 1.0, 1.0)
    for minute in range(1_000, 1_100):
        windows.advance(minute)
        assert windows.total(minute, 60).n == (2 if minute < 1_059 else 0)
    windows.load({})
    assert windows.total(1_000, 60).n == 0


def test_only_what_changed_is_written_and_what_expired_is_dropped() -> None:
    """A hash that gets the written fields and loses the dropped ones never holds more than the tiers keep."""
    windows = Windows()
    windows.add(START, [("a", "a", 1)])
    first = windows.changed()
    assert sorted(name[0] for name in first.written) == ["d", "h", "m"]
    assert windows.changed().written == {}
    windows.add(START + 1, [("a", "a", 1)])
    assert set(windows.changed().written) == {f"m:{START + 1}", f"h:{START // 60}", f"d:{START // 1440}"}
    windows.add(START, [("a", "a", -1)])
    assert windows.changed().dropped == [f"m:{START}"]
    windows.advance(START + 1 + 25 * 60)
    assert windows.changed().dropped == [f"m:{START + 1}"]
    windows.advance(START + 40 * 1_440)
    assert windows.changed().dropped == [f"d:{START // 1440}", f"h:{START // 60}"]
    assert windows.total(START + 40 * 1_440, 43_200).n == 0


def test_an_undone_pair_that_has_left_the_window_counts_as_nothing() -> None:
    """A correction in a later minute than its pair cannot make a window negative."""
    windows = Windows()
    windows.add(START, [("a", "b", 1)])
    windows.add(START + 100, [("a", "b", -1), ("a", "a", 1)])
    hour = windows.total(START + 100, 60)
    assert (hour.n, hour.errors, hour.accuracy) == (1, 0, 1.0)
    assert windows.total(START + 100, 1_440).confusion == {("a", "a"): 1}


def test_a_very_late_count_reaches_the_tiers_that_still_keep_its_minute() -> None:
    """A correction after three days is in the week and the month, and leaves the day alone."""
    windows = Windows()
    windows.advance(START + 3 * 1_440)
    windows.add(START, [("a", "b", 2)])
    assert {name[0] for name in windows.changed().written} == {"h", "d"}
    assert [windows.total(START + 3 * 1_440, span).n for span in SPAN_MINUTES.values()] == [0, 0, 2, 2]


def test_a_regression_keeps_sums() -> None:
    """Mean absolute, root mean squared and mean error come from sums that corrections undo."""
    windows = Windows()
    errors = [3.0, -1.0, 2.0, -2.0]
    for offset, error in enumerate([*errors, 50.0]):
        windows.add_regression(START + offset, 1, abs(error), error * error, error)
    windows.add_regression(START + 4, -1, -50.0, -2500.0, -50.0)
    tally = windows.total(START + 10, 60)
    assert (tally.n, tally.mae, tally.mean_error) == (4, 2.0, 0.5)
    assert tally.rmse == pytest.approx(math.sqrt(18 / 4))
    assert tally.accuracy is None
    assert tally.f1() is None
    empty = windows.total(START + 1_000, 60)
    assert (empty.n, empty.mae, empty.rmse, empty.mean_error) == (0, None, None, None)
    restored = Windows()
    restored.load(windows.changed().written)
    assert restored.total(START + 10, 60) == tally
    with pytest.raises(ValueError, match="finite"):
        windows.add_regression(START, 1, math.nan, 1.0, 1.0)


def test_binary_scores_are_those_of_the_positive_label() -> None:
    """Precision, recall and F1 as every textbook has them; what has no denominator is None."""
    tally = Tally(20, {("1", "1"): 6, ("1", "0"): 2, ("0", "1"): 4, ("0", "0"): 8})
    assert (tally.errors, tally.accuracy) == (6, 0.7)
    assert tally.precision("1") == 6 / 8
    assert tally.recall("1") == 6 / 10
    assert tally.f1("1") == pytest.approx(12 / 18)
    never = Tally(2, {("0", "0"): 2})
    assert (never.precision("1"), never.recall("1"), never.f1("1")) == (None, None, None)
    nothing = Tally(0)
    assert (nothing.accuracy, nothing.precision(), nothing.recall(), nothing.f1()) == (None,) * 4


@settings(deadline=None)
@given(pairs=st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40))
def test_macro_scores_are_those_of_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    """The mean over classes agrees with the library that the model's author used."""
    tally = Tally(len(pairs), Counter(pairs))
    predicted, outcome = zip(*pairs, strict=True)
    expected = precision_recall_fscore_support(outcome, predicted, average="macro", zero_division=0)
    assert (tally.precision(), tally.recall(), tally.f1()) == pytest.approx(expected[:3])


def test_a_damaged_field_is_refused_and_nothing_changes() -> None:
    """Loading is all or nothing."""
    windows = Windows()
    windows.add(START, [("a", "a", 1)])
    written = windows.changed().written
    name, sealed = next(iter(written.items()))
    damaged = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for mapping in (
        {**written, name: damaged},
        {**written, name: seal(2, {})},
        {**written, "x:1": sealed},
        {**written, "m:one": sealed},
    ):
        with pytest.raises(SnapshotError):
            windows.load(mapping)
    assert windows.total(START, 60).n == 1


def test_a_window_that_cannot_be_had_is_an_error() -> None:
    """An answer that would silently be too small is never given."""
    windows = Windows()
    windows.add(START + 200, [("a", "a", 1)])
    for span in (0, 43_201):
        with pytest.raises(ValueError, match="give 1 to 43200"):
            windows.total(START, span)
    with pytest.raises(ValueError, match="in the order of stream time"):
        windows.total(START, 1_440)
    with pytest.raises(ValueError, match="before the epoch"):
        windows.add(-1, [("a", "a", 1)])
