"""A change is made and then told: what a failure left untold is told by whoever comes next, and once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from retrain import announce, consumer
from retrain.administration import Administration
from retrain.announce import KafkaAnnouncer, Untold
from retrain.labels import LabelCounts
from retrain.metrics import RetrainMetrics
from streams.codec import encode, headers
from streams.errors import Unavailable, WrongSetting
from streams.events import MODEL_EVENT_TYPE, ModelEvent, ModelState
from streams.log import Record
from streams.settings import Settings
from tests.unit.retrain.loop import Loop, new_loop
from tests.unit.retrain.rows import MemoryFeed, UnreachableAnnouncer
from tests.unit.retrain.test_administration import again


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A repository with the versions 1 and 2 of `loans`, of which 2 serves."""
    made = new_loop(tmp_path)
    again(made)
    made.administration.promote("loans", 2)
    return made


def unheard(loop: Loop) -> Administration:
    """Somebody whose broker is away."""
    return Administration(loop.repository, UnreachableAnnouncer(loop.announcer), lambda: loop.now_ms)


def repeating(loop: Loop, said: list[str]) -> Administration:
    """Somebody who tries again once the broker is back, and reads what is said."""
    return Administration(loop.repository, loop.announcer, lambda: loop.now_ms, say=said.append)


@pytest.mark.parametrize("to", [None, 1])
def test_a_rollback_that_was_not_told_is_told_when_it_is_asked_for_again(loop: Loop, to: int | None) -> None:
    """It was made and nobody knows: the repetition tells it and says so; the one after that has nothing to do."""
    with pytest.raises(Unavailable):
        unheard(loop).rollback("loans")
    said: list[str] = []
    assert repeating(loop, said).rollback("loans", to).aliases == {"champion": "1"}
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.state) == ("rolledback", "2", loop.state)
    assert said == ["revision 4 of loans had not been published: it is now"]
    events = len(loop.announcer.events)
    with pytest.raises(WrongSetting, match="serves already" if to else "no previous version"):
        repeating(loop, said).rollback("loans", to)
    assert (len(loop.announcer.events), len(said)) == (events, 1)


def test_an_untold_change_of_another_kind_is_told_and_is_no_rollback(loop: Loop) -> None:
    """Who asks for a rollback learns that there was none, whatever else is told by the way."""
    loop.administration.rollback("loans")
    with pytest.raises(Unavailable):
        unheard(loop).freeze("loans", True)
    with pytest.raises(WrongSetting, match="no previous version"):
        loop.administration.rollback("loans")
    assert loop.announcer.last_states()["loans"] == loop.state


@pytest.mark.parametrize("act", ["approve", "reject"])
def test_an_answer_that_was_not_told_is_told_when_it_is_given_again(tmp_path: Path, act: str) -> None:
    """The challenger is gone from the repository, and everybody else still waits."""
    loop = new_loop(tmp_path, "recommend")
    loop.live(changed=True)
    loop.finish(loop.alerted())
    with pytest.raises(Unavailable):
        getattr(unheard(loop), act)("loans")
    said: list[str] = []
    assert getattr(repeating(loop, said), act)("loans") == loop.state
    assert loop.announcer.last_states()["loans"] == loop.state
    assert len(said) == 1
    with pytest.raises(WrongSetting, match="no challenger"):
        getattr(repeating(loop, said), act)("loans")


def test_what_stays_untold_is_told_at_the_second_look(loop: Loop) -> None:
    """A change that its own process is about to publish is left to that process; what was told is told once."""
    untold = Untold(loop.repository, loop.announcer)
    assert [untold.look("t0"), untold.look("t1")] == [[], []]
    with pytest.raises(Unavailable):
        unheard(loop).rollback("loans")
    assert [untold.look(f"t{i}") for i in range(2, 6)] == [[], ["loans"], [], []]
    assert loop.announcer.last_states()["loans"] == loop.state
    assert loop.announcer.kinds.count("rolledback") == 1


def test_the_topic_is_read_only_when_a_state_may_be_untold(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each minute of a quiet year costs a look at the repository."""
    reads = 0
    last_states = loop.announcer.last_states

    def counted() -> dict[str, ModelState]:
        nonlocal reads
        reads += 1
        return last_states()

    monkeypatch.setattr(loop.announcer, "last_states", counted)
    untold = Untold(loop.repository, loop.announcer)
    for minute in range(5):
        untold.look(f"t{minute}")
    assert reads == 1
    loop.administration.set_mode("loans", "approve")
    for minute in range(5, 9):
        untold.look(f"t{minute}")
    assert reads == 2


class QuietAlerts:
    """A consumer of alerts that has none, and ends the loop after some polls."""

    def __init__(self, stop: threading.Event, polls: int) -> None:
        self._stop, self._left = stop, polls

    def poll(self, timeout_s: float) -> None:
        self._left -= 1
        if not self._left:
            self._stop.set()


class NoRuns:
    """No run is under way here."""

    def reap(self) -> bool:
        return False

    def renew(self) -> None: ...

    def start(self, runs: object) -> None: ...

    def watch(self, runs: object) -> None: ...


def turn(loop: Loop, announcer: Any, polls: int = 4) -> None:
    """The retrainer's loop, so many times around."""
    stop = threading.Event()
    alerts: Any = QuietAlerts(stop, polls)
    active: Any = NoRuns()
    retrainer = loop.retrainer(announcer=announcer)
    consumer._loop(stop, alerts, retrainer, active, RetrainMetrics(), MemoryFeed([]), LabelCounts())


def test_a_running_retrainer_tells_what_a_command_could_not(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only one that starts; and a broker that is away again does not end it."""
    monkeypatch.setattr(consumer, "TELL_S", 0.0)
    with pytest.raises(Unavailable):
        unheard(loop).rollback("loans")
    turn(loop, UnreachableAnnouncer(loop.announcer))
    assert loop.announcer.last_states()["loans"] != loop.state
    turn(loop, loop.announcer)
    assert loop.announcer.last_states()["loans"] == loop.state
    assert loop.announcer.kinds.count("rolledback") == 1


class FakeReader:
    """A topic's reader over a list that grows; what was read once does not come again."""

    records: ClassVar[list[Record]]
    opened = 0
    fails = False

    def __init__(self, settings: object, topic: str) -> None:
        type(self).opened += 1
        self._next = 0

    def read_to_end(self) -> Iterator[Record]:
        while self._next < len(self.records):
            self._next += 1
            yield self.records[self._next - 1]
            if self.fails:
                raise Unavailable("no broker", "")

    def close(self) -> None:
        self._next = -1


def test_the_topic_is_read_on_from_where_it_was_read_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history is read once; after a failure anew, because what the failed read had got may be lost."""

    class Reader(FakeReader):
        records: ClassVar[list[Record]] = []

    def tell(revision: int) -> None:
        event = ModelEvent("registered", state=ModelState("loans", revision=revision, task="binary"))
        kind = headers(MODEL_EVENT_TYPE.format(what="registered"), "test", str(revision))
        Reader.records.append(Record("model-events", 0, len(Reader.records), 0, b"loans", encode(event), kind))

    monkeypatch.setattr(announce, "TopicReader", Reader)
    announcer = KafkaAnnouncer(Settings())
    for revision in (1, 2):
        tell(revision)
        assert announcer.last_states()["loans"].revision == revision
    assert Reader.opened == 1
    tell(3)
    tell(4)
    Reader.fails = True
    with pytest.raises(Unavailable):
        announcer.last_states()
    Reader.fails = False
    assert announcer.last_states()["loans"].revision == 4
    assert Reader.opened == 2
    announcer.close()
