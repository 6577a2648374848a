"""The Redis client of every process: how it connects, what it demands of the store, what a refusal means."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from streams.configuration import masked
from streams.credentials import redis_context, redis_options
from streams.errors import AccessDenied, DriftlineError, StateMismatch, Unavailable, WrongSetting
from streams.settings import RedisSettings

SOCKET_TIMEOUT_S = 5.0
ANSWER_S = 1.0
CUT_TIMEOUT_S = 0.1


class Lifeline:
    """Cuts a client off its store from another thread, for good: whoever waits for an answer gets an error at once.

    redis-py connects again where it only wants to say UNWATCH, and would wait for that once more: once it is cut, no
    new connection comes to life. Thread-safe.
    """

    def __init__(self) -> None:
        self._cut = False
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[redis.Connection] = weakref.WeakSet()

    def connected(self, connection: redis.Connection) -> None:
        """What redis-py calls with a connection whose socket has just been opened."""
        with self._lock:
            if self._cut:
                raise redis.ConnectionError("the store has been given up")
            self._connections.add(connection)
        connection.on_connect()  # type: ignore[no-untyped-call]  # redis-py's own way to begin, which ours replaces

    def cut(self) -> None:
        """Shut every connection down.

        Of redis-py's state nothing is touched: only the socket ends, as if the store had closed it, and the thread
        that waits for it does the rest.
        """
        with self._lock:
            self._cut = True
            for connection in self._connections:
                # Ours is asked only when a connection stands: a host that is gone does not refuse one, and a server
                # that stands still does not shake hands over TLS.
                connection.socket_connect_timeout = connection.socket_timeout = CUT_TIMEOUT_S
                if (sock := connection._sock) is not None:
                    with contextlib.suppress(OSError):  # it has ended by itself
                        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's: its reader still uses that


def connect(settings: RedisSettings, *, repeats: bool = False, lifeline: Lifeline | None = None) -> redis.Redis:
    """A client that never retries by itself: a repeated write is decided by the compare-and-set, not by a socket.

    ``repeats`` leaves that to the client, for commands that may be sent twice; ``lifeline`` can cut it off. Nothing is
    sent yet. Raises :class:`WrongSetting` for a URL that is none, and what
    :func:`streams.credentials.redis_options` raises.
    """
    options = redis_options(settings) | ({} if repeats else {"retry": Retry(NoBackoff(), 0)})
    if lifeline is not None:
        options["redis_connect_func"] = lifeline.connected
    try:
        return redis.Redis.from_url(
            settings.url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            health_check_interval=0,
            **options,
        )
    except ValueError as error:
        raise WrongSetting(f"redis.url: {error}", "write it like redis://127.0.0.1:6379/0") from None


def store_refusal(error: redis.RedisError) -> AccessDenied | None:
    """What an error says of our rights, in one line with what to do; None if it says nothing of them."""
    text = str(error).rpartition(" of pipeline caused error: ")[2]  # redis-py names the command with all it carries
    if isinstance(error, redis.exceptions.NoPermissionError):
        return AccessDenied(f"the store does not permit it: {text}", "`driftline acls` prints the user that it takes")
    if isinstance(error, redis.exceptions.AuthenticationError):
        return AccessDenied(
            f"the store refuses to log us in: {text}", "check redis.username and its password, or those in redis.url"
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return AccessDenied(
            f"the store's certificate is not trusted: {text}",
            "set redis.ca_file to its authority, and name the host in redis.url as its certificate does",
        )
    if "[SSL: " in text and "ALERT" in text:
        return AccessDenied(
            f"the store does not accept our certificate: {text}",
            "set redis.certificate_file and redis.key_file to a pair that the store's authority signed",
        )
    return None


def store_failure(error: redis.RedisError, settings: RedisSettings) -> DriftlineError:
    """An error of the store as one of ours: :class:`AccessDenied` if it refuses us, else :class:`Unavailable`."""
    denied = store_refusal(error)
    if denied is None and isinstance(error, redis.ConnectionError) and settings.url.startswith("rediss://"):
        denied = _turned_away(settings)
    return denied or Unavailable(
        f"no Redis answers at {masked(settings.url)} ({error})", "start one, or set redis.url (rediss:// with TLS)"
    )


def _turned_away(settings: RedisSettings) -> AccessDenied | None:
    """Ask a store that closed the connection whether it was for our certificate; blocking, a second at most.

    TLS 1.3 says so only after the handshake, and a client that has begun to write by then sees a broken connection.
    """
    at = urlsplit(settings.url)
    host = at.hostname or "localhost"
    try:
        with (
            socket.create_connection((host, at.port or 6379), ANSWER_S) as plain,
            redis_context(settings).wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            encrypted.recv(1)
    except ssl.SSLError as error:
        return store_refusal(redis.ConnectionError(str(error)))
    except OSError:
        return None  # gone, or silent: it waits for us to speak, so it has accepted us
    return None


def require_durable(client: redis.Redis, settings: RedisSettings) -> None:
    """Refuse a store that could forget or evict state.

    Read by INFO, since managed stores refuse CONFIG. Raises :class:`Unavailable`, :class:`AccessDenied` or
    :class:`StateMismatch`.
    """
    try:
        info: Mapping[str, Any] = client.info()
    except redis.RedisError as error:
        raise store_failure(error, settings) from None
    if settings.allow_volatile:
        return
    if not int(info.get("aof_enabled", 0)):
        raise StateMismatch(
            "the store keeps no append-only file: a crash of it would lose state",
            "start it with `--appendonly yes`, or set redis.allow_volatile=true to accept the loss",
        )
    if info.get("maxmemory_policy", "noeviction") != "noeviction":
        raise StateMismatch(
            f"the store evicts keys when it is full (maxmemory-policy {info['maxmemory_policy']})",
            "set `maxmemory-policy noeviction`, or redis.allow_volatile=true to accept the loss",
        )
