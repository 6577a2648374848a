"""What a checkpoint writes: small rows, whole deltas, and exactly what is needed to go on."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence

import msgspec
import pytest

from streams import join as join_module
from streams import stored
from streams.events import Outcome, Prediction, Value
from streams.partition import Closed
from streams.records import EffectSettings
from streams.seal import Damaged
from tests.support.model_join import Declared, Logged
from tests.support.partition import Driver, catalog_of
from tests.support.tables import expired, pending, remembered, waiting

NOW_MS = 1_767_000_000_000
LIMITS = EffectSettings(
    horizon_ms=60_000_000, dedupe_ms=60_000_000, dedupe_rows=100, max_pending=1_000_000, max_undeclared=0
)
MODELS = {"loan": Declared("binary", (0, 1)), "price": Declared("regression")}


@pytest.fixture
def ceilings_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ceilings are looked at before every record."""
    monkeypatch.setattr(join_module, "CEILING_OFFSETS", 1)


def driver(
    predictions: Sequence[Prediction],
    outcomes: Sequence[Outcome] = (),
    limits: EffectSettings = LIMITS,
    later: Sequence[Prediction] = (),
) -> Driver:
    """A partition over two logs, far into the life of a topic: outcomes come 1 s, ``later`` 2 s after predictions."""
    made = [logged(n, 0, event) for n, event in enumerate(predictions)]
    made += [logged(len(made) + n, 2_000, event) for n, event in enumerate(later)]
    seen = [logged(n, 1_000, event) for n, event in enumerate(outcomes)]
    return Driver((made, seen), limits, catalog_of(MODELS))


def logged(number: int, after_ms: int, event: Prediction | Outcome) -> Logged:
    return Logged(3_000_000_000 + number, NOW_MS + after_ms, event, msgspec.json.encode(event))


def step(at: Driver, predictions: int, outcomes: int) -> Closed:
    """Read so many records of each topic and take a checkpoint."""
    at.accept(0, predictions)
    at.accept(1, outcomes)
    for side in (0, 1):
        unread = at.unread(side)
        at.part.timeline.idle(side, unread[0].at_ms if unread else NOW_MS + 3_000)
    at.advance()
    return at.close()


def commands(closed: Closed, verb: str, part: str) -> list[tuple[object, ...]]:
    return [tuple(c) for c in closed.commands if c[0] == verb and str(c[1]).endswith(part)]


@pytest.mark.parametrize(("model", "value", "score"), [("loan", 1, 0.873), ("loan", 1, None), ("price", 271.5, None)])
def test_a_pending_row_takes_at_most_sixty_bytes(model: str, value: Value, score: float | None) -> None:
    """With UUIDs as ids and offsets in the billions, as in a year of traffic."""
    names = [str(uuid.UUID(int=n << 64 | 7)) for n in range(1_000)]
    at = driver([Prediction(name, model, "12", value, NOW_MS - 20, score) for name in names])
    closed = step(at, 1_000, 0)
    assert closed.cut.pending == 1_000
    ((_, _, blob),) = commands(closed, "RPUSH", "log")
    assert isinstance(blob, bytes)
    assert len(blob) <= 60 * 1_000


def test_rows_that_meet_within_a_checkpoint_never_touch_the_log() -> None:
    """The usual case of fast outcomes costs only the dedupe memory."""
    names = [f"p{n}" for n in range(10)]
    at = driver([Prediction(name, "loan", "1", 1) for name in names], [Outcome(name, 1) for name in names])
    closed = step(at, 10, 10)
    assert closed.cut.counters.joined == 10
    assert commands(closed, "RPUSH", "log") == []
    assert len(commands(closed, "RPUSH", "joined")) == 1


def test_the_log_is_rewritten_when_most_of_it_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """One snapshot takes the place of all deltas, in the same transaction, and loads as the same rows."""
    monkeypatch.setattr(stored, "COMPACT_ROWS", 10)
    monkeypatch.setattr(stored, "COMPACT_FACTOR", 1)
    names = [f"p{n}" for n in range(40)]
    at = driver([Prediction(name, "loan", "1", 1) for name in names], [Outcome(name, 1) for name in names[:38]])
    step(at, 40, 0)
    closed = step(at, 0, 38)
    verbs = [command[0] for command in closed.commands if str(command[1]).endswith("log")]
    assert verbs == ["DEL", "RPUSH"]
    rows = pending(at.part.join)
    assert len(rows) == 2
    at.crash()
    assert pending(at.part.join) == rows
    assert at.part.layout.log_rows == 2


