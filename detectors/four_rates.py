"""The four rates of a binary classifier, each watched by an e-detector of its own: linear four rates.

Wang and Abraham, "Concept drift detection for streaming data", IJCNN 2015: a change of concept shows in the true
positive rate, true negative rate, positive or negative predictive value, when accuracy may hardly move. Theirs tests
each with a Monte Carlo bound; here each is a stream of errors from 0 to 1 that has the e-detector's guarantee.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from detectors.e_detector import LEAST_RUN_LENGTH, EDetector
from detectors.reference import WINDOW, Reference
from detectors.snapshot import SnapshotError, fields_of, seal
from detectors.verdict import Detection

FORMAT = 1
REFERENCE_OUTCOMES = WINDOW
"""Outcomes of its own that a rate learns its reference from: at a prevalence of .5 % they are 100,000 outcomes."""

Truths = NDArray[np.bool_]

RATES: Mapping[str, str] = MappingProxyType(
    {
        "tpr": "share of the positives that were predicted (recall)",
        "tnr": "share of the negatives that were predicted (specificity)",
        "ppv": "share of the predicted positives that are (precision)",
        "npv": "share of the predicted negatives that are",
    }
)


@dataclass(frozen=True, slots=True)
class RateDetection:
    """A rate fell. `index` is the outcome in the batch; the detection's own numbers count outcomes of that rate."""

    rate: str
    index: int
    detection: Detection


@dataclass(frozen=True, slots=True)
class FourRatesState:
    count: int
    detectors: dict[str, bytes]


class FourRates:
    """Watches all four; a fall of any is a detection.

    `run_length` is the least expected number of *outcomes* between false alarms of each of the four; that of all
    together is at least a quarter of it. A rate that concerns a share s of the outcomes (`shares`, by name; without
    one, all) gets s times that as the threshold of its detector, which counts its own outcomes. `references` are
    those that are known; any other rate learns its own from its first 500 outcomes.
    """

    def __init__(
        self,
        run_length: float,
        shares: Mapping[str, float] | None = None,
        references: Mapping[str, Reference] | None = None,
    ) -> None:
        shares, references = shares or {}, references or {}
        unknown = sorted((set(shares) | set(references)) - set(RATES))
        if unknown:
            raise ValueError(f"there is no rate {unknown[0]!r}: choose of {', '.join(RATES)}")
        for name, share in shares.items():
            if not 0.0 < share <= 1.0:
                raise ValueError(f"the share of {name} is {share}: give a number above 0, up to 1")
        self.count = 0
        self._detectors = {
            name: EDetector(
                threshold=max(LEAST_RUN_LENGTH, run_length * shares.get(name, 1.0)),
                reference_outcomes=REFERENCE_OUTCOMES,
                reference=references.get(name),
            )
            for name in RATES
        }

    def update_many(self, predicted: Truths, actual: Truths) -> list[RateDetection]:
        """Feed outcomes, oldest first; detections come in the order of their outcomes, then of the rates.

        However a stream is cut into batches, they are the same. Raises ValueError if the two differ in length.
        """
        if predicted.shape != actual.shape or predicted.ndim != 1:
            raise ValueError(f"there are {predicted.shape} predictions and {actual.shape} outcomes: give one of each")
        found: list[RateDetection] = []
        for name, concerned, wrong in (
            ("tpr", actual, ~predicted),
            ("tnr", ~actual, predicted),
            ("ppv", predicted, ~actual),
            ("npv", ~predicted, actual),
        ):
            places = np.flatnonzero(concerned)
            for each in self._detectors[name].update_many(wrong[places]):
                found.append(RateDetection(name, int(places[each.index]), each))
        self.count += len(predicted)
        order = list(RATES)
        return sorted(found, key=lambda each: (each.index, order.index(each.rate)))

    def counts(self) -> dict[str, int]:
        """Outcomes that each rate has seen."""
        return {name: detector.count for name, detector in self._detectors.items()}

    def snapshot(self) -> bytes:
        """The whole state."""
        return seal(FORMAT, FourRatesState(self.count, {n: each.snapshot() for n, each in self._detectors.items()}))

    def restore(self, sealed: bytes) -> None:
        """Take over a snapshot's state, keeping one's own thresholds.

        Raises SnapshotError, having changed nothing, if the bytes are damaged, newer, or of other rates.
        """
        state = fields_of(sealed, FORMAT, FourRatesState)
        if set(state.detectors) != set(RATES):
            raise SnapshotError(f"the snapshot is of the rates {sorted(state.detectors)}, not of {sorted(RATES)}")
        before = {name: detector.snapshot() for name, detector in self._detectors.items()}
        try:
            for name, detector in self._detectors.items():
                detector.restore(state.detectors[name])
        except SnapshotError:
            for name, detector in self._detectors.items():
                detector.restore(before[name])
            raise
        self.count = state.count
