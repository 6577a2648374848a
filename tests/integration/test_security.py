"""Every process against a Kafka and a Redis that demand TLS, a user and permissions: it works with exactly what
`driftline acls` prints, and is told what is wrong in one line without a secret."""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import urllib.request
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from serving.repository import Repository
from streams.permissions import PROCESSES, Process, kafka_commands, redis_user
from streams.settings import Settings
from tests.integration.test_retrain import Deployment as RetrainDeployment
from tests.support.certificates import Authority
from tests.support.driftline import Driftline, eventually
from tests.support.driftline import Process as Started
from tests.support.producer import EventProducer, outcome, prediction
from tests.support.secure_kafka import SecureKafkaBroker
from tests.support.secure_redis import ADMIN_PASSWORD, SecureRedisServer
from tests.unit.serving import models

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]  # each starts many processes
PASSWORDS = {f"driftline-{process}": f"{process}-{secrets.token_hex(8)}" for process in PROCESSES}
"""Of every user, on Kafka and on Redis."""
ROWS = 300


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure_broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecureKafkaBroker]:
    with SecureKafkaBroker(tmp_path_factory.mktemp("secure-kafka"), authority, PASSWORDS) as broker, broker.relay:
        yield broker


@pytest.fixture(scope="module")
def secure_store(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecureRedisServer]:
    with SecureRedisServer(tmp_path_factory.mktemp("secure-redis"), authority) as store:
        yield store


class Secured:
    """A deployment on these servers whose users may do what `driftline acls` prints for them, and nothing else."""

    def __init__(self, broker: SecureKafkaBroker, store: SecureRedisServer, name: str, folder: Path) -> None:
        self.broker = broker
        self.store = store
        self.folder = folder
        self._files: dict[str, Path] = {}
        for user, password in PASSWORDS.items():
            self._files[user] = folder / f"{user}.password"
            self._files[user].write_text(f"{password}\n")
        self.driftline = Driftline(broker, store, name, folder, **self.login("audit"))
        for process in PROCESSES:
            self.grant(process)

    @property
    def settings(self) -> Settings:
        return self.driftline.settings

    def login(self, process: Process, **changes: str) -> dict[str, Any]:
        """The settings by which a process is its user, on both servers."""
        user, ca = f"driftline-{process}", str(self.broker.authority.ca)
        return {
            "kafka__ca_file": ca,
            "kafka__username": user,
            "kafka__password_file": str(self._files[user]),
            "redis__ca_file": ca,
            "redis__username": user,
            "redis__password_file": str(self._files[user]),
        } | changes

    def grant(self, process: Process) -> None:
        """Grant what is printed, read as the two servers' own tools would read it."""
        user = f"driftline-{process}"
        for command in kafka_commands(self.settings, process, user):
            self.broker.allow(bindings(command))
        if (line := redis_user(self.settings, process, user)) is not None:
            digest = hashlib.sha256(PASSWORDS[user].encode()).hexdigest()
            with self.store.client() as client:
                client.execute_command("ACL", "SETUSER", *line.replace("SHA256-OF-THE-PASSWORD", digest).split()[1:])

    def producer(self) -> EventProducer:
        """A producer that may write anything."""
        config = self.broker.client_config()
        return EventProducer(str(config.pop("bootstrap.servers")), **config)

    def publish_pairs(self, name: str, rows: int = ROWS) -> None:
        """Predictions and their outcomes."""
        with self.producer() as producer:
            for i in range(rows):
                producer.send(self.driftline.topics.predictions, prediction(f"{name}-{i}", name, i % 2))
                producer.send(self.driftline.topics.outcomes, outcome(f"{name}-{i}", 1))

    def denied(self) -> list[str]:
        """What the store has refused to our users. That it does not take a client's name is no loss."""
        with self.store.client() as client:
            told: list[dict[bytes, bytes]] = client.execute_command("ACL", "LOG")
        return [str(each) for each in told if not each[b"object"].startswith(b"client|")]

    def require_refusals(self, *cases: tuple[str, Mapping[str, Any], int, str]) -> None:
        """Each command with its settings ends with its exit code and one line that has its words."""
        for few in (cases[at : at + 4] for at in range(0, len(cases), 4)):  # side by side, and not too many
            started = [(self.driftline.start(name, **changes), code, says) for name, changes, code, says in few]
            for process, code, says in started:
                assert says in ended(process, code)

    def require_no_secret(self) -> None:
        """No password is in anything that a process wrote or was started with."""
        for file in self.folder.rglob("*"):
            if file.is_file() and file not in self._files.values():
                written = file.read_bytes()
                for password in (*PASSWORDS.values(), ADMIN_PASSWORD):
                    assert password.encode() not in written, file


