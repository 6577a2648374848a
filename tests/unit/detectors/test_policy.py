"""The alert policy's table, its timing, and what a replay relies on."""

import itertools
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.identity import Identity, fingerprint
from detectors.policy import (
    MOVES,
    Condition,
    IllegalMove,
    Move,
    Policy,
    PolicySettings,
    Severity,
    State,
    Transition,
    moved,
)
from detectors.snapshot import SnapshotError, seal

ACCURACY = Identity("ModelAccuracyDropped", "loan")
DRIFT = Identity("ConceptDriftDetected", "loan")
OTHER = Identity("ModelAccuracyDropped", "fraud")


def measured(
    active: bool, severity: Severity = "warning", identity: Identity = ACCURACY, value: float = 0.8
) -> Condition:
    return Condition(identity.alertname, active, severity, value, 0.9, {"window": "1h", "n": 1200})


def told(transitions: list[Transition]) -> list[tuple[str, str, str, int]]:
    return [(t.status, t.reason, t.severity, t.sequence) for t in transitions]


@pytest.mark.parametrize(("state", "move"), list(itertools.product(State, Move)))
def test_the_table_is_all_there_is(state: State, move: Move) -> None:
    """A move that the table does not name raises; those that it names lead on."""
    if (state, move) in MOVES:
        assert moved(state, move) is MOVES[state, move]
    else:
        with pytest.raises(IllegalMove):
            moved(state, move)
    assert len(MOVES) == 8


def test_without_a_pending_time_an_alert_fires_at_once_and_only_once() -> None:
    """One alert an episode, dated to the minute in which the condition began to hold."""
    policy = Policy(PolicySettings())
    [alert] = policy.step(100, {ACCURACY: measured(True)})
    assert (alert.status, alert.reason, alert.sequence) == ("firing", "fired", 1)
    assert (alert.episode_start_minute, alert.started_at_s, alert.at_s) == (100, 6000, 6060)
    assert policy.step(101, {ACCURACY: measured(True)}) == []
    assert [episode.state for episode in policy.episodes("loan")] == [State.FIRING]


def test_a_condition_must_hold_for_its_minutes() -> None:
    """A dip shorter than the pending time pages nobody; a longer one is dated to its beginning."""
    policy = Policy(PolicySettings(for_minutes={"ModelAccuracyDropped": 5}))
    for minute in range(100, 105):
        assert policy.step(minute, {ACCURACY: measured(True)}) == []
    assert [episode.state for episode in policy.episodes()] == [State.PENDING]
    assert policy.step(105, {ACCURACY: measured(False)}) == []
    assert policy.episodes() == []
    for minute in range(106, 111):
        assert policy.step(minute, {ACCURACY: measured(True)}) == []
    [alert] = policy.step(111, {ACCURACY: measured(True)})
    assert alert.episode_start_minute == 106


def test_it_resolves_after_clean_minutes_in_a_row() -> None:
    """A flapping condition is one episode; fifteen clean minutes end it, and the next one has a key of its own."""
    policy = Policy(PolicySettings())
    [first] = policy.step(100, {ACCURACY: measured(True)})
    minute = 100
    for _ in range(3):
        for _ in range(14):
            minute += 1
            assert policy.step(minute, {ACCURACY: measured(False)}) == []
        minute += 1
        assert policy.step(minute, {ACCURACY: measured(True)}) == []
    for _ in range(14):
        minute += 1
        assert policy.step(minute, {ACCURACY: measured(False, value=0.95)}) == []
    [resolved] = policy.step(minute + 1, {ACCURACY: measured(False, value=0.95)})
    assert told([resolved]) == [("resolved", "clean", "warning", 2)]
    assert resolved.started_at_s == first.started_at_s
    assert resolved.condition.value == 0.8  # the last that was bad
    [again] = policy.step(minute + 2, {ACCURACY: measured(True)})
    assert (again.sequence, again.episode_start_minute) == (1, minute + 2)


