"""The join against an oracle: any log, read in any batches, with checkpoints, silence and crashes anywhere."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from streams import join as join_module
from streams import summarise, timeline
from streams.catalog import Catalog
from streams.events import Outcome, Prediction, Value
from streams.join import PartitionJoin
from streams.partition import InputPartition
from streams.records import Counters, EffectSettings
from streams.timeline import Piece, Window
from tests.support.limits import make_small
from tests.support.model_join import Declared, Logged, Oracle, Told, merged
from tests.support.partition import Driver, catalog_of
from tests.support.tables import expired, pending, remembered, waiting
from tests.support.windows import prediction_events, take_outcomes, take_predictions, whole

MODELS = {
    "loan": Declared("binary", (0, 1)),
    "iris": Declared("multiclass", ("a", "b", "c")),
    "price": Declared("regression"),
    "free": Declared("classification"),
}
BASE_MS = 1_700_000_000_000
LATER_MS = 10_000_000

Step = tuple[str, int, int]
Log = tuple[list[Logged], list[Logged]]


@pytest.fixture(scope="module", autouse=True)
def small_limits() -> Iterator[None]:
    """Splits and compaction within a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        patch.setattr(summarise, "LABELLED_ROWS", 2)
        patch.setattr(join_module, "TEXTS_KEPT", 2)
        yield


UUID = "0189e6d0-7c3f-7a4b-8c55-2f2d5f2f5f01"

ids = st.sampled_from(["p1", "p2", "p3", UUID])
values = st.one_of(st.sampled_from([0, 1]), st.sampled_from([0, 1, True, 2, 1.0, 0.5, -3.5, "a", "b", "z"]))
names = st.one_of(st.just("loan"), st.sampled_from(["loan", "price", "iris", "free", "ghost"]))
steps_ms = st.sampled_from([0, 0, 1, 400, 1_000, 2_500, -700])
event_times = st.one_of(st.none(), st.integers(BASE_MS - 200_000, BASE_MS + 100_000))

predictions = st.builds(
    Prediction,
    ids,
    names,
    st.sampled_from(["1", 2]),
    values,
    event_times,
    st.just(0.5),
    st.sampled_from([None, "north"]),
)
outcomes = st.builds(Outcome, ids, values, event_times, st.one_of(st.none(), st.sampled_from([None, "loan", "price"])))
simple_predictions = st.builds(Prediction, ids, st.just("loan"), st.just("1"), st.sampled_from([0, 1]))
simple_outcomes = st.builds(Outcome, ids, st.sampled_from([0, 1]))


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Two logs whose clocks stand, move, and sometimes step back; offsets with holes; now and then no event at all.

    Half of them are of one model whose ids meet again and again, the others of everything that may come.
    """
    simple = draw(st.booleans())
    kinds: tuple[st.SearchStrategy[Prediction | Outcome], ...] = (
        (simple_predictions, simple_outcomes) if simple else (predictions, outcomes)
    )
    both: Log = ([], [])
    for side, kind in enumerate(kinds):
        records = st.tuples(kind, steps_ms, st.sampled_from([1, 1, 1, 3]), st.integers(0, 19))
        at_ms, offset = BASE_MS, -1
        for event, step_ms, hole, luck in draw(st.lists(records, max_size=16)):
            at_ms, offset = at_ms + step_ms, offset + hole
            if luck == 13:
                both[side].append(Logged(offset, at_ms, None, b"no event"))
            else:
                both[side].append(Logged(offset, at_ms, event, msgspec.json.encode(event)))
    return both


settings = st.builds(
    EffectSettings,
    horizon_ms=st.sampled_from([1_000, 3_000, 60_000]),
    dedupe_ms=st.sampled_from([0, 1_500, 60_000]),
    dedupe_rows=st.sampled_from([0, 1, 2, 3, 100]),
    max_pending=st.sampled_from([1, 2, 100]),
    max_undeclared=st.just(0),
)
steps = st.tuples(
    st.sampled_from(["accept", "accept", "advance", "idle", "close", "close", "crash", "hole"]),
    st.integers(0, 1),
    st.integers(0, 6),
)


def told_by(log: Log, limits: EffectSettings, plan: Sequence[Step]) -> tuple[Told, Driver]:
    """What a partition says that reads ``log`` by ``plan``, then to its end."""
    driver = Driver(log, limits, catalog_of(MODELS))
    for verb, side, number in plan:
        if verb == "accept":
            driver.accept(side, number + 1, whole_runs=number % 2 == 0)
            if number < 5:
                driver.advance()
        elif verb == "hole":
            driver.accept(side, 0)
        elif verb == "advance":
            driver.advance()
        elif verb == "idle":
            driver.idle(side, 700 * number)
        elif verb == "close":
            driver.close()
            check_law(driver)
        else:
            before = state(driver.part)
            unpublished = driver.outbox()
            driver.crash()
            if driver.cuts:
                assert [entry.cut for entry in unpublished] == driver.cuts
                if before["fresh"]:
                    assert state(driver.part) == before
    told = driver.finish(BASE_MS + LATER_MS)
    check_law(driver)
    return told, driver


def check_law(driver: Driver) -> None:
    """Every record between the first and the newest cut has become exactly one thing, and the cuts have no hole."""
    cut = driver.cuts[-1]
    check_counters(cut.counters, cut.pending, cut.waiting)
    for side, found in ((0, cut.counters.predictions), (1, cut.counters.outcomes)):
        end = cut.predictions.end if side == 0 else cut.outcomes.end
        assert found == sum(record.offset < end for record in driver.logs[side])
        ranges = [c.predictions if side == 0 else c.outcomes for c in driver.cuts]
        assert [r.start for r in ranges] == [0, *(r.end for r in ranges[:-1])]
    clocks = [c.clock_ms for c in driver.cuts]
    assert clocks == sorted(clocks)
    assert [c.sequence for c in driver.cuts] == list(range(1, len(driver.cuts) + 1))
    check_clock(driver)


def check_clock(driver: Driver) -> None:
    """A cut's clock says that every record with an earlier time has been processed."""
    cut = driver.cuts[-1]
    for at_ms, side, record in merged(*driver.logs):
        if at_ms < cut.clock_ms:
            assert record.offset < (cut.predictions.end if side == 0 else cut.outcomes.end)


