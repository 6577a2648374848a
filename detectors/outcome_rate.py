"""How many outcomes a second a version gets: measured at points of stream time that the outcomes alone decide.

A budget of false alarms a week means nothing without it. The rate is measured anew

* when the version is 1, 2, 4, … seconds old, up to a day: the mean since its first outcome;
* at the end of each of its days: the mean of its last seven, as budgets are of weeks and weekends differ;
* as soon as twice as many outcomes have come as were expected until the next of these points: then a stream that was
  idle and goes live is not judged by its idle rate for a day.

In a version's very first second it is that second's own count. What is within a tenth of the rate leaves it as it is,
and so does a week without outcomes.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DAY_S = 86_400
DAYS = 7
SURPRISE = 2.0
"""Outcomes over those expected, from which on the rate is measured before its time."""

TOLERANCE = 0.1
"""A tenth more or less of the budget is nothing, and a recalibration is not free."""

Seconds = NDArray[np.int64]


@dataclass(slots=True)
class OutcomeRateState:
    """`since` outcomes have come since `point_s`; the rate is measured again at `next_s`.

    `days` are the outcomes of the last whole days; before there is one, the outcomes up to `point_s`.
    """

    begun_s: int = 0
    point_s: int = 0
    next_s: int = 0
    per_s: float = 0.0
    since: int = 0
    days: list[int] = field(default_factory=list)


class OutcomeRate:
    """Takes the seconds of a version's outcomes, in order."""

    def __init__(self, state: OutcomeRateState | None = None) -> None:
        self.state = state if state is not None else OutcomeRateState()

    @property
    def per_s(self) -> float:
        """Outcomes a second; 0 before the first outcome."""
        return self.state.per_s

    def take(self, seconds: Seconds) -> tuple[int, bool]:
        """Take the first outcomes of a batch, up to where the rate may become another.

        Gives how many, at least one, and whether `per_s`, which holds for all of them, is another than it was. Batches
        end with a second; how a stream is cut into them makes no other difference.
        """
        state, now = self.state, int(seconds[0])
        before = state.per_s
        if not state.next_s:
            first = int(seconds.searchsorted(now, side="right"))
            self.state = OutcomeRateState(now, now, now + 1, float(first))
            state = self.state
        while now >= state.next_s:
            self._measure()
        if state.since > self._expected:
            state.per_s = state.since / (state.next_s - state.point_s)
        taken = int(seconds.searchsorted(state.next_s))
        surprising = max(0, int(self._expected) - state.since)
        if surprising < taken:
            taken = int(seconds.searchsorted(seconds[surprising], side="right"))
        state.since += taken
        return taken, state.per_s != before

    @property
    def _expected(self) -> float:
        state = self.state
        return SURPRISE * state.per_s * (state.next_s - state.point_s)

    def _measure(self) -> None:
        """At the point: what came since the last one is known."""
        state = self.state
        age = state.next_s - state.begun_s
        if age < DAY_S:
            state.days = [sum(state.days) + state.since]
            self._set(state.days[0] / age)
            state.point_s, state.next_s = state.next_s, state.begun_s + min(2 * age, DAY_S)
        else:
            whole = [sum(state.days) + state.since] if age == DAY_S else [*state.days, state.since][-DAYS:]
            state.days = whole
            self._set(sum(whole) / (len(whole) * DAY_S))
            state.point_s, state.next_s = state.next_s, state.next_s + DAY_S
        state.since = 0

    def _set(self, per_s: float) -> None:
        known = self.state.per_s
        if per_s and abs(per_s - known) > TOLERANCE * known:
            self.state.per_s = per_s
