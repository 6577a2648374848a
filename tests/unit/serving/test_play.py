"""Playing a table: order, delays, bad rows, a server that goes away and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from serving.client import Answer, ServeClient
from serving.play import ColumnOracle, OutcomePublisher, Pace, Played, Player, ServeOracle
from serving.publish import as_predicted, check_fits
from serving.repository import Repository
from serving.table import Columns, Row, choose_columns, read_table, rows
from streams.codec import full_prediction_decoder, outcome_decoder
from streams.errors import MissingInput, Unavailable, WrongSetting
from tests.unit.serving import models
from tests.unit.serving.conftest import Running
from tests.unit.serving.fakes import RecordingSender
from tests.unit.serving.waiting import eventually

Start = Callable[..., Running]


def table_rows(count: int) -> list[Row]:
    """Rows whose own predictions are right, except every fourth one's."""
    return [Row(i, {"x": float(i)}, int(i % 4 == 0), 0, 0.5) for i in range(count)]


@pytest.fixture
def sender() -> Iterator[RecordingSender]:
    made = RecordingSender()
    yield made
    made.close()


def nothing(_: Played) -> None:
    """The callback of a test that does not watch."""


def player(
    sender: RecordingSender,
    pace: Pace,
    on_prediction: Callable[[Played], None] = nothing,
    on_outcome: Callable[[Played], None] = nothing,
) -> Player:
    """A player of the table's own predictions."""
    oracle = ColumnOracle(sender, "predictions", "loan", "3")
    outcomes = OutcomePublisher(sender, "outcomes", "loan", [0, 1])
    return Player("loan", oracle, outcomes, pace, run="run", on_prediction=on_prediction, on_outcome=on_outcome)


def order(sender: RecordingSender) -> list[tuple[str, int]]:
    """What was sent: topic and row number, in order."""
    return [(sent.topic, int((sent.key or b"").rpartition(b"-")[2])) for sent in sender.sent]


def test_an_outcome_follows_after_so_many_rows(sender: RecordingSender) -> None:
    """With a delay of 3 rows, an outcome comes when the third further row was predicted; the last ones at the end."""
    report = player(sender, Pace(chunk=1, delay_rows=3)).play(table_rows(6))
    p, o = "predictions", "outcomes"
    assert order(sender) == [
        *[(p, 0), (p, 1), (p, 2), (p, 3), (o, 0), (p, 4), (o, 1), (p, 5), (o, 2)],
        *[(o, 3), (o, 4), (o, 5)],
    ]
    assert (report.rows, report.outcomes, report.versions) == (6, 6, {"3": 6})


@pytest.mark.parametrize("pace", [Pace(chunk=7), Pace(rate=5_000.0, chunk=50), Pace(chunk=10, delay_s=0.05)])
def test_every_row_gets_one_prediction_and_one_outcome(sender: RecordingSender, pace: Pace) -> None:
    """At any pace: each row once on each topic, in order, the prediction first; accuracy is the rows' own."""
    seen: list[int] = []
    followed: list[int] = []
    report = player(
        sender,
        pace,
        on_prediction=lambda played: seen.append(played.row.number),
        on_outcome=lambda played: followed.append(played.row.number),
    ).play(iter(table_rows(200)))
    sent = order(sender)
    for topic in ("predictions", "outcomes"):
        assert [row for name, row in sent if name == topic] == list(range(200))
    assert all(sent.index(("predictions", i)) < sent.index(("outcomes", i)) for i in range(200))
    assert seen == followed == list(range(200))
    assert report.accuracy == 150 / 200


def test_what_is_published_decodes(sender: RecordingSender) -> None:
    """Predictions and outcomes are the events of the contract, under the same key."""
    player(sender, Pace()).play(table_rows(1))
    prediction, outcome = sender.sent
    said = full_prediction_decoder().decode_any(prediction.value, prediction.headers)
    true = outcome_decoder().decode_any(outcome.value, outcome.headers)
    assert (said.model, said.version, said.prediction, said.score, said.features) == ("loan", "3", 0, 0.5, {"x": 0.0})
    assert (true.model, true.outcome, true.source) == ("loan", 1, "system")
    assert prediction.key == outcome.key == b"run-0" == said.prediction_id.encode() == true.prediction_id.encode()


def test_a_row_without_label_has_no_outcome(sender: RecordingSender) -> None:
    """It is predicted and counted apart."""
    played = [Row(0, {"x": 1.0}, None, 1), Row(1, {"x": 1.0}, 1, 1)]
    report = player(sender, Pace()).play(played)
    assert (report.rows, report.outcomes, report.unlabelled, report.accuracy) == (2, 1, 1, 1.0)