def check_counters(counters: Counters, pending: int, waiting: int) -> None:
    """The law of both topics."""
    c = counters
    assert c.predictions == c.joined + pending + c.expired_predictions + c.duplicates + c.dead_predictions
    assert c.outcomes == c.joined + waiting + c.expired_outcomes + c.corrections + c.late + c.dead_outcomes


def state(part: InputPartition) -> dict[str, object]:
    """Everything that decides what a partition does next. ``fresh``: nothing happened since the last checkpoint."""
    join = part.join
    return {
        "fresh": part.processed == part.committed == part.position and part.timeline.clock_ms <= part.clock_ms,
        "pending": pending(join),
        "expired": expired(join),
        "waiting": waiting(join),
        "remembered": remembered(join),
        "counted": (join.predictions.waiting, join.predictions.expired, join.outcomes.waiting, join.remembers),
        "passed": join.passed,
        "counters": join.counters,
        "refs": join.refs.items,
        "positions": (part.position, part.processed, part.committed),
        "times": (part.done_ms, part.clock_ms, part.complete_at_ms),
        "sequences": part.sequences,
        "number": part.owned.number,
        "stored rows": (part.layout.log_rows, list(part.layout.joined_blobs), part.layout.joined_rows),
        "limits": join.settings,
    }


@profile(max_examples=250, deadline=None)
@given(logs(), settings, st.lists(steps, max_size=40))
def test_effects_are_those_of_the_log_however_it_is_read(log: Log, limits: EffectSettings, plan: list[Step]) -> None:
    """Pairs, errors, counters, labelled rows and dead letters follow from the log alone.

    The plan splits the topics into batches in any order, puts checkpoints, silence and crashes anywhere; the oracle
    knows nothing of any of them. The law holds at every checkpoint, and a crash gives back the state of the last one.
    """
    expected = Oracle(limits, MODELS).run(merged(*log), BASE_MS + LATER_MS)
    told, _ = told_by(log, limits, plan)
    assert told == expected


