"""What a model's errors were when nothing was wrong: their rate, and by how much more than chance it moved.

Errors in production are rarely independent. Two numbers say how far from it they are. *Dispersion* is what
neighbouring errors share (a batch, a session): the variance of sums of 100 over that of independent errors. *Wander*
is what lasts longer than that (hours of the day, label dumps): the standard deviation of the rate itself between
stretches of 500. They are the two components of variance in Var(sum of n) = p(1 − p)(dispersion · n + wander² n²),
solved from the two lengths. Both are shrunk by what independent errors would show by chance, so for those they are 1
and 0 in all but a few per cent.
"""

import math
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from native.sums import filling

WINDOW = 500
"""Errors a window, the longer of the two lengths: about as many as a small drift takes to be found."""
FINE = 100
"""Errors a part of a window, the shorter length."""
PARTS = WINDOW // FINE
LEAST_OUTCOMES = 30
"""Fewer say too little of a rate."""
CHANCE = 0.025
"""How much of the variance is put down to chance: as much as independent errors exceed in so many references."""
CHANCE_Z = NormalDist().inv_cdf(1.0 - CHANCE)


def fill_in_numpy(
    errors: NDArray[np.float64], position: int, total: float, window: int, part: int
) -> tuple[float, list[float]]:
    """What :func:`native.sums.filling` does."""
    ends: list[float] = []
    start = 0
    while start < len(errors):
        chunk = errors[start : start + window - position]
        totals = np.add.accumulate(np.concatenate(([total], chunk)))
        ends.extend(totals[part - position % part :: part].tolist())
        start, position, total = start + len(chunk), position + len(chunk), float(totals[-1])
        if position == window:
            position, total = 0, 0.0
    return total, ends


@dataclass(slots=True)
class FillingWindow:
    """The window that errors are coming into: how many have, their total, and that at the end of each of its parts."""

    position: int = 0
    total: float = 0.0
    boundaries: list[float] = field(default_factory=list)

    @property
    def left(self) -> int:
        """Errors until it is full."""
        return WINDOW - self.position

    @property
    def consistent(self) -> bool:
        """Whether a stored one can have been filled so."""
        return 0 <= self.position < WINDOW and len(self.boundaries) == self.position // FINE

    def add(self, errors: NDArray[np.float64]) -> list[tuple[float, float]]:
        """Take in errors, strictly from left to right, so that batches round alike; gives of each window that they
        filled the total, and the sum of the squared totals of its parts.
        """
        fill = filling() or fill_in_numpy
        self.total, ends = fill(errors, self.position, self.total, WINDOW, FINE)
        self.position = (self.position + len(errors)) % WINDOW
        self.boundaries.extend(ends)
        full = []
        while len(self.boundaries) >= PARTS:
            full.append(_sums(self.boundaries[:PARTS]))
            del self.boundaries[:PARTS]
        return full


def _sums(boundaries: list[float]) -> tuple[float, float]:
    fine_squares, before = 0.0, 0.0
    for boundary in boundaries:
        fine_squares += (boundary - before) ** 2
        before = boundary
    return before, fine_squares


