"""Run lengths of detectors by their threshold: written by bench/calibrate_detectors.py, not by hand."""

from typing import NamedTuple


class Line(NamedTuple):
    """ln(run length) = `intercept` + `slope` · x at an error rate; x is −ln δ for adwin, λ for page_hinkley."""

    detector: str
    rate: float
    intercept: float
    slope: float


LINES = (
    Line("adwin", 0.01, 9.8275, 1.32199),
    Line("adwin", 0.02, 9.2353, 1.42841),
    Line("adwin", 0.05, 8.7782, 1.32721),
    Line("adwin", 0.1, 8.5069, 1.45483),
    Line("adwin", 0.2, 8.3337, 1.29293),
    Line("adwin", 0.3, 8.3295, 1.34542),
    Line("adwin", 0.5, 8.3045, 1.29178),
    Line("page_hinkley", 0.01, 5.2910, 0.88661),
    Line("page_hinkley", 0.02, 5.5525, 0.51860),
    Line("page_hinkley", 0.05, 6.0216, 0.24342),
    Line("page_hinkley", 0.1, 6.3781, 0.14596),
    Line("page_hinkley", 0.2, 6.7522, 0.08610),
    Line("page_hinkley", 0.3, 6.8978, 0.06870),
    Line("page_hinkley", 0.5, 7.1207, 0.05600),
)
