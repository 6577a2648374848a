"""The drifts of a model that are open: what was found of each, in which incident they are, and how that is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from detectors import incident
from detectors.policy import Episode, Identity, Policy, Transition
from streams.alerts import CONCEPT_DRIFT, Evidence, Raised
from streams.judging import Judge
from streams.label_watch import ABOUT_LABELS
from streams.watch_state import WatchState

MAX_EVIDENCE = 8


class OpenDrifts:
    """Adds detections to the alerts of one model; all of its state is in ``at`` and in the policy."""

    def __init__(self, model: str, policy: Policy, judge: Judge, at: WatchState) -> None:
        self._model = model
        self._policy = policy
        self._judge = judge
        self._at = at

    def tell(self, found: Evidence, at_s: int, *, silenced: bool) -> Iterator[Raised]:
        """Let a detection page, or be evidence: of the drift that is open, or of one that is found soon."""
        identity, at = Identity(CONCEPT_DRIFT, self._model, found.segment), self._at
        is_open = any(episode.identity == identity for episode in self._policy.episodes())
        evidence = at.evidence_of(found.segment)
        if not is_open:
            evidence.clear()
        if found.run_length is None and not is_open:
            at.beside[found.detector] = found
            return
        if len(evidence) < MAX_EVIDENCE:
            evidence.append(found)
        if found.run_length is None:
            return
        if not found.segment:
            since = [each for each in at.beside.values() if each.detected_s >= found.change_s]
            evidence += sorted(since, key=lambda each: (each.detected_s, each.detector))
            at.beside = {}
        condition = self._judge.drift(found, at_s // 60 - 1)
        for transition in self._policy.signal(identity, at_s, condition, silenced=silenced):
            yield self.raised(transition)

    def raised(self, transition: Transition) -> Raised:
        """A transition of any alert of the model, with its evidence and its incident."""
        name, at = transition.identity.alertname, self._at
        if name in ABOUT_LABELS:
            return Raised(transition, at.champion)
        at.incident, transition = incident.told(at.incident, transition)
        evidence = tuple(at.evidence_of(transition.identity.segment)) if name == CONCEPT_DRIFT else ()
        return Raised(transition, at.champion, evidence, at.incident)

    def forget(self) -> None:
        """Another version is champion: what was found of the one before is over."""
        self._at.evidence, self._at.beside, self._at.segments = [], {}, {}

    def adopt(
        self, episodes: Sequence[Episode], evidence: Sequence[Evidence], incidents: Sequence[tuple[str, int]]
    ) -> None:
        """Take over what was published: open episodes, the evidence of the drifts among them, ids and starts (in s) of
        incidents.
        """
        members = [each for each in episodes if each.identity.alertname not in ABOUT_LABELS]
        self._at.incident = incident.adopted(self._model, incidents, members)
        self._at.evidence, self._at.segments = [], {}
        for each in evidence:
            self._at.evidence_of(each.segment).append(each)
