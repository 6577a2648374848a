"""A Redis that answers over TLS only, to users that it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.certificates import Authority
from tests.support.redis import RedisServer

ADMIN_PASSWORD = "admin-of-the-store"


class SecureRedisServer(RedisServer):
    """`users` are lines of the ACL (`user NAME on …`); the user `default` may do everything, with `ADMIN_PASSWORD`.

    `mutual` demands a certificate of `authority` from clients.
    """

    name = "secure-redis"

    def __init__(self, directory: Path, authority: Authority, users: Sequence[str] = (), mutual: bool = False) -> None:
        certificate = authority.issue("store")
        self.authority = authority
        self._ours = authority.issue("store-admin")
        self._users = [f"user default on >{ADMIN_PASSWORD} ~* &* +@all", *users]
        super().__init__(
            directory,
            options={
                "tls-cert-file": str(certificate.certificate),
                "tls-key-file": str(certificate.key),
                "tls-ca-cert-file": str(authority.ca),
                "tls-auth-clients": "yes" if mutual else "optional",
                "aclfile": str(directory.resolve() / "users.acl"),
            },
        )

    @property
    def url(self) -> str:
        return f"rediss://{self.address}/0"

    def client(self, timeout_s: float | None = None) -> redis.Redis:
        """As the user `default`."""
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            password=ADMIN_PASSWORD,
            ssl=True,
            ssl_ca_certs=str(self.authority.ca),
            ssl_certfile=str(self._ours.certificate),
            ssl_keyfile=str(self._ours.key),
            socket_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )

    def _prepare(self) -> list[str]:
        (self.directory / "users.acl").write_text("".join(f"{line}\n" for line in self._users))
        self._options |= {"tls-port": str(self.port)}
        command = super()._prepare()
        configuration = Path(command[-1])
        configuration.write_text(configuration.read_text().replace(f"\nport {self.port}\n", "\nport 0\n"))
        return command
