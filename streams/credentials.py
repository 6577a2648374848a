"""Whom our clients trust and how they prove who they are: read from the settings and checked before they connect."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from streams.errors import MissingInput, WrongSetting
from streams.settings import KafkaSettings, RedisSettings

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Section = Literal["kafka", "redis"]

_UNVERIFIED = {"ssl_cert_reqs": ("none", "optional"), "ssl_check_hostname": ("false", "0", "no")}
"""Options of a Redis URL that accept anybody as the store."""


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of one section, whose contents :meth:`context` has accepted. An empty path is none."""

    section: Section
    ca_file: str
    certificate_file: str
    key_file: str
    key_password: SecretStr

    def context(self) -> ssl.SSLContext:
        """A context that verifies the server and its host name, by ``ca_file`` or else by what the system trusts.

        Raises :class:`MissingInput` for a file that is missing or not readable, :class:`WrongSetting` for one that is
        not what the setting says.
        """
        if self.ca_file:
            _require_readable(f"{self.section}.ca_file", self.ca_file)
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except ssl.SSLError:
            raise WrongSetting(
                f"{self.section}.ca_file: {self.ca_file} holds no certificate",
                "name a file with the certificate of the authority, in PEM",
            ) from None
        if self.certificate_file:
            self._load_certificate(context)
        return context

    def _load_certificate(self, context: ssl.SSLContext) -> None:
        _require_readable(f"{self.section}.certificate_file", self.certificate_file)
        _require_readable(f"{self.section}.key_file", self.key_file)
        try:
            # Always with a password, or OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self.certificate_file, self.key_file, self.key_password.get_secret_value())
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise WrongSetting(
                    f"{self.section}.key_file: the key in {self.key_file} is not that of the certificate in"
                    f" {self.certificate_file}",
                    f"name the files of one pair in {self.section}.certificate_file and {self.section}.key_file",
                ) from None
            raise WrongSetting(
                f"{self.section}.certificate_file, key_file: {self.certificate_file} and {self.key_file} cannot be used"
                f" ({error.reason or 'not PEM'})",
                f"both must be PEM, and {self.section}.key_password_file must open a key that is encrypted",
            ) from None


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """How to reach the broker. ``tls`` is None without encryption, ``username`` empty without SASL."""

    protocol: Protocol
    mechanism: str
    username: str
    password: SecretStr
    tls: Tls | None

    def librdkafka(self) -> dict[str, str]:
        """The same as configuration of a confluent-kafka client."""
        config: dict[str, str] = {"security.protocol": self.protocol}
        if self.tls is not None:
            config |= {
                "ssl.ca.location": self.tls.ca_file or "probe",
                "ssl.certificate.location": self.tls.certificate_file,
                "ssl.key.location": self.tls.key_file,
                "ssl.key.password": self.tls.key_password.get_secret_value(),
            }
        if self.username:
            config |= {
                "sasl.mechanism": self.mechanism,
                "sasl.username": self.username,
                "sasl.password": self.password.get_secret_value(),
            }
        return {name: value for name, value in config.items() if value}

    @property
    def anonymous(self) -> bool:
        """Whether the broker learns nobody's name."""
        return not self.username and not (self.tls and self.tls.certificate_file)


def kafka_access(settings: KafkaSettings) -> KafkaAccess:
    """What the settings say, with secrets read from their files.

    Raises :class:`WrongSetting` for settings that contradict each other and for a password that would go over the
    network unencrypted, and :class:`MissingInput` for a missing file.
    """
    tls, password = _tls("kafka", settings), _password("kafka", settings)
    protocol = _protocol(settings, tls)
    sasl, encrypted = protocol.startswith("SASL_"), protocol.endswith("SSL")
    if sasl and not settings.username:
        raise WrongSetting(f"kafka.security_protocol {protocol} needs a user", "set kafka.username and its password")
    if settings.username and not sasl:
        raise WrongSetting(
            f"kafka.security_protocol {protocol} would not use kafka.username", "set it to SASL_SSL, or leave it out"
        )
    if settings.username and not password.get_secret_value():
        raise WrongSetting(
            "kafka.username has no password", "set kafka.password_file, or DRIFTLINE_KAFKA__PASSWORD in the environment"
        )
    if password.get_secret_value() and not settings.username:
        raise WrongSetting("kafka.password has no user", "set kafka.username")
    if sasl and not encrypted and not settings.allow_plaintext_credentials:
        raise WrongSetting(
            f"kafka.security_protocol {protocol} sends credentials over a connection that is not encrypted",
            "set it to SASL_SSL, or kafka.allow_plaintext_credentials=true if nobody else can listen",
        )
    if tls is not None and not encrypted:
        raise WrongSetting(
            f"kafka.security_protocol {protocol} would not use the certificates", "leave it out, or set it to SSL"
        )
    if encrypted:
        tls = tls or Tls("kafka", "", "", "", SecretStr(""))
        tls.context()
    return KafkaAccess(protocol, settings.sasl_mechanism, settings.username, password, tls)


