"""Three classes, a regression, and two models on the same topics: one path, windows as an oracle counts them, alerts.

Each table's predictions are wrong more often from row 3,000 on; `driftline publish` plays it without a server.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from streams.audit_log import audit
from streams.events import Alert, ModelState
from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

ROWS = 6_000
DRIFT_ROW = 3_000
CLASSES = ["cheap", "fair", "dear"]
STATES = (
    ModelState("iris", 1, "multiclass", list(CLASSES), aliases={"champion": "1"}, mode="observe"),
    ModelState("houses", 1, "regression", aliases={"champion": "1"}, mode="observe"),
)


@pytest.fixture
def driftline(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> Iterator[Driftline]:
    with Driftline(kafka_broker, redis_store, deployment, tmp_path, monitor__baseline_outcomes=500) as made:
        yield made


def classes(rng: random.Random) -> pd.DataFrame:
    """A model of three classes that confuses them, and more so from the drift on."""
    truth = [rng.choice(CLASSES) for _ in range(ROWS)]
    said = [
        rng.choice([c for c in CLASSES if c != true]) if rng.random() < (0.5 if i >= DRIFT_ROW else 0.06) else true
        for i, true in enumerate(truth)
    ]
    return pd.DataFrame({"length": [rng.random() for _ in truth], "said": said, "truth": truth})


def numbers(rng: random.Random) -> pd.DataFrame:
    """A regression whose errors become three times as large."""
    truth = [round(rng.uniform(50.0, 150.0), 3) for _ in range(ROWS)]
    said = [round(true + rng.gauss(0.0, 6.0 if i >= DRIFT_ROW else 2.0), 3) + 0.0005 for i, true in enumerate(truth)]
    return pd.DataFrame({"area": [rng.random() for _ in truth], "said": said, "truth": truth})


def publish(driftline: Driftline, model: str, table: pd.DataFrame) -> None:
    """Play a table over several seconds."""
    file = driftline.folder / f"{model}.csv"
    table.to_csv(file, index=False)
    columns = ("--prediction-column", "said", "--label", "truth")
    driftline.start("publish", str(file), "--model", model, *columns, "--rate", "400", "--delay-rows", "20")


def window(driftline: Driftline, model: str) -> dict[str, Any]:
    """The last hour of the model's only version."""
    report = driftline.status().get(model)
    if report is None or len(report["versions"]) != 1:
        return {"n": 0}
    found: dict[str, Any] = report["versions"][0]["windows"]["1h"]
    return found


def test_every_kind_of_model_takes_the_same_path(driftline: Driftline) -> None:
    """Accuracy, precision, recall, F1, MAE and RMSE are what the table says, and each model's drift is alerted."""
    rng = random.Random(3)
    tables = {"iris": classes(rng), "houses": numbers(rng)}
    driftline.create_topics()
    for state in STATES:
        driftline.announce(state)
    workers = [driftline.worker(), driftline.worker()]
    for model, table in tables.items():
        publish(driftline, model, table)
    eventually(lambda: driftline.stored_counters().joined == 2 * ROWS, "every pair is joined", bound_s=240)
    eventually(lambda: all(window(driftline, model)["n"] == ROWS for model in tables), "the windows have them", 240)

    iris, houses = tables["iris"], tables["houses"]
    seen = window(driftline, "iris")
    assert seen["accuracy"] == pytest.approx((iris.said == iris.truth).mean())
    per_class = [scores(iris, name) for name in CLASSES]
    for number, measure in enumerate(("precision", "recall", "f1")):
        assert seen[measure] == pytest.approx(sum(score[number] for score in per_class) / 3), measure
    errors = houses.said - houses.truth
    seen = window(driftline, "houses")
    assert seen["mae"] == pytest.approx(errors.abs().mean())
    assert seen["rmse"] == pytest.approx((errors**2).mean() ** 0.5)
    assert seen["bias"] == pytest.approx(errors.mean(), abs=1e-9)

    def drifted() -> dict[str, Alert]:
        alerts = [a for a in driftline.alerts().values() if a.labels["alertname"] == "ConceptDriftDetected"]
        return {alert.labels["model"]: alert for alert in alerts if alert.status == "firing"}

    eventually(lambda: drifted().keys() == tables.keys(), "both drifts are alerted", 240)
    for model, alert in drifted().items():
        assert alert.drift is not None
        assert alert.drift.metric == ("mae" if model == "houses" else "accuracy")
        assert (alert.drift.after or 0) > (alert.drift.before or 0)
        assert (alert.drift.outcomes_seen or 0) > DRIFT_ROW - 500
    report = audit(driftline.settings, follow_to_end=True)
    assert report.violations == []
    assert report.conserved
    for worker in workers:
        assert worker.terminate() == 0, worker.tail()


def scores(table: pd.DataFrame, name: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of one class against the rest."""
    hits = float(((table.said == name) & (table.truth == name)).sum())
    precision, recall = hits / float((table.said == name).sum()), hits / float((table.truth == name).sum())
    return precision, recall, 2 * precision * recall / (precision + recall)
