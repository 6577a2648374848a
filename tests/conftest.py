"""The fixtures that every test folder shares: real servers, a name space of one's own, the data sets."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

SERVER_FIXTURES = {"kafka_broker", "redis_store", "secure_broker", "secure_store"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a real server carries the marker `kafka`: `-m "not kafka"` needs no server."""
    for item in items:
        if SERVER_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("kafka")


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """A command that a test runs in process, or a benchmark, sets up its own logging: not for the tests behind it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """The session's Apache Kafka. A test that kills or pauses it brings it back before it ends."""
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture(scope="session")
def redis_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The session's Redis. A test that kills or pauses it brings it back before it ends."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as store:
        yield store


@pytest.fixture
def deployment() -> str:
    """A name that no other test uses: prefix of its topics, groups and keys on the shared servers."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def driftline_data() -> Path:
    """The folder of the real data sets (`elec2.csv.gz` …)."""
    folder = os.environ.get("DRIFTLINE_DATA")
    if not folder:
        pytest.skip("the data sets are not here: set DRIFTLINE_DATA to the folder that holds elec2.csv.gz")
    if not Path(folder).is_dir():
        pytest.fail(f"DRIFTLINE_DATA names {folder}, which is not a folder")
    return Path(folder)
