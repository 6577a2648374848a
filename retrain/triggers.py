"""What starts a run: an alert about the version that serves, new labels, a schedule, or a person. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence

from retrain.collapse import LOST_ROWS
from retrain.lifecycle import Run, TriggerKind, episode_key, promotions, unbeaten_since_ms
from streams.events import Alert, ModelState, rfc3339
from streams.settings import RetrainSettings

SERVED_SHARE = 0.01
"""Of the time for which nobody has beaten a champion: so long it is not looked at again because of labels."""
GROWTH = 1.5
"""After a contest that nobody won so many times the new rows are waited for."""
SECOND_MS = 1_000
DAY_MS = 86_400_000


def concerns(alert: Alert, settings: RetrainSettings) -> bool:
    """Whether the alert may call for a new version at all."""
    return (
        alert.status == "firing"
        and alert.labels.get("alertname") in settings.alerts
        and alert.labels.get("severity", "critical") in settings.severities
        and (settings.segment_alerts or not alert.labels.get("segment"))
        and "model" in alert.labels
    )


def run_of(alert: Alert, state: ModelState | None, now_ms: int) -> Run | str:
    """The run that the alert starts, or why it starts none."""
    obstacle = _obstacle(state)
    if state is None or obstacle is not None:
        return str(obstacle)
    champion = state.aliases["champion"]
    version = alert.drift.version if alert.drift else None
    if version is not None and version != champion:
        return f"it is about version {version}, the champion is {champion}"
    return Run(
        episode=episode_key(alert.fingerprint, alert.starts_at),
        model=state.model,
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at,
        alertname=alert.labels["alertname"],
        state="triggered",
        champion=champion,
        triggered_ms=now_ms,
        updated_ms=now_ms,
        since_ms=change_ms(alert),
    )


def run_by(kind: TriggerKind, state: ModelState | None, runs: Sequence[Run], now_ms: int) -> Run | str:
    """The run that new labels, the schedule or a person starts, or why it starts none.

    It is named by when something last happened to a run of the model, so that of several retrainers that start it at
    once one does.
    """
    obstacle = _obstacle(state)
    if state is None or obstacle is not None:
        return str(obstacle)
    champion = state.aliases["champion"]
    starts_at = rfc3339(max((run.updated_ms for run in runs), default=0))
    return Run(
        episode=episode_key(kind, starts_at),
        model=state.model,
        fingerprint=kind,
        starts_at=starts_at,
        alertname="",
        state="triggered",
        champion=champion,
        triggered_ms=now_ms,
        updated_ms=now_ms,
        since_ms=newest_change_ms(runs),
        kind=kind,
    )


def newest_change_ms(runs: Iterable[Run]) -> int | None:
    """The newest change of a concept, in stream time, that alerts have named or rollbacks have shown; None for none."""
    changes = [change for run in runs for change in (run.since_ms, run.worse_since_ms) if change is not None]
    return max(changes, default=None)


def _obstacle(state: ModelState | None) -> str | None:
    """Why nothing can be retrained."""
    if state is None:
        return "the model is not in the repository"
    if "champion" not in state.aliases:
        return "the model has no champion"
    return "the mode is observe" if state.mode == "observe" else None


def next_rows(tested: int) -> int:
    """How many rows are worth the next look after one at so many: half as many again."""
    return math.ceil(tested * GROWTH)


def regular_labels(rows: int, settings: RetrainSettings) -> int:
    """New labels from one run to the next while nothing calls for haste, where ``rows`` labelled ones are there.

    Few, because a model ages with every label; a share of all, because a run reads and learns all of them.
    """
    return max(settings.labels, math.ceil(settings.labels_share * rows))


def rows_needed(runs: Sequence[Run], champion: str, settings: RetrainSettings) -> int:
    """New rows from which on a challenger of the champion is trained: as many as it was chosen by itself, if those were
    few. Who won soon after a change was good enough until a better one could be made.
    """
    promotion = promotions(runs).get(champion)
    if promotion is None:
        return settings.minimum_rows
    return min(settings.minimum_rows, max(promotion.tested_rows, LOST_ROWS))


def labels_needed(runs: Sequence[Run], champion: str, settings: RetrainSettings) -> int:
    """New labels since the last run after which the next one is due; 0 for never.

    After a run that had few rows to go by the next one comes sooner: what was learnt of few rows is improved first, and
    what was not proven on them may be on half as many again. One that was rolled back has left a version to serve that
    is not good either, and neither is one that has collapsed on probation: the next comes as soon as the archive can be
    asked, and as soon behind a version that is no more than a stopgap. The rows on which the archive won count towards
    the next run: nobody has learnt them.
    """
    if not settings.labels:
        return 0
    rollback_ms = max((run.updated_ms for run in runs if run.state == "rolled_back"), default=None)
    tested = [run for run in runs if run.tested_rows]
    worse = [run.worse_since_ms for run in runs if run.on_probation and run.worse_since_ms is not None]
    missed = rollback_ms is not None and not any(run.triggered_ms >= rollback_ms for run in tested)
    unlearnt = bool(worse) and not any((run.since_ms or 0) >= max(worse) for run in tested)
    last = max(tested, key=lambda run: run.updated_ms, default=None)
    regular = regular_labels(0 if last is None else last.known_rows, settings)
    minimum = rows_needed(runs, champion, settings)
    if missed or unlearnt or (last is not None and last.stopgap):
        return min(regular, settings.archive_rows, minimum)
    if last is None:
        return max(regular, minimum)
    learnt = last.better and not last.took_back  # what it was made of is no test of what comes next
    had = 0 if learnt else last.tested_rows
    more = next_rows(last.tested_rows) - last.tested_rows
    soon = regular if last.tested_rows >= regular else min(regular, max(more, settings.archive_rows))
    return max(minimum - had, soon)  # with fewer nothing could be trained


def due(
    runs: Sequence[Run], champion: str, labels: int, since_ms: int, settings: RetrainSettings, now_ms: int
) -> TriggerKind | None:
    """What starts a run of its own accord now: ``labels`` new ones have come since the last run or the first version.

    ``since_ms`` is when the model got its first version, for a schedule that no run has begun yet.
    """
    if any(run.at_work for run in runs):
        return None
    ended_ms = max((run.updated_ms for run in runs), default=None)
    if ended_ms is not None and now_ms < ended_ms + settings.cooldown_s * SECOND_MS:
        return None
    last_ms = since_ms if ended_ms is None else ended_ms
    unbeaten_ms = last_ms - unbeaten_since_ms(runs, since_ms)
    needed = labels_needed(runs, champion, settings)
    if needed and labels >= needed and now_ms >= last_ms + SERVED_SHARE * unbeaten_ms:
        return "labels"
    if settings.schedule_s and now_ms >= last_ms + settings.schedule_s * SECOND_MS:
        return "schedule"
    return None


def quiet(quiet_hours: str, now_ms: int) -> bool:
    """Whether ``now_ms`` lies in hours, HH:MM-HH:MM in UTC, that may pass midnight."""
    if not quiet_hours:
        return False
    start, end = (_minutes(text) for text in quiet_hours.split("-"))
    now = now_ms % DAY_MS // 60_000
    return start <= now < end if start <= end else now >= start or now < end


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return 60 * int(hours) + int(minutes)


def change_ms(alert: Alert) -> int | None:
    """Where training may begin, in stream time: where the alert says so, or at its estimated change point; None if it
    names none.

    A change that is dated to a whole second, as the monitor does, happened somewhere within it: training begins after
    it. Rows of the old concept do more harm than rows of the new one left out: 200 of them among 630 cost 15 points of
    accuracy in a stream of 220 rows a second.
    """
    text = (alert.drift.train_from or alert.drift.change_at) if alert.drift else None
    if text is None:
        return None
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        return None
    at_ms = round(at.timestamp() * 1000)
    return at_ms if at_ms % SECOND_MS else at_ms + SECOND_MS
