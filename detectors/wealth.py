"""What the e-detector has staked on its alternatives, and what the errors made of it.

Sums over the past are kept as gains · stakes: a gain is the product of all bets since the window began, and the stakes
are what was there then plus every unit staked since, each divided by the gain at its time. Both are plain running
products and sums, so however a stream is cut into batches they round alike.
"""

import numpy as np
from numpy.typing import NDArray

from detectors.alternatives import ANGLES, WEIGHTS, Bets
from native.bets import ROWS, Row, betting, new_wealth

ALTERNATIVES = len(ANGLES)
ONES = [1.0] * ALTERNATIVES
ZEROS = [0.0] * ALTERNATIVES
GAINS, STAKES, RIGHT, SLOPE, SHARES = (slice(row * ALTERNATIVES, (row + 1) * ALTERNATIVES) for row in Row)


class Wealth:
    """Nothing is staked yet, and there are no bets before :meth:`against`."""

    def __init__(self) -> None:
        self._rows = new_wealth(ALTERNATIVES)
        self._rows[SHARES] = [*WEIGHTS]
        self.start()

    def start(self) -> None:
        """Begin with nothing."""
        self.put(ONES, ZEROS)

    def put(self, gains: list[float], stakes: list[float]) -> None:
        """Take over what was stored, a number for every alternative."""
        self._rows[GAINS], self._rows[STAKES] = [*gains], [*stakes]

    def against(self, bets: Bets) -> None:
        """Bet so from the next error on."""
        self._rows[RIGHT], self._rows[SLOPE] = [*bets.right.tolist()], [*bets.slope.tolist()]

    @property
    def gains(self) -> list[float]:
        """For every alternative."""
        return self._rows[GAINS]

    @property
    def stakes(self) -> list[float]:
        """For every alternative."""
        return self._rows[STAKES]

    @property
    def statistic(self) -> float:
        """M, the weighted mean of what is there."""
        return _total(self._products)

    @property
    def _products(self) -> list[float]:
        return [gain * stake for gain, stake in zip(self.gains, self.stakes, strict=True)]

    def close(self) -> float:
        """The end of a window: what is there is what is staked, or gains would leave the range of floats. Gives M."""
        products = self._products
        self.put(ONES, products)
        return _total(products)

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
        gains[:, :1], stakes[:, :1] = rows[Row.GAINS], rows[Row.STAKES]
        np.multiply(rows[Row.SLOPE], errors, out=gains[:, 1:])
        gains[:, 1:] += rows[Row.RIGHT]
        # A gain may overflow behind the error that fires; up to it, none is above the threshold by more than one bet.
        with np.errstate(over="ignore"):
            np.multiply.accumulate(gains, axis=1, out=gains)
            np.divide(rows[Row.WEIGHTS], gains[:, :-1], out=stakes[:, 1:])
            np.add.accumulate(stakes, axis=1, out=stakes)
            statistic = (gains[:, 1:] * stakes[:, 1:]).sum(axis=0)
        reached = statistic >= threshold
        index = int(np.argmax(reached)) if reached.any() else len(errors)
        used = min(index + 1, len(errors))
        rows[Row.GAINS], rows[Row.STAKES] = gains[:, used : used + 1], stakes[:, used : used + 1]
        return index


def _total(values: list[float]) -> float:
    """From left to right, as the compiled loop adds; Python's own sum() does so up to 3.11 only."""
    total = 0.0
    for value in values:
        total += value
    return total
