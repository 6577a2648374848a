"""The loop of the benchmark, in process and without Kafka, and the real processes on real topics: the same decisions.

Both play the same stream: the benchmark's world in memory, and `worker`, `serve` and `retrain` on servers, where the
player waits for each run. Runs begin by number of labels, which no clock decides.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from bench.loop_streams import FIRST_ROWS, Case, RecordedStream, streams
from bench.loop_world import MODEL, World
from retrain.administration import Administration
from retrain.announce import KafkaAnnouncer
from retrain.dataset import Dataset, Problem
from retrain.lifecycle import Run
from retrain.runs import RunStore
from retrain.tables import Table
from serving.client import ServeClient
from serving.manifest import Feature
from serving.play import OutcomePublisher
from serving.repository import Repository
from streams.kafka import SafeProducer
from streams.settings import RetrainSettings, Settings
from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

RUN_ROWS = 500
RUNS = 4
CHUNK_ROWS = 100
LOOP = RetrainSettings(
    trees=20,
    depth=4,
    alerts=[],
    labels=RUN_ROWS,
    minimum_rows=RUN_ROWS,
    cooldown_s=0.0,
    parity_rows=500,
    maximum_latency_ms=10_000.0,
    probation_significance=1e-9,
)
"""What a machine's speed decides is left out: alerts and rollbacks, which come by the clock, and latency."""


@dataclass(frozen=True)
class Decision:
    """One run: what it weighed, what it said, and the bytes of what it promoted."""

    rows: int
    promoted: str | None
    verdict: str
    sha256: str | None


def decisions(runs: list[Run], repository: Repository) -> list[Decision]:
    """The runs' decisions, oldest first."""
    found = []
    for run in runs:
        version = run.version if run.promoted_ms is not None else None
        sha256 = repository.manifest(MODEL, version).sha256 if version is not None else None
        found.append(
            Decision(
                run.tested_rows,
                None if version is None else str(version),
                run.verdict or run.reason or "",
                sha256,
            )
        )
    return found


def turning() -> RecordedStream:
    """Half of the features decide, and from row 5,800 on the other half: noise of one in twenty."""
    rng = np.random.default_rng(11)
    rows = FIRST_ROWS + RUNS * RUN_ROWS
    features = rng.random((rows, 4)).astype(np.float32)
    before = features[:, 0] + features[:, 1] > 1.0
    after = features[:, 2] + features[:, 3] > 1.0
    target = np.where(np.arange(rows) < FIRST_ROWS + 800, before, after) ^ (rng.random(rows) < 0.05)
    return RecordedStream("turning", features, target.astype(np.int64), (FIRST_ROWS + 800,))


@pytest.fixture(params=["turning", "elec2", "harvard_mixed_0101_abrupto"])
def stream(request: pytest.FixtureRequest) -> RecordedStream:
    """A generated stream, the first rows of a recorded one, and of another those about its first drift.

    The drift comes between two runs. Within one it would bring a stopgap, whose successor is due after some sixty
    labels: the world looks each ten, the player publishes five hundred at once.
    """
    if request.param == "turning":
        return turning()
    folder: Path = request.getfixturevalue("driftline_data")
    (found,) = streams(folder, {request.param})
    start = found.drifts[0] - FIRST_ROWS - RUN_ROWS if found.drifts else 0
    rows = slice(start, start + FIRST_ROWS + RUNS * RUN_ROWS)
    return replace(found, features=found.features[rows], target=found.target[rows], drifts=())


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    changes: dict[str, str | int | float] = {
        f"retrain__{name}": value
        for name, value in LOOP.model_dump(exclude_defaults=True).items()
        if isinstance(value, str | int | float)
    }
    with Driftline(
        kafka_broker, redis_store, deployment, tmp_path, kafka__partitions=1, retrain__alerts="[]", **changes
    ) as made:
        yield made


