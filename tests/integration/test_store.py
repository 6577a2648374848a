"""The contract of the state store against a real Redis, and what only a killed or paused one shows."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from streams.settings import RedisSettings
from streams.store import StateStore, connect
from tests.contract.test_store_contract import StoreContract
from tests.support.redis import RedisServer


class TestRedis(StoreContract):
    """The session's Redis."""

    @pytest.fixture
    def store_url(self, redis_store: RedisServer) -> str:
        return redis_store.url


def test_a_checkpoint_waits_for_a_store_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """It is applied exactly once, whether the crash fell before or after it."""
    # Not "everysec": while a slow disk syncs, the file gets nothing for up to two seconds, and a kill loses as much.
    with RedisServer(tmp_path, options={"appendfsync": "always"}) as server:
        refused = threading.Event()

        def noticed() -> bool:
            refused.set()
            return False

        client = connect(RedisSettings(url=server.url))
        store = StateStore(client, "d", noticed)
        owned = store.take("join", 0, 1, "a")
        store.commit(owned, [("RPUSH", owned.name("log"), "one")], {"offset": 1})
        server.kill()
        writer = threading.Thread(
            target=store.commit, args=(owned, [("RPUSH", owned.name("log"), "two")], {"offset": 2})
        )
        writer.start()
        assert refused.wait(60)
        server.start()
        writer.join(60)
        assert not writer.is_alive()
        assert owned.number == 2
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[b"one", b"two"]]
        client.close()
