"""Who changed a model, when and why: each change is on record with the state that it led to, and none is ever lost."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import msgspec
import pytest

from retrain.administration import Administration
from retrain.approvals import approvals
from retrain.audit_trail import trail
from retrain.difference import differences
from retrain.lifecycle import move
from retrain.runs import RunStore
from retrain.tables import Table
from serving.history import LOOP
from streams.errors import DriftlineError, MissingInput, Unavailable, WrongSetting
from streams.events import rfc3339
from tests.unit.retrain.loop import SETTINGS, Loop, new_loop
from tests.unit.retrain.rows import PROBLEM, START_MS, UnreachableAnnouncer, concept, dataset, features
from tests.unit.retrain.test_administration import again, command


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    """A repository with version 1 of `loans`."""
    return new_loop(tmp_path)


def person(loop: Loop) -> Administration:
    """Somebody with a name."""
    return Administration(loop.repository, loop.announcer, lambda: loop.now_ms, "ada@desk", runs=loop.runs)


def test_every_act_is_on_record_with_who_when_and_why(loop: Loop) -> None:
    """Each command makes one revision and one event, and both name the person, the time and the reason."""
    again(loop)
    ada = person(loop)
    ada.set_mode("loans", "approve", "quarter end")
    ada.freeze("loans", True, "incident 7")
    ada.freeze("loans", False, "over")
    ada.freeze_all(True, "audit")
    ada.freeze_all(False, "audit is over")
    ada.promote("loans", 2, "looks better")
    ada.rollback("loans", reason="it is not")
    acts = [
        ("mode approve", "quarter end", None),
        ("freeze", "incident 7", None),
        ("unfreeze", "over", None),
        ("freeze-all", "audit", None),
        ("unfreeze-all", "audit is over", None),
        ("promoted", "looks better", "2"),
        ("rolledback", "it is not", "2"),
    ]
    kept = [revision.change for revision in loop.repository.history("loans")][-len(acts) :]
    assert [(c.what, c.reason, c.version) for c in kept if c is not None] == acts
    assert {(c.by, c.at) for c in kept if c is not None} == {("ada@desk", rfc3339(START_MS))}
    told = loop.announcer.events[-len(acts) :]
    assert [(event.by, event.reason) for event in told] == [("ada@desk", reason) for _, reason, _ in acts]
    assert [revision.revision for revision in loop.repository.history("loans")] == list(range(1, 10))


def test_what_the_loop_does_is_on_record_too(loop: Loop) -> None:
    """Candidate, promotion and rollback, with the comparison in words; and the run beside them."""
    loop.serve(400, wrong_labels=True)
    run = loop.finish(loop.alerted())
    loop.serve(200)
    ended = loop.watch(run)
    entries = trail(loop.repository.history("loans"), loop.runs.of("loans"))
    by_loop = [(entry.what, entry.version, entry.champion) for entry in entries if entry.by == LOOP]
    assert (f"run {run.episode} triggered", None, None) in by_loop
    assert [line for line in by_loop if not line[0].startswith("run")] == [
        ("candidate", "2", "1"),
        ("promoted", "2", "2"),
        ("rolledback", "2", "1"),
    ]
    assert next(e.reason for e in entries if e.what == "rolledback") == ended.reason
    assert entries[-1].what in ("rolledback", f"run {run.episode} rolled_back")


def test_a_refused_act_leaves_no_trace(loop: Loop) -> None:
    """What was not done is not on record as done."""
    again(loop)
    loop.administration.freeze("loans", True)
    before = len(loop.repository.history("loans"))
    with pytest.raises(WrongSetting, match="frozen"):
        person(loop).promote("loans", 2)
    assert len(loop.repository.history("loans")) == before


def test_a_state_of_an_older_release_has_no_change_and_is_read(loop: Loop, tmp_path: Path) -> None:
    """The audit trail says that it does not know."""
    path = tmp_path / "loans" / "state" / "00000001.json"
    path.write_bytes(msgspec.json.encode(loop.state))
    assert loop.repository.history("loans")[0].change is None
    assert trail(loop.repository.history("loans"), [])[0].by == "unknown"


# Who approved a version ------------------------------------------------------------------------------------------


def test_whoever_approved_a_version_is_known_with_its_manifest(loop: Loop) -> None:
    """A person in mode approve, bound to the very manifest that was approved, which does not change for it."""
    loop.administration.set_mode("loans", "approve")
    loop.live(changed=True)
    run = loop.alerted()
    with pytest.raises(Waiting):
        loop.retrainer().execute(run, lambda: None, waiting)
    before = loop.repository.manifest_hash("loans", 2)
    assert approvals(loop.repository.history("loans"), "2") == []
    person(loop).approve("loans", 2, "ticket 12")
    (approval,) = approvals(loop.repository.history("loans"), "2")
    assert (approval.by, approval.what, approval.reason) == ("ada@desk", "approved", "ticket 12")
    assert approval.at == rfc3339(loop.now_ms)
    assert approval.manifest_sha256 == before == loop.repository.manifest_hash("loans", 2)


def test_the_loop_approves_with_the_comparison_as_its_reason(loop: Loop) -> None:
    """In mode auto nobody else did; a version that returns is approved once more, and a freeze in between is none."""
    loop.live(changed=True)
    run = loop.finish(loop.alerted())
    (approval,) = approvals(loop.repository.history("loans"), "2")
    assert (approval.by, approval.what, approval.reason) == (LOOP, "promoted", run.verdict)
    person(loop).freeze("loans", True)
    person(loop).rollback("loans", reason="we were too fast")
    first = approvals(loop.repository.history("loans"), "1")
    assert [(a.by, a.what, a.reason) for a in first] == [
        ("somebody", "registered", None),
        ("ada@desk", "rolledback", "we were too fast"),
    ]


def test_one_version_is_shown_with_its_card_and_who_approved_it(loop: Loop, tmp_path: Path) -> None:
    """For people the card, for programs the manifest; a version that never served has no approval."""
    again(loop)
    person(loop).promote("loans", 2, "ticket 12")
    shown = command(tmp_path, "models", "show", "loans", "2")
    assert "# loans, version 2" in shown
    assert f"{rfc3339(START_MS)} ada@desk: promoted. ticket 12" in " ".join(shown.split())
    again(loop)
    assert "nobody: it has never been the champion" in command(tmp_path, "models", "show", "loans", "3")
    plain = json.loads(command(tmp_path, "models", "show", "loans", "2", "--json"))
    assert plain["manifest"]["version"] == 2
    assert [each["by"] for each in plain["approvals"]] == ["ada@desk"]
    with pytest.raises(MissingInput, match="no version 9"):
        command(tmp_path, "models", "show", "loans", "9")


class Waiting(Exception):
    """A run waits for a person."""


def waiting(_: float) -> None:
    raise Waiting


def test_a_challenger_is_not_approved_over_a_version_that_it_has_not_beaten(tmp_path: Path) -> None:
    """Another version serves by now: the comparison says nothing of it, unless the person says so."""
    loop = recommended(tmp_path)
    again(loop)
    loop.administration.promote("loans", 3)
    before = loop.state
    with pytest.raises(WrongSetting, match="was better than version 1, but version 3 serves now"):
        person(loop).approve("loans", 2)
    assert loop.state == before
    command(tmp_path, "models", "approve", "loans", "2", "--force", "--no-publish")
    assert loop.state.aliases == {"champion": "2", "previous": "3"}
    (run,) = loop.retrainer().on_probation()
    assert loop.watch_once(run).shadows == ["3"]


def test_an_archived_challenger_has_beaten_whom_its_run_was_about(tmp_path: Path) -> None:
    """Its manifest names whom it beat in its first life, or nobody."""
    loop = new_loop(tmp_path, "recommend")
    again(loop)
    loop.live(changed=True, rows=100)
    run = loop.finish(loop.alerted())
    assert (run.state, run.version, loop.repository.manifest("loans", 2).parent) == ("recommended", 2, None)
    again(loop)
    loop.administration.promote("loans", 4)  # the run had reserved 3
    with pytest.raises(WrongSetting, match="was better than version 1, but version 4 serves now"):
        loop.administration.approve("loans")


@pytest.mark.parametrize("good", [True, False])
def test_an_approved_recommendation_is_on_probation(tmp_path: Path, good: bool) -> None:
    """As one is for which a run waits; in this mode a probation that it fails says what to do and changes nothing."""
    loop = recommended(tmp_path)
    reader = RunStore(str(tmp_path))  # another process, which knows the run as ended
    assert [run.state for run in reader.of("loans")] == ["recommended"]
    assert loop.retrainer(runs=reader).on_probation() == []
    person(loop).approve("loans", 2)
    (run,) = loop.retrainer(runs=reader).on_probation()
    assert (run.state, run.approved, run.promoted_ms) == ("promoted", True, loop.now_ms)
    loop.serve(SETTINGS.probation_rows + 100, wrong_labels=good)
    ended = loop.watch(run)
    assert (ended.state, ended.shadows) == ("confirmed" if good else "released", ["1"])
    assert good or "the mode is recommend" in (ended.reason or "")
    assert loop.state.aliases == {"champion": "2", "previous": "1"}


def test_an_approval_of_a_recommendation_that_is_not_told_is_on_probation(tmp_path: Path) -> None:
    """The version serves from the next minute on, whoever tells it."""
    loop = recommended(tmp_path)
    unheard = Administration(loop.repository, UnreachableAnnouncer(loop.announcer), lambda: loop.now_ms, runs=loop.runs)
    with pytest.raises(Unavailable):
        unheard.approve("loans")
    assert [run.version for run in loop.retrainer().on_probation()] == [2]


def recommended(folder: Path) -> Loop:
    """A loop that recommends version 2, which has beaten version 1."""
    loop = new_loop(folder, "recommend")
    loop.live(changed=True)
    assert loop.finish(loop.alerted()).state == "recommended"
    return loop


# Rollback and reject ----------------------------------------------------------------------------------------------


def test_a_rollback_by_hand_goes_to_the_previous_version_whatever_is_frozen(loop: Loop) -> None:
    """And leaves no way back to what was rolled back, but by its number."""
    again(loop)
    loop.administration.promote("loans", 2)
    loop.administration.freeze("loans", True)
    loop.administration.freeze_all(True)
    assert loop.administration.rollback("loans").aliases == {"champion": "1"}
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.detail) == ("rolledback", "2", "by hand, to version 1")
    with pytest.raises(WrongSetting, match="no previous version"):
        loop.administration.rollback("loans")
    assert loop.administration.rollback("loans", to=2).aliases == {"champion": "2"}


def test_a_rollback_of_a_version_with_a_damaged_manifest_is_told(loop: Loop, tmp_path: Path) -> None:
    """That it is damaged may be why it is rolled back: the event goes without what the manifest would have said."""
    again(loop)
    loop.administration.promote("loans", 2)
    (tmp_path / "loans" / "2" / "manifest.json").write_text("{broken")
    assert loop.administration.rollback("loans", reason="damaged").aliases == {"champion": "1"}
    told = loop.announcer.events[-1]
    assert (told.kind, told.version, told.reason, told.state) == ("rolledback", "2", "damaged", loop.state)
    assert (told.sha256, told.metrics) == (None, {})


def test_a_rollback_to_nothing_changes_nothing(loop: Loop, tmp_path: Path) -> None:
    """The version that serves, one that there is not, one that is damaged."""
    again(loop)
    before = loop.state
    (tmp_path / "loans" / "2" / "model.onnx").write_bytes(b"damaged")
    for to, reason in ((1, "serves already"), (9, "no version 9"), (2, "SHA-256")):
        with pytest.raises(DriftlineError, match=reason):
            loop.administration.rollback("loans", to=to)
    assert loop.state == before


def test_a_rejection_ends_the_run_that_waits(tmp_path: Path) -> None:
    """The challenger goes away, the run ends with the reason, the champion stays."""
    loop = new_loop(tmp_path, "approve")
    loop.live(changed=True)
    run = loop.alerted()

    def pause(seconds: float) -> None:
        person(loop).reject("loans", 2, "not before the audit")

    ended = loop.retrainer().execute(run, lambda: None, pause)
    assert (ended.state, ended.reason) == ("rejected", "a person rejected it")
    assert loop.state.aliases == {"champion": "1"}
    assert "2" not in loop.state.baselines
    rejected = [event for event in loop.announcer.events if event.kind == "rejected"]
    assert (rejected[0].by, rejected[0].reason) == ("ada@desk", "not before the audit")


def test_a_rejection_needs_the_challenger_that_was_looked_at(tmp_path: Path) -> None:
    """Another one by now, or none: nothing is rejected."""
    loop = new_loop(tmp_path, "recommend")
    with pytest.raises(WrongSetting, match="no challenger"):
        loop.administration.reject("loans")
    loop.live(changed=True)
    loop.finish(loop.alerted())
    with pytest.raises(WrongSetting, match="the challenger of loans is version 2, not 7"):
        loop.administration.reject("loans", 7)
    assert loop.administration.reject("loans", 2).aliases == {"champion": "1"}


# Difference -------------------------------------------------------------------------------------------------------


def test_a_difference_names_what_is_not_alike(loop: Loop) -> None:
    """Metrics, data and hash differ; what is alike, and the hundreds of numbers of the profile, are left out."""
    rows = features(300, seed=5)
    forest = SETTINGS.model_copy(update={"algorithms": ["random_forest"]})
    made = Table(PROBLEM, dataset(rows, concept(rows, changed=True)))
    loop.administration.register(made, forest, trained_from={"file": "other.csv"})
    found = {d.name: (d.first, d.second) for d in differences(*(loop.repository.manifest("loans", v) for v in (1, 2)))}
    assert found["version"] == (1, 2)
    assert found["trained_from.file"] == ("loans.csv", "other.csv")
    assert found["signature.accepts_missing"] == (True, None)
    assert not any(name.startswith("profile") or name == "task" for name in found)
    same = loop.repository.manifest("loans", 1)
    assert differences(same, same) == []


# Commands ---------------------------------------------------------------------------------------------------------


def test_the_commands_write_and_read_the_trail(loop: Loop, tmp_path: Path) -> None:
    """promote, rollback, diff and history, offline: who is the user of the machine."""
    again(loop)
    command(tmp_path, "models", "promote", "loans", "2", "--reason", "try it", "--no-publish")
    command(tmp_path, "models", "rollback", "loans", "--reason", "no good", "--no-publish")
    entries = json.loads(command(tmp_path, "models", "history", "loans", "--json"))
    assert [(e["what"], e["version"], e["reason"], e["champion"]) for e in entries[-2:]] == [
        ("promoted", "2", "try it", "2"),
        ("rolledback", "2", "no good", "1"),
    ]
    assert entries[-1]["by"].startswith(f"{getpass.getuser()}@")
    found = json.loads(command(tmp_path, "models", "diff", "loans", "1", "2", "--json"))
    assert {"name": "version", "first": 1, "second": 2} in found
    assert "rolledback" in command(tmp_path, "models", "history", "loans")
    assert "trained_from" in command(tmp_path, "models", "diff", "loans", "1", "2")


def test_who_asked_for_a_run_and_why_is_on_record(loop: Loop, tmp_path: Path) -> None:
    """As for every other command; what began by itself is the loop's."""
    loop.alerted()
    (by_itself,) = loop.runs.of("loans")
    loop.runs.save(move(by_itself, "rejected", loop.now_ms, reason="no rows"))
    command(tmp_path, "retrain", "run", "loans", "--reason", "new price list")
    begun = [e for e in json.loads(command(tmp_path, "models", "history", "loans", "--json")) if "trigg" in e["what"]]
    assert [e["reason"] for e in begun] == ["ConceptDriftDetected", "a command: new price list"]
    assert begun[0]["by"] == LOOP
    assert begun[1]["by"].startswith(f"{getpass.getuser()}@")


