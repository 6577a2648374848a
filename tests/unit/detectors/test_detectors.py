"""What every detector promises, asked of each of them."""

import doctest
import math
import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from river import drift, stats

import detectors.adwin
import detectors.e_detector
import detectors.page_hinkley
from detectors.adwin import Adwin
from detectors.binary_detectors import Ddm, Eddm, Fhddm, HddmA, HddmW
from detectors.contract import Detector, InvalidValue
from detectors.e_detector import EDetector
from detectors.page_hinkley import PageHinkley
from detectors.reference import Reference
from detectors.registry import make_detector
from detectors.river_binary import RiverBinary, RiverState
from detectors.scaling import ScaledDetector, Scaling
from detectors.snapshot import SnapshotError, fields_of, seal
from detectors.verdict import Detection

# Eager parameters, so that streams of a few hundred errors hold many detections.
EAGER: dict[str, dict[str, Any]] = {
    "adwin": {"delta": 0.3, "clock": 4},
    "ddm": {"drift_threshold": 2.0},
    "e_detector": {"threshold": 100.0, "reference_outcomes": 500},
    "eddm": {},
    "fhddm": {"sliding_window_size": 20, "confidence_level": 0.01},
    "hddm_a": {"drift_confidence": 0.05},
    "hddm_w": {"drift_confidence": 0.05},
    "page_hinkley": {"threshold": 2.0, "min_instances": 30},
}
RIVER: dict[str, Callable[[], Any]] = {
    "adwin": lambda: drift.ADWIN(**EAGER["adwin"]),  # type: ignore[no-untyped-call]
    "ddm": lambda: drift.binary.DDM(**EAGER["ddm"]),
    "eddm": drift.binary.EDDM,
    "fhddm": lambda: drift.binary.FHDDM(**EAGER["fhddm"]),
    "hddm_a": lambda: drift.binary.HDDMA(**EAGER["hddm_a"], warning_confidence=0.05),  # type: ignore[no-untyped-call]
    "hddm_w": lambda: drift.binary.HDDMW(**EAGER["hddm_w"], warning_confidence=0.05),  # type: ignore[no-untyped-call]
}
NAMES = sorted(EAGER)
FROM_RIVER = sorted(RIVER)
PROMPT = [name for name in NAMES if name != "eddm"]
"""EDDM has tests of its own for what it does late, or too often."""


def eager(name: str) -> Detector:
    return make_detector(name, **EAGER[name])


# River's defaults for these alarm falsely too often for a test of a few thousand errors.
CALM: dict[str, dict[str, Any]] = {
    "ddm": {"drift_threshold": 4.0, "warm_start": 500},
    "eddm": {"beta": 0.7, "warm_start": 100},
    "fhddm": {"confidence_level": 1e-9},
    "hddm_a": {"drift_confidence": 1e-5},
    "hddm_w": {"drift_confidence": 1e-4, "lambda_val": 0.005},
}


def ready(name: str, rate: float = 0.1) -> Detector:
    """Quiet while nothing changes, and with a reference of that error rate if it needs one."""
    if name == "e_detector":
        return make_detector(name, reference=Reference.of_rate(5000, rate))
    return make_detector(name, **CALM.get(name, {}))


