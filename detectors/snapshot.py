"""The envelope of every stored state: format version, length and checksum around explicit fields.

A corrupted state of River's ADWIN is accepted silently in a third of the cases, and otherwise panics inside Rust. So
nothing reaches a detector before its bytes are known to be those that were written.
"""

import struct
import zlib
from typing import Protocol, TypeVar

import msgspec


class Structured(Protocol):
    """The state of a detector, which says of which structure it is."""

    @property
    def structure(self) -> str:
        """What the statistic depends on; thresholds are not part of it."""


Fields = TypeVar("Fields")
Shaped = TypeVar("Shaped", bound=Structured)

MAGIC = b"DS"
HEADER = struct.Struct(">2sHI")  # magic, format version, length of the payload in bytes
CHECKSUM = struct.Struct(">I")  # CRC-32 of header and payload: it finds every burst of up to 32 bits


class SnapshotError(ValueError):
    """The bytes are not a state that this release can read; nothing was changed.

    Stop and restore the bytes from a backup, or drop the state and let it be learnt again.
    """


def seal(version: int, fields: object) -> bytes:
    """Bytes of `fields` (anything msgpack can carry) in format `version`."""
    payload = msgspec.msgpack.encode(fields)
    header = HEADER.pack(MAGIC, version, len(payload))
    return header + CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(header))) + payload


def unseal(sealed: bytes, newest: int) -> tuple[int, bytes]:
    """(format version, payload) of sealed bytes; `newest` is the highest version the caller can read.

    Raises SnapshotError if a byte is missing, added or wrong, or if a newer release wrote them.
    """
    start = HEADER.size + CHECKSUM.size
    if len(sealed) < start:
        raise SnapshotError(f"the snapshot has {len(sealed)} bytes, fewer than its header's {start}: it was cut off")
    magic, version, length = HEADER.unpack_from(sealed)
    if magic != MAGIC:
        raise SnapshotError("the snapshot does not begin with its mark: these bytes are something else")
    payload = sealed[start:]
    if len(payload) != length:
        raise SnapshotError(f"the snapshot should carry {length} bytes and carries {len(payload)}")
    (checksum,) = CHECKSUM.unpack_from(sealed, HEADER.size)
    if zlib.crc32(payload, zlib.crc32(sealed[: HEADER.size])) != checksum:
        raise SnapshotError("the snapshot's checksum is wrong: its bytes were damaged")
    if not 1 <= version <= newest:
        raise SnapshotError(
            f"the snapshot has format {version} and this release reads up to {newest}: upgrade before reading it"
        )
    return version, payload


def decode(payload: bytes, kind: type[Fields]) -> Fields:
    """The payload as a `kind` (a msgspec struct or dataclass); raises SnapshotError if it is not one."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.MsgspecError as error:
        raise SnapshotError(f"the snapshot's fields are not those of {kind.__name__}: {error}") from error


def fields_of(sealed: bytes, newest: int, kind: type[Fields]) -> Fields:
    """Unseal and decode in one step, for states that have had one format only."""
    return decode(unseal(sealed, newest)[1], kind)


def fields_like(sealed: bytes, newest: int, kind: type[Shaped], structure: str) -> Shaped:
    """:func:`fields_of`, for a detector of this structure; raises SnapshotError if they are of another."""
    state = fields_of(sealed, newest, kind)
    if state.structure != structure:
        raise SnapshotError(f"the snapshot is of {state.structure!r} and the detector is {structure!r}")
    return state
