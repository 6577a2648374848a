"""The log as a worker needs it: records are published, and partitions are read whole.

Kafka's clients (:mod:`streams.kafka`) are one implementation. The stages are given theirs, so that tests can run them
on a log in memory and cut them at every call; both pass one contract suite (``tests/contract/test_log_contract.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from streams.codec import Headers

POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. ``at_ms`` is the record's time: the broker's on our topics."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where the broker put a record, and its record time: the broker's on our topics."""

    topic: str
    partition: int
    offset: int
    at_ms: int


class Publisher(Protocol):
    """Publishes records that cannot be lost quietly: a failed delivery is an error of the next call."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        delivered: Callable[[Delivery], None] | None = None,
    ) -> None:
        """Queue one record, to the partition that murmur2 of its key names unless one is given.

        Records of one partition keep the order in which they were sent. ``delivered`` is called once, when the broker
        has acknowledged the record; perhaps in another thread, and at the latest before :meth:`flush` returns. Raises
        :class:`streams.errors.RestartMe` if an earlier delivery failed.
        """

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait until everything is acknowledged.

        Raises :class:`streams.errors.RestartMe` on a failure or a timeout.
        """


class Reader(Protocol):
    """Reads whole partitions of one topic without a group: history first, then what comes. Not thread-safe."""

    topic: str
    partitions: list[int]
    first_ends: dict[int, int]
    """The offset after the newest record of each partition when the reader was made. An embedded broker may tell a
    lower one."""
    earliest: dict[int, int]
    """The offset of the oldest record of each partition when the reader was made."""
    next: dict[int, int]
    """The offset to be read next of each partition."""
    at_end: dict[int, bool]
    """Whether the last poll found the end of a partition."""

    def ends(self) -> dict[int, int]:
        """The offset after the newest record of each partition, asked of the broker now."""

    def poll(self, timeout_s: float = POLL_S) -> list[Record]:
        """The next records of any partition, as soon as there is one; an empty list after at most ``timeout_s``.

        Raises :class:`streams.errors.Unavailable` when the partitions cannot be read.
        """

    def read_to_end(self, timeout_s: float = 120.0) -> Iterator[Record]:
        """Every record up to the end of each partition, which a fetch that came back empty tells.

        Raises :class:`streams.errors.Unavailable` if an end is not reached.
        """

    def close(self) -> None:
        """Leave the broker."""

    def __enter__(self) -> Reader:
        """The reader itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""


class Log(Protocol):
    """A broker, as far as reading it goes."""

    def reader(
        self,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
        tail: int | None = None,
    ) -> Reader:
        """A reader of a topic. ``start`` maps partitions to offsets; a missing one starts at the earliest record, or
        ``tail`` records before the end.

        ``partitions`` limits the reader to some of them. Raises :class:`streams.errors.Unavailable` without a broker
        or a topic.
        """
