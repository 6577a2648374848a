"""Outcomes that come all at once: a nightly dump, or the backlog of a feed that was blocked.

Until the last of them is there, nobody knows in what order they come: a dump that is sorted begins with whatever it is
sorted by.
"""

LEAST_OUTCOMES = 100
"""In a minute; fewer make no verdict."""
LEAST_SUSPECT = 8
"""In a minute that is not over; fewer make no detection."""
LEAST_S = 10
"""Outcomes that come in bursts of some seconds are none."""
FLOW = 5.0
"""Times the predictions of a minute: outcomes that come soon never outnumber what was predicted."""
PART = 0.25
"""Of an hour's outcomes in its last minute."""
FIRST_DAY_S = 90_000
"""A day, and an hour for a dump that is later than the one before: how outcomes come has been seen once by then."""
SETTLE_MINUTES = 5
"""Behind the last such minute, before what came is believed to be all."""


def least_dump(flow: float, outcomes: int) -> float:
    """From how many outcomes on a minute is a dump: `flow` predictions come a minute, so many outcomes came in the hour
    before.
    """
    return max(float(LEAST_OUTCOMES), FLOW * flow, outcomes * PART / (1.0 - PART))


def suspect(flow: float, outcomes: int, seconds: int) -> bool:
    """Whether so many outcomes in the first seconds of a minute may be the beginning of a dump.

    `flow`: outcomes, or predictions if they are more, come a minute; 0 if no outcome came in the hour before, when any
    outcome may be the first of many.
    """
    return flow <= 0.0 or outcomes >= max(LEAST_SUSPECT, FLOW * flow * max(seconds, LEAST_S) / 60)
