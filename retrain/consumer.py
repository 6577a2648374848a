"""`driftline retrain`: reads alerts, records an episode before its offset is committed, and runs what is recorded.

It counts labels beside that, for the runs that no alert starts.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from prometheus_client import start_http_server

from retrain.active import ActiveRuns
from retrain.announce import KafkaAnnouncer, Untold, republish
from retrain.child import Job, perform_in_child, warm_up
from retrain.contest import Contest
from retrain.estimators import find
from retrain.labels import LabelCounts
from retrain.lease import Leases
from retrain.log import KafkaLog, LabelledFeed
from retrain.metrics import RetrainMetrics
from retrain.retrainer import Perform, Retrainer
from retrain.run import Stage
from retrain.runs import RunStore
from retrain.training import Refused
from serving.repository import Repository
from streams.codec import Undecodable, alert_decoder
from streams.configuration import masked
from streams.errors import Unavailable, WrongSetting
from streams.events import rfc3339
from streams.kafka import client_config, failure, refusal
from streams.permissions import require
from streams.settings import Settings
from streams.topics import Topics

POLL_S = 0.2
LOOK_S = 2.0
"""How often runs that another process left behind are looked for."""
TELL_S = 60.0
"""How often states that another process left unpublished are."""

log = structlog.get_logger("retrain")


def now_ms() -> int:
    """The wall clock."""
    return time.time_ns() // 1_000_000


def retrain(settings: Settings, ready_file: Path | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises :class:`Unavailable` without a broker, a store or the port of /metrics."""
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_signals(stop))
        metrics = RetrainMetrics()
        url = stack.enter_context(_exposed(metrics, settings.retrain.http))
        require(settings, "retrain")
        leases = Leases(settings.redis)
        stack.callback(leases.close)
        leases.check()
        announcer = KafkaAnnouncer(settings)
        stack.callback(announcer.close)
        repository = Repository(settings.repository)
        for model in republish(repository, announcer, rfc3339(now_ms())):
            log.info("state republished", model=model)
        retrainer = Retrainer(
            repository=repository,
            runs=RunStore(settings.repository),
            log=KafkaLog(settings),
            announcer=announcer,
            settings=settings.retrain,
            predictions_topic=Topics(settings.kafka.topic_prefix).predictions,
            perform=_one_at_a_time(),
            now_ms=now_ms,
            own_settings={model: settings.retrain_of(model) for model in settings.models},
        )
        tell_missing_estimators(retrainer, repository)
        labels = LabelCounts()
        feed = retrainer.log.labelled(retrainer.labels_from_ms(labels))
        stack.callback(feed.close)
        alerts = stack.enter_context(_alerts(settings))
        warm_up()
        active = ActiveRuns(retrainer, leases, metrics)
        stack.callback(active.stop)
        if ready_file is not None:
            ready_file.write_text(url)
        log.info("waiting for alerts", metrics=url, repository=masked(settings.repository))
        _loop(stop, alerts, retrainer, active, metrics, feed, labels)


def tell_missing_estimators(retrainer: Retrainer, repository: Repository) -> None:
    """A run would say so too, but perhaps in the middle of the night."""
    for model in repository.models():
        name = retrainer.settings_of(model).estimator
        try:
            if name:
                find(name)
        except Refused as reason:
            log.error("runs of this model will be rejected", model=model, reason=str(reason))


def _loop(
    stop: threading.Event,
    alerts: Consumer,
    retrainer: Retrainer,
    active: ActiveRuns,
    metrics: RetrainMetrics,
    feed: LabelledFeed,
    labels: LabelCounts,
) -> None:
    decoder = alert_decoder()
    look_at, tell_at = 0.0, 0.0
    untold = Untold(retrainer.repository, retrainer.announcer)
    while not stop.is_set():
        message = alerts.poll(POLL_S)
        if message is not None and _readable(message.error()):
            try:
                run = retrainer.trigger(decoder.decode_any(message.value(), message.headers() or ()))
                metrics.alerts.labels("triggered" if run else "ignored").inc()
            except Undecodable as error:
                run = None
                metrics.alerts.labels("undecodable").inc()
                log.warning("not an alert", offset=message.offset(), reason=str(error))
            look_at = 0.0 if run else look_at
            _commit(alerts, message)
        for record in feed.poll():
            labels.add(record)
        if active.reap():
            look_at = 0.0
        active.renew()
        if time.monotonic() >= look_at:
            retrainer.look(labels)
            unfinished = retrainer.unfinished()
            metrics.at_work(unfinished)
            active.start(unfinished)
            active.watch(retrainer.on_probation())
            look_at = time.monotonic() + LOOK_S
        if time.monotonic() >= tell_at:
            _tell(untold)
            tell_at = time.monotonic() + TELL_S


def _tell(untold: Untold) -> None:
    """A broker that is away does not end the process for this: what is at work will say so, and the next look tells."""
    try:
        for model in untold.look(rfc3339(now_ms())):
            log.info("state republished", model=model)
    except Unavailable as error:
        log.warning("states cannot be published now", reason=str(error))


def _readable(error: KafkaError | None) -> bool:
    if error is None:
        return True
    if refusal(error) is not None:
        raise failure("alerts", error)
    if error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise Unavailable(f"alerts cannot be read: {error.str()}", "`driftline topics create` makes the topics")
    log.warning("alerts cannot be read now", reason=error.str())
    return False


def _commit(alerts: Consumer, message: object) -> None:
    """The episode is recorded: should the commit fail, it is seen again and known."""
    try:
        alerts.commit(message=message, asynchronous=False)
    except KafkaException as error:
        if (denied := refusal(error.args[0])) is not None:
            raise denied from None
        log.warning("offset not committed", reason=error.args[0].str())


@contextmanager
def _alerts(settings: Settings) -> Iterator[Consumer]:
    topic = Topics(settings.kafka.topic_prefix).alerts
    consumer = Consumer(
        {
            **client_config(settings.kafka),
            "group.id": settings.retrain.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "session.timeout.ms": int(settings.kafka.session_timeout_s * 1000),
            "heartbeat.interval.ms": int(settings.kafka.heartbeat_s * 1000),
        }
    )
    try:
        consumer.subscribe([topic])
        yield consumer
    finally:
        consumer.close()


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _exposed(metrics: RetrainMetrics, http: str) -> Iterator[str]:
    """/metrics on ``http`` → its URL."""
    host, _, port = http.rpartition(":")
    if not host or not port.isdigit():
        raise WrongSetting(f"retrain.http {http} is not host:port", "for example 127.0.0.1:9465")
    try:
        server, thread = start_http_server(int(port), host, registry=metrics.registry)
    except OSError as error:
        raise Unavailable(f"{http} cannot be listened on: {error.strerror}", "set retrain.http, or free it") from None
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _one_at_a_time() -> Perform:
    """Runs of several models collect side by side, but train in turn: rows and trees of one fill a core."""
    turn = threading.Semaphore(1)

    def perform(job: Job, stage: Callable[[Stage], None], check: Callable[[], None]) -> Contest:
        while not turn.acquire(timeout=POLL_S):
            check()
        try:
            return perform_in_child(job, stage, check)
        finally:
            turn.release()

    return perform