def test_a_bad_row_takes_no_neighbour_with_it(sender: RecordingSender) -> None:
    """A row that is refused is counted and told; the others of its chunk are played."""
    played = [Row(i, {"x": 1.0}, 1, None if i == 3 else 1) for i in range(10)]
    report = player(sender, Pace(chunk=10, delay_rows=2)).play(played)
    assert (report.rows, report.outcomes, report.errors) == (9, 9, 1)
    assert report.first_error == "row 3: row 3 has no prediction"


def test_stop_ends_with_every_outcome_published(sender: RecordingSender) -> None:
    """A stop in the middle: no further rows, and no prediction of ours stays without its outcome."""
    playing = player(sender, Pace(rate=2_000.0, chunk=10, delay_rows=50, delay_s=60.0))
    thread = threading.Thread(target=playing.play, args=(table_rows(1_000_000),))
    thread.start()
    eventually(lambda: len(sender.sent) > 100, "it plays")
    playing.stop()
    thread.join()
    assert [row for name, row in order(sender) if name == "predictions"] == [
        row for name, row in order(sender) if name == "outcomes"
    ]


def test_regression_reports_the_mean_absolute_error(sender: RecordingSender) -> None:
    """Numbers have no accuracy."""
    oracle = ColumnOracle(sender, "predictions", "price", "1")
    played = [Row(0, {}, 1.5, 1.0), Row(1, {}, 1.0, 2.0)]
    report = Player("price", oracle, OutcomePublisher(sender, "outcomes", "price"), Pace(), regression=True).play(
        played
    )
    assert (report.accuracy, report.mae) == (None, 0.75)


def test_labels_become_the_models_classes(sender: RecordingSender) -> None:
    """A file's 1.0 is the class 1, and its 1 the class "1"; an unknown label stays what it is."""
    numbers = OutcomePublisher(sender, "outcomes", "loan", [0, 1])
    texts = OutcomePublisher(sender, "outcomes", "loan", ["0", "1"])
    assert [type(numbers.as_class(label)) for label in (1.0, True, 1)] == [int, int, int]
    assert (texts.as_class(1), numbers.as_class("1"), numbers.as_class("x")) == ("1", 1, "x")


def test_a_busy_server_is_asked_again(repository: Repository, start: Start, sender: RecordingSender) -> None:
    """The client waits for a server that is full, and repeats nothing under another id."""
    made = models.binary()
    models.serve_first(repository, "loan", made)
    running = start(max_in_flight=50)
    running.sender.hold(True)
    asked = 0

    class Watched(ServeOracle):
        def ask(self, rows: Sequence[Row], ids: Sequence[str]) -> list[Answer]:
            nonlocal asked
            asked += 1
            if asked == 3:  # Kafka is away, the bound is reached: it comes back while we are waiting
                threading.Timer(0.5, running.sender.hold, (False,)).start()
            return super().ask(rows, ids)

    client = ServeClient(running.url)
    names = models.FEATURES
    played = [
        Row(i, dict(zip(names, map(float, row), strict=True)), str(label))
        for i, (row, label) in enumerate(zip(made.rows, made.native.predict(made.rows), strict=True))
    ]
    model = client.model()
    outcomes = OutcomePublisher(sender, "outcomes", "loan")
    report = Player(model.name, Watched(client, model), outcomes, Pace(chunk=25), run="r").play(played[:200])
    client.close()
    assert (report.rows, report.accuracy, report.errors) == (200, 1.0, 0)
    eventually(lambda: len(running.sender.sent) == 200, "each is published once")
    assert {sent.key for sent in running.sender.sent} == {f"r-{i}".encode() for i in range(200)}


def test_a_server_that_is_not_there_is_told(repository: Repository, start: Start) -> None:
    """No server, no model, several models: what to do, in one line."""
    empty = start()
    with pytest.raises(MissingInput, match="serves 0 models"):
        ServeClient(empty.url).model()
    models.serve_first(repository, "one", models.binary())
    models.serve_first(repository, "two", models.regression())
    two = start()
    with pytest.raises(MissingInput, match="serves 2 models: one, two"):
        ServeClient(two.url).model()
    with pytest.raises(MissingInput, match="no model 'three'"):
        ServeClient(two.url).model("three")
    with pytest.raises(Unavailable, match="no inference server answers"):
        ServeClient("http://127.0.0.1:9").model()
    for url in ("127.0.0.1:80", "http://host:port", "ftp://host", "http://"):
        with pytest.raises(WrongSetting, match="is not the URL"):
            ServeClient(url)
    with pytest.raises(Unavailable, match="does not answer"):
        client = ServeClient("http://127.0.0.1:9", patience_s=0.1)
        client.ask(ServeClient(two.url).model("one"), [dict.fromkeys(models.FEATURES, 1.0)], ["a"])


