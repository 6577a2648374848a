"""Which alerts start a run: firing ones about accuracy, of the version that serves."""

from __future__ import annotations

import datetime as dt

from retrain.lifecycle import Run, episode_key
from streams.events import Alert, ModelState

SECOND_MS = 1_000
ALERTNAMES = frozenset({"ConceptDriftDetected", "ModelAccuracyDropped"})


def concerns(alert: Alert) -> bool:
    """Whether the alert may call for a new version at all."""
    return alert.status == "firing" and alert.labels.get("alertname") in ALERTNAMES and "model" in alert.labels


def run_of(alert: Alert, state: ModelState | None, now_ms: int) -> Run | str:
    """The run that the alert starts, or why it starts none."""
    if state is None:
        return "the model is not in the repository"
    champion = state.aliases.get("champion")
    if champion is None:
        return "the model has no champion"
    if state.mode == "observe":
        return "the mode is observe"
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


def change_ms(alert: Alert) -> int | None:
    """Where training may begin: the estimated change point in stream time; None if the alert names none.

    A change that is dated to a whole second, as the monitor does, happened somewhere within it: training begins after
    it. Rows of the old concept do more harm than rows of the new one left out: 200 of them among 630 cost 15 points of
    accuracy in a stream of 220 rows a second.
    """
    text = alert.drift.change_at if alert.drift else None
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