def bindings(command: str) -> list[AclBinding]:
    """What a command of kafka-acls.sh adds."""
    words = shlex.split(command)
    assert words[0] == "kafka-acls.sh"
    assert "--add" in words
    given: dict[str, list[str]] = {}
    for name, value in pairwise(words):
        given.setdefault(name, []).append(value)
    (principal,) = given["--allow-principal"]
    resources = [(ResourceType.TOPIC, name) for name in given.get("--topic", [])]
    resources += [(ResourceType.GROUP, name) for name in given.get("--group", [])]
    operations = {operation.name.replace("_", "").lower(): operation for operation in AclOperation}
    return [
        AclBinding(
            kind, name, ResourcePatternType.LITERAL, principal, "*", operations[text.lower()], AclPermissionType.ALLOW
        )
        for kind, name in resources
        for text in given["--operation"]
    ]


def filter_of(binding: AclBinding) -> AclBindingFilter:
    """What finds exactly this one."""
    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


@pytest.fixture
def secured(
    secure_broker: SecureKafkaBroker, secure_store: SecureRedisServer, deployment: str, tmp_path: Path
) -> Iterator[Secured]:
    made = Secured(secure_broker, secure_store, deployment, tmp_path)
    with secure_store.client() as client:
        client.execute_command("ACL", "LOG", "RESET")
    with made.driftline:
        yield made


def test_every_process_works_with_exactly_what_is_printed(secured: Secured) -> None:
    """SCRAM over TLS, and nobody may more than `driftline acls` says: topics, join, serving, alerts, audit, doctor."""
    driftline = secured.driftline
    assert "predictions" in driftline.run("topics", "create", **secured.login("topics"))
    driftline.run("topics", "verify", **secured.login("topics", kafka__sasl_mechanism="SCRAM-SHA-256"))
    worker = driftline.worker(**secured.login("worker"))
    secured.publish_pairs("loans")
    eventually(lambda: driftline.stored_counters().joined == ROWS, "the pairs are joined")

    models.serve_first(Repository(driftline.settings.repository), "loan", models.binary())
    serve = driftline.daemon("serve", **secured.login("serve")).started()
    identity = infer(serve.url)
    found = eventually(
        lambda: [r for r in driftline.read(driftline.topics.predictions) if identity.encode() in (r.value or b"")],
        "what was answered is published",
    )
    assert len(found) == 1

    retrain = driftline.daemon("retrain", **secured.login("retrain")).started()
    with secured.producer() as producer:
        producer.send(driftline.topics.alerts, {"labels": {}}, "nobody")
    eventually(lambda: 'driftline_retrain_alerts_total{result="undecodable"} 1.0' in page(retrain.url), "it is read")

    audit = secured.login("audit")
    eventually(lambda: driftline.counters().joined == ROWS, "the cuts tell of them")
    assert json.loads(driftline.run("audit", "--follow-to-end", "--json", **audit))["conserved"]
    assert [m["model"] for m in json.loads(driftline.run("status", "--json", **audit))["models"]] != []
    shown = {each["name"]: each["value"] for each in json.loads(driftline.run("config", "show", "--json", **audit))}
    assert shown["kafka.username"] == "driftline-audit"
    checks = examined(driftline, **audit)
    assert all(check["ok"] for check in checks.values()), checks
    assert "(SASL_SSL as driftline-audit)" in checks["broker"]["detail"]
    assert checks["permissions"]["detail"] == "Kafka permits what these do: audit"
    for process, login in (("worker", secured.login("worker")), ("retrain", secured.login("retrain"))):
        checks = examined(driftline, "--process", process, **login)
        assert all(check["ok"] for check in checks.values()), checks
    for running in (worker, serve, retrain):
        assert running.terminate() == 0, running.tail()
    assert secured.denied() == []
    secured.require_no_secret()


def test_a_retrain_run_promotes_with_exactly_what_is_printed(secured: Secured, authority: Authority) -> None:
    """Its whole way: the alert, the labelled pairs, the predictions' features, the lease, the model events."""
    admin = secured.broker.client_config()
    deployed = RetrainDeployment(
        secured.broker,
        secured.store,
        secured.driftline.name,
        secured.folder / "retrain",
        bootstrap=secured.broker.mtls,
        ca_file=str(authority.ca),
        certificate_file=str(admin["ssl.certificate.location"]),
        key_file=str(admin["ssl.key.location"]),
    )
    group = {"retrain.group": secured.driftline.flags["retrain.group"], "kafka.bootstrap": secured.broker.bootstrap}
    login = {name.replace("__", "."): value for name, value in secured.login("retrain").items()} | group
    try:
        deployed.register()
        assert deployed.start("models", "mode", "loans", "auto", **login).wait() == 0
        process, _ = deployed.retrain(**login)
        deployed.alert(deployed.live(400))
        eventually(lambda: deployed.told("promoted") or process.poll() is not None, "a version is promoted")
        assert process.poll() is None, process.communicate()[1]
    finally:
        deployed.close()
    assert secured.denied() == []


