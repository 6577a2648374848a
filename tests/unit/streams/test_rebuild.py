"""A partition from the log: any stretch of checkpoints that the store has lost comes out as it was, byte by byte."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams import stored
from streams.catalog import Catalog
from streams.events import ModelEvent, ModelState, Outcome, Prediction
from streams.partition import Batch, Closed, InputPartition
from streams.rebuild import Base, Contradiction, Replay, base_at, base_before, lookback_ms, passed_before
from streams.records import Cut, EffectSettings, Gap, Restart, Take
from streams.settings import WorkerSettings
from streams.store import Owned
from tests.support.limits import make_small
from tests.support.model_join import Logged
from tests.support.partition import TOPICS, Driver, FakeRedis, catalog_of
from tests.unit.streams.test_join import BASE_MS, LATER_MS, MODELS, Log, Step, logs, settings, state, steps

KEY = "p:{join:0}:"


@pytest.fixture(scope="module", autouse=True)
def small_limits() -> Iterator[None]:
    """Splits and compaction within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield


class Recorded(Driver):
    """A driver that keeps what each checkpoint said, and the store as it was behind it."""

    def __init__(self, both: Log, limits: EffectSettings, catalog: Catalog) -> None:
        self.closed: list[Closed] = []
        self.stores: list[FakeRedis] = []
        super().__init__(both, limits, catalog)
        self.stores.append(copy.deepcopy(self.redis))

    def close(self) -> Closed:
        closed = super().close()
        self.closed.append(closed)
        self.stores.append(copy.deepcopy(self.redis))
        return closed

    def checkpoints(self) -> list[tuple[int, Take | Cut | Gap]]:
        """The partition's records as the topic has them: a take, then the cuts."""
        return list(enumerate([Take(0, 1, "t", "w"), *(closed.cut for closed in self.closed)]))

    def records(self, side: int, start: int, end: int) -> Batch:
        """The records of an input in a range of offsets."""
        found = [record for record in self.logs[side] if start <= record.offset < end]
        runs = [(record.at_ms, 1) for record in found]
        return Batch(TOPICS[side], 0, 0, start, end, [r.value for r in found], [r.offset for r in found], runs)


def play(both: Log, limits: EffectSettings, plan: Sequence[Step]) -> Recorded:
    """A partition that reads a log by a plan, and then to its end."""
    driver = Recorded(both, limits, catalog_of(MODELS))
    for verb, side, number in plan:
        if verb in ("accept", "hole"):
            driver.accept(side, number + 1 if verb == "accept" else 0, whole_runs=number % 2 == 0)
        elif verb == "advance":
            driver.advance()
        elif verb == "idle":
            driver.idle(side, 700 * number)
        elif verb == "close":
            driver.close()
        else:
            driver.crash()
    for side in (0, 1):
        driver.accept(side, len(driver.logs[side]))
        driver.idle(side, LATER_MS)
        driver.advance()
    driver.close()
    return driver


def loaded(redis: FakeRedis, limits: EffectSettings) -> InputPartition:
    """What a new owner loads."""
    owned = Owned("join", 0, 7, "token", 0, KEY)
    owned.meta = {name.decode(): value for name, value in redis.execute("HGETALL", owned.name("meta")).items()}
    owned.number = int(owned.meta.get("number", 0))
    part = InputPartition(owned, WorkerSettings(allow_garbage=True), limits)
    stored.load(part, [redis.execute(*command) for command in stored.read_commands(owned)])
    return part


def replay(driver: Recorded, part: InputPartition, base: Base, *, exact: bool) -> list[Closed]:
    """Every checkpoint behind a base, made again."""
    last = driver.closed[-1].cut
    replaying = Replay(part, base, last, exact=exact)
    made = []
    for closed in driver.closed[base.number :]:
        cut = closed.cut
        inputs = (
            driver.records(0, cut.predictions.start, cut.predictions.end),
            driver.records(1, cut.outcomes.start, cut.outcomes.end),
        )
        made.append(replaying.step(cut, inputs, driver.catalog))
        part.owned.number += 1
    return made


def written(redis: FakeRedis, closed: Sequence[Closed], first: int) -> FakeRedis:
    """A store after more checkpoints."""
    for number, each in enumerate(closed, start=first + 1):
        for command in each.commands:
            redis.execute(*command)
        fields = {**each.meta, "number": number}
        redis.execute("HSET", f"{KEY}meta", *(item for pair in fields.items() for item in pair))
    return redis


