"""When the four rates of a version are watched: which outcomes show two classes, and when they are looked at.

A look at all four costs as much as 500 outcomes, however few there are. So outcomes are gathered, and looked at when a
second ends with a thousand of them, or the stream's minute ends: points of the stream, not of how it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.four_rates import OTHER, Codes, FourRates, FourRatesState
from detectors.part_watch import PartDetection
from streams.detecting import Normal, RateDetecting
from streams.order import Errors
from streams.settings import MonitorSettings

SHARE = 0.5
"""Of the model's budget, for the four rates together: they and the error rate find the same drifts, mostly."""
LOOK_OUTCOMES = 1_000

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class BinaryRatesState:
    """``two_classes`` is False once a label has shown that the model has more. The last two are what is gathered."""

    rates: FourRatesState | None = None
    two_classes: bool = True
    positive: str = ""
    seconds: bytes = b""
    codes: bytes = b""


class BinaryRates:
    """The four rates of one version, from the first outcomes with codes on until a third class shows."""

    def __init__(self, settings: MonitorSettings, state: BinaryRatesState | None = None) -> None:
        state = state if state is not None else BinaryRatesState()
        self._settings = settings
        self._wanted = bool(settings.rates and settings.detectors)
        self._rates: FourRates | None = None
        self._two_classes = state.two_classes
        self._positive = state.positive
        self._seconds = [np.frombuffer(state.seconds, dtype="<i8").astype(np.int64)]
        self._codes = [np.frombuffer(state.codes, dtype="u1")]
        self._gathered = len(state.codes)
        if state.rates is not None and self._wanted:
            self._rates = self._made(0)
            self._rates.restore(state.rates)

    @property
    def share(self) -> float:
        """The part of the model's budget that is theirs."""
        return SHARE if self._rates is not None else 0.0

    def _made(self, until_s: int) -> FourRates:
        settings = self._settings
        return FourRates(settings.rates, SHARE * settings.false_alarms_per_week, settings.baseline_outcomes, until_s)

    def name_positive(self, positive: str) -> bool:
        """The spelling of the class that is the positive one now; gives whether it is another than before.

        Other rates are learnt then.
        """
        if positive == self._positive:
            return False
        if self._positive:
            self._two_classes = True
            self._end()
        self._positive = positive
        return True

    def start_afresh(self) -> None:
        """Forget what the detectors saw, not what the rates were when nothing was wrong."""
        if self._rates is not None:
            self.look()
            self._rates.start_afresh()

    def learn_until(self, second: int) -> None:
        """Learn on: what has come in the first day and what comes before a second is normal too."""
        if self._rates is not None:
            self.look()
            self._rates.learn_until(second)

    def _end(self) -> None:
        self._rates = None
        self._take()

    # They come and go between two seconds, so that it makes no difference how the stream is cut into batches.

    def begin_or_end(self, errors: Errors, start: int) -> int:
        """Let them begin or end where an index of the batch says so; gives the next index to ask at."""
        codes, end = errors.codes, len(errors)
        if codes is None or not self._two_classes or not self._wanted:
            return end
        others = np.flatnonzero(codes[start:] == OTHER)
        if len(others):
            end = _second_begins(errors, start + int(others[0]))
            if end <= start:
                self._two_classes = False
                self._end()
                return len(errors)
        if self._rates is None:
            known = np.flatnonzero(codes[start:end] < OTHER)
            begins = _second_begins(errors, start + int(known[0])) if len(known) else end
            if begins > start:
                return begins
            self._rates = self._made(int(errors.seconds[start]) + int(3_600 * self._settings.baseline_hours))
        return end

    def feed(self, codes: Codes, seconds: Ints) -> Iterator[tuple[int, PartDetection]]:
        """Gather outcomes; gives what the looks among them find, each with the index of the last outcome before it."""
        if self._rates is None:
            return
        known = np.flatnonzero(codes < OTHER)
        if len(known) < len(codes):
            codes, seconds = codes[known], seconds[known]
        start = 0
        while (last := start + LOOK_OUTCOMES - self._gathered - 1) < len(codes):
            end = int(np.searchsorted(seconds, seconds[last], side="right"))
            self._gather(codes[start:end], seconds[start:end])
            start = end
            for each in self.look():
                yield int(known[end - 1]), each
        self._gather(codes[start:], seconds[start:])

    def _gather(self, codes: Codes, seconds: Ints) -> None:
        self._codes.append(codes)
        self._seconds.append(seconds)
        self._gathered += len(codes)

    def look(self) -> list[PartDetection]:
        """Look at what is gathered."""
        if self._rates is None or not self._gathered:
            return []
        return self._rates.update_many(*self._take())

    def _take(self) -> tuple[Ints, Codes]:
        seconds, codes = np.concatenate(self._seconds), np.concatenate(self._codes)
        self._seconds, self._codes, self._gathered = [], [], 0
        return seconds, codes

    @property
    def detecting(self) -> list[RateDetecting]:
        """How each is watched now."""
        rates = self._rates
        if rates is None:
            return []
        found = []
        for name, part in rates.parts.items():
            reference, detector = part.reference, part.detector
            normal = None
            if reference is not None:
                spread = reference.spread
                normal = Normal(reference.n, spread.rate, spread.standard_error, spread.dispersion, spread.wander)
            found.append(
                RateDetecting(
                    name,
                    part.budget,
                    part.outcomes_per_s,
                    part.count,
                    rates.missing,
                    part.missing,
                    normal,
                    detector.level if detector is not None else None,
                    part.allotted.run_length if part.allotted is not None else None,
                )
            )
        return found

    @property
    def state(self) -> BinaryRatesState:
        """The whole state, to be stored."""
        seconds, codes = self._take() if self._gathered else (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint8))
        self._seconds, self._codes = [], []
        if len(codes):
            self._gather(codes, seconds)
        rates = self._rates.state if self._rates is not None else None
        return BinaryRatesState(
            rates, self._two_classes, self._positive, seconds.astype("<i8").tobytes(), codes.tobytes()
        )


def _second_begins(errors: Errors, index: int) -> int:
    return int(np.searchsorted(errors.seconds, errors.seconds[index]))