@dataclass(slots=True)
class WindowSums:
    """Sums over whole windows of errors of any unit: a reference as soon as their scale is known."""

    windows: int = 0
    total: float = 0.0
    squares: float = 0.0
    fine_squares: float = 0.0
    filling: FillingWindow = field(default_factory=FillingWindow)

    def add(self, errors: NDArray[np.float64]) -> None:
        """Take in errors, oldest first; how they are cut into batches makes no difference."""
        for total, fine_squares in self.filling.add(errors):
            self.windows += 1
            self.total += total
            self.squares += total * total
            self.fine_squares += fine_squares

    def join(self, other: "WindowSums") -> None:
        """Take in the whole windows of others, as errors that came before the next one."""
        self.windows += other.windows
        self.total += other.total
        self.squares += other.squares
        self.fine_squares += other.fine_squares

    def reference(self, scale: float) -> "Reference":
        """Of the whole windows, with errors divided by the scale."""
        return Reference(
            float(self.windows),
            min(self.total / scale, float(self.windows * WINDOW)),
            self.squares / scale / scale,
            self.fine_squares / scale / scale,
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """Sums over windows of 500 errors, each from 0 to 1.

    `squares` sums the squared totals of windows, `fine_squares` those of their parts. `windows` may be a fraction for a
    reference that is known by its rate alone.
    """

    windows: float
    total: float
    squares: float
    fine_squares: float

    def __post_init__(self) -> None:
        for each in (self.total, self.squares, self.fine_squares):
            if not 0.0 <= each < math.inf:  # NaN is neither
                raise ValueError("the sums of a reference are not finite numbers of 0 or more")
        if not (math.isfinite(self.windows) and self.total <= self.windows * WINDOW):
            raise ValueError(f"a reference of {self.windows} windows cannot hold {self.total} errors")

    @classmethod
    def of_rate(cls, n: int, rate: float, standard_error: float | None = None) -> "Reference":
        """`n` errors of mean `rate`; a standard error above that of independent errors tells how much they moved.

        Raises ValueError for a rate outside 0..1 or fewer than 30 errors.
        """
        if n < LEAST_OUTCOMES:
            raise ValueError(f"a reference over {n} errors says too little: give at least {LEAST_OUTCOMES}")
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"the rate of errors is {rate}: give a number from 0 to 1")
        independent = rate * (1.0 - rate) / n
        dispersion = 1.0
        if standard_error is not None and independent > 0.0:
            dispersion = max(1.0, standard_error**2 / independent)
        windows = n / WINDOW
        within = rate * (1.0 - rate) * n * dispersion
        return cls(windows, rate * n, within + n * rate * rate * WINDOW, within + n * rate * rate * FINE)

    @classmethod
    def of_errors(cls, errors: NDArray[np.float64]) -> "Reference":
        """Whole windows of the errors, oldest first; a rest of fewer than 500 is not used."""
        whole = len(errors) // WINDOW * WINDOW
        parts = errors[:whole].reshape(-1, FINE).sum(axis=1)
        windows = parts.reshape(-1, PARTS).sum(axis=1)
        return cls(
            float(len(windows)),
            float(windows.sum()),
            float((windows * windows).sum()),
            float((parts * parts).sum()),
        )

    def plus(self, total: float, fine_squares: float) -> "Reference":
        """With one window more: its total, and the sum of the squared totals of its parts."""
        return Reference(
            self.windows + 1.0, self.total + total, self.squares + total * total, self.fine_squares + fine_squares
        )

    @property
    def n(self) -> float:
        """Errors it holds."""
        return self.windows * WINDOW

    @property
    def rate(self) -> float:
        """Mean error, never exactly 0 or 1: half an error is added, or a model without any would be known exactly."""
        return (self.total + 0.5) / (self.n + 1.0)

    @property
    def spread(self) -> "Spread":
        """Dispersion and wander."""
        return self.spread_beyond(CHANCE_Z)

    def spread_beyond(self, chance_z: float) -> "Spread":
        """The same with so many standard normal deviations of the variance put down to chance."""
        rate = self.rate
        variance = rate * (1.0 - rate)
        coarse = self._excess(self.squares, self.windows, WINDOW, variance, chance_z)
        fine = self._excess(self.fine_squares, self.windows * PARTS, FINE, variance, chance_z)
        wander = max(0.0, coarse - fine) / (WINDOW - FINE)
        return Spread(
            rate=rate,
            dispersion=1.0 + max(0.0, fine - FINE * wander),
            wander=math.sqrt(wander * variance),
            standard_error=math.sqrt((1.0 + max(coarse, fine)) * variance / max(self.n, 1.0)),
            independent_error=math.sqrt(variance / max(self.n, 1.0)),
        )

    def _excess(self, squares: float, count: float, length: int, variance: float, chance_z: float) -> float:
        """Variance of sums over that of independent errors, less what chance explains; 0 if chance explains it all."""
        if count < 2.0:
            return 0.0
        mean = length * self.rate
        ratio = (squares - 2.0 * mean * self.total + count * mean * mean) / ((count - 1.0) * length * variance)
        # Few errors a sum make the ratio vary more than sums of normal ones do: their excess kurtosis.
        freedom = (count - 1.0) / (1.0 + 0.5 / (length * variance))
        # Wilson and Hilferty 1931: the cube root of a χ² over its degrees of freedom is about normal.
        third = 2.0 / (9.0 * freedom)
        return max(0.0, ratio - max(1.0, (1.0 - third + chance_z * math.sqrt(third)) ** 3))


@dataclass(frozen=True, slots=True)
class Spread:
    """The rate of a reference and how it moves: the module's words. `standard_error` is that of `rate`,
    `independent_error` what it would be if errors were independent.
    """

    rate: float
    dispersion: float
    wander: float
    standard_error: float
    independent_error: float
