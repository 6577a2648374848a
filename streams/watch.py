"""One model under watch: its versions, windows, rules and open alerts, moved on by the watermark alone.

Within a minute of stream time everything happens in one order: the errors of its seconds go to the detectors, then what
arrived in it goes into the windows, then the rules are judged on windows that end with it. A minute in which nothing
can change is passed over, which gives the same as judging it.

The catalog is the one input that is not ordered against the stream: a promotion, or a baseline registered late, takes
effect at the first :meth:`ModelWatch.advance` that sees it, between two seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from detectors import incident
from detectors.baseline import Baseline, Metric
from detectors.burn_rate import pairs
from detectors.effect import Prices
from detectors.incident import Incident
from detectors.labels import HISTORY_HOURS, Hour, Labelling, labelling
from detectors.policy import Condition, Episode, Identity, Policy, PolicySettings, State, Transition
from detectors.snapshot import fields_of, seal
from detectors.tally import Tally
from detectors.windows import SPAN_MINUTES, Windows
from streams import rules
from streams.alerts import ACCURACY_DROPPED, CONCEPT_DRIFT, OUTCOMES_MISSING, OUTCOMES_SLOW, PROMOTED, Evidence, Raised
from streams.arrivals import Arrivals, Minute, Moved, combined
from streams.catalog import label_text
from streams.events import ModelState
from streams.order import OrderedErrors
from streams.records import Summary
from streams.settings import MonitorSettings
from streams.silence import Span
from streams.version_watch import VersionWatch

FORMAT = 2
HOUR_MINUTES = 60
CHAMPION_MINUTES = 60
LONGEST_MINUTES = max(SPAN_MINUTES.values())
MAX_SEGMENTS = 100
"""Segments with windows, a version; more of them count in the version's own windows only."""
MAX_EVIDENCE = 8
STALE_S = 60 * (LONGEST_MINUTES + 1_440)

ABOUT_LABELS = (OUTCOMES_MISSING, OUTCOMES_SLOW)
"""Alerts that are about outcomes, not about the model: no part of its incident."""

Series = tuple[str, str]
"""Version and segment; the segment "" is all rows of the version."""


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
    said: Raised | Notice


class WatchState(msgspec.Struct):
    """What is stored of a model beside its versions, windows and open minutes. Minutes are −1 for never."""

    champion: str = ""
    policy: bytes = b""
    missing: bytes = b""
    predicted: dict[int, dict[str, int]] = {}
    first_outcome: int = -1
    last_outcome: int = -1
    last_prediction: int = -1
    waiting_since: int = -1
    evidence: list[Evidence] = []
    beside: dict[str, Evidence] = {}
    noticed: list[str] = []
    incident: Incident | None = None
    hours: dict[int, Hour] = {}
    """What arrived of the champion, by hour."""


