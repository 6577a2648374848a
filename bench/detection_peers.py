"""The detectors that are compared, each as a function from a stream to the errors at which it fired.

All see the reference first. Thresholds are those that give the same false alarms as ours at an error rate of .1, found
by simulation; what they realise stands beside what they achieve.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm  # type: ignore[import-untyped]  # scipy leaves it untyped

from bench.detection_processes import Stream
from detectors.adwin import Adwin
from detectors.contract import Detector
from detectors.e_detector import EDetector
from detectors.page_hinkley import PageHinkley
from detectors.reference import Reference

Runner = Callable[[Stream], list[int]]
"""Indices in the stream's errors, the reference not counted."""

RUN_LENGTH = 100_000.0
ADWIN_DELTA = 0.1
STEPD_WINDOW = 500
STEPD_ALPHA = 0.0005
PAGE_HINKLEY_LAMBDA = 52.0
FOCUS_THRESHOLD = 11.3


def e_detector(threshold: float = RUN_LENGTH, reference: Reference | None = None) -> Runner:
    """Ours with its defaults; the reference is measured, or given."""

    def run(stream: Stream) -> list[int]:
        known = Reference.of_errors(stream.reference) if reference is None else reference
        detector = EDetector(threshold=threshold, reference=known)
        return [each.index for each in detector.update_many(stream.errors)]

    return run


def _fed(make: Callable[[], Detector]) -> Runner:
    def run(stream: Stream) -> list[int]:
        detector = make()
        detector.update_many(stream.reference)
        return [each.index for each in detector.update_many(stream.errors)]

    return run


def adwin(delta: float = ADWIN_DELTA) -> Runner:
    """River's ADWIN, of whose alarms those of a rise count."""
    return _fed(lambda: Adwin(delta=delta))


def page_hinkley(threshold: float = PAGE_HINKLEY_LAMBDA) -> Runner:
    """River's Page-Hinkley, upwards."""
    return _fed(lambda: PageHinkley(threshold=threshold))


def always(stream: Stream) -> list[int]:
    """Fires at every error that a model makes: what perfect recall and no delay alone are worth."""
    return np.flatnonzero(stream.errors).tolist()


def stepd(window: int = STEPD_WINDOW, alpha: float = STEPD_ALPHA) -> Runner:
    """Nishida and Yamauchi's STEPD (Discovery Science 2007): the newest window against all before it, upwards only.

    The test of equal proportions with continuity correction, at every outcome; after an alarm it starts afresh.
    """
    limit = float(norm.ppf(1.0 - alpha))

    def run(stream: Stream) -> list[int]:
        errors = np.concatenate((stream.reference, stream.errors))
        offset = len(stream.reference)
        found: list[int] = []
        start = 0
        while (index := _first_stepd(errors[start:], window, limit)) is not None:
            start += index + 1
            if start > offset:
                found.append(start - 1 - offset)
        return found

    return run


def _first_stepd(errors: NDArray[np.float64], window: int, limit: float) -> int | None:
    totals = np.concatenate(([0.0], np.cumsum(errors)))
    ends = np.arange(2 * window, len(errors) + 1)
    if not len(ends):
        return None
    older_n = ends - window
    older, recent = totals[older_n], totals[ends] - totals[older_n]
    pooled = totals[ends] / ends
    weight = 1.0 / older_n + 1.0 / window
    with np.errstate(invalid="ignore", divide="ignore"):
        rise = (recent / window - older / older_n - 0.5 * weight) / np.sqrt(pooled * (1.0 - pooled) * weight)
    fires = rise > limit
    return int(ends[np.argmax(fires)]) - 1 if fires.any() else None


def focus(threshold: float = FOCUS_THRESHOLD) -> Runner:
    """FOCuS for a rising Bernoulli rate, unknown before and after: the exact likelihood ratio over all changes.

    Romano, Eckley and Fearnhead, "A log-linear non-parametric online changepoint detection algorithm based on
    functional pruning", IEEE Transactions on Signal Processing 2024. The likelihood ratio is convex in (place, errors
    so far) of the change, so its maximum lies on a corner of the lower convex hull of those points, of which there
    are some ten. Ours, as the package changepoint-online is under the GPL and the lock is also the image's; a rise
    can only come with an error, so only there the corners are looked at.
    """

    def run(stream: Stream) -> list[int]:
        found: list[int] = []
        offset = len(stream.reference)
        wrong = np.flatnonzero(np.concatenate((stream.reference, stream.errors))).tolist()
        start = 0
        while (place := first_focus(wrong, start, threshold)) is not None:
            start = place + 1
            if start > offset:
                found.append(start - 1 - offset)
        return found

    return run


def first_focus(wrong: list[int], start: int, threshold: float) -> int | None:
    """The first error at which the statistic exceeds the threshold (nats), of those at `wrong`, beginning at
    `start`."""
    # Corners of the lower hull of (outcomes, errors): a change lies behind a run of right answers, so before an error.
    places: list[int] = [0]
    sums: list[int] = [0]
    total = 0
    for at in wrong:
        if at < start:
            continue
        n = at - start + 1
        if n > 1:
            while len(places) > 1 and (total - sums[-1]) * (places[-1] - places[-2]) <= (sums[-1] - sums[-2]) * (
                n - 1 - places[-1]
            ):
                places.pop()
                sums.pop()
            if n - 1 > places[-1]:
                places.append(n - 1)
                sums.append(total)
        total += 1
        whole = _likelihood(total, n)
        best = 0.0
        for place, errors in zip(places, sums, strict=True):
            if place and errors * n < total * place:
                best = max(best, _likelihood(errors, place) + _likelihood(total - errors, n - place) - whole)
        if best > threshold:
            return at
    return None


def _likelihood(errors: int, n: int) -> float:
    """The greatest log likelihood of so many errors in n."""
    value = 0.0
    if errors:
        value += errors * math.log(errors / n)
    if errors < n:
        value += (n - errors) * math.log(1.0 - errors / n)
    return value
