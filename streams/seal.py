"""The frame of every blob in the store: a mark, a format, the length and a checksum, so that damage is seen.

What does not open is never trusted: the state is rebuilt from the log (:mod:`streams.rebuilding`).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from streams.errors import StateMismatch

MAGIC = b"DL"
FORMAT = 1
_HEADER = struct.Struct(">2sBII")  # magic, format, length of the payload in bytes, CRC-32 of format, length and payload
_SUMMED = struct.Struct(">BI")


class Damaged(Exception):
    """Stored bytes are not those that were written: rebuild the state they belong to."""


def seal(payload: bytes) -> bytes:
    """The payload in its frame, eleven bytes longer."""
    return _HEADER.pack(MAGIC, FORMAT, len(payload), _sum(FORMAT, payload)) + payload


def open_sealed(sealed: bytes) -> bytes:
    """The payload of a frame.

    Raises :class:`Damaged` if a byte is missing, added or wrong, :class:`StateMismatch` if a newer release wrote it.
    """
    if len(sealed) < _HEADER.size:
        raise Damaged(f"a blob has {len(sealed)} bytes, fewer than its frame")
    magic, version, length, checksum = _HEADER.unpack_from(sealed)
    payload = sealed[_HEADER.size :]
    if magic != MAGIC:
        raise Damaged("a blob does not begin with its mark")
    if len(payload) != length:
        raise Damaged(f"a blob should carry {length} bytes and carries {len(payload)}")
    if _sum(version, payload) != checksum:
        raise Damaged("the checksum of a blob is wrong")
    if version > FORMAT:
        raise StateMismatch(
            f"a blob in the store has format {version}, newer than {FORMAT}", "run the release that wrote it"
        )
    return payload


def checksum_of(fields: Mapping[str, bytes]) -> bytes:
    """A checksum over the names and values of a hash, in whatever order they come."""
    total = 0
    for name in sorted(fields):
        encoded = name.encode()
        total = zlib.crc32(b"%d:%b%d:%b" % (len(encoded), encoded, len(fields[name]), fields[name]), total)
    return b"%08x" % total


def _sum(version: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_SUMMED.pack(version, len(payload))))
