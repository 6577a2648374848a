"""docker-compose.yml as far as no Docker is needed: Compose accepts it, and our services run as it says, natively."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from streams.errors import (
    AccessDenied,
    DriftlineError,
    GarbageInput,
    MissingInput,
    RestartMe,
    StateMismatch,
    Unavailable,
    WrongSetting,
)
from streams.settings import KafkaSettings, load
from streams.topics import NAMES, TopicAdmin
from tests.support.driftline import eventually
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port
from tests.support.redis import RedisServer
from tests.support.server import executable

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
ENTRYPOINT = ROOT / "ops" / "docker" / "entrypoint.sh"
DAEMONS = ("worker", "serve", "retrain")
BOUND_S = 120.0


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file as Compose understands it, anchors and short forms resolved."""
    done = subprocess.run(
        [executable("docker-compose", "docker-compose"), "-f", str(FILE), "config"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip(), done.stderr  # warnings: a variable without a value, a key out of use
    return dict(yaml.safe_load(done.stdout)["services"])


def test_compose_accepts_the_file(compose: dict[str, Any]) -> None:
    """Everything that the system needs is there."""
    assert set(compose) == {"kafka", "redis", "setup", *DAEMONS, "prometheus"}


def test_every_service_has_a_health_check_and_waits_for_its_servers(compose: dict[str, Any]) -> None:
    """Our processes start after Kafka and Redis answer and the topics exist."""
    assert all("healthcheck" in service for name, service in compose.items() if name != "setup")
    for name in DAEMONS:
        conditions = {on: wait["condition"] for on, wait in compose[name]["depends_on"].items()}
        assert conditions == {
            "kafka": "service_healthy",
            "redis": "service_healthy",
            "setup": "service_completed_successfully",
        }


def test_ports_are_published_on_the_loopback_only(compose: dict[str, Any]) -> None:
    """Nothing here asks for a password, so nothing may be reachable from another machine."""
    published = [port for service in compose.values() for port in service.get("ports", ())]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)


def test_kafka_is_the_release_that_the_tests_run_on(compose: dict[str, Any]) -> None:
    """What was tested is what is mounted."""
    pom = ElementTree.parse(ROOT / "tests" / "support" / "kafka" / "pom.xml")
    versions = {element.text for element in pom.iter() if element.tag == "version"}
    assert compose["kafka"]["image"].removeprefix("apache/kafka:") in versions


def test_the_store_keeps_what_it_is_told(compose: dict[str, Any]) -> None:
    """The flags that the worker's check demands."""
    flags = " ".join(compose["redis"]["command"])
    assert "--appendonly yes" in flags
    assert "--maxmemory-policy noeviction" in flags


def test_settings_are_settings(compose: dict[str, Any]) -> None:
    """Each DRIFTLINE_ variable names a setting and has a value that it takes."""
    for name in ("setup", *DAEMONS):
        load(environ=compose[name]["environment"])


# ---------------------------------------------------------------------------------------------------------- natively


@dataclass
class Local:
    """Where the services' addresses and folders are on this machine."""

    kafka: KafkaBroker
    redis: RedisServer
    folder: Path
    ports: dict[int, int]

    def text(self, value: str) -> str:
        """A part of a command or an environment, rewritten."""
        value = value.replace("kafka:19092", self.kafka.bootstrap).replace("redis:6379", self.redis.address)
        value = value.replace("/var/lib/driftline", str(self.folder)).replace("/tmp/", f"{self.folder}/tmp/")
        value = value.replace("0.0.0.0:", "127.0.0.1:")
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"127.0.0.1:{self.ports.get(int(m[1]), int(m[1]))}", value)

    def environment(self, service: Mapping[str, Any], name: str) -> dict[str, str]:
        """The service's environment, in a name space of its own on the tests' servers."""
        ours = {key: self.text(str(value)) for key, value in service["environment"].items()}
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DRIFTLINE_")}
        apart = {
            "DRIFTLINE_KAFKA__TOPIC_PREFIX": f"{name}.",
            "DRIFTLINE_REDIS__PREFIX": name,
            "DRIFTLINE_WORKER__GROUP": name,
            "DRIFTLINE_RETRAIN__GROUP": f"{name}-retrain",
        }
        return kept | {"PATH": tools, "NO_COLOR": "1"} | ours | apart


