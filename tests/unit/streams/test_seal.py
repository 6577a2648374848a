"""The frame of a stored blob: what was written comes back, and any damage is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import seal as seal_module
from streams.errors import StateMismatch
from streams.seal import Damaged, checksum_of, open_sealed, seal


@given(st.binary(max_size=200))
def test_what_was_sealed_is_opened(payload: bytes) -> None:
    """Byte by byte, the empty blob too."""
    assert open_sealed(seal(payload)) == payload


@given(st.binary(min_size=1, max_size=60), st.data())
def test_any_damage_is_told(payload: bytes, data: st.DataObject) -> None:
    """A bit that flips, a byte that is missing or added, bytes of something else."""
    sealed = seal(payload)
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    flipped = bytearray(sealed)
    flipped[bit // 8] ^= 1 << bit % 8
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for damaged in (bytes(flipped), sealed[:cut], sealed + b"x", payload):
        with pytest.raises(Damaged):
            open_sealed(damaged)


def test_a_newer_format_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not be rebuilt over: the release that wrote it can read it."""
    monkeypatch.setattr(seal_module, "FORMAT", 2)
    newer = seal(b"state")
    monkeypatch.undo()
    with pytest.raises(StateMismatch, match="newer"):
        open_sealed(newer)


def test_the_checksum_of_a_hash_sees_names_and_values() -> None:
    """Order says nothing; where a name ends and its value begins does."""
    assert checksum_of({"a": b"1", "b": b"2"}) == checksum_of({"b": b"2", "a": b"1"})
    different = [{"a": b"1"}, {"a": b"2"}, {"b": b"1"}, {"a1": b""}, {"a": b"", "b": b"1"}, {}]
    assert len({checksum_of(fields) for fields in different}) == len(different)
