"""How a model's outcomes come, as the monitor reports it in the store and `driftline status` shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

DAY = "24h"
SHOWN_CLASSES = 4
WITHHELD: Mapping[str, str] = MappingProxyType(
    {
        "one_sided": "outcomes of a predicted class do not come as the others do; no accuracy alert or drift is told",
        "slow": "fewer outcomes come than usual; the accuracy rule waits, detectors go on",
        "dump": "outcomes come all at once; what they say is told when the last of them have settled",
    }
)


class Cohort(msgspec.Struct):
    """Predictions of a time: ``share`` of them are labelled by now, ``shares`` by predicted class ("" for a
    regression).
    """

    begins_at: str
    ends_at: str
    predictions: int
    outcomes: int
    share: float | None = None
    shares: dict[str, float | None] = {}

    @property
    def by_class(self) -> str:
        """The lowest shares in brackets; empty without classes."""
        known = sorted((share, label) for label, share in self.shares.items() if share is not None and label)
        told = ", ".join(f"{label} {share:.1%}" for share, label in known[:SHOWN_CLASSES])
        return f" (predicted {told})" if told else ""


class MatureWindow(Cohort):
    """Predictions of a time whose outcomes have nearly all come: all that the accuracy of it will ever be."""

    accuracy: float | None = None
    mae: float | None = None


class WithheldStatus(msgspec.Struct):
    """Why and since when no verdict on the model is given."""

    reason: str
    since: str

    @property
    def told(self) -> str:
        """A line for people."""
        return f"verdict withheld since {self.since[:16]}Z: {WITHHELD.get(self.reason, self.reason)}"


class ClassStatus(msgspec.Struct):
    """How many outcomes of a predicted class came over the last week, and within what time, as in
    :class:`LabelStatus`.
    """

    outcomes: int
    delays_s: dict[str, int] = {}


class LabelStatus(msgspec.Struct):
    """``delays_s``: by quantile, as text, the seconds within which so many outcomes came over the last week, rounded
    up to a minute and to a quarter more at most. A cohort is mature ``mature_after_s`` after it was predicted, when
    95 % of the outcomes of the ``slowest`` predicted class have come. ``classes`` by label ("" for a regression);
    ``cohorts`` by age, newest first.
    """

    delays_s: dict[str, int] = {}
    mature_after_s: int | None = None
    windows: dict[str, MatureWindow] = {}
    withheld: WithheldStatus | None = None
    classes: dict[str, ClassStatus] = {}
    slowest: str | None = None
    cohorts: list[Cohort] = []


def told(found: LabelStatus) -> Iterator[str]:
    """A line or two for people; nothing while nothing is known."""
    if found.withheld is not None:
        yield found.withheld.told
    if not found.delays_s:
        return
    half, most = (duration(found.delays_s.get(share)) for share in ("0.5", "0.95"))
    yield f"outcomes come within {half} (half of them) and {most} (95 %)"
    name = (
        DAY if DAY in found.windows else min(found.windows, key=lambda each: found.windows[each].begins_at, default="")
    )
    window = found.windows.get(name)
    if window is None or window.share is None:
        return
    right = "" if window.accuracy is None else f", accuracy {window.accuracy:.1%}"
    right = right if window.mae is None else f", mean absolute error {window.mae:.4g}"
    yield (
        f"mature up to {window.ends_at[:16]}Z: of {window.predictions:,} predictions ({name}) {window.share:.1%} are "
        f"labelled{window.by_class}{right}"
    )


def duration(seconds: int | None) -> str:
    """Seconds in the unit that fits; a delay that is unknown is a dash."""
    if seconds is None:
        return "–"
    for unit, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds} s"
