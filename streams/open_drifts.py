"""The drifts of a model that are open: what was found of each, in which incident they are, and how that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from detectors import incident
from detectors.episode import SEVERITIES
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

    def tell(self, found: Sequence[Evidence], at_s: int, *, silenced: bool) -> Iterator[Raised]:
        """Let detections of one second page, or be evidence: of a drift that is open, or of one that is found soon.

        Those of all outcomes are one alert, and so are those of each segment. An open one is told again at once if a
        stream pages that has not paged in it yet: once for each, so what has five streams is told five times at most.
        """
        for segment in dict.fromkeys(each.segment for each in found):
            yield from self._tell(segment, [each for each in found if each.segment == segment], at_s, silenced)

    def _tell(self, segment: str, found: Sequence[Evidence], at_s: int, silenced: bool) -> Iterator[Raised]:
        identity, at = Identity(CONCEPT_DRIFT, self._model, segment), self._at
        is_open = any(episode.identity == identity for episode in self._policy.episodes())
        evidence, paging = at.evidence_of(segment), [each for each in found if each.run_length is not None]
        if not is_open:
            evidence.clear()
            at.beside |= {each.detector: each for each in found if each.run_length is None}
        known = {each.stream for each in evidence if each.run_length is not None}
        for each in found if is_open else paging:
            _add(evidence, each)
        if not paging:
            return
        if not segment:
            since = [each for each in at.beside.values() if each.detected_s >= paging[0].change_s]
            evidence += sorted(since, key=lambda each: (each.detected_s, each.detector))
            at.beside = {}
        conditions = [self._judge.drift(each, at_s // 60 - 1) for each in paging]
        worst = max(conditions, key=lambda each: SEVERITIES.index(each.severity))
        news = any(each.stream not in known for each in paging)
        for transition in self._policy.signal(identity, at_s, worst, news=news, silenced=silenced):
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


def _add(evidence: list[Evidence], found: Evidence) -> None:
    """Keep a detection as evidence while there is room, and the first of each stream that pages whether or not."""
    if len(evidence) >= MAX_EVIDENCE:
        streams = Counter(each.stream for each in evidence if each.run_length is not None)
        if found.run_length is None or found.stream in streams:
            return
        spare = [n for n, each in enumerate(evidence) if each.run_length is None or streams[each.stream] > 1]
        del evidence[spare[-1]]
    evidence.append(found)