def test_categories_travel_as_text(repository: Repository, start: Start, sender: RecordingSender) -> None:
    """A text column of a feature with categories is asked as text, coded by the server, and published as text."""
    made = models.multiclass()
    features = [*made.signature.features[:2], models.categorical("debt", ["none", "some"])]
    version = repository.reserve_version("three")
    signature = models.with_features(made.signature, features)
    repository.write_version("three", version, made.onnx, made.manifest("three", 1, signature=signature), "")
    repository.create_state("three", models.state("three", made, 1))
    running = start()
    client = ServeClient(running.url)
    model = client.model()
    played = [
        Row(0, {"income": 1.0, "age": 2.0, "debt": "some"}, 2),
        Row(1, {"income": 1.0, "age": 2.0, "debt": "?"}, 2),
    ]
    answers = client.ask(model, [row.features for row in played], ["a", "b"])
    client.close()
    native = made.native.predict(np.array([[1, 2, 1], [1, 2, np.nan]], np.float32)).tolist()
    assert [answer.prediction for answer in answers] == native
    eventually(lambda: len(running.sender.sent) == 2, "both are published")
    event = full_prediction_decoder().decode_any(running.sender.sent[0].value)
    assert event.features == {"income": 1.0, "age": 2.0, "debt": "some"}


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_tables_are_read(tmp_path: Path, suffix: str) -> None:
    """Each kind of file gives the same rows; missing cells are None, every cell fits JSON."""
    frame = pd.DataFrame({"a": [1.5, None, 3.0], "b": ["x", None, "z"], "c": [True, False, True], "y": [0, 1, 0]})
    path = tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    read = read_table(path)
    columns = choose_columns(read)
    found = list(rows(read, columns))
    assert columns == Columns("y")
    assert [row.label for row in found] == [0, 1, 0]
    assert [row.features for row in found] == [
        {"a": 1.5, "b": "x", "c": True},
        {"a": None, "b": None, "c": False},
        {"a": 3.0, "b": "z", "c": True},
    ]
    assert json.loads(json.dumps([row.features for row in found]))
    assert [row.number for row in rows(read, columns, skip=1, limit=1)] == [1]


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    """Bytes that are not what the name says, and a table without rows or columns."""
    for name, content in (
        ("a.parquet", b"no"),
        ("b.csv.gz", b"no"),
        ("c.csv", b""),
        ("d.csv", b"a,b\n"),
        ("e.csv", b"a\n1\n"),
        ("f.csv", b"a,b\n1,2,3,4\n5,6,7,8,9\n"),
        ("h.csv", b"a,b\n1,2,3\n"),
        ("g.csv", b"\xff\xfe\x00a,b\n"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WrongSetting) as raised:
            read_table(path)
        assert "\n" not in str(raised.value)


def test_own_predictions_tell_the_task() -> None:
    """Whole numbers in a file, even as 1.0, are classes; fractions are a regression, unless the model is declared."""
    frame = pd.DataFrame({"x": [1.0, 2.0], "said": [1.0, 0.0], "y": [0.0, 1.0]})
    columns = choose_columns(frame, prediction="said")
    classes, regression = as_predicted(frame, columns, None)
    assert not regression
    assert [type(row.prediction) for row in rows(classes, columns)] == [int, int]
    same, regression = as_predicted(frame, columns, "regression")
    assert regression
    assert [type(row.label) for row in rows(same, columns)] == [float, float]
    fractions = frame.assign(said=[0.5, 1.5])
    assert as_predicted(fractions, columns, None)[1]
    with pytest.raises(WrongSetting, match="holds text"):
        as_predicted(fractions.assign(y=["a", "b"]), columns, None)


def test_a_table_that_does_not_fit_is_told(repository: Repository, start: Start) -> None:
    """Missing features and text where numbers belong are found before the first row."""
    models.serve_first(repository, "line", models.regression())
    client = ServeClient(start().url)
    model = client.model()
    client.close()
    frame = pd.DataFrame({name: [1.0] for name in models.FEATURES} | {"y": [1.0]})
    check_fits(frame, Columns("y"), model)
    with pytest.raises(WrongSetting, match="no column age, debt"):
        check_fits(frame.drop(columns=["age", "debt"]), Columns("y"), model)
    with pytest.raises(WrongSetting, match="age holds text"):
        check_fits(frame.assign(age=["old"]), Columns("y"), model)
    with pytest.raises(WrongSetting, match="predicts numbers"):
        check_fits(frame.assign(y=["high"]), Columns("y"), model)