def known(redis: FakeRedis, limits: EffectSettings) -> dict[str, Any]:
    """What decides what the next owner does, but not how it is laid out in the store."""
    found = state(loaded(redis, limits))
    del found["stored rows"]
    return found


def said(closed: Closed) -> tuple[bytes, list[bytes], list[bytes]]:
    """What is published of a checkpoint, the epoch aside."""
    cut = msgspec.json.encode(msgspec.structs.replace(closed.cut, epoch=0))
    summaries = [msgspec.msgpack.encode(msgspec.structs.replace(each, epoch=0)) for _, each in closed.summaries]
    labelled = [msgspec.msgpack.encode({**msgspec.msgpack.decode(each), "epoch": 0}) for each in closed.labelled]
    return cut, summaries, labelled


@profile(max_examples=150, deadline=None)
@given(both=logs(), limits=settings, plan=st.lists(steps, max_size=24), data=st.data())
def test_any_lost_end_is_rebuilt_from_the_store(
    both: Log, limits: EffectSettings, plan: list[Step], data: st.DataObject
) -> None:
    """From any earlier checkpoint: the state is that of an undisturbed partition, and so is what is published."""
    driver = play(both, limits, plan)
    number = data.draw(st.integers(1, len(driver.closed)))
    found = base_at(driver.checkpoints(), number, whole=True)
    assert found is not None
    base, cut = found
    assert cut == driver.closed[number - 1].cut
    redis = copy.deepcopy(driver.stores[number])
    made = replay(driver, loaded(redis, limits), base, exact=True)
    assert [said(each) for each in made] == [said(each) for each in driver.closed[number:]]
    written(redis, made, number)
    assert state(loaded(redis, limits)) == state(loaded(driver.redis, limits))


@profile(max_examples=150, deadline=None)
@given(both=logs(), limits=settings, plan=st.lists(steps, max_size=24))
def test_a_wiped_store_is_rebuilt_from_the_beginning(both: Log, limits: EffectSettings, plan: list[Step]) -> None:
    """As long as the log has everything, all of it comes out identical, and one write puts it into the store."""
    driver = play(both, limits, plan)
    last = driver.closed[-1]
    base = base_before(driver.checkpoints(), -1, last.cut.sequence, (0, 0), whole=True)
    assert base is not None
    assert base.empty
    assert base.offset == 1 + base.number
    assume(base.number < len(driver.closed))
    part = loaded(FakeRedis(), limits)
    made = replay(driver, part, base, exact=False)
    assert [said(each) for each in made] == [said(each) for each in driver.closed[base.number :]]
    commands, meta = stored.whole(part, made[-1].cut, made[-1].summaries)
    assert part.owned.number == last.cut.sequence
    redis = copy.deepcopy(driver.stores[len(driver.closed) // 2])  # whatever was there
    written(redis, [Closed([], [], commands, meta, made[-1].cut, [])], last.cut.sequence - 1)
    assert known(redis, limits) == known(driver.redis, limits)


@st.composite
def long_logs(draw: st.DrawFn) -> Log:
    """Pairs whose ids never come back, over many horizons: outcomes first, late, twice, and never."""
    both: Log = ([], [])
    at_ms = BASE_MS
    events: list[tuple[int, int, Prediction | Outcome]] = []
    for number in range(draw(st.integers(5, 25))):
        at_ms += draw(st.sampled_from([0, 100, 700, 2_500]))
        name, value = f"p{number}", number % 2
        events.append((at_ms, 0, Prediction(name, "loan", "1", value)))
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2]))):
            delay_ms = draw(st.sampled_from([-800, 0, 300, 900, 4_000]))
            events.append((at_ms + delay_ms, 1, Outcome(name, draw(st.sampled_from([0, 1])))))
    for side in (0, 1):
        mine = sorted(((when, event) for when, of, event in events if of == side), key=lambda each: each[0])
        for offset, (when, event) in enumerate(mine):
            both[side].append(Logged(offset, when, event, msgspec.json.encode(event)))
    return both


LIMITS = EffectSettings(horizon_ms=2_000, dedupe_ms=1_000, dedupe_rows=100, max_pending=100, max_undeclared=0)


