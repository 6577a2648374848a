"""One model under watch: its versions, windows, rules and open alerts, moved on by the watermark alone.

Within a minute of stream time everything happens in one order: the errors of its seconds go to the detectors, then what
arrived in it goes into the windows, then the rules are judged on windows that end with it. A minute in which nothing
can change is passed over, which gives the same as judging it.

The catalog is the one input that is not ordered against the stream: a promotion, or a baseline registered late, takes
effect at the first :meth:`ModelWatch.advance` that sees it, between two seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from detectors import incident
from detectors.baseline import Baseline, Metric
from detectors.burn_rate import pairs
from detectors.cohorts import HOUR_MINUTES
from detectors.effect import Prices
from detectors.incident import Incident
from detectors.policy import Condition, Episode, Identity, Policy, PolicySettings, Transition
from detectors.snapshot import fields_of, seal
from detectors.tally import Tally
from detectors.windows import SPAN_MINUTES
from streams import rules
from streams.alerts import (
    ACCURACY_DROPPED,
    CONCEPT_DRIFT,
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
from streams.label_watch import ABOUT_LABELS, LabelState, LabelWatch
from streams.model_windows import ModelWindows, Series
from streams.order import OrderedErrors
from streams.records import Summary
from streams.segment_watch import codes_of
from streams.settings import MonitorSettings
from streams.silence import Span
from streams.version_watch import VersionWatch
from streams.withholding import DUMP, Doubt, Withheld, doubts, withheld

FORMAT = 4
LONGEST_MINUTES = max(SPAN_MINUTES.values())
MAX_EVIDENCE = 8
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


class WatchState(LabelState):
    """What is stored of a model beside its versions, windows and open minutes. Format 3 had no segments."""

    champion: str = ""
    policy: bytes = b""
    evidence: list[Evidence] = msgspec.field(default_factory=list)
    beside: dict[str, Evidence] = msgspec.field(default_factory=dict)
    noticed: list[str] = msgspec.field(default_factory=list)
    incident: Incident | None = None
    withheld: Withheld | None = None
    held: list[Evidence] = msgspec.field(default_factory=list)
    """What detectors found while no verdict was given."""
    counted: int = 0
    """Outcomes that the champion's detectors had seen when the last minute was judged."""
    segments: dict[str, list[Evidence]] = msgspec.field(default_factory=dict)
    """The evidence of the drift of each segment, as ``evidence`` is that of all outcomes."""

    def evidence_of(self, segment: str) -> list[Evidence]:
        """The evidence of the open drift of a segment, or of all outcomes ("")."""
        return self.segments.setdefault(segment, []) if segment else self.evidence


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
        self._catalog, self._silence = catalog, silence
        yield from self._apply(catalog, from_s)
        minute, end = from_s // 60, to_s // 60
        while (due := self._due(minute)) is not None and due < end:
            yield from self._feed((due + 1) * 60, from_s)
            yield from self._look(due * 60 + 59, from_s)
            for number, arrived in self.arrivals.take(due):
                # A minute that was judged before only if its partition had been skipped.
                self.windows.fold(arrived, number)
                self._labels.fold(arrived, number, self.champion)
            yield from self._judge(due, catalog)
            minute = due + 1
        yield from self._feed(to_s, from_s)

    def _apply(self, catalog: ModelState | None, at_s: int) -> Iterator[Happened]:
        if catalog is None:
            return
        for version, watch in self.versions.items():
            watch.register(_registered(catalog, version, watch.metric))
            watch.name_positive(self._positive)
        champion = catalog.aliases.get("champion", "")
        if champion and champion != self.champion:
            if self.champion and champion in self.versions:
                self.versions[champion].start_afresh()
            yield from self._crown(champion, at_s)

    def _crown(self, champion: str, at_s: int) -> Iterator[Happened]:
        """A new champion: what the old one set off is over."""
        for transition in self._policy.resolve(self.model, PROMOTED, at_s):
            yield Happened(at_s, 0, self._raised(transition))
        if self._is_stale(champion, at_s):
            del self.versions[champion]
        at = self._at
        at.champion, at.evidence, at.beside, self.changed = champion, [], {}, True
        at.segments = {}
        at.withheld, at.held, at.counted = None, [], self._count()
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
                watch = self._version(version, metric, int(released.seconds[0]))
                found.extend((version, each) for each in watch.feed(released))
        for version, each in found:
            if version == self.champion:
                yield from self._signal(each, floor_s)

    def _look(self, at_s: int, floor_s: int) -> Iterator[Happened]:
        """The last second of a minute: what versions have gathered is looked at."""
        for version, watch in sorted(self.versions.items()):
            found = watch.look(at_s)
            for each in found if version == self.champion else ():
                yield from self._signal(each, floor_s)

    def _version(self, version: str, metric: Metric, first_s: int) -> VersionWatch:
        """The version's state. One whose task changed is another model by the same name, and starts afresh."""
        watch = self.versions.get(version)
        if watch is None or watch.metric != metric or self._is_stale(version, first_s):
            watch = VersionWatch(metric, self._settings)
            watch.register(self._known_baseline(version, metric))
            watch.name_positive(self._positive)
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

    @property
    def _positive(self) -> str:
        """The spelling of the positive class; empty without one."""
        positive = positive_class(self._catalog)
        return positive.text if positive is not None else ""

    def _known_baseline(self, version: str, metric: Metric) -> Baseline | None:
        return None if self._catalog is None else _registered(self._catalog, version, metric)

    def _signal(self, found: Evidence, floor_s: int) -> Iterator[Happened]:
        """Let a detection page, or be evidence: of the drift that is open, or of one that is found soon."""
        if found.run_length is not None and self._in_doubt(found):
            if sum(each.segment == found.segment for each in self._at.held) < MAX_EVIDENCE:
                self._at.held.append(found)
            self.changed = True
            return
        yield from self._tell(found, max(found.detected_s, floor_s))

    def _in_doubt(self, found: Evidence) -> bool:
        """Whether the outcomes that a detection is made of may not be all: then it waits until more is known.

        Asks only what is the same wherever the records of an unfinished minute have been cut.
        """
        at = self._at
        if at.withheld is not None and at.withheld.whole:
            return True
        return self._labels.arriving.may_be_dump(found.detected_s, found.outcomes_seen - at.counted)

    def _count(self) -> int:
        watch = self.versions.get(self.champion)
        return watch.count if watch is not None else 0

    def _tell(self, found: Evidence, at_s: int) -> Iterator[Happened]:
        identity, at = Identity(CONCEPT_DRIFT, self.model, found.segment), self._at
        is_open = any(episode.identity == identity for episode in self._policy.episodes())
        evidence = at.evidence_of(found.segment)
        if not is_open:
            evidence.clear()
        if found.run_length is None and not is_open:
            at.beside[found.detector], self.changed = found, True
            return
        if len(evidence) < MAX_EVIDENCE:
            evidence.append(found)
        if found.run_length is None:
            self.changed = True
            return
        if not found.segment:
            since = [each for each in at.beside.values() if each.detected_s >= found.change_s]
            evidence += sorted(since, key=lambda each: (each.detected_s, each.detector))
            at.beside = {}
        lately = rules.of_stream(found, self._recently(at_s // 60 - 1, found.segment), self._positive).a_minute
        condition = rules.concept_drift(found, self.champion, self._limits.prices, lately)
        self.changed = True
        for transition in self._policy.signal(identity, at_s, condition, silenced=self._silenced(at_s)):
            yield Happened(at_s, 1, self._raised(transition))

    def _raised(self, transition: Transition) -> Raised:
        name = transition.identity.alertname
        if name in ABOUT_LABELS:
            return Raised(transition, self.champion)
        self._at.incident, transition = incident.told(self._at.incident, transition)
        evidence = tuple(self._at.evidence_of(transition.identity.segment)) if name == CONCEPT_DRIFT else ()
        return Raised(transition, self.champion, evidence, self._at.incident)

    # --------------------------------------------------------------------------------------------------- rules

    def _judge(self, minute: int, catalog: ModelState | None) -> Iterator[Happened]:
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
        about_labels = dict(self._about_labels(minute))
        before, self._at.withheld = self._at.withheld, self._withheld(minute, about_labels)
        for doubt in doubts(self.model, self.champion, before, self._at.withheld):
            yield Happened(at_s, 0, doubt)
        conditions = about_labels | dict(self._about_model(minute))
        for transition in self._policy.step(minute, conditions, silenced=silenced):
            yield Happened(at_s, 0, self._raised(transition))
        for transition in self._labels.judge(minute, self.champion, silenced=silenced):
            yield Happened(at_s, 0, self._raised(transition))
        yield from self._release(before, minute)
        self._at.counted = self._count()

    def _silenced(self, at_s: int) -> bool:
        return self._silence is not None and self._silence.covers(at_s)

    def _notices(self) -> Iterator[Notice]:
        baseline = self._baseline()
        if baseline is None or baseline.metric != "accuracy" or self.champion in self._at.noticed:
            return
        if baseline.value < self._limits.minimum:
            self._at.noticed.append(self.champion)
            yield Notice(self.model, self.champion, baseline.value, self._limits.minimum)

    def _baseline_of(self, found: Evidence) -> Baseline | None:
        """Of the outcomes that a detection is about. A segment that is not watched any more has what it had then."""
        watch = self.versions.get(self.champion)
        if watch is None or not found.segment:
            return self._baseline()
        return watch.baseline_of(found.segment) or rules.baseline_before(found)

    def _baseline(self) -> Baseline | None:
        watch = self.versions.get(self.champion)
        return watch.baseline if watch is not None else None

    def _window_of(self, minute: int, span: int, segment: str = "") -> Tally:
        return self.windows.total(self.champion, minute, span, segment)

    def _recently(self, minute: int, segment: str = "") -> rules.Recently:
        """The champion's outcomes, or those of a segment, up to a minute that is judged, or that is about to be."""
        span = max(1, min(HOUR_MINUTES, minute - self._at.first_outcome + 1))
        lately = self._window_of(minute, span, segment).n / span

        def window(minutes: int) -> Tally:
            return self._window_of(minute, max(1, min(minutes, LONGEST_MINUTES)), segment)

        return rules.Recently(window, lately)

    def _about_labels(self, minute: int) -> Iterator[tuple[Identity, Condition]]:
        slow = self._labels.slow(minute, self.champion, self._window_of(minute, HOUR_MINUTES).n)
        if slow is not None:
            yield Identity(OUTCOMES_SLOW, self.model), slow
        one_sided = self._labels.one_sided(minute, self.champion)
        if one_sided is not None:
            yield Identity(OUTCOMES_ONE_SIDED, self.model), one_sided

    def _withheld(self, minute: int, about_labels: Mapping[Identity, Condition]) -> Withheld | None:
        """Whether the outcomes up to a minute tell how good the model is; what is open about them is not over yet."""
        names = {episode.identity.alertname for episode in self._policy.episodes()}
        names |= {identity.alertname for identity, condition in about_labels.items() if condition.active}
        if OUTCOMES_SLOW in names:
            self._labels.mark_slow(minute)
        return withheld(self._at.withheld, minute, names, settling=self._labels.arriving.settling(minute))

    def _release(self, before: Withheld | None, minute: int) -> Iterator[Happened]:
        """The verdict is given again: tell what was found meanwhile if it is true of all that has come by now.

        What was found on outcomes of one side is dropped, as is what those did to the detectors.
        """
        at, now = self._at, self._at.withheld
        if now is not None and now.whole:
            return
        tainted = before is not None and before.tainted
        if at.held and (before is None or not before.whole) and at.held[-1].detected_s // 60 >= minute:
            return  # a dump may have begun with the last seconds of the minute: the next one tells
        held, at.held = at.held, []
        watch = self.versions.get(self.champion)
        if watch is None or not (held or tainted):
            return
        if tainted:
            watch.start_afresh()
            return
        segments = {each.segment for each in held}
        if before is not None and before.reason == DUMP:
            minutes = minute - before.since_s // 60 + 1
            believed = {each.segment for each in held if self._holds(each, minute, minutes)}
            for segment in segments - believed:
                watch.start_afresh_of(segment)
            segments = believed
        for each in held:
            if each.segment in segments:
                yield from self._tell(each, (minute + 1) * 60)

    def _holds(self, found: Evidence, minute: int, minutes: int) -> bool:
        """Whether the errors of the last so many minutes have not healed from a change: those after it may be
        overestimated.
        """
        baseline = self._baseline_of(found)
        if baseline is None:
            return False
        condition = rules.concept_drift(found, self.champion)
        recently = rules.of_stream(found, self._recently(minute, found.segment), self._positive)
        still = rules.still_drifted(condition, recently, found, baseline, minutes, minutes)
        return still is not None and not still.cleared

    def _about_model(self, minute: int) -> Iterator[tuple[Identity, Condition]]:
        baseline, withheld = self._baseline(), self._at.withheld
        if baseline is None or (withheld is not None and withheld.whole):
            return
        recently = self._recently(minute)
        identity, since = Identity(ACCURACY_DROPPED, self.model), dict[Identity, int]()
        for episode in self._policy.episodes():
            since[episode.identity] = minute - episode.since_s // 60 + 1
        condition = rules.accuracy_dropped(recently, baseline, self._limits, self.champion, since.get(identity))
        if condition is not None and withheld is None:
            yield identity, condition
        for episode in self._policy.episodes():
            if episode.identity.alertname == CONCEPT_DRIFT:
                still = self._still_drifted(episode, minute)
                if still is not None:
                    yield episode.identity, still

    def _still_drifted(self, episode: Episode, minute: int) -> Condition | None:
        """Whether an open drift lasts, by all that was found of it; None if nobody can tell."""
        evidence, segment = self._at.evidence_of(episode.identity.segment), episode.identity.segment
        baseline = self._baseline_of(evidence[0]) if evidence else None
        if baseline is None:
            return None
        recently = self._recently(minute, segment)
        firsts = {each.stream: each for each in reversed(evidence) if each.run_length is not None}
        return rules.together(
            rules.still_drifted(
                episode.condition,
                rules.of_stream(first, recently, self._positive),
                first,
                baseline,
                self._settings.clean_minutes,
                minute - first.change_s // 60 + 1,
                self._limits.prices,
            )
            for first in reversed(list(firsts.values()) or evidence[:1])
        )

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
        members = [each for each in episodes if each.identity.alertname not in ABOUT_LABELS]
        self._at.incident = incident.adopted(self.model, incidents, members)
        self._at.evidence, self._at.segments, self.changed = [], {}, True
        for each in evidence:
            self._at.evidence_of(each.segment).append(each)

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
        self.changed = False


def _registered(catalog: ModelState, version: str, metric: Metric) -> Baseline | None:
    """The baseline that the catalog gives a version, if it measures what the version's errors are."""
    known = catalog.baselines.get(version)
    if known is None or known.metric != metric or known.n < 1:
        return None
    return Baseline(known.n, metric, known.value, known.standard_error)
