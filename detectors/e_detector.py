"""A mixture e-detector: Shiryaev–Roberts sums of bets on worse error rates.

Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", New England
Journal of Statistics in Data Science 2024 (arXiv 2203.03532).

For each alternative k a unit of wealth is staked anew before every error, and all that is staked is bet on the errors
being worse than acceptable: R ← (1 + R) · bet(x). The statistic M is the weighted mean of the R. *While the mean
error, given the past, is at most the level*, no bet gains on average (`detectors/alternatives.py`). So M − t is a
supermartingale and, by optional stopping, E[M at the first crossing] ≤ E[errors until then]. M is at least the
threshold when it crosses: **the expected run length between false alarms is at least the threshold**. Nothing is
assumed of the errors but that they lie in 0..1: they need not be Bernoulli, nor independent, nor of one rate. The
level may be another for each error as it depends on the past only: it moves from window to window
(`detectors/acceptable.py`), and may be times a factor that was foretold for the hour (`detectors/hourly.py`). What the
theorem does not cover is a level below the true rate, from an unlucky reference or a rate that wanders;
bench/detection.py measures that.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.acceptable import CALM, HIGHEST, AcceptableLevel, Allowance, LevelState
from detectors.alternatives import ANGLES, bets
from detectors.change_point import ChangePoint, ChangePointState
from detectors.contract import Errors, checked
from detectors.reference import WINDOW, FillingWindow, Reference
from detectors.snapshot import SnapshotError, fields_like, seal
from detectors.verdict import Detection
from detectors.wealth import Wealth

FORMAT = 1
LARGEST = 1e300  # a statistic is shown as a finite number
LEAST_RUN_LENGTH = 100.0
LEAST_BEFORE = 30  # with fewer errors before a change, it is hardly one


@dataclass(frozen=True, slots=True)
class EDetectorState:
    structure: str
    count: int
    position: int
    boundaries: list[float]
    total: float
    gains: list[float]
    stakes: list[float]
    detected_at: int
    level: LevelState | None
    reference: Reference
    change: ChangePointState


class EDetector:
    """The mixture e-detector on the error stream.

    `threshold` is the least expected number of errors between false alarms. Without a `reference` it learns one from
    its first `reference_outcomes` errors (or up to 499 more, in whole windows), in which nothing is detected.
    `margin` and `wander` say how far above the estimated rate the acceptable level lies, in standard errors of the
    estimate and in standard deviations of the rate itself; what is not given is the threshold's :class:`Allowance`; a
    `margin` takes the place of `unseen` there too. A detection's statistic is M. After it the level is the rate that it
    reported until the errors are back to normal: one drift is one detection, and a worse one is another.

    `known` are errors from which has been learnt beside the `reference`, which must be given too: they say how errors
    move, and their rate may come as far from the reference's as always. With `by_hour` the level follows
    :meth:`expect`: it is that many times what is acceptable of an average error. What is known are errors divided by
    what was expected of them then, and so are those that detections are of.

    >>> detector = EDetector(reference=Reference.of_rate(5000, 0.1))
    >>> [(d.index, d.window) for d in detector.update_many([0.0] * 1000 + [1.0] * 60)]
    [(1007, 8)]
    """

    name = "e_detector"

    def __init__(
        self,
        threshold: float = 100_000.0,
        reference_outcomes: int = 5_000,
        margin: float | None = None,
        wander: float | None = None,
        reference: Reference | None = None,
        known: Reference | None = None,
        by_hour: bool = False,
    ) -> None:
        if not LEAST_RUN_LENGTH <= threshold < LARGEST:
            raise ValueError(
                f"e_detector's threshold is {threshold}: give an expected run length of at least 100 errors"
            )
        if reference_outcomes < 1:
            raise ValueError(f"e_detector's reference_outcomes is {reference_outcomes}: give at least 1")
        allowance = Allowance.of(threshold)
        given = {name: value for name, value in (("margin", margin), ("wander", wander)) if value is not None}
        for parameter, value in given.items():
            if not 0.0 <= value < LARGEST:
                raise ValueError(
                    f"e_detector's {parameter} is {value}: give a number of standard deviations, 0 or more"
                )
        if known is not None and reference is None:
            raise ValueError("e_detector is told what is known beside a reference: give the reference too")
        self.structure = f"e_detector reference_outcomes={reference_outcomes}"
        if by_hour:
            self.structure += " by hour"
        self.count = 0
        self._threshold = threshold
        self._reference_windows = -(-reference_outcomes // WINDOW)
        if margin is not None:
            given["unseen"] = 0.0
        self._allowance = replace(allowance, **given)
        self._change = ChangePoint()
        self._window = FillingWindow()
        self._detected_at = 0
        self._reference = Reference(0.0, 0.0, 0.0, 0.0)
        self._level: AcceptableLevel | None = None
        self._factor = self._accepted = 1.0
        self._wealth = Wealth()
        if reference is not None:
            state = LevelState(reference, reference if known is None else known, [])
            self._watch(AcceptableLevel(state, self._allowance))

    @property
    def level(self) -> float | None:
        """The error rate that is acceptable on average now; None while the reference is being learnt."""
        return self._level.level if self._level is not None else None

    @property
    def drifted(self) -> bool:
        """Whether a detected drift is not over."""
        return self._level is not None and self._level.drifted

    def expect(self, factor: float, unsure: float = 0.0) -> None:
        """From the next error on, as many times the average error are normal, give or take a standard deviation, of
        which the level has `margin` too. It is no part of a snapshot.
        """
        accepted = factor + self._allowance.margin * unsure
        if (factor, accepted) != (self._factor, self._accepted):
            self._factor, self._accepted = factor, accepted
            if self._level is not None:
                self._watch(self._level)

    @property
    def statistic(self) -> float:
        """M after the last error, to be compared with the threshold."""
        return min(LARGEST, self._wealth.statistic)

    def update_many(self, errors: Errors) -> list[Detection]:
        values = checked(errors)
        detections: list[Detection] = []
        start = 0
        while start < len(values):
            chunk = values[start : start + self._window.left]
            watching = self._level is not None and self._against < HIGHEST
            fired = self._bet(chunk) if watching else None
            used = len(chunk) if fired is None else fired[0] + 1
            average = chunk[:used] if self._factor == 1.0 else chunk[:used] / self._factor
            full = self._window.add(average)
            self.count += used
            if self._level is not None:
                self._change.extend(average)
            start += used
            if fired is not None and self._level is not None:
                detections.append(self._detection(start - 1, fired[1], self._level))
            for total, fine_squares in full:
                self._close(total, fine_squares)
        return detections

    def _bet(self, chunk: NDArray[np.float64]) -> tuple[int, float] | None:
        """Bet on the errors up to the first at which M crosses; gives its index and M, or None."""
        index = self._wealth.bet(chunk, self._threshold)
        if index == len(chunk):
            return None
        statistic = self.statistic
        self._wealth.start()
        return index, statistic

    def _close(self, total: float, fine_squares: float) -> None:
        """The end of a window: learn, and bet against the level that follows."""
        if total > WINDOW:  # errors in an hour that was expected to have few
            total, fine_squares = float(WINDOW), fine_squares * (WINDOW / total) ** 2
        statistic = self._wealth.close()
        if self._level is None:
            self._reference = self._reference.plus(total, fine_squares)
            if self._reference.windows == self._reference_windows:
                self._watch(AcceptableLevel.of(self._reference, self._allowance))
            return
        calm = statistic <= CALM * self._threshold
        if self._level.close(total, fine_squares, calm, self.count - self._detected_at >= WINDOW):
            self._watch(self._level)

    def _watch(self, level: AcceptableLevel) -> None:
        self._level = level
        self._against = min(HIGHEST, level.level * self._accepted)
        self._wealth.against(bets(self._against, level.dispersion))

    def _detection(self, index: int, statistic: float, level: AcceptableLevel) -> Detection:
        n = self._change.n
        split = self._change.split(rising_only=True) if n > 1 else None
        if split is None or n - split.window < LEAST_BEFORE:
            # As good as all that was seen since the last detection is worse: the change lies before it.
            window, before, after = n, level.state.known.rate, self._change.mean
            reported, worse = window, after
        else:
            window, before, after = split.window, split.before, split.after
            # A rate that is too low would be exceeded by the same drift, and report it twice.
            reported, worse = split.least_squares_window, split.least_squares_after
        before, after, worse = min(1.0, before), min(1.0, after), min(1.0, worse)
        self._change.reset()
        self._detected_at = self.count
        level.detected(reported, worse * reported)
        self._watch(level)
        return Detection(self.name, index, statistic, self._threshold, before, after, window, reported)

    def snapshot(self) -> bytes:
        state = EDetectorState(
            structure=self.structure,
            count=self.count,
            position=self._window.position,
            boundaries=list(self._window.boundaries),
            total=self._window.total,
            gains=self._wealth.gains,
            stakes=self._wealth.stakes,
            detected_at=self._detected_at,
            level=self._level.state if self._level is not None else None,
            reference=self._reference,
            change=self._change.state(),
        )
        return seal(FORMAT, state)

    def restore(self, sealed: bytes) -> None:
        state = fields_like(sealed, FORMAT, EDetectorState, self.structure)
        window = FillingWindow(state.position, state.total, state.boundaries)
        if not (len(state.gains) == len(state.stakes) == len(ANGLES) and window.consistent):
            raise SnapshotError("the snapshot's sums are not those of this detector: start it afresh")
        try:
            change = ChangePoint.of(state.change)
            level = None if state.level is None else AcceptableLevel(state.level, self._allowance)
        except ValueError as error:
            raise SnapshotError(f"the snapshot's state is not one: {error}") from error
        self.count, self._window = state.count, window
        self._detected_at, self._reference = state.detected_at, state.reference
        self._wealth.put(state.gains, state.stakes)
        self._change, self._level = change, level
        if level is not None:
            self._watch(level)
