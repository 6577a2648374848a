"""Prediction ids as 16 bytes: a canonical UUID is parsed, anything else is hashed to 128 bits."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

ID_BYTES = 16
UUID_CHARACTERS = 36
_DASHES = [8, 13, 18, 23]
_DIGITS = [at for at in range(UUID_CHARACTERS) if at not in _DASHES]


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


def id_keys(texts: Sequence[str]) -> NDArray[np.uint64]:
    """:func:`compact_id` of each, shape (n, 2): canonical UUIDs, the usual case, are parsed all at once."""
    if not texts:
        return np.empty((0, 2), dtype=np.uint64)
    parsed = _parsed(texts)
    if parsed is None:
        parsed = b"".join(map(compact_id, texts))
    return np.frombuffer(parsed, dtype="<u8").reshape(-1, 2)


def _parsed(texts: Sequence[str]) -> bytes | None:
    """Canonical UUIDs as bytes, one behind the other; None if one of them is something else."""
    if set(map(len, texts)) != {UUID_CHARACTERS}:
        return None
    characters = np.frombuffer("".join(texts).encode(), dtype=np.uint8)
    if len(characters) != UUID_CHARACTERS * len(texts):
        return None  # not ASCII
    characters = characters.reshape(-1, UUID_CHARACTERS)
    digits = characters[:, _DIGITS].tobytes()
    if not (characters[:, _DASHES] == ord("-")).all() or digits != digits.lower():
        return None
    try:
        return unhexlify(digits)
    except ValueError:
        return None  # one of them is not hexadecimal
