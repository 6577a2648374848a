"""`driftline doctor`: one check a line, and how to mend what fails. Changes nothing."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

import fsspec
import msgspec
import redis
from rich.console import Console
from rich.markup import escape

from native.library import state as inner_loops
from streams import diagnosis
from streams.configuration import masked
from streams.credentials import kafka_access
from streams.errors import AccessDenied, DriftlineError, StateMismatch, Unavailable, WrongSetting
from streams.kafka import TopicReader, is_readable
from streams.permissions import PROCESSES, Process, missing, require
from streams.settings import RedisSettings, Settings
from streams.store_client import connect, require_durable, store_failure
from streams.topics import TopicAdmin, Topics, specs

PATIENCE_S = 5.0
"""For the broker; a person waits for the answer."""
METRICS_S = 2.0
METRICS_BYTES = 1_000_000
EXACT = ("aiokafka", "faust-streaming")
"""The worker reaches into these two: other releases than the declared ones are not checked against it."""


class Check(msgspec.Struct, frozen=True):
    """What was looked at and found. ``hint`` says how to mend it, if it is not ``ok``."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


def examine(settings: Settings, process: Process | None = None) -> list[Check]:
    """Run every check; blocking, some seconds if something does not answer.

    The broker's user must suffice for ``process``, or for any one process if it is None.
    """
    return list(_checks(settings, process))


def _checks(settings: Settings, process: Process | None) -> Iterator[Check]:
    patience = min(PATIENCE_S, settings.kafka.request_timeout_s)
    hasty = settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"request_timeout_s": patience})})
    counts: dict[str, int] = {}

    def broker() -> str:
        TopicAdmin(hasty).partition_counts()
        access = kafka_access(settings.kafka)
        name = f" as {access.username}" if access.username else " by certificate" if not access.anonymous else ""
        return f"answers at {settings.kafka.bootstrap} ({access.protocol}{name})"

    def topics() -> str:
        counts.update(TopicAdmin(hasty).verify())
        return ", ".join(f"{name} {n}" for name, n in counts.items())

    reachable = _checked("broker", broker)
    yield reachable
    if reachable.ok and not kafka_access(settings.kafka).anonymous:
        yield _checked("permissions", lambda: _permissions(hasty, process))
    yield _checked("topics", topics) if reachable.ok else Check("topics", False, "not looked at", "mend the broker")
    store = _checked("store", lambda: _store(settings.redis))
    yield store
    if store.ok:
        yield _checked("store memory", lambda: diagnosis.memory(_info(settings.redis)))
        yield _checked("store disk", lambda: diagnosis.disk(_info(settings.redis)))
    if counts:
        yield _checked("topic configuration", lambda: _configuration(hasty))
    if store.ok and counts:
        yield _checked("layout", lambda: layout(counts, _stored_layout(settings.redis)))
        yield _checked("offsets", lambda: _offsets(hasty))
    yield _checked("model repository", lambda: _repository(settings.repository))
    for section in ("worker", "serve", "retrain"):
        yield _checked(f"{section}.http", lambda at=section: _port(f"{at}.http", getattr(settings, at).http))  # type: ignore[misc]
    yield Check("inner loops", True, inner_loops())
    for package in EXACT:
        yield _checked(package, lambda of=package: version(of, metadata.version(of), _declared()))  # type: ignore[misc]


