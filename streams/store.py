"""The state store: fenced, atomic checkpoints in Redis, one hash-tagged group of keys a partition.

Every write of state is one WATCH/MULTI/EXEC that first compares the owner's epoch and the checkpoint number with what
is stored. The number grows by one with each checkpoint and carries the writer's nonce, so that a write that was
applied although its answer was lost is recognised as ours when it is retried.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import redis
import structlog

from streams.errors import RestartMe, StateMismatch
from streams.seal import Damaged, checksum_of
from streams.store_client import store_refusal

Stage = Literal["join", "monitor"]
Command = tuple[str | bytes | int | float, ...]
"""One Redis command as :meth:`redis.Redis.execute_command` takes it."""

FORMAT = 1
"""Version of everything stored. A newer one is refused, an older one migrated."""
UNSUMMED = frozenset({"epoch", "token", "format", "checksum"})
"""Fields of ``meta`` that a take writes, or that are the checksum itself."""
RETRY_S = 0.5
PASSING = ("OOM", "MISCONF", "LOADING", "READONLY", "BUSY", "EXECABORT", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS")

log = structlog.get_logger(__name__)


class Fenced(Exception):
    """Another worker owns the partition now, or its keys are gone: drop the work in hand."""


class StoreLost(Fenced):
    """Nobody took the partition: the store was emptied, or set back to an earlier state. A fresh start rebuilds it."""


class EpochTaken(Exception):
    """The store knows an epoch at least as high: take again with a higher one."""

    def __init__(self, stored: int) -> None:
        super().__init__(f"the store is at epoch {stored}")
        self.stored = stored


@dataclass(slots=True)
class Owned:
    """A partition that this process owns: the guard of its writes and what was stored when it was taken."""

    stage: Stage
    partition: int
    epoch: int
    token: str
    number: int
    key: str
    meta: dict[str, bytes] = field(default_factory=dict)

    def name(self, part: str) -> str:
        """The Redis key of one part of this partition's state."""
        return f"{self.key}{part}"

    def check(self) -> None:
        """Raise :class:`Damaged` if what was stored in ``meta`` is not what a checkpoint wrote there."""
        written = {name: value for name, value in self.meta.items() if name not in UNSUMMED}
        if written and checksum_of(written) != self.meta.get("checksum"):
            raise Damaged(f"the checksum of {self.name('meta')} is wrong")


