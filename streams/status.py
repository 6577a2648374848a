"""What a deployment looks like now: models, windows, alerts, what waits, and how far behind everything is.

From the topics (model events, alerts, newest cuts) and the monitor's report in the store; nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import redis
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from streams.audit_log import newest_cuts, newest_monitor_cuts
from streams.catalog import Catalog
from streams.codec import Undecodable, alert_decoder, model_event_decoder
from streams.events import Alert, ModelState, Silence, Task, rfc3339
from streams.kafka import TopicReader
from streams.label_status import LabelStatus, told
from streams.records import Cut, MonitorCut
from streams.settings import RedisSettings, Settings
from streams.silence import current
from streams.store_client import connect, store_failure
from streams.topics import TopicAdmin, Topics

Measures = dict[str, float | int | None]
"""Of one window: ``n`` and accuracy, precision, recall, f1, or mae and rmse."""
SHOWN = ("accuracy", "precision", "recall", "f1", "mae", "rmse")


class VersionReport(msgspec.Struct):
    """One version as the monitor reports it. Everything but the name may be missing in another release's report."""

    version: str
    windows: dict[str, Measures] = {}
    baseline: Any = None


class MonitorReport(msgspec.Struct):
    """One field of the hash ``status`` in the store."""

    model: str
    champion: str = ""
    versions: list[VersionReport] = []
    watermark_ms: int = 0
    labels: LabelStatus | None = None


class ModelStatus(msgspec.Struct):
    """One model; ``windows`` are those of ``version``: its champion, or the busiest version while there is none.

    ``task`` is None for a model that only the monitor knows.
    """

    model: str
    task: Task | None
    mode: str | None
    frozen: bool
    champion: str | None
    challenger: str | None
    previous: str | None
    version: str | None
    baseline: Any
    windows: dict[str, Measures]
    watermark_ms: int
    silence: Silence | None = None
    labels: LabelStatus | None = None


class ActiveAlert(msgspec.Struct):
    """An alert that fires."""

    alertname: str
    model: str
    severity: str
    since: str
    summary: str
    fingerprint: str
    segment: str = ""


class PartitionStatus(msgspec.Struct):
    """One input partition as of its newest cut; lag is in records that the cut does not cover."""

    partition: int
    pending: int
    waiting: int
    lag_predictions: int
    lag_outcomes: int
    clock_ms: int | None
    checkpoint_age_s: float | None


class MonitorStatus(msgspec.Struct):
    """One partition of the monitor as of its newest cut."""

    partition: int
    lag_summaries: int
    watermark_ms: int | None
    checkpoint_age_s: float | None


class Status(msgspec.Struct):
    """The whole deployment. ``watermark_ms``: the lowest clock of all input partitions, None before all have one."""

    at: str
    models: list[ModelStatus]
    alerts: list[ActiveAlert]
    partitions: list[PartitionStatus]
    monitor: list[MonitorStatus]
    watermark_ms: int | None
    lag: dict[str, int]


_report = msgspec.json.Decoder(MonitorReport)


def collect(settings: Settings) -> Status:
    """Ask the broker and the store; blocking. Raises a :class:`DriftlineError` when one does not."""
    topics = Topics(settings.kafka.topic_prefix)
    TopicAdmin(settings).verify()
    reports = _reports(settings.redis)
    catalog = read_catalog(settings, topics.model_events)
    alerts = _alerts(settings, topics.alerts)
    cuts = newest_cuts(settings.kafka, topics.checkpoints)
    monitor_cuts = newest_monitor_cuts(settings.kafka, topics.monitor_checkpoints)
    ends = {name: _ends(settings, name) for name in (topics.predictions, topics.outcomes, topics.summaries)}
    now_ms = time.time_ns() // 1_000_000
    return assemble(
        now_ms,
        models=describe(catalog, reports, current(catalog, now_ms)),
        alerts=active(alerts),
        partitions=[
            _partition(p, cuts.get(p), ends[topics.predictions][p], ends[topics.outcomes].get(p, (0, 0)), now_ms)
            for p in sorted(ends[topics.predictions])
        ],
        monitor=[_monitor(p, monitor_cuts.get(p), ends[topics.summaries][p], now_ms) for p in ends[topics.summaries]],
    )


