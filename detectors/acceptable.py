"""The error rate that counts as nothing wrong: the reference's, narrowed by the stream, never moved by a drift.

The level is the estimated rate + so many of its standard errors + so many standard deviations by which the rate itself
has moved (`Allowance`). Three rules keep a drift out of it:

* a window of errors is learnt from only when four later ones have passed and the detector has nothing on its mind;
* what is learnt moves the rate within three standard errors of the reference's, no further: the reference decides
  what is acceptable, the stream only says more exactly what the reference said;
* after a detection nothing is learnt until the rate is back below the level. What had come back within 6,000 errors by
  itself may have been a swing, and some of its windows are learnt, clipped to four standard deviations. What lasted
  longer was a drift, and is forgotten.

While a drift lasts, the level is the rate since its detection, so that it is reported once, and a worse one again.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

from detectors.reference import CHANCE, WINDOW, Reference

CLOSELY = 100_000.0
"""Run length up to which a drift is watched for as closely as bench/detection.py finds to keep it."""
MOST_LONGER = 10.0
MARGIN = 0.4
UNSEEN = 0.4
"""From `MOST_LONGER` times that run length on, none up to it."""
UNSEEN_CHANCE = 0.055
"""From there on in place of `reference.CHANCE`."""
WANDER_OUTCOMES = 50.0
LAG = 4
"""Windows that must have passed since one before it is learnt from: a slow drift is found in 2,000 errors, or
hardly."""
LONGEST_SWING = 12
"""Windows after a detection within which a swing is over; what lasts longer was a drift."""
SWING_SHARE = 0.1
"""Windows of one swing that are learnt, as a share of the known ones (at least one): a swing recurs and is soon known,
while a drift that was mended in time must not hide the next."""
MOST_AT_ONCE = 8
"""Windows learnt together at most: when much is known, a window more changes little and need not be learnt alone."""
KNOWN_AT_ONCE = 64
"""Known windows for each that may be learnt together."""
MOST_WAITING = LAG + MOST_AT_ONCE + LONGEST_SWING + LAG
RETURNED = 2
"""Windows whose mean is below the level before a drift counts as over."""
REFERENCE_SE = 3.0
REPORTED_SE = 3.0
CLIP_SD = 4.0
BETTER_SD = 3.0
"""A window so far below the rate is an improvement, which is not learnt: it would count as wander and raise the
level."""
CALM = 0.1
"""Share of its threshold below which the detector has nothing on its mind."""
HIGHEST = 0.95
"""No level is higher, and at this one nothing is detected: there is hardly anything worse."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """How far above the estimated rate the level lies: `margin` standard errors of the estimate, `unseen` that it would
    have if errors were independent, and `wander` standard deviations of the rate itself, which is seen to move beyond
    `chance_z` normal deviations of chance.
    """

    margin: float
    unseen: float
    wander: float
    chance_z: float

    @classmethod
    def of(cls, run_length: float) -> "Allowance":
        """The longer the run length, the more of the few false alarms that it allows come from what a reference cannot
        have shown: a rate that moves by less than chance does.

        The rate may move as far as it comes by chance in 50 of so many outcomes, if it moves normally: 2.6, 3.3 and 3.9
        standard deviations for 10,000, 100,000 and 1,000,000. From 100,000 to 1,000,000 less and less of the variance
        is put down to chance, and a margin grows that is of independent errors: where more than that was seen to move,
        it is allowed for already, and a larger share of it would hide the drifts of errors that come in bursts.
        """
        longer = math.log10(min(max(1.0, run_length / CLOSELY), MOST_LONGER)) / math.log10(MOST_LONGER)
        return cls(
            margin=MARGIN,
            unseen=UNSEEN * longer,
            wander=max(0.0, -NormalDist().inv_cdf(WANDER_OUTCOMES / run_length)),
            chance_z=-NormalDist().inv_cdf(CHANCE * (UNSEEN_CHANCE / CHANCE) ** longer),
        )


@dataclass(slots=True)
class Waiting:
    """A window that may be learnt from later: its total, the sum of the squared totals of its parts, and whether it
    came after a detected change.
    """

    total: float
    fine_squares: float
    drifted: bool = False


@dataclass(slots=True)
class LevelState:
    """`reported_n` errors with sum `reported_total` have come since the detected change; 0: none is open.

    `lasting`: the open one has outlasted every swing.
    """

    reference: Reference
    known: Reference
    waiting: list[Waiting]
    reported_n: float = 0.0
    reported_total: float = 0.0
    windows_since: int = 0
    lasting: bool = False


class AcceptableLevel:
    """Moves on by one window at a time."""

    def __init__(self, state: LevelState, allowance: Allowance) -> None:
        self.state = state
        self._allowance = allowance
        self._anchor = state.reference.spread_beyond(allowance.chance_z)
        self._known = state.known.spread_beyond(allowance.chance_z)
        self._update()

    @classmethod
    def of(cls, reference: Reference, allowance: Allowance) -> "AcceptableLevel":
        return cls(LevelState(reference, reference, []), allowance)

    @property
    def drifted(self) -> bool:
        """Whether a detected drift is not over."""
        return self.state.reported_n > 0.0

    def detected(self, n: int, total: float) -> None:
        """A drift was detected; the `n` errors since the change have the sum `total`."""
        self.state.reported_n, self.state.reported_total, self.state.windows_since = float(n), total, 0
        for window in self.state.waiting[-math.ceil(n / WINDOW) :]:
            window.drifted = True
        self._update()

    def close(self, total: float, fine_squares: float, calm: bool, since_detection: bool) -> bool:
        """Take in a window; tells whether the level is another now.

        `since_detection`: all of it came after the last detection.
        """
        state = self.state
        moved = self.drifted
        state.waiting.append(Waiting(total, fine_squares, self.drifted))
        if self.drifted:
            if since_detection:
                state.reported_n += WINDOW
                state.reported_total += total
                state.windows_since += 1
            state.lasting |= state.windows_since > LONGEST_SWING + RETURNED
            if state.lasting:
                state.waiting = state.waiting[-LAG:]
            self._improve()
            if self._returned():
                self._over()
            self._update()
        if not self.drifted:
            at_once = min(MOST_AT_ONCE, 1 + int(state.known.windows) // KNOWN_AT_ONCE)
            if calm and len(state.waiting) >= LAG + at_once:
                for window in state.waiting[:-LAG]:
                    self._learn(window)
                    if at_once == 1:
                        self._known = state.known.spread_beyond(self._allowance.chance_z)
                del state.waiting[:-LAG]
                if at_once > 1:
                    self._known = state.known.spread_beyond(self._allowance.chance_z)
                self._update()
                moved = True
            del state.waiting[:-MOST_WAITING]
        return moved

    def _improve(self) -> None:
        """While a drift lasts, forget the worst of it once the newest windows are clearly better."""
        state = self.state
        if state.windows_since < LAG:
            return
        n, total = float(LAG * WINDOW), sum(each.total for each in state.waiting[-LAG:])
        worst, newest = state.reported_total / state.reported_n, (total + 0.5) / (n + 1.0)
        if worst - newest > REPORTED_SE * math.sqrt(self.dispersion * newest * (1.0 - newest) / n):
            state.reported_n, state.reported_total = n, total

    def _returned(self) -> bool:
        state = self.state
        recent = sum(each.total for each in state.waiting[-RETURNED:])
        return state.windows_since >= RETURNED and recent <= self.usual * WINDOW * RETURNED

    def _over(self) -> None:
        """A drift is over: keep what may be learnt of it."""
        state = self.state
        back = state.waiting[-RETURNED:]
        before = [each for each in state.waiting[:-RETURNED] if not each.drifted]
        swing = [each for each in state.waiting[:-RETURNED] if each.drifted and not state.lasting]
        share = max(1, int(SWING_SHARE * state.known.windows))
        state.waiting = [*before, *swing[:: max(1, math.ceil(len(swing) / share))], *back]
        for each in state.waiting:
            each.drifted = False
        state.reported_n, state.reported_total, state.lasting = 0.0, 0.0, False

    def _learn(self, window: Waiting) -> None:
        spread = self._known
        variance = spread.rate * (1.0 - spread.rate)
        sd = math.sqrt(spread.dispersion * variance * WINDOW + (spread.wander * WINDOW) ** 2)
        middle = WINDOW * spread.rate
        if window.total < middle - BETTER_SD * sd:
            return
        total = min(window.total, middle + CLIP_SD * sd)
        scale = total / window.total if window.total > 0.0 else 1.0
        self.state.known = self.state.known.plus(total, window.fine_squares * scale * scale)

    def _update(self) -> None:
        state = self.state
        anchor, known = self._anchor, self._known
        # How dispersed errors are may have shown only after the reference, which is then less exact than it seemed.
        as_known = known.standard_error * math.sqrt(state.known.n / state.reference.n)
        reach = REFERENCE_SE * max(anchor.standard_error, as_known)
        rate = min(max(known.rate, anchor.rate - reach), anchor.rate + reach)
        self.dispersion = known.dispersion
        allowance = self._allowance
        allowed = allowance.margin * known.standard_error + allowance.unseen * known.independent_error
        self.usual = min(HIGHEST, rate + allowed + allowance.wander * known.wander)
        """The level while no drift is open."""
        self.level = self.usual
        if self.drifted:
            seen = (state.reported_total + 0.5) / (state.reported_n + 1.0)
            standard_error = math.sqrt(known.dispersion * seen * (1.0 - seen) / state.reported_n)
            # The first estimate is of errors chosen for being many; the more follow, the more it is like any other.
            share = min(1.0, math.sqrt(WINDOW / state.reported_n))
            margin = REPORTED_SE * share + self._allowance.margin * (1.0 - share)
            self.level = min(HIGHEST, max(self.usual, seen + margin * standard_error))