def test_a_minute_without_a_measurement_says_nothing() -> None:
    """Without outcomes an alert neither heals nor is repeated."""
    policy = Policy(PolicySettings(resolve_after_clean_minutes=2, repeat_minutes=10))
    policy.step(100, {ACCURACY: measured(True)})
    policy.step(101, {ACCURACY: measured(False)})
    for minute in range(102, 150):
        assert policy.step(minute, {}) == []
    assert told(policy.step(150, {ACCURACY: measured(False)})) == [("resolved", "clean", "warning", 2)]


def test_a_firing_alert_is_sent_again_when_it_was_long_ago() -> None:
    """Every `repeat_minutes` after it was last sent, also while it heals; never with 0."""
    for repeat, expected in ((10, [110, 120, 130]), (0, [])):
        policy = Policy(PolicySettings(repeat_minutes=repeat, resolve_after_clean_minutes=100))
        policy.step(100, {ACCURACY: measured(True)})
        sent = [minute for minute in range(101, 135) if policy.step(minute, {ACCURACY: measured(minute < 115)})]
        assert sent == expected


def test_severity_may_rise_within_an_episode_and_does_not_fall() -> None:
    """A rise is sent at once and keeps the identity; a relief is no news before it is resolved."""
    policy = Policy(PolicySettings())
    policy.step(1, {ACCURACY: measured(True, "info")})
    assert told(policy.step(2, {ACCURACY: measured(True, "critical")})) == [("firing", "severity", "critical", 2)]
    assert policy.step(3, {ACCURACY: measured(True, "warning")}) == []
    assert policy.episodes()[0].severity == "critical"


def test_a_detection_fires_between_minutes() -> None:
    """An event has no pending time; the same drift seen again belongs to the same episode."""
    policy = Policy(PolicySettings(for_minutes={"ConceptDriftDetected": 60}))
    detected = measured(True, identity=DRIFT)
    [alert] = policy.signal(DRIFT, 6017, detected)
    assert (alert.started_at_s, alert.at_s, alert.status, alert.episode_start_minute) == (6017, 6017, "firing", 100)
    assert policy.signal(DRIFT, 6018, detected) == []
    assert told(policy.signal(DRIFT, 6019, measured(True, "critical", DRIFT))) == [
        ("firing", "severity", "critical", 2)
    ]
    assert policy.step(100, {DRIFT: measured(False, identity=DRIFT)}) == []


def test_news_of_what_fires_are_told_at_once() -> None:
    """As evidence, or as the severity that they raise; what flaps is not told again for them."""
    policy = Policy(PolicySettings(resolve_after_clean_minutes=1, flap_episodes=2))
    detected = measured(True, identity=DRIFT)
    policy.signal(DRIFT, 6017, detected, news=True)
    assert told(policy.signal(DRIFT, 6018, detected, news=True)) == [("firing", "evidence", "warning", 2)]
    assert policy.signal(DRIFT, 6019, detected) == []
    assert told(policy.signal(DRIFT, 6020, measured(True, "critical", DRIFT), news=True)) == [
        ("firing", "severity", "critical", 3)
    ]
    policy.step(101, {DRIFT: measured(False, identity=DRIFT)})
    assert told(policy.signal(DRIFT, 6121, detected)) == [("firing", "flapping", "warning", 1)]
    assert policy.signal(DRIFT, 6122, detected, news=True) == []


@pytest.mark.parametrize(
    ("severities", "reason"),
    [(["warning"], "evidence"), (["warning", "critical"], "severity"), (["critical"], "severity")],
)
def test_news_in_a_silence_are_told_behind_it_by_the_gravest_reason(severities: list[Severity], reason: str) -> None:
    """That it became worse is worth a page, that more was found is not."""
    policy = Policy(PolicySettings())
    policy.signal(DRIFT, 6017, measured(True, identity=DRIFT))
    for severity in severities:
        assert policy.signal(DRIFT, 6018, measured(True, severity, DRIFT), news=True, silenced=True) == []
    [after] = policy.step(101, {})
    assert (after.reason, after.sequence) == (reason, 2)


