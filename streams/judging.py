"""What the champion's outcomes say when a minute is over: the conditions that its alerts are judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from detectors.baseline import Baseline
from detectors.cohorts import HOUR_MINUTES
from detectors.policy import Condition, Episode, Identity, Policy
from detectors.tally import Tally
from detectors.windows import SPAN_MINUTES
from streams import rules
from streams.alerts import ACCURACY_DROPPED, CONCEPT_DRIFT, OUTCOMES_ONE_SIDED, OUTCOMES_SLOW, Evidence
from streams.label_watch import LabelWatch
from streams.model_windows import ModelWindows
from streams.settings import MonitorSettings
from streams.version_watch import VersionWatch
from streams.watch_state import WatchState
from streams.withholding import ONE_SIDED, Withheld, withheld

LONGEST_MINUTES = max(SPAN_MINUTES.values())


class Judge:
    """Reads one model's windows, versions and outcomes; changes none of them. ``positive`` is the spelling of the
    positive class, empty without one.
    """

    def __init__(
        self,
        model: str,
        settings: MonitorSettings,
        limits: rules.AccuracyLimits,
        versions: Mapping[str, VersionWatch],
        windows: ModelWindows,
        labels: LabelWatch,
        policy: Policy,
        at: WatchState,
    ) -> None:
        self.positive = ""
        self._model = model
        self._settings = settings
        self._limits = limits
        self._versions = versions
        self._windows = windows
        self._labels = labels
        self._policy = policy
        self._at = at

    # --------------------------------------------------------------------------------------------------- measuring

    @property
    def baseline(self) -> Baseline | None:
        """What the champion achieves when nothing is wrong; None while that is not known."""
        watch = self._versions.get(self._at.champion)
        return watch.baseline if watch is not None else None

    def _baseline_of(self, found: Evidence) -> Baseline | None:
        """Of the outcomes that a detection is about. A segment that is not watched any more has what it had then."""
        watch = self._versions.get(self._at.champion)
        if watch is None or not found.segment:
            return self.baseline
        return watch.baseline_of(found.segment) or rules.baseline_before(found)

    @property
    def _hour_factor(self) -> float:
        """Times the champion's error of an average hour that its newest outcomes are expected to have."""
        watch = self._versions.get(self._at.champion)
        return watch.hour_factor if watch is not None else 1.0

    def _window_of(self, minute: int, span: int, segment: str = "") -> Tally:
        return self._windows.total(self._at.champion, minute, span, segment)

    def _recently(self, minute: int, segment: str = "") -> rules.Recently:
        """The champion's outcomes, or those of a segment, up to a minute that is judged, or that is about to be."""
        span = max(1, min(HOUR_MINUTES, minute - self._at.first_outcome + 1))
        lately = self._window_of(minute, span, segment).n / span

        def window(minutes: int) -> Tally:
            return self._window_of(minute, max(1, min(minutes, LONGEST_MINUTES)), segment)

        return rules.Recently(window, lately)

    # --------------------------------------------------------------------------------------------------- detections

    def drift(self, found: Evidence, minute: int) -> Condition:
        """The condition that a detection of a minute, or of the one behind it, is; with what it costs."""
        recently = self._recently(minute, found.segment)
        lately = rules.of_stream(found, recently, self.positive).a_minute
        return rules.concept_drift(found, self._at.champion, self._limits.prices, lately)

    def holds(self, found: Evidence, minute: int, minutes: int) -> bool:
        """Whether the errors of the last so many minutes have not healed from a change: those after it may be
        overestimated.
        """
        baseline = self._baseline_of(found)
        if baseline is None:
            return False
        condition = rules.concept_drift(found, self._at.champion)
        found, baseline = rules.of_hour(found, baseline, self._hour_factor)
        recently = rules.of_stream(found, self._recently(minute, found.segment), self.positive)
        still = rules.still_drifted(condition, recently, found, baseline, minutes, minutes)
        return still is not None and not still.cleared

    # --------------------------------------------------------------------------------------------------- conditions

    def about_labels(self, minute: int) -> Iterator[tuple[Identity, Condition]]:
        """Whether outcomes come as they should."""
        slow = self._labels.slow(minute, self._at.champion, self._window_of(minute, HOUR_MINUTES).n)
        if slow is not None:
            yield Identity(OUTCOMES_SLOW, self._model), slow
        one_sided = self._labels.one_sided(minute, self._at.champion)
        if one_sided is not None:
            yield Identity(OUTCOMES_ONE_SIDED, self._model), one_sided

    def withheld(self, minute: int, about_labels: Mapping[Identity, Condition]) -> Withheld | None:
        """Whether the outcomes up to a minute tell how good the model is; what is open about them is not over yet."""
        names = {episode.identity.alertname for episode in self._policy.episodes()}
        names |= {identity.alertname for identity, condition in about_labels.items() if condition.active}
        if OUTCOMES_SLOW in names:
            self._labels.mark_slow(minute)
        settling, doubtful = self._labels.arriving.settling(minute), self._doubtful(minute)
        return withheld(self._at.withheld, minute, names, settling=settling, doubtful=doubtful)

    def _doubtful(self, minute: int) -> bool:
        """Whether outcomes may be of one class only since a detection that is held: seen from its second on, until
        enough of both classes has come since, or for an hour.
        """
        before = self._at.withheld
        if before is not None and before.reason == ONE_SIDED:
            first = before.since_s // 60
            if before.tainted:
                return False  # no doubt: its alert tells when it is over
            return minute - first < HOUR_MINUTES and not self._labels.mix.alike(first + 1, minute, self.positive)
        return any(
            self._labels.may_be_one_sided(each.change_s, each.detected_s, self.positive)
            for each in self._at.held
            if each.detected_s // 60 == minute
        )

    def about_model(self, minute: int) -> Iterator[tuple[Identity, Condition]]:
        """Whether the model is as good as it should be, by rules and by the drifts that are open."""
        baseline, withheld = self.baseline, self._at.withheld
        if baseline is None or (withheld is not None and withheld.whole):
            return
        recently = self._recently(minute)
        identity, since = Identity(ACCURACY_DROPPED, self._model), dict[Identity, int]()
        for episode in self._policy.episodes():
            since[episode.identity] = minute - episode.since_s // 60 + 1
        condition = rules.accuracy_dropped(recently, baseline, self._limits, self._at.champion, since.get(identity))
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
                rules.of_stream(first, recently, self.positive),
                *rules.of_hour(first, baseline, self._hour_factor),
                self._settings.clean_minutes,
                minute - first.change_s // 60 + 1,
                self._limits.prices,
            )
            for first in reversed(list(firsts.values()) or evidence[:1])
        )
