"""Whether a model's outcomes come as they should: who is missed, since when, and what share of predictions has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from detectors.cohorts import HOUR_MINUTES
from detectors.dump import SETTLE_MINUTES
from detectors.labels import HISTORY_HOURS, Hour, Labelling, labelling
from detectors.one_sided import of_cohorts
from detectors.policy import Condition, Episode, Identity, Policy, PolicySettings, State, Transition
from streams import rules
from streams.alerts import OUTCOMES_MISSING, OUTCOMES_ONE_SIDED, OUTCOMES_SLOW
from streams.arrivals import Minute
from streams.arriving import ArrivingState, ArrivingWatch
from streams.class_mix import ClassMix
from streams.cohort_watch import CohortState, CohortWatch
from streams.settings import MonitorSettings

CHAMPION_MINUTES = 60

ABOUT_LABELS = (OUTCOMES_MISSING, OUTCOMES_SLOW, OUTCOMES_ONE_SIDED)
"""Alerts that are about outcomes, not about the model: no part of its incident."""


class LabelState(msgspec.Struct):
    """What is stored of a model's outcomes. Minutes are −1 for never."""

    missing: bytes = b""
    predicted: dict[int, dict[str, int]] = {}
    first_outcome: int = -1
    last_outcome: int = -1
    last_prediction: int = -1
    waiting_since: int = -1
    hours: dict[int, Hour] = {}
    """What arrived of the champion, by hour."""
    cohorts: CohortState = msgspec.field(default_factory=CohortState)
    arriving: ArrivingState = msgspec.field(default_factory=ArrivingState)
    """The champion's: by cohort, and as they arrive."""


class LabelWatch:
    """The outcomes of one model. ``state`` is what is stored of it: another may be put in its place."""

    def __init__(self, model: str, settings: MonitorSettings, policy: PolicySettings, state: LabelState) -> None:
        self.state = state
        self._begin()
        self._model = model
        self._settings = settings
        # Apart from the model's other alerts: a promotion resolves what its champion did, but brings no outcomes back.
        self._missing = Policy(policy)

    def _begin(self) -> None:
        self.cohorts, self.arriving = CohortWatch(self.state.cohorts), ArrivingWatch(self.state.arriving)
        self.mix = ClassMix(self.state.arriving)

    @property
    def episodes(self) -> list[Episode]:
        """What is pending or fires of outcomes that do not come at all."""
        return self._missing.episodes()

    @property
    def held_back(self) -> bool:
        """Whether something fires that a silence has kept from being told."""
        return self._missing.held_back

    # --------------------------------------------------------------------------------------------------- taking in

    def fold(self, arrived: Minute, minute: int, champion: str) -> None:
        """Let what arrived in a minute count."""
        at = self.state
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
        hour = minute // HOUR_MINUTES
        labelled = arrived.outcomes_of(champion)
        at.hours[hour] = at.hours.get(hour, Hour()).plus(arrived.predictions.get(champion, 0), labelled)
        self.cohorts.fold(arrived, minute, champion)
        self.arriving.fold(arrived, minute, champion, self.cohorts.cohorts)

    def forget(self, minute: int) -> None:
        """Let go of what a minute that is over does not need any more."""
        at = self.state
        self.arriving.judge(minute)
        for old in [old for old in at.predicted if old <= minute - CHAMPION_MINUTES]:
            del at.predicted[old]
        for old in [old for old in at.hours if old < minute // HOUR_MINUTES - HISTORY_HOURS]:
            del at.hours[old]

    def start_afresh(self) -> None:
        """Another version is champion: what is usual of its outcomes is not known."""
        self.state.hours, self.state.cohorts, self.state.arriving = {}, CohortState(), ArrivingState()
        self._begin()

    # --------------------------------------------------------------------------------------------------- asking

    def busiest(self, champion: str) -> str:
        """The version that made most of the last hour's predictions; a tie, or silence, leaves the champion."""
        totals: dict[str, int] = {}
        for versions in self.state.predicted.values():
            for version, n in versions.items():
                totals[version] = totals.get(version, 0) + n
        if not totals:
            return champion
        most = max(totals.values())
        return champion if totals.get(champion) == most else min(v for v, n in totals.items() if n == most)

    def labelling(self, minute: int, champion: str, outcomes: int) -> Labelling | None:
        """The labelled share up to a minute, of whose last hour so many ``outcomes`` came."""
        predictions = sum(versions.get(champion, 0) for versions in self.state.predicted.values())
        return labelling(Hour(predictions, outcomes), self.state.hours, minute // HOUR_MINUTES)

    def slow(self, minute: int, champion: str, outcomes: int) -> Condition | None:
        """The condition that less of them comes than usual; None if nobody can tell."""
        found = self.labelling(minute, champion, outcomes)
        return rules.outcomes_slow(found, self._settings.outcomes_slow_share, champion)

    def mark_slow(self, minute: int) -> None:
        """Outcomes are slow in this minute's hour: it does not tell what is usual."""
        hour = minute // HOUR_MINUTES
        self.state.hours[hour] = replace(self.state.hours.get(hour, Hour()), slow=True)

    def one_sided(self, minute: int, champion: str) -> Condition | None:
        """The condition that outcomes of one predicted class do not come as the others do; None if nobody can tell."""
        at, least = self.state, self._settings.outcomes_one_sided
        if least >= 1.0 or at.last_prediction <= minute - CHAMPION_MINUTES:
            return None
        newest = self.cohorts.newest(minute)
        found = of_cohorts(newest.counts, least) if newest is not None else None
        return rules.outcomes_one_sided(found or self.arriving.lacking(minute), least, champion)

    def may_be_one_sided(self, since_s: int, second: int, positive: str) -> bool:
        """Whether what came in a stretch of seconds may be of one class only: known before its minute is over."""
        return self._settings.outcomes_one_sided < 1.0 and self.mix.doubtful(since_s, second, positive)

    def due_in_silence(self, minute: int, window: int) -> int | None:
        """The first minute from ``minute`` on in which something can change if nothing arrives any more; else None.

        Windows of so many minutes empty themselves, and outcomes come to be missed.
        """
        at = self.state
        reach = -1
        if at.last_outcome >= 0:
            # Longer windows begin at the hour or the day before.
            rounding = 1_440 if window > 1_440 else 0
            reach = at.last_outcome + max(window + rounding, self._settings.clean_minutes, SETTLE_MINUTES)
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
        due = [ends]  # its alert says how long they were waited for
        if self._settings.repeat_minutes:
            due.append(-(-episodes[0].sent_at_s // 60) + self._settings.repeat_minutes - 1)
        return max(minute, min(due))

    # --------------------------------------------------------------------------------------------------- judging

    def judge(self, minute: int, champion: str, *, silenced: bool) -> list[Transition]:
        """Judge whether outcomes come at all in a minute that is over."""
        at, limit = self.state, self._settings.outcomes_missing_minutes
        missing = rules.outcomes_missing(minute, at.waiting_since, at.last_prediction, limit, champion)
        identity = Identity(OUTCOMES_MISSING, self._model)
        return self._missing.step(minute, {identity: missing}, silenced=silenced)

    # --------------------------------------------------------------------------------------------------- storing

    def adopt(self, episodes: Sequence[Episode]) -> None:
        """Take published episodes for those that are open."""
        self._missing.adopt(episodes)

    def snapshot(self) -> None:
        """Bring ``state`` up to date."""
        self.state.missing = self._missing.snapshot()

    def restore(self, state: LabelState) -> None:
        """Take over a state; raises SnapshotError if its bytes are damaged or newer."""
        self._missing.restore(state.missing)
        self.state = state
        self._begin()
