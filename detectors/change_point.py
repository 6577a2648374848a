"""Where in a stream the mean changed, found again from cumulative sums kept at thinning distances.

A detector that fires knows *that* the mean changed, but hardly *when*. Errors that rise from .1 to .2 after 3,000:
ADWIN fires some 300 later and retains a window of 1,200 to 2,800; Page-Hinkley's lowest point lies 500 before the
change. A retraining from there on would learn the old concept too.

Each split of the errors since the last reset is as likely as their two means make it, by the binomial likelihood of
Hinkley 1970, divided by how much less errors vary than those that are 0 or 1 (quasi-likelihood, McCullagh 1983).
The change is dated to the median of these, not to the likeliest: a detector fires at an error, so that often nothing
is as likely as a change just before it. The usual least squares find that for nine changes in ten from .02 to .04,
and the likeliest split is too young by a tenth; half of the medians are too young and half too old. All of it needs
only the cumulative sums at the candidate splits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from native.sums import Folded, folding

Floats = NDArray[np.float64]

FINE = 64  # the newest splits are all kept; the older, the sparser: distances stay below 1/32 of their age
RECENT = 1_000  # errors; before the evidence, older changes are the less likely, or a long calm would outweigh it
LEAST_SPREAD = 1e-9  # of errors that are 0 or 1; with less, rounding is all there is
PENDING = 4096  # errors held before their sums are thinned


@dataclass(frozen=True, slots=True)
class Split:
    """The `n` errors since the last reset, cut where the mean changed: `window` of them come after it.

    `least_squares_window`, with the mean `least_squares_after`, come after the split with the least squared error: far
    too few where errors are rare, and then worse ones.
    """

    n: int
    window: int
    before: float
    after: float
    variance: float  # of all n
    least_squares_window: int
    least_squares_after: float


@dataclass(frozen=True, slots=True)
class ChangePointState:
    positions: list[int]
    totals: list[float]
    n: int
    total: float
    squares: float


class ChangePoint:
    """Cumulative sums since the last reset, a few hundred of them however long that is ago.

    Whether a position is kept depends on it and the newest position only: how a stream is cut into batches makes no
    difference.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._n = 0
        self._total = 0.0
        self._squares = 0.0
        self._positions: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._totals: NDArray[np.float64] = np.zeros(0)
        self._pending: list[NDArray[np.float64]] = []
        self._waiting = 0

    @property
    def n(self) -> int:
        """Errors since the last reset."""
        return self._n + self._waiting

    @property
    def mean(self) -> float:
        """Their mean; raises ValueError if there are none."""
        self._fold()
        if not self._n:
            raise ValueError("no errors have no mean")
        return self._total / self._n

    def extend(self, errors: list[float] | NDArray[np.float64]) -> None:
        self._pending.append(np.array(errors, dtype=np.float64))
        self._waiting += len(errors)
        if self._waiting >= PENDING:
            self._fold()

    def split(self, rising_only: bool = False) -> Split:
        """When the mean changed, or rose since the last more certain fall.

        Raises ValueError with fewer than two errors, which have no change between them.
        """
        self._fold()
        if self._n < 2:
            raise ValueError(f"{self._n} errors have no change between them")
        mean = self._total / self._n
        cut, squared = self._cut(rising_only, _Splits.likelihood), self._cut(rising_only, _Splits.squares)
        at = cut.median(self._squares)
        before, after = cut.splits.means
        return Split(
            n=self._n,
            window=int(cut.splits.right[at]),
            before=float(before[at]),
            after=float(after[at]),
            variance=max(0.0, self._squares / self._n - mean * mean),
            least_squares_window=int(squared.splits.right[squared.best]),
            least_squares_after=float(squared.splits.means[1][squared.best]),
        )

    def _cut(self, rising_only: bool, measure: "Callable[[_Splits], Floats]") -> "_Cut":
        """The candidate splits behind the last fall that has more evidence than any rise behind it."""
        start, before = 0, 0.0
        falls: list[tuple[float, float]] = []
        while True:
            inner = (self._positions > start) & (self._positions < self._n)
            positions, totals = self._positions[inner].astype(np.float64), self._totals[inner]
            splits = _Splits(positions - start, self._n - positions, totals - before, self._total - totals)
            evidence = measure(splits)
            best = int(np.argmax(evidence))
            # A fall hides a smaller rise behind it, so it is cut off and the rest looked at (binary segmentation).
            if not rising_only or splits.rises[best] or splits.right[best] < 2:
                return _Cut(splits, evidence, best, falls)
            falls.append((float(splits.left[best]), float(splits.left_sums[best])))
            start, before = int(positions[best]), float(totals[best])

    def state(self) -> ChangePointState:
        self._fold()
        return ChangePointState(self._positions.tolist(), self._totals.tolist(), self._n, self._total, self._squares)

    @classmethod
    def of(cls, state: ChangePointState) -> "ChangePoint":
        if len(state.positions) != len(state.totals):
            raise ValueError("the positions and totals of a change point differ in length")
        restored = cls()
        restored._n, restored._total, restored._squares = state.n, state.total, state.squares
        restored._positions = np.array(state.positions, dtype=np.int64)
        restored._totals = np.array(state.totals, dtype=np.float64)
        return restored

    def _fold(self) -> None:
        if not self._waiting:
            return
        values = np.concatenate(self._pending)
        self._pending.clear()
        self._waiting = 0
        fold, first = folding() or fold_in_numpy, self._n + 1
        before = Folded(self._positions, self._totals, self._total, self._squares)
        self._positions, self._totals, self._total, self._squares = fold(values, first, FINE, before)
        self._n += len(values)


