"""What a detector says: one frozen record of a change for the worse."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Detection:
    """A model's errors became worse.

    `index` is the position, in the batch that was given, of the error that fired. The estimated change lies `window`
    errors back: the last `window` errors, the one at `index` included, come after it. So the first of them is at
    `index - window + 1`, which is negative if it was in an earlier batch. That is as likely too old as too young.
    `least_squares_window` is that of the split with the least squared error, far too young where errors are rare.
    `statistic` and `threshold` are in the detector's own units; `before` and `after` are the mean errors on the two
    sides of the estimated change, since the detector's last reset.
    """

    detector: str
    index: int
    statistic: float
    threshold: float
    before: float
    after: float
    window: int
    least_squares_window: int