def redis_options(settings: RedisSettings) -> dict[str, Any]:
    """What a Redis client needs beside ``redis.url``.

    Raises :class:`WrongSetting` for settings that contradict each other, for a password that would go over the network
    unencrypted, and for a URL that is none; :class:`MissingInput` for a missing file.
    """
    try:
        parts = urlsplit(settings.url)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        in_url = bool(parts.password or query.get("password"))
    except ValueError:  # its words could repeat the password
        raise WrongSetting("redis.url is not a URL", "write it like rediss://HOST:6379/0") from None
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise WrongSetting(
            "redis.url: it begins with none of redis://, rediss://, unix://", "write redis://HOST:6379/0"
        )
    tls, password = _tls("redis", settings), _password("redis", settings)
    given = bool(password.get_secret_value())
    if given and in_url:
        raise WrongSetting("redis.url has a password, and redis.password is set", "keep one of them")
    if settings.username and not given:
        raise WrongSetting(
            "redis.username has no password", "set redis.password_file, or DRIFTLINE_REDIS__PASSWORD in the environment"
        )
    encrypted = parts.scheme == "rediss"
    if tls is not None and not encrypted:
        raise WrongSetting("redis.url does not use the certificates", "write it with rediss://")
    if encrypted and tls is not None:
        tls.context()
    if not settings.allow_plaintext_credentials:
        _require_private(parts.scheme, query, given or in_url)
    options: dict[str, Any] = {"password": password.get_secret_value()} if given else {}
    if settings.username:
        options["username"] = settings.username
    if tls is not None:
        files = {
            "ssl_ca_certs": tls.ca_file,
            "ssl_certfile": tls.certificate_file,
            "ssl_keyfile": tls.key_file,
            "ssl_password": tls.key_password.get_secret_value(),
        }
        options |= {name: value for name, value in files.items() if value}
    return options


def redis_context(settings: RedisSettings) -> ssl.SSLContext:
    """The TLS context of a connection to the store. Raises what :func:`redis_options` raises."""
    return (_tls("redis", settings) or Tls("redis", "", "", "", SecretStr(""))).context()


def _require_private(scheme: str, query: dict[str, str], credentials: bool) -> None:
    """Refuse a password that others could read on its way, or that could be handed to a stranger."""
    allow = "or set redis.allow_plaintext_credentials=true if nobody else can listen"
    if scheme == "redis" and credentials:
        raise WrongSetting(
            "redis.url sends a password over a connection that is not encrypted", f"use rediss://, {allow}"
        )
    for option, refused in _UNVERIFIED.items():
        if scheme == "rediss" and query.get(option, "").lower() in refused:
            raise WrongSetting(
                f"redis.url accepts anybody as the store ({option}={query[option]})",
                f"leave it out and set redis.ca_file, {allow}",
            )


def _protocol(settings: KafkaSettings, tls: Tls | None) -> Protocol:
    """What is stated, or else what the other settings ask for: never less than TLS for a user."""
    if settings.security_protocol != "auto":
        return settings.security_protocol
    if settings.username:
        return "SASL_SSL"
    return "SSL" if tls is not None else "PLAINTEXT"


def _tls(section: Section, settings: KafkaSettings | RedisSettings) -> Tls | None:
    """The files that are set, or None without any."""
    if not (settings.ca_file or settings.certificate_file or settings.key_file):
        return None
    if settings.key_file and not settings.certificate_file:
        raise WrongSetting(f"{section}.key_file has no certificate", f"set {section}.certificate_file")
    password = _secret(section, "key_password", settings.key_password, settings.key_password_file)
    key_file = settings.key_file or settings.certificate_file  # one file may hold both
    return Tls(section, settings.ca_file, settings.certificate_file, key_file, password)


def _password(section: Section, settings: KafkaSettings | RedisSettings) -> SecretStr:
    return _secret(section, "password", settings.password, settings.password_file)


def _secret(section: Section, name: str, value: SecretStr, file: str) -> SecretStr:
    """A secret, from its setting or from the file that holds it; empty for none."""
    if not file:
        return value
    setting = f"{section}.{name}_file"
    if value.get_secret_value():
        raise WrongSetting(f"{section}.{name} and {setting} are both set", "keep one of them")
    _require_readable(setting, file)
    try:
        text = Path(file).read_text().rstrip("\r\n")
    except UnicodeDecodeError:
        raise WrongSetting(f"{setting}: {file} is not text", "it must hold the secret and nothing else") from None
    if not text:
        raise WrongSetting(f"{setting}: {file} is empty", "it must hold the secret and nothing else")
    return SecretStr(text)


def _require_readable(setting: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            return
    except FileNotFoundError:
        raise MissingInput(f"{setting}: {file} does not exist", f"set {setting}") from None
    except OSError as error:
        raise MissingInput(
            f"{setting}: {file} cannot be read ({error.strerror})", "let the user of this process read it"
        ) from None