@st.composite
def error_streams(draw: st.DrawFn) -> list[float]:
    """Errors whose rate jumps now and then, as 0 and 1 or as fractions."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    binary = draw(st.booleans())
    stream: list[float] = []
    for rate in draw(st.lists(st.floats(0, 1), min_size=1, max_size=5)):
        for _ in range(draw(st.integers(0, 120))):
            stream.append(float(rng.random() < rate) if binary else rate * rng.random())
    return stream


def cut(stream: list[float], rng: random.Random) -> list[list[float]]:
    batches = []
    while stream:
        size = rng.randint(0, 40)
        batches.append(stream[:size])
        stream = stream[size:]
    return batches


def fed(detector: Detector, batches: list[list[float]]) -> list[Any]:
    """Detections with indexes counted from the first batch."""
    found, start = [], 0
    for batch in batches:
        found += [
            (start + d.index, d.statistic, d.threshold, d.before, d.after, d.window)
            for d in detector.update_many(batch)
        ]
        start += len(batch)
    return found


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(stream=error_streams(), seed=st.integers(0, 2**32))
def test_batches_make_no_difference(name: str, stream: list[float], seed: int) -> None:
    """However a stream is cut, detections, their evidence and the state are those of one error at a time."""
    whole, single, pieces = eager(name), eager(name), eager(name)
    found = fed(whole, [stream])
    assert fed(single, [[error] for error in stream]) == found
    assert fed(pieces, cut(stream, random.Random(seed))) == found
    assert whole.snapshot() == single.snapshot() == pieces.snapshot()
    assert whole.count == len(stream)


@pytest.mark.parametrize("name", FROM_RIVER)
@settings(max_examples=150, deadline=None)
@given(stream=error_streams(), seed=st.integers(0, 2**32))
def test_river_itself_would_say_the_same(name: str, stream: list[float], seed: int) -> None:
    """Every rise reported is one that River reports at that error, and River's state ends up bit for bit the same.

    Page-Hinkley has a state of its own, and the next test.
    """
    river = RIVER[name]()
    fires = []
    for index, error in enumerate(stream):
        river.update(as_river_has_it(name, error))
        if river.drift_detected:
            fires.append(index)
    detector = eager(name)
    found = [detection[0] for detection in fed(detector, cut(stream, random.Random(seed)))]
    assert set(found) <= set(fires)
    if name != "adwin":  # one-sided: nothing is kept back
        assert found == fires
    assert state_of(detector) == state_of_river(river)


@settings(max_examples=150, deadline=None)
@given(
    stream=error_streams(),
    seed=st.integers(0, 2**32),
    alpha=st.sampled_from([1.0, 0.9999, 0.99, 0.9, 0.4]),
    delta=st.sampled_from([0.0, 0.005, 0.1]),
    threshold=st.sampled_from([0.77, 2.03, 9.1]),
)
@example(stream=[0.0, 1.0] * 3_000 + [1.0] * 40 + [0.0, 0.3] * 2_000, seed=1, alpha=0.9999, delta=0.005, threshold=9.1)
def test_page_hinkley_fires_where_rivers_does(
    stream: list[float], seed: int, alpha: float, delta: float, threshold: float
) -> None:
    """At the same errors, with the same climb, whatever it forgets, over many blocks of its sums too."""
    river: Any = drift.PageHinkley(30, delta, threshold, alpha, mode="up")
    fires = []
    for index, error in enumerate(stream):
        river.update(error)
        if river.drift_detected:
            fires.append((index, pytest.approx(river._sum_increase - river._min_increase, rel=1e-9)))
    detector = PageHinkley(30, delta, threshold, alpha)
    assert [(at, climb) for at, climb, *_ in fed(detector, cut(stream, random.Random(seed)))] == fires


def as_river_has_it(name: str, error: float) -> float:
    """What River's detector expects where we have an error."""
    if name == "eddm":
        return float(error >= 0.5)
    return 1.0 - error if name == "fhddm" else error


def state_of(detector: Detector) -> Any:
    return state_of_river(detector._river)  # type: ignore[attr-defined]


def state_of_river(river: Any) -> Any:
    if isinstance(river, drift.ADWIN):
        return river.drift_detected, bytes(river._helper.__getstate__())
    return river.drift_detected, flat(river)


def flat(state: Any) -> Any:
    """A River object's attributes, those of its parts included."""
    if isinstance(state, stats.EWMean):
        return state.get()
    if hasattr(state, "__dict__"):
        return {name: flat(value) for name, value in vars(state).items() if name != "_warning_detected"}
    return (state.n, state._mean) if isinstance(state, stats.Mean) else state


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=100, deadline=None)
@given(stream=error_streams(), at=st.floats(0, 1))
def test_a_restored_detector_goes_on_as_the_original(name: str, stream: list[float], at: float) -> None:
    """A snapshot in mid-stream loses nothing: the future and the next snapshot are identical."""
    cut_at = int(at * len(stream))
    original, restored = eager(name), eager(name)
    original.update_many(stream[:cut_at])
    restored.restore(original.snapshot())
    assert restored.count == cut_at
    assert fed(restored, [stream[cut_at:]]) == fed(original, [stream[cut_at:]])
    assert restored.snapshot() == original.snapshot()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut_off=st.booleans())
