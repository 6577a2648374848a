"""River's `drift` and `drift.binary`, imported without the libraries that none of these detectors uses.

River's package imports its data sets (and with them pandas, scikit-learn and pyarrow) and, for KSWIN, `scipy.stats`:
of 147 MB and a second of start-up of every worker, all but 12 MB. These are left to be imported when something of
theirs is asked for, which no detector of ours does.
"""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

__all__ = ["binary", "drift"]

UNUSED = frozenset({"river.drift.datasets", "river.drift.retrain", "scipy.stats"})


class _Later:
    """Finds the modules in ``UNUSED``, to be executed at the first use of one of their attributes."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name in UNUSED else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _Later)
try:
    from river import drift
    from river.drift import binary
finally:
    sys.meta_path.remove(_Later)