def test_a_detection_cuts_a_pending_time_short() -> None:
    """What was pending fires with the event, dated to when it became pending."""
    policy = Policy(PolicySettings(for_minutes={"ConceptDriftDetected": 60}))
    policy.step(99, {DRIFT: measured(True, identity=DRIFT)})
    [alert] = policy.signal(DRIFT, 6017, measured(True, identity=DRIFT))
    assert (alert.started_at_s, alert.sequence) == (99 * 60, 1)


def test_a_promotion_resolves_what_its_model_has_open() -> None:
    """All firing alerts of the model end, its pending ones are dropped, other models keep theirs."""
    policy = Policy(PolicySettings(for_minutes={"OutcomesMissing": 10}))
    missing = Identity("OutcomesMissing", "loan")
    policy.step(
        100,
        {
            ACCURACY: measured(True),
            OTHER: measured(True),
            missing: measured(True, identity=missing),
            DRIFT: measured(True, identity=DRIFT),
        },
    )
    ended = policy.resolve("loan", "promoted version 2", 6070)
    assert [(t.identity, t.status, t.reason, t.at_s) for t in ended] == [
        (DRIFT, "resolved", "promoted version 2", 6070),
        (ACCURACY, "resolved", "promoted version 2", 6070),
    ]
    assert [episode.identity for episode in policy.episodes()] == [OTHER]
    assert policy.resolve("loan", "again", 6080) == []


def test_two_episodes_in_one_second_have_two_keys() -> None:
    """A retraining is keyed by fingerprint and start, so a new episode never reuses the start of the last."""
    policy = Policy(PolicySettings())
    [first] = policy.signal(DRIFT, 6000, measured(True, identity=DRIFT))
    policy.resolve(DRIFT, "promoted", 6000)
    [second] = policy.signal(DRIFT, 6000, measured(True, identity=DRIFT))
    assert second.started_at_s == first.started_at_s + 1
    [ended] = policy.resolve(DRIFT, "promoted", 6000)
    assert ended.at_s >= ended.started_at_s


def test_a_minute_before_a_detection_is_over() -> None:
    """Stream time does not run backwards: what a later second fired is not judged by an earlier minute."""
    policy = Policy(PolicySettings())
    policy.signal(DRIFT, 6120, measured(True, identity=DRIFT))
    with pytest.raises(IllegalMove, match="past minute 100"):
        policy.step(100, {DRIFT: measured(False, identity=DRIFT)})
    assert policy.step(101, {DRIFT: measured(False, identity=DRIFT)}) == []


COOL = PolicySettings(
    {"ModelAccuracyDropped": 2}, resolve_after_clean_minutes=3, cooldown_minutes=10, flap_episodes=3, flap_minutes=60
)


def run_minutes(policy: Policy, start: int, pattern: str) -> list[Transition]:
    """One minute a letter: + bad, - clean, o neither, space not measured."""
    sent: list[Transition] = []
    for minute, letter in enumerate(pattern, start):
        condition = Condition(ACCURACY.alertname, letter == "+", "warning", 0.8, 0.9, cleared=letter == "-")
        sent += policy.step(minute, {} if letter == " " else {ACCURACY: condition})
    return sent


def test_between_fire_and_heal_nothing_moves() -> None:
    """Hysteresis: what is neither bad nor clean keeps a firing alert, and does not keep a pending one."""
    policy = Policy(COOL)
    assert run_minutes(policy, 100, "++o++o") == []
    assert policy.episodes() == []
    assert told(run_minutes(policy, 106, "+++ooooo--o--o--")) == [("firing", "fired", "warning", 1)]
    assert told(run_minutes(policy, 122, "-")) == [("resolved", "clean", "warning", 2)]