def test_certificates_alone_do_too(secured: Secured, authority: Authority, tmp_path: Path) -> None:
    """Mutual TLS on both servers: the principal is the certificate's name. The key is encrypted."""
    driftline = secured.driftline
    driftline.run("topics", "create", **secured.login("topics"))
    key_password = tmp_path / "key.password"
    key_password.write_text("of-the-key")
    ours = authority.issue("driftline-worker", key_password="of-the-key")
    with SecureRedisServer(tmp_path / "mutual", authority, mutual=True) as store:
        files = {
            "ca_file": str(authority.ca),
            "certificate_file": str(ours.certificate),
            "key_file": str(ours.key),
            "key_password_file": str(key_password),
        }
        without_user = {"kafka__username": "", "kafka__password_file": "", "kafka__bootstrap": secured.broker.mtls}
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "nopass")
        mutual = {f"{section}__{name}": value for section in ("kafka", "redis") for name, value in files.items()}
        mutual |= without_user | {"redis__url": store.url, "redis__username": "", "redis__password_file": ""}
        driftline.worker(**mutual)
        secured.publish_pairs("loans")
        eventually(lambda: driftline.counters().joined == ROWS, "the pairs are joined")
        stranger = Authority(tmp_path / "stranger", "stranger").issue("driftline-worker")
        theirs = {"certificate_file": str(stranger.certificate), "key_file": str(stranger.key), "key_password_file": ""}
        for section in ("kafka", "redis"):
            changed = mutual | {f"{section}__{name}": value for name, value in theirs.items()}
            told = ended(driftline.start("worker", **changed), 77)
            assert "does not accept our certificate" in told
            assert f"{section}.certificate_file" in told


def test_a_login_that_is_refused_is_one_line(secured: Secured, tmp_path: Path) -> None:
    """A wrong password for Kafka or for the store ends every command at once; `doctor` goes on to the next check."""
    driftline = secured.driftline
    driftline.run("topics", "create", **secured.login("topics"))
    wrong = tmp_path / "wrong.password"
    wrong.write_text(secrets.token_hex(8))
    worker, retrain, audit = secured.login("worker"), secured.login("retrain"), secured.login("audit")
    unknown, unstored = {"kafka__password_file": str(wrong)}, {"redis__password_file": str(wrong)}
    broker_says, store_says = "the broker refuses to log us in", "the store refuses to log us in"
    secured.require_refusals(
        ("worker", worker | unknown, 77, broker_says),
        ("serve", secured.login("serve") | unknown, 77, broker_says),
        ("retrain", retrain | unknown, 77, broker_says),
        ("audit", audit | unknown, 77, broker_says),
        ("worker", worker | {"kafka__sasl_mechanism": "PLAIN"}, 77, "mechanisms: SCRAM-SHA"),
        ("worker", worker | unstored, 77, store_says),
        ("retrain", retrain | unstored, 77, store_says),
        ("status", audit | unstored, 77, store_says),
    )
    checks = examined(driftline, **audit | unknown | unstored)
    assert broker_says in checks["broker"]["detail"]
    assert store_says in checks["store"]["detail"]
    assert wrong.read_text() not in "".join(p.log.read_text() + p.out.read_text() for p in driftline.processes)
    secured.require_no_secret()


def test_a_server_that_is_not_trusted_is_one_line(secured: Secured, tmp_path: Path) -> None:
    """Another authority, a host that the certificate does not name, and whatever would go out in clear."""
    worker = secured.login("worker")
    stranger = str(Authority(tmp_path / "stranger").ca)
    local = secured.broker.bootstrap.replace("127.0.0.1", "localhost")
    plain_store = secured.store.url.replace("rediss://", "redis://")
    secured.driftline.run("topics", "create", **secured.login("topics"))
    secured.require_refusals(
        ("worker", worker | {"kafka__ca_file": stranger}, 77, "the broker's certificate is not trusted"),
        ("worker", worker | {"kafka__bootstrap": local}, 77, "the broker's certificate is not trusted"),
        ("worker", worker | {"redis__ca_file": stranger}, 77, "the store's certificate is not trusted"),
        ("worker", worker | {"kafka__ca_file": f"{tmp_path}/none.pem"}, 66, "kafka.ca_file"),
        ("worker", worker | {"kafka__security_protocol": "SASL_PLAINTEXT"}, 2, "not encrypted"),
        ("worker", worker | {"redis__url": plain_store, "redis__ca_file": ""}, 2, "not encrypted"),
    )
    secured.require_no_secret()


