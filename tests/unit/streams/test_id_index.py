"""The hash table of ids against a dictionary, with hashes that collide and with the real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams import id_index
from streams.id_index import IdIndex, Ints, Keys

Model = dict[int, int]


@pytest.fixture(scope="module", autouse=True)
def small_table() -> Iterator[None]:
    """Wraps around and grows within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_index, "MINIMUM_SLOTS", 16)
        patch.setattr(id_index, "PROBES", 3)
        yield


def keys_of(names: Sequence[int]) -> Keys:
    """Keys whose halves are never equal, so that swapped ones would show."""
    return np.array([(name, name ^ 0xABCDEF << 20) for name in names], dtype=np.uint64).reshape(-1, 2)


class Colliding(IdIndex):
    """All ids have one of two homes, at the end of the table, and one of two tags. (C has a hash of its own.)"""

    def __init__(self) -> None:
        super().__init__()
        self._loops = None

    def _hash(self, keys: Keys) -> tuple[Ints, Ints]:
        low = keys[:, 0].astype(np.int64)
        return len(self._slots) - 1 - low % 2, (low // 2 % 2) << 32


class Pair:
    """An index with its table of keys, and a dictionary that does the same."""

    def __init__(self, index: IdIndex) -> None:
        self.index = index
        self.rows: list[int] = []
        self.model: Model = {}

    @property
    def table(self) -> Keys:
        return keys_of(self.rows)

    def insert(self, names: Sequence[int]) -> id_index.Written:
        if len(self.rows) + len(names) > self.index.capacity:
            self.rebuild(2 * (len(self.rows) + len(names)))
        first = len(self.rows)
        self.rows += names
        written = self.index.insert(keys_of(names), self.table, first)
        assert sorted(written.repeated.tolist()) == [n for n, name in enumerate(names) if name in names[:n]]
        for row, name in reversed(list(enumerate(names, start=first))):
            self.model[name] = row
        return written

    def rebuild(self, capacity: int) -> None:
        self.index.rebuild(self.table, capacity)
        self.model = {name: row for row, name in enumerate(self.rows)}
        assert self.index.capacity >= capacity

    def check(self, names: Sequence[int]) -> None:
        found = self.index.find(keys_of(names), self.table)
        assert found.tolist() == [self.model.get(name, -1) for name in names]


names = st.integers(0, 24)
batches = st.lists(names, max_size=14)
steps = st.lists(st.tuples(st.sampled_from(["insert", "insert", "insert", "undo", "rebuild"]), batches), max_size=12)


@pytest.mark.parametrize("kind", [IdIndex, Colliding])
@profile(max_examples=150, deadline=None)
@given(plan=steps)
def test_it_finds_what_a_dictionary_finds(kind: type[IdIndex], plan: list[tuple[str, list[int]]]) -> None:
    """After any insertions, insertions taken back, and rebuilding; for ids that are there and ids that are not.

    Of equal ids of one insertion the first is found, of those of several the newest, after a rebuild the last.
    """
    pair = Pair(kind())
    for verb, batch in plan:
        if verb == "rebuild":
            pair.rebuild(len(pair.rows) + len(batch))
        elif verb == "insert":
            pair.insert(batch)
        else:
            if len(pair.rows) + len(batch) > pair.index.capacity:
                pair.rebuild(len(pair.rows) + len(batch))
            before, rows = dict(pair.model), list(pair.rows)
            written = pair.insert(batch)
            pair.check(batch)
            pair.index.undo(written)
            pair.model, pair.rows = before, rows
        pair.check(list(range(30)))


def test_a_full_table_of_real_size_finds_every_row() -> None:
    """As many rows as fit, with random ids, and as many ids that are not there."""
    random = np.random.default_rng(7)
    table = random.integers(0, 2**63, size=(5_000, 2), dtype=np.uint64)
    index = IdIndex()
    index.rebuild(table[:0], len(table))
    for start in range(0, len(table), 700):
        index.insert(table[start : start + 700], table, start)
    assert index.find(table, table).tolist() == list(range(len(table)))
    assert (index.find(table[:, ::-1].copy(), table) == -1).all()


def test_an_empty_table_knows_nothing() -> None:
    """And looking for nothing finds nothing."""
    none = keys_of([])
    index = IdIndex()
    assert index.find(keys_of([1, 2]), none).tolist() == [-1, -1]
    assert index.find(none, none).tolist() == []
    assert index.insert(none, none, 0).repeated.tolist() == []