class ModelWatch:
    """All that the monitor knows of one model."""

    def __init__(
        self, model: str, settings: MonitorSettings, minimum_accuracy: float, prices: Prices = rules.NO_PRICES
    ) -> None:
        self.model = model
        self.versions: dict[str, VersionWatch] = {}
        self.windows: dict[Series, Windows] = {}
        self.arrivals = Arrivals()
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
            {ACCURACY_DROPPED: settings.for_minutes, OUTCOMES_SLOW: settings.for_minutes},
            settings.clean_minutes,
            settings.repeat_minutes,
            settings.cooldown_minutes,
            settings.flap_episodes,
            settings.flap_minutes,
        )
        # Apart, because a promotion resolves what its champion did, but brings no outcomes back.
        self._policy, self._missing = Policy(limits), Policy(limits)

    @property
    def champion(self) -> str:
        """The version whose alerts count; empty until there is one."""
        return self._at.champion

    @property
    def open_episodes(self) -> list[Episode]:
        """The alerts that are pending or firing."""
        return sorted([*self._policy.episodes(), *self._missing.episodes()], key=lambda episode: episode.identity)

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
            buffer.add(summary.partition, seconds[skip:], offsets[skip:], errors[skip:])

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
            for number, arrived in self.arrivals.take(due):
                self._fold(arrived, number)
            yield from self._judge(due, catalog)
            minute = due + 1
        yield from self._feed(to_s, from_s)

    def _apply(self, catalog: ModelState | None, at_s: int) -> Iterator[Happened]:
        if catalog is None:
            return
        for version, watch in self.versions.items():
            watch.register(_registered(catalog, version, watch.metric))
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
        self._at.champion, self._at.evidence, self._at.beside, self.changed = champion, [], {}, True
        self._at.hours = {}

    def _due(self, minute: int) -> int | None:
        """The first minute from ``minute`` on in which something can change; None if there is none."""
        firsts = [buffer.first_second // 60 for buffer in self._errors.values() if buffer.first_second is not None]
        if (first := self.arrivals.first) is not None:
            firsts.append(first)
        if (silent := self._due_in_silence(minute)) is not None:
            firsts.append(silent)
        if self._policy.held_back or self._missing.held_back:
            # The first minute whose end is not silent.
            at_s = (minute + 1) * 60
            over = self._silence.end_s if self._silence is not None and self._silence.covers(at_s) else at_s
            firsts.append(max(minute, -(-over // 60) - 1))
        return max(minute, min(firsts)) if firsts else None

    def _due_in_silence(self, minute: int) -> int | None:
        """The same if nothing arrives any more: windows empty themselves, and outcomes come to be missed."""
        at = self._at
        reach = -1
        if at.last_outcome >= 0:
            # Longer windows begin at the hour or the day before.
            rounding = 1_440 if self._window > 1_440 else 0
            reach = at.last_outcome + max(self._window + rounding, self._settings.clean_minutes)
        if at.last_prediction >= 0:
            reach = max(reach, at.last_prediction + CHAMPION_MINUTES)
        if minute <= reach:
            return minute
        limit = self._settings.outcomes_missing_minutes
        starts, ends = at.waiting_since + limit, at.last_prediction + limit
        missed = at.waiting_since >= 0 and starts <= minute <= ends
        episodes = self._missing.episodes()
        if not episodes:
            return max(minute, starts) if at.waiting_since >= 0 and minute <= ends else None
        if not missed or episodes[0].state is State.PENDING or episodes[0].clean:
            return minute
        due = [ends + 1]
        if self._settings.repeat_minutes:
            due.append(-(-episodes[0].sent_at_s // 60) + self._settings.repeat_minutes - 1)
        return max(minute, min(due))

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

    def _version(self, version: str, metric: Metric, first_s: int) -> VersionWatch:
        """The version's state. One whose task changed is another model by the same name, and starts afresh."""
        watch = self.versions.get(version)
        if watch is None or watch.metric != metric or self._is_stale(version, first_s):
            watch = VersionWatch(metric, self._settings)
            watch.register(self._known_baseline(version, metric))
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
        for windows in self.windows.values():
            windows.advance(at_s // 60 - 1)  # the last minute that is judged
        gone = [version for version in self.versions if self._is_stale(version, at_s)]
        for version in gone:
            del self.versions[version]
        return gone, [series for series in self.windows if series[0] in gone]

    def _known_baseline(self, version: str, metric: Metric) -> Baseline | None:
        return None if self._catalog is None else _registered(self._catalog, version, metric)

    def _signal(self, found: Evidence, floor_s: int) -> Iterator[Happened]:
        """Let a detection page, or be evidence: of the drift that is open, or of one that is found soon."""
        identity, at = Identity(CONCEPT_DRIFT, self.model), self._at
        is_open = any(episode.identity == identity for episode in self._policy.episodes())
        if not is_open:
            at.evidence = []
        if found.run_length is None and not is_open:
            at.beside[found.detector], self.changed = found, True
            return
        if len(at.evidence) < MAX_EVIDENCE:
            at.evidence.append(found)
        if found.run_length is None:
            self.changed = True
            return
        since = [each for each in at.beside.values() if each.detected_s >= found.change_s]
        at.evidence += sorted(since, key=lambda each: (each.detected_s, each.detector))
        at.beside = {}
        at_s = max(found.detected_s, floor_s)
        lately = self._recently(at_s // 60 - 1).a_minute
        condition = rules.concept_drift(found, self.champion, self._limits.prices, lately)
        self.changed = True
        for transition in self._policy.signal(identity, at_s, condition, silenced=self._silenced(at_s)):
            yield Happened(at_s, 1, self._raised(transition))

    def _raised(self, transition: Transition) -> Raised:
        name = transition.identity.alertname
        if name in ABOUT_LABELS:
            return Raised(transition, self.champion)
        self._at.incident, transition = incident.told(self._at.incident, transition)
        evidence = tuple(self._at.evidence) if name == CONCEPT_DRIFT else ()
        return Raised(transition, self.champion, evidence, self._at.incident)

    # --------------------------------------------------------------------------------------------------- windows

    def _fold(self, arrived: Minute, minute: int) -> None:
        """Let what arrived in a minute count; a minute judged already only if its partition had been skipped."""
        at = self._at
        self.changed = True
        for (version, segment, predicted, outcome), n in sorted(arrived.cells.items()):
            for windows in self._series(version, segment):
                windows.add(minute, [(predicted, outcome, n)])
        for each in arrived.moments:
            for windows in self._series(each.version, each.segment):
                windows.add_regression(minute, each.n, each.sum_abs, each.sum_sq, each.sum_err)
        for move in arrived.corrections:
            for windows in self._series(move.version, move.segment):
                _move(windows, move)
        if arrived.predictions:
            known = at.predicted.setdefault(minute, {})
            for version, n in arrived.predictions.items():
                known[version] = known.get(version, 0) + n
            at.last_prediction = max(at.last_prediction, minute)
            if at.waiting_since < 0:
                at.waiting_since = minute
        if arrived.outcomes:
            at.first_outcome = minute if at.first_outcome < 0 else at.first_outcome
            at.last_outcome, at.waiting_since = max(at.last_outcome, minute), -1
        hour = minute // 60
        labelled = arrived.outcomes_of(self.champion)
        at.hours[hour] = at.hours.get(hour, Hour()).plus(arrived.predictions.get(self.champion, 0), labelled)

    def _series(self, version: str, segment: str) -> list[Windows]:
        found = [self.window(version, "")]
        if segment:
            known = self.windows.get((version, segment))
            if known is None and sum(series[0] == version for series in self.windows) <= MAX_SEGMENTS:
                known = self.window(version, segment)
            if known is not None:
                found.append(known)
        return found

    def window(self, version: str, segment: str) -> Windows:
        """The windows of a series, made at first sight."""
        return self.windows.setdefault((version, segment), Windows())

    def segments(self, version: str) -> list[str]:
        """The segments of a version that have windows, or will, all rows ("") first."""
        known = {"", *(segment for of_version, segment in self.windows if of_version == version)}
        arriving = sorted(self.arrivals.segments(version) - known)
        return sorted(known | set(arriving[: MAX_SEGMENTS + 1 - len(known)]))

    @property
    def arriving_versions(self) -> set[str]:
        """The versions that the minutes which are not over yet speak of."""
        return self.arrivals.versions

    def tally(self, version: str, segment: str, next_minute: int, span: int) -> Tally:
        """A window as it stands: the judged minutes before ``next_minute``, and what has arrived since."""
        windows = self.windows.get((version, segment))
        last = max(next_minute - 1, windows.latest if windows is not None else -1)
        held = self.arrivals.tally(version, segment, last - span + 1)
        return combined(windows.total(last, span) if windows is not None and windows.latest >= 0 else Tally(0), held)

    # --------------------------------------------------------------------------------------------------- rules

    def _judge(self, minute: int, catalog: ModelState | None) -> Iterator[Happened]:
        """Judge a minute that is over."""
        at_s = (minute + 1) * 60
        at = self._at
        self.changed = True
        for old in [old for old in at.predicted if old <= minute - CHAMPION_MINUTES]:
            del at.predicted[old]
        for old in [old for old in at.hours if old < minute // 60 - HISTORY_HOURS]:
            del at.hours[old]
        if catalog is None or "champion" not in catalog.aliases:
            busiest = self._busiest()
            if busiest != self.champion:
                yield from self._crown(busiest, at_s)
        for notice in self._notices():
            yield Happened(at_s, 0, notice)
        silenced = self._silenced(at_s)
        for transition in self._policy.step(minute, dict(self._conditions(minute)), silenced=silenced):
            yield Happened(at_s, 0, self._raised(transition))
        limit = self._settings.outcomes_missing_minutes
        missing = rules.outcomes_missing(minute, at.waiting_since, at.last_prediction, limit, self.champion)
        identity = Identity(OUTCOMES_MISSING, self.model)
        for transition in self._missing.step(minute, {identity: missing}, silenced=silenced):
            yield Happened(at_s, 0, self._raised(transition))

    def _silenced(self, at_s: int) -> bool:
        return self._silence is not None and self._silence.covers(at_s)

    def _busiest(self) -> str:
        """The version that made most of the last hour's predictions; a tie, or silence, leaves the champion."""
        totals: dict[str, int] = {}
        for versions in self._at.predicted.values():
            for version, n in versions.items():
                totals[version] = totals.get(version, 0) + n
        if not totals:
            return self.champion
        most = max(totals.values())
        return self.champion if totals.get(self.champion) == most else min(v for v, n in totals.items() if n == most)

    def _notices(self) -> Iterator[Notice]:
        baseline = self._baseline()
        if baseline is None or baseline.metric != "accuracy" or self.champion in self._at.noticed:
            return
        if baseline.value < self._limits.minimum:
            self._at.noticed.append(self.champion)
            yield Notice(self.model, self.champion, baseline.value, self._limits.minimum)

    def _baseline(self) -> Baseline | None:
        watch = self.versions.get(self.champion)
        return watch.baseline if watch is not None else None

    def _window_of(self, minute: int, span: int) -> Tally:
        windows = self.windows.get((self.champion, ""))
        return windows.total(minute, span) if windows is not None else Tally(0)

    def _recently(self, minute: int) -> rules.Recently:
        """The champion's outcomes up to a minute that is judged, or that is about to be."""
        span = max(1, min(HOUR_MINUTES, minute - self._at.first_outcome + 1))
        lately = self._window_of(minute, span).n / span

        def window(minutes: int) -> Tally:
            return self._window_of(minute, max(1, min(minutes, LONGEST_MINUTES)))

        return rules.Recently(window, lately)

    def _labelling(self, minute: int) -> Labelling | None:
        predictions = sum(versions.get(self.champion, 0) for versions in self._at.predicted.values())
        recent = Hour(predictions, self._window_of(minute, HOUR_MINUTES).n)
        return labelling(recent, self._at.hours, minute // 60)

    def _conditions(self, minute: int) -> Iterator[tuple[Identity, Condition]]:
        baseline = self._baseline()
        slow = rules.outcomes_slow(self._labelling(minute), self._settings.outcomes_slow_share, self.champion)
        if slow is not None:
            yield Identity(OUTCOMES_SLOW, self.model), slow
        if baseline is None:
            return
        recently = self._recently(minute)
        told = any(episode.identity.alertname == OUTCOMES_SLOW for episode in self._policy.episodes())
        withheld = told or (slow is not None and slow.active)
        identity, since = Identity(ACCURACY_DROPPED, self.model), dict[Identity, int]()
        for episode in self._policy.episodes():
            since[episode.identity] = minute - episode.since_s // 60 + 1
        condition = rules.accuracy_dropped(recently, baseline, self._limits, self.champion, since.get(identity))
        if condition is not None and not withheld:
            yield identity, condition
        for episode in self._policy.episodes():
            if episode.identity.alertname == CONCEPT_DRIFT and self._at.evidence:
                first = self._at.evidence[0]
                still = rules.still_drifted(
                    episode.condition,
                    recently,
                    first,
                    baseline,
                    self._settings.clean_minutes,
                    minute - first.change_s // 60 + 1,
                    self._limits.prices,
                )
                if still is not None:
                    yield episode.identity, still

    # --------------------------------------------------------------------------------------------------- storing

    def restore_version(self, version: str, sealed: bytes) -> None:
        """Take over a version's state; raises SnapshotError if its bytes are damaged or newer."""
        self.versions[version] = VersionWatch.restored(sealed, self._settings)

    def adopt(
        self, episodes: Sequence[Episode], evidence: Sequence[Evidence], incidents: Sequence[tuple[str, int]] = ()
    ) -> None:
        """Take the published episodes for those that are open, ``evidence`` for that of the open drift.

        ``incidents``: ids and starts (in s) that were published with what is open.
        """
        self._missing.adopt([each for each in episodes if each.identity.alertname == OUTCOMES_MISSING])
        self._policy.adopt([each for each in episodes if each.identity.alertname != OUTCOMES_MISSING])
        members = [each for each in episodes if each.identity.alertname not in ABOUT_LABELS]
        self._at.incident = incident.adopted(self.model, incidents, members)
        self._at.evidence, self.changed = list(evidence), True

    def snapshot(self) -> bytes:
        """All but the versions, the windows and the open minutes, which are stored apart."""
        self._at.policy, self._at.missing = self._policy.snapshot(), self._missing.snapshot()
        return seal(FORMAT, self._at)

    def restore(self, sealed: bytes) -> None:
        """Take over a snapshot; raises SnapshotError if its bytes are damaged or newer."""
        self._at = fields_of(sealed, FORMAT, WatchState)
        self._policy.restore(self._at.policy)
        self._missing.restore(self._at.missing)
        self.changed = False


def _registered(catalog: ModelState, version: str, metric: Metric) -> Baseline | None:
    """The baseline that the catalog gives a version, if it measures what the version's errors are."""
    known = catalog.baselines.get(version)
    if known is None or known.metric != metric or known.n < 1:
        return None
    return Baseline(known.n, metric, known.value, known.standard_error)


def _move(windows: Windows, move: Moved) -> None:
    """Undo a pair in its own minute and count it anew."""
    if move.metric == "accuracy":
        predicted = label_text(move.prediction)
        cells = [(predicted, label_text(move.was), -1), (predicted, label_text(move.now), 1)]
        windows.add(move.minute, cells)
        return
    was, now = (float(move.prediction) - float(outcome) for outcome in (move.was, move.now))
    windows.add_regression(move.minute, 0, abs(now) - abs(was), now * now - was * was, now - was)