@pytest.fixture
def local(kafka_broker: KafkaBroker, redis_store: RedisServer, tmp_path: Path) -> Local:
    """The tests' servers and a folder."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "models").mkdir()
    return Local(kafka_broker, redis_store, tmp_path, {port: free_port() for port in (8080, 9464, 9465)})


class Service:
    """One service's command as a process of this machine."""

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path, name: str) -> None:
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [executable("setpriv", "util-linux"), "--pdeathsig", "KILL", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    def stop(self) -> int:
        """SIGTERM, as Compose does → the exit code."""
        self.process.terminate()
        return self.process.wait(BOUND_S)

    def kill(self) -> None:
        """With everything that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture
def services() -> Iterator[list[Service]]:
    """What a test starts is gone afterwards."""
    started: list[Service] = []
    yield started
    for service in started:
        service.kill()


def healthy(service: Mapping[str, Any], local: Local, environment: dict[str, str]) -> bool:
    """Run the service's health check as Compose would."""
    kind, *rest = service["healthcheck"]["test"]
    parts = [local.text(part) for part in rest]
    argv = ["/bin/sh", "-c", *parts] if kind == "CMD-SHELL" else parts
    return subprocess.run(argv, env=environment, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", DAEMONS)
def test_a_service_runs_natively_as_the_file_says(
    compose: dict[str, Any], local: Local, services: list[Service], deployment: str, name: str
) -> None:
    """Topics by `setup`, then the command behind its entrypoint until its own health check passes; SIGTERM ends it."""
    setup = [local.text(part) for part in compose["setup"]["command"]]
    environment = local.environment(compose["setup"], deployment)
    done = subprocess.run(setup, env=environment, cwd=local.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kafka = KafkaSettings(bootstrap=local.kafka.bootstrap, topic_prefix=f"{deployment}.")
    assert len(TopicAdmin(load(environ={})[0].model_copy(update={"kafka": kafka})).verify()) == len(NAMES)

    environment = local.environment(compose[name], deployment)
    assert compose[name]["entrypoint"] == ["entrypoint"]
    service = Service(
        [str(ENTRYPOINT), *(local.text(part) for part in compose[name]["command"])], environment, local.folder, name
    )
    services.append(service)
    assert not (local.folder / "tmp" / "ready").exists()
    eventually(
        lambda: healthy(compose[name], local, environment) or service.process.poll() is not None,
        f"{name} is healthy, or ended",
        BOUND_S,
    )
    assert service.process.poll() is None, service.log.read_text()
    assert service.stop() == 0, service.log.read_text()
    assert not healthy(compose[name], local, environment)


# -------------------------------------------------------------------------------------------------------- entrypoint


@pytest.mark.parametrize("code", [0, 1, RestartMe.exit_code, Unavailable.exit_code, DriftlineError.exit_code])
def test_the_entrypoint_ends_with_what_a_restart_can_mend(code: int) -> None:
    """Compose restarts the container then."""
    done = subprocess.run([str(ENTRYPOINT), "sh", "-c", f"exit {code}"], check=False, timeout=BOUND_S)
    assert done.returncode == code


@pytest.mark.parametrize("error", [WrongSetting, MissingInput, GarbageInput, AccessDenied, StateMismatch])
def test_the_entrypoint_stays_when_a_person_must_act(
    error: type[DriftlineError], tmp_path: Path, services: list[Service]
) -> None:
    """No restart for ever: it says so, waits for SIGTERM, and ends with the process's own code."""
    service = Service([str(ENTRYPOINT), "sh", "-c", f"exit {error.exit_code}"], dict(os.environ), tmp_path, "held")
    services.append(service)
    eventually(lambda: "a restart would not help" in service.log.read_text(), "it says so")
    assert service.process.poll() is None
    assert service.stop() == error.exit_code


def test_the_entrypoint_passes_a_stop_on_and_waits(tmp_path: Path, services: list[Service]) -> None:
    """The process's own stop, offsets and all, is not cut short."""
    script = "trap 'echo stopping; sleep 0.3; echo stopped; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    service = Service([str(ENTRYPOINT), "sh", "-c", script], dict(os.environ), tmp_path, "stop")
    services.append(service)
    eventually(lambda: "up" in service.log.read_text(), "it runs")
    assert service.stop() == 0
    assert "stopped" in service.log.read_text()


# ------------------------------------------------------------------------------------------------------------- image


def test_the_image_gets_every_file_that_it_copies() -> None:
    """What the Dockerfile copies exists and passes .dockerignore, which lets nothing else in."""
    copied = {
        source
        for line in (ROOT / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for source in [part for part in line.split()[1:] if not part.startswith("--")][:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert copied == allowed
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_has_the_packages_and_the_python_of_the_project() -> None:
    """A package that is added later must not be forgotten here."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    packages = {path.parent.name for path in ROOT.glob("*/commands.py")} | {"detectors", "native"}
    assert packages <= {line.split()[1] for line in dockerfile.splitlines() if line.startswith("COPY ")}
    assert "FROM python:3.11-slim" in dockerfile
    assert "--require-hashes" in dockerfile
    assert re.search(r"^USER driftline$", dockerfile, re.MULTILINE)