def test_a_permission_that_lacks_is_one_line(secured: Secured) -> None:
    """All that a process lacks on Kafka is told before it starts; on the store, the first command that is refused."""
    driftline = secured.driftline
    driftline.run("topics", "create", **secured.login("topics"))
    worker, audit = secured.login("worker"), secured.login("audit")
    labelled = f"Write on topic {driftline.topics.labelled}"
    secured.require_refusals(
        ("worker", secured.login("serve") | redis_of(worker), 77, labelled),
        ("worker", worker | redis_of(audit), 77, "the store does not permit it"),
        ("serve", secured.login("retrain"), 77, "lacks Write on topic"),
        ("retrain", secured.login("serve"), 77, "lacks Read on topic"),
    )
    lacking = examined(driftline, "--process", "worker", **audit)["permissions"]
    assert not lacking["ok"]
    assert labelled in lacking["detail"]


def test_a_permission_that_is_taken_away_ends_the_worker(secured: Secured) -> None:
    """While it runs: it says so and ends, and does not stand there without reading."""
    driftline = secured.driftline
    driftline.run("topics", "create", **secured.login("topics"))
    worker = driftline.worker(**secured.login("worker"))
    secured.publish_pairs("loans")
    eventually(lambda: driftline.stored_counters().joined == ROWS, "the pairs are joined")
    (reading,) = [
        binding
        for command in kafka_commands(secured.settings, "worker", "driftline-worker")
        for binding in bindings(command)
        if (binding.name, binding.operation) == (driftline.topics.predictions, AclOperation.READ)
    ]
    admin = secured.broker.admin()
    for future in admin.delete_acls([filter_of(reading)]).values():
        assert len(future.result()) == 1
    assert "does not permit to read" in ended(worker, 77, ran=True)


def test_a_user_that_is_removed_ends_every_process(secured: Secured) -> None:
    """A client would try to log in again for ever; a process says what is wrong and ends, and is not restarted."""
    driftline = secured.driftline
    driftline.run("topics", "create", **secured.login("topics"))
    relayed = secured.broker.relay.address
    started = [
        driftline.daemon("worker", **secured.login("worker", kafka__bootstrap=relayed)),
        driftline.daemon("serve", **secured.login("serve", kafka__bootstrap=relayed)),
        driftline.daemon("retrain", **secured.login("retrain", kafka__bootstrap=relayed)),
    ]
    for process in started:
        process.started()
    admin = secured.broker.admin()
    removed = [
        UserScramCredentialDeletion(f"driftline-{process}", ScramMechanism.SCRAM_SHA_512)
        for process in ("worker", "serve", "retrain")
    ]
    for future in admin.alter_user_scram_credentials(removed).values():
        future.result()
    try:
        assert secured.broker.relay.cut() > 0
        for process in started:
            assert "the broker refuses to log us in" in ended(process, 77, ran=True)
        secured.require_no_secret()
    finally:
        iterations = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        restored = [
            UserScramCredentialUpsertion(user, iterations, password.encode()) for user, password in PASSWORDS.items()
        ]
        admin = secured.broker.admin()
        for future in admin.alter_user_scram_credentials(restored).values():
            future.result()


# ------------------------------------------------------------------------------------------------------------- helpers


def ended(process: Started, code: int, *, ran: bool = False) -> str:
    """The one line that the process ends with: its only one, unless it ran."""
    assert process.wait() == code, process.tail()
    *before, said = process.said().splitlines()
    assert said.startswith("driftline: "), process.tail()
    assert ran or not before, before
    assert " — " in said
    assert "Traceback" not in process.log.read_text()
    return said


def examined(driftline: Driftline, *arguments: str, **changes: str) -> dict[str, dict[str, Any]]:
    """The checks of `driftline doctor`, whose exit code is 1 if one fails."""
    doctor = driftline.start("doctor", "--json", *arguments, **changes)
    code = doctor.wait()
    checks = {check["name"]: check for check in json.loads(doctor.out.read_text())}
    assert code == (0 if all(check["ok"] for check in checks.values()) else 1), doctor.tail()
    return checks


def infer(url: str) -> str:
    """Ask about one row → its prediction id."""
    row = models.rows(0, 1).tolist()
    body = {"inputs": [{"name": "X", "shape": [1, 3], "datatype": "FP32", "data": row}]}
    asked = urllib.request.Request(f"{url}/v2/models/loan/infer", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(asked, timeout=30) as answer:
        outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
    identity: str = outputs["prediction_id"][0]
    return identity


def page(url: str) -> str:
    """A page of metrics."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def redis_of(login: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a login that is for the store."""
    return {name: value for name, value in login.items() if name.startswith("redis__")}