def read_in_order(both: Log, every: int) -> Recorded:
    """A partition that reads both inputs abreast and takes a checkpoint every so many records."""
    driver = Recorded(both, LIMITS, catalog_of(MODELS))
    while driver.unread(0) or driver.unread(1):
        heads = [driver.unread(side)[0].at_ms if driver.unread(side) else 1 << 60 for side in (0, 1)]
        side = 0 if heads[0] <= heads[1] else 1
        driver.accept(side, every)
        for either in (0, 1):
            driver.idle(either, 0)
        driver.advance()
        driver.close()
    return driver


@profile(max_examples=100, deadline=None)
@given(both=long_logs(), every=st.integers(1, 4))
def test_a_wiped_store_is_rebuilt_from_one_lookback_before_the_last_cut(both: Log, every: int) -> None:
    """Rows, the memory for duplicates, counters and sequences come out right although the log begins later."""
    driver = read_in_order(both, every)
    assume(len(driver.closed) > 2)
    last = driver.closed[-1]
    limit_ms = driver.closed[-2].cut.clock_ms - lookback_ms(LIMITS)
    base = base_before(driver.checkpoints(), limit_ms, last.cut.sequence, (0, 0), whole=True)
    assert base is not None
    assume(not base.empty)
    assert base.clock_ms <= limit_ms < driver.closed[base.number].cut.clock_ms
    part = loaded(FakeRedis(), LIMITS)
    made = replay(driver, part, base, exact=False)
    assert said(made[-1]) == said(last)
    commands, meta = stored.whole(part, made[-1].cut, made[-1].summaries)
    redis = written(FakeRedis(), [Closed([], [], commands, meta, made[-1].cut, [])], last.cut.sequence - 1)
    ours, theirs = known(redis, LIMITS), known(driver.redis, LIMITS)
    # Names that did not come again are not known again, nor when the last record before the base was.
    assert {**ours, "refs": None, "times": ours["times"][1:]} == {**theirs, "refs": None, "times": theirs["times"][1:]}


def traffic(count: int) -> Log:
    """Predictions a second apart, each with its outcome half a second later."""
    both: Log = ([], [])
    for number in range(count):
        events = Prediction(f"p{number}", "loan", "1", 1), Outcome(f"p{number}", 1)
        for side in (0, 1):
            event = events[side]
            at_ms = BASE_MS + 1_000 * number + 500 * side
            both[side].append(Logged(number, at_ms, event, msgspec.json.encode(event)))
    return both


def test_a_log_that_gives_another_cut_is_not_believed() -> None:
    """A record that has changed, is gone, or a cut that does not follow: told, and with what differs."""
    driver = read_in_order(traffic(4), 1)
    base = base_before(driver.checkpoints(), -1, driver.closed[-1].cut.sequence, (0, 0), whole=True)
    assert base is not None
    other = Recorded(traffic(4), LIMITS, catalog_of(MODELS))
    other.closed = driver.closed
    other.logs = (other.logs[0], list(other.logs[1][1:]))
    with pytest.raises(Contradiction, match="says counters"):
        replay(other, loaded(FakeRedis(), LIMITS), base, exact=False)
    skipping = Recorded(traffic(4), LIMITS, catalog_of(MODELS))
    skipping.closed = driver.closed[:1] + driver.closed[2:]
    with pytest.raises(Contradiction, match="after cut 1 comes cut 3"):
        replay(skipping, loaded(FakeRedis(), LIMITS), base, exact=False)


def test_a_log_that_does_not_reach_back_has_no_base() -> None:
    """Neither may begin before what the inputs hold, nor behind the limit, nor where sequences are unknown."""
    driver = read_in_order(traffic(60), 1)
    records, last = driver.checkpoints(), driver.closed[-1].cut.sequence
    limit_ms = BASE_MS + 30_000
    base = base_before(records, limit_ms, last, (0, 0), whole=True)
    assert base is not None
    assert base.clock_ms == limit_ms
    assert base_before(records, limit_ms, last, (base.predictions, base.outcomes), whole=True) == base
    assert base_before(records, limit_ms, last, (base.predictions + 1, 0), whole=True) is None
    assert base_before(records, limit_ms, last, (0, base.outcomes + 1), whole=True) is None
    cuts = records[1:]
    no_complete = [(o, r) for o, r in cuts[2:] if isinstance(r, Cut) and not r.complete and r.clock_ms < limit_ms]
    assert len(no_complete) > 16
    assert base_before(no_complete[:10], limit_ms, last, (0, 0), whole=False) is None


