"""Credentials: what the settings say, and what is refused before anything connects."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from streams.credentials import kafka_access, redis_options
from streams.errors import DriftlineError, MissingInput, WrongSetting
from streams.settings import KafkaSettings, RedisSettings
from tests.support.certificates import Authority, Certificate

PASSWORD = "s3cret"
USER: dict[str, Any] = {"username": "worker", "password": PASSWORD}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Certificate:
    return authority.issue("ours")


def kafka(**values: Any) -> dict[str, str]:
    return kafka_access(KafkaSettings(**values)).librdkafka()


def store(url: str = "rediss://h/0", **values: Any) -> dict[str, Any]:
    return redis_options(RedisSettings(url=url, **values))


def refused(call: Callable[..., object], kind: type[DriftlineError] = WrongSetting, **values: Any) -> str:
    """One line with a hint, which holds no secret."""
    with pytest.raises(kind) as caught:
        call(**values)
    told = str(caught.value)
    assert caught.value.hint
    assert "\n" not in told
    assert PASSWORD not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # it could quote the secret
    return told


def test_without_credentials_nothing_is_encrypted() -> None:
    """The defaults are those of a broker on the loopback."""
    assert kafka() == {"security.protocol": "PLAINTEXT"}
    assert kafka_access(KafkaSettings()).anonymous
    assert store("redis://h/0") == {}


def test_a_user_means_tls_and_scram(authority: Authority) -> None:
    """The protocol follows from what is set, and is never weaker than the credentials need."""
    assert kafka(**USER, ca_file=str(authority.ca)) == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": str(authority.ca),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "worker",
        "sasl.password": PASSWORD,
    }
    assert kafka(**USER, sasl_mechanism="SCRAM-SHA-256")["ssl.ca.location"] == "probe"  # what the system trusts


def test_a_certificate_of_ours_means_mutual_tls(authority: Authority, ours: Certificate) -> None:
    """Certificate and key may be in one file."""
    both: dict[str, Any] = {
        "ca_file": str(authority.ca),
        "certificate_file": str(ours.certificate),
        "key_file": str(ours.key),
    }
    assert kafka(**both)["security.protocol"] == "SSL"
    assert not kafka_access(KafkaSettings(**both)).anonymous
    bundled = kafka(certificate_file=str(ours.bundle))
    assert bundled["ssl.certificate.location"] == bundled["ssl.key.location"] == str(ours.bundle)
    assert store(**both) == {
        "ssl_ca_certs": both["ca_file"],
        "ssl_certfile": both["certificate_file"],
        "ssl_keyfile": both["key_file"],
    }


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    """Without the line's end that an editor leaves."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    assert kafka(username="worker", password_file=str(file))["sasl.password"] == PASSWORD
    assert store(username="worker", password_file=str(file)) == {"username": "worker", "password": PASSWORD}


def test_an_encrypted_key_is_opened(tmp_path: Path) -> None:
    """And a wrong or missing password is told, never asked for on the terminal."""
    locked = Authority(tmp_path).issue("locked", key_password=PASSWORD)
    files: dict[str, Any] = {"certificate_file": str(locked.certificate), "key_file": str(locked.key)}
    assert kafka(**files, key_password=PASSWORD)["ssl.key.password"] == PASSWORD
    assert store(**files, key_password=PASSWORD)["ssl_password"] == PASSWORD
    for call in (kafka, store):
        assert "key_password_file" in refused(call, **files)
        assert "key_password_file" in refused(call, **files, key_password="wrong")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({**USER, "security_protocol": "SASL_PLAINTEXT"}, "not encrypted"),
        ({**USER, "security_protocol": "PLAINTEXT"}, "would not use kafka.username"),
        ({**USER, "security_protocol": "SSL"}, "would not use kafka.username"),
        ({"security_protocol": "SASL_SSL"}, "needs a user"),
        ({"username": "worker"}, "has no password"),
        ({"password": PASSWORD}, "has no user"),
        ({"key_file": "key.pem"}, "has no certificate"),
    ],
)
def test_kafka_settings_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    """Above all those that would send a password for everybody to read, or silently not use it."""
    assert words in refused(kafka, **values)


