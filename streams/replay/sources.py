"""Where a replayed stream comes from: the summaries, the inputs joined again, or a table; each compared as asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from streams.errors import MissingInput
from streams.events import ModelEvent, ModelState, rfc3339
from streams.joining import effect_settings
from streams.kafka import KafkaLog
from streams.log import Log
from streams.replay.compare import Compared, Policy, compare
from streams.replay.history import read_history, read_model_events, recorded
from streams.replay.joined import Joined, inputs, joined
from streams.replay.plan import Step
from streams.replay.run import FOREVER_MS, Course, ModelEvents, Progress
from streams.replay.score import Drift
from streams.replay.table import MARGIN_MS, Table
from streams.settings import Settings
from streams.topics import Topics

Say = Callable[[str], None]
ALL_EVENTS = 1 << 62


@dataclass(frozen=True, slots=True)
class Question:
    """What is compared, and by what."""

    policies: Sequence[Policy]
    drifts: Sequence[Drift] = field(default=())
    cost_per_error: float | None = None
    model: str | None = None


def of_summaries(
    settings: Settings, question: Question, say: Say, progress: Progress, broker: Log | None = None
) -> Compared:
    """From what the join has learnt: the fast way, for settings of the monitor.

    Raises what :func:`streams.replay.history.read_history` and :func:`streams.replay.compare.compare` raise.
    """
    broker, topics = broker or KafkaLog(settings.kafka), Topics(settings.kafka.topic_prefix)
    history = read_history(broker, topics, say)
    say("replaying")
    limits = []
    if history.begins_ms:
        limits.append(
            f"the topics begin at {rfc3339(history.begins_ms)}: baselines that were learnt before are learnt again"
        )
    return compare(
        topics.summaries,
        history.course,
        recorded(broker, topics, question.model),
        question.policies,
        question.drifts,
        question.cost_per_error,
        question.model,
        limits,
        progress,
    )


def of_inputs(
    settings: Settings, question: Question, say: Say, progress: Progress, broker: Log | None = None
) -> Compared:
    """From predictions and outcomes: joined again, once for each setting of the join among the policies.

    Promotions take effect where the live monitor's cuts say, if there are any. Raises :class:`MissingInput` for empty
    inputs, :class:`streams.errors.Unavailable` without a broker or a topic.
    """
    broker, topics = broker or KafkaLog(settings.kafka), Topics(settings.kafka.topic_prefix)
    limits = ["models are joined by the task and classes that they have now"]
    until_ms = 0
    try:
        course = read_history(broker, topics, say).course
        until_ms = course.end_ms
    except MissingInput:
        with closing(broker.reader(topics.summaries)) as summaries:
            course = _open(len(summaries.partitions), read_model_events(broker, topics))
        limits.append("no live run is known: promotions count from the beginning")
    with closing(broker.reader(topics.predictions)) as reader:
        course = Course(len(reader.partitions), course.plans, course.model_events, {})
        if any(reader.next.values()):
            limits.append("the oldest predictions are gone: baselines that were learnt from them are learnt again")
    grouped: dict[bytes, list[Policy]] = {}
    for policy in question.policies:
        grouped.setdefault(msgspec.json.encode(effect_settings(policy.settings)), []).append(policy)
    found: list[Compared] = []
    for number, group in enumerate(grouped.values(), 1):
        say(f"joining and replaying ({number} of {len(grouped)})" if len(grouped) > 1 else "joining and replaying")
        joins = Joined(
            group[0].settings, course.input_partitions, len(course.plans), course.model_events, question.model
        )
        found.append(
            compare(
                f"{topics.predictions} and {topics.outcomes}",
                course,
                joined(joins, inputs(broker, topics, joins), until_ms=until_ms),
                group,
                question.drifts,
                question.cost_per_error,
                question.model,
                limits,
                progress,
            )
        )
    return _together(found, question.policies)


def of_table(settings: Settings, file: Path, rate: float, question: Question, say: Say, progress: Progress) -> Compared:
    """From a CSV file, without a broker. ``rate``: rows a second where it has no times.

    Raises what :class:`streams.replay.table.Table` and :func:`streams.replay.compare.compare` raise.
    """
    events = _declared(settings)
    grouped: dict[bytes, list[Policy]] = {}
    for policy in question.policies:
        grouped.setdefault(msgspec.json.encode(effect_settings(policy.settings)), []).append(policy)
    found: list[Compared] = []
    for group in grouped.values():
        say(f"replaying {file.name}")
        table = Table(file, rate)
        joins = Joined(group[0].settings, 1, 1, events, question.model)
        joins.start(0, 0, 0)
        joins.start(1, 0, 0)
        found.append(
            compare(
                str(file),
                _open(1, events, inputs_count=1),
                joined(joins, table.records(progress), margin_ms=MARGIN_MS),
                group,
                question.drifts,
                question.cost_per_error,
                question.model,
                [],
                progress,
            )
        )
    return _together(found, question.policies)


def _open(partitions: int, events: ModelEvents, inputs_count: int = 1) -> Course:
    """The course of a stream of which nothing is known but its models."""
    return Course(inputs_count, {p: [Step(FOREVER_MS, ALL_EVENTS, None, 0)] for p in range(partitions)}, events, {})


def _declared(settings: Settings) -> ModelEvents:
    """What the settings declare of models, as a worker registers it when it starts."""
    states = [
        ModelState(name, 0, each.task, each.classes, each.positive, mode="observe")
        for name, each in settings.models.items()
        if each.task is not None
    ]
    return [(offset, ModelEvent("registered", state)) for offset, state in enumerate(states)]


def _together(found: Sequence[Compared], policies: Sequence[Policy]) -> Compared:
    """One comparison of several; its stream is that of the first."""
    first = found[0]
    scores = {score.policy: score for each in found for score in each.report.policies}
    report = msgspec.structs.replace(first.report, policies=[scores[policy.name] for policy in policies])
    return Compared(report, first.outcomes, first.stream_s)
