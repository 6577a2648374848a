"""SIGTERM under load: the worker checkpoints, leaves the group and ends, whatever its store does."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import ConsumerGroupState

from tests.faults.conftest import Note
from tests.faults.traffic import Shape
from tests.faults.trial import RESTART_ME, Trial
from tests.support.driftline import Driftline, Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.supervisor import Supervisor

SESSION_S = 60
"""Much longer than it may take to leave: whoever is gone before has left by itself."""
GONE_S = 20.0


def members(driftline: Driftline, state: ConsumerGroupState | None = None) -> int | None:
    """How many workers the group has, as the broker sees it; None while it is not in ``state``."""
    group = driftline.settings.worker.group
    admin = driftline.broker.admin()
    found = admin.describe_consumer_groups([group])[group].result()
    return len(found.members) if state in (None, found.state) else None


def gives_up(supervisor: Supervisor, worker: Process) -> None:
    """It stops in time without its last checkpoint."""
    assert supervisor.leave(worker) == RESTART_ME, worker.tail()
    (reason,) = worker.reasons()
    assert "the last checkpoint was not taken" in reason, worker.tail()
    assert worker.events("worker.stopped"), worker.tail()


def test_sigterm_checkpoints_and_leaves_the_group(
    kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, note: Note
) -> None:
    """Under load with exit code 0 and nothing to do again; with a store that stands still with 75 and nothing lost.

    The store keeps one of them from taking partitions at its start, the other from its checkpoint and from taking what
    that one has left. A worker ends itself when its stop takes longer than nine seconds, and says so.
    """
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path, kafka__session_timeout_s=SESSION_S)
        with trial.driftline, Supervisor(trial.driftline, 2) as supervisor:
            trial.prepare()
            with trial.traffic(Shape(rows_per_s=1_500)) as traffic:
                first, second = supervisor.started()
                trial.joined_more(2_000, "the first pairs")
                assert supervisor.leave(first) == 0, first.tail()
                assert first.events("worker.stopped")
                eventually(lambda: members(trial.driftline) == 1, "the first has left", GONE_S)
                supervisor.add()
                third = eventually(lambda: supervisor.workers[1:], "a third worker")[0]
                eventually(lambda: third.events("partition.taken"), "it takes partitions", poll_s=0.01)
                store.pause()
                try:
                    gives_up(supervisor, third)
                    eventually(lambda: members(trial.driftline, ConsumerGroupState.STABLE) == 1, "a rebalance", GONE_S)
                    gives_up(supervisor, second)
                    eventually(lambda: members(trial.driftline) == 0, f"the second left: {second.tail()}", GONE_S)
                finally:
                    store.resume()
                supervisor.add()
                verdict = trial.verify(supervisor, traffic)
    note(verdict)