def test_a_damaged_snapshot_is_refused(name: str, place: float, flip: int, cut_off: bool) -> None:
    """One wrong byte, or a missing end, raises and leaves the detector as it was."""
    detector = eager(name)
    detector.update_many([0.0, 1.0] * 50)
    before = detector.snapshot()
    damaged = bytearray(before)
    at = int(place * len(damaged))
    damaged[at] ^= flip
    with pytest.raises(SnapshotError):
        detector.restore(before[:at] if cut_off else bytes(damaged))
    assert detector.snapshot() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_snapshot_of_a_newer_release_or_another_structure_is_refused(name: str) -> None:
    """What this release cannot read, or what does not fit, is never taken for a state."""
    detector = eager(name)
    before = detector.snapshot()
    others: dict[str, dict[str, float]] = {
        "adwin": {"clock": 8},
        "ddm": {"warm_start": 50},
        "e_detector": {"reference_outcomes": 1000},
        "eddm": {"warm_start": 50},
        "fhddm": {"sliding_window_size": 30},
        "hddm_w": {"lambda_val": 0.1},
        "page_hinkley": {"delta": 0.1},
    }
    stranger = make_detector(name, **others[name]) if name in others else make_detector("ddm")
    for sealed, reason in (
        (seal(9, {}), "upgrade"),
        (seal(1, {"structure": "x"}), "fields"),
        (stranger.snapshot(), "snapshot is of"),
    ):
        with pytest.raises(SnapshotError, match=reason):
            detector.restore(sealed)
    assert detector.snapshot() == before


def test_a_window_that_river_does_not_take_is_refused() -> None:
    """River panics inside Rust, with an exception that is no Exception; it surfaces as a damaged snapshot."""
    from detectors.adwin import AdwinState

    adwin = Adwin()
    adwin.update_many([0.0, 1.0] * 100)
    before = adwin.snapshot()
    state = fields_of(before, 1, AdwinState)
    for window in (state.window[:40] + state.window[-28:], b"", b"\xff" * 100):
        broken = AdwinState(state.structure, state.count, state.delta, state.fired, window, state.change)
        with pytest.raises(SnapshotError, match="river"):
            adwin.restore(seal(1, broken))
    assert adwin.snapshot() == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e308, -0.1, 1.000001, None, 10**400])
def test_a_bad_number_touches_nothing(name: str, bad: Any) -> None:
    """One value that is no error from 0 to 1 refuses its whole batch; the state stays as it was, and useful."""
    detector = eager(name)
    detector.update_many([0.0, 1.0] * 30)
    before = detector.snapshot()
    with pytest.raises(InvalidValue):
        detector.update_many([0.0, 1.0, bad, 0.0])
    assert detector.snapshot() == before


def bernoulli(rates: list[tuple[int, float]], seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < rate) for n, rate in rates for _ in range(n)]


@pytest.mark.parametrize("name", PROMPT)
@pytest.mark.parametrize("after", [0.3, 0.6, 1.0])
def test_a_known_drift_is_found_where_it_happened(name: str, after: float) -> None:
    """A jump of the error rate is found with the defaults, with the change dated to about where it was."""
    found = ready(name).update_many(bernoulli([(3000, 0.1), (2000, after)], seed=7))
    assert len(found) == 1
    detection = found[0]
    assert detection.detector == name
    assert 3000 < detection.index < 3600
    assert abs(detection.index - detection.window + 1 - 3000) < 40
    assert detection.before == pytest.approx(0.1, abs=0.02)
    assert detection.after == pytest.approx(after, abs=0.12)
    assert detection.statistic > detection.threshold


@pytest.mark.parametrize("name", PROMPT)
def test_the_change_point_reaches_back_over_batches(name: str) -> None:
    """The window counts errors of earlier batches too, so the change may be at a negative index."""
    detector = ready(name)
    stream = bernoulli([(3000, 0.1), (2000, 0.5)], seed=3)
    start = 0
    found: list[Detection] = []
    while not found:
        found = detector.update_many(stream[start : start + 10])
        start += 10
    first_after = found[0].index - found[0].window + 1
    assert first_after < 0
    assert abs(start - 10 + first_after - 3000) < 40


