"""Tests of every kind; modules beside them that assert say what they found, as tests do."""

import pytest

pytest.register_assert_rewrite(
    "tests.faults.trial",
    "tests.simulation.case",
    "tests.support",
    "tests.unit.serving.waiting",
    "tests.unit.streams.label_traffic",
)
