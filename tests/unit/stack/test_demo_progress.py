"""What the demo shows of its run: every event at the row at which it happened."""

from __future__ import annotations

from stack.demo import Progress, Scenario


def test_an_event_stands_at_the_row_of_its_publication() -> None:
    """Not at that of its reading: a version would seem to be promoted after it served its first row."""
    progress = Progress(Scenario(), served_ms=[1_000.2, 1_004.7, 1_009.1])
    assert [progress.row_at(at_ms) for at_ms in (900, 1_001, 1_009, 1_010)] == [0, 1, 2, 3]