def register(driftline: Driftline, stream: RecordedStream) -> None:
    """The first version, of the rows that the benchmark's has."""
    features = tuple(Feature(f"f{i}") for i in range(stream.features.shape[1]))
    order = np.arange(FIRST_ROWS, dtype=np.int64)
    unknown = np.full(FIRST_ROWS, np.nan)
    target = stream.target[:FIRST_ROWS].astype(np.float64)
    rows = Dataset(stream.features[:FIRST_ROWS], target, unknown, order, {}, {})
    announcer = KafkaAnnouncer(driftline.settings)
    try:
        Administration(
            Repository(driftline.settings.repository), announcer, lambda: time.time_ns() // 1_000_000
        ).register(
            Table(Problem(MODEL, "binary", features, (0, 1), 1), rows),
            driftline.settings.retrain,
            mode="auto",
            trained_from={},
        )
    finally:
        announcer.close()


class RealWorld:
    """The real processes, and a player that waits for them."""

    def __init__(self, driftline: Driftline, stream: RecordedStream) -> None:
        self._driftline = driftline
        self._stream = stream
        self.repository = Repository(driftline.settings.repository)
        self.runs = RunStore(driftline.settings.repository)

    def play(self) -> list[Decision]:
        """Play the stream to its end, and wait for each run."""
        driftline = self._driftline.create_topics()
        register(driftline, self._stream)
        processes = [driftline.daemon(name) for name in ("worker", "serve", "retrain")]
        for process in processes:
            process.started()
        client = ServeClient(processes[1].url)
        producer = SafeProducer(driftline.settings.kafka)
        try:
            outcomes = OutcomePublisher(producer, driftline.topics.outcomes, MODEL, (0, 1))
            for number in range(1, RUNS + 1):
                self._rows(client, producer, outcomes, FIRST_ROWS + (number - 1) * RUN_ROWS)
                eventually(
                    lambda n=number: driftline.stored_counters().joined == n * RUN_ROWS,  # type: ignore[misc]
                    "every pair is joined",
                )
                eventually(lambda n=number: self._ended(n), f"run {number} has ended", 300)  # type: ignore[misc]
                eventually(lambda: self._serves(client), "the champion serves")
        finally:
            client.close()
            producer.close()
        for process in processes:
            assert process.terminate() == 0, process.tail()
        return decisions(self.runs.of(MODEL), self.repository)

    def _rows(self, client: ServeClient, producer: SafeProducer, outcomes: OutcomePublisher, start: int) -> None:
        model = client.model(MODEL)
        for first in range(start, start + RUN_ROWS, CHUNK_ROWS):
            rows = range(first, first + CHUNK_ROWS)
            asked = [{f"f{i}": value for i, value in enumerate(self._stream.features[row].tolist())} for row in rows]
            client.ask(model, asked, [f"row-{row}" for row in rows])
            for row in rows:
                outcomes.publish(f"row-{row}", int(self._stream.target[row]))
            producer.flush()

    def _ended(self, number: int) -> bool:
        runs = self.runs.of(MODEL)
        return len(runs) == number and not any(run.at_work for run in runs)

    def _serves(self, client: ServeClient) -> bool:
        state = self.repository.state(MODEL)
        return state is not None and client.model(MODEL).parameters.version == state.aliases["champion"]


def test_real_processes_promote_what_the_benchmark_promotes(
    driftline: Driftline, stream: RecordedStream, tmp_path: Path
) -> None:
    """The same rows are weighed, the same is said of them, and the promoted models are the same bytes."""
    folder = tmp_path / "in-process"
    world = World(stream, Case(0, 1.0), Settings(retrain=LOOP), folder)
    served = world.run()
    expected = decisions(served.runs, Repository(str(folder)))
    assert [each.rows for each in expected].count(0) == 0
    assert any(each.promoted for each in expected), expected
    assert not served.rollbacks
    assert RealWorld(driftline, stream).play() == expected
