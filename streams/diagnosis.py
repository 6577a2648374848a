"""What would break the exactness of a deployment, or has stopped it, judged from what its servers say of themselves.

Pure but for :func:`stored_positions`; ``driftline doctor`` asks the servers and prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from streams.errors import StateMismatch, Unavailable
from streams.topics import Topics, TopicSpec

MEMORY_SHARE = 0.9
"""Of maxmemory: beyond it the store is about to refuse writes."""
UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition goes on reading, as stored with its state."""

    topic: str
    partition: int
    offset: int


def memory(info: Mapping[str, Any]) -> str:
    """Whether the store has room. Raises :class:`Unavailable` when it refuses writes soon or already."""
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used >= MEMORY_SHARE * limit:
        raise Unavailable(
            f"{used / 1e6:.0f} MB are used, maxmemory is {limit / 1e6:.0f} MB: writes are refused, or will be soon",
            "raise it, for example `CONFIG SET maxmemory 4gb`: the workers wait meanwhile and lose nothing",
        )
    return f"{used / 1e6:.0f} MB used" + (f" of {limit / 1e6:.0f} MB" if limit else ", no limit set")


def disk(info: Mapping[str, Any]) -> str:
    """Whether the store can write its files. Raises :class:`Unavailable` when its last write failed."""
    names = ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
    if failed := [name for name in names if info.get(name, "ok") != "ok"]:
        raise Unavailable(
            f"the last write of the store's files failed ({', '.join(failed)})",
            "is its disk full? free space: the workers wait meanwhile and lose nothing",
        )
    return "its last writes succeeded"


def configuration(wanted: Iterable[TopicSpec], found: Mapping[str, Mapping[str, str]], horizon_ms: int) -> str:
    """Compare topics with how they are created. ``found``: topic → its configuration, of the topics that exist.

    Raises :class:`StateMismatch` for records that would be refused, deleted before they are used, or compacted away.
    """
    problems: list[tuple[str, str]] = []
    for spec in wanted:
        config = found.get(spec.name, {})
        size, needed = config.get("max.message.bytes"), int(spec.config["max.message.bytes"])
        if size is not None and int(size) < needed:
            problems.append((f"{spec.name} takes records of {size} bytes, {needed} are needed", _alter(spec)))
        kept, horizon = config.get("retention.ms"), min(int(spec.config["retention.ms"]), horizon_ms)
        if kept is not None and _shorter(int(kept), int(spec.config["retention.ms"]), horizon):
            problems.append((f"{spec.name} is kept for {int(kept) / 3.6e6:g} h", _alter(spec)))
        policy = config.get("cleanup.policy")
        if policy is not None and "compact" in policy and "compact" not in spec.config["cleanup.policy"]:
            problems.append((f"{spec.name} is compacted", _alter(spec)))
    if problems:
        raise StateMismatch("; ".join(what for what, _ in problems), "; ".join(mend for _, mend in problems))
    return "sizes, retention and cleanup are enough"


def _shorter(kept_ms: int, wanted_ms: int, horizon_ms: int) -> bool:
    """Whether records go before the horizon has passed, or at all from a topic that is kept for ever."""
    if kept_ms == UNLIMITED:
        return False
    return wanted_ms == UNLIMITED or kept_ms < horizon_ms


def _alter(spec: TopicSpec) -> str:
    settings = ",".join(
        f"{name}={spec.config[name]}" for name in ("max.message.bytes", "retention.ms", "cleanup.policy")
    )
    return f"`kafka-configs.sh --alter --entity-type topics --entity-name {spec.name} --add-config {settings}`"


def offsets(positions: Iterable[Position], logs: Mapping[tuple[str, int], tuple[int, int]]) -> str:
    """Whether every log still holds what is to be read next. ``logs``: (topic, partition) → (first offset, end).

    Raises :class:`StateMismatch` if one was deleted too early, or made anew.
    """
    known = list(positions)
    problems = []
    for at in known:
        low, end = logs.get((at.topic, at.partition), (0, 0))
        if at.offset < low:
            problems.append(f"{at.topic}-{at.partition}: offset {at.offset} is next, the log starts at {low}")
        elif at.offset > end:
            problems.append(f"{at.topic}-{at.partition}: offset {at.offset} is next, the log ends at {end}")
    if problems:
        raise StateMismatch(
            "; ".join(problems),
            "restore the topic or raise its retention; else start over with another redis.prefix and worker.group",
        )
    return f"{len(known)} stored positions are within their logs" if known else "nothing has been read yet"


def stored_positions(client: redis.Redis, prefix: str, topics: Topics) -> list[Position]:
    """The positions that the state in the store goes on from."""
    fields = {
        "join": {"predictions": topics.predictions, "outcomes": topics.outcomes},
        "monitor": {"summaries": topics.summaries},
    }
    found: list[Position] = []
    for stage, names in fields.items():
        for key in client.scan_iter(f"{prefix}:{{{stage}:*}}:meta"):
            partition = int(key.decode().rpartition("}")[0].rpartition(":")[2])
            for name, topic in names.items():
                if (offset := client.hget(key, name)) is not None:
                    found.append(Position(topic, partition, int(offset)))
    return found
