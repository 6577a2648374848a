"""The engine within this process: what only Faust does to it, at moments that no process can be made to meet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from streams.engine import Engine
from streams.metrics import WorkerMetrics
from tests.support.driftline import BOUND_S, Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

pytestmark = pytest.mark.kafka


@pytest.fixture
def driftline(kafka_broker: KafkaBroker, deployment: str, tmp_path: Path) -> Iterator[Driftline]:
    with RedisServer(tmp_path / "redis") as store, Driftline(kafka_broker, store, deployment, tmp_path) as made:
        yield made.create_topics()


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("nothing here ends a worker") from error


class Assigned:
    """Faust's consumer, as far as a taking asks it: the logs are empty."""

    app = SimpleNamespace(consumer_generation_id=1)

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)

    highwaters = earliest_offsets


@pytest.fixture
def engine(driftline: Driftline) -> Iterator[Engine]:
    made = Engine(driftline.settings, WorkerMetrics(CollectorRegistry()), fatal)
    made.consumer = Assigned()  # type: ignore[assignment]
    yield made
    made.close()


async def take(engine: Engine) -> None:
    """What Faust asks for when partition 0 is assigned."""
    topics = engine.topics.predictions, engine.topics.outcomes, engine.topics.summaries
    await engine.take({TP(topic, 0) for topic in topics}, 1)


def finish(scenario: Coroutine[None, None, None]) -> None:
    """Run it to its end, but not for ever."""
    asyncio.run(asyncio.wait_for(scenario, BOUND_S))


def test_a_store_that_was_given_up_is_told_although_a_rebalance_cancelled_the_taking(
    driftline: Driftline, engine: Engine
) -> None:
    """The cut-off call's error ends with the cancelled taking; the exit code must not say that all is done."""

    async def scenario() -> None:
        taking = asyncio.create_task(take(engine))
        await asyncio.to_thread(eventually, engine._store.waited_s, "the taking asks the store", poll_s=0.01)
        taking.cancel()
        await engine.drain()
        with contextlib.suppress(asyncio.CancelledError):
            await taking

    driftline.store.pause()
    try:
        finish(scenario())
    finally:
        driftline.store.resume()
    assert engine.unfinished is not None
    assert engine.unfinished.message == "the store did not answer while stopping"


def test_a_store_that_answers_leaves_nothing_to_tell(engine: Engine) -> None:
    async def scenario() -> None:
        await take(engine)
        await engine.drain()

    finish(scenario())
    assert engine.unfinished is None
