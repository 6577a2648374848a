"""When a drift that is open is told again, and what is kept as its evidence."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from detectors.four_rates import RATES
from detectors.pagers import ALL_OUTCOMES
from detectors.policy import Policy, PolicySettings
from streams import rules
from streams.alerts import Evidence, Raised
from streams.arrivals import Arrivals
from streams.judging import Judge
from streams.label_watch import LabelWatch
from streams.model_windows import ModelWindows
from streams.open_drifts import MAX_EVIDENCE, OpenDrifts
from streams.settings import MonitorSettings
from streams.watch_state import WatchState

STREAMS = (ALL_OUTCOMES, *RATES)
DETECTORS = ("e_detector", "adwin")


def opened() -> OpenDrifts:
    """The drifts of a model that has none."""
    settings, policy, at = MonitorSettings(), Policy(PolicySettings()), WatchState()
    labels = LabelWatch("loan", settings, PolicySettings(), at)
    limits = rules.AccuracyLimits(0.9, 0.05, (), 100)
    judge = Judge("loan", settings, limits, {}, ModelWindows(Arrivals()), labels, policy, at)
    return OpenDrifts("loan", policy, judge, at)


def found(second: int, stream: str = ALL_OUTCOMES, detector: str = "e_detector", after: float = 0.1) -> Evidence:
    """A detection; of the detector adwin, one that does not page."""
    pages = detector == "e_detector"
    metric = stream if stream in RATES else "accuracy"
    return Evidence(
        *(detector, 30.0, 20.0, metric, 0.05, after, second - 5, {0: 1}, second, 0, second, second, 20),
        false_alarms_per_week=0.1 if pages else None,
        run_length=1e6 if pages else None,
        stream=stream,
    )


def reasons(raised: list[Raised]) -> list[tuple[str, int, str]]:
    return [(each.transition.reason, each.transition.sequence, each.transition.severity) for each in raised]


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(STREAMS), st.sampled_from(DETECTORS)), min_size=1, max_size=5), max_size=20
    )
)
def test_each_stream_that_pages_is_told_once_whatever_comes(seconds: list[list[tuple[str, str]]]) -> None:
    """Nothing is told of what does not page; the evidence of each stream is in the alert that tells of it, for good."""
    drifts, known = opened(), list[str]()
    for at_s, detections in enumerate(seconds, 1_000):
        together = [found(at_s, *each) for each in detections]
        new = list(dict.fromkeys(s for s, detector in detections if detector == "e_detector" and s not in known))
        raised = list(drifts.tell(together, at_s, silenced=False))
        assert len(raised) == bool(new)
        for each in raised:
            assert each.transition.reason == ("evidence" if known else "fired")
            known += new
            inside = [one.stream for one in each.evidence if one.run_length is not None]
            assert list(dict.fromkeys(inside)) == known
            assert len(each.evidence) <= MAX_EVIDENCE + len(DETECTORS)


def test_a_drift_that_is_told_again_becomes_as_severe_as_its_worst_stream() -> None:
    """What pages in one second is one alert; a worse stream is a page, another detector of a known stream nothing."""
    drifts = opened()
    first = list(drifts.tell([found(1_000, "recall"), found(1_000, "npv")], 1_000, silenced=False))
    assert reasons(first) == [("fired", 1, "warning")]
    assert [each.stream for each in first[0].evidence] == ["recall", "npv"]
    assert reasons(list(drifts.tell([found(1_001, "precision")], 1_001, silenced=False))) == [
        ("evidence", 2, "warning")
    ]
    worse = list(drifts.tell([found(1_002, after=0.4)], 1_002, silenced=False))
    assert reasons(worse) == [("severity", 3, "critical")]
    assert list(drifts.tell([found(1_003, after=0.4)], 1_003, silenced=False)) == []