def test_certificates_that_would_not_be_used_are_refused(authority: Authority) -> None:
    """Whoever sets them believes that the connection is encrypted."""
    assert "would not use" in refused(kafka, ca_file=str(authority.ca), security_protocol="PLAINTEXT")
    assert "rediss://" in refused(store, url="redis://h/0", ca_file=str(authority.ca))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"url": f"redis://u:{PASSWORD}@127.0.0.1/0"}, "not encrypted"),
        ({"url": f"redis://h/0?password={PASSWORD}"}, "not encrypted"),
        ({"url": "redis://h/0", **USER}, "not encrypted"),
        ({"url": "rediss://h/0?ssl_cert_reqs=none"}, "accepts anybody"),
        ({"url": "rediss://h/0?ssl_check_hostname=False"}, "accepts anybody"),
        ({"url": f"rediss://u:{PASSWORD}@h/0", **USER}, "keep one"),
        ({"username": "worker"}, "has no password"),
        ({"url": f"http://u:{PASSWORD}@h/"}, "begins with none of"),
        ({"url": f"redis://[u:{PASSWORD}@h/"}, "is not a URL"),
    ],
)
def test_redis_settings_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    """A password goes through TLS with a verified certificate, or nowhere."""
    assert words in refused(store, **values)


def test_credentials_without_tls_can_be_allowed() -> None:
    """By a setting of its own for each server. A local socket is not a network."""
    told = kafka(**USER, security_protocol="SASL_PLAINTEXT", allow_plaintext_credentials=True)
    assert told["sasl.password"] == PASSWORD
    assert store("redis://h/0", **USER, allow_plaintext_credentials=True) == USER
    assert store(f"redis://u:{PASSWORD}@h/0", allow_plaintext_credentials=True) == {}
    assert store(f"unix:///run/redis.sock?password={PASSWORD}") == {}


@pytest.mark.parametrize("call", [kafka, store])
def test_a_file_that_is_not_there_names_its_setting(call: Callable[..., object], tmp_path: Path) -> None:
    """Or cannot be read, or holds nothing."""
    absent = str(tmp_path / "absent.pem")
    for name in ("ca_file", "certificate_file", "password_file"):
        told = refused(call, MissingInput, **{name: absent})
        assert f".{name}: {absent} does not exist" in told
    assert "cannot be read" in refused(call, MissingInput, ca_file=str(tmp_path))
    empty = tmp_path / "empty"
    empty.touch()
    assert "holds no certificate" in refused(call, ca_file=str(empty))
    assert "is empty" in refused(call, username="worker", password_file=str(empty))
    empty.write_bytes(b"\xff\xfe")
    assert "is not text" in refused(call, username="worker", password_file=str(empty))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_of_somebody_else_names_its_setting(tmp_path: Path) -> None:
    """With what the system says."""
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0)
    assert "Permission denied" in refused(kafka, MissingInput, username="worker", password_file=str(secret))


@pytest.mark.parametrize("call", [kafka, store])
def test_a_key_of_another_certificate_is_refused(
    call: Callable[..., object], authority: Authority, ours: Certificate
) -> None:
    """Before the server would say something less clear."""
    other = authority.issue("other")
    told = refused(call, certificate_file=str(ours.certificate), key_file=str(other.key))
    assert "is not that of the certificate" in told
    assert "cannot be used" in refused(call, certificate_file=str(authority.ca), key_file=str(authority.ca))


def test_a_secret_that_is_set_twice_is_refused(tmp_path: Path) -> None:
    """Which one counts would be a guess."""
    file = tmp_path / "password"
    file.write_text("other")
    assert "both set" in refused(kafka, **USER, password_file=str(file))


def test_no_representation_holds_a_secret() -> None:
    """Neither the settings' nor that of what is made of them: both get into logs and tracebacks."""
    settings = KafkaSettings(**USER, security_protocol="SASL_SSL")
    store_settings = RedisSettings(url=f"rediss://u:{PASSWORD}@h/0", key_password=SecretStr(PASSWORD))
    for shown in (settings, kafka_access(settings), store_settings):
        assert PASSWORD not in f"{shown!r} {shown}"
