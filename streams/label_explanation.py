"""When it will be known how good a model is: how long its outcomes take, of which predictions, and what is mature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from detectors.label_delay import DAYS, LEAST_OUTCOMES, MATURE
from streams.events import rfc3339
from streams.label_status import SHOWN_CLASSES, LabelStatus, duration

QUANTILES: Mapping[str, str] = {"0.5": "half", "0.9": "90 %", "0.99": "99 %"}


def told(found: LabelStatus | None, at_ms: int) -> Iterator[str]:
    """A line each; ``at_ms`` is how far the stream has come."""
    outcomes = sum(each.outcomes for each in found.classes.values()) if found is not None else 0
    if found is None or not outcomes:
        yield (
            f"outcomes: none was counted in the last {DAYS} days (a minute is, once it is over), so nobody knows"
            " how long they take"
        )
    else:
        yield f"outcomes come: {_within(found.delays_s)} ({outcomes:,} in the last {DAYS} days)"
        classes = {label: each for label, each in found.classes.items() if label}
        for label, each in sorted(classes.items(), key=lambda item: (-item[1].outcomes, item[0]))[:SHOWN_CLASSES]:
            yield f"  predicted {label}: {_within(each.delays_s)} ({each.outcomes:,})"
        yield _mature(found, at_ms)
    if found is None:
        return
    if found.cohorts:
        yield "labelled by now, by when it was predicted:"
    for cohort in found.cohorts:
        share = "" if cohort.share is None else f"{cohort.share:.1%} of "
        yield (f"  {cohort.begins_at[:16]}Z to {cohort.ends_at[:16]}Z: {share}{cohort.predictions:,}{cohort.by_class}")
    if found.withheld is not None:
        yield found.withheld.told


def _within(delays_s: Mapping[str, int]) -> str:
    """Within what time so many came."""
    return ", ".join(f"{name} within {duration(delays_s.get(share))}" for share, name in QUANTILES.items())


def _mature(found: LabelStatus, at_ms: int) -> str:
    """What that is for this model, and when it is known of what is predicted now."""
    if found.mature_after_s is None:
        most = max(each.outcomes for each in found.classes.values())
        of = "one predicted class" if any(found.classes) else "them"
        return f"mature: not known before {LEAST_OUTCOMES} outcomes of {of} have come; there are {most:,}"
    whose = f"of those predicted {found.slowest}, the slowest class, " if found.slowest else ""
    if len(found.classes) < 2:
        whose = ""
    now, then = (rfc3339(each)[:16] for each in (at_ms, at_ms + 1000 * found.mature_after_s))
    return (
        f"mature: {duration(found.mature_after_s)} after the prediction {100 * MATURE:g} % of the outcomes {whose}have "
        f"come; of what is predicted now, {now}Z, that is at {then}Z"
    )
