"""One configuration over a recorded stream: the worker's own monitors, fed with records and stepped as in life."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from streams.alerts import EncodedAlert
from streams.catalog import Catalog
from streams.events import ModelEvent
from streams.joining import murmur2_partition
from streams.monitor import MonitorPartition
from streams.monitor_effects import in_force
from streams.records import Cut, Gap, Take
from streams.replay.plan import Step
from streams.settings import Settings
from streams.store import Command

HOUR_S = 3_600
FOREVER_MS = 1 << 52
"""The end of a step that lasts as long as the stream."""


@dataclass(frozen=True, slots=True)
class SummaryRead:
    """The record at an offset of a partition of ``summaries``."""

    partition: int
    offset: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class CheckpointRead:
    """The record at an offset of a partition of ``checkpoints``."""

    partition: int
    offset: int
    record: Take | Cut | Gap


Read = SummaryRead | CheckpointRead
ModelEvents = Sequence[tuple[int, ModelEvent | None]]
"""Offset and event; None for one that could not be decoded."""


@dataclass(frozen=True, slots=True)
class Course:
    """What every configuration is replayed along.

    ``plans`` has the steps of each partition of ``summaries``; the last one's end is where the replay ends. ``first``
    are the sequences to do without, by partition of ``summaries``; none when the log has its beginning.
    """

    input_partitions: int
    plans: Mapping[int, Sequence[Step]]
    model_events: ModelEvents
    first: Mapping[int, Mapping[tuple[int, str], int]]

    @property
    def first_of_all(self) -> dict[tuple[int, str], int]:
        """``first`` over all partitions: a model has its summaries in one, where its sequence is the lowest."""
        lowest: dict[tuple[int, str], int] = {}
        for sequences in self.first.values():
            for key, sequence in sequences.items():
                lowest[key] = min(sequence, lowest.get(key, sequence))
        return lowest

    @property
    def end_ms(self) -> int:
        """Stream time at the end of the last step; :data:`FOREVER_MS` for the end of the stream."""
        return max((plan[-1].until_ms for plan in self.plans.values() if plan), default=0)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """At the end of a step the live run had published another number of alerts."""

    partition: int
    at_ms: int
    published: int
    replayed: int


class PartitionRun:
    """One partition of the monitor. With ``as_recorded`` the settings of each step are those that its cuts tell.

    ``model``: the only one to watch; None for all.
    """

    def __init__(
        self, partition: int, course: Course, settings: Settings, *, as_recorded: bool, model: str | None = None
    ) -> None:
        self.partition = partition
        self.alerts: list[EncodedAlert] = []
        self.mismatches: list[Mismatch] = []
        self._course = course
        self._settings = settings
        self._as_recorded = as_recorded
        self._model = model
        self._left = list(reversed(course.plans[partition]))
        self._catalog = Catalog()
        self._events_read = 0
        self._stored = _Stored()
        self._monitor = self._made(self._settings_of(self._left[-1]) if self._left else settings)
        if partition in course.first:
            self._monitor.inputs.begin_after(course.first[partition])

    def _settings_of(self, step: Step) -> Settings:
        if not self._as_recorded or step.settings is None:
            return self._settings
        return in_force(self._settings, step.settings)

    def _made(self, settings: Settings) -> MonitorPartition:
        partition, count, only = self.partition, len(self._course.plans), self._model

        def owns(model: str) -> bool:
            return only in (None, model) and murmur2_partition(model.encode(), count) == partition

        return MonitorPartition(partition, self._course.input_partitions, settings, owns, lambda part: part)

    @property
    def is_over(self) -> bool:
        """Whether the last step has been taken."""
        return not self._left

    @property
    def watermark_ms(self) -> int:
        """How far it has come, in stream time."""
        return self._monitor.watermark_ms

    @property
    def waits_for_ms(self) -> int:
        """The end of the step that it is in."""
        return self._left[-1].until_ms if self._left else self.watermark_ms

    def take(self, read: Iterable[Read]) -> None:
        """Take in records; those of other partitions of ``summaries`` are passed over."""
        monitor = self._monitor
        for each in read:
            if isinstance(each, CheckpointRead):
                monitor.inputs.checkpoint(each.partition, each.offset, each.record)
            elif each.partition == self.partition:
                monitor.summary(each.offset, each.value)

    def advance(self) -> None:
        """Let what has been taken in have its effect, a step at a time."""
        while self._left:
            step = self._left[-1]
            monitor = self._monitor
            monitor.advance(self._catalog_at(step.model_events), step.until_ms)
            if monitor.fed_s // HOUR_S != monitor.layout.hour:
                self._close()
            if monitor.watermark_ms < step.until_ms:
                return
            self._left.pop()
            self._close()
            if monitor.alert_sequence != step.alert_sequence:
                self.mismatches.append(
                    Mismatch(self.partition, step.until_ms, step.alert_sequence, monitor.alert_sequence)
                )
            if self._left and self._as_recorded and self._left[-1].settings != step.settings:
                self._begin_again(self._settings_of(self._left[-1]))

    def finish(self) -> None:
        """The stream is over, perhaps in the middle of a step: what has been raised so far counts."""
        if self._left:
            self._close()

    def _catalog_at(self, position: int) -> Catalog:
        events = self._course.model_events
        while self._events_read < len(events) and events[self._events_read][0] < position:
            self._catalog.apply(*events[self._events_read])
            self._events_read += 1
        return self._catalog

    def _close(self) -> None:
        """End a checkpoint: the monitor lets go of what is too old only then."""
        closed = self._monitor.close()
        self._stored.apply(closed.commands, closed.meta)
        self.alerts.extend(each.alert for each in closed.alerts)
        self._monitor.published(closed.alert_sequence)

    def _begin_again(self, settings: Settings) -> None:
        """A worker was started with other settings: it took over what was stored, and what it had read besides."""
        old, self._monitor = self._monitor, self._made(settings)
        hashes = self._monitor.keys()
        self._monitor.load(self._stored.meta, [self._stored.hashes.get(name, {}) for name in hashes])
        self._monitor.inputs, self._monitor.next_summary_offset = old.inputs, old.next_summary_offset


class Run:
    """A configuration by name, over all partitions."""

    def __init__(
        self, name: str, course: Course, settings: Settings, *, as_recorded: bool = False, model: str | None = None
    ) -> None:
        self.name = name
        self.settings = settings
        self.parts = [
            PartitionRun(p, course, settings, as_recorded=as_recorded, model=model) for p in sorted(course.plans)
        ]

    def take(self, read: Sequence[Read]) -> None:
        """Take in records, and let them have their effect."""
        for part in self.parts:
            part.take(read)
            part.advance()

    @property
    def is_over(self) -> bool:
        """Whether every partition has come to the end of its plan."""
        return all(part.is_over for part in self.parts)

    @property
    def alerts(self) -> list[EncodedAlert]:
        """All alerts, in order a partition."""
        return [alert for part in self.parts for alert in part.alerts]


class _Stored:
    """What the store would hold of one partition."""

    def __init__(self) -> None:
        self.hashes: dict[str, dict[bytes, bytes]] = {}
        self.meta: dict[str, bytes] = {}

    def apply(self, commands: Iterable[Command], meta: Mapping[str, str | bytes | int]) -> None:
        for command, key, *rest in commands:
            fields = self.hashes.setdefault(str(key), {})
            items = [_bytes(each) for each in rest]
            if command == "HSET":
                fields.update(zip(items[::2], items[1::2], strict=True))
            elif command == "HDEL":
                for item in items:
                    fields.pop(item, None)
            else:
                raise NotImplementedError(f"a checkpoint of the monitor writes {command!r}")
        self.meta = {name: _bytes(value) for name, value in meta.items()}


def _bytes(value: str | bytes | float) -> bytes:
    if isinstance(value, int | float):
        return repr(value).encode()
    return value.encode() if isinstance(value, str) else value


Progress = Callable[[float], None]
"""Told the share of the stream that is done, from 0 to 1."""


def replay(course: Course, chunks: Iterable[Sequence[Read]], runs: Sequence[Run], progress: Progress) -> None:
    """Feed a stream to every run until all are over, or the stream is."""
    began_ms = 0
    for run in runs:
        run.take([])
    for chunk in chunks:
        for run in runs:
            run.take(chunk)
        at_ms = min((part.watermark_ms for run in runs for part in run.parts), default=0)
        began_ms = began_ms or at_ms
        if FOREVER_MS > course.end_ms > began_ms:
            progress(min(1.0, max(0.0, (at_ms - began_ms) / (course.end_ms - began_ms))))
        if all(run.is_over for run in runs):
            return
    for run in runs:
        for part in run.parts:
            part.finish()
