"""One partition of the monitor: from ``summaries`` and ``checkpoints`` to alerts and what a checkpoint writes.

The alerts, their order and their ids are a function of the records alone: how they interleave, how often they come
and where the monitor's own checkpoints fall makes no difference. Nothing here does I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from detectors.baseline import Baseline
from detectors.effect import Prices
from detectors.tally import Tally
from detectors.windows import SPAN_MINUTES
from streams import alerts, monitor_stored
from streams.alerts import EncodedAlert, Raised
from streams.catalog import Catalog
from streams.cohort_watch import LabelReport
from streams.detecting import Detecting
from streams.errors import StateMismatch
from streams.monitor_stored import Layout
from streams.order import Inputs
from streams.records import Cut, Gap, MonitorCut, Range, Take
from streams.settings import Settings
from streams.silence import Span
from streams.watch import ModelWatch, Notice
from streams.withholding import Doubt

if TYPE_CHECKING:
    from streams.store import Command

_checkpoint: msgspec.json.Decoder[Take | Cut | Gap] = msgspec.json.Decoder(Take | Cut | Gap)


@dataclass(frozen=True, slots=True)
class OutboxAlert:
    """An alert that may not be in Kafka yet. ``sequence`` numbers all alerts of the partition from 1."""

    sequence: int
    alert: EncodedAlert


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything that one checkpoint writes: first ``commands`` and ``meta``, then the cut, then the alerts."""

    commands: list[Command]
    meta: dict[str, str | bytes | int]
    alerts: list[OutboxAlert]
    notices: list[Notice | Doubt]
    partition: int
    summaries: Range
    watermark_ms: int
    alert_sequence: int
    pairs: int

    def cut(
        self,
        epoch: int,
        sequence: int,
        model_events: int = 0,
        settings: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET,
    ) -> MonitorCut:
        """The record for ``monitor-checkpoints``; ``model_events`` is the position of the catalog that was in force."""
        return MonitorCut(
            self.partition,
            epoch,
            sequence,
            self.summaries,
            self.watermark_ms,
            self.alert_sequence,
            self.pairs,
            model_events,
            settings,
        )


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """An alert that is pending or firing."""

    alertname: str
    state: str
    severity: str
    started_at_ms: int
    segment: str = ""


