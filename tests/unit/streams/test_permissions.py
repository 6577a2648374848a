"""What each process is granted, as an operator would grant it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from streams.permissions import PROCESSES, Process, grants, kafka_commands, missing, redis_user
from streams.settings import KafkaSettings, RedisSettings, Settings, WorkerSettings
from streams.topics import NAMES, Topics

SETTINGS = Settings(
    kafka=KafkaSettings(topic_prefix="eu."), redis=RedisSettings(prefix="eu*"), worker=WorkerSettings(group="watchers")
)


def held(process: Process) -> dict[str, set[str]]:
    return {grant.name: {operation.name for operation in grant.operations} for grant in grants(SETTINGS, process)}


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_sees_every_topic_and_only_those(process: Process) -> None:
    """Each start compares them all. To read, to write or to create a topic implies to see it."""
    topics = Topics("eu.")
    named = {name for name, operations in held(process).items() if operations & {"DESCRIBE", "READ", "WRITE"}}
    assert named - {"watchers", "driftline-retrain"} == {getattr(topics, name) for name in NAMES}


def test_nobody_may_more_than_it_does() -> None:
    """Only the worker writes to its own topics, only `topics` creates and alters, and no process may do everything."""
    for name in ("checkpoints", "labelled", "summaries", "monitor-checkpoints", "alerts", "dead-letters"):
        assert [process for process in PROCESSES if "WRITE" in held(process)[f"eu.{name}"]] == ["worker"]
    assert [process for process in PROCESSES if "WRITE" in held(process)["eu.outcomes"]] == []
    assert [process for process in PROCESSES if "WRITE" in held(process)["eu.predictions"]] == ["serve"]
    for process in PROCESSES:
        operations = set().union(*held(process).values())
        assert not operations & {"ALL", "ANY", "DELETE", "ALTER_CONFIGS", "CLUSTER_ACTION"}
        assert bool(operations & {"CREATE", "ALTER"}) == (process == "topics")


def test_the_groups_are_those_of_the_settings() -> None:
    """Named differently per deployment."""
    assert held("worker")["watchers"] == {"READ"}
    assert held("retrain")["driftline-retrain"] == {"READ"}


def test_the_commands_can_be_pasted_into_a_shell() -> None:
    """With quotes where a name needs them."""
    (command, *_) = kafka_commands(SETTINGS, "worker", "CN=worker, O=we")
    words = shlex.split(command)
    assert words[words.index("--allow-principal") + 1] == "User:CN=worker, O=we"
    assert words[words.index("--topic") + 1] == "eu.predictions"


def test_the_redis_user_is_kept_to_the_prefix() -> None:
    """Whatever letters it has: a star in it is no pattern. A process without a store needs no user."""
    line = redis_user(SETTINGS, "worker", "w")
    assert line is not None
    assert r" resetkeys ~eu\*:* -@all " in line
    assert "+@" not in line
    assert redis_user(SETTINGS, "serve", "s") is None


def test_the_readme_shows_the_worker_s_redis_user() -> None:
    """As it is printed, on two lines."""
    readme = " ".join((Path(__file__).parents[3] / "README.md").read_text().split())
    line = redis_user(Settings(), "worker", "driftline-worker")
    assert line is not None
    assert line in readme


def test_an_anonymous_client_is_asked_nothing() -> None:
    """There is no broker here to ask."""
    assert missing(SETTINGS, "worker") == []
