"""What people say counts as what systems say, from the event through the join into the training rows."""

from __future__ import annotations

import msgspec
import pytest

from retrain.dataset import References, gather
from streams.codec import full_prediction_decoder
from streams.events import Outcome, Prediction
from streams.records import EffectSettings, Labelled
from tests.support.model_join import Declared, Logged
from tests.support.partition import Driver, catalog_of
from tests.unit.retrain.rows import PROBLEM, MemoryLog

HOUR_MS = 3_600_000


def logged(offset: int, at_ms: int, event: Prediction | Outcome, **more: object) -> Logged:
    """A record of an input as its producer wrote it."""
    plain = {**msgspec.to_builtins(event), **more}
    return Logged(offset, at_ms, event, msgspec.json.encode(plain))


def test_outcomes_of_people_are_trained_on_and_correct_those_of_systems() -> None:
    """One prediction is labelled by a person alone, one by a system, one by a system whom a person corrected later."""
    features = {"a": 0.1, "b": 0.2, "c": 0.3}
    predictions = [
        logged(i, 1_000 + i, Prediction(f"p{i}", "loans", "1", 0), features={**features, "a": i / 10}) for i in range(3)
    ]
    said = [
        Outcome("p0", 1, source="human"),
        Outcome("p1", 0, source="system"),
        Outcome("p2", 0, source="system"),
        Outcome("p2", 1, source="human"),
    ]
    outcomes = [logged(i, 2_000 + i, event) for i, event in enumerate(said)]
    driver = Driver(
        (predictions, outcomes),
        EffectSettings(HOUR_MS, HOUR_MS, 1_000, 1_000, 1_000),
        catalog_of({"loans": Declared("binary", (0, 1))}),
    )
    for side in (0, 1):
        driver.accept(side, 4)
        driver.part.timeline.idle(side, 3_000)
    driver.advance()
    closed = driver.close()
    references = References("loans", None, 1_000)
    for record in closed.labelled:
        references.add(msgspec.msgpack.decode(record, type=Labelled))
    log = MemoryLog()
    decoder = full_prediction_decoder()
    log.partitions[0] = [decoder.decode_any(each.value, ()) for each in predictions]
    rows = gather(references.newest(), PROBLEM, log.predictions)
    assert rows.features[:, 0].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert rows.target.tolist() == [1.0, 0.0, 1.0]
    assert rows.dropped == {}
