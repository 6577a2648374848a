"""Ids as 16 bytes that never stand for two strings."""

from __future__ import annotations

import uuid

from hypothesis import example, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams.ids import compact_id, id_keys

UUID = "0189e6d0-7c3f-7a4b-8c55-2f2d5f2f5f01"


@profile(deadline=None)
@given(st.uuids())
def test_a_canonical_uuid_is_parsed(found: uuid.UUID) -> None:
    """Its bytes are those that any other tool shows."""
    assert compact_id(str(found)) == found.bytes


def test_another_spelling_of_a_uuid_is_another_id() -> None:
    """Producers that spell an id in two ways have two ids, as everywhere else in Kafka."""
    spellings = [UUID, UUID.upper(), UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}", f" {UUID}"]
    assert len({compact_id(text) for text in spellings}) == len(spellings)


hexadecimal = st.text("0123456789abcdef -\t\n", min_size=36, max_size=36)


@profile(max_examples=200, deadline=None)
@given(st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), hexadecimal))
@example("        -    -    -    -            ")
@example("ab cdef0-1234-1234-1234-123456789abc")
def test_every_id_has_sixteen_bytes(text: str) -> None:
    """Rows are stored with them, so a shorter one would be another id's."""
    assert len(compact_id(text)) == 16


def test_blanks_between_digits_do_not_make_two_ids_one() -> None:
    """``bytes.fromhex`` skips blanks: such ids are hashed."""
    one, other = "ab  cdef-0123-0123-0123-0123456789ab", "abcd  ef-0123-0123-0123-0123456789ab"
    assert compact_id(one) != compact_id(other)


uuids = st.uuids().map(str)
texts = st.one_of(
    uuids, uuids.map(str.upper), hexadecimal, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
)


@profile(deadline=None)
@given(st.lists(uuids) | st.lists(texts))
@example([UUID, "ab cdef0-1234-1234-1234-123456789abc"])
@example([UUID, UUID.replace("-", "")])
@example([UUID, UUID.upper()])
@example([UUID[:35], UUID + "0"])  # together as long as two
def test_ids_at_once_are_ids_one_by_one(ids: list[str]) -> None:
    """Whatever they look like, none at all too: one that is no UUID does not change the others."""
    keys = id_keys(ids)
    assert keys.shape == (len(ids), 2)
    assert keys.tobytes() == b"".join(map(compact_id, ids))
