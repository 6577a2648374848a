"""The stored form of a monitor partition: what a checkpoint writes to Redis, and how it is read back.

Hashes of partition m (all with the hash tag), of which a checkpoint writes the fields that changed:

==============  =============================  ====================================================================
hash            field                          value
==============  =============================  ====================================================================
``inputs``      input partition                clock, last cut and the place in ``checkpoints`` to go on from
``sequences``   input partition : model        the last summary sequence that took effect
``pending``     partition : seq : part : model  a summary record that is not admitted, or has errors not yet fed
``minutes``     minute : model                 what arrived in a minute that is not judged yet
``models``      model                          champion, alert policy, evidence of the open drift
``versions``    model and version              baseline, detectors, counts, change-point memory
``series``      number                         model, version and segment of windows
``windows``     series / bucket                a bucket of a window
``outbox``      alert sequence                 an alert that may not be in Kafka yet
==============  =============================  ====================================================================

Every value is sealed, and ``meta`` says how many fields each hash has at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from detectors.snapshot import SnapshotError
from streams.alerts import EncodedAlert
from streams.errors import StateMismatch
from streams.order import InputState
from streams.seal import Damaged, open_sealed, seal

if TYPE_CHECKING:
    from streams.monitor import MonitorPartition
    from streams.store import Command

FORMAT = 1
PARTS = ("inputs", "sequences", "pending", "minutes", "models", "versions", "series", "windows", "outbox")

_encode = msgspec.msgpack.encode
_input = msgspec.msgpack.Decoder(InputState)
_alert = msgspec.msgpack.Decoder(EncodedAlert)
_pair = msgspec.msgpack.Decoder(tuple[str, str])
_series = msgspec.msgpack.Decoder(tuple[str, str, str])


class Layout:
    """What of it is stored already."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str, str], int] = {}
        self.new_series: dict[tuple[str, str, str], int] = {}
        self._next = 0
        self.inputs: dict[int, bytes] = {}
        self.outbox: list[int] = []
        self.published = 0
        self.hour = 0

    def number(self, series: tuple[str, str, str]) -> int:
        """The short name of a series of windows."""
        known = self.series.get(series)
        if known is None:
            known = self.series[series] = self._next
            self._next += 1
            self.new_series[series] = known
        return known

    def remove(self, series: tuple[str, str, str]) -> list[int]:
        """Take a series out; gives its number if it had one."""
        self.new_series.pop(series, None)
        number = self.series.pop(series, None)
        return [] if number is None else [number]

    def load(self, series: tuple[str, str, str], number: int) -> None:
        """Take over a stored name."""
        self.series[series] = number
        self._next = max(self._next, number + 1)


