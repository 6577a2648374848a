"""Loads the state of input partitions, and rebuilds it from the log when the store lost it, is behind, or is damaged.

What is rebuilt is written to the store as it was: checkpoint by checkpoint from where the store is, or whole, in one
write. A crash on the way begins again from what is stored by then. The newest cut and its summaries are published once
more (the cut before it is only followed once its own are acknowledged): identical, so that readers drop them as seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from streams import stored
from streams.columns import OUTCOMES, PREDICTIONS
from streams.errors import RestartMe, StateMismatch
from streams.log import Log
from streams.log_ranges import CatalogHistory, InputStretch
from streams.metrics import WorkerMetrics
from streams.ownership import Ownership, Taken
from streams.partition import Closed, InputPartition
from streams.rebuild import (
    Base,
    Checkpoints,
    Contradiction,
    Replay,
    base_at,
    base_before,
    least_lookback_ms,
    lookback_ms,
)
from streams.records import Cut, EffectSettings, Gap, Restart, SummaryHead, Take
from streams.seal import Damaged
from streams.settings import WorkerSettings
from streams.store import Command, Fenced, Owned, StateStore
from streams.topics import Topics
from streams.trail import Trail

FIRST_REACH = 64
"""Records of ``checkpoints`` that are looked through first, backwards; then eight times as many, and so on."""
WIDER = (1, 2, 4, 8)
"""How many lookbacks back a replay begins, one after the other, while what it gives is not what was published."""
TOLD_EVERY_S = 5.0

Found = TypeVar("Found")
log = structlog.get_logger(__name__)
_record = msgspec.json.Decoder(Take | Cut | Gap)
_head = msgspec.msgpack.Decoder(SummaryHead)


class Abandoned(Exception):
    """The rebuild was given up, because the partitions are not ours any more or the worker stops."""


class OutOfReach(Exception):
    """The log does not reach back far enough."""


class JoinRebuild:
    """Blocking; one thread at a time. ``abandoned`` is asked between cuts."""

    def __init__(
        self,
        topics: Topics,
        worker: WorkerSettings,
        effects: EffectSettings,
        store: StateStore,
        broker: Log,
        metrics: WorkerMetrics,
        abandoned: Callable[[], bool],
        ownership: Ownership[Cut],
        *,
        accept_loss: bool,
    ) -> None:
        self._ownership = ownership
        self._accept_loss = accept_loss
        self._topics = topics
        self._worker = worker
        self._replaying = worker.model_copy(update={"allow_garbage": True})  # its share was judged when it was read
        self._effects = effects
        self._store = store
        self._broker = broker
        self._metrics = metrics
        self._abandoned = abandoned
        self._told_s = 0.0

    def load(self, taken: Taken[Cut]) -> tuple[InputPartition, list[stored.OutboxEntry]]:
        """The partition as of the newest checkpoint, and what to publish again.

        Raises :class:`StateMismatch` when the log cannot give what the store has lost.
        """
        owned, last = taken.owned, taken.trail.last
        damage: str | None = None
        try:
            owned.check()
            part, entries = self._stored(owned, self._worker)
            damage = self._disagrees(part, last)
        except Damaged as found:
            damage = str(found)
        is_stored = damage is None and stored.is_stored(owned)
        if damage is None and owned.number >= taken.trail.number and (is_stored or taken.trail.restart is None):
            return part, entries
        if last is None:
            self._begin(owned, taken.trail.restart, damage)
        else:
            self._rebuild(taken, last, is_stored=is_stored, damage=damage)
        owned.meta = self._store.meta(owned)
        return self._stored(owned, self._worker)

    def _stored(self, owned: Owned, worker: WorkerSettings) -> tuple[InputPartition, list[stored.OutboxEntry]]:
        part = InputPartition(owned, worker, self._effects)
        return part, stored.load(part, self._store.read_all(stored.read_commands(owned)))

    def _disagrees(self, part: InputPartition, last: Cut | None) -> str | None:
        """Why a stored checkpoint that was published cannot be the one that is in the log."""
        if last is None or part.owned.number != last.sequence or not _differs(part, last):
            return None
        return f"checkpoint {last.sequence} in the store is not the one that was published"

    def _begin(self, owned: Owned, restart: Restart | None, damage: str | None) -> None:
        """No cut was published: nothing is lost but what was read, and that is read again."""
        if damage is not None:
            log.error("partition.damaged", partition=owned.partition, what=damage, mend="it begins anew")
        self._empty(owned, restart)

    def _empty(self, owned: Owned, restart: Restart | None) -> None:
        """Write a state without rows; after an accepted loss it knows where to read on."""
        commands: list[Command] = [("DEL", *(owned.name(name) for name in stored.PARTS))]
        meta: dict[str, str | bytes | int] = {}
        if restart is not None:
            part = InputPartition(owned, self._worker, self._effects)
            part.processed = [restart.predictions, restart.outcomes]
            part.clock_ms = restart.clock_ms
            meta = stored.meta_of(part)
        self._write(lambda: self._store.replace(owned, commands, meta, 0))

    # ------------------------------------------------------------------------------------------------- rebuilding

    def _rebuild(self, taken: Taken[Cut], last: Cut, *, is_stored: bool, damage: str | None) -> None:
        """Bring the store to the last cut."""
        partition, owned = taken.owned.partition, taken.owned
        reason = damage or f"the store is at checkpoint {owned.number}, and {last.sequence} was published"
        log.warning("rebuild.started", stage="join", partition=partition, reason=reason, to=last.sequence)
        began_s = time.monotonic()
        failures: list[str] = []
        for how, attempt in self._attempts(taken, last, is_stored=is_stored):
            try:
                attempt()
            except (Contradiction, OutOfReach) as failed:
                failures.append(f"{how}: {failed}")
                log.warning("rebuild.failed", stage="join", partition=partition, began=how, reason=str(failed))
                continue
            self._metrics.rebuilt("join")
            seconds = round(time.monotonic() - began_s, 3)
            log.warning(
                "rebuild.done", stage="join", partition=partition, began=how, checkpoint=last.sequence, seconds=seconds
            )
            return
        what = f"the state of input partition {partition} is lost ({reason}), and the log does not give it back: "
        what += "; ".join(failures)
        if not self._accept_loss:
            raise StateMismatch(
                what,
                "restore the newest state of Redis, or accept the loss of what waits: `driftline worker --accept-loss`",
            )
        self._restart(taken, last, what)

    def _restart(self, taken: Taken[Cut], last: Cut, what: str) -> None:
        """Begin again behind the last cut, with nothing that waits."""
        partition = taken.owned.partition
        low = self._low(partition)
        whole = self._is_summarised(last)
        restart = Restart(
            max(last.predictions.end, low[PREDICTIONS]),
            max(last.outcomes.end, low[OUTCOMES]),
            last.clock_ms,
            last.sequence if whole else last.sequence - 1,
            what,
        )
        self._ownership.restart(taken, restart, lambda owned: self._empty(owned, restart))
        log.error(
            "loss.accepted",
            partition=partition,
            epoch=taken.owned.epoch,
            what=what,
            predictions_waited=last.pending,
            outcomes_waited=last.waiting,
            cut_without_summaries=None if whole else last.sequence,
        )

    def _is_summarised(self, cut: Cut) -> bool:
        """Whether all summaries that a cut names are in the log; only those of the newest cut may be missing."""
        missing = {(model, sequence): set[int]() for model, sequence in cut.models.items()}
        with closing(self._broker.reader(self._topics.summaries, None, None)) as reader:
            for record in reader.read_to_end():
                if not missing:
                    return True
                if self._abandoned():
                    raise Abandoned
                head = _head.decode(record.value or b"")
                key = head.model, head.sequence
                if head.partition == cut.partition and head.epoch >= cut.epoch and key in missing:
                    missing[key].add(head.part)
                    if len(missing[key]) == head.parts:
                        del missing[key]
        return not missing

    def _attempts(self, taken: Taken[Cut], last: Cut, *, is_stored: bool) -> Iterator[tuple[str, Callable[[], None]]]:
        """Where to begin, the cheapest first; each is a way to the last cut, tried when the one before has failed."""
        if is_stored:
            yield "from the store", lambda: self._from_store(taken, last)
        clock_ms = (taken.trail.previous or last).clock_ms
        full_ms, least_ms = lookback_ms(last.settings), least_lookback_ms(last.settings)
        tried: set[int] = set()
        for reach_ms in (*(times * full_ms for times in WIDER), least_ms):
            base = self._base(taken, last, clock_ms - reach_ms)
            if base is not None and base.offset not in tried:
                tried.add(base.offset)
                yield f"behind cut {base.number}", partial(self._from_log, taken, last, base)
            if base is None and reach_ms == least_ms:
                yield f"{least_ms / 1000:g} s back", _out_of_reach

    def _from_store(self, taken: Taken[Cut], last: Cut) -> None:
        """From the stored checkpoint on, writing each checkpoint as it was written."""
        owned = taken.owned
        found = self._window(taken, lambda records, whole: base_at(records, owned.number, whole=whole))
        if found is None:
            raise OutOfReach(f"cut {owned.number} is not in the log any more")
        base, cut = found
        self._require_reach(base, owned.partition)
        part, entries = self._stored(owned, self._replaying)
        if _differs(part, cut):
            raise Contradiction(f"checkpoint {cut.sequence} in the store is not the one that was published")
        part.layout.published = [entry.cut.sequence for entry in entries]
        replay = Replay(part, base, last, exact=True)
        for made in self._replayed(taken, base, last, replay):
            self._write(partial(self._store.commit, owned, made.commands, made.meta))
            part.layout.published.append(made.cut.sequence)

    def _from_log(self, taken: Taken[Cut], last: Cut, base: Base) -> None:
        """From a base in the log, in memory; then one write in the place of whatever is stored."""
        part = InputPartition(taken.owned, self._replaying, self._effects)
        closed: Closed | None = None
        for made in self._replayed(taken, base, last, Replay(part, base, last, exact=False)):
            closed = made
        if closed is None:
            raise Contradiction(f"cut {last.sequence} is not in the log any more")
        commands, meta = stored.whole(part, closed.cut, closed.summaries)
        self._write(lambda: self._store.replace(taken.owned, commands, meta, last.sequence))

    def _require_reach(self, base: Base, partition: int) -> None:
        low = self._low(partition)
        if base.predictions < low[PREDICTIONS] or base.outcomes < low[OUTCOMES]:
            raise OutOfReach("the inputs begin behind what the store has read")

    def _write(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Fenced as fenced:
            raise RestartMe(f"the partition was lost while it was rebuilt: {fenced}", "restarting is safe") from None

    def _replayed(self, taken: Taken[Cut], base: Base, last: Cut, replay: Replay) -> Iterator[Closed]:
        """Replay the cuts behind a base up to the last one.

        Raises :class:`Contradiction` when the log does not give them, :class:`Abandoned` when nobody wants them.
        """
        partition = taken.owned.partition
        topics = (self._topics.predictions, self._topics.outcomes)
        starts = (base.predictions, base.outcomes)
        trail: Trail[Cut] = Trail(base.epoch)
        with (
            closing(InputStretch(self._broker, topics[PREDICTIONS], partition, starts[PREDICTIONS])) as predictions,
            closing(InputStretch(self._broker, topics[OUTCOMES], partition, starts[OUTCOMES])) as outcomes,
            closing(CatalogHistory(self._broker, self._topics.model_events)) as catalogs,
        ):
            for offset, record in self._records(partition, base.offset, taken.end):
                cut = trail.add(offset, record)
                if cut is None or cut.sequence <= base.number:
                    continue
                if self._abandoned():
                    raise Abandoned
                inputs = (
                    predictions.batch(cut.predictions.start, cut.predictions.end),
                    outcomes.batch(cut.outcomes.start, cut.outcomes.end),
                )
                yield replay.step(cut, inputs, catalogs.at(cut.model_events))
                self._tell(partition, base.number, cut.sequence, last.sequence)
                if cut.sequence == last.sequence:
                    return
        raise Contradiction(f"the cuts end with {replay.number}, and {last.sequence} was seen")

    def _tell(self, partition: int, first: int, now: int, last: int) -> None:
        if time.monotonic() - self._told_s >= TOLD_EVERY_S:
            self._told_s = time.monotonic()
            share = round((now - first) / (last - first), 3)
            log.info("rebuild.progress", stage="join", partition=partition, done=share, checkpoint=now, to=last)

    # ------------------------------------------------------------------------------------------------- the log

    def _base(self, taken: Taken[Cut], last: Cut, limit_ms: int) -> Base | None:
        low = self._low(taken.owned.partition)
        return self._window(
            taken, lambda records, whole: base_before(records, limit_ms, last.sequence, low, whole=whole)
        )

    def _window(self, taken: Taken[Cut], find: Callable[[Checkpoints, bool], Found | None]) -> Found | None:
        """What ``find`` finds in the newest records before our take, in windows that grow backwards, or None."""
        partition = taken.owned.partition
        with closing(self._broker.reader(self._topics.checkpoints, None, {partition})) as probe:
            low = probe.next[partition]
        reach = FIRST_REACH
        while True:
            start = max(low, taken.end - reach)
            found = find(self._records(partition, start, taken.end), start == low)
            if found is not None or start == low:
                return found
            reach *= 8

    def _records(self, partition: int, start: int, end: int) -> Iterator[tuple[int, Take | Cut | Gap]]:
        """The records of a partition of ``checkpoints`` from ``start`` to before ``end``."""
        if start >= end:
            return
        with closing(self._broker.reader(self._topics.checkpoints, {partition: start}, {partition})) as reader:
            for record in reader.read_to_end():
                if self._abandoned():
                    raise Abandoned
                if record.offset < end:
                    yield record.offset, _record.decode(record.value or b"")
                if record.offset >= end - 1:
                    return

    def _low(self, partition: int) -> tuple[int, int]:
        """The first offsets that the two inputs still hold."""
        low = []
        for topic in (self._topics.predictions, self._topics.outcomes):
            with closing(self._broker.reader(topic, None, {partition})) as reader:
                low.append(reader.next[partition])
        return low[PREDICTIONS], low[OUTCOMES]


def _out_of_reach() -> None:
    raise OutOfReach("the log does not reach back so far")


def _differs(part: InputPartition, cut: Cut) -> bool:
    """Whether a loaded partition is not the state behind ``cut``."""
    ends = [cut.predictions.end, cut.outcomes.end]
    return (part.committed, part.clock_ms, part.join.counters) != (ends, cut.clock_ms, cut.counters)
