"""What librdkafka's and redis-py's errors say of our rights."""

from __future__ import annotations

import pytest
import redis
from confluent_kafka import KafkaError

from streams.errors import AccessDenied
from streams.kafka import failure, passes, refusal
from streams.store_client import store_refusal

AT = "sasl_ssl://127.0.0.1:9092/bootstrap: "
REFUSED = (
    f"{AT}SASL authentication error: Authentication failed during authentication due to invalid credentials with SASL"
    " mechanism SCRAM-SHA-512 (after 342ms in state AUTH_REQ)"
)
UNTRUSTED = f"{AT}SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate"
ALERT = (
    "ssl://127.0.0.1:9093/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate:"
    " SSL alert number 42 (after 0ms in state APIVERSION_QUERY)"
)


@pytest.mark.parametrize(
    ("code", "text", "says", "hint"),
    [
        (KafkaError._AUTHENTICATION, REFUSED, "invalid credentials with SASL mechanism SCRAM-SHA-512)", "password"),
        (KafkaError._SSL, UNTRUSTED, "is not trusted", "kafka.ca_file"),
        (KafkaError._TRANSPORT, ALERT, "does not accept our certificate", "kafka.certificate_file"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: Topic authorization failed", "Topic authorization", "acls"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "Broker: Group authorization failed", "Group authorization", "acls"),
    ],
)
def test_a_refusal_says_what_and_how_to_mend_it(code: int, text: str, says: str, hint: str) -> None:
    """Without the address and the state of the connection, which say nothing to an operator."""
    denied = refusal(KafkaError(code, text))
    assert denied is not None
    assert says in denied.message
    assert hint in denied.hint
    assert "127.0.0.1" not in denied.message
    assert "in state" not in denied.message
    assert denied.exit_code == 77


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (KafkaError._TRANSPORT, f"{AT}Connect to ipv4#127.0.0.1:9092 failed: Connection refused"),
        (KafkaError._TRANSPORT, f"{AT}SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?"),
        (
            KafkaError._AUTHENTICATION,
            f"{AT}SASL authentication error: SaslAuthenticateRequest failed: Local: Broker transport failure",
        ),
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"),
    ],
)
def test_a_broker_that_goes_away_is_no_refusal(code: int, text: str) -> None:
    """Also in the middle of a login: a restart of the broker must not end a process for good."""
    assert refusal(KafkaError(code, text)) is None


def test_a_reader_without_a_group_needs_no_right_to_one() -> None:
    """librdkafka asks for its coordinator all the same; a right to the topic is needed."""
    assert passes(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "FindCoordinator"))
    denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Broker: Topic authorization failed")
    assert not passes(denied)
    told = failure("alerts", denied)
    assert isinstance(told, AccessDenied)
    assert told.message.startswith("alerts: ")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (redis.AuthenticationError("invalid username-password pair or user is disabled."), "refuses to log us in"),
        (redis.ConnectionError("Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] x"), "is not trusted"),
        (redis.ConnectionError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] x"), "does not accept our certificate"),
    ],
)
def test_a_store_that_refuses_us_is_told_from_one_that_is_away(error: redis.RedisError, says: str) -> None:
    """redis-py makes both a kind of ConnectionError, which is waited for elsewhere."""
    denied = store_refusal(error)
    assert denied is not None
    assert says in denied.message
    assert store_refusal(redis.ConnectionError("Connection refused")) is None
    assert store_refusal(redis.TimeoutError("Timeout reading from socket")) is None


def test_a_refused_command_is_named_without_what_it_carries() -> None:
    """In a pipeline redis-py repeats the whole command, and the state in it."""
    error = redis.exceptions.NoPermissionError(
        "Command # 1 (HSET d:{join:0}:meta blob \\x01) of pipeline caused error: no permissions to run hset"
    )
    denied = store_refusal(error)
    assert denied is not None
    assert denied.message == "the store does not permit it: no permissions to run hset"