class _Writer:
    """Gathers fields to write and to delete, a hash at a time."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name
        self.commands: list[Command] = []

    def write(self, part: str, fields: Mapping[str, bytes | int] | Mapping[bytes, bytes]) -> None:
        flat: list[str | bytes | int] = []
        for name, value in fields.items():
            flat += (name, seal(value if isinstance(value, bytes) else b"%d" % value))
        if flat:
            self.commands.append(("HSET", self._name(part), *flat))

    def drop(self, part: str, fields: Iterable[str | bytes | int]) -> None:
        gone = list(fields)
        if gone:
            self.commands.append(("HDEL", self._name(part), *gone))


def checkpoint(
    part: MonitorPartition, name: Callable[[str], str]
) -> tuple[list[Command], dict[str, str | bytes | int]]:
    """The Redis commands and the meta fields of one checkpoint."""
    writer, layout = _Writer(name), part.layout
    records, fed, sequences = part.inputs.changed()
    writer.write("sequences", sequences)
    writer.write("pending", records)
    writer.drop("pending", fed)
    states = {number: _encode(state) for number, state in part.inputs.states.items()}
    writer.write("inputs", {str(at): state for at, state in states.items() if layout.inputs.get(at) != state})
    layout.inputs = states
    _models(writer, part)
    writer.write("series", {str(number): _encode(series) for series, number in layout.new_series.items()})
    layout.new_series = {}
    published = [sequence for sequence in layout.outbox if sequence <= layout.published]
    writer.drop("outbox", published)
    writer.write("outbox", {str(each.sequence): _encode(each.alert) for each in part.outbox})
    layout.outbox = [sequence for sequence in layout.outbox if sequence > layout.published]
    layout.outbox.extend(each.sequence for each in part.outbox)
    meta: dict[str, str | bytes | int] = {
        "monitor_format": FORMAT,
        "summaries": part.next_summary_offset,
        "watermark_ms": part.watermark_ms,
        "fed_s": part.fed_s,
        "alert_sequence": part.alert_sequence,
        "pairs": part.pairs,
        "fields": msgspec.json.encode(_sizes(part)),
    }
    return writer.commands, meta


def _sizes(part: MonitorPartition) -> list[int]:
    """How many fields of each hash are stored at least; one that was forgotten on the way may still be there."""
    watches = part.watches.values()
    return [
        len(part.layout.inputs),
        len(part.inputs.admitted),
        part.inputs.stored_records,
        sum(watch.arrivals.stored_minutes for watch in watches),
        len(watches),
        sum(len(watch.versions) for watch in watches),
        len(part.layout.series),
        sum(windows.buckets for watch in watches for windows in watch.windows.series.values()),
        len(part.layout.outbox),
    ]


def _models(writer: _Writer, part: MonitorPartition) -> None:
    models: dict[str, bytes] = {}
    versions: dict[bytes, bytes] = {}
    buckets: dict[str, bytes] = {}
    buckets_gone: list[str] = []
    minutes: dict[str, bytes] = {}
    minutes_gone: list[str] = []
    versions_gone: list[bytes] = []
    series_gone: list[int] = []
    hour = part.fed_s // 3_600
    old, part.layout.hour = part.layout.hour, hour
    for model, watch in part.watches.items():
        forgotten, stale = watch.forget(part.fed_s) if hour != old else ([], [])
        versions_gone.extend(_encode((model, version)) for version in forgotten)
        if watch.changed:
            models[model] = watch.snapshot()
            watch.changed = False
        for version, state in watch.versions.items():
            if state.changed:
                versions[_encode((model, version))] = state.snapshot()
                state.changed = False
        for (version, segment), windows in watch.windows.series.items():
            changes = windows.changed()
            if changes.written or changes.dropped:
                number = part.layout.number((model, version, segment))
                buckets.update((f"{number}/{bucket}", value) for bucket, value in changes.written.items())
                buckets_gone.extend(f"{number}/{bucket}" for bucket in changes.dropped)
        for series in stale:
            del watch.windows.series[series]
            series_gone.extend(part.layout.remove((model, *series)))
        open_minutes, over = watch.arrivals.changed()
        minutes.update((f"{minute}:{model}", value) for minute, value in open_minutes.items())
        minutes_gone.extend(f"{minute}:{model}" for minute in over)
    writer.write("models", models)
    writer.write("versions", versions)
    writer.drop("versions", versions_gone)
    writer.drop("series", series_gone)
    writer.write("windows", buckets)
    writer.drop("windows", buckets_gone)
    writer.write("minutes", minutes)
    writer.drop("minutes", minutes_gone)


def load(part: MonitorPartition, meta: Mapping[str, bytes], hashes: Sequence[Any]) -> list[tuple[int, EncodedAlert]]:
    """Fill a fresh partition from its meta and from the hashes of ``PARTS`` → the outbox, in order.

    Raises :class:`Damaged` if a field is not what was written, or missing, :class:`StateMismatch` for a newer format.
    """
    try:
        return _load(part, meta, hashes)
    except SnapshotError as error:  # not damage, which the seal tells: it is as another release wrote it
        raise StateMismatch(
            f"the state of monitor partition {part.partition} cannot be read: {error}", "run the release that wrote it"
        ) from None


def _load(part: MonitorPartition, meta: Mapping[str, bytes], hashes: Sequence[Any]) -> list[tuple[int, EncodedAlert]]:
    if "monitor_format" not in meta:
        return []
    if int(meta["monitor_format"]) > FORMAT:
        raise StateMismatch(
            f"the state of monitor partition {part.partition} has format {int(meta['monitor_format'])}, newer than "
            f"{FORMAT}",
            "run the release that wrote it",
        )
    found = [_fields(raw) for raw in hashes]
    for part_name, fields, least in zip(PARTS, found, msgspec.json.decode(meta["fields"]), strict=True):
        if len(fields) < least:
            raise Damaged(f"{part_name} has {len(fields)} fields, and should have {least}")
    inputs, sequences, pending, minutes, models, versions, series, windows, outbox = found
    part.next_summary_offset = int(meta["summaries"])
    part.fed_s, part.pairs = int(meta["fed_s"]), int(meta["pairs"])
    part.alert_sequence = int(meta["alert_sequence"])
    part.layout.inputs = {int(number): value for number, value in inputs}
    for name, value in models:
        part.watch(name.decode()).restore(value)
    for name, value in versions:
        model, version = _pair.decode(name)
        part.watch(model).restore_version(version, value)
    for name, value in minutes:
        minute, _, model = name.decode().partition(":")
        part.watch(model).arrivals.load(int(minute), value)
    _windows(part, series, windows)
    admitted = part.inputs.load(
        {number: _input.decode(value) for number, value in part.layout.inputs.items()},
        {name.decode(): int(value) for name, value in sequences},
        {name.decode(): value for name, value in pending},
        int(meta["watermark_ms"]),
    )
    for summary in admitted:
        part.watch(summary.model).take_errors(summary, part.fed_s)
    part.layout.outbox = sorted(int(sequence) for sequence, _ in outbox)
    return sorted(((int(sequence), _alert.decode(value)) for sequence, value in outbox), key=lambda each: each[0])


def _windows(
    part: MonitorPartition, series: Sequence[tuple[bytes, bytes]], windows: Sequence[tuple[bytes, bytes]]
) -> None:
    buckets: dict[int, dict[bytes, bytes]] = {}
    for name, value in windows:
        number, _, bucket = name.partition(b"/")
        buckets.setdefault(int(number), {})[bucket] = value
    for number, value in series:
        model, version, segment = key = _series.decode(value)
        part.layout.load(key, int(number))
        loaded = part.watch(model).windows.window(version, segment)
        loaded.load(buckets.get(int(number), {}))


def _fields(raw: Any) -> list[tuple[bytes, bytes]]:
    """The fields of a hash, opened, as a client gives them: a mapping, or names and values in turn."""
    fields = raw.items() if isinstance(raw, Mapping) else _turns(raw)
    return [(name, open_sealed(value)) for name, value in fields]


def _turns(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