def _checked(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except DriftlineError as error:
        return Check(name, False, error.message, error.hint)


def _permissions(settings: Settings, process: Process | None) -> str:
    """Which processes the broker's user suffices for. Raises :class:`AccessDenied` if that is not enough."""
    if process is not None:
        require(settings, process)
        return f"Kafka permits what {process} does"
    lacking = {each: missing(settings, each) for each in PROCESSES}
    if enough := [each for each, missed in lacking.items() if not missed]:
        return f"Kafka permits what these do: {', '.join(enough)}"
    nearest = min(lacking, key=lambda each: len(lacking[each]))
    raise AccessDenied(
        f"the Kafka user suffices for no process; {nearest} lacks {', '.join(lacking[nearest])}",
        "grant what `driftline acls PROCESS` prints; `driftline doctor --process PROCESS` checks it",
    )


def _store(settings: RedisSettings) -> str:
    require_durable(connect(settings), settings)
    return f"answers at {masked(settings.url)}" + ("" if settings.allow_volatile else ", keeps what it is told")


def _info(settings: RedisSettings) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = connect(settings).info()
    except redis.RedisError as error:
        raise Unavailable(f"the store does not answer: {error}", "check redis.url") from None
    return info


def _configuration(settings: Settings) -> str:
    found = TopicAdmin(settings).configurations()
    return diagnosis.configuration(specs(settings), found, int(settings.worker.horizon_s * 1000))


def _offsets(settings: Settings) -> str:
    topics = Topics(settings.kafka.topic_prefix)
    try:
        positions = diagnosis.stored_positions(connect(settings.redis), settings.redis.prefix, topics)
    except redis.RedisError as error:
        raise Unavailable(f"the store does not answer: {error}", "check redis.url") from None
    logs: dict[tuple[str, int], tuple[int, int]] = {}
    for topic in (topics.predictions, topics.outcomes, topics.summaries):
        with TopicReader(settings.kafka, topic) as reader:
            logs |= {(topic, p): (low, reader.first_ends[p]) for p, low in reader.next.items()}
    for at in positions:  # an embedded broker tells end offsets that are too low
        low, end = logs.get((at.topic, at.partition), (0, 0))
        if at.offset > end and is_readable(settings.kafka, at.topic, at.partition, at.offset):
            logs[at.topic, at.partition] = low, at.offset
    return diagnosis.offsets(positions, logs)


def _stored_layout(settings: RedisSettings) -> dict[str, int]:
    try:
        fields = connect(settings).hgetall(f"{settings.prefix}:layout")
    except redis.RedisError as error:
        raise store_failure(error, settings) from None
    return {_text(name): int(count) for name, count in fields.items()}


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def layout(counts: Mapping[str, int], stored: Mapping[str, int]) -> str:
    """Compare the topics' partition counts with those that the state in the store was made for.

    Raises :class:`StateMismatch` if one has changed.
    """
    changed = [f"{name} had {stored[name]}, has {n}" for name, n in counts.items() if stored.get(name, n) != n]
    if changed:
        raise StateMismatch(
            f"partition counts have changed: {', '.join(changed)}",
            "let everything pending be joined, then run `driftline topics accept`",
        )
    return "as when this deployment began" if stored else "no worker has started yet"


def _repository(url: str) -> str:
    try:
        files, path = fsspec.core.url_to_fs(url)
        if not files.exists(path):
            return f"{masked(url)} does not exist yet: `driftline train` makes it"
        found = files.ls(path, detail=False)
    except Exception as error:  # noqa: BLE001 - every object store raises classes of its own
        raise Unavailable(
            f"{masked(url)} cannot be read: {type(error).__name__}: {error}",
            "check repository, its credentials, and that the fsspec implementation of its protocol is installed",
        ) from None
    return f"{masked(url)} is readable ({len(found)} entries)"


def _port(setting: str, address: str) -> str:
    host, _, text = address.rpartition(":")
    if not host or not text.isdecimal():
        raise WrongSetting(f"{address} is not host:port", f"set {setting}")
    port = int(text)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            if _is_ours(address):
                return f"{address} is a running driftline"
            raise Unavailable(
                f"{address} cannot be listened on: {error.strerror or error}",
                f"stop what uses it, or set {setting}=HOST:PORT",
            ) from None
    return f"{address} is free"


def _is_ours(address: str) -> bool:
    """Whether a process of ours answers there."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=METRICS_S) as answer:
            return b"driftline_" in answer.read(METRICS_BYTES)
    except (OSError, ValueError):  # refused, no HTTP, no answer in time
        return False


def version(package: str, installed: str, declared: Sequence[str]) -> str:
    """Compare an installed release with the exact one that ``declared`` requirements name.

    Raises :class:`StateMismatch` if they differ.
    """
    for requirement in declared:
        name, exactly, wanted = requirement.partition(";")[0].replace(" ", "").partition("==")
        if name == package and exactly and wanted != installed:
            raise StateMismatch(
                f"{installed} is installed, {wanted} is required", f"run `pip install {package}=={wanted}`"
            )
    return installed


def _declared() -> list[str]:
    try:
        return metadata.requires("driftline") or []
    except metadata.PackageNotFoundError:
        raise Unavailable("driftline itself is not installed", "run `pip install .` or `make install`") from None


def render(checks: Sequence[Check], console: Console) -> None:
    """Print a line for each check, and a hint below each that failed."""
    for check in checks:
        mark = "[green]✓[/]" if check.ok else "[red]✗[/]"
        console.print(f"{mark} {escape(check.name)}: {escape(check.detail)}", soft_wrap=True)
        if check.hint:
            console.print(f"  → {escape(check.hint)}", soft_wrap=True)