@pytest.mark.parametrize("name", PROMPT)
def test_an_improvement_is_not_reported(name: str) -> None:
    """The error falling is no drift to wake somebody for; a later rise is still found, and dated to the rise."""
    detector = ready(name, 0.5)
    assert detector.update_many(bernoulli([(2000, 0.5), (4000, 0.05)], seed=11)) == []
    found = detector.update_many(bernoulli([(2000, 0.65)], seed=12))
    assert found
    assert abs(found[0].index - found[0].window + 1) < 40
    assert found[0].before < 0.4 < found[0].after


@pytest.mark.parametrize("name", NAMES)
def test_a_steady_model_stays_quiet(name: str) -> None:
    """10,000 errors of one rate give no detection with the defaults."""
    assert ready(name).update_many(bernoulli([(10_000, 0.1)], seed=5)) == []


def test_eddm_finds_a_drift_late_and_alarms_on_nothing() -> None:
    """Calmed down it needs a thousand errors more than others; with River's defaults it fires while nothing changes."""
    found = ready("eddm").update_many(bernoulli([(3000, 0.1), (3000, 0.4)], seed=7))
    assert 3000 < found[0].index < 5500
    assert found[0].statistic > found[0].threshold
    assert found[0].after > found[0].before
    assert len(make_detector("eddm").update_many(bernoulli([(50_000, 0.1)], seed=8))) > 5


@pytest.mark.parametrize("name", FROM_RIVER)
def test_fields_that_are_no_state_are_refused(name: str) -> None:
    """A snapshot with a sound checksum, but with fields missing or of another kind, changes nothing."""
    detector = eager(name)
    if not isinstance(detector, RiverBinary):
        return
    detector.update_many([0.0, 1.0] * 60)
    before = detector.snapshot()
    state = fields_of(before, 1, RiverState)
    for fields in ({}, dict.fromkeys(state.fields, "x")):
        broken = (state.structure, state.count, state.fired, fields, state.change)
        names = ("structure", "count", "fired", "fields", "change")
        with pytest.raises(SnapshotError):
            detector.restore(seal(1, dict(zip(names, broken, strict=True))))
    assert detector.snapshot() == before


@pytest.mark.parametrize("name", NAMES)
def test_every_sequence_of_numbers_is_taken(name: str) -> None:
    """Whole numbers, truth values and arrays of them are the same errors as floats."""
    stream = bernoulli([(500, 0.1), (300, 0.9)], seed=2)
    expected = eager(name)
    found = expected.update_many(stream)
    assert found
    for same in ([int(e) for e in stream], [bool(e) for e in stream], np.array(stream), np.array(stream) == 1):
        detector = eager(name)
        assert detector.update_many(same) == found
        assert detector.snapshot() == expected.snapshot()
    assert eager(name).update_many([]) == []


@pytest.mark.parametrize(
    ("name", "threshold", "structural"),
    [
        ("adwin", {"delta": 0.05}, {"clock": 16}),
        ("e_detector", {"threshold": 1e6, "margin": 1.0, "wander": 3.0}, {"reference_outcomes": 500}),
        ("page_hinkley", {"threshold": 9.0}, {"alpha": 0.99}),
    ],
)
def test_a_threshold_is_no_part_of_the_structure(
    name: str, threshold: dict[str, float], structural: dict[str, float]
) -> None:
    """Recalibrating keeps the state; changing what the statistic is does not."""
    assert make_detector(name, **threshold).structure == make_detector(name).structure
    assert make_detector(name, **structural).structure != make_detector(name).structure


@pytest.mark.parametrize(
    ("name", "loose"),
    [("adwin", {"delta": 0.3}), ("e_detector", {"threshold": 1e3}), ("page_hinkley", {"threshold": 8.0})],
)
def test_a_recalibrated_detector_judges_the_kept_statistic(name: str, loose: dict[str, float]) -> None:
    """Restored under another threshold, a detector goes on as if it had had that one from the beginning."""
    calm, drifted = [0.0, 0.0, 0.0, 1.0] * 200, bernoulli([(1000, 0.45)], seed=1)
    few = {"reference_outcomes": 500} if name == "e_detector" else {}
    strict = make_detector(name, **few)
    recalibrated, from_start = make_detector(name, **few, **loose), make_detector(name, **few, **loose)
    assert strict.update_many(calm) == from_start.update_many(calm) == []
    recalibrated.restore(strict.snapshot())
    found = from_start.update_many(drifted)
    assert recalibrated.update_many(drifted) == found
    assert found[0].index < strict.update_many(drifted)[0].index


