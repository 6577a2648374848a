"""The told delay of the e-detector, against what it takes."""

import math

import numpy as np
import pytest

from detectors.delay import expected_delay
from detectors.e_detector import EDetector
from detectors.reference import Reference


@pytest.mark.parametrize(("factor", "threshold"), [(2.0, 1e5), (2.0, 5e8), (4.0, 1e5), (4.0, 5e8)])
def test_it_is_about_what_the_detector_takes(factor: float, threshold: float) -> None:
    """The median of 60 streams of independent errors lies within a factor of one and a half."""
    reference = Reference.of_rate(20_000, 0.1)
    level = EDetector(threshold, reference=reference).level or 0.0
    told = expected_delay(level, 1.0, threshold, 0.1 * factor)
    taken = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        detector = EDetector(threshold, reference=reference)
        detector.update_many((rng.random(1_000) < 0.1).astype(np.float64))
        found = detector.update_many((rng.random(5_000) < 0.1 * factor).astype(np.float64))
        taken.append(found[0].index + 1 if found else math.inf)
    assert told / 1.5 < np.median(taken) < told * 1.5


def test_what_is_acceptable_is_never_found() -> None:
    """No bet gains on a rate below the level; a rate that hardly exceeds it takes for ever, a smaller budget longer."""
    assert expected_delay(0.1, 1.0, 1e5, 0.09) == math.inf
    assert expected_delay(0.1, 1.0, 1e5, 0.2) < expected_delay(0.1, 1.0, 1e7, 0.2) < expected_delay(0.1, 3.0, 1e7, 0.2)
