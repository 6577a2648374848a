"""The rows of the join in C against numpy: the same bytes, and nothing but what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from native import ids
from native import rows as native
from streams.effects import PAIR
from streams.fates import Fates, Predicted
from streams.fit import ModelsView
from streams.join import PartitionJoin
from streams.records import EffectSettings
from streams.rows import ROW, PredictionTable, Rows, RowTable
from streams.stretch import Stretch
from streams.values import Ints, Places
from tests.support.limits import make_small
from tests.unit.streams.test_join import Log, Step, logs, told_by
from tests.unit.streams.test_join import settings as limits_of_joins
from tests.unit.streams.test_join import steps as steps_of_joins

pytestmark = pytest.mark.skipif(native.loops() is None, reason="nothing is compiled")

T = TypeVar("T")
SETTINGS = EffectSettings(horizon_ms=50, dedupe_ms=20, dedupe_rows=9, max_pending=9, max_undeclared=0)
seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module", autouse=True)
def small_limits() -> Iterator[None]:
    """Splits and compaction within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


def compiled() -> native.Loops:
    loops = native.loops()
    assert loops is not None
    return loops


def in_python(work: Callable[[], T]) -> T:
    """What it gives without C."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (native, ids):
            patch.setattr(module, "loops", lambda: None)
        return work()


def side_of(rng: np.random.Generator, count: int) -> Stretch:
    """Columns of anything at all, negative zero, NaN and the ends of every type among it."""
    numbers = rng.choice([0.0, -0.0, 1.0, 0.5, np.nan, np.inf, -1e300], size=count)
    edges = np.array([-(2**63), -1, 0, 1, 2**63 - 1], dtype=np.int64)
    return Stretch(
        np.where(rng.random(count) < 0.2, rng.choice(edges, size=count), rng.integers(0, 200, size=count)),
        rng.integers(0, 2**40, size=count),
        rng.integers(0, 2**64 - 1, size=(count, 2), dtype=np.uint64),
        rng.choice(edges, size=count),
        numbers,
        rng.integers(0, 4, size=count, dtype=np.uint8),
        rng.integers(-(2**31), 2**31 - 1, size=count, dtype=np.int32),
        rng.random(count) < 0.1,
    )


def table_of(rng: np.random.Generator, count: int) -> PredictionTable:
    """Rows in any states, a time apart that matters or none; it is full to the last row."""
    table = PredictionTable()
    rows = side_of(rng, count).rows(np.arange(count))
    rows["offset"] = np.cumsum(rng.choice([1, 1, 1, 2, 40], size=count))
    table.replace(rows, rng.integers(0, 4, size=count, dtype=np.uint8))
    table.joined_ms[:count] = rng.integers(0, 200, size=count)
    return table


@profile(max_examples=100, deadline=None)
@given(seed=seeds, count=st.integers(0, 40))
def test_rows_are_filled_with_the_same_bytes(seed: int, count: int) -> None:
    """Any of the events, in any order, also twice; what no field covers is zero."""
    rng = np.random.default_rng(seed)
    side = side_of(rng, count)
    at = rng.integers(0, max(1, count), size=count)
    assert side.rows(at).tobytes() == in_python(lambda: side.rows(at)).tobytes()


@profile(max_examples=200, deadline=None)
@given(seed=seeds, count=st.integers(0, 60))
def test_offsets_are_found_where_they_are_or_would_be(seed: int, count: int) -> None:
    """With gaps of any size, looked for in any order, before the first and behind the last."""
    rng = np.random.default_rng(seed)
    table = RowTable()
    rows = np.zeros(count, dtype=ROW)
    far = rng.random() < 0.3
    rows["offset"] = np.sort(rng.integers(*((-(2**63), 2**63 - 1) if far else (-20, 90)), size=count))
    rows["offset"] = np.unique(np.append(rows["offset"], np.arange(200, 200 + count)))[:count]
    table.replace(rows, np.ones(count, dtype=np.uint8))
    wanted = np.concatenate([rows["offset"], rng.integers(-40, 300, size=40), [-(2**63), 2**63 - 1]])
    rng.shuffle(wanted)
    assert table.at(wanted).tolist() == in_python(lambda: table.at(wanted)).tolist()


@profile(max_examples=100, deadline=None)
@given(seed=seeds, count=st.integers(0, 40))
def test_rows_move_to_the_front_of_their_own_table_or_of_another(seed: int, count: int) -> None:
    """Whole, with what no field covers."""
    rng = np.random.default_rng(seed)
    rows: Rows = np.frombuffer(rng.bytes(count * ROW.itemsize), dtype=ROW).copy()
    kept = np.flatnonzero(rng.random(count) < 0.6)
    expected = b"".join(rows[row : row + 1].tobytes() for row in kept.tolist())
    other = np.zeros(len(kept), dtype=ROW)
    compiled().move(other, rows, kept)
    compiled().move(rows, rows, kept)
    assert other.tobytes() == rows[: len(kept)].tobytes() == expected


@profile(max_examples=100, deadline=None)
@given(seed=seeds, count=st.integers(0, 40), outcomes=st.integers(0, 40))
def test_pairs_and_what_a_table_remembers_of_them_are_the_same_bytes(seed: int, count: int, outcomes: int) -> None:
    """Any outcomes with any rows."""

    def pair_up() -> tuple[bytes, ...]:
        rng = np.random.default_rng(seed)
        join = PartitionJoin(SETTINGS)
        table = join.predictions = table_of(rng, count)
        side = side_of(rng, outcomes)
        partners = rng.permutation(count)[: min(count, outcomes)]
        at = rng.permutation(outcomes)[: len(partners)]
        pairs = join._pairs(side, at, partners)
        columns = table.states, table.joined_ms, table.outcomes, table.outcome_kinds
        return pairs.tobytes(), *(column.tobytes() for column in columns), bytes([table.waiting % 256])

    assert pair_up() == in_python(pair_up)


@profile(max_examples=100, deadline=None)
@given(seed=seeds, rows=st.integers(1, 12), count=st.integers(0, 40))
def test_rows_are_named_first_at_the_same_places(seed: int, rows: int, count: int) -> None:
    """However often each is named, and whatever the marks were before."""
    rng = np.random.default_rng(seed)
    table = PredictionTable()
    table._marks = rng.integers(0, 40, size=rows)
    named = rng.integers(0, rows, size=count)
    assert table.first_of(named).tolist() == in_python(lambda: table.first_of(named)).tolist()


@profile(max_examples=300, deadline=None)
@given(seed=seeds, count=st.integers(1, 40), outcomes=st.integers(0, 40))
def test_outcomes_meet_the_same_fates(seed: int, count: int, outcomes: int) -> None:
    """Of rows in any state and of any time, some of them new, some outcomes undecodable, some of no prediction."""
    rng = np.random.default_rng(seed)
    table = table_of(rng, count)
    fates = Fates(SETTINGS, table, RowTable(), ModelsView(Places()))
    side = side_of(rng, outcomes)
    owners = rng.integers(-1, count, size=outcomes)
    start = int(rng.integers(0, count + 1))
    predicted = Predicted(start, meets=rng.random(count - start) < 0.3)
    ours, before, early = fates._met(side, owners, predicted)
    theirs = in_python(lambda: fates._met(side, owners, predicted))
    assert (ours.tolist(), before.tolist(), early) == (theirs[0].tolist(), theirs[1].tolist(), theirs[2])


@profile(max_examples=100, deadline=None)
@given(log=logs(), limits=limits_of_joins, plan=st.lists(steps_of_joins, max_size=16))
def test_joins_say_the_same_in_c_and_in_python(log: Log, limits: EffectSettings, plan: list[Step]) -> None:
    """Everything that a partition publishes, and its cuts, from the same log read in the same way."""
    ours, driver = told_by(log, limits, plan)
    theirs, other = in_python(lambda: told_by(log, limits, plan))
    assert (ours, driver.cuts) == (theirs, other.cuts)


# ------------------------------------------------------------------------------------------------------ what is refused

BEYOND = [np.array([0, 5, 1]), np.array([-1, 0, 1]), np.array([0, 1, 2**63 - 1]), np.array([-(2**63), 0, 1])]


@pytest.mark.parametrize("at", BEYOND)
def test_a_row_that_is_not_there_is_never_looked_at(at: Ints) -> None:
    """Every number is compared with what there is."""
    rng = np.random.default_rng(1)
    side, table = side_of(rng, 5), table_of(rng, 5)
    good = np.arange(3)
    rows, pairs = np.zeros(3, dtype=ROW), np.zeros(3, dtype=PAIR)
    outcomes = side.offsets, side.at_ms, side.event_ms, side.numbers, side.kinds
    remembered = table.states[:5].copy(), table.joined_ms[:5].copy(), table.outcomes[:5].copy()
    calls: list[Callable[[], object]] = [
        lambda: side.rows(at),
        lambda: compiled().move(rows, table.rows[:5], at),
        lambda: compiled().pairs(pairs, table.rows[:5], at, good, *outcomes),
        lambda: compiled().pairs(pairs, table.rows[:5], good, at, *outcomes),
        lambda: compiled().join(*remembered, np.zeros(5, dtype=np.uint8), at, pairs),
        lambda: compiled().first(np.zeros(5, dtype=np.int64), at),
    ]
    for call in calls:
        with pytest.raises(IndexError, match="not there"):
            call()


def test_an_outcome_of_a_row_that_is_not_there_is_refused() -> None:
    """Of one beyond the table, and of a new one that nothing was told of."""
    rng = np.random.default_rng(1)
    table = table_of(rng, 5)
    side = side_of(rng, 3)
    side.bad[:] = False
    fates = Fates(SETTINGS, table, RowTable(), ModelsView(Places()))
    for owners, start, told in (([0, 1, len(table.rows)], 5, 0), ([0, 1, 4], 3, 1)):
        with pytest.raises(IndexError, match="not there"):
            fates._met(side, np.array(owners), Predicted(start, meets=np.ones(told, dtype=np.bool_)))


def test_columns_of_other_lengths_are_refused() -> None:
    """Rows, pairs and columns belong together."""
    rng = np.random.default_rng(1)
    side, table = side_of(rng, 5), table_of(rng, 5)
    at = np.arange(5)
    outcomes = side.offsets, side.at_ms, side.event_ms, side.numbers
    few = np.zeros(4, dtype=ROW)
    calls: list[Callable[[], object]] = [
        lambda: compiled().fill(few, at, side.keys, *outcomes, side.refs, side.kinds),
        lambda: compiled().fill(np.zeros(5, dtype=ROW), at, side.keys[:4], *outcomes, side.refs, side.kinds),
        lambda: compiled().move(few, table.rows, at),
        lambda: compiled().pairs(np.zeros(4, dtype=PAIR), table.rows, at, at, *outcomes, side.kinds),
        lambda: compiled().pairs(np.zeros(5, dtype=PAIR), table.rows, at, at, *outcomes, side.kinds[:4]),
        lambda: table.pair(at, np.zeros(4, dtype=PAIR)),
        lambda: table.pair(at, np.zeros(5, dtype=ROW)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\d"):
            call()
