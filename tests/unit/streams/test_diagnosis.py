"""What the doctor makes of what the servers say of themselves."""

from __future__ import annotations

import pytest

from streams.diagnosis import Position, configuration, disk, memory, offsets
from streams.errors import StateMismatch, Unavailable
from streams.settings import Settings
from streams.topics import DAY_MS, specs

HORIZON_MS = 7 * DAY_MS


def test_a_store_at_its_limit_is_told_before_it_refuses() -> None:
    """Nine tenths of maxmemory; without a limit there is none."""
    assert memory({"used_memory": 500_000_000, "maxmemory": 0}) == "500 MB used, no limit set"
    assert memory({"used_memory": 80_000_000, "maxmemory": 100_000_000}) == "80 MB used of 100 MB"
    with pytest.raises(Unavailable, match="90 MB are used, maxmemory is 100 MB") as caught:
        memory({"used_memory": 90_000_000, "maxmemory": 100_000_000})
    assert "CONFIG SET maxmemory" in caught.value.hint


@pytest.mark.parametrize("name", ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"])
def test_a_store_that_cannot_write_its_files_is_told(name: str) -> None:
    """The failed status is named, and what mends it."""
    assert disk({"aof_last_write_status": "ok"}) == "its last writes succeeded"
    with pytest.raises(Unavailable, match=name) as caught:
        disk({name: "err"})
    assert "free space" in caught.value.hint


def broken(topic: str, **changes: str) -> str:
    """What is said of a deployment whose one topic has another configuration."""
    wanted = specs(Settings())
    found = {spec.name: dict(spec.config) for spec in wanted}
    assert configuration(wanted, found, HORIZON_MS)
    found[topic] |= {name.replace("_", "."): value for name, value in changes.items()}
    with pytest.raises(StateMismatch) as caught:
        configuration(wanted, found, HORIZON_MS)
    assert f"--entity-name {topic} " in caught.value.hint
    return caught.value.message


def test_topics_that_refuse_delete_or_compact_what_is_needed_are_told() -> None:
    """Records that are too large for the topic, gone before the horizon, or compacted away."""
    assert "takes records of 1048588 bytes, 10485760 are needed" in broken("outcomes", max_message_bytes="1048588")
    assert "predictions is kept for 24 h" in broken("predictions", retention_ms=str(DAY_MS))
    assert "model-events is kept for 168 h" in broken("model-events", retention_ms=str(7 * DAY_MS))
    assert "outcomes is compacted" in broken("outcomes", cleanup_policy="compact")


def test_more_than_is_needed_is_no_failure() -> None:
    """Kept for ever, larger records, and topics that are not there yet."""
    wanted = specs(Settings())
    generous = {"max.message.bytes": "20000000", "retention.ms": "-1", "cleanup.policy": "delete"}
    assert configuration(wanted, {wanted[0].name: generous}, HORIZON_MS)


def test_a_position_outside_its_log_is_told() -> None:
    """Deleted unread, or a topic made anew; at the end and at the beginning is right."""
    logs = {("predictions", 0): (10, 20), ("predictions", 1): (10, 20)}
    assert offsets([], logs) == "nothing has been read yet"
    assert offsets([Position("predictions", 0, 10), Position("predictions", 1, 20)], logs)
    with pytest.raises(StateMismatch, match="offset 9 is next, the log starts at 10"):
        offsets([Position("predictions", 0, 9)], logs)
    with pytest.raises(StateMismatch, match="offset 21 is next, the log ends at 20"):
        offsets([Position("predictions", 0, 21)], logs)
    with pytest.raises(StateMismatch, match="the log ends at 0"):
        offsets([Position("predictions", 2, 1)], logs)
