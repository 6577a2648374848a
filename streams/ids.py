"""Prediction ids as 16 bytes: a canonical UUID is parsed, anything else is hashed to 128 bits."""

from __future__ import annotations

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
