"""The README's examples do what it says, on a real broker."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.server import executable

README = Path(__file__).parents[2] / "README.md"
BROKER = "127.0.0.1:9092"


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language ("" for those that name none)."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def deployed(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    """A deployment with one worker."""
    with Driftline(kafka_broker, redis_store, deployment, tmp_path) as made:
        made.worker()
        yield made


def test_the_kcat_commands_publish_a_pair(deployed: Driftline) -> None:
    """The README's own lines, with only the broker and the topics' prefix changed: the outcome meets its prediction."""
    executable("kcat", "kcat")
    (publishing,) = [block for block in blocks("sh") if "kcat" in block and "-P" in block]
    (reading,) = [block for block in blocks("sh") if "kcat" in block and "-C" in block]
    for script in (publishing, reading):
        there = script.replace(BROKER, deployed.broker.bootstrap).replace("-t ", f"-t {deployed.name}.")
        done = subprocess.run(["sh", "-ec", there], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
    eventually(lambda: deployed.stored_counters().joined == 1, "the pair is joined")
    (pair,) = eventually(deployed.pairs, "the pair is published")
    assert pair[3:] == ("fraud", "3", 0)


def test_the_python_example_publishes_a_pair(deployed: Driftline) -> None:
    """As it stands in the README."""
    (example,) = [block for block in blocks("python") if "Producer" in block]
    there = example.replace(BROKER, deployed.broker.bootstrap)
    exec(re.sub(r'"(predictions|outcomes)"', rf'"{deployed.name}.\1"', there), {})  # our own document
    eventually(lambda: deployed.stored_counters().joined == 1, "the pair is joined")
