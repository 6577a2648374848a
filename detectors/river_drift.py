"""River's `drift` and `drift.binary`, imported without the libraries that none of these detectors uses.

River's package imports its data sets (and with them pandas, scikit-learn and pyarrow) and, for KSWIN, `scipy.stats`:
of 147 MB and a second of start-up of every worker, all but 12 MB. These are left to be imported when something of
theirs is asked for, which no detector of ours does.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

__all__ = ["binary", "drift"]

UNUSED = ("river.drift.datasets", "scipy.stats")


class _Later(ModuleType):
    """Stands for a module: imports it when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


_later = {name: _Later(name) for name in UNUSED if name not in sys.modules}
sys.modules.update(_later)
try:
    from river import drift
    from river.drift import binary
finally:
    # Whoever looks through all modules, as `inspect` does for a traceback, must not find them: it would import them.
    for _name in _later:
        del sys.modules[_name]
