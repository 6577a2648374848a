"""One model under watch: its versions, windows, rules and open alerts, moved on by the watermark alone.

Within a minute of stream time everything happens in one order: the errors of its seconds go to the detectors, then what
arrived in it goes into the windows, then the rules are judged on windows that end with it. A minute in which nothing
can change is passed over, which gives the same as judging it.

The catalog is the one input that is not ordered against the stream: a promotion, or a baseline registered late, takes
effect at the first :meth:`ModelWatch.advance` that sees it, between two seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from detectors.baseline import Baseline, Metric
from detectors.burn_rate import pairs
from detectors.cohorts import HOUR_MINUTES
from detectors.effect import Prices
from detectors.policy import Episode, Policy, PolicySettings
from detectors.snapshot import fields_of, seal
from streams import rules
from streams.alerts import (
    ACCURACY_DROPPED,
    OUTCOMES_MISSING,
    OUTCOMES_ONE_SIDED,
    OUTCOMES_SLOW,
    PROMOTED,
    Evidence,
    Raised,
)
from streams.arrivals import Arrivals
from streams.catalog import positive_class
from streams.cohort_watch import LabelReport
from streams.events import ModelState
from streams.held_back import HeldBack
from streams.judging import LONGEST_MINUTES, Judge
from streams.label_watch import LabelWatch
from streams.model_windows import ModelWindows, Series
from streams.open_drifts import OpenDrifts
from streams.order import OrderedErrors
from streams.records import Summary
from streams.segment_watch import codes_of
from streams.settings import MonitorSettings
from streams.silence import Span
from streams.version_watch import VersionWatch
from streams.watch_state import FORMAT, WatchState
from streams.withholding import Doubt, doubts

STALE_S = 60 * (LONGEST_MINUTES + 1_440)


@dataclass(frozen=True, slots=True)
class Notice:
    """Worth a line in the log, once, but nobody's sleep: the minimum is above what the version ever achieved."""

    model: str
    version: str
    baseline: float
    minimum: float


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that the watch says, with its place in the order of all models: second, signals after steps."""

    at_s: int
    rank: int
    said: Raised | Notice | Doubt


class ModelWatch:
    """All that the monitor knows of one model."""

    def __init__(
        self, model: str, settings: MonitorSettings, minimum_accuracy: float, prices: Prices = rules.NO_PRICES
    ) -> None:
        self.model = model
        self.versions: dict[str, VersionWatch] = {}
        self.arrivals = Arrivals()
        self._segments = codes_of(settings)
        self.windows = ModelWindows(self.arrivals, self._segments)
        self.changed = True
        self._settings = settings
        self._window = min(settings.window_minutes, LONGEST_MINUTES)
        self._errors: dict[tuple[str, Metric], OrderedErrors] = {}
        self._at = WatchState()
        self._catalog: ModelState | None = None
        self._silence: Span | None = None
        self._limits = rules.AccuracyLimits(
            minimum_accuracy,
            settings.baseline_drop,
            tuple(pairs(self._window, settings.burn_rates)),
            settings.minimum_outcomes,
            prices,
        )
        limits = PolicySettings(
            dict.fromkeys((ACCURACY_DROPPED, OUTCOMES_SLOW, OUTCOMES_ONE_SIDED), settings.for_minutes),
            settings.clean_minutes,
            settings.repeat_minutes,
            settings.cooldown_minutes,
            settings.flap_episodes,
            settings.flap_minutes,
        )
        self._policy = Policy(limits)
        self._labels = LabelWatch(model, settings, limits, self._at)
        self._arrange()

    def _arrange(self) -> None:
        """Let those who judge, tell and hold back work on the state that is there now."""
        at, policy, labels = self._at, self._policy, self._labels
        windows, versions = self.windows, self.versions
        self._judge = Judge(self.model, self._settings, self._limits, versions, windows, labels, policy, at)
        self._drifts = OpenDrifts(self.model, policy, self._judge, at)
        self._held = HeldBack(labels, self._judge, versions, at)

    @property
    def champion(self) -> str:
        """The version whose alerts count; empty until there is one."""
        return self._at.champion

    @property
    def open_episodes(self) -> list[Episode]:
        """The alerts that are pending or firing."""
        return sorted([*self._policy.episodes(), *self._labels.episodes], key=lambda episode: episode.identity)

    def labels(self, minute: int) -> LabelReport:
        """How outcomes of the champion come, when a minute is over."""
        return replace(self._labels.cohorts.report(minute), withheld=self._at.withheld)

    # --------------------------------------------------------------------------------------------------- taking in

    def take(self, summary: Summary) -> None:
        """Take in an admitted record; it takes effect when the watermark passes its times."""
        self.arrivals.add(summary)
        self.take_errors(summary, 0)

    def take_errors(self, summary: Summary, from_s: int) -> None:
        """Take in the errors of a record from a second on: what was before is fed already."""
        metric: Metric = "mae" if summary.task == "regression" else "accuracy"
        for part in summary.versions:
            seconds, offsets, errors = part.columns()
            skip = int(np.searchsorted(seconds, from_s))
            buffer = self._errors.setdefault((part.version, metric), OrderedErrors())
            codes = part.coded
            buffer.add(
                summary.partition,
                seconds[skip:],
                offsets[skip:],
                errors[skip:],
                codes[skip:] if codes is not None else None,
                self._segments.get(part.segment, 0) if self._segments else None,
            )

    # --------------------------------------------------------------------------------------------------- moving on

    def advance(
        self, from_s: int, to_s: int, catalog: ModelState | None, silence: Span | None = None
    ) -> Iterator[Happened]:
        """Everything from second ``from_s`` up to but without ``to_s``, in order. In a ``silence`` nothing is told."""
        self._catalog, self._silence, self._judge.positive = catalog, silence, _positive(catalog)
        yield from self._apply(catalog, from_s)
        minute, end = from_s // 60, to_s // 60
        while (due := self._due(minute)) is not None and due < end:
            yield from self._feed((due + 1) * 60, from_s)
            yield from self._look(due * 60 + 59, from_s)
            for number, arrived in self.arrivals.take(due):
                # A minute that was judged before only if its partition had been skipped.
                self.windows.fold(arrived, number)
                self._labels.fold(arrived, number, self.champion)
            yield from self._end_minute(due, catalog)
            minute = due + 1
        yield from self._feed(to_s, from_s)

    def _apply(self, catalog: ModelState | None, at_s: int) -> Iterator[Happened]:
        if catalog is None:
            return
        for version, watch in self.versions.items():
            watch.register(_registered(catalog, version, watch.metric))
            watch.name_positive(self._judge.positive)
        champion = catalog.aliases.get("champion", "")
        if champion and champion != self.champion:
            if self.champion and champion in self.versions:
                self.versions[champion].start_afresh()
            yield from self._crown(champion, at_s)

    def _crown(self, champion: str, at_s: int) -> Iterator[Happened]:
        """A new champion: what the old one set off is over."""
        for transition in self._policy.resolve(self.model, PROMOTED, at_s):
            yield Happened(at_s, 0, self._drifts.raised(transition))
        if self._is_stale(champion, at_s):
            del self.versions[champion]
        self._at.champion, self.changed = champion, True
        self._drifts.forget()
        self._held.forget()
        self._labels.start_afresh()

    def _due(self, minute: int) -> int | None:
        """The first minute from ``minute`` on in which something can change; None if there is none."""
        firsts = [buffer.first_second // 60 for buffer in self._errors.values() if buffer.first_second is not None]
        if (first := self.arrivals.first) is not None:
            firsts.append(first)
        if (silent := self._due_in_silence(minute)) is not None:
            firsts.append(silent)
        if self._policy.held_back or self._labels.held_back:
            # The first minute whose end is not silent.
            at_s = (minute + 1) * 60
            over = self._silence.end_s if self._silence is not None and self._silence.covers(at_s) else at_s
            firsts.append(max(minute, -(-over // 60) - 1))
        return max(minute, min(firsts)) if firsts else None

    def _due_in_silence(self, minute: int) -> int | None:
        """The same if nothing arrives any more."""
        return self._labels.due_in_silence(minute, self._window)

    # --------------------------------------------------------------------------------------------------- detectors

    def _feed(self, before_s: int, floor_s: int) -> Iterator[Happened]:
        found: list[tuple[str, Evidence]] = []
        for (version, metric), buffer in sorted(self._errors.items()):
            released = buffer.release(before_s)
            if released is not None:
                if version == self.champion:
                    self._labels.mix.take(released.seconds, released.codes)
                watch = self._version(version, metric, int(released.seconds[0]))
                found.extend((version, each) for each in watch.feed(released))
        yield from self._signal([each for version, each in found if version == self.champion], floor_s)

    def _look(self, at_s: int, floor_s: int) -> Iterator[Happened]:
        """The last second of a minute: what versions have gathered is looked at."""
        for version, watch in sorted(self.versions.items()):
            found = watch.look(at_s)
            yield from self._signal(found if version == self.champion else [], floor_s)

    def _version(self, version: str, metric: Metric, first_s: int) -> VersionWatch:
        """The version's state. One whose task changed is another model by the same name, and starts afresh."""
        watch = self.versions.get(version)
        if watch is None or watch.metric != metric or self._is_stale(version, first_s):
            watch = VersionWatch(metric, self._settings)
            watch.register(self._known_baseline(version, metric))
            watch.name_positive(self._judge.positive)
            self.versions[version] = watch
        return watch

    def _is_stale(self, version: str, at_s: int) -> bool:
        """Whether nothing was heard of a version for longer than any window: it counts as never seen."""
        watch = self.versions.get(version)
        return watch is not None and version != self.champion and watch.last_s < at_s - STALE_S

    def forget(self, at_s: int) -> tuple[list[str], list[Series]]:
        """Let go of the versions, and of the windows, that are too old to matter; :meth:`advance` never misses them.

        Buckets that this deletes are in the windows' changes: call it before those are stored, and remove the series
        afterwards.
        """
        self.windows.advance(at_s // 60 - 1)  # the last minute that is judged
        gone = [version for version in self.versions if self._is_stale(version, at_s)]
        for version in gone:
            del self.versions[version]
        return gone, [series for series in self.windows.series if series[0] in gone]

    def _known_baseline(self, version: str, metric: Metric) -> Baseline | None:
        return None if self._catalog is None else _registered(self._catalog, version, metric)

    def _signal(self, found: Sequence[Evidence], floor_s: int) -> Iterator[Happened]:
        """Let detections of the champion, in their order, page, be evidence, or wait."""
        if not found:
            return
        self.changed = True
        certain = [each for each in found if not self._held.takes(each)]
        for at_s, together in groupby(certain, lambda each: max(each.detected_s, floor_s)):
            yield from self._tell(list(together), at_s)

    def _tell(self, found: Sequence[Evidence], at_s: int) -> Iterator[Happened]:
        for raised in self._drifts.tell(found, at_s, silenced=self._silenced(at_s)):
            yield Happened(at_s, 1, raised)

    # --------------------------------------------------------------------------------------------------- rules

    def _end_minute(self, minute: int, catalog: ModelState | None) -> Iterator[Happened]:
        """Judge a minute that is over."""
        at_s = (minute + 1) * 60
        self.changed = True
        self._labels.forget(minute)
        if catalog is None or "champion" not in catalog.aliases:
            busiest = self._labels.busiest(self.champion)
            if busiest != self.champion:
                yield from self._crown(busiest, at_s)
        for notice in self._notices():
            yield Happened(at_s, 0, notice)
        silenced = self._silenced(at_s)
        about_labels = dict(self._judge.about_labels(minute))
        before, self._at.withheld = self._at.withheld, self._judge.withheld(minute, about_labels)
        for doubt in doubts(self.model, self.champion, before, self._at.withheld):
            yield Happened(at_s, 0, doubt)
        self._learn_dumps(minute)
        self._hand_over_hours()
        conditions = about_labels | dict(self._judge.about_model(minute))
        for transition in self._policy.step(minute, conditions, silenced=silenced):
            yield Happened(at_s, 0, self._drifts.raised(transition))
        for transition in self._labels.judge(minute, self.champion, silenced=silenced):
            yield Happened(at_s, 0, self._drifts.raised(transition))
        yield from self._tell(self._held.release(before, minute), at_s)
        self._held.recount()

    def _hand_over_hours(self) -> None:
        """A version that is new begins with the hours of the one that was watched by them last."""
        if not self._settings.by_hour:
            return
        known = [(watch.last_s, version) for version, watch in self.versions.items() if watch.knows_hours]
        if known:
            _, last = max(known)
            for watch in self.versions.values():
                watch.take_hours_of(self.versions[last])

    def _learn_dumps(self, minute: int) -> None:
        """How outcomes come is learnt in a version's first day, unless a drift was told an hour or more before."""
        watch, at = self.versions.get(self.champion), self._at
        evidence = [*at.evidence, *(each for found in at.segments.values() for each in found)]
        told = any(each.detected_s < (minute - HOUR_MINUTES) * 60 for each in evidence)
        if watch is not None and not told and self._labels.arriving.settling(minute):
            watch.learn_dumps((minute + 1) * 60)

    def _silenced(self, at_s: int) -> bool:
        return self._silence is not None and self._silence.covers(at_s)

    def _notices(self) -> Iterator[Notice]:
        baseline = self._judge.baseline
        if baseline is None or baseline.metric != "accuracy" or self.champion in self._at.noticed:
            return
        if baseline.value < self._limits.minimum:
            self._at.noticed.append(self.champion)
            yield Notice(self.model, self.champion, baseline.value, self._limits.minimum)

    # --------------------------------------------------------------------------------------------------- storing

    def restore_version(self, version: str, sealed: bytes) -> None:
        """Take over a version's state; raises SnapshotError if its bytes are damaged or newer."""
        self.versions[version] = VersionWatch.restored(sealed, self._settings)

    def adopt(
        self, episodes: Sequence[Episode], evidence: Sequence[Evidence], incidents: Sequence[tuple[str, int]] = ()
    ) -> None:
        """Take the published episodes for those that are open, ``evidence`` for that of the open drifts.

        ``incidents``: ids and starts (in s) that were published with what is open.
        """
        self._labels.adopt([each for each in episodes if each.identity.alertname == OUTCOMES_MISSING])
        self._policy.adopt([each for each in episodes if each.identity.alertname != OUTCOMES_MISSING])
        self._drifts.adopt(episodes, evidence, incidents)
        self.changed = True

    def snapshot(self) -> bytes:
        """All but the versions, the windows and the open minutes, which are stored apart."""
        self._at.policy = self._policy.snapshot()
        self._labels.snapshot()
        return seal(FORMAT, self._at)

    def restore(self, sealed: bytes) -> None:
        """Take over a snapshot; raises SnapshotError if its bytes are damaged or newer."""
        self._at = fields_of(sealed, FORMAT, WatchState)
        self._policy.restore(self._at.policy)
        self._labels.restore(self._at)
        self._arrange()
        self.changed = False


def _positive(catalog: ModelState | None) -> str:
    """The spelling of the positive class; empty without one."""
    positive = positive_class(catalog)
    return positive.text if positive is not None else ""


def _registered(catalog: ModelState, version: str, metric: Metric) -> Baseline | None:
    """The baseline that the catalog gives a version, if it measures what the version's errors are."""
    known = catalog.baselines.get(version)
    if known is None or known.metric != metric or known.n < 1:
        return None
    return Baseline(known.n, metric, known.value, known.standard_error)
