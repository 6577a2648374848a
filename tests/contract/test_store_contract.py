"""What the state store promises, run in memory and on the embedded server; on Redis in the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from stack.store import EmbeddedStore
from streams.errors import RestartMe, StateMismatch, Unavailable, WrongSetting
from streams.seal import Damaged
from streams.settings import RedisSettings
from streams.store import FORMAT, Command, EpochTaken, Fenced, StateStore, StoreLost
from streams.store_client import Lifeline, connect, require_durable
from tests.support.memory.redis import MemoryRedis, client_of


def put_back(client: redis.Redis, key: str, fields: Mapping[Any, Any]) -> None:
    """Make a hash what it was before."""
    client.delete(key)
    client.hset(key, mapping=dict(fields))


class Interrupted(redis.client.Pipeline):
    """A pipeline whose transaction reaches the server while its answer does not reach us."""

    owner: LossyClient

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Run it, then fail as a broken connection does, as often as told."""
        if (meanwhile := self.owner.meanwhile) is not None:
            self.owner.meanwhile = None
            meanwhile()
        answers: list[Any] = super().execute(raise_on_error)
        if self.owner.losses:
            self.owner.losses -= 1
            raise redis.ConnectionError("the answer was lost")
        return answers


class LossyClient(redis.Redis):
    """A client that loses the answers to its next ``losses`` transactions; ``meanwhile`` runs before the next one."""

    losses = 0
    meanwhile: Callable[[], object] | None = None

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Any:
        """As Redis's, with our class."""
        pipe = Interrupted(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.owner = self
        return pipe


class StoreContract:
    """The suite; a subclass gives the URL of a server that is durable."""

    @pytest.fixture
    def settings(self, store_url: str, deployment: str) -> RedisSettings:
        return RedisSettings(url=store_url, prefix=deployment)

    @pytest.fixture
    def client(self, settings: RedisSettings) -> Iterator[redis.Redis]:
        found = connect(settings, lifeline=Lifeline())  # as the worker's
        yield found
        found.close()

    @pytest.fixture
    def lossy(self, settings: RedisSettings) -> Iterator[LossyClient]:
        """A client of the same server that has not lost anything yet."""
        found = LossyClient.from_url(settings.url)
        assert isinstance(found, LossyClient)
        yield found
        found.close()

    @pytest.fixture
    def store(self, client: redis.Redis, settings: RedisSettings) -> StateStore:
        return StateStore(client, settings.prefix)

    def test_a_fresh_partition_has_no_state(self, store: StateStore) -> None:
        """Its epoch is the one asked for, and there is no checkpoint."""
        assert store.stored_epoch("join", 0) == 0
        owned = store.take("join", 0, 5, "token")
        assert (owned.epoch, owned.number, owned.meta) == (5, 0, {})
        assert store.stored_epoch("join", 0) == 5
        assert store.stored_epoch("monitor", 0) == 0

    def test_a_checkpoint_is_read_back_by_the_next_owner(self, store: StateStore) -> None:
        """Commands and meta together, and the number grows by one."""
        owned = store.take("join", 1, 1, "a")
        key = owned.name("log")
        store.commit(owned, [("RPUSH", key, b"\x00\xff", "two"), ("HSET", owned.name("h"), 1, b"x")], {"offset": 9})
        store.commit(owned, [("LTRIM", key, 1, -1)], {"offset": 10})
        assert owned.number == 2
        later = store.take("join", 1, 2, "b")
        assert (later.number, later.meta["offset"]) == (2, b"10")
        assert store.read_all([("LRANGE", key, 0, -1), ("HGETALL", owned.name("h"))]) == [[b"two"], {b"1": b"x"}]

    def test_a_write_of_an_old_owner_is_refused_whole(self, store: StateStore) -> None:
        """Nothing of it is applied: neither commands nor meta nor number."""
        old = store.take("join", 0, 1, "old")
        new = store.take("join", 0, 2, "new")
        with pytest.raises(Fenced, match="epoch 2"):
            store.commit(old, [("RPUSH", old.name("log"), "from the dead")], {"offset": 1})
        assert old.number == 0
        assert store.read_all([("LRANGE", old.name("log"), 0, -1)]) == [[]]
        store.commit(new, [], {"offset": 2})
        assert store.take("join", 0, 3, "next").meta["offset"] == b"2"

    def test_an_epoch_is_taken_once(self, store: StateStore) -> None:
        """The same or a lower one is refused and says how far the store is; our own again is ours."""
        store.take("join", 0, 4, "a")
        for epoch in (3, 4):
            with pytest.raises(EpochTaken) as taken:
                store.take("join", 0, epoch, "b")
            assert taken.value.stored == 4
        assert store.take("join", 0, 4, "a").epoch == 4

    def test_a_commit_whose_answer_was_lost_counts_once(
        self, store: StateStore, lossy: LossyClient, settings: RedisSettings
    ) -> None:
        """The retry finds our nonce under the next number: applied, not fenced, and not applied twice."""
        owned = StateStore(lossy, settings.prefix).take("join", 0, 1, "a")
        lossy.losses = 1
        StateStore(lossy, settings.prefix).commit(owned, [("RPUSH", owned.name("log"), "once")], {"offset": 1})
        assert lossy.losses == 0
        assert owned.number == 1
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[b"once"]]
        StateStore(lossy, settings.prefix).commit(owned, [("RPUSH", owned.name("log"), "twice")], {"offset": 2})
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[b"once", b"twice"]]

    def test_a_take_whose_answer_was_lost_succeeds(
        self, store: StateStore, lossy: LossyClient, settings: RedisSettings
    ) -> None:
        """The retry finds our own token, with the state that was there."""
        first = store.take("join", 0, 1, "a")
        store.commit(first, [], {"offset": 3})
        lossy.losses = 1
        owned = StateStore(lossy, settings.prefix).take("join", 0, 2, "b")
        assert (owned.epoch, owned.number, owned.meta["offset"]) == (2, 1, b"3")

    def test_a_take_between_the_check_and_the_write_fences_the_write(
        self, store: StateStore, lossy: LossyClient, settings: RedisSettings
    ) -> None:
        """What was compared must still hold when it is written."""
        owned = StateStore(lossy, settings.prefix).take("join", 0, 1, "a")
        lossy.meanwhile = lambda: store.take("join", 0, 2, "b")
        with pytest.raises(Fenced, match="epoch 2"):
            StateStore(lossy, settings.prefix).commit(owned, [("RPUSH", owned.name("log"), "late")], {"offset": 1})
        assert lossy.meanwhile is None
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[]]

    def test_of_two_takes_at_once_one_wins(
        self, store: StateStore, lossy: LossyClient, settings: RedisSettings
    ) -> None:
        """The other finds the epoch taken."""
        lossy.meanwhile = lambda: store.take("join", 0, 1, "b")
        with pytest.raises(EpochTaken):
            StateStore(lossy, settings.prefix).take("join", 0, 1, "a")
        assert store.take("join", 0, 1, "b").epoch == 1

    def test_a_checkpoint_may_use_these_commands(self, store: StateStore) -> None:
        """Each does the same on every server, and a key that becomes empty is gone."""
        owned = store.take("join", 0, 1, "a")
        items, fields, value = owned.name("l"), owned.name("h"), owned.name("v")
        store.commit(
            owned,
            [
                ("RPUSH", items, b"0", 1, "2", 3.5),
                ("LTRIM", items, 1, -1),
                ("HSET", fields, 1, b"one", "two", 2),
                ("HDEL", fields, "one", 2, "two"),
                ("HSETNX", fields, 1, b"other"),
                ("SET", value, b"\x00"),
                ("RPUSH", owned.name("gone"), "x"),
                ("LTRIM", owned.name("gone"), 1, -1),
                ("HSET", owned.name("empty"), "x", 1),
                ("HDEL", owned.name("empty"), "x"),
                ("SET", owned.name("deleted"), "x"),
                ("DEL", owned.name("deleted"), owned.name("never")),
            ],
            {"offset": 1},
        )
        gone = [owned.name(part) for part in ("gone", "empty", "deleted", "never")]
        assert store.read_all(
            [
                ("LRANGE", items, 0, -1),
                ("LRANGE", items, -2, 0),
                ("LRANGE", items, 1, -2),
                ("LLEN", items),
                ("HGETALL", fields),
                ("HGET", fields, 1),
                ("HMGET", fields, 1, "two"),
                ("HLEN", fields),
                ("GET", value),
                ("EXISTS", *gone),
                ("EXISTS", items, fields, value),
            ]
        ) == [[b"1", b"2", b"3.5"], [], [b"2"], 3, {b"1": b"one"}, b"one", [b"one", None], 1, b"\x00", 0, 3]

    @pytest.mark.parametrize("command", [("RPUSH", "meta", "x"), ("HSET", "meta", "x"), ("SET", "x"), ("SET",)])
    def test_a_command_that_a_server_refuses_is_an_error(self, store: StateStore, command: tuple[str, ...]) -> None:
        """The wrong kind of key or number of arguments is a bug of ours: not waited for, and told."""
        owned = store.take("join", 0, 1, "a")
        verb, *arguments = command
        with pytest.raises(redis.ResponseError):
            store.commit(owned, [(verb, *map(owned.name, arguments[:1]), *arguments[1:])], {"offset": 1})

    def test_a_number_that_another_write_reached_is_fenced(self, store: StateStore) -> None:
        """Two writers under one epoch: the second has another nonce, so its checkpoint is not mistaken for ours."""
        owned = store.take("join", 0, 1, "a")
        twin = store.take("join", 0, 1, "a")
        store.commit(owned, [], {"offset": 1})
        with pytest.raises(Fenced, match="checkpoint 1, ours is 0"):
            store.commit(twin, [("SET", owned.name("x"), "1")], {"offset": 9})
        assert store.read_all([("EXISTS", owned.name("x"))]) == [0]

    def test_a_wiped_key_fences_its_owner(self, store: StateStore, client: redis.Redis) -> None:
        """A write to nothing would start a state with a hole."""
        owned = store.take("join", 0, 1, "a")
        store.commit(owned, [], {"offset": 1})
        client.delete(owned.name("meta"))
        with pytest.raises(StoreLost, match="gone"):
            store.commit(owned, [], {"offset": 2})

    def test_a_store_set_back_is_told_from_one_that_was_taken(self, store: StateStore, client: redis.Redis) -> None:
        """An earlier checkpoint or epoch than ours is the store's loss; a later epoch is another owner."""
        store.commit(store.take("join", 0, 1, "a"), [], {"offset": 1})
        owned = store.take("join", 0, 2, "b")
        meta = owned.name("meta")
        states = [client.hgetall(meta)]
        for offset in (2, 3):
            store.commit(owned, [], {"offset": offset})
            states.append(client.hgetall(meta))
        put_back(client, meta, states[1])
        with pytest.raises(StoreLost, match="checkpoint 2, ours is 3"):
            store.commit(owned, [], {"offset": 4})
        put_back(client, meta, states[2])
        client.hset(meta, "epoch", 1)
        with pytest.raises(StoreLost, match="epoch 1, ours 2"):
            store.commit(owned, [], {"offset": 4})
        store.take("join", 0, 3, "c")
        with pytest.raises(Fenced, match="epoch 3, ours 2") as fenced:
            store.commit(owned, [], {"offset": 4})
        assert not isinstance(fenced.value, StoreLost)

    def test_damage_to_the_meta_is_told(self, store: StateStore, client: redis.Redis) -> None:
        """Any field, a number that is none too; taking the partition writes over no evidence."""
        owned = store.take("join", 0, 1, "a")
        store.commit(owned, [], {"offset": 1, "counters": b"{}"})
        store.take("join", 0, 2, "b").check()
        whole = client.hgetall(owned.name("meta"))
        changes = [("offset", b"2"), ("counters", b"{ }"), ("number", b"\xff"), ("nonce", b""), ("more", b"1")]
        for epoch, (field, value) in enumerate(changes, start=3):
            put_back(client, owned.name("meta"), whole)
            client.hset(owned.name("meta"), field, value)
            for again in (0, 10):
                with pytest.raises(Damaged, match="checksum"):
                    store.take("join", 0, epoch + again, "c").check()
        put_back(client, owned.name("meta"), whole)
        client.hdel(owned.name("meta"), "checksum")
        with pytest.raises(Damaged):
            store.take("join", 0, 20, "d").check()

    def test_a_rebuilt_state_takes_the_place_of_what_is_stored(self, store: StateStore, client: redis.Redis) -> None:
        """Whatever number is there, and by its owner only; the next checkpoint follows it."""
        owned = store.take("join", 0, 1, "a")
        store.commit(owned, [("RPUSH", owned.name("log"), "old")], {"offset": 1, "more": "x"})
        client.hset(owned.name("meta"), "number", b"\xff")
        later = store.take("join", 0, 2, "b")
        rebuilt: list[Command] = [("DEL", owned.name("log")), ("RPUSH", owned.name("log"), "new")]
        with pytest.raises(Fenced, match="epoch 2, ours is 1"):
            store.replace(owned, rebuilt, {"offset": 70}, 7)
        store.replace(later, rebuilt, {"offset": 70}, 7)
        store.commit(later, [], {"offset": 80})
        found = store.take("join", 0, 3, "c")
        found.check()
        assert (found.number, found.meta["offset"], "more" in found.meta) == (8, b"80", False)
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[b"new"]]
        client.delete(owned.name("meta"))
        with pytest.raises(StoreLost, match="gone"):
            store.replace(found, rebuilt, {"offset": 90}, 9)

    def test_a_newer_format_is_refused_and_left_as_it_is(self, store: StateStore, client: redis.Redis) -> None:
        """Refused every time, not only the first: the refusal must not write our own format over it."""
        owned = store.take("join", 0, 1, "a")
        client.hset(owned.name("meta"), "format", FORMAT + 1)
        for epoch in (2, 3):
            with pytest.raises(StateMismatch, match=f"format {FORMAT + 1}, newer than {FORMAT}"):
                store.take("join", 0, epoch, "b")
        assert client.hget(owned.name("meta"), "format") == str(FORMAT + 1).encode()
        assert store.stored_epoch("join", 0) == 1

    def test_a_changed_partition_count_is_refused_until_accepted(self, store: StateStore) -> None:
        """Ids would be looked for in another partition's state."""
        store.check_layout({"predictions": 4, "outcomes": 4})
        store.check_layout({"predictions": 4, "outcomes": 4, "summaries": 2})
        with pytest.raises(StateMismatch, match=r"predictions has 6 partitions, and had 4.*driftline topics accept"):
            store.check_layout({"predictions": 6, "outcomes": 4})
        store.accept_layout({"predictions": 6})
        store.check_layout({"predictions": 6, "outcomes": 4})

    def test_partitions_and_deployments_do_not_share_keys(self, store: StateStore, client: redis.Redis) -> None:
        """One hash slot a partition, one prefix a deployment."""
        other = StateStore(client, "another")
        keys = {store.key("join", 0), store.key("join", 1), store.key("monitor", 0), other.key("join", 0)}
        assert len(keys) == 4
        assert "{join:0}" in store.key("join", 0)

    def test_a_wrong_command_is_an_error_and_no_endless_wait(self, store: StateStore) -> None:
        """Only refusals that end by themselves are waited for."""
        owned = store.take("join", 0, 1, "a")
        with pytest.raises(redis.ResponseError, match="NOSUCH"):
            store.commit(owned, [("NOSUCH", "x")], {"offset": 1})

    def test_a_store_with_append_only_file_and_no_eviction_is_accepted(
        self, client: redis.Redis, settings: RedisSettings
    ) -> None:
        """Read by INFO alone."""
        require_durable(client, settings)

    def test_a_store_that_evicts_is_refused_unless_allowed(self, client: redis.Redis, settings: RedisSettings) -> None:
        """With the setting that mends it and the one that accepts it."""
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(StateMismatch, match=r"allkeys-lru.*noeviction.*allow_volatile"):
                require_durable(client, settings)
            require_durable(client, settings.model_copy(update={"allow_volatile": True}))
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    def test_a_store_without_append_only_file_is_refused_unless_allowed(
        self, client: redis.Redis, settings: RedisSettings
    ) -> None:
        """A crash would lose what a cut has published."""
        client.config_set("appendonly", "no")
        try:
            with pytest.raises(StateMismatch, match=r"append-only.*--appendonly yes.*allow_volatile"):
                require_durable(client, settings)
            require_durable(client, settings.model_copy(update={"allow_volatile": True}))
        finally:
            client.config_set("appendonly", "yes")

    def test_a_full_store_delays_a_checkpoint_and_loses_nothing(
        self, client: redis.Redis, settings: RedisSettings
    ) -> None:
        """Refused for want of memory, then written once there is some."""
        answers = [False, False]

        def make_room_at_the_second() -> bool:
            if answers:
                answers.pop()
            else:
                client.config_set("maxmemory", 0)
            return False

        store = StateStore(client, settings.prefix, make_room_at_the_second)
        owned = store.take("join", 0, 1, "a")
        client.config_set("maxmemory", 1)
        try:
            store.commit(owned, [("RPUSH", owned.name("log"), "kept")], {"offset": 1})
        finally:
            client.config_set("maxmemory", 0)
        assert not answers
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[b"kept"]]

    def test_a_store_without_its_replicas_delays_a_checkpoint(
        self, client: redis.Redis, settings: RedisSettings
    ) -> None:
        """NOREPLICAS, like MISCONF, ends by itself: also when it is said of one command of many."""
        waits: list[int] = []

        def bring_the_replicas_back() -> bool:
            waits.append(1)
            client.config_set("min-replicas-to-write", 0)
            return False

        store = StateStore(client, settings.prefix, bring_the_replicas_back)
        owned = store.take("join", 0, 1, "a")
        client.config_set("min-replicas-to-write", 1)
        try:
            store.commit(owned, [("RPUSH", owned.name("log"), "kept")], {"offset": 1})
        finally:
            client.config_set("min-replicas-to-write", 0)
        assert waits
        assert store.read_all([("LRANGE", owned.name("log"), 0, -1)]) == [[b"kept"]]


