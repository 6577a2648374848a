"""A part of a regression's outcomes, watched in the target's own unit."""

import numpy as np
import pytest

from detectors.part_watch import PartState, PartWatch
from detectors.snapshot import decode, seal, unseal

START_S = 1_700_000_000


def fed(part: PartWatch, errors: np.ndarray, before: int = 0) -> list[tuple[float, float]]:
    """(before, after) of what is found in errors that come ten a second behind so many others."""
    at = before + np.arange(len(errors))
    return [
        (each.detection.before, each.detection.after)
        for each in part.update_many(START_S + at // 10, np.abs(errors).astype(np.float64), at + 1)
    ]


def laplace(scale: float, n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).laplace(0.0, scale, n)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_scale_is_that_of_its_own_reference(unit: float) -> None:
    """Errors of any size are found when they double, and what is told is in their unit."""
    part = PartWatch("north", 0.1, 1_000, absolute=True)
    assert part.scale == 1.0
    assert fed(part, laplace(unit, 2_000, 1)) == []
    assert part.scale == pytest.approx(4 * unit, rel=0.1)
    [(before, after), *_] = fed(part, laplace(2 * unit, 500, 2), 2_000)
    assert before == pytest.approx(unit, rel=0.2)
    assert after > 1.5 * unit
    assert part.reference is not None
    assert part.reference.rate == pytest.approx(0.25, abs=0.01)


def test_a_stored_part_goes_on_in_its_scale() -> None:
    """The scale follows from what was learnt, so nothing but that has to be stored."""
    part = PartWatch("north", 0.1, 1_000, absolute=True)
    fed(part, laplace(40.0, 2_000, 1))
    stored = decode(unseal(seal(1, part.state), 1)[1], PartState)
    again = PartWatch("north", 0.1, 1_000, stored, absolute=True)
    later = laplace(80.0, 500, 2)
    found = fed(again, later, 2_000)
    assert found
    assert fed(part, later, 2_000) == found


def test_an_error_beyond_all_measure_is_learnt_as_a_large_one() -> None:
    """Its square would be no number, and the version's own detector takes it too."""
    part = PartWatch("north", 0.1, 500, absolute=True)
    fed(part, np.array([1e300, *laplace(1.0, 999, 1)]))
    assert part.reference is not None
    assert np.isfinite(part.reference.spread.standard_error)
