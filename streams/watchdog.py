"""Tells a worker that has stalled from one that has nothing to do, or waits for its store.

Faust and aiokafka can stop consuming for ever in a process that lives on (a seek slower than a request's timeout is
one way), and a broker that answers nothing shows no lag. A fresh process is the cure for both.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signs:
    """What a worker knows of itself at an instant; all times are seconds of one monotonic clock.

    ``answered_s``: the broker's last answer to any request of the consumer; ``fetched_s``: to a fetch, records or
    none; ``moved_s``: records were taken in. ``waiting``: the store, or the taking of partitions, keeps the worker
    from reading on. ``owns``: it has partitions; ``lagging``: it knows of records that it has not read.
    """

    answered_s: float
    fetched_s: float
    moved_s: float
    waiting: bool
    owns: bool
    lagging: bool


class Watchdog:
    """Judges signs; remembers only how long the worker had a reason to wait."""

    def __init__(self, limit_s: float, now_s: float) -> None:
        self._limit_s = limit_s
        self._excused_s = now_s
        """Until then nothing could be expected to move."""

    def judge(self, signs: Signs, now_s: float) -> str | None:
        """Why the worker should end, or None while it is well."""
        if signs.waiting:
            self._excused_s = now_s
        if (silent_s := now_s - signs.answered_s) > self._limit_s:
            return f"the broker has answered nothing for {silent_s:.0f} s"
        moved_s = max(signs.moved_s, self._excused_s)
        if signs.owns and (silent_s := now_s - max(signs.fetched_s, moved_s)) > self._limit_s:
            return f"nothing has been fetched for {silent_s:.0f} s"
        if signs.lagging and (quiet_s := now_s - moved_s) > self._limit_s:
            return f"there is lag, and nothing has moved for {quiet_s:.0f} s"
        return None