def test_a_replay_from_mid_log_knows_which_ceilings_were_looked_at() -> None:
    """As the undisturbed partition did there; none where nothing has been read yet."""
    driver = read_in_order(traffic(20), 1)
    last = driver.closed[-1].cut.sequence
    begun = set()
    for closed in driver.closed:
        base = base_before(driver.checkpoints(), closed.cut.clock_ms, last, (0, 0), whole=True)
        assert base is not None
        assert passed_before(base) == loaded(driver.stores[base.number], LIMITS).join.passed
        begun.add(base.number)
    assert len(begun) > 10
    assert passed_before(Base(9, 2, 0, 5, 4, BASE_MS, empty=True)) == [-1, -1]


def test_a_restart_is_a_place_to_begin_and_what_was_before_is_none() -> None:
    """After an accepted loss the numbers begin again: the old cut of the same number is not the one that is meant."""
    driver = read_in_order(traffic(10), 1)
    old = driver.checkpoints()
    restart = Restart(5, 4, BASE_MS, 3, "accepted")
    first = msgspec.structs.replace(driver.closed[0].cut, epoch=2)
    records = [*old, (len(old), Take(0, 2, "u", "w", restart)), (len(old) + 1, first)]
    base = base_before(records, -1, 1, (0, 0), whole=True)
    assert base == Base(len(old) + 1, 2, 0, 5, 4, BASE_MS, empty=True)
    found = base_at(records, 1, whole=True)
    assert found is not None
    assert found[1] is first
    assert base_at(records[:-1], 1, whole=True) is None


def test_the_cut_of_a_zombie_is_no_place_to_begin() -> None:
    """One of a lower epoch behind a take does not count, and at the start of a window nothing is sure."""
    driver = read_in_order(traffic(30), 1)
    zombie = msgspec.structs.replace(driver.closed[1].cut, pending=99)
    ours = [msgspec.structs.replace(closed.cut, epoch=2) for closed in driver.closed[1:]]
    records: list[tuple[int, Take | Cut | Gap]] = list(
        enumerate([Take(0, 1, "t", "w"), driver.closed[0].cut, Take(0, 2, "u", "w"), zombie, *ours])
    )
    found = base_at(records, 2, whole=True)
    assert found is not None
    assert found[1] == ours[0]
    assert base_at(records[3:], 2, whole=False) is None


def test_models_are_known_as_of_each_cut() -> None:
    """A model that was registered on the way is unknown before, and its first prediction does not count early."""
    events = [Prediction("a", "loan", "1", 1), Prediction("b", "new", "1", 0.5)]
    both: Log = ([Logged(n, BASE_MS + n, e, msgspec.json.encode(e)) for n, e in enumerate(events)], [])
    limits = msgspec.structs.replace(LIMITS, max_undeclared=1)
    driver = Recorded(both, limits, catalog_of({"loan": MODELS["loan"]}))
    driver.accept(0, 2)
    driver.part.timeline.idle(1, BASE_MS + 10)
    assert [event.model for event in driver.part.advance(driver.catalog)] == ["new"]
    driver.close()
    before = driver.catalog
    after = catalog_of({"loan": MODELS["loan"]})
    after.apply(1, ModelEvent("registered", ModelState("new", 0, "regression")))
    driver.catalog = after
    driver.advance()
    driver.close()
    base = base_before(driver.checkpoints(), -1, 2, (0, 0), whole=True)
    assert base is not None
    replaying = Replay(part := loaded(FakeRedis(), limits), base, driver.closed[-1].cut, exact=False)
    for closed, catalog in zip(driver.closed, (before, after), strict=True):
        inputs = driver.records(0, *msgspec.structs.astuple(closed.cut.predictions)), driver.records(1, 0, 0)
        assert said(replaying.step(closed.cut, inputs, catalog)) == said(closed)
        part.owned.number += 1
    early = Replay(loaded(FakeRedis(), limits), base, driver.closed[-1].cut, exact=False)
    whole = msgspec.structs.replace(driver.closed[0].cut, predictions=driver.closed[1].cut.predictions)
    whole = msgspec.structs.replace(whole, predictions=type(whole.predictions)(0, 2))
    with pytest.raises(Contradiction, match="before model 'new' was known"):
        early.step(whole, (driver.records(0, 0, 2), driver.records(1, 0, 0)), before)
