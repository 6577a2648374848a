"""Write the table that turns a run length into ADWIN's δ and Page-Hinkley's λ: `python -m bench.calibrate_detectors`.

Once a detector has warmed up, each stationary outcome has the same small chance to alarm it: the hazard. It falls
exponentially in λ, and as a power of δ. So its logarithm is measured where it can be, at hazards of 1 in 4,000 to 1 in
100,000, and fitted by a line, by whose extension the rarer ones are told. The line is checked at a run length of
500,000, beyond all that was fitted, and the run ends with an error if it is off by more than the factor below.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from detectors.adwin import Adwin
from detectors.contract import Detector
from detectors.page_hinkley import PageHinkley

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
LEAST_ALARMS = 20
FITTED = (4_000.0, 100_000.0)
"""Run lengths, in outcomes, that are fitted: shorter ones are warming up, longer ones are too few to count."""
CHECKED = 500_000.0
FACTOR = 3.0
"""How far the measured run length may be from the line's."""
STREAM = 200_000
SEED = 5

Make = Callable[[float], Detector]
MAKERS: dict[str, tuple[Make, tuple[float, ...]]] = {
    "adwin": (lambda x: Adwin(delta=math.exp(-x)), (0.25, 0.5, 1.0, 1.5, 2.0)),
    "page_hinkley": (lambda x: PageHinkley(threshold=x, alpha=1.0), ()),
}


def steps_of(name: str, rate: float) -> tuple[float, ...]:
    """The x at which a hazard is measured: −ln δ, or λ, which grows with the errors' spread."""
    if name == "adwin":
        return MAKERS[name][1]
    # A climb of λ takes some λ/δ outcomes; its hazard is about exp(−2 δ λ / variance), at δ = .005.
    spread = rate * (1.0 - rate)
    return tuple(each * spread / 0.01 for each in (1.0, 1.5, 2.0, 3.0, 4.5, 6.0))


def alarms(make: Make, x: float, rate: float, outcomes: int, seed: int) -> int:
    """Alarms in so many stationary outcomes."""
    found = 0
    for number in range(outcomes // STREAM):
        rng = np.random.default_rng([seed, number])
        found += len(make(x).update_many((rng.random(STREAM) < rate).astype(np.float64)))
    return found


def fitted(points: list[tuple[float, int, int]]) -> tuple[float, float]:
    """(intercept, slope) of ln(run length) over x, weighted by the alarms that each point has."""
    x = np.array([point[0] for point in points])
    y = np.array([math.log(outcomes / count) for _, count, outcomes in points])
    slope, intercept = np.polyfit(x, y, 1, w=np.sqrt([point[1] for point in points]))
    return float(intercept), float(slope)


def calibrated(name: str, rate: float, outcomes: int) -> tuple[tuple[float, float], float]:
    """The line of a detector at an error rate, and the measured run length over the line's where it is checked.

    Raises ArithmeticError if too few of its points can be fitted.
    """
    make = MAKERS[name][0]
    points = []
    for x in steps_of(name, rate):
        count = alarms(make, x, rate, outcomes, SEED)
        if count >= LEAST_ALARMS and FITTED[0] <= outcomes / count <= FITTED[1]:
            points.append((x, count, outcomes))
    if len(points) < 2:
        raise ArithmeticError(f"{name} at {rate} has {len(points)} run lengths within {FITTED}: choose other steps")
    intercept, slope = fitted(points)
    tested = alarms(make, (math.log(CHECKED) - intercept) / slope, rate, 2 * outcomes, SEED + 1)
    return (intercept, slope), 2 * outcomes / max(tested, 0.5) / CHECKED


def main() -> None:
    """Measure all, print how the checks came out, and write the table's lines."""
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate_detectors", description=__doc__.splitlines()[0])
    parser.add_argument("--outcomes", type=int, default=4_000_000, help="simulated at each point")
    parser.add_argument("--to", type=Path, default=Path("detectors/hazard_table.py"), help="the module to write")
    options = parser.parse_args()
    lines = []
    worst = 1.0
    for name in MAKERS:
        for rate in RATES:
            (intercept, slope), ratio = calibrated(name, rate, options.outcomes)
            worst = max(worst, ratio, 1.0 / ratio)
            print(
                f"{name} at {rate}: ln run length = {intercept:.3f} + {slope:.4f} x; {ratio:.2f} of it at 500,000",
                flush=True,
            )
            lines.append(f'    Line("{name}", {rate}, {intercept:.4f}, {slope:.5f}),')
    if worst > FACTOR:
        sys.exit(
            f"a run length of 500,000 was off by a factor of {worst:.2f}: the hazard is not the line's; nothing written"
        )
    options.to.write_text(TEMPLATE.format(lines="\n".join(lines)))


TEMPLATE = '''"""Run lengths of detectors by their threshold: written by bench/calibrate_detectors.py, not by hand."""

from typing import NamedTuple


class Line(NamedTuple):
    """ln(run length) = `intercept` + `slope` · x at an error rate; x is −ln δ for adwin, λ for page_hinkley."""

    detector: str
    rate: float
    intercept: float
    slope: float


LINES = (
{lines}
)
'''


if __name__ == "__main__":
    main()