@dataclass(frozen=True, slots=True)
class VersionReport:
    """One version as it stands: tallies by window name, for all rows and by segment."""

    version: str
    champion: bool
    metric: str
    outcomes: int
    baseline: Baseline | None
    windows: Mapping[str, Tally]
    segments: Mapping[str, Mapping[str, Tally]]
    detections: Mapping[str, int]
    detection: Detecting | None = None


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model as it stands."""

    model: str
    champion: str
    versions: list[VersionReport]
    alerts: list[ActiveAlert]
    labels: LabelReport | None = None
    """How outcomes of the champion come."""

    @property
    def champion_metric(self) -> str:
        """What its errors are: accuracy or mae."""
        return next((version.metric for version in self.versions if version.champion), "accuracy")


class MonitorPartition:
    """State and work of one partition of ``summaries``.

    ``owns`` tells whether a model's key falls into this partition; ``name`` gives the store's key of a part of the
    state (:meth:`streams.store.Owned.name`).
    """

    def __init__(
        self,
        partition: int,
        input_partitions: int,
        settings: Settings,
        owns: Callable[[str], bool],
        name: Callable[[str], str],
    ) -> None:
        self.partition = partition
        self.next_summary_offset = 0
        self.watches: dict[str, ModelWatch] = {}
        self.inputs = Inputs(input_partitions, owns)
        self.pairs = 0
        self.alert_sequence = 0
        self.fed_s = 0
        """Every error of the seconds before is fed, every minute before is judged."""
        self.layout = Layout()
        self.outbox: list[OutboxAlert] = []
        """Alerts raised since the last close."""
        self.monitor_settings = settings.monitor
        self.owns = owns
        self._models = settings.models
        self._name = name
        self._notices: list[Notice | Doubt] = []
        self._closed_offset = 0

    # --------------------------------------------------------------------------------------------------- taking in

    def summary(self, offset: int, value: bytes | None) -> None:
        """Take in the record at an offset of our partition of ``summaries``; one that was read before is ignored."""
        if offset < self.next_summary_offset:
            return
        if value is not None:
            self.inputs.summary(value)
        self.next_summary_offset = offset + 1

    def checkpoint_record(self, input_partition: int, offset: int, value: bytes | None) -> None:
        """Take in the record at an offset of a partition of ``checkpoints``; one that was read before is ignored.

        Raises :class:`StateMismatch` for what no worker wrote.
        """
        if value is not None:
            self.inputs.checkpoint(input_partition, offset, decode_checkpoint(input_partition, offset, value))

    # --------------------------------------------------------------------------------------------------- moving on

    def advance(self, catalog: Catalog, until_ms: int | None = None) -> None:
        """Let everything that the records read so far make certain have its effect, up to ``until_ms`` at most."""
        for summary in self.inputs.admit():
            self.watch(summary.model).take(summary)
            self.pairs += sum(part.pairs for part in summary.versions)
        watermark_ms = self.inputs.watermark_ms
        to_s = max(self.fed_s, (watermark_ms if until_ms is None else min(until_ms, watermark_ms)) // 1000)
        happened: list[tuple[int, int, str, int, Raised | Notice | Doubt]] = []
        for model in sorted(self.watches):
            silence = catalog.silences.get(model)
            span = Span.of(silence) if silence is not None else None
            steps = self.watches[model].advance(self.fed_s, to_s, catalog.get(model), span)
            happened.extend((each.at_s, each.rank, model, number, each.said) for number, each in enumerate(steps))
        for *_, said in sorted(happened, key=lambda each: each[:4]):
            if isinstance(said, Notice | Doubt):
                self._notices.append(said)
                continue
            self.alert_sequence += 1
            self.outbox.append(OutboxAlert(self.alert_sequence, alerts.encode(alerts.alert(said))))
        self.fed_s = to_s
        self.inputs.fed(to_s)

    def watch(self, model: str) -> ModelWatch:
        """The model's state, made at first sight."""
        watch = self.watches.get(model)
        if watch is None:
            declared = self._models.get(model)
            minimum = declared.minimum_accuracy if declared is not None else None
            limits = self.monitor_settings
            if declared is not None:
                own = declared.model_dump(
                    include={"by_hour", "false_alarms_per_week", "outcomes_one_sided", "segments"}, exclude_none=True
                )
                limits = limits.model_copy(update=own)
            prices = Prices(declared.cost_per_error, declared.critical_cost_per_day) if declared else Prices()
            watch = ModelWatch(model, limits, limits.minimum_accuracy if minimum is None else minimum, prices)
            self.watches[model] = watch
        return watch

    @property
    def watermark_ms(self) -> int:
        """Everything before has been seen, in stream time; it stands still while an input partition does."""
        return self.inputs.watermark_ms

    @property
    def clocks_ms(self) -> dict[int, int]:
        """The clock of each input partition that the watermark waits for."""
        return self.inputs.clocks_ms

    @property
    def checkpoint_offsets(self) -> dict[int, int]:
        """Where to read each partition of ``checkpoints`` from after a reload."""
        return self.inputs.offsets

    # --------------------------------------------------------------------------------------------------- storing

    def close(self) -> Closed:
        """End the checkpoint: what changed since the last one, ready to be written. Mutates as if it were written."""
        commands, meta = monitor_stored.checkpoint(self, self._name)
        raised, self.outbox = self.outbox, []
        notices, self._notices = self._notices, []
        start, self._closed_offset = self._closed_offset, self.next_summary_offset
        return Closed(
            commands,
            meta,
            raised,
            notices,
            self.partition,
            Range(start, self.next_summary_offset),
            self.watermark_ms,
            self.alert_sequence,
            self.pairs,
        )

    def published(self, sequence: int) -> None:
        """All alerts up to ``sequence`` are acknowledged: the next close removes them."""
        self.layout.published = max(self.layout.published, sequence)

    def keys(self) -> list[str]:
        """The store's hashes to read before :meth:`load`, in its order."""
        return [self._name(part) for part in monitor_stored.PARTS]

    def load(self, meta: Mapping[str, bytes], hashes: Sequence[Any]) -> list[OutboxAlert]:
        """Take over what was stored: the fields of ``meta`` and the hashes of :meth:`keys`. Gives the alerts to
        publish again.

        Raises :class:`StateMismatch` for a format of the future, :class:`Damaged` for bytes that nobody wrote.
        """
        outbox = monitor_stored.load(self, meta, hashes)
        self._closed_offset = self.next_summary_offset
        return [OutboxAlert(sequence, each) for sequence, each in outbox]

    # --------------------------------------------------------------------------------------------------- reporting

    def report(self) -> list[ModelReport]:
        """Every model as it stands, including what arrived in the minute that is not over."""
        return [self._report(model, self.watches[model]) for model in sorted(self.watches)]

    def _report(self, model: str, watch: ModelWatch) -> ModelReport:
        names = sorted(watch.windows.versions | watch.versions.keys())
        versions = []
        for version in names:
            state = watch.versions.get(version)
            tallies = {
                segment: {
                    window: watch.windows.tally(version, segment, self.fed_s // 60, span) for window, span in _SPANS
                }
                for segment in watch.windows.segments(version)
            }
            versions.append(
                VersionReport(
                    version=version,
                    champion=version == watch.champion,
                    metric=state.metric if state is not None else "accuracy",
                    outcomes=state.count if state is not None else 0,
                    baseline=state.baseline if state is not None else None,
                    windows=tallies.pop(""),
                    segments=tallies,
                    detections=dict(state.detections) if state is not None else {},
                    detection=state.detecting if state is not None else None,
                )
            )
        active = [
            ActiveAlert(
                episode.identity.alertname,
                episode.state.value,
                episode.severity,
                1000 * episode.started_at_s,
                episode.identity.segment,
            )
            for episode in watch.open_episodes
        ]
        return ModelReport(model, watch.champion, versions, active, watch.labels(self.fed_s // 60 - 1))


def decode_checkpoint(input_partition: int, offset: int, value: bytes) -> Take | Cut | Gap:
    """A record of ``checkpoints``. Raises :class:`StateMismatch` for what no worker wrote."""
    try:
        return _checkpoint.decode(value)
    except msgspec.MsgspecError as error:
        raise StateMismatch(
            f"the record at offset {offset} of checkpoints-{input_partition} is none: {error}",
            "only workers may write there",
        ) from None


_SPANS = tuple(SPAN_MINUTES.items())
