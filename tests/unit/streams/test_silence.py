"""Silences as events: how they are asked for, what they say, and what they leave alone."""

from __future__ import annotations

import pytest

from streams import silence
from streams.catalog import Catalog
from streams.codec import model_event_decoder
from streams.errors import MissingInput, WrongSetting
from streams.events import ModelEvent, ModelState
from streams.silence import Span, duration_s
from tests.unit.streams.monitor_log import champion, registered

NOW_MS = 1_700_000_040_000


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("3d", 259_200)])
def test_a_duration_is_written_as_people_write_it(text: str, seconds: int) -> None:
    """Whole numbers with units, largest first or not."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "2 h", "1.5h", "0m", "31d", "2h!"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Nothing, no unit, for ever: a silence that nobody remembers is how drift goes unseen."""
    with pytest.raises(WrongSetting):
        duration_s(text)


def silenced(catalog: Catalog, for_s: int = 3600) -> None:
    catalog.apply(catalog.position, silence.begun(catalog, "loan", NOW_MS, for_s, "labels move", "ada"))


def test_a_silence_is_known_by_its_event_and_changes_no_state() -> None:
    """It reads back from the topic; the model's revision stays, so no promotion is held up."""
    catalog = registered(champion())
    event = silence.begun(catalog, "loan", NOW_MS, 3600, "labels move", "ada")
    value, key, headers = silence.encoded(event)
    assert (key, model_event_decoder().decode_any(value, headers)) == (b"loan", event)
    catalog.apply(1, event)
    assert catalog.get("loan") == champion()
    found = catalog.silences["loan"]
    assert (found.reason, found.by) == ("labels move", "ada")
    assert Span.of(found) == Span(NOW_MS // 1000, NOW_MS // 1000 + 3600)
    assert list(silence.current(catalog, NOW_MS + 3_599_000)) == ["loan"]
    assert silence.current(catalog, NOW_MS + 3_600_000) == {}


def test_a_model_that_is_only_monitored_can_be_silenced() -> None:
    """And goes on to be registered later: the silence takes no revision."""
    catalog = registered(ModelState("loan", 0, "binary", mode="observe"))
    silenced(catalog)
    catalog.apply(catalog.position, ModelEvent("registered", champion()))
    assert catalog.get("loan") == champion()
    assert "loan" in catalog.silences


def test_a_silence_can_be_ended_and_only_while_it_is_on() -> None:
    """By an event too."""
    catalog = registered(champion())
    with pytest.raises(WrongSetting, match="not silenced"):
        silence.ended(catalog, "loan", NOW_MS, "bob")
    silenced(catalog)
    catalog.apply(catalog.position, silence.ended(catalog, "loan", NOW_MS + 60_000, "bob"))
    found = catalog.silences["loan"]
    assert (found.reason, found.by, Span.of(found).end_s) == ("labels move", "bob", NOW_MS // 1000 + 60)
    assert silence.current(catalog, NOW_MS + 60_000) == {}


def test_nobody_silences_a_model_that_does_not_exist() -> None:
    """A typing error would leave the real one loud."""
    with pytest.raises(MissingInput, match="no model laon"):
        silence.begun(registered(champion()), "laon", NOW_MS, 60, "x", "")
