"""What producers write in the simulation: two models, and one of every odd event, over some minutes of stream time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from streams.joining import murmur2_partition
from tests.support.model_join import Declared

PARTITIONS = 2
START_MS = 1_700_000_040_000
"""A full minute."""
MINUTE_MS = 60_000
MODELS = {"fraud": Declared("binary", (0, 1)), "price": Declared("regression")}
"""``fraud`` is registered with a baseline before anything is read; nobody declares ``price``."""


@dataclass(frozen=True, slots=True)
class Written:
    """One record of an input topic before the broker has it. ``side``: 0 for predictions, 1 for outcomes."""

    side: int
    partition: int
    at_ms: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Act:
    """Records that producers have written by ``clock_ms``, and the stream time that the workers are to reach then."""

    clock_ms: int
    records: list[Written]


@dataclass
class _Script:
    """Collects what is written in one act."""

    records: list[Written] = field(default_factory=list)

    def raw(self, side: int, at_s: float, id: str, value: bytes | None) -> None:
        key = id.encode()
        at_ms = START_MS + int(at_s * 1000)
        self.records.append(Written(side, murmur2_partition(key, PARTITIONS), at_ms, key, value))

    def prediction(self, at_s: float, id: str, model: str, said: Any, **more: Any) -> None:
        value = {"prediction_id": id, "model": model, "version": "1", "prediction": said, **more}
        self.raw(0, at_s, id, json.dumps(value).encode())

    def outcome(self, at_s: float, id: str, was: Any, **more: Any) -> None:
        self.raw(1, at_s, id, json.dumps({"prediction_id": id, "outcome": was, **more}).encode())

    def act(self, clock_s: float) -> Act:
        return Act(START_MS + int(clock_s * 1000), sorted(self.records, key=lambda each: (each.side, each.at_ms)))


def short() -> Iterator[Act]:
    """The model is right, then wrong, and an alert fires; one of the odd events each, and silence."""
    script = _Script()
    for number in range(14):
        script.prediction(1.0 + 2 * number, f"f{number}", "fraud", number % 2)
        script.outcome(4.0 + 2 * number + number % 3, f"f{number}", number % 2)
    for number in range(3):
        script.prediction(4.5 + 9 * number, f"p{number}", "price", 100.5 + number)
        script.outcome(20 + 3 * number, f"p{number}", 100.0 + number)
    script.prediction(26, "f3", "fraud", 1)
    script.prediction(27, "never", "fraud", 1)
    script.outcome(28, "nobody", 1)
    script.raw(0, 29, "poison", b"\xff{")
    yield script.act(60)

    script = _Script()
    for number in range(14, 26):
        script.prediction(180.0 + number, f"f{number}", "fraud", number % 2)
        script.outcome(183.0 + number, f"f{number}", 1 - number % 2)
    script.outcome(190, "f2", 1)  # a correction
    yield script.act(300)

    yield _Script().act(1_000)


def long() -> Iterator[Act]:
    """Good times, the model gets worse, a detector and a rule say so, it recovers; every odd event, and silence."""
    script = _Script()
    for number in range(40):
        at = 1.0 + 2 * number
        script.prediction(at, f"f{number}", "fraud", number % 2)
        script.outcome(at + 5 + number % 7, f"f{number}", number % 2)
    for number in range(8):
        script.prediction(4.5 + 9 * number, f"p{number}", "price", 100.5 + number)
        script.outcome(30 + 9 * number, f"p{number}", 100.0 + number)
    script.prediction(20, "f3", "fraud", 1)  # a duplicate of one that waits or is joined
    script.outcome(6, "f9", 1)  # earlier than its prediction
    script.outcome(50, "early-twice", 1)
    script.outcome(51, "early-twice", 0)  # before its prediction, and another value: nobody can tell
    script.prediction(60, "early-twice", "fraud", 1)
    script.outcome(30, "nobody", 1)  # its prediction never comes
    script.prediction(33, "never", "fraud", 1)  # its outcome never comes in time
    script.raw(0, 40, "poison", b"\xff{")
    script.raw(1, 41, "poison", b"[]")
    script.raw(0, 42, "tombstone", None)
    script.prediction(43, "maybe", "fraud", "perhaps")
    script.outcome(70, "f8", 1, model="price")  # of another model, they say
    yield script.act(120)

    script = _Script()
    for number in range(44, 84):
        at = 230.0 + 2 * (number - 44)
        script.prediction(at, f"f{number}", "fraud", number % 2)
        script.outcome(at + 4 + number % 5, f"f{number}", 1 - number % 2)  # all wrong
    script.outcome(240, "f2", 1)  # corrections of pairs, one of them twice
    script.outcome(241, "f36", 1)
    script.outcome(250, "f36", 0)
    script.prediction(242, "f37", "fraud", 1)  # a duplicate of a pair
    script.outcome(255, "p5", 90.0)
    yield script.act(380)

    script = _Script()
    script.outcome(500, "never", 0)  # too late: its prediction expired
    for number in range(84, 98):
        script.prediction(622.0 + number, f"f{number}", "fraud", 1)
        script.outcome(628.0 + number, f"f{number}", 1)
    script.prediction(705, "f5", "fraud", 0)  # an id that comes back after it was forgotten
    script.outcome(715, "f5", 0)
    yield script.act(900)

    yield _Script().act(1_320)


TURN_S = 320
"""In the middle of a minute: what :func:`turning` does to ``fraud``."""


def turning(one_sided: bool) -> Iterator[Act]:
    """Eight predictions a second for two minutes, and again; a tenth are positive, and of those two in five are wrong.

    From :data:`TURN_S` on outcomes of the positives alone come (``one_sided``), or all come and every second negative
    is wrong.
    """
    for begin_s, end_s in ((0, 120), (300, 420)):
        script = _Script()
        for number in range(8 * begin_s, 8 * end_s):
            at, said, name = number / 8, int(number % 10 == 9), f"f{number}"
            turned = at >= TURN_S
            wrong = number // 10 % 5 in (0, 2) if said else turned and not one_sided and number % 2 == 0
            script.prediction(at, name, "fraud", said)
            if said or not (turned and one_sided):
                script.outcome(at + 0.5, name, 1 - said if wrong else said)
        yield script.act(end_s + 1)
    yield _Script().act(900)


DAY_S = 86_400


def daily() -> Iterator[Act]:
    """Five days in which ``fraud`` has six hours of a hundred outcomes each, every second three times as wrong as the
    others; on the fifth, a good hour is wrong in one of three, and version 2 answers from then on.
    """
    for day in range(5):
        script = _Script()
        for number in range(600):
            group, at = number // 100, number % 100
            wrong = at % 50 in ((7, 23, 41) if group % 2 else (7,))
            if day == 4 and group == 2:
                wrong = at % 3 == 0
            at_s = DAY_S * day + 14_400 * group + 18 * at + 1.0
            version = "2" if day == 4 and group > 2 else "1"
            script.prediction(at_s, f"f{day}-{number}", "fraud", number % 2, version=version)
            script.outcome(at_s + 5, f"f{day}-{number}", 1 - number % 2 if wrong else number % 2)
        yield script.act(DAY_S * day + 80_000)
