"""How many outcomes the e-detector takes to find a rate of errors: told from what it bets, not simulated."""

import math

import numpy as np

from detectors.alternatives import WEIGHTS, bets


def expected_delay(level: float, dispersion: float, threshold: float, rate: float) -> float:
    """Outcomes from a change to error rate `rate` until the detection, about; inf if no bet gains.

    After the change the wealth of a bet grows by its mean logarithm I an outcome, and each outcome stakes anew: R is
    about exp(n I) / (1 − exp(−I)). The delay is the n at which the first of the weighted R is the threshold. That is
    a little much: simulated medians for independent errors are .7 to 1.1 of it, with delays of thousands .65 to 1.1.
    """
    made = bets(level, dispersion)
    gains = rate * np.log(made.right + made.slope) + (1.0 - rate) * np.log(made.right)
    delays = [
        max(1.0, math.log(threshold / weight * -math.expm1(-gain)) / gain)
        for gain, weight in zip(gains.tolist(), WEIGHTS.tolist(), strict=True)
        if gain > 0.0
    ]
    return min(delays, default=math.inf)
