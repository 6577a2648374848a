"""By how much errors differ from hour to hour, in a way that recurs each day or week.

A version's cycles (days or weeks, from its first outcome on) are compared hour by hour. What an hour's error rate is
over its cycle's mean has a part that recurs and a part that does not: chance, and what happened that day. They can be
told apart only between cycles. *One* cycle shows both, and would take overdispersion for a profile; the covariance of
two has the first part only. An hour's factor is 1 + its mean deviation, shrunk by what of it recurs, as the best linear
predictor of the next cycle is; where hardly more recurs than chance explains, there is no profile.

A profile is believed when it has *foretold* something: errors of cycles that it was not learnt from, each divided
by its hour's factor, must move less than they did undivided. How they still move is kept (:meth:`HourlyProfile.known`):
the dispersion and wander that are left, as they are out of sample. Those of the cycles that it was learnt from would be
too small, and break the budget.

A cycle in which a drift was detected, or was open, is not learnt from. But what pages every night at the same hours,
and is over by itself before the day is, is no drift: when three cycles in a row had such detections, and most of what
differs between their hours recurs, they are what is learnt from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from detectors.reference import CHANCE_Z, Reference, WindowSums

By = Literal["day", "week"]

HOUR_S = 3_600
SLOTS: Mapping[By, int] = MappingProxyType({"day": 24, "week": 168})
"""Hours of a cycle. A slot is the hour of the epoch modulo these: of the day in UTC; a week's slot 0 is Thursday's."""
MOST_CYCLES: Mapping[By, int] = MappingProxyType({"day": 7, "week": 4})
"""Newest cycles that are learnt from: days of the week have one each, and a change of habits is known in a month."""
LEAST_CYCLES = 2
LEAST_SWINGING = 3
"""Cycles in a row with a detection that was over by itself, before they are learnt from."""
LEAST_RECURS = 0.5
"""Of the variance between their hours: more must recur. And a profile that was learnt so must explain so much of what
it foretells, as a drift may be in that too."""
LEAST_WINDOWS = 10
"""Windows that a profile must have foretold: how they move cannot be told from fewer."""
LEAST_FACTOR = 0.2
"""No hour is expected to be better: an error where none is expected would be a drift by itself."""
SMALLEST = 1e-300
"""Nothing is divided by less."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Cycle:
    """Outcomes of each hour of a cycle, and the sum of their errors."""

    counts: list[int]
    totals: list[float]

    @classmethod
    def empty(cls, slots: int) -> "Cycle":
        return cls([0] * slots, [0.0] * slots)


@dataclass(frozen=True, slots=True)
class Swing:
    """What recurs: the `factors` of the hours, of mean 1 over outcomes, and by how much each may be off (`unsure`, a
    standard deviation); empty if it is no more than chance. `recurs` is its share of the variance between hours.
    """

    factors: list[float]
    unsure: list[float]
    recurs: float


def swing(cycles: Sequence[Cycle]) -> Swing:
    """What recurs of the hours' deviations, from two cycles or more."""
    counts = np.array([each.counts for each in cycles], dtype=np.float64)
    totals = np.array([each.totals for each in cycles])
    expected = counts * (totals.sum(axis=1) / np.maximum(1.0, counts.sum(axis=1)))[:, None]
    # An hour without outcomes, or of a cycle without an error, deviates by nothing.
    deviations = np.where(expected > 0.0, totals / np.where(expected > 0.0, expected, 1.0) - 1.0, 0.0)
    # Chance moves an hour's deviation by noise / outcomes: weighted by the roots of outcomes all hours vary alike.
    weighted = np.sqrt(counts) * deviations
    between = weighted @ weighted.T
    pairs = len(cycles) * (len(cycles) - 1) / 2
    recurring = float((between.sum() - np.trace(between)) / 2 / pairs)
    whole = float(np.trace(between)) / len(cycles)
    outcomes = counts.sum(axis=0)
    freedom = int((outcomes > 0.0).sum()) - 1
    if freedom < 1 or recurring <= 0.0:
        return Swing([], [], 0.0)
    recurs = min(1.0, recurring / whole)
    noise = max(0.0, whole - recurring) / freedom
    if recurring <= CHANCE_Z * noise * math.sqrt(freedom / pairs):
        return Swing([], [], recurs)
    variance = recurring / (outcomes.sum() / len(cycles))
    mean = (counts * deviations).sum(axis=0) / np.maximum(1.0, outcomes)
    told = outcomes * variance
    share = told / np.maximum(told + noise, SMALLEST)
    factors = np.maximum(LEAST_FACTOR, 1.0 + share * mean)
    factors *= outcomes.sum() / (outcomes * factors).sum()
    return Swing(factors.tolist(), np.sqrt(variance * (1.0 - share)).tolist(), recurs)


