"""The benchmark of the loop while nothing happens: the concept stays, and what the loop does is counted."""

import json

import numpy as np
import pytest

from bench.loop_still import NOISE, main, still


def test_the_concept_stays_and_labels_are_wrong_as_often_as_it_says() -> None:
    """In each half of the stream alike."""
    for seed, noise in enumerate(NOISE):
        stream = still(seed, 20_000)
        x = stream.features
        wrong = (x[:, 0] + x[:, 1] * x[:, 2] > 0) != stream.target
        assert np.mean(wrong.reshape(2, -1), axis=1) == pytest.approx([noise, noise], abs=0.015)


def test_it_counts_what_the_loop_did(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--json", "--streams", "1", "--rows", "6000"])
    found = json.loads(capsys.readouterr().out)["still 0"]
    assert set(found) == {"accuracy", "promotions", "rollbacks", "pages"}
    assert 0.7 < found["accuracy"] < 0.9
    main(["--streams", "1", "--rows", "5300"])
    assert "still 0" in capsys.readouterr().out
