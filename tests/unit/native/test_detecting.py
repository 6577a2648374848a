"""The compiled loops of the detectors against numpy: the same to the last bit, and nothing outside of what is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from detectors.alternatives import bets
from detectors.change_point import fold_in_numpy
from detectors.contract import Detector
from detectors.e_detector import EDetector
from detectors.four_rates import FourRates
from detectors.page_hinkley import PageHinkley
from detectors.reference import Reference, WindowSums, fill_in_numpy
from detectors.wealth import Wealth
from native.arrays import floats, made
from native.bets import betting, new_wealth
from native.library import library
from native.sums import Climb, Folded, Rule, filling, folding, stepping

pytestmark = pytest.mark.skipif(library() is None, reason="there is no compiled library to compare")

Floats = NDArray[np.float64]
LOOPS = (
    "detectors.wealth.betting",
    "detectors.reference.filling",
    "detectors.change_point.folding",
    "detectors.page_hinkley.stepping",
)


@contextmanager
def in_numpy() -> Iterator[None]:
    """As if there were no library."""
    patches = [patch(each, return_value=None) for each in LOOPS]
    for each in patches:
        each.start()
    try:
        yield
    finally:
        for each in patches:
            each.stop()


def errors_of(seed: int, rates: list[float], n: int, kind: str) -> Floats:
    """So many errors of each rate: right and wrong, fractions, both ends with a negative zero, or one value."""
    rng = np.random.default_rng(seed)
    wrong = np.concatenate([(rng.random(n) < rate).astype(np.float64) for rate in rates])
    if kind == "fractions":
        return wrong * rng.random(len(wrong))
    if kind == "tiny":
        return np.where(wrong > 0.0, rng.choice([5e-324, 1e-300, 1.0], len(wrong)), -0.0)
    if kind == "constant":
        return np.repeat(rates, n).astype(np.float64)
    return wrong


ERRORS = st.builds(
    errors_of,
    st.integers(0, 2**32),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(1, 700),
    st.sampled_from(["wrong", "fractions", "tiny", "constant"]),
)
PIECES = st.lists(st.integers(1, 1500), min_size=1, max_size=12)
DETECTORS: dict[str, Callable[[], Detector]] = {
    "e_detector": lambda: EDetector(threshold=200.0, reference_outcomes=500, wander=0.0),
    "e_detector of a certain rate": lambda: EDetector(threshold=100.0, reference=Reference.of_rate(10**9, 0.01)),
    "page_hinkley": lambda: PageHinkley(threshold=3.0),
    "page_hinkley that forgets": lambda: PageHinkley(threshold=0.5, alpha=0.9, delta=0.0, min_instances=1),
}


def bits(values: list[float]) -> bytes:
    return np.array(values).tobytes()


@settings(max_examples=60, deadline=None)
@given(errors=ERRORS, pieces=PIECES, name=st.sampled_from(sorted(DETECTORS)))
def test_a_detector_finds_and_stores_the_same(errors: Floats, pieces: list[int], name: str) -> None:
    """Whatever the batches, the detections and the bytes of every snapshot are those without the library."""
    ours, theirs = DETECTORS[name](), DETECTORS[name]()
    start = 0
    for size in [*pieces, len(errors)]:
        batch = errors[start : start + size]
        found = ours.update_many(batch)
        with in_numpy():
            assert theirs.update_many(batch) == found
            sealed = theirs.snapshot()
        assert ours.snapshot() == sealed
        start += len(batch)


@settings(max_examples=30, deadline=None)
@given(errors=ERRORS, pieces=PIECES, factors=st.lists(st.floats(0.05, 20), min_size=1, max_size=5))
def test_so_does_one_that_follows_the_hour(errors: Floats, pieces: list[int], factors: list[float]) -> None:
    """Its window gets the errors divided by what was expected of them."""
    reference = Reference.of_rate(2_000, 0.1)
    ours, theirs = (EDetector(threshold=150.0, reference=reference, known=reference) for _ in range(2))
    start = 0
    for number, size in enumerate([*pieces, len(errors)]):
        batch = errors[start : start + size]
        for each in (ours, theirs):
            each.expect(factors[number % len(factors)], 0.01)
        found = ours.update_many(batch)
        with in_numpy():
            assert theirs.update_many(batch) == found
            assert theirs.snapshot() == ours.snapshot()
        start += len(batch)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 3_000), min_size=1, max_size=5))
def test_four_rates_find_and_store_the_same(seed: int, sizes: list[int]) -> None:
    """Of a classifier that becomes worse."""
    rng = np.random.default_rng(seed)
    ours, theirs = (FourRates(["recall", "specificity", "precision", "npv"], 50.0, 1_000) for _ in range(2))
    second = 1_700_000_000
    for number, size in enumerate(sizes):
        actual = rng.random(size) < 0.4
        wrong = rng.random(size) < (0.1 if number < 2 else 0.4)
        codes = (actual + 2 * (actual ^ wrong)).astype(np.uint8)
        seconds = second + np.arange(size) // 100
        second += size // 100 + 1
        found = ours.update_many(seconds, codes)
        with in_numpy():
            assert theirs.update_many(seconds, codes) == found
            assert theirs.state == ours.state


@settings(max_examples=200, deadline=None)
@given(
    errors=ERRORS,
    level=st.floats(1e-9, 0.95),
    dispersion=st.sampled_from([1.0, 1.7, 40.0]),
    threshold=st.one_of(st.floats(1e-3, 1e6), st.sampled_from([math.inf, 1e300])),
)
def test_bets_are_the_same(errors: Floats, level: float, dispersion: float, threshold: float) -> None:
    """The first error that crosses, and what is there behind it; also where gains overflow or nearly vanish."""
    compiled, plain = Wealth(), Wealth()
    for each in (compiled, plain):
        each.against(bets(level, dispersion))
    start = 0
    while start < len(errors):
        window = errors[start : start + 500]
        with patch("detectors.wealth.betting", return_value=None), np.errstate(all="ignore"):
            expected = plain.bet(window, threshold)
        assert compiled.bet(window, threshold) == expected
        assert bits(compiled.gains) == bits(plain.gains)
        assert bits(compiled.stakes) == bits(plain.stakes)
        assert bits([compiled.close()]) == bits([plain.close()])
        start += 500


@settings(max_examples=100, deadline=None)
@given(errors=ERRORS, pieces=PIECES, scale=st.sampled_from([1.0, 1e-200, 1e140]))
def test_windows_fill_the_same(errors: Floats, pieces: list[int], scale: float) -> None:
    """In any pieces, of errors of any size: the sums of whole windows, and the window that is filling."""
    ours, theirs = WindowSums(), WindowSums()
    start = 0
    for size in [*pieces, len(errors)]:
        piece = errors[start : start + size] * scale
        ours.add(piece)
        with in_numpy():
            theirs.add(piece)
        assert ours == theirs
        start += size


@given(
    errors=st.lists(st.floats(0, 1), max_size=40),
    parts=st.integers(1, 4),
    part=st.integers(1, 5),
    position=st.integers(0, 19),
    total=st.floats(0, 9),
)
def test_windows_of_any_length_fill_the_same(
    errors: list[float], parts: int, part: int, position: int, total: float
) -> None:
    """And of parts of any length."""
    fill = filling()
    assert fill is not None
    window = parts * part
    given_ = np.array(errors, dtype=np.float64), position % window, total, window, part
    assert fill(*given_) == fill_in_numpy(*given_)


@settings(max_examples=100, deadline=None)
@given(
    errors=st.lists(st.floats(0, 1), min_size=1, max_size=600),
    first=st.sampled_from([1, 2, 63, 64, 65, 5_000, 2**40]),
    fine=st.sampled_from([2, 3, 64]),
    held=st.lists(st.integers(0, 2**41), max_size=30),
)
def test_sums_thin_out_the_same(errors: list[float], first: int, fine: int, held: list[int]) -> None:
    """Whatever positions were kept before, also such as cannot have been."""
    fold = folding()
    assert fold is not None
    values = np.array(errors)
    before = Folded(np.array(held, dtype=np.int64), np.arange(len(held), dtype=np.float64), 0.3, 0.1)
    ours, theirs = fold(values, first, fine, before), fold_in_numpy(values, first, fine, before)
    assert ours.positions.tolist() == theirs.positions.tolist()
    assert bits([*ours.totals, ours.total, ours.squares]) == bits([*theirs.totals, theirs.total, theirs.squares])


def test_positions_that_no_state_has_do_no_harm() -> None:
    """A stored state may be anything that its checksum covers: ages overflow, and nothing else happens."""
    fold = folding()
    assert fold is not None
    wild = np.array([-(2**63), -1, 0, 2**63 - 1], dtype=np.int64)
    for first in (2**62, 2**63 - 3, -(2**63)):
        folded = fold(np.ones(2), first, 2, Folded(wild, np.zeros(4), 0.0, 0.0))
        assert set(folded.positions.tolist()) <= {*wild.tolist(), first, first + 1}


def test_wealth_that_no_state_has_does_no_harm() -> None:
    """Nothing, or no number, is bet on like anything else, and fires only if it is the threshold at least."""
    bet = betting()
    assert bet is not None
    for value in (0.0, math.nan):
        wealth = new_wealth(3)
        wealth[:] = [value] * len(wealth)
        assert bet(np.ones(10), 5.0, wealth) == 10
    assert bet(np.ones(10), 5.0, new_wealth(0)) == 10
    assert bet(np.ones(0), 5.0, new_wealth(6)) == 0


def test_what_is_not_what_a_loop_reads_is_refused() -> None:
    """Before any of it is read."""
    bet, fill, fold, step = betting(), filling(), folding(), stepping()
    assert bet and fill and fold and step
    singles, one = np.ones(3, dtype=np.float32), np.ones(1)
    with pytest.raises(TypeError, match="float32"):
        floats(singles)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(TypeError, match="float32"):
        bet(singles, 1.0, new_wealth(6))  # type: ignore[arg-type]  # the same
    for position, window, part in ((0, 10, 3), (10, 10, 5), (-1, 10, 5), (0, 10, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            fill(one, position, 0.0, window, part)
    with pytest.raises(ValueError, match="cannot be"):
        fold(one, 1, 64, Folded(np.zeros(2, dtype=np.int64), one, 0.0, 0.0))
    with pytest.raises(ValueError, match="cannot be"):
        fold(one, 1, 1, Folded(np.zeros(1, dtype=np.int64), one, 0.0, 0.0))
    rule = Rule(np.ones(4).tobytes(), np.ones(4).tobytes(), 0.0, 1.0, 30)
    for at in (2, -1, 9):
        with pytest.raises(ValueError, match="do not fit"):
            step(np.ones(3), rule, at, 1, Climb())


def test_errors_that_are_spread_out_or_fixed_are_read_as_they_are() -> None:
    """A column of a table, or one that nobody may write."""
    fill = filling()
    assert fill is not None
    table = np.arange(12, dtype=np.float64).reshape(6, 2)
    assert fill(table[:, 1], 0, 0.0, 10, 5) == fill(table[:, 1].copy(), 0, 0.0, 10, 5)
    assert fill(np.frombuffer(table.tobytes()), 0, 0.0, 10, 5) == fill(table.ravel(), 0, 0.0, 10, 5)


def test_only_an_array_that_may_be_written_tells_where_it_is() -> None:
    """All of a piece, also an empty one."""
    for array in (np.empty(3), np.empty((2, 0), dtype=np.int64)):
        assert made(array) == array.ctypes.data
    for other in (np.frombuffer(b"12345678"), np.empty((4, 4))[:, ::2]):
        with pytest.raises(TypeError):
            made(other)
