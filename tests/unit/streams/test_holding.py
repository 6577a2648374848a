"""Which inputs are held back while a worker catches up."""

from streams.holding import MAX_HELD, Progress, to_hold

SKEW_MS = 60_000


def held(*inputs: Progress) -> set[tuple[int, int]]:
    """(partition, side) of those held back."""
    return {(each.partition, each.side) for each in to_hold(inputs, SKEW_MS)}


def test_an_input_far_ahead_of_the_slowest_is_held() -> None:
    """Of any partition: memory and the watermark wait for the slowest of all."""
    slow, near, far = Progress(0, 0, 1_000, True, 0), Progress(1, 0, 61_000, True, 0), Progress(1, 1, 61_001, True, 0)
    assert held(slow, near, far) == {(1, 1)}


def test_an_input_read_to_its_end_keeps_nobody_waiting() -> None:
    """However old its newest record is."""
    assert held(Progress(0, 0, 1_000, False, 0), Progress(0, 1, 900_000, True, 0)) == set()
    assert held(Progress(0, 0, 1_000, False, 0), Progress(0, 1, 900_000, False, 0)) == set()


def test_too_many_waiting_records_hold_the_leading_input_of_their_own_partition() -> None:
    """Its partner is what they wait for, and other partitions have nothing to do with it."""
    crowded = Progress(0, 0, 5_000, True, MAX_HELD + 1), Progress(0, 1, 9_000, True, MAX_HELD + 1)
    roomy = Progress(1, 0, 4_000, True, MAX_HELD), Progress(1, 1, 9_000, True, MAX_HELD)
    assert held(*crowded, *roomy) == {(0, 1)}


def test_records_that_wait_for_an_idle_partner_hold_their_input() -> None:
    """They would gather without bound until the partner's clock is known."""
    assert held(Progress(0, 0, 0, False, MAX_HELD + 1), Progress(0, 1, 9_000, True, MAX_HELD + 1)) == {(0, 1)}


def test_inputs_that_are_level_are_never_both_held() -> None:
    """Nothing would move any more."""
    assert held(Progress(0, 0, 9_000, True, MAX_HELD + 1), Progress(0, 1, 9_000, True, MAX_HELD + 1)) == set()
