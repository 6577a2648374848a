"""Tables of rows: found by id, by offset and by age, before and after they were compacted."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from streams import id_index
from streams import rows as rows_module
from streams.effects import PAIR
from streams.id_index import Keys
from streams.rows import EXPIRED, GONE, JOINED, ROW, WAITING, PredictionTable, Rows, RowTable
from streams.values import Ints


@pytest.fixture(scope="module", autouse=True)
def small_tables() -> Iterator[None]:
    """Compaction and growth within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "MINIMUM_ROWS", 4)
        patch.setattr(id_index, "MINIMUM_SLOTS", 8)
        yield


def keys_of(names: Sequence[int]) -> Keys:
    return np.array([(name, name) for name in names], dtype=np.uint64).reshape(-1, 2)


def made(names: Sequence[int], first: int = 0, at_ms: int | None = None) -> Rows:
    """Rows of ids with offsets from ``first`` on, each at 10 × its offset unless told."""
    rows = np.zeros(len(names), dtype=ROW)
    rows["key"] = keys_of(names)
    rows["offset"] = np.arange(first, first + len(names))
    rows["at_ms"] = 10 * rows["offset"] if at_ms is None else at_ms
    return rows


def add(table: RowTable, names: Sequence[int], first: int = 0) -> None:
    table.reserve(len(names))
    table.append(made(names, first))


def offsets(table: RowTable, rows: Ints) -> list[int]:
    found: list[int] = table.rows["offset"][rows].tolist()
    return found


def numbers(*rows: int) -> Ints:
    return np.array(rows, dtype=np.int64)


def outcomes(joined_ms: Sequence[int], values: Sequence[float], kinds: Sequence[int]) -> Rows:
    """Pairs, of which only what a table remembers is set."""
    pairs = np.zeros(len(joined_ms), dtype=PAIR)
    pairs["joined_ms"], pairs["outcome"], pairs["outcome_kind"] = joined_ms, values, kinds
    return pairs


def test_compaction_keeps_what_is_not_gone() -> None:
    """Ids and offsets are found in their new places; what is gone is not found any more."""
    table = RowTable()
    add(table, [1, 2, 3, 4])
    table.leave(table.find(keys_of([1, 3])))
    add(table, [5, 6, 7, 8, 9], first=4)
    assert offsets(table, table.find(keys_of([2, 4, 5, 9]))) == [1, 3, 4, 8]
    assert table.find(keys_of([1, 3, 99])).tolist() == [-1, -1, -1]
    assert table.at(numbers(3, 8)).tolist() == table.find(keys_of([4, 9])).tolist()
    assert (table.end, table.waiting) == (7, 7)


def test_of_equal_ids_the_first_of_an_addition_and_the_newest_of_several_is_found() -> None:
    """A repeated row is gone at once; an older one is left to the caller."""
    table = RowTable()
    add(table, [1, 2, 1])
    assert offsets(table, table.find(keys_of([1, 2]))) == [0, 1]
    assert (table.waiting, table.states[:3].tolist()) == (2, [WAITING, WAITING, GONE])
    add(table, [2], first=3)
    assert offsets(table, table.find(keys_of([2]))) == [3]
    assert table.waiting == 3


def test_an_addition_taken_back_leaves_no_trace() -> None:
    """Older rows of the same ids are found again, and others come in its place."""
    table = RowTable()
    add(table, [1, 2])
    table.reserve(3)
    start = table.end
    written = table.append(made([2, 3, 3], first=2))
    table.undo(start, written)
    assert offsets(table, table.find(keys_of([1, 2]))) == [0, 1]
    assert table.find(keys_of([3])).tolist() == [-1]
    assert (table.end, table.waiting) == (2, 2)
    table.append(made([3], first=9))
    assert offsets(table, table.find(keys_of([3]))) == [9]
    assert offsets(table, table.select(WAITING)) == [0, 1, 9]


def test_rows_are_due_once_and_the_limit_is_not_yet() -> None:
    """Earlier than the limit, oldest first, only those that wait; also across a compaction."""
    table = RowTable()
    add(table, [1, 2, 3, 4])
    table.leave(table.find(keys_of([2])))
    due = table.due(20)
    assert offsets(table, due) == [0]
    table.leave(due)
    add(table, [5, 6], first=4)
    assert offsets(table, table.oldest(2)) == [2, 3]
    assert offsets(table, table.due(41)) == [2, 3, 4]
    assert offsets(table, table.oldest(5)) == [5]


def test_what_was_stored_stays_known_across_a_compaction() -> None:
    """A checkpoint writes the rows behind it, and removals of those before it."""
    table = RowTable()
    add(table, [1, 2, 3])
    table.stored = table.end
    table.leave(table.find(keys_of([1, 3])))
    add(table, [4, 5, 6], first=3)
    assert offsets(table, table.select(WAITING, table.stored)) == [3, 4, 5]
    assert table.stored == 1


