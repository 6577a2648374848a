"""What the e-detector has staked on its alternatives, and what the errors made of it.

Sums over the past are kept as gains · stakes: a gain is the product of all bets since the window began, and the stakes
are what was there then plus every unit staked since, each divided by the gain at its time. Both are plain running
products and sums, so however a stream is cut into batches they round alike.
"""

import numpy as np
from numpy.typing import NDArray

from detectors.alternatives import ANGLES, WEIGHTS, Bets
from native.bets import GAINS, RIGHT, ROWS, SLOPE, STAKES, betting, new_wealth
from native.bets import WEIGHTS as WEIGHTS_ROW

ALTERNATIVES = len(ANGLES)
ONES = [1.0] * ALTERNATIVES
ZEROS = [0.0] * ALTERNATIVES


class Wealth:
    """Nothing is staked yet, and there are no bets before :meth:`against`."""

    def __init__(self) -> None:
        self._rows = new_wealth(ALTERNATIVES)
        self._set(WEIGHTS_ROW, WEIGHTS.tolist())
        self.start()

    def _set(self, row: int, values: list[float]) -> None:
        self._rows[_row(row)] = [*values]

    def start(self) -> None:
        """Begin with nothing."""
        self.put(ONES, ZEROS)

    def put(self, gains: list[float], stakes: list[float]) -> None:
        """Take over what was stored, a number for every alternative."""
        self._set(GAINS, gains)
        self._set(STAKES, stakes)

    def against(self, bets: Bets) -> None:
        """Bet so from the next error on."""
        self._set(RIGHT, bets.right.tolist())
        self._set(SLOPE, bets.slope.tolist())

    @property
    def gains(self) -> list[float]:
        """For every alternative."""
        return self._rows[_row(GAINS)]

    @property
    def stakes(self) -> list[float]:
        """For every alternative."""
        return self._rows[_row(STAKES)]

    @property
    def statistic(self) -> float:
        """M, the weighted mean of what is there."""
        statistic = 0.0
        for gain, stake in zip(self.gains, self.stakes, strict=True):
            statistic += gain * stake
        return statistic

    def bet(self, errors: NDArray[np.float64], threshold: float) -> int:
        """Bet on the errors up to the first at which M is at least the threshold; gives its index, or how many errors
        there are.
        """
        compiled = betting()
        return self._bet_in_numpy(errors, threshold) if compiled is None else compiled(errors, threshold, self._rows)

    def _bet_in_numpy(self, errors: NDArray[np.float64], threshold: float) -> int:
        rows = np.ctypeslib.as_array(self._rows).reshape(ROWS, ALTERNATIVES, 1)
        gains = np.empty((ALTERNATIVES, len(errors) + 1))
        stakes = np.empty_like(gains)
        gains[:, :1], stakes[:, :1] = rows[GAINS], rows[STAKES]
        np.multiply(rows[SLOPE], errors, out=gains[:, 1:])
        gains[:, 1:] += rows[RIGHT]
        # A gain may overflow behind the error that fires; up to it, none is above the threshold by more than one bet.
        with np.errstate(over="ignore"):
            np.multiply.accumulate(gains, axis=1, out=gains)
            np.divide(rows[WEIGHTS_ROW], gains[:, :-1], out=stakes[:, 1:])
            np.add.accumulate(stakes, axis=1, out=stakes)
            statistic = (gains[:, 1:] * stakes[:, 1:]).sum(axis=0)
        reached = statistic >= threshold
        index = int(np.argmax(reached)) if reached.any() else len(errors)
        used = min(index + 1, len(errors))
        rows[GAINS], rows[STAKES] = gains[:, used : used + 1], stakes[:, used : used + 1]
        return index

    def close(self) -> None:
        """The end of a window: what is there is what is staked, or gains would leave the range of floats."""
        self.put(ONES, [gain * stake for gain, stake in zip(self.gains, self.stakes, strict=True)])


def _row(number: int) -> slice:
    return slice(number * ALTERNATIVES, (number + 1) * ALTERNATIVES)