def test_corrections_push_nothing_out_of_the_stored_memory(ceilings_always: None) -> None:
    """Many corrections of one pair are one pair: the others are still known after a crash."""
    limits = msgspec.structs.replace(LIMITS, dedupe_rows=3)
    names = ["p0", "p1", "p2"]
    outcomes = [Outcome(name, 1) for name in names] + [Outcome("p0", n % 2) for n in range(6)]
    predictions = [Prediction(name, "loan", "1", 1) for name in names]
    at = driver(predictions, outcomes, limits, later=predictions)
    for n in range(3):
        step(at, int(n == 0) * 3, 1)
    for _ in range(6):
        step(at, 0, 1)
    known = remembered(at.part.join)
    assert len(known) == 3
    at.crash()
    assert remembered(at.part.join) == known
    closed = step(at, 3, 0)
    assert (closed.cut.counters.duplicates, closed.cut.pending) == (3, 0)


def test_corrections_of_any_checkpoint_are_loaded(ceilings_always: None) -> None:
    """The last one of each pair counts, whichever checkpoint it came in; those of forgotten pairs are passed over."""
    limits = msgspec.structs.replace(LIMITS, dedupe_rows=5)
    names = [f"p{n}" for n in range(8)]
    models = {"word": Declared("multiclass", ("a", "b", "c"))}
    predictions = [Prediction(name, "word", "1", "a") for name in names]
    outcomes = [Outcome(name, "a") for name in names[:6]]
    outcomes += [Outcome("p2", "b"), Outcome("p1", "c"), Outcome("p2", "c"), Outcome("p5", "b")]
    outcomes += [Outcome("p6", "a"), Outcome("p7", "b"), Outcome("p4", "c"), Outcome("p5", "a")]
    made = [logged(n, 0, event) for n, event in enumerate(predictions)]
    at = Driver((made, [logged(n, 1_000 + n, event) for n, event in enumerate(outcomes)]), limits, catalog_of(models))
    for taken in (6, 1, 1, 2, 2, 1, 1):
        step(at, 8 if not at.part.owned.number else 0, taken)
    known = remembered(at.part.join)
    at.crash()
    assert remembered(at.part.join) == known
    assert [outcome for *_, outcome in known][-4:] == ["c", "a", "a", "b"]


def test_the_stored_memory_ends_where_the_limit_does(ceilings_always: None) -> None:
    """Deltas that newer ones push out, and those past the window, are dropped whole."""
    limits = msgspec.structs.replace(LIMITS, dedupe_rows=4)
    names = [f"p{n}" for n in range(20)]
    at = driver([Prediction(n, "loan", "1", 1) for n in names], [Outcome(n, 1) for n in names], limits)
    step(at, 20, 1)
    for _ in range(19):
        step(at, 0, 1)
    # Each delta has one pair; the ceiling was looked at before the last of them.
    assert len(at.redis.lists[at.part.owned.name("joined")]) == at.part.join.remembers == 4 + 1
    for side in (0, 1):
        at.part.timeline.idle(side, NOW_MS + limits.dedupe_ms + 5_000)
    at.close()
    assert at.redis.lists[at.part.owned.name("joined")] == []
    assert at.part.layout.joined_rows == 0


def test_what_was_not_acknowledged_is_published_again_in_order() -> None:
    """Entries leave the outbox with the checkpoint after their acknowledgement, however the store lists them."""
    names = [f"p{n}" for n in range(12)]
    at = driver([Prediction(name, "loan", "1", 1) for name in names], [Outcome(name, 1) for name in names])
    closed = [step(at, 1, 1) for _ in range(11)]
    assert [entry.cut for entry in at.outbox()] == [c.cut for c in closed]
    assert [entry.summaries for entry in at.outbox()] == [c.summaries for c in closed]
    at.part.layout.published += [1, 2, 4]
    closed.append(step(at, 1, 1))
    assert [entry.cut.sequence for entry in at.outbox()] == [3, *range(5, 13)]
    assert at.part.layout.published == []


