"""One run a model at a time, whichever process it is in: a lease in Redis that must be renewed."""

from __future__ import annotations

import uuid
from typing import Any

import redis

from streams.errors import Unavailable
from streams.settings import RedisSettings

LEASE_MS = 30_000
RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class LeaseLost(Exception):
    """Another process may run this model's retraining now: stop without a further effect."""


class Leases:
    """Leases by model. ``take`` and ``renew`` answer whether it is ours for the next ``lease_ms``."""

    def __init__(self, settings: RedisSettings, lease_ms: int = LEASE_MS) -> None:
        self._client: Any = redis.Redis.from_url(settings.url, socket_timeout=5, socket_connect_timeout=5)
        self._url = settings.url
        self._prefix = settings.prefix
        self._lease_ms = lease_ms
        self._token = uuid.uuid4().hex

    def check(self) -> None:
        """Raise :class:`Unavailable` when the store does not answer."""
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise Unavailable(f"no Redis answers at {self._url} ({error})", "start one, or set redis.url") from None

    def take(self, model: str) -> bool:
        """Take the lease if nobody holds it."""
        return bool(self._call(lambda: self._client.set(self._key(model), self._token, nx=True, px=self._lease_ms)))

    def renew(self, model: str) -> bool:
        """Hold it longer; False if it is no longer ours."""
        return bool(self._call(lambda: self._client.eval(RENEW, 1, self._key(model), self._token, self._lease_ms)))

    def release(self, model: str) -> None:
        """Give it back, if it is ours."""
        self._call(lambda: self._client.eval(RELEASE, 1, self._key(model), self._token))

    def close(self) -> None:
        """Leave the store."""
        self._client.close()

    def _key(self, model: str) -> str:
        return f"{self._prefix}:retrain:lease:{{{model}}}"

    def _call(self, command: Any) -> Any:
        try:
            return command()
        except redis.RedisError as error:
            raise Unavailable(f"Redis at {self._url} does not answer ({error})", "start it, or set redis.url") from None
