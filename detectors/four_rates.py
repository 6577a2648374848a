"""The four rates of a binary classifier, each watched by an e-detector of its own: linear four rates.

Wang and Abraham, "Concept drift detection for streaming data", IJCNN 2015: a change of concept shows in the true
positive rate, true negative rate, positive or negative predictive value, when accuracy may hardly move. Theirs tests
each with a Monte Carlo bound; here each is a stream of errors from 0 to 1 that has the e-detector's guarantee.

An outcome is a *code*: 1 if it was positive, plus 2 if positive was predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from detectors.part_watch import PartDetection, PartState, PartWatch, divided
from detectors.snapshot import SnapshotError
from detectors.tally import Tally

ACTUAL, PREDICTED = 1, 2
OTHER = 4
"""The code of an outcome that is not of two classes; the rates do not take it."""
UNKNOWN = 8
"""The code of an outcome of which nobody has said what was predicted."""

Codes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Rate:
    """One of the four: of the outcomes with a bit set (or not), the share whose other bit is the same."""

    title: str
    means: str
    """What it is the share of."""
    outcomes: str
    """What it counts."""
    bit: int
    positive: bool

    @property
    def wrong(self) -> int:
        """The code of its errors."""
        return self.bit if self.positive else (ACTUAL | PREDICTED) ^ self.bit


RATES: Mapping[str, Rate] = MappingProxyType(
    {
        "recall": Rate("recall", "the share of the positives that it finds", "positives", ACTUAL, True),
        "specificity": Rate(
            "specificity", "the share of the negatives that it leaves alone", "negatives", ACTUAL, False
        ),
        "precision": Rate(
            "precision", "the share of its predicted positives that are right", "predicted positives", PREDICTED, True
        ),
        "npv": Rate(
            "negative predictive value",
            "the share of its predicted negatives that are right",
            "predicted negatives",
            PREDICTED,
            False,
        ),
    }
)


def counted(name: str, tally: Tally, positive: str) -> tuple[int, int]:
    """(errors, outcomes) of a rate in a window."""
    rate = RATES[name]
    errors = outcomes = 0
    for (predicted, outcome), n in tally.confusion.items():
        code = ACTUAL * (outcome == positive) | PREDICTED * (predicted == positive)
        if bool(code & rate.bit) == rate.positive:
            outcomes += n
            errors += n * (code == rate.wrong)
    return errors, outcomes


@dataclass(frozen=True, slots=True)
class FourRatesState:
    """`count`: outcomes of two classes that came. They are learnt from at least until second `until_s`."""

    count: int
    parts: dict[str, PartState]
    until_s: int = 0


class FourRates:
    """Watches the rates `names`, which share a budget; a fall of any is a detection.

    Each learns from the first `learning` outcomes, longer if they hold fewer than 500 of its own, and from all before
    second `until_s`.
    """

    def __init__(self, names: Sequence[str], false_alarms_a_week: float, learning: int, until_s: int = 0) -> None:
        self.count = 0
        self.until_s = until_s
        self._learning = learning
        parts = divided(false_alarms_a_week, _known(names))
        self.parts = {name: PartWatch(name, budget, learning, None, until_s) for name, budget in parts.items()}

    @property
    def missing(self) -> int:
        """Outcomes of two classes still to learn from before any rate pages."""
        return max(0, self._learning - self.count)

    def allow(self, false_alarms_a_week: float) -> None:
        """Another budget for all of them together."""
        for name, budget in divided(false_alarms_a_week, list(self.parts)).items():
            self.parts[name].allow(budget)

    def start_afresh(self) -> None:
        """Forget what the detectors saw, not what the rates were when nothing was wrong."""
        for part in self.parts.values():
            part.start_afresh()

    def learn_until(self, second: int) -> None:
        """Learn on: what has come in the first day and what comes before a second is normal too."""
        self.until_s = max(self.until_s, second)
        for part in self.parts.values():
            part.learn_until(second)

    def update_many(self, seconds: NDArray[np.int64], codes: Codes) -> list[PartDetection]:
        """Feed outcomes of codes 0 to 3, oldest first; detections come in the order of their outcomes, then of the
        rates.

        Batches end with a second; how the stream is cut into them makes no other difference. Raises ValueError if the
        two differ in length.
        """
        if seconds.shape != codes.shape or codes.ndim != 1:
            raise ValueError(f"there are {seconds.shape} seconds and {codes.shape} codes: give one of each")
        found: list[PartDetection] = []
        for name, part in self.parts.items():
            rate = RATES[name]
            places = np.flatnonzero(codes & rate.bit if rate.positive else ~codes & rate.bit)
            wrong = (codes[places] == rate.wrong).astype(np.float64)
            for each in part.update_many(seconds[places], wrong, self.count + 1 + places):
                found.append(replace(each, index=int(places[each.index])))
        self.count += len(codes)
        return sorted(found, key=lambda each: each.index)

    @property
    def state(self) -> FourRatesState:
        """The whole state, to be stored."""
        return FourRatesState(self.count, {name: part.state for name, part in self.parts.items()}, self.until_s)

    def restore(self, state: FourRatesState) -> None:
        """Take over a stored state, keeping one's own budget; a rate that it does not have begins to learn.

        Raises SnapshotError if a part of it is damaged or newer.
        """
        if unknown := sorted(set(state.parts) - set(RATES)):
            raise SnapshotError(f"the snapshot has the rate {unknown[0]!r}: upgrade before reading it")
        for name, part in self.parts.items():
            known = state.parts.get(name)
            self.parts[name] = PartWatch(name, part.budget, self._learning, known, state.until_s)
        self.count, self.until_s = state.count, state.until_s


def _known(names: Sequence[str]) -> Sequence[str]:
    if not names:
        raise ValueError("no rate is named: choose of " + ", ".join(RATES))
    for name in names:
        if name not in RATES:
            raise ValueError(f"there is no rate {name!r}: choose of {', '.join(RATES)}")
    return names
