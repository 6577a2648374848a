"""Outcomes and errors by second, as the cuts let them take effect."""

from __future__ import annotations

import msgspec
import numpy as np

from streams.monitor import decode_checkpoint
from streams.replay.outcomes import ModelOutcomes, Outcomes
from streams.replay.run import CheckpointRead, Read, SummaryRead
from tests.unit.streams.monitor_log import START_S, Pair, record


def reads(pairs: list[Pair], *, repeated: bool = False) -> list[Read]:
    """The records of a join that saw these pairs."""
    log = record(pairs, seed=3)
    summaries = log.summaries + (log.summaries if repeated else [])
    found: list[Read] = [SummaryRead(0, offset, value) for offset, value in enumerate(summaries)]
    for partition, values in enumerate(log.checkpoints):
        found += [CheckpointRead(partition, n, decode_checkpoint(partition, n, v)) for n, v in enumerate(values)]
    return found


PAIRS = [Pair(START_S + n // 3, error=float(n % 7 == 0)) for n in range(3_000)]
PRICES = [Pair(START_S + n, "price", error=(-1.0) ** n * 2.5, regression=True) for n in range(100)]


def test_counts_are_those_of_the_pairs() -> None:
    """By second, over versions and partitions; a summary that comes twice counts once."""
    outcomes = Outcomes(2)
    outcomes.take(reads(PAIRS + PRICES, repeated=True))
    loan, price = outcomes.models["loan"], outcomes.models["price"]
    assert (loan.regression, price.regression) == (False, True)
    seconds = loan.fold()
    assert seconds.between(0, START_S + 10**6) == (3_000, sum(pair.error for pair in PAIRS))
    early = [pair for pair in PAIRS if pair.second < START_S + 100]
    assert seconds.between(START_S, START_S + 100) == (len(early), sum(pair.error for pair in early))
    assert price.fold().between(START_S, START_S + 10) == (10, 25.0)


def test_bins_add_up() -> None:
    """Every outcome is in one."""
    outcomes = Outcomes(2)
    outcomes.take(reads(PAIRS))
    counts, errors = outcomes.models["loan"].fold().binned(np.array([START_S, START_S + 5, START_S + 2_000]))
    assert counts.tolist() == [15, 2_985]
    assert errors.tolist() == [3.0, sum(pair.error for pair in PAIRS) - 3]


def test_one_model_alone_hears_of_the_others() -> None:
    """Their names are known, for whoever asked for one that is not there."""
    outcomes = Outcomes(2, only="price")
    outcomes.take([each for each in reads(PAIRS + PRICES) if not isinstance(each, SummaryRead) or is_price(each)])
    assert set(outcomes.models) == {"price"}
    assert outcomes.heard == {"loan", "price"}


def is_price(read: SummaryRead) -> bool:
    return bool(msgspec.msgpack.decode(read.value or b"")["model"] == "price")


def test_folding_on_the_way_changes_nothing() -> None:
    """Many small additions are put together now and then."""
    model, rng = ModelOutcomes(), np.random.default_rng(2)
    seconds = rng.integers(0, 50, 2_000)
    for at in range(2_000):
        model.add(seconds[at : at + 1], np.ones(1))
    counted = np.bincount(seconds, minlength=50)
    folded = model.fold()
    assert folded.outcomes.tolist() == counted[counted > 0].tolist()
    assert folded.errors.tolist() == counted[counted > 0].tolist()