def crowded(rng: random.Random) -> tuple[Log, EffectSettings, list[Step]]:
    """A long log of few ids under tight limits, and a long plan: what shrinking strategies seldom reach."""
    both: Log = ([], [])
    count, ids = rng.choice([5, 15, 40]), [f"p{n}" for n in range(rng.choice([2, 4, 12]))]
    for side in (0, 1):
        at_ms, offset = BASE_MS, -1
        for _ in range(count):
            at_ms, offset = at_ms + rng.choice([0, 0, 1, 400, 1_000, 2_500, -700]), offset + rng.choice([1, 1, 1, 3])
            name = rng.choice(ids)
            value: Value = rng.choice([0, 1, 0, 1, 0, 1, 0, 1, True, 0.5, "a", 2])  # type: ignore[assignment]  # joins to object
            model = rng.choice(["loan"] * 10 + ["price", "iris", "free", "ghost"])
            event = Prediction(name, model, "1", value) if side == 0 else Outcome(name, value)
            both[side].append(Logged(offset, at_ms, event, msgspec.json.encode(event)))
    limits = EffectSettings(
        rng.choice([1_000, 3_000, 60_000]),
        rng.choice([0, 1_500, 60_000]),
        rng.choice([0, 1, 2, 3, 5, 100]),
        rng.choice([1, 2, 3, 5, 100]),
        0,
    )
    verbs = ["accept"] * 4 + ["idle"] * 2 + ["advance", "close", "close", "crash", "hole"]
    plan = [(rng.choice(verbs), rng.randrange(2), rng.randrange(7)) for _ in range(rng.choice([10, 40, 100]))]
    return both, limits, plan


@pytest.mark.parametrize("block", range(5))
def test_crowded_logs_say_the_same_however_they_are_read(block: int) -> None:
    """As above, with rows pushed out, memories cut short, corrections and crashes all over."""
    for seed in range(block * 120, (block + 1) * 120):
        log, limits, plan = crowded(random.Random(seed))
        expected = Oracle(limits, MODELS).run(merged(*log), BASE_MS + LATER_MS)
        told, _ = told_by(log, limits, plan)
        assert told == expected, f"seed {seed}"


def busy(rng: random.Random) -> tuple[Log, EffectSettings]:
    """A log in which the same ids meet many times within a window: retries, corrections, duplicates, early outcomes."""
    both: Log = ([], [])
    count, ids = rng.choice([10, 30, 90]), [f"p{n}" for n in range(rng.choice([3, 10, 60]))]
    paces = rng.choice([[0, 0, 0, 1], [0, 1, 40, 200], [0, 400, 1_000, 2_500, -700]])
    for side in (0, 1):
        at_ms, offset = BASE_MS + rng.choice([0, 0, 300]), -1
        for _ in range(count):
            at_ms, offset = at_ms + rng.choice(paces), offset + rng.choice([1, 1, 1, 3])
            name = rng.choice(ids)
            model = rng.choice(["loan"] * 12 + ["iris", "price", "ghost"])
            value: Value = rng.choice((1, 1, 1, 1, 0, True, 1.0, 7, "a", 0.5))
            event: Prediction | Outcome
            if side == 0:
                event = Prediction(name, model, "1", value, rng.choice((None, at_ms - 90_000)))
            else:
                event = Outcome(name, value, None, rng.choice((None, None, None, None, "loan", "price")))
            lost = rng.random() < 0.03
            both[side].append(
                Logged(offset, at_ms, None if lost else event, b"?" if lost else msgspec.json.encode(event))
            )
    ceiling = rng.choice([1, 3, 20, 100])
    return both, EffectSettings(rng.choice([1_000, 3_000, 60_000]), rng.choice([0, 1_500, 60_000]), ceiling, ceiling, 0)