def test_a_run_of_an_older_release_does_not_know_who_asked(loop: Loop, tmp_path: Path) -> None:
    """It is read, and is the loop's."""
    command(tmp_path, "retrain", "run", "loans")
    (path,) = (tmp_path / "loans" / "runs").iterdir()
    older = json.loads(path.read_bytes())
    del older["by"], older["why"], older["approved"]
    path.write_text(json.dumps(older))
    entry = trail([], RunStore(str(tmp_path)).of("loans"))[0]
    assert (entry.by, entry.reason) == (LOOP, "a command")


def test_show_says_how_a_probation_stands(loop: Loop, tmp_path: Path) -> None:
    """While it is watched: the error of both versions on the rows so far."""
    loop.serve(400, wrong_labels=True)
    run = loop.finish(loop.alerted())
    loop.watch_once(run)
    loop.serve(5, wrong_labels=True)
    loop.watch_once(loop.runs.of("loans")[0])
    shown = command(tmp_path, "models", "show", "loans")
    assert "watching" in shown
    assert "on 5 rows" in " ".join(shown.split())


def test_show_says_what_a_run_proposes_and_how_to_take_it(tmp_path: Path) -> None:
    """With its evidence, also once it was rejected; a run that waits says what for."""
    loop = recommended(tmp_path)
    waits = loop.alerted(fingerprint="f2")
    loop.runs.save(msgspec.structs.replace(waits, step=1, reason="quiet hours, 22:00-06:00"))
    shown = command(tmp_path, "models", "show", "loans")
    (run,) = (each for each in loop.runs.of("loans") if each.state == "recommended")
    assert f"{run.verdict}: `driftline models approve loans 2`" in shown
    assert "→ triggered quiet hours, 22:00-06:00" in shown
    assert "since 2023-11-14T22:13:20Z" in shown
    loop.runs.save(msgspec.structs.replace(run, step=run.step + 1, state="rejected", reason="a person rejected it"))
    assert f"a person rejected it; {run.verdict}" in command(tmp_path, "models", "show", "loans")
