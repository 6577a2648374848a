"""Driftline's commands as a user starts them, on the tests' servers: processes that are always stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from streams import codec
from streams.audit_log import newest_cuts
from streams.events import MODEL_EVENT_TYPE, Alert, ModelEvent, ModelState
from streams.kafka import TopicReader
from streams.log import Record
from streams.records import Counters, Labelled
from streams.settings import Settings, load
from streams.topics import TopicAdmin, Topics
from tests.support.kafka import KafkaBroker
from tests.support.producer import RECORDED, EventProducer
from tests.support.redis import RedisServer
from tests.support.server import executable

BOUND_S = 120.0
COMMAND = Path(sys.executable).with_name("driftline")
JOIN = b"driftline/join"
"""Source of the model events that a worker writes: every worker writes them anew."""
T = TypeVar("T")

Pair = tuple[int, int, int, str, str, Any]
"""Partition, prediction's offset, outcome's offset, model, version, outcome."""


def eventually(condition: Callable[[], T], what: str, bound_s: float = BOUND_S, poll_s: float = 0.1) -> T:
    """Poll until ``condition`` gives something true → what it gave."""
    deadline = time.monotonic() + bound_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {bound_s:g} s: {what}; the last answer was {found!r}")
        time.sleep(poll_s)


class Process:
    """One command that runs, with its log. The kernel kills it when the thread that started it ends."""

    def __init__(self, arguments: list[str], folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.ready = folder / f"{name}.ready"
        self.ready.unlink(missing_ok=True)
        with self.log.open("ab") as log, (folder / f"{name}.out").open("wb") as out:
            self._process = subprocess.Popen(
                [executable("setpriv", "util-linux"), "--pdeathsig", "KILL", str(COMMAND), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=folder,
                env={k: v for k, v in os.environ.items() if not k.startswith("DRIFTLINE_")} | {"NO_COLOR": "1"},
            )
        self.out = folder / f"{name}.out"

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int:
        """How it ended, negative for a signal. Raises :class:`AssertionError` while it runs."""
        if (code := self._process.poll()) is None:
            raise AssertionError(f"{self.name} still runs")
        return code

    @property
    def pid(self) -> int:
        return self._process.pid

    def started(self, bound_s: float = BOUND_S) -> Self:
        """Wait until its ready file is there."""
        eventually(lambda: self.ready.exists() or not self.is_running, f"{self.name} is ready: {self.tail()}", bound_s)
        if not self.is_running:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}: {self.tail()}")
        return self

    @property
    def url(self) -> str:
        """What its ready file says."""
        return self.ready.read_text().strip()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        self._process.kill()
        self._process.wait()

    def freeze(self) -> None:
        """SIGSTOP: it stands still, and its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: it goes on, and knows nothing of the time that has passed."""
        self._process.send_signal(signal.SIGCONT)

    def signal_termination(self) -> None:
        """SIGTERM, as a supervisor; does not wait."""
        self._process.terminate()

    def terminate(self, bound_s: float = BOUND_S) -> int:
        """SIGTERM, as a supervisor → its exit code."""
        self.signal_termination()
        return self.wait(bound_s)

    def wait(self, bound_s: float = BOUND_S) -> int:
        """Wait until it ends → its exit code."""
        try:
            return self._process.wait(bound_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {bound_s:g} s: {self.tail()}") from None

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of one event."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if isinstance(told, dict) and told.get("event") == name:
                    found.append(told)
        return found

    def metric(self, name: str, over: Callable[[Iterable[float]], float] = max) -> float:
        """A metric of its /metrics, over all of its series; 0 without any."""
        with urllib.request.urlopen(self.url, timeout=30) as response:
            families = text_string_to_metric_families(response.read().decode())
            values = [sample.value for family in families for sample in family.samples if sample.name == name]
        return over(values) if values else 0.0

    def said(self) -> str:
        """Everything on its stderr that is no JSON line of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if not line.startswith("{"))

    def reasons(self) -> list[str]:
        """The lines that say why it ended: one, unless something is wrong."""
        return [line for line in self.said().splitlines() if line.startswith("driftline: ")]

    def tail(self, lines: int = 25) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Driftline:
    """One deployment: a name space on the servers, its settings, topics and processes."""

    def __init__(
        self, broker: KafkaBroker, store: RedisServer, name: str, folder: Path, **changes: str | int | float
    ) -> None:
        self.broker = broker
        self.store = store
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self.flags: dict[str, str] = {
            "kafka.bootstrap": broker.bootstrap,
            "kafka.topic_prefix": f"{name}.",
            "kafka.session_timeout_s": "3",
            "kafka.heartbeat_s": "0.5",
            "kafka.request_timeout_s": "10",
            "redis.url": store.url,
            "redis.prefix": name,
            "worker.group": name,
            "worker.http": "127.0.0.1:0",
            "worker.checkpoint_s": "0.3",
            "retrain.group": f"{name}-retrain",
            "retrain.http": "127.0.0.1:0",
            "serve.http": "127.0.0.1:0",
            "repository": str(self.folder / "models"),
        } | {key.replace("__", "."): str(value) for key, value in changes.items()}
        self.settings: Settings = load(environ={}, flags=self.flags)[0]
        self.topics = Topics(f"{name}.")
        self.processes: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill every process."""
        for process in self.processes:
            process.kill()

    # --------------------------------------------------------------------------------------------------- processes

    def create_topics(self) -> Self:
        """Make the topics, as the first worker would."""
        TopicAdmin(self.settings).create()
        return self

    def start(self, *command: str, **changes: str | int | float) -> Process:
        """Start ``driftline … command``; ``changes`` are settings, ``worker__checkpoint_s=1``."""
        flags = self.flags | {key.replace("__", "."): str(value) for key, value in changes.items()}
        arguments = [part for key, value in flags.items() for part in ("--set", f"{key}={value}")]
        process = Process([*arguments, *command], self.folder, f"{command[0]}-{len(self.processes)}")
        self.processes.append(process)
        return process

    def daemon(self, *command: str, **changes: str | int | float) -> Process:
        """Start a command that says in a file when it is ready; does not wait."""
        ready = self.folder / f"{command[0]}-{len(self.processes)}.ready"
        return self.start(*command, "--ready-file", str(ready), **changes)

    def worker(self, **changes: str | int | float) -> Process:
        """A worker that is ready."""
        return self.daemon("worker", **changes).started()

    def run(self, *command: str, bound_s: float = BOUND_S, **changes: str | int | float) -> str:
        """Run a command to its end → its stdout; anything but exit code 0 is an error."""
        process = self.start(*command, **changes)
        code = process.wait(bound_s)
        if code:
            raise AssertionError(f"driftline {' '.join(command)} ended with {code}: {process.tail()}")
        return process.out.read_text()

    # ------------------------------------------------------------------------------------------------------ inputs

    def take_log_of(self, other: Driftline) -> None:
        """Copy the recorded inputs of another deployment, record times and all; only before a worker has run."""
        for name in ("predictions", "outcomes"):
            records = other.read(getattr(other.topics, name))
            topic = getattr(self.topics, name)
            self.broker.create_topic(topic, other.settings.kafka.partitions, RECORDED)
            with EventProducer(self.broker.bootstrap) as producer:
                producer.copy(records, topic)
            if _places(self.read(topic)) != _places(records):
                raise AssertionError(f"{topic} is no copy of the other log")
        self.create_topics()
        events = [r for r in other.read(other.topics.model_events) if dict(r.headers)["ce_source"] != JOIN]
        with EventProducer(self.broker.bootstrap) as producer:
            producer.copy(events, self.topics.model_events)

    def announce(self, state: ModelState) -> None:
        """Publish a model event as the retrain loop would."""
        event = ModelEvent("registered", state)
        with EventProducer(self.broker.bootstrap) as producer:
            producer.send(
                self.topics.model_events,
                codec.encode(event),
                state.model,
                headers=codec.headers(MODEL_EVENT_TYPE.format(what="registered"), "tests"),
            )

    # ------------------------------------------------------------------------------------------------- what it says

    def read(self, topic: str) -> list[Record]:
        """Every record of a topic, in offset order a partition."""
        with TopicReader(self.settings.kafka, topic) as reader:
            return list(reader.read_to_end())

    def counters(self) -> Counters:
        """The counters of the newest cuts, summed over the partitions."""
        total = Counters()
        for cut, _ in newest_cuts(self.settings.kafka, self.topics.checkpoints).values():
            for field in Counters.__struct_fields__:
                setattr(total, field, getattr(total, field) + getattr(cut.counters, field))
        return total

    def stored_counters(self) -> Counters:
        """The same from the store: cheap enough to be asked often."""
        total = Counters()
        with self.store.client() as client:
            for key in client.scan_iter(f"{self.name}:{{join:*}}:meta"):
                stored = client.hget(key, "counters")
                found = msgspec.json.decode(stored or b"{}", type=Counters)
                for field in Counters.__struct_fields__:
                    setattr(total, field, getattr(total, field) + getattr(found, field))
        return total

    def watermark_ms(self) -> int:
        """How far the monitor of every partition has come; 0 while one has not begun, or has alerts to publish."""
        watermarks = []
        with self.store.client() as client:
            for partition in range(self.settings.kafka.partitions):
                key = f"{self.name}:{{monitor:{partition}}}"
                stored = int(client.hget(f"{key}:meta", "watermark_ms") or 0)
                # Both are stored together, and an alert stays until the broker has acknowledged it.
                watermarks.append(0 if client.hlen(f"{key}:outbox") else stored)
        return min(watermarks)

    def status(self) -> dict[str, dict[str, Any]]:
        """The monitor's report of each model, from the store."""
        with self.store.client() as client:
            return {key.decode(): json.loads(value) for key, value in client.hgetall(f"{self.name}:status").items()}

    def pairs(self) -> set[Pair]:
        """The distinct pairs that were published."""
        return {pair for pair, _ in self.labelled()}

    def labelled(self) -> Iterator[tuple[Pair, Record]]:
        """Every labelled row that was published, repeated ones too."""
        for record in self.read(self.topics.labelled):
            labelled = msgspec.msgpack.decode(record.value or b"", type=Labelled)
            for row in labelled.rows():
                yield (
                    (
                        labelled.partition,
                        row.prediction_offset,
                        row.outcome_offset,
                        labelled.models[row.model],
                        labelled.versions[row.version],
                        row.outcome,
                    ),
                    record,
                )

    def alerts(self) -> dict[str, Alert]:
        """Alerts by their CloudEvents id; one that was published again must say the same."""
        found: dict[str, bytes] = {}
        for record in self.read(self.topics.alerts):
            identity = (dict(record.headers)["ce_id"] or b"").decode()
            value = record.value or b""
            if found.setdefault(identity, value) != value:
                raise AssertionError(f"alert {identity} was published twice with different contents")
        return {identity: msgspec.json.decode(value, type=Alert) for identity, value in found.items()}

    def dead_letters(self) -> list[tuple[str, Record]]:
        """Dead letters with their reasons."""
        return [
            ((dict(record.headers)["driftline_reason"] or b"").decode(), record)
            for record in self.read(self.topics.dead_letters)
        ]


def _places(records: list[Record]) -> list[tuple[int, int, int, bytes | None]]:
    return sorted(((r.partition, r.offset, r.at_ms, r.value) for r in records), key=lambda place: place[:2])
