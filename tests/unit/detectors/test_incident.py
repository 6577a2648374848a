"""What several detectors and rules see of one model is one incident, and one page."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.episode import Condition, Severity, Transition
from detectors.identity import Identity
from detectors.incident import Incident, adopted, incident_id, told
from detectors.policy import Policy, PolicySettings

ACCURACY = Identity("ModelAccuracyDropped", "loan")
DRIFT = Identity("ConceptDriftDetected", "loan")
RULES = PolicySettings(resolve_after_clean_minutes=1, repeat_minutes=0, cooldown_minutes=10)


def measured(identity: Identity, active: bool = True, severity: Severity = "warning") -> Condition:
    return Condition(identity.alertname, active, severity, 0.8, 0.9)


def follow(incident: Incident | None, transitions: list[Transition]) -> tuple[Incident | None, list[str]]:
    reasons = []
    for each in transitions:
        incident, seen = told(incident, each)
        reasons.append(seen.reason)
    return incident, reasons


def test_the_second_alert_joins_and_is_no_news() -> None:
    """Unless it is worse than what was told; the incident is over with its last alert."""
    policy = Policy(RULES)
    incident, reasons = follow(None, policy.signal(DRIFT, 6000, measured(DRIFT)))
    assert reasons == ["fired"]
    assert incident is not None
    assert incident.id == incident_id("loan", 6000)
    incident, reasons = follow(incident, policy.step(100, {ACCURACY: measured(ACCURACY)}))
    assert reasons == ["joined"]
    incident, reasons = follow(incident, policy.step(101, {ACCURACY: measured(ACCURACY, severity="critical")}))
    assert reasons == ["severity"]
    incident, reasons = follow(incident, policy.step(102, {DRIFT: measured(DRIFT, severity="critical")}))
    assert reasons == ["joined"]
    assert incident is not None
    assert [(each.alertname, each.severity) for each in incident.members] == [
        ("ConceptDriftDetected", "critical"),
        ("ModelAccuracyDropped", "critical"),
    ]
    incident, _ = follow(incident, policy.step(103, {DRIFT: measured(DRIFT, False)}))
    assert incident is not None
    assert not incident.over
    incident, reasons = follow(incident, policy.step(104, {ACCURACY: measured(ACCURACY, False)}))
    assert incident is not None
    assert incident.over
    assert reasons == ["clean"]


def test_a_new_alert_behind_the_end_is_a_new_incident_and_a_reopened_one_is_not() -> None:
    """The id follows the episode."""
    policy = Policy(RULES)
    first, _ = follow(None, policy.step(100, {ACCURACY: measured(ACCURACY)}))
    first, _ = follow(first, policy.step(101, {ACCURACY: measured(ACCURACY, False)}))
    again, reasons = follow(first, policy.step(102, {ACCURACY: measured(ACCURACY)}))
    assert first is not None
    assert again is not None
    assert (again.id, reasons) == (first.id, ["reopened"])
    again, _ = follow(again, policy.step(103, {ACCURACY: measured(ACCURACY, False)}))
    later, reasons = follow(again, policy.signal(DRIFT, 6300, measured(DRIFT)))
    assert later is not None
    assert reasons == ["fired"]
    assert later.id != first.id
    assert [each.alertname for each in later.members] == ["ConceptDriftDetected"]


def test_an_incident_is_taken_over_from_what_was_published() -> None:
    """A monitor that lost its state joins what comes to the incident that is open."""
    policy = Policy(RULES)
    incident, _ = follow(None, policy.signal(DRIFT, 6000, measured(DRIFT)))
    assert incident is not None
    assert adopted("loan", [(incident.id, incident.started_at_s)], policy.episodes()) == incident
    assert adopted("loan", [], []) is None
    unnamed = adopted("loan", [], policy.episodes())
    assert unnamed == incident


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from(["warning", "critical"]), st.booleans()), max_size=60
    )
)
def test_every_incident_has_one_page_for_each_severity(steps: list[tuple[bool, bool, Severity, bool]]) -> None:
    """Whatever fires and ends in whatever order; no id is used twice."""
    policy, incident, ids = Policy(RULES), None, list[str]()
    pages: dict[str, list[str]] = {}
    for at, (accuracy, drift, severity, promoted) in enumerate(steps):
        conditions = {ACCURACY: measured(ACCURACY, accuracy, severity), DRIFT: measured(DRIFT, drift, severity)}
        sent = policy.step(100 + at, conditions)
        if promoted and at % 7 == 0:
            sent += policy.resolve("loan", "promoted", (101 + at) * 60)
        for each in sent:
            before = incident
            incident, seen = told(incident, each)
            if before is None or before.id != incident.id:
                assert before is None or before.over
                assert incident.id not in ids
                ids.append(incident.id)
            if seen.reason in ("fired", "severity"):
                pages.setdefault(incident.id, []).append(seen.severity)
    for severities in pages.values():
        assert severities in (["warning"], ["critical"], ["warning", "critical"])