@dataclass(slots=True)
class HourlyState:
    """`begun` and `hour` are hours of the epoch, of the first and the newest outcome; 0 before the first.

    `cycle` is the one that outcomes come into, the `number`-th from 0; a drift was `detected` in it, or was open when
    it began (`began_drifted`). `cycles` are those learnt from; `swinging` the last ones in a row whose drifts were over
    by themselves, and `from_swinging` says that such were the first to be learnt from. The trial's windows stand as
    they came (`plain`) and `adjusted` by the factors of their hours; `known` is what the trial that convinced has left,
    None before.
    """

    by: By
    begun: int
    hour: int
    number: int
    cycle: Cycle
    detected: bool = False
    began_drifted: bool = False
    cycles: list[Cycle] = field(default_factory=list)
    swinging: list[Cycle] = field(default_factory=list)
    from_swinging: bool = False
    factors: list[float] = field(default_factory=list)
    unsure: list[float] = field(default_factory=list)
    recurs: float = 0.0
    plain: WindowSums = field(default_factory=WindowSums)
    adjusted: WindowSums = field(default_factory=WindowSums)
    known: WindowSums | None = None


class HourlyProfile:
    """Learns from a version's errors, which may be of any unit: all of them, hour by hour."""

    def __init__(self, by: By, state: HourlyState | None = None) -> None:
        self.slots = SLOTS[by]
        self.state = state if state is not None else HourlyState(by, 0, 0, 0, Cycle.empty(self.slots))

    @property
    def on(self) -> bool:
        """Whether the factors are believed."""
        return self.state.known is not None

    @property
    def factor(self) -> float:
        """Times the mean error that this hour's is expected to be; 1 while factors are not believed."""
        return self.state.factors[self.slot] if self.on else 1.0

    @property
    def unsure(self) -> float:
        """How far that may be off: a standard deviation."""
        return self.state.unsure[self.slot] if self.on else 0.0

    @property
    def slot(self) -> int:
        """The hour of the cycle that it is."""
        return self.state.hour % self.slots

    def known(self, scale: float) -> Reference | None:
        """How errors move that are divided by their hours' factors, and by the scale; None while it is not known."""
        return self.state.known.reference(scale) if self.state.known is not None else None

    def turn(self, second: int, drifted: bool) -> bool:
        """The next errors are of this second's hour; tells whether factors are believed from now on that were not.

        `drifted`: a detected drift is not over. Seconds rise.
        """
        state, hour = self.state, second // HOUR_S
        if not state.begun:
            state.begun = hour
        number = (hour - state.begun) // self.slots
        begins = number > state.number and self._close(drifted)
        if number > state.number:
            state.number, state.cycle = number, Cycle.empty(self.slots)
            state.detected, state.began_drifted = False, drifted
        state.hour = hour
        return begins

    def add(self, errors: Floats) -> None:
        """Take in errors of the hour, oldest first; how they are cut into batches makes no difference."""
        state, slot = self.state, self.slot
        state.cycle.counts[slot] += len(errors)
        # Strictly from left to right, so that batches round alike.
        state.cycle.totals[slot] = float(np.add.accumulate(np.concatenate(([state.cycle.totals[slot]], errors)))[-1])
        if state.factors and not self.on:
            state.plain.add(errors)
            state.adjusted.add(errors / state.factors[slot])

    def take_over(self, other: "HourlyProfile") -> bool:
        """In its first cycle it may begin with what is believed of another version's hours: they are on trial at once.

        Tells whether it did; what it has learnt itself comes in their place.
        """
        state = self.state
        if not state.begun or state.number or state.factors or not other.on or state.by != other.state.by:
            return False
        state.factors, state.unsure = list(other.state.factors), list(other.state.unsure)
        state.recurs = other.state.recurs
        return True

    def spoil(self) -> None:
        """A drift was detected: what it makes of this cycle's hours is not the hours' own."""
        self.state.detected = True

    def _close(self, drifted: bool) -> bool:
        """A cycle is over: is what was foretold of it true, and what does it add? `drifted` when it ended."""
        state = self.state
        lasting = state.began_drifted or drifted
        begins = False
        if lasting or (state.detected and not state.from_swinging):
            state.plain, state.adjusted = WindowSums(), WindowSums()
        elif not self.on and state.adjusted.windows >= LEAST_WINDOWS:
            most = LEAST_RECURS if state.from_swinging else 1.0
            begins = _moved(state.adjusted) < most * _moved(state.plain)
            state.known = state.adjusted if begins else None
            state.plain, state.adjusted = WindowSums(), WindowSums()
        if lasting or not state.detected:
            state.swinging = []
        if not lasting and state.detected:
            self._swung()
        elif not lasting:
            state.cycles = [*state.cycles, state.cycle][-MOST_CYCLES[state.by] :]
            if len(state.cycles) >= LEAST_CYCLES:
                self._learn(swing(state.cycles))
        return begins

    def _swung(self) -> None:
        """The cycle had a drift that was over by itself."""
        state = self.state
        state.swinging = [*state.swinging, state.cycle][-LEAST_SWINGING:]
        if len(state.swinging) == LEAST_SWINGING:
            found = swing(state.swinging)
            if found.factors and found.recurs > LEAST_RECURS:
                state.cycles, state.from_swinging = list(state.swinging), not self.on
                self._learn(found)

    def _learn(self, found: Swing) -> None:
        state = self.state
        state.factors, state.unsure, state.recurs = found.factors, found.unsure, found.recurs
        if self.on and not state.factors:
            state.factors, state.unsure = [1.0] * self.slots, [0.0] * self.slots


def _moved(sums: WindowSums) -> float:
    """The squared deviations of windows from their mean, in units of its square."""
    return sums.windows * sums.squares / max(sums.total * sums.total, SMALLEST) - 1.0
