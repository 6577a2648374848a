"""What a live run has left in the topics: the course that it took, the records that it saw, the alerts it published."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import msgspec
import structlog

from streams.codec import Undecodable, model_event_decoder
from streams.errors import MissingInput, StateMismatch
from streams.events import ModelEvent
from streams.log import Log, Reader, Record
from streams.log_beginning import first_sequences, reaches_back
from streams.log_ranges import LookAhead
from streams.monitor import decode_checkpoint
from streams.records import Gap, MonitorCut, Take
from streams.replay.plan import Step, steps
from streams.replay.run import CheckpointRead, Course, Read, SummaryRead
from streams.topics import Topics
from streams.trail import Trail

CHUNK = 2_000
"""Records that are fed before their effect is taken."""

log = structlog.get_logger(__name__)
_monitor_checkpoint = msgspec.json.Decoder(Take | MonitorCut | Gap)


@dataclass(frozen=True, slots=True)
class History:
    """The course of a live run. ``begins_ms`` is the time from which on the topics are whole, 0 for their beginning."""

    course: Course
    begins_ms: int

    @property
    def tells_settings(self) -> bool:
        """Whether the cuts record the settings of every step."""
        return all(step.settings is not None for plan in self.course.plans.values() for step in plan)


def read_history(broker: Log, topics: Topics, progress: Callable[[str], None] = lambda _: None) -> History:
    """The course of the live run, up to its newest cuts.

    Raises :class:`MissingInput` where no monitor has written any, :class:`streams.errors.Unavailable` without a broker
    or a topic, :class:`StateMismatch` for records that no worker wrote.
    """
    progress("reading the monitor's cuts")
    plans = _plans(broker, topics)
    if not any(plans.values()):
        raise MissingInput(
            f"nothing to replay: {topics.monitor_checkpoints} has no cut of a monitor",
            "has a worker run on these topics? check kafka.topic_prefix",
        )
    progress("reading the model events")
    events = read_model_events(broker, topics)
    with closing(broker.reader(topics.checkpoints)) as reader:
        inputs = len(reader.partitions)
    if reaches_back(broker, topics, None):
        return History(Course(inputs, plans, events, {}), 0)
    progress("looking for the beginning of the log")
    first = first_sequences(broker, topics, None)
    return History(Course(inputs, plans, events, first), _begins_ms(broker, topics))


def _plans(broker: Log, topics: Topics) -> dict[int, list[Step]]:
    with closing(broker.reader(topics.monitor_checkpoints)) as reader:
        trails: dict[int, Trail[MonitorCut]] = {p: Trail() for p in reader.partitions}
        cuts: dict[int, list[MonitorCut]] = {p: [] for p in reader.partitions}
        for record in reader.read_to_end():
            try:
                found = _monitor_checkpoint.decode(record.value or b"")
            except msgspec.MsgspecError as error:
                raise StateMismatch(
                    f"the record at offset {record.offset} of {record.topic}-{record.partition} is none: {error}",
                    "only workers may write there",
                ) from None
            if (cut := trails[record.partition].add(record.offset, found)) is not None:
                cuts[record.partition].append(cut)
    return {p: steps(each) for p, each in cuts.items()}


def read_model_events(broker: Log, topics: Topics) -> list[tuple[int, ModelEvent | None]]:
    """Every model event, by its offset; None for one that cannot be decoded."""
    decoder = model_event_decoder()
    events: list[tuple[int, ModelEvent | None]] = []
    with closing(broker.reader(topics.model_events)) as reader:
        for record in reader.read_to_end():
            try:
                event: ModelEvent | None = decoder.decode_any(record.value)
            except Undecodable as error:
                log.error("model_event.ignored", offset=record.offset, reason=error.reason, detail=str(error))
                event = None
            events.append((record.offset, event))
    return events


def _begins_ms(broker: Log, topics: Topics) -> int:
    """The time from which on every partition of the monitor's inputs is still in the log."""
    begins = 0
    for topic in (topics.summaries, topics.checkpoints):
        with closing(broker.reader(topic)) as reader:
            left = set(reader.partitions)
            for record in reader.read_to_end():
                if record.partition in left:
                    left.discard(record.partition)
                    begins = max(begins, record.at_ms)
                if not left:
                    break
    return begins


def recorded(broker: Log, topics: Topics, model: str | None = None) -> Iterator[Sequence[Read]]:
    """Every record of ``summaries`` (of one model, or of all) and ``checkpoints``, in chunks; both topics in step, by
    the records' times."""
    key = None if model is None else model.encode()
    with closing(broker.reader(topics.summaries)) as summaries, closing(broker.reader(topics.checkpoints)) as cuts:
        for records in _merged(summaries, cuts):
            yield [_read(record, topics) for record in records if _counts(record, topics, key)]


def _merged(summaries: Reader, checkpoints: Reader) -> Iterator[list[Record]]:
    told, cuts = LookAhead(summaries), LookAhead(checkpoints)
    chunk: list[Record] = []
    while True:
        summary, cut = told.head(), cuts.head()
        if summary is None and cut is None:
            break
        from_summaries = cut is None or (summary is not None and summary.at_ms <= cut.at_ms)
        chunk.append((told if from_summaries else cuts).take())
        if len(chunk) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _counts(record: Record, topics: Topics, key: bytes | None) -> bool:
    if record.topic == topics.summaries:
        return key is None or record.key == key
    return record.value is not None


def _read(record: Record, topics: Topics) -> Read:
    if record.topic == topics.summaries:
        return SummaryRead(record.partition, record.offset, record.value)
    found = decode_checkpoint(record.partition, record.offset, record.value or b"")
    return CheckpointRead(record.partition, record.offset, found)
