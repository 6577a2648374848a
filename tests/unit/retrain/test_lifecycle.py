"""The table of transitions, and what identifies a run."""

import itertools
from pathlib import Path
from typing import get_args

import pytest

from retrain.lifecycle import TRANSITIONS, IllegalMove, Run, RunState, episode_key, move
from retrain.runs import RunStore
from streams.errors import StateMismatch

STATES = get_args(RunState)
TRAINED = ("triggered", "collecting", "training", "exporting", "verifying")
PATHS = [
    (*TRAINED, "promoted", "watching", "confirmed"),
    (*TRAINED, "awaiting_approval", "promoted", "watching", "rolled_back"),
    (*TRAINED, "promoted", "watching", "released"),
    (*TRAINED, "recommended"),
    (*TRAINED, "shadowing", "verifying", "promoted", "watching", "confirmed"),
    (*TRAINED, "shadowing", "verifying", "recommended"),
    (*TRAINED, "shadowing", "promoted", "watching", "released"),
    (*TRAINED, "shadowing", "rejected"),
    ("triggered", "collecting", "rejected"),
]


def run(state: RunState = "triggered", **more: object) -> Run:
    """A run."""
    fields: dict[str, object] = {
        "episode": "e1",
        "model": "loans",
        "fingerprint": "f",
        "starts_at": "2026-01-01T00:00:00Z",
        "alertname": "ConceptDriftDetected",
        "state": state,
        "champion": "1",
        "triggered_ms": 1,
        "updated_ms": 1,
        **more,
    }
    return Run(**fields)  # type: ignore[arg-type]  # the values are of the fields' types


def test_the_table_names_every_state() -> None:
    """No state is without a row, and no move leads to a state that is none."""
    assert set(TRANSITIONS) == set(STATES)
    assert set().union(*TRANSITIONS.values()) <= set(STATES)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_an_illegal_move_raises_and_changes_nothing(before: RunState, after: RunState) -> None:
    """Every pair of states: either it is in the table, or it raises."""
    started = run(before)
    if after in TRANSITIONS[before]:
        assert move(started, after, 2).state == after
    else:
        with pytest.raises(IllegalMove):
            move(started, after, 2)
    assert started.state == before


@pytest.mark.parametrize("path", PATHS)
def test_the_ways_through_the_table(path: tuple[RunState, ...]) -> None:
    """The ways that runs take, each ending where nothing more happens."""
    at = run(path[0])
    for state in path[1:]:
        assert not at.ended
        at = move(at, state, at.updated_ms + 1)
    assert at.ended


def test_a_recommended_run_is_over_unless_a_person_approves_it() -> None:
    """It holds up nothing and is watched by nobody; an approval takes it on to its probation."""
    made = run("recommended")
    assert (made.ended, made.at_work, made.on_probation) == (True, False, False)
    assert move(made, "promoted", 7, approved=True).on_probation
    assert TRANSITIONS["recommended"] == {"promoted"}


def test_every_running_state_can_be_ended() -> None:
    """Whatever goes wrong, a run can end with a reason: rejected before its promotion, released after it."""
    at_work = [state for state in STATES if run(state).at_work]
    assert all("rejected" in TRANSITIONS[state] for state in at_work)
    assert "released" in TRANSITIONS["watching"]


def test_a_run_is_at_work_on_probation_or_over() -> None:
    """Each state is one of the three; what is on probation was promoted, and knows when."""
    for state in STATES:
        made = run(state)
        assert [made.at_work, made.on_probation, made.ended].count(True) == 1
    moved = move(run("verifying"), "promoted", 77)
    assert (moved.on_probation, moved.promoted_ms) == (True, 77)
    assert move(moved, "watching", 99).promoted_ms == 77


def test_an_episode_is_its_fingerprint_and_start() -> None:
    """Another sending of the same alert is the same episode; another start is another one."""
    assert episode_key("f", "t1") == episode_key("f", "t1")
    assert len({episode_key("f", "t1"), episode_key("f", "t2"), episode_key("g", "t1")}) == 3
    assert "/" not in episode_key("../../etc/passwd", "t1")


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """An empty store in a folder."""
    return RunStore(str(tmp_path))


def test_an_episode_makes_one_run(store: RunStore) -> None:
    """The second record of an episode is refused, and the first one stays."""
    assert store.create(run(champion="1"))
    assert not store.create(run(champion="2"))
    assert store.load("loans", "e1").champion == "1"


def test_a_run_is_read_as_it_was_saved(store: RunStore) -> None:
    """The highest step is what it is now."""
    store.create(run())
    moved = move(run(), "collecting", 5, since_ms=7, metrics={"accuracy": 0.5})
    store.save(moved)
    assert store.of("loans") == [moved]
    assert store.of("cards") == []


def test_promotions_within_a_week_are_counted(store: RunStore) -> None:
    """Only promotions, whatever became of them later, only recent ones, and only this model's."""
    for i, (state, at) in enumerate([("confirmed", 10), ("rolled_back", 20), ("rejected", None), ("verifying", None)]):
        made = run(state, episode=f"e{i}", updated_ms=30, promoted_ms=at)  # type: ignore[arg-type]  # from the table
        store.create(made)
    assert store.promoted_since("loans", 15) == 1
    assert store.promoted_since("loans", 5) == 2
    assert store.promoted_since("cards", 5) == 0


def test_what_people_approved_is_no_automatic_promotion(store: RunStore) -> None:
    """The weekly maximum is of what nobody looked at."""
    for i, approved in enumerate((True, False, True)):
        store.create(run("watching", episode=f"e{i}", promoted_ms=20, approved=approved))
    assert store.promoted_since("loans", 15) == 1


def test_a_recommended_run_that_another_process_takes_further_is_read_anew(store: RunStore, tmp_path: Path) -> None:
    """What has ended is remembered, as long as it is the highest step."""
    store.create(run("recommended"))
    assert [r.state for r in store.of("loans")] == ["recommended"]
    RunStore(str(tmp_path)).save(move(run("recommended"), "promoted", 9))
    assert [r.state for r in store.of("loans")] == ["promoted"]
    assert store.load("loans", "e1").state == "promoted"


def test_a_run_of_a_newer_program_is_not_misread(store: RunStore, tmp_path: Path) -> None:
    """A newer format, or no run at all, is an error that names the file."""
    store.create(run(format=99))
    with pytest.raises(StateMismatch, match="newer"):
        store.load("loans", "e1")
    (tmp_path / "loans" / "runs" / "e2.000000.json").write_bytes(b"{")
    with pytest.raises(StateMismatch, match=r"e2\.000000\.json"):
        store.load("loans", "e2")
