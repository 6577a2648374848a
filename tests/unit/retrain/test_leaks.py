"""Nothing whose outcome came after the cut has a part in a model."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx

from retrain.run import Challenger
from tests.unit.retrain.test_contest import held, mixed


def graph_of(challenger: Challenger) -> bytes:
    """The model without what is said about it: the hash of the data set is in its metadata."""
    model = onnx.load_model_from_string(challenger.onnx)
    content: bytes = model.graph.SerializeToString()
    return content


def test_outcomes_after_the_cut_change_nothing_of_the_model() -> None:
    """The newest block has labels by chance: the export is the same to the byte, only what is measured differs."""
    data = mixed(600)
    made = held(data, fresh=600, change=600).challenger
    assert made is not None
    cut = made.first_row + made.train_rows
    assert 0 < cut < len(data)
    chance = np.random.default_rng(1).integers(0, 2, len(data) - cut).astype(data.target.dtype)
    wrong = np.concatenate([data.target[:cut], chance])
    again = held(dataclasses.replace(data, target=wrong), fresh=600, change=600).challenger
    assert again is not None
    assert (again.first_row, again.train_rows) == (made.first_row, made.train_rows)
    assert graph_of(again) == graph_of(made)
    assert again.baseline.value < made.baseline.value - 0.05
    assert again.data_sha256 != made.data_sha256


def test_the_rows_before_the_cut_are_those_whose_outcomes_came_first() -> None:
    """Time order is that of the outcome: no row of the training was complete after a row of the newest block."""
    data = mixed(600)
    made = held(data, fresh=600, change=600).challenger
    assert made is not None
    cut = made.first_row + made.train_rows
    assert data.complete_ms[made.first_row : cut].max() < data.complete_ms[cut:].min()
