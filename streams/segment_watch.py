"""The segments of a version whose errors are watched on their own: those that the operator names, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detectors.baseline import Baseline, Metric
from detectors.four_rates import Codes
from detectors.part_watch import PartDetection, PartState, PartWatch, divided
from streams.detecting import Normal, SegmentDetecting
from streams.order import Floats
from streams.settings import MonitorSettings

SHARE = 0.25
"""Of the model's budget, for its watched segments together."""

Ints = NDArray[np.int64]


def codes_of(settings: MonitorSettings) -> dict[str, int]:
    """The code, from 1, of each segment that is watched; an outcome of any other has 0."""
    return {name: code for code, name in enumerate(settings.segments, 1)} if settings.detectors else {}


@dataclass(frozen=True, slots=True)
class SegmentState:
    """``before`` outcomes of the version came before the segment's first; second ``until_s`` ends what it learns at
    least.
    """

    before: int
    until_s: int
    part: PartState


@dataclass(slots=True)
class _Watched:
    before: int
    until_s: int
    part: PartWatch


class SegmentWatch:
    """The watched segments of one version.

    Each begins with its own first outcome, and learns from there what is normal: over ``baseline_outcomes`` of the
    version and ``baseline_hours``, and longer if fewer than 500 were its own.
    """

    def __init__(
        self, settings: MonitorSettings, metric: Metric, states: Mapping[str, SegmentState] | None = None
    ) -> None:
        self._codes = codes_of(settings)
        self._settings = settings
        self._metric: Metric = metric
        self._budgets = divided(SHARE * settings.false_alarms_per_week, list(self._codes))
        self._watched = {
            name: self._made(name, state.before, state.until_s, state.part)
            for name, state in (states or {}).items()
            if name in self._codes
        }

    @property
    def share(self) -> float:
        """The part of the model's budget that is theirs."""
        return SHARE if self._codes else 0.0

    def _made(self, name: str, before: int, until_s: int, state: PartState | None = None) -> _Watched:
        learning = before + self._settings.baseline_outcomes
        absolute = self._metric == "mae"
        return _Watched(
            before, until_s, PartWatch(name, self._budgets[name], learning, state, until_s, absolute=absolute)
        )

    def start_afresh(self, segment: str = "") -> None:
        """Forget what the detectors saw, of one segment or of all (""), not what was normal."""
        for name, each in self._watched.items():
            if segment in ("", name):
                each.part.start_afresh()

    def learn_until(self, second: int) -> None:
        """Learn on: what has come in the first day and what comes before a second is normal too."""
        for each in self._watched.values():
            each.until_s = max(each.until_s, second)
            each.part.learn_until(second)

    def feed(
        self, values: Floats, seconds: Ints, segments: Codes | None, before: int
    ) -> list[tuple[int, PartDetection]]:
        """Feed a batch of the version's outcomes, of which ``before`` came earlier; ``values`` are errors from 0 to 1,
        or absolute ones. Gives the detections, each with the place of its segment among those watched.

        Batches end with a second. How a stream is cut into batches makes no other difference.
        """
        found: list[tuple[int, PartDetection]] = []
        if segments is None:
            return found
        for name, code in self._codes.items():
            places = np.flatnonzero(segments == code)
            if not len(places):
                continue
            watched = self._watched.get(name)
            if watched is None:
                first = int(places[0])
                until_s = int(seconds[first]) + int(3_600 * self._settings.baseline_hours)
                watched = self._watched[name] = self._made(name, before + first, until_s)
            for each in watched.part.update_many(seconds[places], values[places], before + 1 + places):
                found.append((code, replace(each, stream=name, index=int(places[each.index]))))
        return found

    def baseline(self, segment: str) -> Baseline | None:
        """What a segment achieves when nothing is wrong; None if it is not watched, or still learnt."""
        watched = self._watched.get(segment)
        reference = watched.part.reference if watched is not None else None
        if watched is None or reference is None:
            return None
        spread, scale = reference.spread, watched.part.scale
        value = 1.0 - spread.rate if self._metric == "accuracy" else spread.rate * scale
        return Baseline(int(reference.n), self._metric, value, spread.standard_error * scale)

    def detecting(self, count: int) -> list[SegmentDetecting]:
        """How each is watched now, when the version has had ``count`` outcomes."""
        found = []
        for name, budget in self._budgets.items():
            watched = self._watched.get(name)
            if watched is None:
                found.append(SegmentDetecting(name, budget))
                continue
            part, normal, scale = watched.part, None, watched.part.scale
            if (reference := part.reference) is not None:
                spread = reference.spread
                normal = Normal(
                    reference.n,
                    spread.rate * scale,
                    spread.standard_error * scale,
                    spread.dispersion,
                    spread.wander * scale,
                )
            found.append(
                SegmentDetecting(
                    name,
                    budget,
                    part.outcomes_per_s,
                    part.count,
                    max(0, watched.before + self._settings.baseline_outcomes - count),
                    part.missing,
                    scale,
                    normal,
                    part.detector.level if part.detector is not None else None,
                    part.allotted.run_length if part.allotted is not None else None,
                )
            )
        return found

    @property
    def states(self) -> dict[str, SegmentState]:
        """The whole state, to be stored; in one order, whichever segment came first."""
        return {
            name: SegmentState(each.before, each.until_s, each.part.state)
            for name, each in sorted(self._watched.items())
        }
