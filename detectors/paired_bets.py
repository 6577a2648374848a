"""Is one of two models worse on the same rows? A test by betting that may be looked at after every row.

A gambler bets on each row that the watched model does worse than its reference. While it does not, no way of betting
makes money on average, so the chance that the wealth ever reaches 1/α is at most α, however long it goes on and however
often one looks (Ville 1939; Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", 2024).
What must hold is that the watched model is no worse on average given the rows before: where errors of one kind come in
runs, a run is one piece of evidence and counts as many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

BETS = np.asarray([0.05, 0.1, 0.2, 0.35, 0.55, 0.8])
"""Shares of the wealth at stake: small ones find a small difference in many rows, large ones a large one soon."""
FIRST_SHARE = 0.5
"""Of the money, for the bets that begin with the first row; the later starts share the rest."""


@dataclass(frozen=True, slots=True)
class PairedPlan:
    """The policy of a test: when it is sure, and where bets begin.

    ``significance`` is the chance that a model that is never worse is called worse. A model may become worse only
    later, after rows that spoke for it: so a share of the money is kept for bets that begin ``start_every`` rows
    apart, up to row ``rows``.
    """

    significance: float
    rows: int
    start_every: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.significance < 1:
            raise ValueError(f"a significance lies between 0 and 1, not at {self.significance}")
        if self.rows < 1 or self.start_every < 1:
            raise ValueError("a test needs rows, and starts at least one row apart")

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """The rows with which bets begin."""
        return np.arange(0, self.rows, self.start_every, dtype=np.int64)

    @property
    def weights(self) -> Numbers:
        """The share of the money that each start has; they sum to 1."""
        later = len(self.starts) - 1
        if later == 0:
            return np.ones(1)
        return np.concatenate([[FIRST_SHARE], np.full(later, (1 - FIRST_SHARE) / later)])


@dataclass(frozen=True, slots=True)
class PairedEvidence:
    """What the rows so far say.

    ``e_value`` is the wealth per unit staked, ``highest`` the most that it has been. ``worse`` and ``better`` count
    the rows on which the watched model did worse and better than its reference; their errors are means. ``since_row``
    is the row since which it did worse: what it had gained on the reference was most before it (0: it never did).
    """

    rows: int
    worse: int
    better: int
    watched_error: float
    reference_error: float
    e_value: float
    highest: float
    needed: float
    since_row: int

    @property
    def found(self) -> bool:
        """Whether the watched model is worse."""
        return self.highest >= self.needed


class PairedBets:
    """The state of one test. ``scale`` bounds what one row can say: a larger difference of two errors counts as it.

    For classes errors are 0 or 1 and ``scale`` is 1: only the rows on which one of the two is wrong count. For numbers
    the null hypothesis is of the mean of the differences cut off at ±``scale``: without a bound no test of a mean is
    valid.
    """

    def __init__(self, plan: PairedPlan, scale: float = 1.0) -> None:
        if not scale > 0:
            raise ValueError(f"a scale is positive, not {scale}")
        self._plan = plan
        self._scale = scale
        self._starts, self._weights = plan.starts, plan.weights
        self._log_wealth = np.zeros((len(self._starts), len(BETS)))
        self._rows = 0
        self._worse = self._better = 0
        self._watched = self._reference = 0.0
        self._highest = 1.0
        self._lost = self._least_lost = 0.0
        self._since = 0

    def add(self, watched: npt.NDArray[Any], reference: npt.NDArray[Any]) -> PairedEvidence:
        """Take in the absolute errors of both models on the next rows, in order → the evidence after them.

        Raises :class:`ValueError` for errors that are not of the same rows, or not finite.
        """
        ours, theirs = np.asarray(watched, dtype=np.float64), np.asarray(reference, dtype=np.float64)
        if ours.shape != theirs.shape or ours.ndim != 1:
            raise ValueError(f"errors of the same rows are needed, not {ours.shape} and {theirs.shape}")
        if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
            raise ValueError("an error is not finite")
        if len(ours):
            differences = np.clip((ours - theirs) / self._scale, -1.0, 1.0)
            self._bet(differences)
            self._note_turn(differences)
            self._rows += len(ours)
            self._worse += int(np.sum(ours > theirs))
            self._better += int(np.sum(ours < theirs))
            self._watched += float(ours.sum())
            self._reference += float(theirs.sum())
        return self.evidence

    def _bet(self, differences: Numbers) -> None:
        rows = self._rows + np.arange(len(differences))
        begun = rows[:, None] >= self._starts[None, :]
        gains = np.log1p(BETS[None, :] * differences[:, None])
        paths = self._log_wealth + np.cumsum(begun[:, :, None] * gains[:, None, :], axis=0)
        wealth = np.exp(np.minimum(paths, 700.0)).mean(axis=2) @ self._weights  # an exponent that a float can hold
        self._highest = max(self._highest, float(wealth.max()))
        self._log_wealth = paths[-1]

    def _note_turn(self, differences: Numbers) -> None:
        # From left to right, so that rows round alike however they are cut.
        lost = np.cumsum(np.concatenate(([self._lost], differences)))[1:]
        least = int(np.argmin(lost))
        if lost[least] < self._least_lost:
            self._least_lost, self._since = float(lost[least]), self._rows + least + 1
        self._lost = float(lost[-1])

    @property
    def evidence(self) -> PairedEvidence:
        """The evidence so far."""
        by_start = np.exp(np.minimum(self._log_wealth, 700.0)).mean(axis=1) * self._weights
        mean = max(1, self._rows)
        return PairedEvidence(
            rows=self._rows,
            worse=self._worse,
            better=self._better,
            watched_error=self._watched / mean,
            reference_error=self._reference / mean,
            e_value=float(by_start.sum()),
            highest=self._highest,
            needed=1.0 / self._plan.significance,
            since_row=self._since,
        )