def test_what_is_loaded_is_what_was_stored() -> None:
    """Types too: a class that is ``true``, a number with a fraction, a text; and rows keep their order."""
    values: list[Value] = [True, 1, 1.0]
    predictions = [Prediction(f"p{n}", "loan", "1", value) for n, value in enumerate(values)]
    predictions += [Prediction("q", "price", 2, -0.25, None, None, "north")]
    at = driver(predictions, [Outcome("unknown", "text"), Outcome("p0", 1)])
    step(at, 4, 2)
    before = at.part
    at.crash()
    assert [row[5] for row in pending(before.join)] == [1, 1.0, -0.25]
    assert [row[4] for row in pending(before.join)] == [int, float, float]
    assert [row[5] for row in waiting(before.join)] == ["text"]
    assert [row[4] for (row, *_) in remembered(before.join)] == [bool]
    for rows in (pending, waiting, remembered):
        assert rows(at.part.join) == rows(before.join)
    assert at.part.join.refs.items == before.join.refs.items
    assert at.part.join.refs.find(("price", "2", "north")) == before.join.refs.find(("price", "2", "north")) >= 0


def damaged(at: Driver, part: str, change: Callable[[list[bytes]], None]) -> None:
    """Change what is stored of one list and load it."""
    changed = at.redis.lists[at.part.owned.name(part)]
    change(changed)
    at.crash()


def flip(blobs: list[bytes]) -> None:
    blobs[0] = blobs[0][:-1] + bytes([blobs[0][-1] ^ 1])


@pytest.mark.parametrize("part", ["log", "joined", "refs"])
@pytest.mark.parametrize("change", [flip, list.pop, list.clear, lambda blobs: blobs.append(blobs[0])])
def test_damage_to_a_stored_list_is_told(part: str, change: Callable[[list[bytes]], None]) -> None:
    """A byte that changed, a blob that is missing, or one too many: never loaded as if it were the state."""
    names = [f"p{n}" for n in range(3)]
    at = driver([Prediction(name, "loan", "1", 1) for name in names], [Outcome("p0", 1)])
    step(at, 3, 0)
    step(at, 0, 1)
    with pytest.raises(Damaged):
        damaged(at, part, change)


def test_damage_to_the_outbox_is_told() -> None:
    """A changed entry, and the newest one missing: it may never have been published."""
    at = driver([Prediction("p", "loan", "1", 1)], [Outcome("p", 1)])
    step(at, 1, 1)
    entries = at.redis.hashes[at.part.owned.name("outbox")]
    whole = dict(entries)
    entries[b"1"] = entries[b"1"][:-1]
    with pytest.raises(Damaged):
        at.crash()
    entries.clear()
    with pytest.raises(Damaged, match="lacks checkpoint 1"):
        at.crash()
    entries.update(whole)
    at.crash()


def test_a_whole_state_loads_as_what_it_was_written_from() -> None:
    """In the place of everything that was stored, and checkpoints follow it as they would have."""
    names = [f"p{n}" for n in range(9)]
    at = driver(
        [Prediction(name, "loan", "1", 1) for name in names],
        [Outcome("early", 0), Outcome("p0", 1), Outcome("p1", 0), Outcome("p0", 0), Outcome("p2", 1)],
        later=[Prediction("p0", "loan", "1", 1), Prediction("new", "loan", "1", 1)],
    )
    step(at, 9, 4)
    closed = step(at, 0, 1)
    before = at.part
    rows = [spelt(before.join) for spelt in (pending, waiting, expired, remembered)]
    commands, meta = stored.whole(before, closed.cut, closed.summaries)
    for command in commands:
        at.redis.execute(*command)
    fields = {**meta, "number": 2}
    at.redis.execute("HSET", before.owned.name("meta"), *(item for pair in fields.items() for item in pair))
    at.crash()
    assert [spelt(at.part.join) for spelt in (pending, waiting, expired, remembered)] == rows
    assert at.part.join.refs.items == before.join.refs.items
    assert [entry.cut for entry in at.outbox()] == [closed.cut]
    counters = step(at, 2, 0).cut.counters
    assert (counters.joined, counters.duplicates, counters.corrections) == (3, 1, 1)
    at.crash()
    assert at.part.join.predictions.waiting == 7