def assemble(
    now_ms: int,
    models: list[ModelStatus],
    alerts: list[ActiveAlert],
    partitions: list[PartitionStatus],
    monitor: list[MonitorStatus],
) -> Status:
    """Put the parts together."""
    clocks = [each.clock_ms for each in partitions if each.clock_ms is not None]
    return Status(
        at=rfc3339(now_ms),
        models=models,
        alerts=alerts,
        partitions=partitions,
        monitor=monitor,
        watermark_ms=min(clocks) if clocks and len(clocks) == len(partitions) else None,
        lag={
            "predictions": sum(each.lag_predictions for each in partitions),
            "outcomes": sum(each.lag_outcomes for each in partitions),
            "summaries": sum(each.lag_summaries for each in monitor),
        },
    )


def describe(
    catalog: Iterable[ModelState], reports: Mapping[str, MonitorReport], silences: Mapping[str, Silence] | None = None
) -> list[ModelStatus]:
    """Every model of the catalog, and those that only the monitor knows, by name; ``silences`` that are on."""
    silent = silences or {}
    states: dict[str, ModelState | None] = dict.fromkeys(reports)
    states |= {state.model: state for state in catalog}
    return [
        _model(name, states[name], reports.get(name) or MonitorReport(name), silent.get(name))
        for name in sorted(states)
    ]


def _model(name: str, state: ModelState | None, report: MonitorReport, silence: Silence | None) -> ModelStatus:
    aliases = state.aliases if state is not None else {}
    champion = aliases.get("champion") or report.champion or None
    shown = champion or max(report.versions, key=_outcomes, default=VersionReport("")).version or None
    version = next((v for v in report.versions if v.version == shown), VersionReport(shown or ""))
    declared = state.baselines.get(version.version) if state is not None else None
    return ModelStatus(
        model=name,
        task=state.task if state is not None else None,
        mode=state.mode if state is not None else None,
        frozen=state.frozen if state is not None else False,
        champion=champion,
        challenger=aliases.get("challenger"),
        previous=aliases.get("previous"),
        version=shown,
        baseline=version.baseline if version.baseline is not None else declared,
        windows=version.windows,
        watermark_ms=report.watermark_ms,
        silence=silence,
        labels=report.labels,
    )


def _outcomes(version: VersionReport) -> float:
    return max((window.get("n") or 0 for window in version.windows.values()), default=0)


def active(alerts: Iterable[Alert]) -> list[ActiveAlert]:
    """The newest alert of each fingerprint, where that one fires; the longest active first."""
    newest: dict[str, Alert] = {}
    for alert in alerts:
        newest[alert.fingerprint] = alert
    firing = [
        ActiveAlert(
            alertname=alert.labels.get("alertname", ""),
            model=alert.labels.get("model", ""),
            severity=alert.labels.get("severity", ""),
            since=alert.starts_at,
            summary=alert.annotations.get("summary", ""),
            fingerprint=alert.fingerprint,
            segment=alert.labels.get("segment", ""),
        )
        for alert in newest.values()
        if alert.status == "firing"
    ]
    return sorted(firing, key=lambda alert: (alert.since, alert.model, alert.alertname))


def _partition(
    partition: int, newest: tuple[Cut, int] | None, predictions: tuple[int, int], outcomes: tuple[int, int], now_ms: int
) -> PartitionStatus:
    if newest is None:
        return PartitionStatus(partition, 0, 0, predictions[1] - predictions[0], outcomes[1] - outcomes[0], None, None)
    cut, at_ms = newest
    return PartitionStatus(
        partition=partition,
        pending=cut.pending,
        waiting=cut.waiting,
        lag_predictions=max(0, predictions[1] - cut.predictions.end),
        lag_outcomes=max(0, outcomes[1] - cut.outcomes.end),
        clock_ms=cut.clock_ms,
        checkpoint_age_s=_age_s(now_ms, at_ms),
    )


def _monitor(partition: int, newest: tuple[MonitorCut, int] | None, log: tuple[int, int], now_ms: int) -> MonitorStatus:
    if newest is None:
        return MonitorStatus(partition, log[1] - log[0], None, None)
    cut, at_ms = newest
    return MonitorStatus(partition, max(0, log[1] - cut.summaries.end), cut.watermark_ms, _age_s(now_ms, at_ms))


def _age_s(now_ms: int, at_ms: int) -> float:
    return max(0, now_ms - at_ms) / 1000


# ------------------------------------------------------------------------------------------------------------ sources


def _reports(settings: RedisSettings) -> dict[str, MonitorReport]:
    try:
        client = connect(settings)
        fields: Any = client.hgetall(f"{settings.prefix}:status")
    except redis.RedisError as error:
        raise store_failure(error, settings) from None
    return parse_reports(fields)


