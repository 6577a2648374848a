"""The loop's benchmark measures what it says: labels come as late as they should, and the loop is the real one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import structlog

from bench import loop
from bench.loop_streams import FIRST_ROWS, Case, RecordedStream
from bench.loop_world import MODEL, Served, World, serve
from bench.loop_yardsticks import concepts, excess, yardsticks
from retrain.reproduction import reproduce, rows_from_log
from retrain.training import Recipe
from streams.settings import RetrainSettings, Settings

DRIFT = 5_600
ROWS = 6_400
RECIPE = Recipe("xgboost", 10, 3, 0)
SETTINGS = Settings(retrain=RetrainSettings(trees=10, depth=3, parity_rows=200))
AT_ONCE = Case(0, 1.0)


def stream() -> RecordedStream:
    """Class 1 where the first feature is high, from the drift on where it is low."""
    features = np.random.default_rng(5).random((ROWS, 3)).astype(np.float32)
    high = features[:, 0] > 0.5
    target = np.where(np.arange(ROWS) < DRIFT, high, ~high).astype(np.int64)
    return RecordedStream("turned", features, target, (DRIFT,))


@pytest.fixture(scope="module")
def served() -> Served:
    """The stream after the loop has had it."""
    return serve(stream(), AT_ONCE, SETTINGS)


def test_the_loop_recovers_from_the_drift_and_was_right_before(served: Served) -> None:
    """An alert, a run, a promotion behind the drift; what the run was trained on is rows since the change."""
    before, after = served.errors[: DRIFT - FIRST_ROWS], served.errors[DRIFT - FIRST_ROWS :]
    assert before.mean() < 0.05
    assert (served.alone[: len(before)] == before).all(), "until then nothing else has served"
    assert served.alone[len(before) :].mean() > 0.9
    assert served.promotions[0][0] > DRIFT
    assert after[-300:].mean() < 0.1 < after[:100].mean()
    first = next(run for run in served.runs if run.promoted_ms is not None)
    assert (first.kind, first.champion) == ("alert", "1")
    assert served.versions[str(first.version)].startswith("since the change, ")


def test_its_versions_are_made_again(tmp_path: Path) -> None:
    """From the log at the end of the stream, where every label has come: the rows are those of their time."""
    world = World(stream(), Case(100, 0.5), SETTINGS, tmp_path)
    world.run()
    repository = world.retrainer.repository
    manifests = [repository.manifest(MODEL, version) for version in repository.versions(MODEL)]
    made = [manifest for manifest in manifests if "trained_on" in manifest.trained_from]
    assert made
    for manifest in made:
        assert reproduce(manifest, rows_from_log(manifest, world.retrainer.log)).differences == []


def test_the_loop_beats_the_yardsticks_that_it_should(served: Served) -> None:
    """On a stream that turns over, and is half as far from a fitted model as an oracle that retrains late."""
    turned = stream()
    known = yardsticks(turned, AT_ONCE, RECIPE)
    assert known.static.mean() > served.errors.mean()
    found = concepts(turned, RECIPE)
    assert found.points[0] > 90
    assert excess(found, known.static)[0] == pytest.approx(ROWS - DRIFT, abs=30)
    assert excess(found, served.errors)[0] < 0.6 * (ROWS - DRIFT)


@pytest.mark.parametrize(("delay", "share"), [(0, 1.0), (300, 1.0), (0, 0.1)])
def test_no_label_is_known_before_its_time(delay: int, share: float, tmp_path: Path) -> None:
    """After each step exactly the labelled rows whose delay has passed are in the log."""
    case = Case(delay, share)
    world = World(stream(), case, SETTINGS, tmp_path)
    labelled = stream().labelled(case)
    for step in range(1, 60):
        world._step()
        at = FIRST_ROWS + 10 * step
        rows = [row.prediction_offset for record in world._log.records for row in record.rows()]
        expected = labelled[(labelled >= FIRST_ROWS) & (labelled < at - delay)]
        assert rows == expected.tolist()
        newest = max((row.outcome_ms for record in world._log.records for row in record.rows()), default=0)
        assert newest <= world.retrainer.now_ms()


def test_a_clock_retrains_on_what_it_can_know() -> None:
    """Labels that come later than the stream is long never help: a clock is then as good as doing nothing."""
    turned = stream()
    late = yardsticks(turned, Case(ROWS, 1.0), RECIPE)
    assert (late.cron_recent == late.static).all()
    assert (late.cron_all == late.static).all()
    soon = yardsticks(turned, AT_ONCE, RECIPE)
    assert soon.cron_recent.mean() < late.static.mean()


def test_it_prints_one_object_for_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys that the issue names, for each stream, and whether the loop held."""
    made = stream()
    frame = pd.DataFrame(made.features, columns=["a", "b", "c"]).assign(target=made.target)
    frame.iloc[: FIRST_ROWS + 300].to_csv(tmp_path / "turned.csv.gz", index=False)
    monkeypatch.setenv("DRIFTLINE_DATA", str(tmp_path))
    loop.main(["--json", "--quick"])
    printed = json.loads(capsys.readouterr().out)
    entry = printed["streams"]["turned"]
    assert {"static", "cron_recent", "cron_all", "oracle", "loop", "retrains", "promotions", "rollbacks"} < set(entry)
    assert entry["alone"] == entry["loop"], "nothing was promoted"
    assert (entry["drift_points"], entry["excess_ratio"], entry["oracle"]) == ([], None, None)
    assert entry["passed"] is True
    assert printed["cases"] == [{"delay": 0, "labelled": 1.0, "streams": printed["streams"]}]


def test_what_the_loop_says_is_no_part_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` is one object on stdout, also if a version collapses on the way."""
    loop.say_on_stderr(logging.WARNING)
    structlog.get_logger("retrain").warning("collapsed on probation")
    structlog.get_logger("retrain").info("run triggered")
    said = capsys.readouterr()
    assert said.out == ""
    assert "collapsed on probation" in said.err
    assert "run triggered" not in said.err
