"""What a simulated run left in the topics and the store, so that two runs and an oracle can be compared."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from streams.audit_log import audit
from streams.codec import Undecodable, outcome_decoder, prediction_decoder
from streams.events import Outcome, Prediction
from streams.joining import effect_settings
from streams.monitor import ModelReport
from streams.order import Inputs
from streams.records import Cut, Gap, Labelled, LabelledRow, Take
from tests.simulation.traffic import MODELS, PARTITIONS
from tests.simulation.worker import Worker, begin, play
from tests.simulation.world import INPUTS, SETTINGS, TOPICS, World
from tests.support.memory.log import MemoryLog
from tests.support.model_join import Logged, Oracle, Told, merged

_checkpoint = msgspec.json.Decoder(Take | Cut | Gap)
_labelled = msgspec.msgpack.Decoder(Labelled)

Dead = tuple[str, str, str, str, bytes | None]


@dataclass
class Findings:
    """Everything that may not depend on what happened to the processes.

    ``alerts``: id, key and bytes of each alert, a repeat left out, in the order of the topic. ``labelled``: input
    partition and prediction offset → the row that wins. ``told``: input partition → what its cuts and the summaries
    that they admit say. ``reports``: the monitor's windows, versions and open alerts.
    """

    alerts: list[tuple[bytes, bytes | None, bytes | None]]
    labelled: dict[tuple[int, int], tuple[LabelledRow, str, str]]
    dead: set[Dead]
    told: dict[int, Told]
    reports: dict[int, list[ModelReport]]
    violations: list[str] = field(default_factory=list)

    def differences(self, expected: Findings) -> list[str]:
        """One line for everything that is not as expected."""
        found = list(self.violations)
        for name in ("alerts", "labelled", "dead", "told", "reports"):
            mine, theirs = getattr(self, name), getattr(expected, name)
            if mine != theirs:
                found.append(f"{name}: {mine} instead of {theirs}")
        return found


@dataclass(frozen=True)
class Finished:
    """A world at its end, and what it says."""

    world: World
    findings: Findings


def finished(world: World) -> Finished:
    """Play a world to its end with one worker that nothing disturbs."""
    workers = [begin(world)]
    play(workers)
    return Finished(world, findings(world, workers))


def findings(world: World, workers: list[Worker]) -> Findings:
    """What a finished run says; ``workers`` are those that own the partitions at its end."""
    told, violations = _told(world)
    report = audit(SETTINGS, broker=MemoryLog(world.broker))
    violations += report.violations + report.notes
    violations += [f"{n} {name} are behind the last cut" for name, n in report.lag.items() if n]
    for part in report.partitions:
        if part.unpublished_summaries:
            violations.append(f"partition {part.partition}: {part.unpublished_summaries} summaries are not published")
    reports = {
        p: [_timeless(report) for report in part.monitor.report()]
        for worker in workers
        for p, part in worker.monitor.parts.items()
    }
    return Findings(_alerts(world), _labels(world), _dead(world), told, reports, violations)


def _records(world: World, topic: str) -> list[Any]:
    return [record for log in world.broker.topics[topic] for record in log]


def _alerts(world: World) -> list[tuple[bytes, bytes | None, bytes | None]]:
    found: dict[bytes, tuple[bytes, bytes | None, bytes | None]] = {}
    for record in _records(world, TOPICS.alerts):
        ce_id = dict(record.headers)["ce_id"]
        found.setdefault(ce_id, (ce_id, record.key, record.value))
    return list(found.values())


def _timeless(report: ModelReport) -> ModelReport:
    """A report without the minute that its cohorts of an age end with: how far the clock came is no finding."""
    if report.labels is None:
        return report
    cohorts = [replace(each, first=0, end=0) for each in report.labels.cohorts]
    return replace(report, labels=replace(report.labels, cohorts=cohorts))


def _labels(world: World) -> dict[tuple[int, int], tuple[LabelledRow, str, str]]:
    found: dict[tuple[int, int], tuple[LabelledRow, str, str]] = {}
    for record in _records(world, TOPICS.labelled):
        batch = _labelled.decode(record.value)
        for row in batch.rows():
            key = batch.partition, row.prediction_offset
            known = found.get(key)
            if known is None or known[0].outcome_offset < row.outcome_offset:
                names = batch.models[row.model], batch.versions[row.version]
                found[key] = (msgspec.structs.replace(row, model=0, version=0), *names)
    return found


def _dead(world: World) -> set[Dead]:
    def text(headers: dict[str, bytes], name: str) -> str:
        return headers[f"driftline_{name}"].decode()

    found = set()
    for record in _records(world, TOPICS.dead_letters):
        headers = dict(record.headers)
        place = text(headers, "topic"), text(headers, "partition"), text(headers, "offset")
        found.add((*place, text(headers, "reason"), record.value))
    return found


def _told(world: World) -> tuple[dict[int, Told], list[str]]:
    """What a reader of cuts and summaries has added up at the end, by input partition, and what it still waits for."""
    inputs, violations = Inputs(PARTITIONS, lambda _: True), []
    told = {p: Told() for p in range(PARTITIONS)}
    last: dict[int, Cut] = {}
    for record in _records(world, TOPICS.summaries):
        inputs.summary(record.value)
    epochs = dict.fromkeys(range(PARTITIONS), 0)
    for record in _records(world, TOPICS.checkpoints):
        read = _checkpoint.decode(record.value)
        inputs.checkpoint(record.partition, record.offset, read)
        epochs[record.partition] = max(epochs[record.partition], read.epoch)
        if isinstance(read, Cut) and read.epoch >= epochs[record.partition]:
            known = last.get(record.partition)
            if known is None or read.sequence > known.sequence:
                last[record.partition] = read
    for summary in inputs.admit():
        told[summary.partition].hear(summary)
    for p, cut in last.items():
        told[p].counters, told[p].pending, told[p].waiting = cut.counters, cut.pending, cut.waiting
        if inputs.states[p].sequence != cut.sequence:
            violations.append(
                f"partition {p}: cut {inputs.states[p].sequence + 1} waits for a summary, of {cut.sequence} cuts"
            )
    return {p: each.sorted() for p, each in told.items()}, violations


def oracle(world: World) -> dict[int, Told]:
    """What the input topics alone say, worked out record by record over whole lists."""
    found: dict[int, Told] = {}
    for p in range(PARTITIONS):
        logs = [_logged(world, side, p) for side in (0, 1)]
        cut = max(
            (
                read
                for record in world.broker.topics[TOPICS.checkpoints][p]
                if isinstance(read := _checkpoint.decode(record.value or b""), Cut)
            ),
            key=lambda each: each.sequence,
        )
        found[p] = Oracle(effect_settings(SETTINGS), MODELS).run(merged(logs[0], logs[1]), cut.clock_ms)
    return found


def _logged(world: World, side: int, partition: int) -> list[Logged]:
    decoder: Any = (prediction_decoder(), outcome_decoder())[side]
    found = []
    for record in world.broker.topics[INPUTS[side]][partition]:
        event: Prediction | Outcome | None
        try:
            event = decoder.decode_any(record.value)
        except Undecodable:
            event = None
        found.append(Logged(record.offset, record.at_ms, event, record.value or b""))
    return found
