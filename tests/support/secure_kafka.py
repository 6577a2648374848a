"""An Apache Kafka that nobody may use without proof: SCRAM over TLS, client certificates, ACLs that deny by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from confluent_kafka.admin import AclBinding

from tests.support.certificates import Authority, Certificate
from tests.support.kafka import QUIET, KafkaBroker
from tests.support.ports import free_port, is_free
from tests.support.relay import Relay


class SecureKafkaBroker(KafkaBroker):
    """`bootstrap` is the listener for SCRAM (SHA-256 and SHA-512), `mtls` the one for certificates of `authority`.

    `relay`, running while the broker does, is a way to the former that can be cut; clients that come by it stay on it.
    A certificate's principal is its common name. Only `admin` and the broker may do anything until `allow` says more.
    """

    name = "secure-kafka"

    def __init__(self, directory: Path, authority: Authority, users: Mapping[str, str]) -> None:
        super().__init__(directory)
        self.authority = authority
        self._scram = dict(users)
        self._certificate = authority.issue("broker")
        self._admin: Certificate = authority.issue("admin")
        self._mtls_port = free_port()
        self.relay = Relay()

    @property
    def mtls(self) -> str:
        return f"127.0.0.1:{self._mtls_port}"

    def client_config(self) -> dict[str, str | int | float | bool]:
        """As the user `admin`, by certificate."""
        return {
            "bootstrap.servers": self.mtls,
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.ca),
            "ssl.certificate.location": str(self._admin.certificate),
            "ssl.key.location": str(self._admin.key),
        }

    def allow(self, bindings: Iterable[AclBinding]) -> None:
        """Add ACLs."""
        admin = self.admin(**QUIET)
        for future in admin.create_acls(list(bindings)).values():
            future.result()

    def _prepare(self) -> list[str]:
        if not is_free(self._mtls_port):
            self._mtls_port = free_port()
        return super()._prepare()

    def _users(self) -> list[str]:
        return [
            part
            for user, password in self._scram.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={user},password={password}]")
        ]

    def _settings(self) -> dict[str, str]:
        listeners = f"SASL_SSL://{self.address},SSL://{self.mtls},RELAYED://127.0.0.1:{self.relay.target_port}"
        advertised = f"SASL_SSL://{self.address},SSL://{self.mtls},RELAYED://{self.relay.address}"
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        return super()._settings() | {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": advertised,
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,SSL:SSL,RELAYED:SASL_SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            **{
                f"listener.name.{listener}.scram-sha-{bits}.sasl.jaas.config": login
                for listener in ("sasl_ssl", "relayed")
                for bits in (256, 512)
            },
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._certificate.bundle),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.ca),
            "ssl.client.auth": "required",
            "listener.name.sasl_ssl.ssl.client.auth": "none",
            "listener.name.relayed.ssl.client.auth": "none",
            "ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:broker;User:admin",
        }
