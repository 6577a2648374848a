"""What the join must have made of a log that nothing of expires, from the topics alone: slow to trust, fast to run.

It knows the same rules as :mod:`tests.support.model_join`, but looks ids up, so that a log of a million records is
checked in seconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from streams.codec import EventDecoder, Undecodable, outcome_decoder, prediction_decoder
from streams.events import Outcome, Prediction, Value
from streams.log import Record
from streams.records import Counters
from tests.support.driftline import Driftline, Pair


@dataclass(slots=True)
class Window:
    """Of one model and version: pairs, how many of them right, and the sum of absolute errors."""

    n: int = 0
    right: int = 0
    absolute: float = 0.0


@dataclass(slots=True)
class Expected:
    """What the log says. ``last_ms`` is the record time of the newest outcome."""

    counters: Counters = field(default_factory=Counters)
    pairs: set[Pair] = field(default_factory=set)
    windows: dict[tuple[str, str], Window] = field(default_factory=lambda: defaultdict(Window))
    unanswered: int = 0
    unmatched: int = 0
    last_ms: int = 0


@dataclass(slots=True)
class _Joined:
    prediction: Prediction
    offset: int
    outcome: Value


def expected(driftline: Driftline) -> Expected:
    """Read both inputs (committed records only) and join them, partition by partition."""
    found = Expected()
    logs: dict[int, list[tuple[int, int, int, Prediction | Outcome | None]]] = defaultdict(list)
    found.last_ms = _take(logs, 0, driftline.read(driftline.topics.predictions), prediction_decoder())
    found.last_ms = _take(logs, 1, driftline.read(driftline.topics.outcomes), outcome_decoder())
    for partition, log in logs.items():
        _join(found, partition, sorted(log, key=lambda entry: entry[:3]))
    return found


def _take(
    logs: dict[int, list[tuple[int, int, int, Prediction | Outcome | None]]],
    side: int,
    records: Iterable[Record],
    decoder: EventDecoder[Prediction] | EventDecoder[Outcome],
) -> int:
    """Add (time, side, offset, event): a time never falls behind that of the record before it → the newest time."""
    latest: dict[int, int] = {}
    for record in records:
        at_ms = latest[record.partition] = max(record.at_ms, latest.get(record.partition, 0))
        try:
            event = decoder.decode_any(record.value)
        except Undecodable:
            event = None
        logs[record.partition].append((at_ms, side, record.offset, event))
    return max(latest.values(), default=0)


def _join(found: Expected, partition: int, log: list[tuple[int, int, int, Prediction | Outcome | None]]) -> None:
    counters = found.counters
    pending: dict[str, tuple[int, Prediction]] = {}
    waiting: dict[str, tuple[int, Value]] = {}
    joined: dict[str, _Joined] = {}

    def pair(offset: int, prediction: Prediction, outcome_offset: int, outcome: Value) -> None:
        counters.joined += 1
        joined[prediction.prediction_id] = _Joined(prediction, offset, outcome)
        found.pairs.add((partition, offset, outcome_offset, prediction.model, str(prediction.version), outcome))
        _count(found, prediction, outcome, 1)

    for _, _, offset, event in log:
        if isinstance(event, Prediction):
            identity = event.prediction_id
            counters.predictions += 1
            if identity in pending or identity in joined:
                counters.duplicates += 1
            elif identity in waiting:
                pair(offset, event, *waiting.pop(identity))
            else:
                pending[identity] = offset, event
        elif isinstance(event, Outcome):
            identity = event.prediction_id
            counters.outcomes += 1
            if identity in pending:
                pair(*pending.pop(identity), offset, event.outcome)
            elif (known := joined.get(identity)) is not None:
                counters.corrections += 1
                if known.outcome != event.outcome:
                    _count(found, known.prediction, known.outcome, -1)
                    _count(found, known.prediction, event.outcome, 1)
                    known.outcome = event.outcome
                    model, version = known.prediction.model, str(known.prediction.version)
                    found.pairs.add((partition, known.offset, offset, model, version, event.outcome))
            elif identity not in waiting:
                waiting[identity] = offset, event.outcome
            elif waiting[identity][1] == event.outcome:
                counters.corrections += 1
            else:
                counters.dead_outcomes += 1
    garbage = [side for _, side, _, event in log if event is None]
    counters.predictions += garbage.count(0)
    counters.dead_predictions += garbage.count(0)
    counters.outcomes += garbage.count(1)
    counters.dead_outcomes += garbage.count(1)
    found.unanswered += len(pending)
    found.unmatched += len(waiting)


def _count(found: Expected, prediction: Prediction, outcome: Value, n: int) -> None:
    window = found.windows[prediction.model, str(prediction.version)]
    window.n += n
    if isinstance(prediction.prediction, float):
        window.absolute += n * abs(prediction.prediction - float(outcome))
    else:
        window.right += n * (prediction.prediction == outcome)


def differences(found: Counters, wanted: Counters) -> dict[str, tuple[int, int]]:
    """Counters that are not as they must be: name → (found, wanted)."""
    names = Counters.__struct_fields__
    both = msgspec.structs.asdict(found), msgspec.structs.asdict(wanted)
    return {name: (both[0][name], both[1][name]) for name in names if both[0][name] != both[1][name]}
