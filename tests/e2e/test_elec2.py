"""The closed loop on a real stream: Elec2 through Kafka, Redis, ONNX Runtime and back.

Elec2 (Harries 1999): 45,312 half hours of the electricity market of New South Wales; the class says whether the price
is above its average of the day before. A drifting stream: a model of its first 5,000 rows decays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.engine import LoadedModel
from serving.repository import Repository
from streams.audit_log import audit
from streams.codec import model_event_decoder
from tests.support.driftline import Driftline, Process, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

MODEL = "price"
TRAINING_ROWS = 5_000
RATE = 300
DELAY_ROWS = 48
PLAY_BOUND_S = 600.0
RETRAIN: dict[str, str | int | float] = {
    "minimum_rows": 1_000,
    "algorithms": '["random_forest"]',
    "recent_rows": "[1000, 4000]",
    "rollback_cooldown_s": 2,
    "labels": 1_000,
    "cooldown_s": 3,
}
"""A second has six days of Elec2, and while a run trains for some seconds a month of prices goes by: so it weighs few
choices, by one algorithm. The classes come in runs, so ADWIN alarms often and dates a change to the last few hundred
rows: 500 rows are learnt by heart, and a challenger that wins on their newest 150 is good at the last hours only.

The first version is of boosted trees. A forest of the same rows, which `driftline train` would choose, is right in .744
of the stream if it is left alone; at this speed the loop made .741 of it, and .720 and .741 with all choices of rows.

The pause after a rollback is 600 rows. With six hours of it, made for days of labels, one bad promotion on a busy
machine, rolled back at once, was the last run of the stream: 0.695. Runs by labels come each 1,000 rows, as a clock
would have it: with a pause of a minute, 18,000 rows, what came of an alert by chance served for half of the stream, and
three runs made 0.700 to 0.702.
"""


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    with Driftline(kafka_broker, redis_store, deployment, tmp_path) as made:
        yield made


def static_accuracy(driftline: Driftline, rows: pd.DataFrame) -> float:
    """What the first version would have achieved on rows whose last column is the class."""
    repository = Repository(driftline.settings.repository)
    first = LoadedModel(repository.load(MODEL, 1), repository.manifest(MODEL, 1))
    said = first.predict(rows.iloc[:, :-1].to_numpy(np.float32)).predictions
    return float(np.mean(np.asarray(said) == rows.iloc[:, -1].to_numpy()))


def ends(process: Process) -> dict[str, Any]:
    """The report of a `driftline publish --json` that has ended."""
    assert process.wait(PLAY_BOUND_S) == 0, process.tail()
    found: dict[str, Any] = json.loads(process.out.read_text())
    return found


def test_the_loop_beats_the_static_champion(driftline: Driftline, driftline_data: Path) -> None:
    """300 rows a second, outcomes 48 rows late, two workers: conserved, promoted, and better than never retraining."""
    file = driftline_data / "elec2.csv.gz"
    rows = pd.read_csv(file)[TRAINING_ROWS:]
    driftline.create_topics()
    first = ("--model", MODEL, "--rows", str(TRAINING_ROWS), "--algorithm", "xgboost")
    driftline.run("train", str(file), *first)
    workers = [driftline.daemon("worker"), driftline.daemon("worker")]
    careful = {f"retrain__{name}": value for name, value in RETRAIN.items()}
    loop = [driftline.daemon("retrain", **careful), driftline.daemon("serve")]
    for process in (*workers, *loop):
        process.started()
    arguments = ("--skip-rows", str(TRAINING_ROWS), "--rate", str(RATE), "--delay-rows", str(DELAY_ROWS), "--json")
    report = ends(driftline.start("publish", str(file), "--url", loop[1].url, *arguments))
    assert (report["rows"], report["outcomes"], report["errors"]) == (len(rows), len(rows), 0)

    eventually(lambda: driftline.stored_counters().joined == len(rows), "every pair is joined")
    law = audit(driftline.settings, follow_to_end=True)
    assert law.violations == []
    assert law.conserved
    assert law.totals.counters.predictions == law.totals.counters.joined == len(rows)
    assert len({pair[:2] for pair in driftline.pairs()}) == len(rows)

    events = [
        model_event_decoder().decode_any(r.value, r.headers) for r in driftline.read(driftline.topics.model_events)
    ]
    promoted = [event.version for event in events if event.kind == "promoted"]
    assert promoted, [(event.kind, event.reason) for event in events]
    assert set(promoted) & report["versions"].keys(), "a promoted version has served"
    static = static_accuracy(driftline, rows)
    assert report["accuracy"] > static, (report, [(event.kind, event.version, event.reason) for event in events])
    for process in (*workers, *loop):
        assert process.terminate() == 0, process.tail()
