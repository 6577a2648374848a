"""The retrain loop killed at random moments, from the alert to the rollback, on real servers."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import redis

from retrain.runs import RunStore
from tests.faults.conftest import FULL, Note
from tests.integration.test_retrain import BOUND_S, Deployment, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

KILLS, FULL_KILLS = 6, 100
KILLS_BEFORE, KILLS_AFTER = 2, 4
"""The promotion, in each episode. A run whose training was begun three times without an end is given up, by design."""
LONGEST_LIFE_S = 4.0
"""A process is killed so long after it began to read alerts, at most: a run takes about as long."""
SETTINGS = {"retrain.rollback_cooldown_s": "0", "retrain.labels": "0"}


class Hunt:
    """Keeps the loop running until something has come about, and kills it again and again meanwhile."""

    def __init__(self, deployed: Deployment, store: RedisServer, kills: int, seed: int) -> None:
        self._deployed = deployed
        self._store = redis.Redis.from_url(store.url)
        self._rng = random.Random(seed)
        self.left = kills
        self.killed = 0

    def until(self, condition: Callable[[], bool], what: str, at_most: int) -> None:
        """Kill up to ``at_most`` processes before ``condition`` holds; the next one is let live until it does."""
        for _ in range(min(at_most, self.left)):
            process, _url = self._deployed.retrain(**SETTINGS)
            ends = time.monotonic() + self._rng.uniform(0.0, LONGEST_LIFE_S)
            while time.monotonic() < ends and not condition():
                time.sleep(0.02)
            process.kill()
            process.wait(BOUND_S)
            self.killed += 1
            self.left -= 1
            self._leases_run_out()
            require_whole(self._deployed)
        process, _url = self._deployed.retrain(**SETTINGS)
        eventually(condition, what)
        process.kill()
        process.wait(BOUND_S)
        self._leases_run_out()

    def _leases_run_out(self) -> None:
        """At once, not in half a minute: the process that held them is no more."""
        for key in self._store.scan_iter(f"{self._deployed.settings.redis.prefix}:retrain:lease:*"):
            self._store.delete(key)


def require_whole(deployed: Deployment) -> None:
    """What can be seen is complete, and every alias names a version that can be loaded."""
    repository = deployed.repository
    for version in repository.versions("loans"):
        repository.load("loans", version)
        assert repository.card("loans", version)
    state = repository.state("loans")
    assert state is not None
    for version_named in state.aliases.values():
        repository.load("loans", int(version_named))


def states(deployed: Deployment) -> list[str]:
    """Where the runs are, oldest first."""
    return [run.state for run in RunStore(deployed.settings.repository).of("loans")]


def test_killed_at_any_moment_it_promotes_once_and_rolls_back_once(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path, full: bool, note: Note
) -> None:
    """Episode after episode of wrong labels that become right again: one promotion and one rollback each."""
    kills = int(os.environ.get(f"{FULL}_RETRAIN_KILLS") or (FULL_KILLS if full else KILLS))
    deployed = Deployment(kafka_broker, redis_store, deployment, tmp_path)
    hunt = Hunt(deployed, redis_store, kills, seed=6)
    episodes = 0
    try:
        deployed.register()
        while hunt.left > 0:
            episodes += 1
            before = ["rolled_back"] * (episodes - 1)
            deployed.alert(deployed.live(400), f"f{episodes}")
            hunt.until(
                lambda b=before: states(deployed) in ([*b, "watching"], [*b, "promoted"]),  # type: ignore[misc]
                "a version is promoted",
                KILLS_BEFORE,
            )
            state = deployed.repository.state("loans")
            assert state is not None
            deployed.live(200, version=int(state.aliases["champion"]), changed=False)
            hunt.until(
                lambda b=before: states(deployed) == [*b, "rolled_back"],  # type: ignore[misc]
                "it is rolled back",
                KILLS_AFTER,
            )
            require_whole(deployed)
            note(f"{hunt.killed} kills, {episodes} episodes")
        made = [r.change.what for r in deployed.repository.history("loans") if r.change is not None]
        assert made.count("promoted") == made.count("rolledback") == episodes
        for kind in ("promoted", "rolledback"):
            assert len({event.state.revision for event in deployed.told(kind)}) == episodes
        assert deployed.announcer.last_states()["loans"] == deployed.repository.state("loans")
        assert hunt.killed == kills
    finally:
        deployed.close()
