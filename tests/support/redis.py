"""A real redis-server on the loopback."""

import os
from collections.abc import Mapping
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.server import Server, executable


class RedisServer(Server):
    """A Redis with append-only file and `noeviction`, as Driftline demands it.

    `appendonly=False` gives one without the file, `options` add to or replace lines of redis.conf: for servers
    that Driftline refuses. `DRIFTLINE_REDIS_SERVER` names another binary than the PATH's redis-server.
    """

    name = "redis"
    start_bound_s = 60.0

    def __init__(
        self,
        directory: Path,
        port: int | None = None,
        appendonly: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(directory, port)
        self._options = {
            "bind": "127.0.0.1",
            "dir": str(self.directory),
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            **(options or {}),
        }

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    def client(self, timeout_s: float | None = None) -> redis.Redis:
        """A new client whose answers are bytes and whose first failure is raised."""
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=timeout_s, retry=Retry(NoBackoff(), 0))

    def _prepare(self) -> list[str]:
        configuration = self.directory / "redis.conf"
        lines = self._options | {"port": str(self.port)}
        configuration.write_text("".join(f"{key} {value}\n" for key, value in lines.items()))
        binary = os.environ.get("DRIFTLINE_REDIS_SERVER") or "redis-server"
        return [executable(binary, "redis-server"), str(configuration)]

    def _is_ready(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:  # refused, or it still loads its append-only file
                return False