@dataclass(frozen=True, slots=True)
class _Splits:
    """Places where the same errors may be split: how many lie on each side, and their sums."""

    left: Floats
    right: Floats
    left_sums: Floats
    right_sums: Floats

    @property
    def means(self) -> tuple[Floats, Floats]:
        return self.left_sums / self.left, self.right_sums / self.right

    @property
    def rises(self) -> NDArray[np.bool_]:
        before, after = self.means
        return after > before

    def squares(self) -> Floats:
        """By how much the squares around two means are smaller than around one, but for a factor."""
        before, after = self.means
        return self.left * self.right * (after - before) ** 2

    def likelihood(self) -> Floats:
        """By how much two rates make the errors likelier than one does, in nats."""
        before, after = self.means
        whole = float((self.left_sums[0] + self.right_sums[0]) / (self.left[0] + self.right[0]))
        return self.left * _divergence(before, whole) + self.right * _divergence(after, whole)


@dataclass(frozen=True, slots=True)
class _Cut:
    """What speaks for each split, and the `best` of them, behind `falls`: how many errors each had, and their sum."""

    splits: _Splits
    evidence: Floats
    best: int
    falls: list[tuple[float, float]]

    def median(self, squares: float) -> int:
        """Index of the split before which half of the likelihood of its kind lies; each is for those up to the next.

        `squares` is the sum of those of all errors.
        """
        rises, ages = self.splits.rises, self.splits.right
        allowed = rises == rises[self.best]
        evidence = self.evidence * self._certainty(squares)
        weights = -np.diff(ages, append=0.0) / (ages + RECENT)
        likelihood = np.where(allowed, np.exp(evidence - evidence[allowed].max()), 0.0) * weights
        sums = likelihood[::-1].cumsum()
        return len(ages) - 1 - int(sums.searchsorted(sums[-1] / 2.0))

    def _certainty(self, squares: float) -> float:
        """By how much less errors vary within the parts than those that are 0 or 1: 1 for just those."""
        splits, best = self.splits, self.best
        sides = ((splits.left, splits.left_sums), (splits.right, splits.right_sums))
        within, binary = squares, 0.0
        for n, total in (*self.falls, *((float(n[best]), float(sums[best])) for n, sums in sides)):
            within -= total * total / n
            binary += total * (1.0 - min(1.0, total / n))
        least = LEAST_SPREAD * binary
        return binary / max(within, least) if least > 0.0 else 1.0


def _divergence(means: Floats, whole: float) -> Floats:
    """Kullback and Leibler's, in nats an error, of errors with these means from those with the mean of the whole."""
    # Errors of an hour that was expected to have few count for more than one.
    means, whole = np.minimum(means, 1.0), min(whole, 1.0)
    return _relative_entropy(means, whole) + _relative_entropy(1.0 - means, 1.0 - whole)


def _relative_entropy(shares: Floats, whole: float) -> Floats:
    some = (shares > 0.0) & (whole > 0.0)
    return np.where(some, shares * np.log(np.where(some, shares, 1.0) / (whole or 1.0)), 0.0)


def fold_in_numpy(errors: NDArray[np.float64], first: int, fine: int, before: Folded) -> Folded:
    """What :func:`native.sums.folding` does."""
    # accumulate adds strictly from left to right, so every way to batch rounds alike; sum() pairs.
    totals = np.add.accumulate(np.concatenate(([before.total], errors)))[1:]
    squares = np.add.accumulate(np.concatenate(([before.squares], errors * errors)))
    newest = first + len(errors) - 1
    kept = _kept(first, newest, fine)
    older = before.positions % _distance(newest - before.positions, fine) == 0
    return Folded(
        np.concatenate((before.positions[older], kept)),
        np.concatenate((before.totals[older], totals[kept - first])),
        float(totals[-1]),
        float(squares[-1]),
    )


def _distance(age: NDArray[np.int64], fine: int) -> NDArray[np.int64]:
    """How far apart positions of an age are kept: for 64, 1 up to 63, 2 up to 127, 4 up to 255."""
    return np.int64(1) << np.maximum(0, np.frexp(np.maximum(age, 1) / fine)[1]).astype(np.int64)


def _kept(first: int, newest: int, fine: int) -> NDArray[np.int64]:
    """The positions from the first to the newest that are kept. Most are not, so only those are made."""
    parts, distance, last = [], 1, newest
    while last >= first:
        oldest = max(first, newest - fine * distance + 1)
        parts.append(np.arange(-(-oldest // distance) * distance, last + 1, distance, dtype=np.int64))
        last, distance = oldest - 1, distance * 2
    return np.concatenate(parts[::-1])
