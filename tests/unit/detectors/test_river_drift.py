"""What the import of River's detectors brings along, each in a process of its own: this one has imported much."""

import subprocess
import sys


def _run(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.strip()


def test_detectors_import_no_data_frames_and_no_scientific_libraries() -> None:
    """A process with all detectors has executed neither pandas, scikit-learn, pyarrow nor SciPy's statistics."""
    heavy = ("pandas", "sklearn", "pyarrow", "scipy.stats._stats_py", "scipy.special", "river.stream")
    assert _run(f"import sys, detectors.registry; print([m for m in {heavy} if m in sys.modules])") == "[]"


def test_who_looks_through_all_modules_imports_none() -> None:
    """As `inspect` does when it looks for the module of an object: a worker would stop for a second in mid-work."""
    look = "[getattr(module, '__file__', None) for module in list(sys.modules.values())]"
    program = f"import sys, detectors.registry; {look}; print([m for m in ('pandas', 'sklearn') if m in sys.modules])"
    assert _run(program) == "[]"


def test_what_was_left_out_is_there_when_it_is_used() -> None:
    """River's data sets, its KSWIN and `scipy.stats` work in a process that imported the detectors first."""
    program = """
import detectors.registry, scipy.stats
from river import drift
kswin = drift.KSWIN(seed=1)
for i in range(400):
    kswin.update(float(i % 7 + 100 * (i > 200)))
print(scipy.stats.norm.cdf(0), drift.datasets.AirlinePassengers.__name__, type(kswin.drift_detected).__name__)
"""
    assert _run(program) == "0.5 AirlinePassengers bool"
