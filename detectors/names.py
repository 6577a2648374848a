"""The names of the detectors, for whoever only chooses one: nothing is imported, and River is large."""

CALIBRATED = ("e_detector", "adwin", "page_hinkley")
"""Those whose run lengths are known, so that they can page within a budget (`detectors/budget.py`)."""
NAMES = (*CALIBRATED, "ddm", "eddm", "fhddm", "hddm_a", "hddm_w")
"""All (`detectors/registry.py`)."""
