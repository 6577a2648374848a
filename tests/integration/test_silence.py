"""`driftline silence` on a real broker: an event that every reader of the model events sees."""

from __future__ import annotations

import json
from pathlib import Path

from streams.events import Baseline, ModelState
from tests.support.driftline import Driftline
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer

LOAN = ModelState("loan", 1, "binary", aliases={"champion": "1"}, baselines={"1": Baseline("accuracy", 0.95, 5000)})
WRONG_SETTING, MISSING_INPUT = 2, 66


def test_a_silence_is_asked_for_shown_and_ended(
    kafka_broker: KafkaBroker, redis_store: RedisServer, deployment: str, tmp_path: Path
) -> None:
    """In the list and in the status, with its reason; what makes no sense is refused with its exit code."""
    with Driftline(kafka_broker, redis_store, deployment, tmp_path) as driftline:
        driftline.create_topics().announce(LOAN)
        driftline.run("silence", "loan", "--for", "1h30m", "--reason", "labels move")
        found = json.loads(driftline.run("silence", "--list", "--json"))
        assert found["loan"]["reason"] == "labels move"
        (model,) = json.loads(driftline.run("status", "--json"))["models"]
        assert model["silence"] == found["loan"]
        assert "silenced loan until" in driftline.run("status")
        driftline.run("silence", "loan", "--end")
        assert json.loads(driftline.run("silence", "--list", "--json")) == {}
        for code, arguments in (
            (MISSING_INPUT, ["laon", "--for", "1h", "--reason", "x"]),
            (WRONG_SETTING, ["loan", "--for", "1h"]),
            (WRONG_SETTING, ["loan", "--for", "soon", "--reason", "x"]),
            (WRONG_SETTING, ["loan", "--end"]),
            (WRONG_SETTING, ["--list", "loan"]),
            (WRONG_SETTING, []),
        ):
            assert driftline.start("silence", *arguments).wait() == code, arguments