def test_taking_over_rows_starts_over() -> None:
    """All of them count as stored, and of rows with one id the last is found."""
    table = PredictionTable()
    add(table, [9, 8])
    rows = made([1, 2, 1, 3], first=5)
    table.replace(rows, np.array([JOINED, WAITING, WAITING, EXPIRED], dtype=np.uint8))
    assert offsets(table, table.find(keys_of([1, 2, 3]))) == [7, 6, 8]
    assert table.find(keys_of([9])).tolist() == [-1]
    assert (table.stored, table.end, table.waiting, table.expired) == (4, 4, 2, 1)
    assert offsets(table, table.due(1_000)) == [6, 7]
    assert offsets(table, table.expired_before(1_000)) == [8]


def test_outcomes_of_pairs_move_with_their_rows() -> None:
    """What a pair remembers is beside its row, also after a compaction."""
    table = PredictionTable()
    add(table, [1, 2, 3, 4])
    table.pair(table.find(keys_of([2, 4])), outcomes([70, 80], [0.5, 1.5], [1, 2]))
    table.leave(table.find(keys_of([1])))
    add(table, [5, 6], first=4)
    at = table.find(keys_of([2, 4]))
    assert table.states[at].tolist() == [JOINED, JOINED]
    assert (table.joined_ms[at].tolist(), table.outcomes[at].tolist()) == ([70, 80], [0.5, 1.5])
    assert table.outcome_kinds[at].tolist() == [1, 2]
    assert table.waiting == 3


def test_where_a_row_is_named_first() -> None:
    """Rows may be named again and again, in any order."""
    table = PredictionTable()
    add(table, [1, 2, 3, 4])
    assert table.first_of(numbers(2, 0, 2, 3, 0)).tolist() == [True, True, False, True, False]
    assert table.first_of(numbers()).tolist() == []


@dataclass
class Naive:
    """A row of the model."""

    name: int
    offset: int
    at_ms: int
    state: int


def in_state(model: Sequence[Naive], state: int, before_ms: int | None = None) -> list[int]:
    return [row.offset for row in model if row.state == state and (before_ms is None or row.at_ms < before_ms)]


@pytest.mark.parametrize("seed", range(60))
def test_a_table_is_a_list_of_rows(seed: int) -> None:
    """Random additions, pairs, expiry and forgetting, against a list that is searched from end to end."""
    rng = random.Random(seed)
    table, model = PredictionTable(), list[Naive]()
    by_id: dict[int, Naive] = {}
    offset, now_ms = 0, 0
    for _ in range(60):
        verb = rng.choice(["add", "add", "pair", "expire", "due", "forget", "oldest"])
        if verb == "add":
            names = [rng.randrange(40) for _ in range(rng.randrange(5))]
            now_ms += rng.choice([0, 1, 30])
            table.reserve(len(names))
            table.append(made(names, offset, now_ms))
            batch: set[int] = set()
            for name in names:
                row = Naive(name, offset, now_ms, GONE if name in batch else WAITING)
                model.append(row)
                if name not in batch:
                    by_id[name] = row
                batch.add(name)
                offset += 1
        elif verb == "pair":
            picked = [row for row in model if row.state == WAITING and rng.random() < 0.4]
            table.pair(
                table.at(numbers(*(row.offset for row in picked))),
                outcomes([row.offset * 3 for row in picked], [row.offset / 4 for row in picked], [1] * len(picked)),
            )
            for row in picked:
                row.state = JOINED
        elif verb in ("expire", "due"):
            limit = now_ms - rng.choice([0, 20, 100])
            due = table.due(limit)
            assert offsets(table, due) == in_state(model, WAITING, limit)
            table.expire(due)
            for row in model:
                if row.state == WAITING and row.at_ms < limit:
                    row.state = EXPIRED
        elif verb == "forget":
            limit = now_ms - rng.choice([0, 50, 200])
            old = table.expired_before(limit)
            assert offsets(table, old) == in_state(model, EXPIRED, limit)
            table.forget_expired(old)
            for row in model:
                if row.state == EXPIRED and row.at_ms < limit:
                    row.state = GONE
        else:
            count = rng.randrange(4)
            assert offsets(table, table.oldest(count)) == in_state(model, WAITING)[:count]
            early = table.oldest(count)
            table.expire(early)
            gone = set(in_state(model, WAITING)[:count])
            for row in model:
                if row.offset in gone:
                    row.state = EXPIRED
            assert offsets(table, table.oldest_expired(2)) == in_state(model, EXPIRED)[:2]
        for state in (WAITING, JOINED, EXPIRED):
            assert offsets(table, table.select(state)) == in_state(model, state)
        assert (table.waiting, table.expired) == (len(in_state(model, WAITING)), len(in_state(model, EXPIRED)))
        joined = table.select(JOINED)
        assert table.joined_ms[joined].tolist() == [3 * each for each in offsets(table, joined)]
        assert table.outcomes[joined].tolist() == [each / 4 for each in offsets(table, joined)]
        for name, row in by_id.items():
            if row.state != GONE:
                (found,) = table.find(keys_of([name])).tolist()
                assert offsets(table, numbers(found)) == [row.offset]