def test_a_condition_that_need_not_be_held_fires_at_once() -> None:
    """And one that became so while it was pending."""
    urgent = Condition(ACCURACY.alertname, True, "critical", 0.2, 0.7, at_once=True)
    assert told(Policy(COOL).step(100, {ACCURACY: urgent})) == [("firing", "fired", "critical", 1)]
    policy = Policy(COOL)
    run_minutes(policy, 100, "+")
    [fired] = policy.step(101, {ACCURACY: urgent})
    assert fired.started_at_s == 6000


def test_what_comes_back_within_the_cooldown_goes_on_with_its_episode() -> None:
    """Its start, its numbers and its severity; behind the cooldown a new episode begins."""
    policy = Policy(COOL)
    fired, resolved, again, ended = run_minutes(policy, 100, "+++---" + "---+++" + "---")
    assert told([fired, resolved, again, ended]) == [
        ("firing", "fired", "warning", 1),
        ("resolved", "clean", "warning", 2),
        ("firing", "reopened", "warning", 3),
        ("resolved", "clean", "warning", 4),
    ]
    assert {each.started_at_s for each in (fired, resolved, again, ended)} == {6000}
    assert (again.reopened, ended.reopened) == (1, 1)
    [late] = run_minutes(policy, 175, "+++")
    assert (late.reason, late.started_at_s, late.sequence, late.reopened) == ("fired", 175 * 60, 1, 0)


def test_what_subsides_before_it_fires_again_does_not_forget_its_last_episode() -> None:
    """The cooldown runs from the resolve, whatever was pending meanwhile."""
    policy = Policy(COOL)
    run_minutes(policy, 100, "+++---")
    assert run_minutes(policy, 106, "-++-") == []
    assert [told([each]) for each in run_minutes(policy, 110, "+++")] == [[("firing", "reopened", "warning", 3)]]


def test_what_fires_too_often_is_flapping_until_it_is_quiet_for_long() -> None:
    """One message says so; the next ends it, after as many clean minutes as lie between firings that do not flap."""
    policy = Policy(COOL)
    sent = run_minutes(policy, 100, "+++---" * 5)
    assert [each.reason for each in sent] == ["fired", "clean", "reopened", "clean", "flapping"]
    assert [episode.state for episode in policy.episodes()] == [State.FLAPPING]
    assert run_minutes(policy, 130, "-" * 16) == []  # three of them before
    [quiet] = run_minutes(policy, 146, "-")
    assert (quiet.status, quiet.reason, quiet.flapping) == ("resolved", "clean", False)
    assert [each.reason for each in run_minutes(policy, 200, "+++---+++")] == ["fired", "clean", "reopened"]


def test_a_flapping_alert_still_says_that_it_became_worse() -> None:
    """Severity is news, another return is not."""
    policy = Policy(COOL)
    run_minutes(policy, 100, "+++---" * 3)
    [worse] = policy.step(118, {ACCURACY: measured(True, "critical")})
    assert (worse.reason, worse.severity, worse.flapping) == ("severity", "critical", True)


def test_a_detection_is_news_also_within_the_cooldown() -> None:
    """New evidence begins a new episode, which a retraining may act on."""
    policy = Policy(COOL)
    policy.signal(DRIFT, 6000, measured(True, identity=DRIFT))
    for minute in range(100, 103):
        policy.step(minute, {DRIFT: measured(False, identity=DRIFT)})
    [again] = policy.signal(DRIFT, 103 * 60, measured(True, identity=DRIFT))
    assert (again.reason, again.started_at_s, again.sequence) == ("fired", 103 * 60, 1)


