"""The acceptable level learns from the stream, but never from a drift."""

from dataclasses import replace

import numpy as np
import pytest

from detectors.acceptable import LAG, LONGEST_SWING, AcceptableLevel, Allowance
from detectors.reference import CHANCE_Z, PARTS, WINDOW, Reference

REFERENCE = Reference.of_rate(5000, 0.1)


def level_of(reference: Reference = REFERENCE) -> AcceptableLevel:
    return AcceptableLevel.of(reference, Allowance(margin=0.75, unseen=0.0, wander=4.0, chance_z=CHANCE_Z))


def window_of(rate: float) -> tuple[float, float]:
    """Total and fine squares of a window without any chance in it."""
    total = rate * WINDOW
    return total, PARTS * (total / PARTS) ** 2


def feed(level: AcceptableLevel, rate: float, windows: int, calm: bool = True, since_detection: bool = True) -> None:
    for _ in range(windows):
        level.close(*window_of(rate), calm, since_detection)


def test_the_level_covers_the_uncertainty_of_the_reference() -> None:
    """Three quarters of a standard error above the estimate, with nothing else to cover."""
    assert level_of().level == pytest.approx(0.1 + 0.75 * np.sqrt(0.09 / 5000), abs=2e-4)


def test_more_errors_make_it_narrower() -> None:
    """The stream confirms the reference, so the level comes closer to the rate."""
    level = level_of()
    feed(level, 0.1, 200)
    assert level.level == pytest.approx(0.1 + 0.75 * np.sqrt(0.09 / 103_000), abs=2e-4)


def test_a_reference_that_was_low_is_put_right() -> None:
    """One standard error low, it is mended by what comes."""
    se = np.sqrt(0.09 / 5000)
    level = level_of(Reference.of_rate(5000, 0.1 - se))
    feed(level, 0.1, 100)
    assert level.level > 0.1


def test_a_slow_drift_moves_it_no_further_than_the_reference_is_uncertain() -> None:
    """However long a higher rate lasts unseen, the level follows by three standard errors at most."""
    level = level_of()
    feed(level, 0.12, 2000)
    se = np.sqrt(0.09 / 5000)
    assert level.state.known.rate == pytest.approx(0.12, abs=0.001)
    assert level.level < 0.1 + 3.75 * se


def test_the_newest_windows_are_not_learnt_yet() -> None:
    """A drift of 2,000 errors that is still to be found is in none of the estimates."""
    level = level_of()
    before = level.level
    feed(level, 0.3, LAG)
    assert level.level == before
    assert level.state.known == REFERENCE


def test_nothing_is_learnt_while_the_statistic_is_high() -> None:
    """What may be the beginning of a drift waits, and is learnt once the statistic has calmed down."""
    level = level_of()
    feed(level, 0.12, 10, calm=False)
    assert level.state.known == REFERENCE
    feed(level, 0.1, 1, calm=True)
    assert level.state.known.windows == REFERENCE.windows + 11 - LAG


def test_a_drift_that_lasts_is_forgotten() -> None:
    """After 20 windows of a drift the return to normal leaves the level as it was."""
    level = level_of()
    level.detected(100, 30.0)
    feed(level, 0.3, LONGEST_SWING + 5)
    assert level.drifted
    feed(level, 0.1, 2)
    assert not level.drifted
    feed(level, 0.1, LAG)
    assert level.state.known.rate == pytest.approx(0.1, abs=0.001)
    assert level.level < 0.11


def test_a_swing_that_came_back_is_learnt_as_one() -> None:
    """Excursions of 3,000 errors that end by themselves widen the level the more, the more of them there are."""
    level = level_of()
    levels = [level.usual]
    for _ in range(6):
        level.detected(100, 13.0)
        feed(level, 0.15, 6)
        feed(level, 0.1, LAG + 4)
        assert not level.drifted
        levels.append(level.usual)
    assert levels[1] < 0.125, "a drift that was mended must not hide the next one of the kind"
    assert max(levels[3:]) > 0.13


