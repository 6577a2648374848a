"""The contract of the log against a real Apache Kafka."""

from __future__ import annotations

import pytest

from tests.contract.test_log_contract import BrokerContract
from tests.support.kafka import KafkaBroker


class TestKafkaLog(BrokerContract):
    """The session's Kafka."""

    @pytest.fixture
    def bootstrap(self, kafka_broker: KafkaBroker) -> str:
        return kafka_broker.bootstrap
