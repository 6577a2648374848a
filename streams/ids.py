"""Prediction ids as 16 bytes: a canonical UUID is parsed, anything else is hashed to 128 bits."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

ID_BYTES = 16
UUID_CHARACTERS = 36


def compact_id(text: str) -> bytes:
    """16 bytes that stand for ``text``.

    Only the canonical spelling of a UUID (lower case) is parsed, so that two different strings never share bytes by
    spelling; the chance of a collision of two hashes among 10⁹ ids is about 10⁻²¹.
    """
    if len(text) == UUID_CHARACTERS and text[8] == text[13] == text[18] == text[23] == "-":
        digits = text.replace("-", "")
        if len(digits) == UUID_CHARACTERS - 4 and digits == digits.lower():
            try:
                parsed = bytes.fromhex(digits)
            except ValueError:
                parsed = b""  # 36 characters with dashes in place, but not hexadecimal: hash it
            if len(parsed) == ID_BYTES:  # fewer where blanks were skipped
                return parsed
    return blake2b(text.encode(), digest_size=ID_BYTES).digest()


def compact_ids(texts: Sequence[str]) -> list[bytes]:
    """:func:`compact_id` of each: canonical UUIDs, the usual case, are parsed all at once."""
    if set(map(len, texts)) == {UUID_CHARACTERS}:
        joined = "".join(texts)
        digits = joined.replace("-", "")
        dashes = "-" * len(texts)
        placed = all(joined[at::UUID_CHARACTERS] == dashes for at in (8, 13, 18, 23))
        if placed and len(digits) == 2 * ID_BYTES * len(texts) and digits == digits.lower():
            try:
                parsed = bytes.fromhex(digits)
            except ValueError:
                parsed = b""  # one of them is not hexadecimal
            if len(parsed) == ID_BYTES * len(texts):
                return [parsed[at : at + ID_BYTES] for at in range(0, len(parsed), ID_BYTES)]
    return list(map(compact_id, texts))
