"""The comparison of replayed with published alerts, where the topic has lost some."""

from __future__ import annotations

from streams.alerts import EncodedAlert
from streams.log import Record
from streams.replay.check import Published, compare


def encoded(key: str, number: int, value: bytes = b"{}") -> EncodedAlert:
    """An alert of a key."""
    return EncodedAlert(key.encode(), [("ce_id", f"{key}/{number}".encode())], value)


def topic(*alerts: tuple[int, EncodedAlert], at_ms: int = 1_000) -> Published:
    """The topic of alerts with these records at these offsets."""
    found = Published()
    for offset, alert in alerts:
        found.add(Record("alerts", 0, offset, at_ms, alert.key, alert.value, tuple(alert.headers)))
    return found


A1, A2, B1 = encoded("a", 1), encoded("a", 2), encoded("b", 1)


def test_what_compaction_removed_is_no_difference() -> None:
    """Only what has a later one of its key can have been removed."""
    there = topic((1, A2), (2, B1))
    assert compare([A1, A2, B1], there, there, [], 0) == ([], 1, 0, [])


def test_the_last_of_a_key_cannot_have_been_compacted_away() -> None:
    """Although the topic has gaps."""
    there = topic((0, A1), (2, B1))
    found, compacted, _, _ = compare([A1, A2, B1], there, there, [], 0)
    assert ([each.id for each in found], compacted) == (["a/2"], 0)


def test_without_gaps_nothing_was_compacted() -> None:
    """An alert that is missing was never published."""
    there = topic((0, A2), (1, B1))
    found, compacted, _, _ = compare([A1, A2, B1], there, there, [], 0)
    assert ([(each.id, each.kind) for each in found], compacted) == ([("a/1", "only replayed")], 0)


def test_alerts_older_than_the_log_are_counted_apart() -> None:
    """Retention of the summaries is shorter than that of the alerts."""
    there = topic((0, A1), at_ms=5)
    assert compare([], there, there, [], 6) == ([], 0, 1, [])
    found, _, earlier, _ = compare([], there, there, [], 5)
    assert ([each.kind for each in found], earlier) == (["only published"], 0)


def test_a_repeat_with_other_contents_is_told() -> None:
    """One id must be one alert."""
    there = topic((0, A1), (1, A1))
    assert compare([A1], there, there, [], 0)[3] == []
    there = topic((0, A1), (1, encoded("a", 1, b"[]")))
    assert len(compare([A1], there, there, [], 0)[3]) == 1


def test_key_headers_and_value_count() -> None:
    """Each is shown as published and as replayed."""
    other = EncodedAlert(b"b", [("ce_id", b"a/1"), ("more", b"x")], b'{"x": {"y": [1]}}')
    there = topic((0, A1))
    found, _, _, _ = compare([other], there, there, [], 0)
    assert found[0].fields == {
        "key": ["a", "b"],
        "headers": [{"ce_id": "a/1"}, {"ce_id": "a/1", "more": "x"}],
        "x.y.0": [None, 1],
    }
    found, _, _, _ = compare([encoded("a", 1, b"{ }")], there, there, [], 0)
    assert found[0].fields == {"value": ["{}", "{ }"]}


def test_what_was_published_after_the_cuts_were_read_is_no_difference() -> None:
    """A live system goes on meanwhile; what comes out must be in the topic by now."""
    assert compare([A1], topic((0, A1)), topic((0, A1), (1, A2)), [], 0) == ([], 0, 0, [])
    assert compare([A1, A2], topic((0, A1)), topic((0, A1), (1, A2)), [], 0) == ([], 0, 0, [])
