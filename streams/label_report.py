"""How a champion's outcomes come, from what the monitor measures to what it reports in the store."""

from __future__ import annotations

from collections.abc import Mapping

from detectors.cohorts import Mature
from streams.cohort_watch import LabelReport
from streams.events import rfc3339
from streams.label_status import ClassStatus, Cohort, LabelStatus, MatureWindow, WithheldStatus


def labels(found: LabelReport | None, metric: str) -> LabelStatus | None:
    """How outcomes of a champion come, as the report in the store tells it."""
    if found is None:
        return None
    windows = {}
    for name, window in found.windows.items():
        total = window.total
        error = total.loss / total.outcomes if total.outcomes else None
        windows[name] = MatureWindow(
            *_cohort(window),
            accuracy=1.0 - error if error is not None and metric == "accuracy" else None,
            mae=error if metric == "mae" else None,
        )
    withheld = None
    if found.withheld is not None:
        withheld = WithheldStatus(found.withheld.reason, rfc3339(1000 * found.withheld.since_s))
    classes = {label: ClassStatus(each.outcomes, _by_share(each.delays_s)) for label, each in found.classes.items()}
    cohorts = [Cohort(*_cohort(each)) for each in found.cohorts]
    delays = _by_share(found.delays_s)
    return LabelStatus(delays, found.mature_after_s, windows, withheld, classes, found.slowest, cohorts)


def _by_share(delays_s: Mapping[float, int]) -> dict[str, int]:
    return {f"{share:g}": seconds for share, seconds in delays_s.items()}


def _cohort(found: Mature) -> tuple[str, str, int, int, float | None, dict[str, float | None]]:
    """The fields of a :class:`Cohort`."""
    total = found.total
    shares = {label: count.share for label, count in sorted(found.counts.items()) if count.predictions}
    begins_at, ends_at = rfc3339(60_000 * found.first), rfc3339(60_000 * found.end)
    return begins_at, ends_at, total.predictions, total.outcomes, total.share, shares
