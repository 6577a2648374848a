"""From the false alarms that an operator accepts in a week to the thresholds of everything that can page.

The budget of a model is divided equally (or by weight) over all that watches it: each detector on each stream of
errors, which may be all outcomes, those of a segment, or those that concern one of the four rates. A stream of r
outcomes a second with a budget of b false alarms a week has a run length of r · 604,800 / b outcomes. The e-detector
takes it as its threshold, by proof; for ADWIN and Page-Hinkley it is looked up in a table that simulation made
(`detectors/hazard_table.py`), and extended as a constant hazard: one alarm a week at 1,000 outcomes a second is one
in 605 million, which nobody simulates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from detectors.e_detector import LEAST_RUN_LENGTH
from detectors.hazard_table import LINES
from detectors.names import CALIBRATED

WEEK_S = 604_800
BY_PROOF = "e_detector"
LARGEST_DELTA = 0.99


class NotCalibrated(ValueError):
    """A detector whose run length nobody knows cannot page within a budget: let it be evidence, or choose another."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A detector on a stream of errors that holds the share `share` of a model's outcomes, at an error rate.

    `weight` is its part of the budget, relative to the others'.
    """

    stream: str
    detector: str
    share: float
    error_rate: float
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"the share of {self.stream} is {self.share}: give a number above 0, up to 1")
        if not 0.0 <= self.error_rate <= 1.0:
            raise ValueError(f"the error rate of {self.stream} is {self.error_rate}: give a number from 0 to 1")
        if not (math.isfinite(self.weight) and self.weight > 0.0):
            raise ValueError(f"the weight of {self.stream} is {self.weight}: give a positive number")


@dataclass(frozen=True, slots=True)
class Allotted:
    """What a detector may do: false alarms a week, the run length in its own outcomes, and the parameters for that."""

    watched: Watched
    false_alarms_a_week: float
    outcomes_per_s: float
    run_length: float
    parameters: Mapping[str, float]


def allot(false_alarms_a_week: float, outcomes_per_s: float, watched: Sequence[Watched]) -> list[Allotted]:
    """Divide a model's budget over all that can page, in the order given.

    A stream so slow that its run length is below what a detector can have gets the shortest that it can: it then alarms
    less often than it might. Raises ValueError for a budget or a rate that is not positive, NotCalibrated for a
    detector without a known run length.
    """
    for name, value in (("false alarms a week", false_alarms_a_week), ("outcomes a second", outcomes_per_s)):
        if not (math.isfinite(value) and value > 0.0):
            raise ValueError(f"the {name} are {value}: give a positive number")
    whole = sum(each.weight for each in watched)
    allotted = []
    for each in watched:
        part = false_alarms_a_week * each.weight / whole
        rate = outcomes_per_s * each.share
        run_length = max(LEAST_RUN_LENGTH, rate * WEEK_S / part)
        allotted.append(Allotted(each, part, rate, run_length, parameters(each.detector, each.error_rate, run_length)))
    return allotted


def parameters(detector: str, error_rate: float, run_length: float) -> dict[str, float]:
    """What to make a detector with, so that its run length on stationary errors is about `run_length` outcomes.

    Between the error rates of the table the parameter is interpolated over the logarithm of the rate, outside it is
    that of the nearest. Raises NotCalibrated for a detector that is neither in the table nor has a proof.
    """
    if detector == BY_PROOF:
        return {"threshold": run_length}
    points = [
        (math.log(line.rate), (math.log(run_length) - line.intercept) / line.slope)
        for line in LINES
        if line.detector == detector
    ]
    if not points:
        known = ", ".join(CALIBRATED)
        raise NotCalibrated(f"nobody knows how often {detector} alarms falsely: it is evidence only. {known} can page")
    x = _interpolated(points, math.log(max(error_rate, 1e-12)))
    if detector == "adwin":
        return {"delta": min(LARGEST_DELTA, math.exp(-x))}
    # Without forgetting: with River's α of .9999 the lowest point stays and the sum comes back to it, so the
    # hazard grows with time, and no table can tell it.
    return {"threshold": max(1.0, x), "alpha": 1.0}


def _interpolated(points: Sequence[tuple[float, float]], at: float) -> float:
    """Piecewise linear over points sorted by their first number, constant outside."""
    if at <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in pairwise(points):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return points[-1][1]


def explained(false_alarms_a_week: float, outcomes_per_s: float, watched: Sequence[Watched]) -> list[str]:
    """The arithmetic of :func:`allot`, a line of text for each step; for `driftline explain`."""
    allotted = allot(false_alarms_a_week, outcomes_per_s, watched)
    lines = [
        f"budget: {false_alarms_a_week:g} false alarms a week for the model, over {len(allotted)} that can page",
        f"outcomes: {outcomes_per_s:g} a second are {outcomes_per_s * WEEK_S:,.0f} a week",
    ]
    for each in allotted:
        made = ", ".join(f"{name} = {value:.6g}" for name, value in each.parameters.items())
        of = each.watched
        run = f"{each.run_length:,.0f} outcomes"
        run += "; the least that says anything, so it alarms less often" if each.run_length == LEAST_RUN_LENGTH else ""
        source = "by proof" if of.detector == BY_PROOF else f"by table, at an error rate of {of.error_rate:g}"
        lines.append(
            f"{of.stream}, {of.detector}: {each.outcomes_per_s:g} outcomes a second × {WEEK_S:,} s / "
            f"{each.false_alarms_a_week:g} = one false alarm in {run}; {made} ({source})"
        )
    return lines
