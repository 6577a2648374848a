"""Replays a live run as it was and compares what comes out with what was published."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

from streams.events import rfc3339
from streams.log import Log, Reader
from streams.replay.check import CheckReport, Published, compare
from streams.replay.history import read_history, recorded
from streams.replay.run import Progress, Run, replay
from streams.settings import Settings
from streams.topics import Topics


def verify(
    settings: Settings, broker: Log, say: Callable[[str], None] = lambda _: None, progress: Progress = lambda _: None
) -> CheckReport:
    """Replay the live run up to its newest cuts, under the settings that those record, and compare the alerts.

    ``settings`` say where the topics are, and stand in where no cut records any. Blocking. ``say`` is told what is
    done, ``progress`` how much of the replay. Raises what :func:`streams.replay.history.read_history` raises.
    """
    topics = Topics(settings.kafka.topic_prefix)
    say("reading the alerts")
    with closing(broker.reader(topics.alerts)) as alerts:
        first = _published(alerts, Published())  # before the cuts: every alert read has its cut then
        history = read_history(broker, topics, say)
        say("replaying")
        run = Run("as recorded", history.course, settings, as_recorded=True)
        replay(history.course, recorded(broker, topics), [run], progress)
        now = _published(alerts, Published(first))
    mismatches = [each for part in run.parts for each in part.mismatches]
    differences, compacted, earlier, notes = compare(run.alerts, first, now, mismatches, history.begins_ms)
    short = [part for part in run.parts if not part.is_over]
    notes = [
        f"partition {part.partition}: the log has what is needed up to {rfc3339(part.watermark_ms)} only, and the "
        f"monitor's cuts reach to {rfc3339(part.waits_for_ms)}"
        for part in short
    ] + notes
    explained = _explained(history.begins_ms, history.tells_settings)
    return CheckReport(
        identical=not (differences or mismatches or short or now.repeated),
        replayed=len(run.alerts),
        published=len(first.by_id),
        compacted=compacted,
        earlier=earlier,
        steps=sum(len(plan) for plan in history.course.plans.values()),
        until=rfc3339(history.course.end_ms),
        differences=differences,
        notes=notes,
        limits=explained,
    )


def _published(reader: Reader, into: Published) -> Published:
    for record in reader.read_to_end():
        into.add(record)
    return into


def _explained(begins_ms: int, tells_settings: bool) -> list[str]:
    """What the topics do not have any more, and which differences may come of it."""
    limits = []
    if begins_ms:
        limits.append(
            f"the topics begin at {rfc3339(begins_ms)}: what was learnt before is not known (baselines, detectors, "
            "windows of up to 30 days), so alerts may differ until each version is promoted or replaced after that"
        )
    if not tells_settings:
        limits.append("no cut records the settings of the live run: those of this command are taken for them")
    return limits
