"""Which rows challengers are trained and tested on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrain.sources import MINIMUM_BLOCK, Source, blocks, sources


def test_without_a_change_there_are_the_newest_rows_and_all() -> None:
    """Each size that there are more rows of, and all of them."""
    assert sources(3_000, None, [1_000, 2_000, 4_000]) == [
        Source("the newest 1,000", 2_000, 2_000),
        Source("the newest 2,000", 1_000, 1_000),
        Source("all", 0, 0),
    ]


def test_a_change_adds_the_rows_since_and_those_widened() -> None:
    """A change that lies where newest rows begin is not weighed twice; one at either end is none."""
    names = [each.name for each in sources(3_000, 2_000, [1_000, 2_000])]
    assert names == ["since the change", "widened", "the newest 2,000", "all"]
    assert [each.name for each in sources(3_000, 0, [])] == ["all"]
    assert [each.name for each in sources(3_000, 3_000, [])] == ["all"]


def test_older_rows_weigh_half_of_the_newer_ones_together() -> None:
    """However many they are; never more than a newer row each."""
    weights = Source("widened", 0, 900).weights(1_000)
    assert weights is not None
    assert (weights[900:] == 1.0).all()
    assert weights[:900].sum() == pytest.approx(50.0)
    few = Source("widened", 0, 10).weights(1_000)
    assert few is not None
    assert (few == 1.0).all()
    assert Source("all", 0, 0).weights(1_000) is None
    assert Source("widened", 0, 900).weights(900) is None


@settings(deadline=None)  # a busy machine is no error
@given(st.integers(0, 5_000), st.integers(0, 5_000), st.floats(0.01, 0.99), st.integers(1, 6))
def test_blocks_are_the_newest_rows_without_gaps(start: int, rows: int, share: float, count: int) -> None:
    """Contiguous to the end, the asked share of the rows, no more of them than asked, none tiny beside others."""
    end = start + rows
    found = blocks(start, end, share, count)
    if not found:
        assert round(rows * share) in (0, end)
        return
    assert found[-1][1] == end
    assert [stop for _, stop in found[:-1]] == [begin for begin, _ in found[1:]]
    assert end - found[0][0] == round(rows * share)
    assert 1 <= len(found) <= count
    lengths = np.asarray([stop - begin for begin, stop in found])
    assert len(found) == 1 or lengths.min() >= MINIMUM_BLOCK
    left = np.cumsum(lengths[::-1])[::-1]
    assert (lengths[:-1] == left[:-1] - left[:-1] // 2).all()
