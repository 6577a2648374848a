"""The engine within this process: what only Faust does to it, at moments that no process can be made to meet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
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


async def stopped(driftline: Driftline, *, store_stands_still: bool) -> str | None:
    """Stop an engine whose taking of partition 0 a rebalance cancels → what it says was not done."""
    engine = Engine(driftline.settings, WorkerMetrics(CollectorRegistry()), fatal)
    engine.consumer = Assigned()  # type: ignore[assignment]
    topics = engine.topics.predictions, engine.topics.outcomes, engine.topics.summaries
    if store_stands_still:
        driftline.store.pause()
    try:
        taking = asyncio.create_task(engine.take({TP(topic, 0) for topic in topics}, 1))
        if store_stands_still:
            await asyncio.to_thread(eventually, engine._store.waited_s, "the taking asks the store", poll_s=0.01)
            taking.cancel()
        else:
            await taking
        await engine.drain()
        with contextlib.suppress(asyncio.CancelledError):
            await taking
    finally:
        if store_stands_still:
            driftline.store.resume()
        engine.close()
    return None if engine.unfinished is None else engine.unfinished.message


def test_a_store_that_was_given_up_is_told_although_a_rebalance_cancelled_the_taking(driftline: Driftline) -> None:
    """The cut-off call's error ends with the cancelled taking; the exit code must not say that all is done."""
    said = asyncio.run(asyncio.wait_for(stopped(driftline, store_stands_still=True), BOUND_S))
    assert said == "the store did not answer while stopping"


def test_a_store_that_answers_leaves_nothing_to_tell(driftline: Driftline) -> None:
    assert asyncio.run(asyncio.wait_for(stopped(driftline, store_stands_still=False), BOUND_S)) is None
