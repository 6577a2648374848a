"""What is stored of a model beside its versions, windows and open minutes."""

from __future__ import annotations

import msgspec

from detectors.incident import Incident
from streams.alerts import Evidence
from streams.label_watch import LabelState
from streams.withholding import Withheld

FORMAT = 5


class WatchState(LabelState):
    """The champion, its alerts and what is known of how its outcomes come. Format 3 had no segments,
    and format 4 no outcomes by second.
    """

    champion: str = ""
    policy: bytes = b""
    evidence: list[Evidence] = msgspec.field(default_factory=list)
    beside: dict[str, Evidence] = msgspec.field(default_factory=dict)
    noticed: list[str] = msgspec.field(default_factory=list)
    incident: Incident | None = None
    withheld: Withheld | None = None
    held: list[Evidence] = msgspec.field(default_factory=list)
    """What detectors found while no verdict was given."""
    counted: int = 0
    """Outcomes that the champion's detectors had seen when the last minute was judged."""
    segments: dict[str, list[Evidence]] = msgspec.field(default_factory=dict)
    """The evidence of the drift of each segment, as ``evidence`` is that of all outcomes."""

    def evidence_of(self, segment: str) -> list[Evidence]:
        """The evidence of the open drift of a segment, or of all outcomes ("")."""
        return self.segments.setdefault(segment, []) if segment else self.evidence