def test_a_promotion_leaves_no_cooldown_behind() -> None:
    """The new champion's trouble is its own."""
    policy = Policy(COOL)
    run_minutes(policy, 100, "+++")
    policy.resolve("loan", "promoted", 103 * 60)
    [fired] = run_minutes(policy, 103, "+++")
    assert (fired.reason, fired.sequence) == ("fired", 1)
    run_minutes(policy, 106, "---+")  # pending again, within the cooldown
    policy.resolve("loan", "promoted", 110 * 60)
    [fired] = run_minutes(policy, 110, "+++")
    assert (fired.reason, fired.sequence) == ("fired", 1)


def silent(policy: Policy, start: int, pattern: str, silenced: str) -> list[Transition]:
    """One minute a letter; ``silenced`` has an s for those in a silence."""
    sent: list[Transition] = []
    for minute, (letter, hush) in enumerate(zip(pattern, silenced, strict=True), start):
        condition = Condition(ACCURACY.alertname, letter == "+", "warning", 0.8, 0.9, cleared=letter == "-")
        measured_now = {} if letter == " " else {ACCURACY: condition}
        sent += policy.step(minute, measured_now, silenced=hush == "s")
    return sent


def test_a_silence_is_told_at_its_end_of_what_still_fires() -> None:
    """Once, with the start it had, also in a minute without a measurement."""
    policy = Policy(COOL)
    assert silent(policy, 100, "++++++", "ssssss") == []
    assert policy.held_back
    [late] = silent(policy, 106, " ", ".")
    assert (late.reason, late.started_at_s, late.sequence, late.at_s) == ("fired", 6000, 1, 107 * 60)
    assert not policy.held_back
    assert told(silent(policy, 107, "---", "...")) == [("resolved", "clean", "warning", 2)]


def test_what_began_and_ended_in_a_silence_is_never_told() -> None:
    """What comes back behind it is news."""
    policy = Policy(COOL)
    assert silent(policy, 100, "+++---", "ssssss") == []
    assert told(silent(policy, 106, "+++", "...")) == [("firing", "fired", "warning", 1)]


def test_what_was_told_before_a_silence_is_resolved_in_it() -> None:
    """An end wakes nobody, and whoever was paged waits for it."""
    policy = Policy(COOL)
    assert told(silent(policy, 100, "+++---", "...sss")) == [
        ("firing", "fired", "warning", 1),
        ("resolved", "clean", "warning", 2),
    ]


def test_a_silence_holds_back_that_it_became_worse() -> None:
    """And a detection; a promotion ends both unheard."""
    policy = Policy(COOL)
    run_minutes(policy, 100, "+++")
    assert policy.step(103, {ACCURACY: measured(True, "critical")}, silenced=True) == []
    assert told(policy.step(104, {})) == [("firing", "severity", "critical", 2)]
    assert policy.signal(DRIFT, 6300, measured(True, identity=DRIFT), silenced=True) == []
    assert [each.identity for each in policy.resolve("loan", "promoted", 6300)] == [ACCURACY]


def test_a_policy_of_the_previous_format_is_read() -> None:
    """What fired goes on firing, what was pending keeps its start, and a newer format is refused."""
    fields = {"identity": msgspec.to_builtins(ACCURACY), "severity": "warning", "sent_at_s": 6060, "clean": 1}
    fields |= {"condition": {**msgspec.to_builtins(measured(True)), "evidence": {}}, "last_s": 6060}
    fields |= {"stepped_minute": 100, "started_at_s": 6000}
    for old in ("condition",):
        fields[old] = {name: value for name, value in fields[old].items() if name not in ("cleared", "at_once")}
    firing = Policy(COOL)
    firing.restore(seal(1, [{**fields, "state": "firing", "sequence": 1}]))
    assert told(run_minutes(firing, 101, "--")) == [("resolved", "clean", "warning", 2)]
    pending = Policy(COOL)
    pending.restore(seal(1, [{**fields, "state": "pending", "sequence": 0}]))
    [fired] = run_minutes(pending, 101, "++")
    assert (fired.started_at_s, fired.sequence) == (6000, 1)