class StateStore:
    """Fenced state of the partitions of one deployment. Blocking; used from worker threads, one call a partition."""

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        should_stop: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.client = client
        self._prefix = prefix
        self._should_stop = should_stop
        self._sleep = sleep
        self._called_s: float | None = None

    def waited_s(self) -> float:
        """How long the call that runs now has been waiting for its answer; 0 when none runs."""
        called_s = self._called_s
        return 0.0 if called_s is None else time.monotonic() - called_s

    def key(self, stage: Stage, partition: int) -> str:
        """Prefix of all keys of a partition, with a hash tag so that a cluster keeps them in one slot."""
        return f"{self._prefix}:{{{stage}:{partition}}}:"

    def check_layout(self, counts: Mapping[str, int]) -> None:
        """Compare the topics' partition counts with those of the first start.

        Raises :class:`StateMismatch` if one has changed: ids would be looked for in another partition's state.
        """
        key = f"{self._prefix}:layout"

        def remember() -> dict[bytes, bytes]:
            pipe: Any
            with self.client.pipeline() as pipe:
                for topic, count in counts.items():
                    pipe.hsetnx(key, topic, count)
                pipe.hgetall(key)
                stored: dict[bytes, bytes] = pipe.execute()[-1]
                return stored

        stored = {name.decode(): int(count) for name, count in self._call(remember).items()}
        for topic, count in counts.items():
            if stored[topic] != count:
                raise StateMismatch(
                    f"topic {topic} has {count} partitions, and had {stored[topic]} when this deployment began",
                    "let everything pending be joined, then run `driftline topics accept`: ids published before the"
                    " change stay where they were",
                )

    def accept_layout(self, counts: Mapping[str, int]) -> None:
        """Take the topics' partition counts as they are now."""
        self._call(lambda: self.client.hset(f"{self._prefix}:layout", mapping=dict(counts.items())))

    def stored_epoch(self, stage: Stage, partition: int) -> int:
        """The highest epoch that the store has seen for a partition; 0 for none."""
        stored = self._call(lambda: self.client.hget(f"{self.key(stage, partition)}meta", "epoch"))
        return _number(stored)

    def take(self, stage: Stage, partition: int, epoch: int, token: str) -> Owned:
        """Become the owner: later writes of lower epochs are refused.

        Raises :class:`EpochTaken` if the store has an epoch at least as high and another token, and
        :class:`StateMismatch` for a format of the future.
        """
        key = self.key(stage, partition)
        meta = self._call(lambda: self._take_once(f"{key}meta", epoch, token))
        return Owned(stage, partition, epoch, token, _number(meta.get("number")), key, meta)

    def _take_once(self, key: str, epoch: int, token: str) -> dict[str, bytes]:
        while True:
            try:
                pipe: Any
                with self.client.pipeline() as pipe:
                    pipe.watch(key)
                    meta = {name.decode(): value for name, value in pipe.hgetall(key).items()}
                    if _number(meta.get("format")) > FORMAT:  # before our own is written over it
                        raise StateMismatch(
                            f"{key} has format {meta['format'].decode()}, newer than {FORMAT}",
                            "run the release that wrote it",
                        )
                    stored = _number(meta.get("epoch"))
                    if stored == epoch and meta.get("token", b"").decode() == token:
                        return meta  # the answer to our own take was lost
                    if stored >= epoch:
                        raise EpochTaken(stored)
                    pipe.multi()
                    pipe.hset(key, mapping={"epoch": epoch, "token": token, "format": FORMAT})
                    pipe.execute()
                    return meta
            except redis.WatchError as error:
                _require_unbroken(error)
                continue  # somebody wrote in between: the next read decides

    def commit(self, owned: Owned, commands: Iterable[Command], meta: Mapping[str, str | bytes | int]) -> None:
        """One checkpoint: apply ``commands`` and ``meta`` atomically and advance the checkpoint number.

        Waits for a store that does not answer. Raises :class:`Fenced` if the partition is not ours any more, and its
        :class:`StoreLost` if that is because the store is empty or older than what we wrote.
        """
        nonce = secrets.token_hex(8)
        batch = list(commands)
        self._call(lambda: self._commit_once(owned, batch, meta, nonce))
        owned.number += 1

    def replace(
        self, owned: Owned, commands: Iterable[Command], meta: Mapping[str, str | bytes | int], number: int
    ) -> None:
        """Write a whole state in the place of whatever is stored: it is checkpoint ``number`` now.

        ``commands`` delete what they do not overwrite. Only the epoch guards it, not the number that is stored. Raises
        :class:`Fenced` as :meth:`commit` does.
        """
        nonce = secrets.token_hex(8)
        batch = list(commands)
        self._call(lambda: self._replace_once(owned, batch, meta, nonce, number))
        owned.number = number

    def _replace_once(
        self,
        owned: Owned,
        commands: Sequence[Command],
        meta: Mapping[str, str | bytes | int],
        nonce: str,
        number: int,
    ) -> None:
        key = owned.name("meta")
        while True:
            try:
                pipe: Any
                with self.client.pipeline() as pipe:
                    pipe.watch(key)
                    epoch, token = pipe.hmget(key, "epoch", "token")
                    if epoch is None:
                        raise StoreLost(f"{key} is gone")
                    if _number(epoch) != owned.epoch or (token or b"").decode(errors="replace") != owned.token:
                        raise Fenced(f"{key} is at epoch {_number(epoch)}, ours is {owned.epoch}")
                    pipe.multi()
                    for command in commands:
                        pipe.execute_command(*command)
                    pipe.delete(key)
                    fence = {"epoch": owned.epoch, "token": owned.token, "format": FORMAT}
                    pipe.hset(key, mapping={**fence, **_summed(meta, number, nonce)})
                    pipe.execute()
                    return
            except redis.WatchError as error:
                _require_unbroken(error)
                continue  # a take got in between: the next read decides

    def _commit_once(
        self, owned: Owned, commands: Sequence[Command], meta: Mapping[str, str | bytes | int], nonce: str
    ) -> None:
        key = owned.name("meta")
        while True:
            try:
                pipe: Any
                with self.client.pipeline() as pipe:
                    pipe.watch(key)
                    epoch, token, number, last = pipe.hmget(key, "epoch", "token", "number", "nonce")
                    if epoch is None:
                        raise StoreLost(f"{key} is gone")
                    if _number(epoch) != owned.epoch or (token or b"").decode(errors="replace") != owned.token:
                        older = _number(epoch) < owned.epoch  # nobody goes back: it is an earlier state of the store
                        raise (StoreLost if older else Fenced)(
                            f"{key} is at epoch {_number(epoch)}, ours {owned.epoch}"
                        )
                    stored = _number(number)
                    if stored == owned.number + 1 and (last or b"").decode() == nonce:
                        return  # applied; only the answer was lost
                    if stored != owned.number:
                        older = stored < owned.number
                        raise (StoreLost if older else Fenced)(
                            f"{key} is at checkpoint {stored}, ours is {owned.number}"
                        )
                    pipe.multi()
                    for command in commands:
                        pipe.execute_command(*command)
                    pipe.hset(key, mapping=_summed(meta, owned.number + 1, nonce))
                    pipe.execute()
                    return
            except redis.WatchError as error:
                _require_unbroken(error)
                continue  # a take got in between: the next read decides

    def _call(self, operation: Callable[[], Any]) -> Any:
        """Run until it is answered: a store that restarts, loads its file or is full delays us, nothing is dropped.

        Raises :class:`AccessDenied` when the store refuses us: that does not pass.
        """
        self._called_s = time.monotonic()
        try:
            return self._until_answered(operation)
        finally:
            self._called_s = None

    def _until_answered(self, operation: Callable[[], Any]) -> Any:
        warned = False
        while True:
            try:
                return operation()
            except (
                redis.ConnectionError,
                redis.TimeoutError,
                redis.exceptions.ReadOnlyError,
                redis.exceptions.OutOfMemoryError,
                redis.exceptions.ResponseError,
            ) as error:
                if (denied := store_refusal(error)) is not None:
                    raise denied from None
                if isinstance(error, redis.exceptions.ResponseError) and not _passes(error):
                    raise
                if self._should_stop():
                    raise RestartMe(f"the store did not answer while stopping ({error})", "") from None
                if not warned:
                    log.warning("store.waiting", reason=str(error))
                    warned = True
                self._sleep(RETRY_S)

    def meta(self, owned: Owned) -> dict[str, bytes]:
        """What is stored in ``meta`` now."""
        return {
            name.decode(): value for name, value in self._call(lambda: self.client.hgetall(owned.name("meta"))).items()
        }

    def note(self, name: str, fields: Mapping[str, bytes]) -> None:
        """Write something for people to look at: outside the checkpoints, the last writer wins."""
        self._call(lambda: self.client.hset(f"{self._prefix}:{name}", mapping=dict(fields.items())))

    def read_all(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to read-only commands, waiting for a store that does not answer."""

        def read() -> list[Any]:
            pipe: Any
            with self.client.pipeline(transaction=False) as pipe:
                for command in commands:
                    pipe.execute_command(*command)
                return list(pipe.execute())

        answers: list[Any] = self._call(read)
        return answers


def _require_unbroken(error: redis.WatchError) -> None:
    """Raise what broke the connection, if that is why the watched key counts as changed.

    redis-py tells both alike. Taken for a change, a store that does not answer would be asked again at once, by a
    worker that should stop, too.
    """
    if isinstance(error.__context__, redis.ConnectionError | redis.TimeoutError):
        raise error.__context__


def _summed(meta: Mapping[str, str | bytes | int], number: int, nonce: str) -> dict[str, bytes]:
    """The fields of a checkpoint as bytes, with their checksum. Every checkpoint writes the same fields."""
    fields = {
        name: value if isinstance(value, bytes) else str(value).encode()
        for name, value in {**meta, "number": number, "nonce": nonce}.items()
    }
    return {**fields, "checksum": checksum_of(fields)}


def _number(stored: bytes | None) -> int:
    """A stored number; 0 for none, and for bytes that are none, which the checksum tells."""
    return int(stored) if stored is not None and stored.isdigit() else 0


def _passes(error: redis.exceptions.ResponseError) -> bool:
    """Refusals that end by themselves: out of memory, a failing disk, loading, a replica, a busy script."""
    if isinstance(error, redis.exceptions.OutOfMemoryError | redis.exceptions.ReadOnlyError):
        return True
    words = str(error).rpartition(" of pipeline caused error: ")[2]  # redis-py names the command first
    return words.startswith(PASSING)
