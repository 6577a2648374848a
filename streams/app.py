"""The Faust app of a stream worker: its agents hand whole fetches to the engine, its timer drives the checkpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import faust
import faust.tables
from faust.types.auth import CredentialsT

from streams.credentials import KafkaAccess, kafka_access
from streams.engine import Engine
from streams.errors import DriftlineError
from streams.settings import Settings
from streams.steps import STEPS
from streams.transport import Consumer, Transport

BUFFERED_FETCHES = 2
TAKE_BOUND_S = 86_400.0
"""How long taking partitions may last before Kafka is told that we are gone: a rebuild from the log takes minutes."""


def credentials(access: KafkaAccess) -> CredentialsT | None:
    """Faust's form of how to reach the broker.

    The context is made here for SASL too: without one Faust would silently leave out the encryption.
    """
    context = access.tls.context() if access.tls is not None else None
    if access.username:
        return faust.SASLCredentials(
            username=access.username,
            password=access.password.get_secret_value(),
            mechanism=access.mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


class NoTables(faust.tables.TableManager):
    """For an app without tables: Faust's own waits for a second, in case an agent still makes one."""

    async def sleep(self, n: Any, *, loop: Any = None) -> None:
        """Not at all; the manager sleeps nowhere else."""


class WorkerApp(faust.App):
    """The Faust app with our transport."""

    def __init__(self, engine: Engine, settings: Settings, data_dir: str) -> None:
        self.engine = engine
        servers = [f"kafka://{server.strip()}" for server in settings.kafka.bootstrap.split(",")]
        super().__init__(
            settings.worker.group,
            broker=servers,
            broker_credentials=credentials(kafka_access(settings.kafka)),
            store="memory://",
            TableManager=NoTables,
            datadir=data_dir,
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            topic_partitions=engine.counts[engine.topics.predictions],
            consumer_auto_offset_reset="earliest",
            stream_wait_empty=False,
            stream_buffer_maxsize=BUFFERED_FETCHES,
            broker_max_poll_records=None,
            broker_session_timeout=settings.kafka.session_timeout_s,
            broker_heartbeat_interval=settings.kafka.heartbeat_s,
            broker_commit_interval=2.8,
            broker_max_poll_interval=TAKE_BOUND_S,
        )

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self, self.engine, loop=self.loop)

    async def on_start(self) -> None:
        """The consumer exists from here on."""
        self.engine.consumer = cast(Consumer, self.consumer)
        await super().on_start()

    async def on_stop(self) -> None:
        """Checkpoint what has been joined, then give the partitions back."""
        await self.engine.drain()
        await super().on_stop()


def build(settings: Settings, engine: Engine, data_dir: str, fatal: Callable[[BaseException], None]) -> WorkerApp:
    """The app with its agents and its timer."""
    app = WorkerApp(engine, settings, data_dir)
    raw: dict[str, Any] = {"key_serializer": "raw", "value_serializer": "raw"}
    inputs = app.topic(engine.topics.predictions, engine.topics.outcomes, **raw)
    summaries = app.topic(engine.topics.summaries, **raw)

    async def guarded(work: Awaitable[None]) -> None:
        """A failure that is not about one record ends the process; a supervisor starts a clean one."""
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, this process cannot go on
            if engine.stopping and isinstance(error, DriftlineError):
                engine.unfinished = error
            else:
                fatal(error)

    @app.agent(inputs, name="join")
    async def join(stream: Any) -> None:
        stream.enable_acks = False
        async for fetched in stream:
            await guarded(engine.take_inputs(fetched))

    @app.agent(summaries, name="monitor")
    async def monitor(stream: Any) -> None:
        stream.enable_acks = False
        async for fetched in stream:
            await guarded(engine.take_summaries(fetched))

    @app.timer(settings.worker.checkpoint_s / STEPS)  # type: ignore[untyped-decorator]
    async def tick(app: WorkerApp) -> None:
        if engine.join.parts or engine.monitor.parts:
            await guarded(engine.tick())

    return app