@settings(max_examples=100, deadline=None)
@given(
    pattern=st.text("++++---o ", min_size=1, max_size=150),
    signals=st.sets(st.integers(0, 149), max_size=5),
    promotions=st.sets(st.integers(0, 149), max_size=2),
    restart=st.integers(0, 149),
    clean=st.integers(1, 5),
    held=st.integers(0, 4),
    cooldown=st.integers(0, 20),
    flaps=st.sampled_from([0, 2, 3]),
    repeat=st.integers(0, 9),
    silences=st.sets(st.integers(0, 29)),
)
def test_alerts_alternate_and_are_numbered_whatever_happens(
    pattern: str,
    signals: set[int],
    promotions: set[int],
    restart: int,
    clean: int,
    held: int,
    cooldown: int,
    flaps: int,
    repeat: int,
    silences: set[int],
) -> None:
    """No firing without a resolve between two beginnings, numbers without gaps, the same after a restore anywhere."""
    rules = PolicySettings({ACCURACY.alertname: held}, clean, repeat, cooldown, flaps, 40)

    def run(restarting: bool) -> list[Transition]:
        policy, sent = Policy(rules), list[Transition]()
        for at, letter in enumerate(pattern):
            silenced = at // 5 in silences
            sent += silent(policy, 100 + at, letter, "s" if silenced else ".")
            assert silenced or not policy.held_back
            if at in signals:
                sent += policy.signal(ACCURACY, (101 + at) * 60, measured(True, "critical"), silenced=silenced)
            if at in promotions:
                sent += policy.resolve("loan", "promoted", (101 + at) * 60)
            if restarting and at == restart:
                stored = policy.snapshot()
                policy = Policy(rules)
                policy.restore(stored)
        return sent

    sent = run(restarting=False)
    assert run(restarting=True) == sent
    bad, numbers = False, dict[int, int]()
    for each in sent:
        assert bad is (each.reason not in ("fired", "reopened", "flapping"))
        bad = each.status == "firing"
        numbers[each.started_at_s] = numbers.get(each.started_at_s, 0) + 1
        assert each.sequence == numbers[each.started_at_s]
        assert each.at_s >= each.started_at_s
    assert list(numbers) == sorted(numbers)


def illegal(policy: Policy) -> list[Any]:
    return [
        lambda: policy.step(100, {OTHER: measured(True), ACCURACY: measured(True)}),
        lambda: policy.step(99, {ACCURACY: measured(False)}),
        lambda: policy.step(101, {OTHER: measured(True), ACCURACY: measured(True, identity=DRIFT)}),
        lambda: policy.signal(ACCURACY, 6059, measured(True)),
        lambda: policy.signal(ACCURACY, 6060, measured(False)),
        lambda: policy.signal(DRIFT, 6060, measured(True)),
        lambda: policy.resolve(OTHER, "unknown", 6060),
        lambda: policy.resolve(ACCURACY, "too early", 6059),
        lambda: policy.resolve("loan", "too early", 6059),
    ]


