"""What C says of pairs against numpy: the same columns, codes and counts, and nothing but what is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from native import pairs as native
from streams import summarise
from streams.catalog import ASSUMED, Positive
from streams.effects import PAIR
from streams.rows import Rows
from streams.summarise import Columns
from streams.values import Ints

pytestmark = pytest.mark.skipif(native.loops() is None, reason="nothing is compiled")

seeds = st.integers(0, 2**32)
EDGES = np.array([-(2**63), -60_001, -1_000, -1, 0, 1, 999, 60_000, 2**53 + 1, 2**63 - 1], dtype=np.int64)
NUMBERS = [0.0, -0.0, 1.0, 2.0, -3.0, 0.5, 1e15, 2.0**63, -(2.0**63), 1e300, np.nan, np.inf, -np.inf]


def compiled() -> native.Loops:
    loops = native.loops()
    assert loops is not None
    return loops


def pairs_of(seed: int, count: int) -> Rows:
    """Pairs of anything at all: the ends of every type, numbers that are none."""
    rng = np.random.default_rng(seed)
    pairs = np.zeros(count, dtype=PAIR)
    for name in ("offset", "at_ms", "event_ms", "outcome_offset", "outcome_at_ms", "outcome_event_ms", "joined_ms"):
        pairs[name] = np.where(rng.random(count) < 0.3, rng.choice(EDGES, count), rng.integers(0, 10**13, count))
    for number, kind in (("number", "kind"), ("outcome", "outcome_kind")):
        pairs[number], pairs[kind] = rng.choice(NUMBERS, count), rng.integers(0, 4, count)
    pairs["ref"] = np.sort(rng.integers(0, 4, count))
    return pairs


@profile(max_examples=200, deadline=None)
@given(seed=seeds, count=st.integers(0, 40))
def test_columns_are_the_same_bytes(seed: int, count: int) -> None:
    """Also of times before 1970 and of numbers that no integer holds."""
    pairs = pairs_of(seed, count)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = summarise._columns(pairs)
    for ours, other in zip(compiled().columns(pairs), theirs, strict=True):
        assert (ours.dtype, ours.tobytes()) == (other.dtype, other.tobytes())


@profile(max_examples=200, deadline=None)
@given(seed=seeds, count=st.integers(0, 5), ordered=st.booleans())
def test_pairs_that_rise_are_told_from_others(seed: int, count: int, ordered: bool) -> None:
    """By ref, then the second of completion, then the outcome's offset, none twice."""
    rng = np.random.default_rng(seed)
    pairs = np.zeros(count, dtype=PAIR)
    pairs["ref"], pairs["joined_ms"] = rng.integers(0, 2, count), rng.integers(-1_500, 1_500, count)
    pairs["outcome_offset"] = rng.integers(0, 3, count)
    keys = [(int(pair["ref"]), int(pair["joined_ms"]) // 1_000, int(pair["outcome_offset"])) for pair in pairs]
    if ordered:
        keys.sort()
        pairs["ref"], seconds, pairs["outcome_offset"] = zip(*keys, strict=True) if keys else ((), (), ())
        pairs["joined_ms"] = np.array(seconds, dtype=np.int64) * 1_000 + 7
    assert compiled().rise(pairs) == (keys == sorted(set(keys)))


@profile(max_examples=200, deadline=None)
@given(seed=seeds, count=st.integers(1, 40))
def test_codes_are_the_same(seed: int, count: int) -> None:
    """Of refs with a positive class that is a number, a text or only assumed, or with none."""
    pairs = pairs_of(seed, count)
    texts = ["no", "yes"]
    bounds = summarise._bounds(pairs["ref"].astype(np.int64))
    positives = {0: Positive(1, declared=True), 1: Positive("yes", declared=True), 2: ASSUMED}
    ours = summarise._codes(pairs, bounds, positives, texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "loops", lambda: None)
        assert ours.tolist() == summarise._codes(pairs, bounds, positives, texts).tolist()


@profile(max_examples=200, deadline=None)
@given(seed=seeds, count=st.integers(0, 60), width=st.integers(1, 5), cells=st.sampled_from([1, 12, 1 << 16]))
def test_counts_are_the_same(seed: int, count: int, width: int, cells: int) -> None:
    """In the same order; of rows that are far apart too, which numpy counts."""
    rng = np.random.default_rng(seed)
    spread = rng.choice(np.array([1, 2, 5, 2**40]), width)
    columns: list[Ints] = [rng.integers(-edge, edge, count) for edge in spread.tolist()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summarise, "DENSE", cells)
        ours = list(summarise._counted(*columns))
        patch.setattr(native, "loops", lambda: None)
        theirs = list(summarise._counted(*columns))
    assert ours == theirs
    assert sum(n for _, n in ours) == count


@pytest.mark.parametrize("values", [[-(2**63), 2**63 - 1], [-(2**63)] * 3, [2**63 - 1, 2**63 - 2]])
def test_numbers_at_the_ends_of_their_type_are_counted(values: list[int]) -> None:
    """The distance of two of them is no int64."""
    found = compiled().counts([np.array(values, dtype=np.int64)], 10)
    if found is not None:
        (low,), (span,), counts = found
        assert {low + at: n for at, n in enumerate(counts.tolist()) if n} == {v: values.count(v) for v in values}
        assert span == len(counts)
    else:
        assert max(values) - min(values) >= 10


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    """Runs beyond the pairs or short of them, columns of other lengths, none at all."""
    pairs = pairs_of(1, 5)
    one, flag = np.ones(1), np.ones(1, dtype=np.bool_)
    for end in (6, 4, -1, 2**63 - 1):
        with pytest.raises(IndexError, match="5 pairs"):
            compiled().codes(pairs, np.array([end]), one, flag, flag)
    none: Ints = np.empty(0, dtype=np.int64)
    for columns in ([none], [np.arange(3), np.arange(2)], [np.arange(6)[::2]]):
        with pytest.raises(ValueError, match=r"rows|int64"):
            compiled().counts(columns, 10)
    with pytest.raises(ValueError, match="104 bytes"):
        compiled().columns(pairs["row"])
    assert len(Columns.of(pairs[:0])) == 0
