"""Which alerts start a run: firing ones about accuracy, of the version that serves."""

from __future__ import annotations

import datetime as dt

from retrain.lifecycle import Run, episode_key
from streams.events import Alert, ModelState

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
    """The estimated change point in stream time, epoch milliseconds; None if the alert names none that can be read."""
    text = alert.drift.change_at if alert.drift else None
    if text is None:
        return None
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return int(at.timestamp() * 1000) if at.tzinfo else None
