"""The benchmark of the loop for classes of three and for numbers: its streams are what it says, and it counts."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bench.loop_kinds import CASES, STREAMS, main
from bench.loop_streams import FIRST_ROWS, errors_of, fit
from bench.loop_world import serve
from retrain.training import Recipe
from streams.settings import RetrainSettings, Settings

RECIPE = Recipe("xgboost", 20, 4, 0)
QUICK = RetrainSettings(algorithms=["xgboost"], trees=20, depth=4, parity_rows=200, recent_rows=[500])


@pytest.mark.parametrize("name", ["waveform", "friedman gra", "friedman gsg"])
def test_what_was_learnt_before_a_drift_is_worth_less_after_it(name: str) -> None:
    """And the first concept returns."""
    stream = STREAMS[name](20_000)
    first, second = stream.drifts
    before = fit(stream, np.arange(FIRST_ROWS), RECIPE)
    assert before is not None
    usual = errors_of(before, stream, FIRST_ROWS, first).mean()
    assert errors_of(before, stream, first + 1_000, second).mean() > 1.3 * usual
    if name != "friedman gsg":
        assert errors_of(before, stream, second + 1_000, 20_000).mean() < 1.1 * usual


def test_the_stream_with_heavy_tails_stays_as_it_is() -> None:
    """Large errors are rare and never end."""
    stream = STREAMS["heavy tails"](20_000)
    before = fit(stream, np.arange(FIRST_ROWS), RECIPE)
    assert before is not None
    errors = errors_of(before, stream, FIRST_ROWS, 20_000)
    halves = errors.reshape(2, -1)
    assert np.median(halves, axis=1)[0] == pytest.approx(np.median(halves, axis=1)[1], rel=0.05)
    assert errors.max() > 10 * errors.mean()


@pytest.mark.parametrize("name", ["waveform", "friedman gra"])
def test_the_loop_recovers(name: str) -> None:
    """An alert about the model, a run, a promotion; what it serves then is what a fitted model would be worth."""
    whole, cut = STREAMS[name](11_500), 4_000
    stream = replace(whole, features=whole.features[cut:], target=whole.target[cut:], drifts=(6_000,))
    served = serve(stream, CASES[0], Settings(retrain=QUICK))
    assert any(row > 1_000 and what.endswith("firing") for row, what in served.alerts)
    assert any(row > 6_000 for row, _ in served.promotions)
    lost, recovered = served.errors[1_000:1_300].mean(), served.errors[-500:].mean()
    assert recovered < 0.85 * lost


def test_it_prints_what_it_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """One object, or a table."""
    main(["--json", "--only", "waveform", "--cases", "1", "--rows", "5200"])
    (entry,) = json.loads(capsys.readouterr().out)["streams"]
    assert entry["stream"] == "waveform"
    assert entry["ratio"] == pytest.approx(1.0, abs=0.3)
    assert {"static", "cron_recent", "cron_all", "oracle", "loop", "promotions", "rollbacks", "pages"} < set(entry)
