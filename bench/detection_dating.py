"""How old a detector says that a change is, as a share of how old it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bench.detection_measure import BEFORE, name_of
from bench.detection_processes import steady, stream
from detectors.adwin import Adwin
from detectors.contract import Detector
from detectors.e_detector import EDetector
from detectors.page_hinkley import PageHinkley
from detectors.reference import Reference

CHANGES = ((0.005, 0.02), (0.02, 0.04), (0.1, 0.15), (0.1, 0.2), (0.1, 0.4), (0.3, 0.45))
REFERENCE = 5_000
AFTER = 20_000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

DETECTORS: dict[str, Callable[[Reference], Detector]] = {
    "e_detector": lambda reference: EDetector(reference=reference),
    "adwin": lambda _: Adwin(),
    "page_hinkley": lambda _: PageHinkley(),
}


def dating(streams: int, seed: int) -> Iterator[dict[str, object]]:
    """One object for each change and detector: how many were found, the quantiles of the share, and the median of
    that of least squares.
    """
    for before, after in CHANGES:
        for name, make in DETECTORS.items():
            shares, squares = [], []
            for number in range(streams):
                rng = np.random.default_rng([seed, number])
                made = stream(rng, steady, before, REFERENCE, BEFORE + AFTER, BEFORE, after - before)
                later = [
                    each
                    for each in make(Reference.of_errors(made.reference)).update_many(made.errors)
                    if each.index >= BEFORE
                ]
                for each in later[:1]:
                    age = each.index - BEFORE + 1
                    shares.append(each.window / age)
                    squares.append(each.least_squares_window / age)
            yield {
                "before": before,
                "after": after,
                "detector": name,
                "found": len(shares),
                "of": streams,
                "quantiles": {name_of(q): float(np.quantile(shares, q)) if shares else None for q in QUANTILES},
                "least_squares": float(np.median(squares)) if squares else None,
            }
