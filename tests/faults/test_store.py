"""A store that stands still, dies, runs out of memory or of disk, while traffic flows."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import Note
from tests.faults.trial import RESTART_ME, UNAVAILABLE, Trial
from tests.support.driftline import Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.server import executable
from tests.support.supervisor import Supervisor

WATCHDOG_S = 10
"""Shorter than the pauses here: the watchdog must know a store that is waited for."""
DISK_MB = 16
WAITING_S = 10.0


def waits(workers: list[Process]) -> bool:
    """Whether a worker has said that it waits for the store."""
    return any(worker.events("store.waiting") for worker in workers)


@contextmanager
def tmpfs(folder: Path, size_mb: int) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    subprocess.run([executable("mount", "mount"), "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run([executable("umount", "mount"), "--lazy", folder], check=True)


def test_a_store_that_stands_still(
    kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, full: bool, note: Note
) -> None:
    """The workers wait: none exits, none loses its partitions, and their checkpoints grow old on /metrics."""
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path, worker__watchdog_s=WATCHDOG_S)
        with trial.driftline, Supervisor(trial.driftline, 2) as supervisor:
            trial.prepare()
            with trial.traffic() as traffic:
                workers = supervisor.started()
                trial.joined_more(2_000, "the first pairs")
                assigned = [len(each.events("partitions.assigned")) for each in workers]
                store.pause()
                time.sleep(30 if full else WATCHDOG_S + 5)
                age_s = max(worker.metric("driftline_checkpoint_age_seconds") for worker in workers)
                lag = sum(worker.metric("driftline_consumer_lag", sum) for worker in workers)
                store.resume()
                assert age_s > WATCHDOG_S
                assert lag > 0
                trial.joined_more(2_000, "the work goes on")
                assert [len(each.events("partitions.assigned")) for each in workers] == assigned
                verdict = trial.verify(supervisor, traffic)
    note(f"oldest checkpoint {age_s:.0f} s, lag {lag:.0f}; {verdict}")


@pytest.mark.long
def test_a_takeover_that_waits_for_the_store(
    kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, full: bool, note: Note
) -> None:
    """A rebalance while the store stands still: past a request's timeout (90 s) Faust gives up; a restart helps."""
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path, worker__watchdog_s=WATCHDOG_S)
        with trial.driftline, Supervisor(trial.driftline, 1) as supervisor:
            trial.prepare()
            with trial.traffic() as traffic:
                (first,) = supervisor.started()
                trial.joined_more(1_000, "the first pairs")
                supervisor.add()
                second = eventually(lambda: supervisor.workers[1:], "a second worker starts")[0]
                eventually(
                    lambda: len(first.events("partitions.assigned")) > 1 or second.events("partition.taken"),
                    "it joins",
                    poll_s=0.01,
                )
                store.pause()
                time.sleep(100 if full else 8)
                store.resume()
                trial.joined_more(1_000, "the work goes on")
                verdict = trial.verify(supervisor, traffic, allowed=(RESTART_ME, UNAVAILABLE))
    note(verdict)


@pytest.mark.long
def test_a_store_that_dies_and_comes_back(
    kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, full: bool, note: Note
) -> None:
    """Killed at work and started again from its append-only file: the workers wait for it."""
    kills = 10 if full else 2
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path)
        with trial.driftline, Supervisor(trial.driftline, 2) as supervisor:
            trial.prepare()
            with trial.traffic() as traffic:
                supervisor.started()
                for _ in range(kills):
                    trial.joined_more(1_000, "the work goes on")
                    store.kill()
                    time.sleep(1.0)
                    store.start()
                trial.joined_more(1_000, "the work goes on")
                verdict = trial.verify(supervisor, traffic)
    note(f"{kills} kills of the store; {verdict}")


def starved(trial: Trial, supervisor: Supervisor, refused: str) -> None:
    """A store that refuses writes is waited for: nothing moves, nobody exits, and the reason is in the log."""
    eventually(lambda: waits(supervisor.workers), f"the workers wait: {supervisor.ended}")
    eventually(
        lambda: any(
            refused in event["reason"] for each in supervisor.workers for event in each.events("store.waiting")
        ),
        f"{refused} is in a log",
    )
    before = trial.driftline.stored_counters()
    time.sleep(WAITING_S)
    assert trial.driftline.stored_counters() == before
    assert supervisor.codes().total() == 0


def test_a_store_out_of_memory(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, note: Note) -> None:
    """At `maxmemory` the workers pause and drop nothing, and go on once there is room; the doctor knows."""
    with RedisServer(tmp_path / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path, worker__watchdog_s=WATCHDOG_S)
        with trial.driftline, Supervisor(trial.driftline, 2) as supervisor, store.client() as client:
            trial.prepare()
            with trial.traffic() as traffic:
                supervisor.started()
                trial.joined_more(2_000, "the first pairs")
                client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
                starved(trial, supervisor, "maxmemory")
                doctor = diagnosis(trial)
                client.config_set("maxmemory", 0)
                trial.joined_more(2_000, "the work goes on")
                verdict = trial.verify(supervisor, traffic)
    assert "✗ store memory" in doctor
    note(verdict)


@pytest.mark.long
def test_a_store_on_a_full_disk(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path, note: Note) -> None:
    """While the append-only file cannot be written the workers pause; they go on once there is space again."""
    with tmpfs(tmp_path / "disk", DISK_MB) as disk, RedisServer(disk / "redis") as store:
        trial = Trial(kafka_broker, store, deployment, tmp_path, worker__watchdog_s=WATCHDOG_S)
        with trial.driftline, Supervisor(trial.driftline, 2) as supervisor:
            trial.prepare()
            with trial.traffic() as traffic:
                supervisor.started()
                trial.joined_more(1_000, "the first pairs")
                filler = disk / "filler"
                fill(filler)
                starved(trial, supervisor, "MISCONF")
                doctor = diagnosis(trial)
                filler.unlink()
                trial.joined_more(1_000, "the work goes on")
                verdict = trial.verify(supervisor, traffic)
    assert "✗ store disk" in doctor
    note(verdict)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as filler:
        while True:
            try:
                filler.write(b"\0" * 65_536)
            except OSError:
                return


def diagnosis(trial: Trial) -> str:
    """What `driftline doctor` prints, and it must have found something."""
    process = trial.driftline.start("doctor")
    assert process.wait() == 1, process.tail()
    return process.out.read_text()
