"""How long outcomes take, as counts by delay: from the minute of a prediction to the minute in which its outcome came.

A bucket is a quarter of the stretch between two powers of two, so a quantile is at most a quarter too long.
"""

import math
from collections.abc import Iterable, Mapping

DAYS = 7
"""Days before today whose outcomes tell how long they take."""
LEAST_OUTCOMES = 50
"""Of a predicted class; fewer do not tell when its cohorts are mature."""
MATURE = 0.95
"""The share of the outcomes that have come of a mature cohort, by what is known of delays."""

Delays = Mapping[int, int]
"""Bucket → outcomes."""


def bucket(minutes: int) -> int:
    """The bucket of a delay; a negative one counts as none."""
    mantissa, exponent = math.frexp(max(0, minutes))
    return 4 * exponent + int(8 * mantissa) - 4 if minutes > 0 else 0


def longest(number: int) -> int:
    """The longest delay in a bucket, in minutes."""
    exponent, quarter = divmod(number, 4)
    if number <= 0:
        return 0
    return math.ceil(math.ldexp(0.5 + (quarter + 1) / 8, exponent)) - 1


def quantile(delays: Delays, share: float) -> int | None:
    """The delay in minutes within which a share of the outcomes came; None without outcomes."""
    total = sum(delays.values())
    if not total:
        return None
    seen = 0
    for number in sorted(delays):
        seen += delays[number]
        if seen >= share * total:
            return longest(number)
    raise ValueError(f"a share is from 0 to 1, not {share}")


def together(parts: Iterable[Delays]) -> dict[int, int]:
    """The counts of all of them."""
    total: dict[int, int] = {}
    for part in parts:
        for number, n in part.items():
            total[number] = total.get(number, 0) + n
    return total


def slowest(classes: Mapping[str, Delays]) -> tuple[str, int] | None:
    """The predicted class whose outcomes take longest, and after how many minutes nearly all of them have come: then a
    cohort is mature. The first by name of several; None if no class has enough outcomes to tell.
    """
    known = [
        (label, minutes)
        for label, delays in sorted(classes.items())
        if sum(delays.values()) >= LEAST_OUTCOMES and (minutes := quantile(delays, MATURE)) is not None
    ]
    return max(known, key=lambda each: each[1], default=None)
