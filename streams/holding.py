"""Which inputs are held back while a worker catches up, so that no input is read far ahead of what needs it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

MAX_HELD = 20_000
"""Records of a partition read ahead of their turn before its leading input is held."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one input of a partition has been read, in stream time, and whether more of it is known to be there."""

    partition: int
    side: int
    at_ms: int
    behind: bool
    held: int
    """Records of the partition, of both inputs, that wait for their turn."""


def to_hold(inputs: Collection[Progress], skew_ms: float) -> Iterator[Progress]:
    """The inputs that are ``skew_ms`` ahead of the slowest that is behind, or whose partner has too much to wait for.

    An input that has been read to its end is never behind, or the others would wait for it for ever.
    """
    low_ms = min((each.at_ms for each in inputs if each.behind), default=None)
    slowest: dict[int, int] = {}
    for each in inputs:
        slowest[each.partition] = min(each.at_ms, slowest.get(each.partition, each.at_ms))
    for each in inputs:
        too_far = low_ms is not None and each.at_ms > low_ms + skew_ms
        if too_far or (each.held > MAX_HELD and each.at_ms > slowest[each.partition]):
            yield each