@pytest.mark.parametrize("module", [detectors.adwin, detectors.e_detector, detectors.page_hinkley])
def test_the_examples_of_the_docstrings_are_true(module: ModuleType) -> None:
    """What a reader tries first works as printed."""
    outcome = doctest.testmod(module)
    assert outcome.attempted
    assert not outcome.failed


def test_an_unknown_detector_names_the_known() -> None:
    """The error is what an operator needs to mend the setting."""
    with pytest.raises(ValueError, match=r"'adwinn'.*adwin, ddm, e_detector, eddm, .*page_hinkley"):
        make_detector("adwinn")
    with pytest.raises(ValueError, match="adwin does not take"):
        make_detector("adwin", threshold=3)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (Adwin, {"delta": 0.0}),
        (Adwin, {"delta": 1.5}),
        (Adwin, {"clock": 0}),
        (EDetector, {"threshold": 50.0}),
        (EDetector, {"threshold": math.nan}),
        (EDetector, {"reference_outcomes": 0}),
        (EDetector, {"margin": -1.0}),
        (EDetector, {"wander": math.inf}),
        (Ddm, {"drift_threshold": 0.0}),
        (Eddm, {"beta": 1.0}),
        (Fhddm, {"sliding_window_size": 1}),
        (HddmA, {"drift_confidence": 0.0}),
        (HddmW, {"lambda_val": math.nan}),
        (PageHinkley, {"threshold": 0.0}),
        (PageHinkley, {"threshold": math.nan}),
        (PageHinkley, {"alpha": 1.5}),
        (PageHinkley, {"delta": -1.0}),
    ],
)
def test_senseless_parameters_are_refused(kind: type[Any], params: dict[str, float]) -> None:
    """A detector that could never fire, or always would, is not made."""
    with pytest.raises(ValueError, match=next(iter(params))):
        kind(**params)


@pytest.mark.parametrize("name", PROMPT)
def test_a_regression_is_watched_in_its_own_unit(name: str) -> None:
    """Absolute errors of any size are scaled by the baseline, and a rise comes back in the target's unit."""
    rng = random.Random(4)
    scaling = Scaling.from_baseline(mae=250.0)
    detector = ScaledDetector(ready(name, 0.25), scaling)
    stream = [rng.expovariate(1 / 250) for _ in range(3000)] + [rng.expovariate(1 / 600) for _ in range(2000)]
    found = detector.update_many(stream)
    assert len(found) == 1
    assert 3000 < found[0].index < 3600
    assert found[0].before == pytest.approx(245, rel=0.1)
    assert found[0].after > 400
    assert detector.structure == f"{ready(name).structure} scale=1000.0"
    before = detector.snapshot()
    for bad in (math.nan, math.inf, -1.0):
        with pytest.raises(InvalidValue):
            detector.update_many([1.0, bad])
    assert detector.snapshot() == before
    detector.update_many([1e308])
    assert detector.count == len(stream) + 1

    restored = ScaledDetector(ready(name), scaling)
    restored.restore(detector.snapshot())
    assert restored.snapshot() == detector.snapshot()
    for other in (ScaledDetector(ready(name), Scaling(999.0)), ready(name)):
        with pytest.raises(SnapshotError):
            other.restore(detector.snapshot())


def test_a_scale_maps_to_the_unit_interval() -> None:
    """|error| / scale, clipped; a baseline without errors makes every error a full one."""
    assert Scaling(2.0).apply([-1.0, 0.0, 2.0, 1e308]).tolist() == [0.5, 0.0, 1.0, 1.0]
    assert Scaling.from_baseline(0.0).apply([0.0, 1e-9, 5.0]).tolist() == [0.0, 1.0, 1.0]
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="scale"):
            Scaling(scale)