def test_while_a_drift_lasts_only_worse_counts() -> None:
    """The level is the reported rate with its uncertainty, ever closer, until the rate is back."""
    level = level_of()
    level.detected(100, 30.0)
    assert 0.4 < level.level < 0.5
    feed(level, 0.3, 1, since_detection=False)
    assert 0.4 < level.level < 0.5, "a window with errors from before the detection says nothing of the drift"
    feed(level, 0.3, 10)
    assert 0.3 < level.level < 0.33
    feed(level, 0.1, 1)
    assert level.drifted, "one window is too few to be back"
    feed(level, 0.1, 1)
    assert not level.drifted
    assert level.level == level.usual


def test_a_drift_that_eases_lowers_what_is_reported() -> None:
    """From .9 to .3 is better but not over; back to .9 would be worse again."""
    level = level_of()
    level.detected(100, 90.0)
    feed(level, 0.9, 30)
    assert level.level > 0.9
    feed(level, 0.3, 10)
    assert level.drifted
    assert 0.3 < level.level < 0.35


def test_an_improvement_is_not_learnt() -> None:
    """Far better windows are no wander: a return to the reference's rate is acceptable, more is not."""
    level = level_of()
    before = level.level
    feed(level, 0.02, 50)
    assert level.level == before


def test_one_terrible_window_is_clipped() -> None:
    """A window of nothing but errors counts as four standard deviations, or it would blind the detector."""
    level = level_of()
    level.detected(500, 500.0)
    feed(level, 1.0, 1)
    feed(level, 0.1, LAG + 2)
    assert not level.drifted
    assert level.usual < 0.16


def test_a_longer_run_length_allows_for_more_that_is_not_seen() -> None:
    """From 100,000 errors on up to 1,000,000; how far a rate may move grows on."""
    close, tenfold, far = (Allowance.of(run_length) for run_length in (100_000.0, 1_000_000.0, 10_000_000.0))
    assert Allowance.of(1_000.0).unseen == close.unseen == 0.0
    assert close.chance_z == pytest.approx(CHANCE_Z)
    assert (tenfold.margin, tenfold.unseen, tenfold.chance_z) == (far.margin, far.unseen, far.chance_z)
    assert tenfold.unseen == close.margin == tenfold.margin
    assert tenfold.chance_z < close.chance_z
    assert close.wander < tenfold.wander < far.wander


def test_what_a_shorter_run_length_puts_down_to_chance_may_raise_a_longer_ones_level() -> None:
    """Ten windows that differ by a little more than independent ones: chance in one of thirty references."""
    rng = np.random.default_rng(5)
    for _ in range(1_000):
        reference = Reference.of_errors((rng.random(5_000) < 0.02).astype(np.float64))
        if reference.spread.wander == 0.0 and reference.spread_beyond(Allowance.of(1e6).chance_z).wander > 0.0:
            break
    else:
        pytest.fail("no reference lies between the two")
    close, longer = (AcceptableLevel.of(reference, Allowance.of(run_length)) for run_length in (1e5, 1e6))
    assert longer.usual > close.usual + Allowance.of(1e6).unseen * reference.spread.independent_error


def test_what_was_seen_to_move_is_not_allowed_for_twice() -> None:
    """Errors of 33 times the variance of independent ones: what a longer run length allows besides is of those."""
    n, rate = 5_000, 0.28
    independent = (rate * (1.0 - rate) / n) ** 0.5
    bursts = Reference.of_rate(n, rate, independent * 33**0.5)
    longer = Allowance.of(1e6)
    seen = replace(longer, unseen=0.0, chance_z=CHANCE_Z)
    usual, all_seen = (AcceptableLevel.of(bursts, each).usual for each in (longer, seen))
    assert 0.0 < usual - all_seen < 0.1 * (all_seen - rate)
