"""Detectors by the name that a configuration gives them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from detectors.adwin import Adwin
from detectors.binary_detectors import Ddm, Eddm, Fhddm, HddmA, HddmW
from detectors.contract import Detector
from detectors.e_detector import EDetector
from detectors.page_hinkley import PageHinkley

DETECTORS: Mapping[str, Callable[..., Detector]] = MappingProxyType(
    {kind.name: kind for kind in (Adwin, Ddm, EDetector, Eddm, Fhddm, HddmA, HddmW, PageHinkley)}
)


def make_detector(name: str, **params: Any) -> Detector:
    """A fresh detector; raises ValueError for a name or a parameter that does not exist, telling which do."""
    known = DETECTORS.get(name)
    if known is None:
        raise ValueError(f"no detector is called {name!r}: choose one of {', '.join(sorted(DETECTORS))}")
    try:
        return known(**params)
    except TypeError as error:
        raise ValueError(f"{name} does not take these parameters: {error}") from error