@pytest.fixture(scope="module")
def embedded_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedStore(tmp_path_factory.mktemp("store"), keep=False) as server:
        yield server.url


class TestEmbeddedStore(StoreContract):
    """The embedded valkey-server."""

    @pytest.fixture
    def store_url(self, embedded_url: str) -> str:
        return embedded_url


class TestMemoryStore(StoreContract):
    """The server in memory that the simulation uses."""

    @pytest.fixture
    def store_url(self) -> str:
        return "redis://in-memory"

    @pytest.fixture
    def server(self) -> MemoryRedis:
        return MemoryRedis()

    @pytest.fixture
    def client(self, server: MemoryRedis) -> redis.Redis:
        return client_of(server)

    @pytest.fixture
    def lossy(self, server: MemoryRedis) -> LossyClient:
        return client_of(server, kind=LossyClient)


def test_no_server_is_one_line_and_no_password() -> None:
    """The address is named, what is before the @ is not."""
    settings = RedisSettings(url="rediss://:secret@127.0.0.1:1/0")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/0") as refused:
        require_durable(connect(settings), settings)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1:6379", "redis://127.0.0.1:port/0"])
def test_a_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    """In one line that names the setting."""
    with pytest.raises(WrongSetting, match=r"redis\.url"):
        connect(RedisSettings(url=url))


def test_stopping_does_not_wait_for_a_store_that_is_gone() -> None:
    """A restart finds the last checkpoint."""
    store = StateStore(connect(RedisSettings(url="redis://127.0.0.1:1/0")), "x", lambda: True)
    with pytest.raises(RestartMe, match="did not answer"):
        store.stored_epoch("join", 0)


def test_the_data_folder_of_the_embedded_store_is_ours(tmp_path: Path) -> None:
    """A checkpoint survives a stop and a start of the server that keeps its data."""
    with EmbeddedStore(tmp_path, keep=True) as server:
        client = connect(RedisSettings(url=server.url))
        store = StateStore(client, "d")
        store.commit(store.take("join", 0, 1, "a"), [], {"offset": 5})
        client.close()
    with EmbeddedStore(tmp_path, keep=True) as server:
        client = connect(RedisSettings(url=server.url))
        owned = StateStore(client, "d").take("join", 0, 2, "b")
        client.close()
    assert (owned.number, owned.meta["offset"]) == (1, b"5")
