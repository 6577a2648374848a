"""The hash table in C against that in numpy: the same operations, the same answers, whatever collides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from native import ids
from streams import id_index
from streams.id_index import IdIndex, Ints, Keys, Written
from streams.rows import ROW, Rows

pytestmark = pytest.mark.skipif(ids.loops() is None, reason="nothing is compiled")

WORD = 1 << 64
MIX, GOLDEN = int(id_index._MIX), int(id_index._GOLDEN)
ROOM = 64


@pytest.fixture(scope="module", autouse=True)
def small_table() -> Iterator[None]:
    """Wraps around within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_index, "MINIMUM_SLOTS", 16)
        patch.setattr(id_index, "PROBES", 3)
        yield


def compiled() -> ids.Loops:
    loops = ids.loops()
    assert loops is not None
    return loops


def key_with(hashed: int, second: int) -> tuple[int, int]:
    """The key whose hash is ``hashed`` and whose second half is ``second``: the hash, step by step back."""
    mixed = hashed * pow(MIX, -1, WORD) % WORD
    mixed ^= mixed >> 29 ^ mixed >> 58
    return mixed * pow(GOLDEN, -1, WORD) % WORD ^ second * MIX % WORD, second


def keys_of(names: Sequence[int]) -> Keys:
    """Names below 100 have one of two homes (the last slots of any table) and one of two tags; others any."""
    keys = [
        key_with(WORD - 1 - (name % 2 << 60) - (name // 2 % 2), name) if name < 100 else (name, name * MIX % WORD)
        for name in names
    ]
    return np.array(keys, dtype=np.uint64).reshape(-1, 2)


def test_the_hash_can_be_chosen() -> None:
    """So that the names below do collide."""
    home, tags = IdIndex()._hash(keys_of(range(8)))
    assert home.tolist() == [15, 14] * 4
    assert len(set(tags.tolist())) == 2


class Both:
    """Two tables over the same rows, one in C and one in numpy."""

    def __init__(self) -> None:
        self.c, self.numpy = IdIndex(), IdIndex()
        self.numpy._loops = None
        self.rows: Rows = np.zeros(ROOM, dtype=ROW)
        self.end = 0
        for index in (self.c, self.numpy):
            index.rebuild(self.rows["key"][:0], ROOM)

    def insert(self, names: Sequence[int]) -> tuple[Written, Written]:
        keys = keys_of(names)
        first, self.end = self.end, self.end + len(names)
        self.rows["key"][first : self.end] = keys
        ours, theirs = (index.insert(keys, self.rows["key"], first) for index in (self.c, self.numpy))
        assert ours.repeated.tolist() == sorted(theirs.repeated.tolist())
        return ours, theirs

    def rebuild(self) -> None:
        for index in (self.c, self.numpy):
            index.rebuild(self.rows["key"][: self.end], ROOM)

    def check(self, names: Sequence[int]) -> None:
        found = [index.find(keys_of(names), self.rows["key"]).tolist() for index in (self.c, self.numpy)]
        assert found[0] == found[1]


names = st.one_of(st.integers(0, 12), st.integers(100, 112))
steps = st.lists(st.tuples(st.sampled_from(["insert", "insert", "undo", "rebuild"]), st.lists(names, max_size=9)))


@profile(max_examples=200, deadline=None)
@given(plan=steps)
def test_both_tables_answer_the_same(plan: list[tuple[str, list[int]]]) -> None:
    """After any insertions, insertions taken back and rebuilding."""
    both = Both()
    for verb, batch in plan:
        if both.end + len(batch) > ROOM:
            break
        if verb == "rebuild":
            both.rebuild()
        else:
            start = both.end
            written = both.insert(batch)
            both.check(batch)
            if verb == "undo":
                both.c.undo(written[0])
                both.numpy.undo(written[1])
                both.end = start
        both.check([*range(16), *range(100, 116)])


@pytest.mark.parametrize("count", [1, 255, 256, 257, 3_000])
def test_both_tables_answer_the_same_of_many_rows(count: int) -> None:
    """More keys than are looked ahead for together; a third of them are there twice, and some in older rows."""
    rng = np.random.default_rng(count)
    rows = np.zeros(2 * count, dtype=ROW)
    rows["key"] = rng.integers(0, 1 + count // 3, size=(2 * count, 1), dtype=np.uint64)
    answers: list[list[list[int]]] = []
    for loops in (compiled(), None):
        index = IdIndex()
        index._loops = loops
        index.rebuild(rows["key"][:count], 2 * count)
        found = [index.find(rows["key"], rows["key"]).tolist()]
        written = index.insert(rows["key"][count:], rows["key"], count)
        found += [index.find(rows["key"], rows["key"]).tolist(), sorted(written.repeated.tolist())]
        index.undo(written)
        answers.append([*found, index.find(rows["key"], rows["key"]).tolist()])
    assert answers[0] == answers[1]


def test_a_full_table_ends_every_search() -> None:
    """What is there is found, what is not is not, and there is no room for more."""
    slots: Ints = np.zeros(16, dtype=np.int64)
    rows = keys_of([*range(17)])
    compiled().insert(slots, MIX, rows, rows[:16], 0)
    assert compiled().find(slots, MIX, rows, rows).tolist() == [*range(16), -1]
    with pytest.raises(OverflowError, match="16 slots are full"):
        compiled().insert(slots, MIX, rows, rows[16:], 16)
    with pytest.raises(OverflowError, match="16 slots are full"):
        compiled().rebuild(np.zeros(16, dtype=np.int64), MIX, rows)


@profile(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(1, 6))
def test_whatever_the_slots_hold_nothing_else_is_read_or_written(seed: int, rows: int) -> None:
    """Rows that are not there, tags of anything: an answer is a row or none, and what is around stays as it was."""
    rng = np.random.default_rng(seed)
    around = rng.integers(-(2**63), 2**63 - 1, size=24, dtype=np.int64)
    slots, before = around[4:20], around.copy()
    keys = keys_of(rng.integers(0, 8, size=rows).tolist())
    _, tags = IdIndex()._hash(keys)
    slots[rng.integers(0, 16, size=8)] = rng.choice(tags, size=8) | rng.integers(0, 9, size=8)
    found = compiled().find(slots, MIX, keys, keys)
    assert ((found >= -1) & (found < rows)).all()
    try:
        written, held, repeated = compiled().insert(slots, MIX, keys, keys, 0)
        assert len(written) + len(repeated) == rows
        slots[written] = held
    except OverflowError:
        pass
    assert around[:4].tolist() == before[:4].tolist()
    assert around[20:].tolist() == before[20:].tolist()


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    """Before anything is looked at."""
    slots, keys = np.zeros(16, dtype=np.int64), keys_of([1, 2, 3])
    with pytest.raises(ValueError, match="more than the 3 rows"):
        compiled().insert(slots, MIX, keys, keys, 1)
    with pytest.raises(ValueError, match="more than the 3 rows"):
        compiled().insert(slots, MIX, keys, keys, -1)
    for wrong in (slots[:12], slots[:1], slots[:0]):
        with pytest.raises(ValueError, match="power of two"):
            compiled().find(wrong, MIX, keys, keys)
    with pytest.raises(ValueError, match="rows of 2"):
        compiled().find(slots, MIX, keys, keys.view(np.int64).astype(np.int64))
