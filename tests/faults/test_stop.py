"""SIGTERM under load: the worker checkpoints, leaves the group and ends, whatever its store does."""

from __future__ import annotations

from pathlib import Path

from tests.faults.conftest import Note
from tests.faults.traffic import Shape
from tests.faults.trial import RESTART_ME, Trial
from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.supervisor import Supervisor

SESSION_S = 60
"""Much longer than it may take to leave: whoever is gone before has left by itself."""
LEFT_BOUND_S = 20.0


def members(driftline: Driftline) -> int:
    """How many workers the group has, as the broker sees it."""
    group = driftline.settings.worker.group
    admin = driftline.broker.admin()
    return len(admin.describe_consumer_groups([group])[group].result().members)


def test_sigterm_checkpoints_and_leaves_the_group(
    kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, note: Note
) -> None:
    """Under load with exit code 0 and nothing to do again; with a store that stands still with 75 and nothing lost.

    A worker ends itself with 75 when its stop takes longer than nine seconds, so that 0 says that it took less.
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
                eventually(lambda: members(trial.driftline) == 1, "the first has left", LEFT_BOUND_S)
                trial.joined_more(2_000, "the other goes on")
                store.pause()
                try:
                    code = supervisor.leave(second)
                    eventually(lambda: members(trial.driftline) == 0, "the second has left", LEFT_BOUND_S)
                finally:
                    store.resume()
                assert code == RESTART_ME, second.tail()
                (reason,) = second.reasons()
                assert "the last checkpoint was not taken" in reason
                supervisor.add()
                verdict = trial.verify(supervisor, traffic)
    note(verdict)
