"""A Redis in memory: the commands that the state store uses, behind redis-py's own client and pipelines.

Only the socket is replaced, so that the compare-and-set, its retries and redis-py's handling of a broken connection
are the real ones. A command more is one method more.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.memory.wire import AnswerLost, SimulatedCrash, Wire

Reply = Any
Client = TypeVar("Client", bound=redis.Redis)
WRITES = frozenset({"RPUSH", "LTRIM", "SET", "DEL", "HSET", "HSETNX", "HDEL"})


class MemoryRedis:
    """The server: what it holds survives every process. One transaction is one step."""

    def __init__(self) -> None:
        self.keys: dict[bytes, Any] = {}
        self.settings = {
            b"appendonly": b"yes",
            b"maxmemory": b"0",
            b"maxmemory-policy": b"noeviction",
            b"min-replicas-to-write": b"0",
        }
        self.writes = 0
        """Grows with every command that may have changed something."""
        self.written: dict[bytes, int] = {}

    def copy(self) -> MemoryRedis:
        """Another server that holds the same."""
        other = MemoryRedis()
        other.keys = {key: copy.copy(value) for key, value in self.keys.items()}
        other.settings, other.writes, other.written = dict(self.settings), self.writes, dict(self.written)
        return other

    def execute(self, command: Sequence[Any]) -> Reply:
        """Run one command → its reply as RESP2 gives it; an error is returned, not raised."""
        verb, *arguments = command
        # redis-py sends the names of some commands as two words in one argument.
        words = _bytes(verb).decode().upper().split(" ")
        method = getattr(self, f"_{'_'.join(words).lower()}", None)
        if method is None:
            return redis.ResponseError(f"unknown command '{words[0]}'")
        writes = words[0] in WRITES
        if writes and (refusal := self._refusal()) is not None:
            return refusal
        found: list[bytes] = [_bytes(argument) for argument in arguments]
        try:
            reply = method(*found)
        except _WrongType:
            return redis.ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
        except TypeError:
            return redis.ResponseError(f"wrong number of arguments for '{words[0].lower()}' command")
        if writes:
            self.writes += 1
            self.written[found[0]] = self.writes
        return reply

    def _refusal(self) -> redis.ResponseError | None:
        if int(self.settings[b"maxmemory"]):
            return redis.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
        if int(self.settings[b"min-replicas-to-write"]):
            return redis.ResponseError("NOREPLICAS Not enough good replicas to write.")
        return None

    # ---------------------------------------------------------------------------------------------------- the values

    def _hash(self, key: bytes) -> dict[bytes, bytes]:
        return _of_kind(dict, self.keys.get(key, {}))

    def _list(self, key: bytes) -> list[bytes]:
        return _of_kind(list, self.keys.get(key, []))

    def _keep(self, key: bytes, value: Any) -> None:
        """Store a value; an empty one is no key."""
        if value:
            self.keys[key] = value
        else:
            self.keys.pop(key, None)

    # -------------------------------------------------------------------------------------------------- the commands

    def _del(self, key: bytes, *more: bytes) -> int:
        for each in more:
            self.written[each] = self.writes + 1
        return sum(self.keys.pop(each, None) is not None for each in (key, *more))

    def _exists(self, *keys: bytes) -> int:
        return sum(key in self.keys for key in keys)

    def _set(self, key: bytes, value: bytes) -> bytes:
        self.keys[key] = value
        return b"OK"

    def _get(self, key: bytes) -> bytes | None:
        return _of_kind(bytes, self.keys[key]) if key in self.keys else None

    def _rpush(self, key: bytes, value: bytes, *more: bytes) -> int:
        found = self._list(key)
        self._keep(key, [*found, value, *more])
        return len(found) + 1 + len(more)

    def _lrange(self, key: bytes, start: bytes, stop: bytes) -> list[bytes]:
        found = self._list(key)
        return found[_first(start, found) : _last(stop, found)]

    def _ltrim(self, key: bytes, start: bytes, stop: bytes) -> bytes:
        found = self._list(key)
        self._keep(key, found[_first(start, found) : _last(stop, found)])
        return b"OK"

    def _llen(self, key: bytes) -> int:
        return len(self._list(key))

    def _hset(self, key: bytes, name: bytes, value: bytes, *more: bytes) -> int:
        if len(more) % 2:
            raise TypeError
        found = self._hash(key)
        before = len(found)
        self._keep(key, {**found, name: value, **dict(zip(more[::2], more[1::2], strict=True))})
        return len(self._hash(key)) - before

    def _hsetnx(self, key: bytes, name: bytes, value: bytes) -> int:
        found = self._hash(key)
        self._keep(key, {name: value, **found})
        return int(name not in found)

    def _hget(self, key: bytes, name: bytes) -> bytes | None:
        return self._hash(key).get(name)

    def _hmget(self, key: bytes, name: bytes, *more: bytes) -> list[bytes | None]:
        found = self._hash(key)
        return [found.get(each) for each in (name, *more)]

    def _hgetall(self, key: bytes) -> list[bytes]:
        # A server gives the fields of a large hash in no order.
        return [item for pair in reversed(self._hash(key).items()) for item in pair]

    def _hdel(self, key: bytes, name: bytes, *more: bytes) -> int:
        found = self._hash(key)
        kept = {each: value for each, value in found.items() if each not in (name, *more)}
        self._keep(key, kept)
        return len(found) - len(kept)

    def _hlen(self, key: bytes) -> int:
        return len(self._hash(key))

    def _config_set(self, name: bytes, value: bytes) -> bytes:
        self.settings[name] = value
        return b"OK"

    def _info(self) -> bytes:
        policy = self.settings[b"maxmemory-policy"].decode()
        return f"aof_enabled:{int(self.settings[b'appendonly'] == b'yes')}\nmaxmemory_policy:{policy}\n".encode()


class _WrongType(Exception):
    """The key holds another kind of value."""


K = TypeVar("K")


def _of_kind(kind: type[K], value: Any) -> K:
    if not isinstance(value, kind):
        raise _WrongType
    return value


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _first(index: bytes, items: Sequence[bytes]) -> int:
    at = int(index)
    return max(0, len(items) + at) if at < 0 else at


def _last(index: bytes, items: Sequence[bytes]) -> int:
    at = int(index)
    return len(items) + at + 1 if at < 0 else at + 1


class _Session:
    """What a server knows of one connection: the keys that it watches, and its open transaction."""

    def __init__(self, server: MemoryRedis) -> None:
        self._server = server
        self._watched: dict[bytes, int] = {}
        self._queued: list[Sequence[Any]] | None = None
        self._refused = False

    def answer(self, command: Sequence[Any]) -> Reply:
        verb = _bytes(command[0]).decode().upper()
        if verb == "MULTI":
            self._queued, self._refused = [], False
            return b"OK"
        if verb == "EXEC":
            return self._exec()
        if self._queued is not None:
            return self._queue(command)
        if verb == "WATCH":
            for key in map(_bytes, command[1:]):
                self._watched.setdefault(key, self._server.written.get(key, 0))
            return b"OK"
        if verb == "UNWATCH":
            self._watched = {}
            return b"OK"
        return self._server.execute(command)

    def _queue(self, command: Sequence[Any]) -> Reply:
        """As a server does: what it can refuse before EXEC, it does, and the whole transaction with it."""
        if self._queued is None:
            raise RuntimeError("no transaction is open")
        verb = _bytes(command[0]).decode().upper()
        refusal = self._server._refusal() if verb in WRITES else None
        if refusal is None and getattr(self._server, f"_{verb.lower()}", None) is None:
            refusal = redis.ResponseError(f"unknown command '{verb}'")
        if refusal is not None:
            self._refused = True
            return refusal
        self._queued.append(command)
        return b"QUEUED"

    def _exec(self) -> Reply:
        queued, self._queued = self._queued or [], None
        watched, self._watched = self._watched, {}
        if self._refused:
            return redis.exceptions.ExecAbortError("Transaction discarded because of previous errors.")
        if any(self._server.written.get(key, 0) != seen for key, seen in watched.items()):
            return None
        return [self._server.execute(command) for command in queued]


class MemoryConnection(redis.Connection):
    """redis-py's connection with a server in this process instead of a socket."""

    def __init__(self, server: Callable[[], MemoryRedis], wire: Wire, **options: Any) -> None:
        super().__init__(**options)  # type: ignore[no-untyped-call]  # of redis-py
        self._server = server
        self._wire = wire
        self._session: _Session | None = None
        self._replies: deque[Reply] = deque()

    @property
    def is_connected(self) -> bool:
        """Whether there is a session."""
        return self._session is not None

    def connect(self) -> None:
        """Open a session if there is none."""
        if self._session is None:
            self._session = _Session(self._server())

    def disconnect(self, *_: Any, **__: Any) -> None:
        """What was watched is forgotten, and answers that nobody read."""
        self._session = None
        self._replies.clear()

    def pack_command(self, *args: Any) -> list[Sequence[Any]]:
        """A command is sent as it is."""
        return [args]

    def pack_commands(self, commands: Iterable[Sequence[Any]]) -> list[Sequence[Any]]:
        """Commands are sent as they are."""
        return list(commands)

    def send_command(self, *args: Any, **_: Any) -> None:
        """One round trip."""
        self.send_packed_command([args])

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """One round trip: the answers wait to be read. A broken one is known at once."""
        if self._wire.dead:
            raise redis.ConnectionError("the process is gone")
        self.connect()
        session = self._session
        if session is None:
            raise redis.ConnectionError("there is no session")
        names = ",".join(_bytes(each[0]).decode() for each in command[:3])
        try:
            self._replies += self._wire.call("store", names, lambda: [session.answer(each) for each in command])
        except AnswerLost as lost:
            self.disconnect()
            raise redis.ConnectionError(f"the connection broke: {lost}") from None
        except SimulatedCrash:
            self.disconnect()
            raise

    def can_read(self, timeout: float = 0) -> bool:
        """Whether an answer waits; none does between two requests."""
        return bool(self._replies)

    def read_response(self, *_: Any, **__: Any) -> Reply:
        """The next answer of the last round trip."""
        reply = self._replies.popleft()
        if isinstance(reply, redis.ResponseError):
            raise reply
        return reply


def client_of(server: MemoryRedis, wire: Wire | None = None, kind: type[Client] = redis.Redis) -> Client:  # type: ignore[assignment]  # the default of a type variable
    """A client that never retries by itself, as :func:`streams.store.connect` makes one."""
    pool = redis.ConnectionPool(
        connection_class=MemoryConnection,
        server=lambda: server,
        wire=wire or Wire(),
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        max_connections=16,
    )
    return kind(connection_pool=pool)
