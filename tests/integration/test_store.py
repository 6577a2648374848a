"""The contract of the state store against a real Redis, and what only a killed or paused one shows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.errors import AccessDenied, RestartMe
from streams.settings import RedisSettings
from streams.store import StateStore
from streams.store_client import Lifeline, connect
from tests.contract.test_store_contract import StoreContract
from tests.support.certificates import Authority
from tests.support.driftline import BOUND_S, eventually
from tests.support.redis import RedisServer
from tests.support.secure_redis import ADMIN_PASSWORD, SecureRedisServer


class TestRedis(StoreContract):
    """The session's Redis."""

    @pytest.fixture
    def store_url(self, redis_store: RedisServer) -> str:
        return redis_store.url


@pytest.fixture(scope="module")
def secure_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureRedisServer]:
    folder = tmp_path_factory.mktemp("secure-redis")
    with SecureRedisServer(folder, Authority(folder / "authority")) as server:
        yield server


class TestRedisWithTls(StoreContract):
    """A Redis that answers over TLS only, after a login."""

    @pytest.fixture
    def store_url(self, secure_store: SecureRedisServer) -> str:
        ca = secure_store.authority.ca
        return f"rediss://default:{ADMIN_PASSWORD}@{secure_store.address}/0?ssl_ca_certs={ca}"


def test_a_login_that_is_refused_is_not_waited_for(tmp_path: Path) -> None:
    """A store that comes back without our user ends the wait: it will not pass by itself."""
    with SecureRedisServer(tmp_path, Authority(tmp_path / "authority")) as server:
        ca = server.authority.ca
        client = connect(RedisSettings(url=f"rediss://default:{ADMIN_PASSWORD}@{server.address}/0?ssl_ca_certs={ca}"))
        store = StateStore(client, "d")
        owned = store.take("join", 0, 1, "a")
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "default", "resetpass", ">changed")
        client.connection_pool.disconnect()
        with pytest.raises(AccessDenied, match="refuses to log us in") as refused:
            store.commit(owned, [], {"offset": 1})
        assert ADMIN_PASSWORD not in str(refused.value)
        client.close()


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


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_a_checkpoint_that_waits_for_a_frozen_store_can_be_given_up(tmp_path: Path, encrypted: bool) -> None:
    """Its thread ends long before the socket's own timeout, and nothing else is tried."""
    server = SecureRedisServer(tmp_path / "redis", Authority(tmp_path / "ca")) if encrypted else RedisServer(tmp_path)
    with server:
        url = server.url
        if isinstance(server, SecureRedisServer):
            url = f"rediss://default:{ADMIN_PASSWORD}@{server.address}/0?ssl_ca_certs={server.authority.ca}"
        lifeline, stopping, ended = Lifeline(), threading.Event(), list[BaseException]()
        client = connect(RedisSettings(url=url), lifeline=lifeline)
        client.connection_pool.connection_kwargs["socket_timeout"] = 10 * BOUND_S
        store = StateStore(client, "d", stopping.is_set)
        owned = store.take("join", 0, 1, "a")

        def checkpoint() -> None:
            try:
                store.commit(owned, [("RPUSH", owned.name("log"), "one")], {"offset": 1})
            except RestartMe as error:
                ended.append(error)

        server.pause()
        try:
            waiting = threading.Thread(target=checkpoint, daemon=True)
            waiting.start()
            eventually(lambda: store.waited_s() > 0.2, "it waits")
            stopping.set()
            lifeline.cut()
            waiting.join(BOUND_S)
            assert len(ended) == 1
            with pytest.raises(RestartMe, match="while stopping"):
                store.stored_epoch("join", 0)
        finally:
            server.resume()
        client.close()
