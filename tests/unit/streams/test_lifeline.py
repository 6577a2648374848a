"""A client can be cut off a store that does not answer, from another thread and for good."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import redis

from streams.errors import RestartMe
from streams.settings import RedisSettings
from streams.store import StateStore
from streams.store_client import Lifeline, connect
from tests.support.driftline import BOUND_S
from tests.support.memory.redis import MemoryRedis, client_of
from tests.support.memory.wire import AnswerLost, Moment, Wire


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server whose connections come to life and that never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_whoever_waits_fails_at_once_and_nobody_connects_again(silent: socket.socket) -> None:
    """The wait would last much longer than this test; a second one, with a new connection, does not even begin."""
    lifeline, failed = Lifeline(), list[BaseException]()
    client = connect(RedisSettings(url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0"), lifeline=lifeline)
    client.connection_pool.connection_kwargs["socket_timeout"] = 10 * BOUND_S

    def ask() -> None:
        try:
            client.get("anything")
        except redis.ConnectionError as error:
            failed.append(error)

    waiting = threading.Thread(target=ask, daemon=True)
    waiting.start()
    accepted, _ = silent.accept()
    with accepted:
        assert accepted.recv(1), "it has asked"
        lifeline.cut()
        waiting.join(BOUND_S)
        assert len(failed) == 1
        with pytest.raises(redis.ConnectionError, match="given up"):
            client.get("anything")
    client.close()


def test_a_connection_that_breaks_under_a_watch_is_no_change_of_what_is_watched() -> None:
    """redis-py tells both alike; taken for a change, the store would be asked again and again by one that stops."""
    broken: list[str] = []

    def meet(moment: Moment) -> None:
        if moment.name.startswith("HMGET"):
            broken.append(moment.name)
            raise AnswerLost

    store = StateStore(client_of(MemoryRedis(), Wire(meet)), "d", lambda: bool(broken))
    owned = store.take("join", 0, 1, "a")
    with pytest.raises(RestartMe, match="did not answer while stopping"):
        store.commit(owned, [], {})
    with pytest.raises(RestartMe, match="did not answer while stopping"):
        store.replace(owned, [], {}, 5)
    assert len(broken) == 2


def test_a_take_whose_connection_breaks_is_given_up_too() -> None:
    """Of a worker that stops while it takes partitions."""
    broken: list[str] = []

    def meet(moment: Moment) -> None:
        if moment.name.startswith("HGETALL"):
            broken.append(moment.name)
            raise AnswerLost

    store = StateStore(client_of(MemoryRedis(), Wire(meet)), "d", lambda: bool(broken))
    with pytest.raises(RestartMe, match="did not answer while stopping"):
        store.take("join", 0, 1, "a")
    assert len(broken) == 1
