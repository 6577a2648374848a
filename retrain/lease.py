"""One run a model at a time, whichever process it is in: a lease in Redis that must be renewed."""

from __future__ import annotations

import uuid
from typing import Any

import redis

from streams.settings import RedisSettings
from streams.store_client import connect, store_failure

LEASE_MS = 30_000
RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class LeaseLost(Exception):
    """Another process may run this model's retraining now: stop without a further effect."""


class Leases:
    """Leases by model. ``take`` and ``renew`` answer whether it is ours for the next ``lease_ms``."""

    def __init__(self, settings: RedisSettings, lease_ms: int = LEASE_MS) -> None:
        self._client: Any = connect(settings, repeats=True)
        self._settings = settings
        self._prefix = settings.prefix
        self._lease_ms = lease_ms
        self._token = uuid.uuid4().hex

    def check(self) -> None:
        """Raise :class:`Unavailable` when the store does not answer, :class:`AccessDenied` when it refuses us."""
        try:
            self._client.ping()
        except redis.RedisError as error:
            raise store_failure(error, self._settings) from None

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
            raise store_failure(error, self._settings) from None