def parse_reports(fields: Mapping[bytes, bytes]) -> dict[str, MonitorReport]:
    """The monitor's reports by model. One that another release wrote in another shape is a report without figures."""
    reports: dict[str, MonitorReport] = {}
    for name, value in fields.items():
        model = name.decode("utf-8", "replace")
        try:
            reports[model] = _report.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            reports[model] = MonitorReport(model)
    return reports


def read_catalog(settings: Settings, topic: str) -> Catalog:
    """The models and silences that the topic of the model events tells of, read to its end."""
    catalog, decoder = Catalog(), model_event_decoder()
    with TopicReader(settings.kafka, topic) as reader:
        for record in reader.read_to_end():
            try:
                catalog.apply(record.offset, decoder.decode_any(record.value, record.headers))
            except Undecodable:
                catalog.apply(record.offset, None)  # the worker says so in its log
    return catalog


def _alerts(settings: Settings, topic: str) -> list[Alert]:
    decoder, found = alert_decoder(), []
    with TopicReader(settings.kafka, topic) as reader:
        for record in reader.read_to_end():
            try:
                found.append(decoder.decode_any(record.value, record.headers))
            except Undecodable:
                continue  # not an alert of ours: `driftline audit` says so
    return found


def _ends(settings: Settings, topic: str) -> dict[int, tuple[int, int]]:
    """First and next offset of each partition."""
    with TopicReader(settings.kafka, topic) as reader:
        return {p: (low, reader.first_ends[p]) for p, low in reader.next.items()}


# --------------------------------------------------------------------------------------------------------- for people


def render(status: Status, console: Console) -> None:
    """Print a status as tables."""
    console.print(_models_table(status.models) if status.models else "no models yet: publish a prediction")
    _windows(status.models, console)
    for model in status.models:
        for line in told(model.labels) if model.labels is not None else ():
            console.print(f"{escape(model.model)}: {escape(line)}", soft_wrap=True)
        if model.silence is not None:
            console.print(
                f"[yellow]silenced[/] {escape(model.model)} until {model.silence.ends_at}: "
                f"{escape(model.silence.reason)}{escape(f' ({model.silence.by})' if model.silence.by else '')}",
                soft_wrap=True,
            )
    for alert in status.alerts:
        console.print(
            f"[bold red]{escape(alert.alertname)}[/] ({escape(alert.severity)}) {escape(alert.model)} since"
            f" {escape(alert.since)}: {escape(alert.summary)}",
            soft_wrap=True,
        )
    if not status.alerts:
        console.print("[green]no alert is active[/]")
    table = _table("partition", "pending", "waiting", "lag", "clock", "checkpoint")
    for each in status.partitions:
        table.add_row(
            str(each.partition),
            str(each.pending),
            str(each.waiting),
            str(each.lag_predictions + each.lag_outcomes),
            _time(each.clock_ms),
            _ago(each.checkpoint_age_s),
        )
    console.print(table)
    behind = sum(each.lag_summaries for each in status.monitor)
    ages = [each.checkpoint_age_s for each in status.monitor if each.checkpoint_age_s is not None]
    console.print(
        f"watermark {_time(status.watermark_ms)} · monitor {behind} summaries behind,"
        f" last checkpoint {_ago(min(ages) if ages else None)}"
    )


def _models_table(models: Iterable[ModelStatus]) -> Table:
    table = _table("model", "task", "champion", "challenger", "previous", "mode", "frozen")
    for model in models:
        table.add_row(
            escape(model.model),
            model.task or "–",
            escape(model.champion or "–"),
            escape(model.challenger or "–"),
            escape(model.previous or "–"),
            model.mode or "–",
            "yes" if model.frozen else "no",
        )
    return table


def _windows(models: Iterable[ModelStatus], console: Console) -> None:
    rows = [(model, window, found) for model in models for window, found in model.windows.items() if found.get("n")]
    if not rows:
        return
    # Only what some model has: a terminal of 80 columns has no room for the measures of a regression beside these.
    shown = [name for name in SHOWN if any(found.get(name) is not None for *_, found in rows)]
    table = _table("model", "version", "window", "outcomes", *shown)
    for model, window, found in rows:
        figures = [_figure(found.get(name)) for name in shown]
        table.add_row(escape(model.model), escape(model.version or "–"), window, str(found["n"]), *figures)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _figure(value: float | int | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _time(at_ms: int | None) -> str:
    return "–" if not at_ms else f"{rfc3339(at_ms)[:19]}Z"


def _ago(age_s: float | None) -> str:
    return "never" if age_s is None else f"{age_s:.1f} s ago"