@pytest.mark.parametrize("block", range(5))
def test_large_windows_say_what_single_records_say(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Duplicates, corrections and retries taken by columns equal those one by one, however often an id comes.

    The whole log is one window, or a few; the ceilings are looked at once, or every dozen records.
    """
    monkeypatch.setattr(timeline, "WINDOW_ROWS", 10_000)
    for seed in range(block * 50, (block + 1) * 50):
        rng = random.Random(seed)
        log, limits = busy(rng)
        monkeypatch.setattr(join_module, "CEILING_OFFSETS", rng.choice([12, 1_000, 1_000]))
        plan: list[Step] = [("close", 0, 0)] if rng.random() < 0.5 else []
        for _ in range(rng.choice([0, 0, 3, 10])):
            plan.append(
                (rng.choice(["accept", "accept", "idle", "close", "crash"]), rng.randrange(2), rng.randrange(40))
            )
        expected = Oracle(limits, MODELS).run(merged(*log), BASE_MS + LATER_MS)
        told, _ = told_by(log, limits, plan)
        assert told == expected, f"seed {seed}"


@profile(max_examples=60, deadline=None)
@given(logs(), settings)
def test_the_law_holds_after_any_prefix(log: Log, limits: EffectSettings) -> None:
    """A checkpoint after every single record: each has become exactly one thing."""
    driver = Driver(log, limits, catalog_of(MODELS))
    order = [side for _, side, _ in merged(*log)]
    for side in order:
        driver.accept(side, 1)
        driver.idle(0, 0)
        driver.idle(1, 0)
        driver.advance()
        driver.close()
        check_law(driver)
    assert driver.finish(BASE_MS + LATER_MS) == Oracle(limits, MODELS).run(merged(*log), BASE_MS + LATER_MS)


# ------------------------------------------------------------------------------------------------------- single rules

LIMITS = EffectSettings(horizon_ms=10_000, dedupe_ms=10_000, dedupe_rows=100, max_pending=100, max_undeclared=0)


def predicted(name: str, value: int | str = 1, model: str = "loan") -> Prediction:
    return Prediction(name, model, "1", value)


def joined(limits: EffectSettings = LIMITS) -> tuple[PartitionJoin, Catalog]:
    return PartitionJoin(limits), catalog_of(MODELS)


@pytest.fixture
def ceilings_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ceilings are looked at before every record."""
    monkeypatch.setattr(join_module, "CEILING_OFFSETS", 1)


def test_the_horizon_is_the_last_moment_that_joins() -> None:
    """A difference of exactly the horizon joins, a millisecond more does not, whichever came first."""
    join, catalog = joined()
    take_predictions(join, catalog, 1_000, [predicted("p1"), predicted("p2")])
    take_outcomes(join, catalog, 11_000, [Outcome("p1", 1)])
    take_outcomes(join, catalog, 11_001, [Outcome("p2", 1), Outcome("p3", 1), Outcome("p4", 1)], first=1)
    take_predictions(join, catalog, 21_001, [predicted("p3")], first=2)
    take_predictions(join, catalog, 21_002, [predicted("p4")], first=3)
    assert (join.counters.joined, join.counters.late) == (2, 1)
    assert (join.counters.expired_predictions, join.counters.expired_outcomes) == (1, 1)


def test_rows_that_are_due_expire_oldest_first_whoever_notices(ceilings_always: None) -> None:
    """An outcome that meets a row past its horizon must not change which expired ids are remembered.

    With a memory for one id, what is remembered is the newest that expired; it was the last one that was noticed.
    """
    join, catalog = joined(msgspec.structs.replace(LIMITS, dedupe_rows=1))
    take_predictions(join, catalog, 1_000, [predicted("old")])
    take_predictions(join, catalog, 1_001, [predicted("new")], first=1)
    take_outcomes(join, catalog, 12_000, [Outcome("new", 1)])
    join.expire(12_000)
    take_outcomes(join, catalog, 12_001, [Outcome("new", 1)], first=1)
    assert join.counters.late == 2


def test_a_row_beyond_the_ceiling_pushes_out_the_oldest(ceilings_always: None) -> None:
    """Its outcome is late then, and the law holds."""
    join, catalog = joined(msgspec.structs.replace(LIMITS, max_pending=2))
    take_predictions(join, catalog, 1_000, [predicted(name) for name in ("p1", "p2", "p3")])
    take_outcomes(join, catalog, 1_001, [Outcome("p1", 1), Outcome("p2", 1)])
    assert (join.counters.joined, join.counters.late, join.counters.expired_predictions) == (1, 1, 1)
    assert join.pending_cut_short == 1
    check_counters(join.counters, join.predictions.waiting, join.outcomes.waiting)


def test_the_dedupe_memory_says_when_its_size_cut_it_short(ceilings_always: None) -> None:
    """The second of two joined ids pushes out the first, which is then unknown."""
    join, catalog = joined(msgspec.structs.replace(LIMITS, dedupe_rows=1))
    take_predictions(join, catalog, 1_000, [predicted("p1"), predicted("p2")])
    take_outcomes(join, catalog, 1_001, [Outcome("p1", 1), Outcome("p2", 1)])
    take_predictions(join, catalog, 1_002, [predicted("p1"), predicted("p2")], first=2)
    assert join.dedupe_cut_short == 1
    assert (join.counters.duplicates, join.predictions.waiting) == (1, 1)


def test_a_retry_of_the_same_outcome_undoes_nothing() -> None:
    """It counts as a correction, and neither windows nor labelled rows hear of it: 1, 1.0 and true are one class."""
    join, catalog = joined()
    take_predictions(join, catalog, 1_000, [predicted("p1")])
    take_outcomes(join, catalog, 1_001, [Outcome("p1", 1), Outcome("p1", 1.0), Outcome("p1", True)])
    effects = join.take_effects()
    assert join.counters.corrections == 2
    assert effects.corrected == []
    assert [pairs["outcome_offset"].tolist() for pairs in effects.pairs] == [[0]]


def test_an_undeclared_model_stops_the_run_where_it_stands() -> None:
    """Everything before it is taken in, it and what follows are fed again once the catalog knows the name."""
    join, catalog = joined(msgspec.structs.replace(LIMITS, max_undeclared=1))
    run = [predicted("p1"), predicted("p2", model="new"), predicted("p3")]
    pieces = [whole(prediction_events(1_000, run, range(3)))]
    assert join.unknown(pieces, catalog) == [1]
    (all_of_it,) = pieces
    join.take(Window(([Piece(all_of_it.events, 0, 1)], [])), catalog)
    assert join.counters.predictions == 1
    more = catalog_of({**MODELS, "new": Declared("classification")})
    rest = [Piece(all_of_it.events, 1, 3)]
    assert join.unknown(rest, catalog) == [0]
    assert join.unknown(rest, more) == []
    join.take(Window((rest, [])), more)
    assert (join.counters.predictions, join.predictions.waiting) == (3, 3)


def test_the_models_of_a_window_are_told_together_in_order_and_within_the_bound() -> None:
    """Each by its first prediction that could be decoded, whatever its version, over all pieces."""
    names = ["b", "a", "b", "c", "a", "d"]
    first = prediction_events(
        1_000,
        [None, *(predicted(f"p{n}", model=name) for n, name in enumerate(names))],
        range(7),
        {0: ("not_json", "")},
    )
    second = prediction_events(2_000, [predicted(f"q{name}", model=name) for name in ("d", "e", "f")], range(7, 10))
    pieces = [Piece(first, 0, 5), whole(second)]
    for room, rows in ((9, [1, 2, 4, 5, 6, 7]), (3, [1, 2, 4]), (0, [])):
        join, catalog = joined(msgspec.structs.replace(LIMITS, max_undeclared=room))
        assert join.unknown(pieces, catalog) == rows


def test_names_beyond_the_bound_are_dead_and_the_stream_goes_on() -> None:
    """With the bound reached an undeclared model is a reason, not a stop."""
    join, catalog = joined()
    run = [predicted("p1", model="new"), predicted("p2")]
    take_predictions(join, catalog, 1_000, run, first=7)
    assert [(d.side, d.offset, d.reason) for d in join.effects.dead] == [(0, 7, "too_many_models")]
    assert join.predictions.waiting == 1


@pytest.mark.parametrize(
    ("model", "value", "reason"),
    [
        ("loan", 2, "unknown_class"),
        ("loan", "1", "unknown_class"),
        ("iris", "z", "unknown_class"),
        ("price", "a", "wrong_task"),
        ("price", True, "wrong_task"),
        ("free", 0.5, "wrong_task"),
    ],
)
def test_an_outcome_that_the_model_cannot_have_leaves_the_prediction_waiting(
    model: str, value: int | float | str, reason: str
) -> None:
    """The bad outcome is dead under its reason, and the right one still joins."""
    good: dict[str, int | str] = {"loan": 1, "iris": "a", "price": 2, "free": "x"}
    join, catalog = joined()
    take_predictions(join, catalog, 1_000, [predicted("p1", good[model], model)])
    take_outcomes(join, catalog, 1_001, [Outcome("p1", value), Outcome("p1", good[model])])
    assert [d.reason for d in join.effects.dead] == [reason]
    assert (join.counters.joined, join.counters.dead_outcomes) == (1, 1)


def test_a_class_that_waited_while_its_model_became_a_regression_joins_nothing() -> None:
    """A name seen first is guessed from its first prediction; a later declaration may say otherwise."""
    join, catalog = joined()
    take_predictions(join, catalog, 1_000, [predicted("p1", "x", "free"), predicted("p2", 3, "free")])
    regression = catalog_of({**MODELS, "free": Declared("regression")})
    regression.position = catalog.position + 1
    take_outcomes(join, regression, 1_001, [Outcome("p1", 2.0), Outcome("p2", 2.0)])
    assert [dead.reason for dead in join.effects.dead] == ["wrong_task"]
    assert (join.counters.joined, join.predictions.waiting) == (1, 1)


def test_a_segment_for_every_row_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a new version or segment is dead, a known one goes on, and the law holds."""
    monkeypatch.setattr("streams.join.MAX_REFS", 2)
    join, catalog = joined()
    events = [Prediction(f"p{n}", "loan", "1", 1, segment=segment) for n, segment in enumerate("abca")]
    take_predictions(join, catalog, 1_000, events)
    assert [(d.offset, d.reason) for d in join.effects.dead] == [(2, "too_many_segments")]
    assert len(join.refs) == 2
    assert join.counters == Counters(predictions=4, dead_predictions=1)
    assert join.predictions.waiting == 3