@pytest.mark.parametrize("which", range(9))
def test_an_illegal_move_changes_nothing(which: int) -> None:
    """A minute twice, a time that is over, another alert's condition, an alert that does not fire: all or nothing."""
    policy = Policy(PolicySettings())
    policy.step(100, {ACCURACY: measured(True)})
    before = policy.snapshot()
    with pytest.raises(IllegalMove):
        illegal(policy)[which]()
    assert policy.snapshot() == before


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_replay_and_a_restart_give_the_same_transitions(seed: int) -> None:
    """The same inputs give the same alerts, whether or not the state was stored and restored between any two."""

    def run(restarting: bool) -> list[Transition]:
        rng, restarts = random.Random(seed), random.Random(seed + 1)
        rules = PolicySettings({"ModelAccuracyDropped": 3}, resolve_after_clean_minutes=2, repeat_minutes=5)
        policy, sent = Policy(rules), list[Transition]()
        for minute in range(100, 160):
            if rng.random() < 0.2:
                severity: Severity = rng.choice(["warning", "critical"])
                sent += policy.signal(DRIFT, minute * 60 + rng.randint(0, 59), measured(True, severity, DRIFT))
            conditions = {
                identity: measured(rng.random() < 0.7, rng.choice(["info", "warning", "critical"]), identity)
                for identity in (ACCURACY, DRIFT, OTHER)
                if rng.random() < 0.9
            }
            sent += policy.step(minute, conditions)
            if rng.random() < 0.05:
                sent += policy.resolve("loan", "promoted", minute * 60 + 60)
            if restarting and restarts.random() < 0.5:
                stored = policy.snapshot()
                policy = Policy(rules)
                policy.restore(stored)
        return sent

    sent = run(restarting=False)
    assert run(restarting=True) == sent
    ids = [(t.identity.fingerprint, t.started_at_s, t.sequence) for t in sent]
    assert len(set(ids)) == len(ids)
    open_: set[Identity] = set()
    for transition in sent:  # every episode fires first and resolves at most once
        assert (transition.identity in open_) == (transition.sequence > 1)
        (open_.add if transition.status == "firing" else open_.discard)(transition.identity)


def test_a_damaged_policy_snapshot_is_refused() -> None:
    """Alerts that are open are not forgotten for a wrong byte."""
    policy = Policy(PolicySettings())
    policy.step(100, {ACCURACY: measured(True)})
    before = policy.snapshot()
    for sealed in (before[:-1], before[:-1] + bytes([before[-1] ^ 4]), seal(3, []), seal(2, [{"identity": 1}])):
        with pytest.raises(SnapshotError):
            policy.restore(sealed)
    assert policy.snapshot() == before


def test_senseless_settings_and_conditions_are_refused() -> None:
    """What no reader of the alert could take is refused where it is made."""
    with pytest.raises(ValueError, match="for_minutes of X"):
        PolicySettings(for_minutes={"X": -1})
    with pytest.raises(ValueError, match="repeat_minutes"):
        PolicySettings(repeat_minutes=-1)
    with pytest.raises(ValueError, match="finite"):
        Condition("X", True, "info", float("nan"), 0.9)
    with pytest.raises(ValueError, match="finite"):
        Condition("X", True, "info", 0.5, 0.9, {"delay": float("inf")})
    with pytest.raises(ValueError, match="severity"):
        Condition("X", True, "urgent", 0.5, 0.9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="active and cleared"):
        Condition("X", True, "info", 0.5, 0.9, cleared=True)
    with pytest.raises(ValueError, match="flap_episodes"):
        PolicySettings(flap_episodes=1)
    with pytest.raises(ValueError, match="needs a name and a model"):
        Identity("", "loan")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [  # of model/signature_test.go in github.com/prometheus/common
        ({}, 14695981039346656037),
        ({"name": "garland, briggs", "fear": "love is not enough"}, 5799056148416392346),
        ({"first-label": "first-label-value"}, 5146282821936882169),
        ({"first-label": "first-label-value", "second-label": "second-label-value"}, 3195800080984914717),
    ],
)
def test_a_fingerprint_is_that_of_prometheus(labels: dict[str, str], expected: int) -> None:
    """Alertmanager and whoever reads the topic agree on which alert this is."""
    assert fingerprint(labels) == f"{expected:016x}"
    assert fingerprint({**labels, "segment": ""}) == fingerprint(labels)


def test_an_identity_is_fingerprinted_by_its_labels() -> None:
    """Only what identifies an alert is in its fingerprint, and absent parts are absent."""
    assert DRIFT.labels == {"alertname": "ConceptDriftDetected", "model": "loan"}
    assert DRIFT.fingerprint == fingerprint(DRIFT.labels)
    assert Identity("DataDriftDetected", "loan", feature="age").fingerprint != DRIFT.fingerprint
    assert len(DRIFT.fingerprint) == 16
