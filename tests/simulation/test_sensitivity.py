"""The simulation sees a protocol that is broken: each rule of it, left out, is found at some call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest

from streams import stored
from streams.joining import JoinStage
from streams.log import Publisher
from streams.models import ModelEvents
from streams.monitor import MonitorPartition
from streams.monitoring import MonitorStage
from streams.ownership import Ownership
from streams.partition import InputPartition
from streams.records import MonitorCut, Take
from streams.store import Owned, StateStore, _summed
from tests.simulation.case import Case
from tests.simulation.connection import broken_connections
from tests.simulation.crash import crashes
from tests.simulation.takeover import abandoned_takeovers, takeovers
from tests.simulation.verdict import Finished
from tests.simulation.world import World

pytestmark = pytest.mark.timeout(1_800)  # hundreds of runs each, on a machine that may be busy with others

Patch = pytest.MonkeyPatch
Break = Callable[[Patch], None]


def is_noticed(cases: Iterable[Case]) -> bool:
    """Whether one of the cases is wrong; the first one is enough."""
    return any(case.problems for case in cases)


def forget_the_outbox(patch: Patch) -> None:
    load = stored.load

    def without(part: InputPartition, raw: list[Any]) -> list[stored.OutboxEntry]:
        load(part, raw)
        return []

    patch.setattr(stored, "load", without)


def publish_before_writing(patch: Patch) -> None:
    commit = StateStore.commit
    publish = JoinStage._publish

    def early(stage: JoinStage, part: InputPartition, closed: Any) -> None:
        publish(stage, part, closed.cut, closed.summaries)
        stage._publisher.flush()
        commit(stage._store, part.owned, closed.commands, closed.meta)

    patch.setattr(JoinStage, "_commit", early)


def label_after_writing(patch: Patch) -> None:
    """Labelled pairs and dead letters go out with the cut, not before the write."""
    flush = JoinStage.checkpoint

    def late(stage: JoinStage, *, always: bool = False) -> None:
        publisher: Publisher = stage._publisher
        held: list[tuple[Any, ...]] = []
        send = publisher.send

        def hold(topic: str, *arguments: Any, **named: Any) -> None:
            if topic in ("labelled", "dead-letters"):
                held.append((topic, *arguments, named))
            else:
                send(topic, *arguments, **named)

        stage._publisher = _Sends(publisher, hold)
        flush(stage, always=always)
        stage._publisher = publisher
        for topic, *arguments, named in held:
            send(topic, *arguments, **named)
        publisher.flush()

    patch.setattr(JoinStage, "checkpoint", late)


class _Sends:
    """A publisher whose ``send`` is another."""

    def __init__(self, publisher: Publisher, send: Callable[..., None]) -> None:
        self.send = send
        self.flush = publisher.flush


def clear_the_outbox_unacknowledged(patch: Patch) -> None:
    checkpoint = stored.checkpoint

    def hasty(part: InputPartition, effects: Any, pairs: Any, cut: Any, summaries: Any) -> Any:
        commands, meta = checkpoint(part, effects, pairs, cut, summaries)
        return [command for command in commands if command[1] != part.owned.name("outbox")], meta

    patch.setattr(stored, "checkpoint", hasty)


def forget_the_alerts(patch: Patch) -> None:
    load = MonitorPartition.load

    def without(part: MonitorPartition, meta: Mapping[str, bytes], hashes: Sequence[Any]) -> list[Any]:
        load(part, meta, hashes)
        return []

    patch.setattr(MonitorPartition, "load", without)


def forget_the_monitors_cut(patch: Patch) -> None:
    send = MonitorStage._send_cut

    def only_ours(stage: MonitorStage, owned: Owned, cut: MonitorCut) -> None:
        if cut.epoch == owned.epoch:
            send(stage, owned, cut)

    patch.setattr(MonitorStage, "_send_cut", only_ours)


def write_blindly(patch: Patch) -> None:
    """No fence: whoever writes last wins."""

    def blind(store: StateStore, owned: Owned, commands: Any, meta: Mapping[str, Any], nonce: str) -> None:
        pipe: Any
        with store.client.pipeline() as pipe:
            for command in commands:
                pipe.execute_command(*command)
            pipe.hset(owned.name("meta"), mapping=_summed(meta, owned.number + 1, nonce))
            pipe.execute()

    patch.setattr(StateStore, "_commit_once", blind)


def take_unannounced(patch: Patch) -> None:
    patch.setattr(Ownership, "_announce", lambda _, takes: {take.partition: 1 << 62 for take in takes})


def announce_before_taking(patch: Patch) -> None:
    take_one = Ownership._take_one

    def early(ownership: Ownership[Any], partition: int, known: int) -> Any:
        epoch = max(ownership._store.stored_epoch(ownership._stage, partition), known) + 1
        ownership._announce([Take(partition, epoch, "early", "early")])
        return take_one(ownership, partition, known)

    patch.setattr(Ownership, "_take_one", early)


def know_only_old_models(patch: Patch) -> None:
    start = ModelEvents.start

    def never_again(models: ModelEvents) -> None:
        start(models)
        models.catch_up = lambda: None  # type: ignore[method-assign]  # that is what is broken

    patch.setattr(ModelEvents, "start", never_again)


class Unrecognised(str):
    """A nonce that is found nowhere, itself not even where it was written."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


def retry_as_another(patch: Patch) -> None:
    """A retry does not recognise its write, neither from call to call nor within one."""
    once = StateStore._commit_once

    def renamed(store: StateStore, owned: Owned, commands: Any, meta: Any, nonce: str) -> None:
        once(store, owned, commands, meta, Unrecognised(nonce))

    patch.setattr(StateStore, "_commit_once", renamed)


AT_A_CRASH: list[Break] = [
    forget_the_outbox,
    publish_before_writing,
    label_after_writing,
    clear_the_outbox_unacknowledged,
    forget_the_alerts,
    forget_the_monitors_cut,
]
AT_A_TAKEOVER: list[Break] = [write_blindly, take_unannounced, know_only_old_models]


@pytest.mark.parametrize("broken", AT_A_CRASH)
def test_a_crash_shows_it(broken: Break, short_run: Finished, monkeypatch: Patch) -> None:
    """Something would be lost, or told twice in two ways."""
    broken(monkeypatch)
    assert is_noticed(crashes(World(short_run.world.acts), "in order", short_run.findings))


@pytest.mark.parametrize("broken", AT_A_TAKEOVER)
def test_a_takeover_shows_it(broken: Break, short_run: Finished, monkeypatch: Patch) -> None:
    """Two owners would both be believed, or the new one would know too little."""
    broken(monkeypatch)
    assert is_noticed(takeovers(short_run.world.acts, None, 1, "in order", short_run.findings))


def test_a_takeover_that_dies_shows_it(short_run: Finished, monkeypatch: Patch) -> None:
    """An owner that announces itself first leaves the last one writing what no reader counts."""
    announce_before_taking(monkeypatch)
    assert is_noticed(abandoned_takeovers(short_run.world.acts, short_run.findings))


def test_a_lost_answer_shows_it(short_run: Finished, monkeypatch: Patch) -> None:
    """A worker would take its own write for another's."""
    retry_as_another(monkeypatch)
    assert is_noticed(broken_connections(short_run.world.acts, None, short_run.findings))
