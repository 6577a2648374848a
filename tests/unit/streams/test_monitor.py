"""The monitor's alerts are a function of the log: not of arrival, repetition, checkpoints or the number of steps."""

from __future__ import annotations

import random
import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from streams.catalog import Catalog
from streams.errors import StateMismatch
from streams.monitor import MonitorPartition
from streams.records import Gap
from streams.settings import Settings
from streams.watch import ModelWatch
from tests.unit.streams.monitor_log import (
    START_S,
    FakeStore,
    Log,
    Pair,
    champion,
    events,
    fresh,
    play,
    record,
    registered,
    settings,
)


def traffic(seed: int) -> list[Pair]:
    """Two models over some ten minutes, one of them drifting, with segments, versions, corrections and a silence."""
    rng = random.Random(seed)
    pairs = []
    changes, silent = rng.randrange(200, 1000), rng.choice([0, 0, 700, 9000])
    second = START_S
    for index in range(1500):
        second += rng.choice([0, 0, 0, 1, 1, 2])
        if index == 1200:
            second += silent
        worse = changes < index
        pairs.append(
            Pair(
                second,
                version="2" if index > 1000 and rng.random() < 0.7 else "1",
                segment=rng.choice(["", "", "north", "south"]),
                error=float(rng.random() < (0.5 if worse else 0.05)),
                outcome=rng.random() < 0.95,
                corrected_s=second + rng.randrange(200) if rng.random() < 0.1 else None,
            )
        )
        if index % 2:
            error = rng.gauss(0, 8.0 if worse else 1.0)
            pairs.append(Pair(second, "house", regression=True, error=error))
    return pairs


CATALOGS = {
    "unregistered": Catalog(),
    "registered": registered(
        champion(accuracy=0.95), champion("house", "1", baselines={}), champion("quiet", "1", accuracy=0.9)
    ),
}


@pytest.mark.parametrize("catalog", CATALOGS.values(), ids=CATALOGS)
@hypothesis_settings(max_examples=15, deadline=None)
@given(traffic_seed=st.integers(0, 50), deal=st.integers(0, 1000), order=st.integers(0, 10**9))
def test_any_arrival_gives_the_same_alerts(catalog: Catalog, traffic_seed: int, deal: int, order: int) -> None:
    """Interleaved, repeated, advanced and reloaded anywhere, one log gives the same alerts with the same ids."""
    log = record(traffic(traffic_seed), deal, partitions=1 + deal % 4, ends_s=START_S + 30_000, parts=bool(deal % 2))
    whole = play(log, settings(), catalog)
    assert whole
    assert play(log, settings(), catalog, order) == whole


@hypothesis_settings(max_examples=8, deadline=None)
@given(traffic_seed=st.integers(0, 50), deals=st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True))
def test_where_checkpoints_fall_makes_no_difference(traffic_seed: int, deals: list[int]) -> None:
    """The same pairs of one input partition, cut into other checkpoints, give the same alerts."""
    pairs = [pair for pair in traffic(traffic_seed) if not pair.regression]
    one, other = (record(pairs, deal, partitions=1, ends_s=START_S + 30_000) for deal in deals)
    assert play(one, settings()) == play(other, settings())


class EveryMinute(ModelWatch):
    """A watch that passes over no minute."""

    def _due_in_silence(self, minute: int) -> int | None:
        return minute


class EveryMinuteMonitor(MonitorPartition):
    """A monitor that judges every single minute of every model."""

    def watch(self, model: str) -> ModelWatch:
        if model not in self.watches:
            limits = self.monitor_settings
            self.watches[model] = EveryMinute(model, limits, limits.minimum_accuracy)
            self.fed_s = max(self.fed_s, START_S - 600)  # not from 1970
        return self.watches[model]


def every_minute(configuration: Settings, partitions: int) -> MonitorPartition:
    return EveryMinuteMonitor(0, partitions, configuration, lambda _: True, lambda part: part)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    missing=st.integers(1, 40),
    clean=st.integers(1, 30),
    repeat=st.integers(0, 90),
    window=st.integers(1, 30),
)
def test_minutes_in_which_nothing_can_change_are_passed_over_unseen(
    seed: int, missing: int, clean: int, repeat: int, window: int
) -> None:
    """Long silences, with and without open alerts, end as they do when each minute is judged."""
    rng = random.Random(seed)
    pairs = []
    second = START_S
    for _ in range(rng.randrange(3, 12)):
        second += rng.choice([10, 100, 1000, 10_000, 40_000])
        only_predictions = rng.random() < 0.5
        wrong = rng.choice([0.0, 0.0, 0.6])
        for _ in range(rng.choice([1, 5, 60])):
            second += rng.choice([0, 1, 5])
            pairs.append(Pair(second, error=float(rng.random() < wrong), outcome=not only_predictions))
    log = record(pairs, seed, ends_s=second + 100_000)
    configuration = settings(
        outcomes_missing_minutes=missing,
        clean_minutes=clean,
        repeat_minutes=repeat,
        window_minutes=window,
        minimum_outcomes=1,
        for_minutes=rng.choice([0, 1, 7]),
    )
    catalog = registered(champion(accuracy=0.97))
    stepped = play(log, configuration, catalog, make=every_minute)
    assert play(log, configuration, catalog) == stepped


def test_the_state_after_a_reload_is_the_state_before() -> None:
    """Reports, positions and stored bytes agree, so that nothing is learnt anew after a restart."""
    log = record(traffic(3), 3, ends_s=START_S + 900)
    store, monitor = FakeStore(), fresh(settings())
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    for partition, records in enumerate(log.checkpoints):
        for offset, value in enumerate(records[: len(records) * 2 // 3]):
            monitor.checkpoint_record(partition, offset, value)
    monitor.advance(Catalog())
    closed = monitor.close()
    store.apply(closed.commands, closed.meta)
    again = fresh(settings())
    outbox = again.load(store.meta, store.read(again.keys()))
    assert outbox == closed.alerts
    assert again.watermark_ms == monitor.watermark_ms > START_S * 1000
    assert again.next_summary_offset == len(log.summaries)
    assert again.checkpoint_offsets == monitor.checkpoint_offsets
    assert again.report() == monitor.report()
    assert again.close().commands == []


def test_a_reload_at_the_turn_of_an_hour_moves_no_window() -> None:
    """A window ends with the last minute that is judged, also while old buckets are being let go."""
    pairs = [Pair(START_S - START_S % 60 + at) for at in range(120)]
    log = record(pairs, 1, partitions=1, ends_s=pairs[0].second + 3_630)
    store, monitor = FakeStore(), fresh(settings(), 1)
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    for offset, value in enumerate(log.checkpoints[0]):
        monitor.checkpoint_record(0, offset, value)
    monitor.advance(Catalog())
    closed = monitor.close()
    store.apply(closed.commands, closed.meta)
    again = fresh(settings(), 1)
    again.load(store.meta, store.read(again.keys()))
    assert monitor.report()[0].versions[0].windows["1h"].n == 120
    assert again.report() == monitor.report()


def test_only_what_changed_is_written() -> None:
    """A checkpoint without news writes no field; fed summaries and published alerts are deleted."""
    log = record(traffic(3), 3, ends_s=START_S + 30_000)
    store, monitor = FakeStore(), fresh(settings())
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    closed = monitor.close()
    store.apply(closed.commands, closed.meta)
    assert len(store.hash(monitor, 2)) == len(log.summaries)
    for partition, records in enumerate(log.checkpoints):
        for offset, value in enumerate(records):
            monitor.checkpoint_record(partition, offset, value)
    monitor.advance(Catalog())
    closed = monitor.close()
    store.apply(closed.commands, closed.meta)
    assert store.hash(monitor, 2) == {}
    assert store.hash(monitor, 3) == {}
    assert len(store.hash(monitor, 8)) == len(closed.alerts) > 0
    monitor.published(closed.alerts[-1].sequence)
    last = monitor.close()
    assert [command[0] for command in last.commands] == ["HDEL"]
    store.apply(last.commands, last.meta)
    assert store.hash(monitor, 8) == {}
    assert monitor.close().commands == []


def test_a_partition_that_never_made_a_cut_holds_everything() -> None:
    """The watermark is the lowest clock over all input partitions, also over one that has not begun."""
    log = record(traffic(1), 1, partitions=2)
    held = Log(log.summaries, [*log.checkpoints, []])
    assert play(held, settings()) == []
    assert play(log, settings()) != []


def test_a_model_of_another_partition_is_not_waited_for() -> None:
    """A cut names the models of all partitions of summaries; only ours have to be here."""
    pairs = traffic(1)
    ours = [pair for pair in pairs if pair.model == "loan"]
    log = record(pairs, 1)
    mine = [value for value in log.summaries if b"house" not in value]
    monitor = MonitorPartition(0, 2, settings(), lambda model: model == "loan", str)
    for offset, value in enumerate(mine):
        monitor.summary(offset, value)
    for partition, records in enumerate(log.checkpoints):
        for offset, value in enumerate(records):
            monitor.checkpoint_record(partition, offset, value)
    monitor.advance(Catalog())
    assert monitor.watermark_ms == 1000 * (1 + max(pair.second for pair in pairs))
    assert monitor.pairs == sum(pair.outcome for pair in ours)


def test_a_skipped_partition_that_comes_back_still_counts() -> None:
    """What it brings late is fed late and counted in its own minutes; nothing is refused."""
    log = record(traffic(5), 5, ends_s=START_S + 9000)
    monitor = fresh(settings())
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    for offset, value in enumerate(log.checkpoints[0]):
        monitor.checkpoint_record(0, offset, value)
    monitor.checkpoint_record(1, 0, msgspec.json.encode(Gap(1, 1, "disk lost")))
    monitor.advance(Catalog())
    assert monitor.watermark_ms == (START_S + 9000) * 1000
    half = monitor.pairs
    for offset, value in enumerate(log.checkpoints[1], 1):
        monitor.checkpoint_record(1, offset, value)
        monitor.advance(Catalog())
    closed = monitor.close()
    assert monitor.pairs > half
    assert sum(version.outcomes for model in monitor.report() for version in model.versions) == monitor.pairs
    assert closed.cut(1, 1).pairs == monitor.pairs


def test_what_no_worker_wrote_stops_the_monitor() -> None:
    """Garbage in our own topics, a partition that does not exist and a newer format are told, not skipped."""
    monitor = fresh(settings())
    with pytest.raises(StateMismatch, match="summaries"):
        monitor.summary(0, b"\xc1")
    with pytest.raises(StateMismatch, match="checkpoints-1"):
        monitor.checkpoint_record(1, 0, b"{}")
    with pytest.raises(StateMismatch, match="input partition 7"):
        monitor.checkpoint_record(7, 0, record([], 0).checkpoints[0][0])
    with pytest.raises(StateMismatch, match="newer"):
        monitor.load({"monitor_format": b"99"}, [])


def test_the_report_counts_what_arrived_a_moment_ago() -> None:
    """Windows are judged by whole minutes, but an operator who looks sees the outcomes of this one too."""
    pairs = [Pair(START_S + at, error=float(at % 4 == 0), segment="north") for at in range(20)]
    pairs += [Pair(START_S + at, "house", regression=True, error=-2.0) for at in range(20)]
    log = record(pairs, 1, partitions=1)
    monitor = fresh(settings(), 1)
    for offset, value in enumerate(log.summaries):
        monitor.summary(offset, value)
    for offset, value in enumerate(log.checkpoints[0]):
        monitor.checkpoint_record(0, offset, value)
    monitor.advance(registered(champion()))
    house, loan = monitor.report()
    assert (house.model, loan.model) == ("house", "loan")
    assert house.versions[0].windows["1h"].mae == pytest.approx(2.0)
    assert house.versions[0].windows["1h"].mean_error == pytest.approx(-2.0)
    assert loan.champion == "1"
    assert loan.versions[0].champion
    assert loan.versions[0].windows["30d"].accuracy == pytest.approx(0.75)
    assert loan.versions[0].segments["north"]["24h"].n == 20
    assert loan.versions[0].outcomes == 20


def test_versions_nobody_hears_of_are_forgotten() -> None:
    """A version that has been out of every window leaves the store; the champion stays."""
    month = 32 * 86_400
    pairs = [Pair(START_S + at, version="1") for at in range(50)]
    pairs += [Pair(START_S + month + at, version="2") for at in range(50)]
    catalog = registered(champion(version="2"))
    log = record(pairs, 1, ends_s=START_S + month + 7200)
    store, monitor = FakeStore(), fresh(settings())
    position = [0, 0]
    for end in (0.3, 0.6, 1.0):
        for offset, value in enumerate(log.summaries):
            monitor.summary(offset, value)
        for partition, records in enumerate(log.checkpoints):
            for offset in range(position[partition], int(len(records) * end)):
                monitor.checkpoint_record(partition, offset, records[offset])
            position[partition] = int(len(records) * end)
        monitor.advance(catalog)
        closed = monitor.close()
        store.apply(closed.commands, closed.meta)
    closed = monitor.close()
    store.apply(closed.commands, closed.meta)
    (report,) = monitor.report()
    assert [version.version for version in report.versions] == ["2"]
    assert len(store.hash(monitor, 5)) == 1
    assert len(store.hash(monitor, 6)) == 1
    again = fresh(settings())
    again.load(store.meta, store.read(again.keys()))
    assert again.report() == monitor.report()


def test_alert_ids_are_unique_and_name_the_episode() -> None:
    """``ce_id`` is fingerprint, start and number within the episode."""
    encoded = play(record(traffic(2), 2, ends_s=START_S + 30_000), settings())
    ids = [dict(each.headers)["ce_id"].decode() for each in encoded]
    assert len(set(ids)) == len(ids) > 0
    for name, each, event in zip(ids, encoded, events(encoded), strict=True):
        assert name == f"{event.fingerprint}/{event.starts_at}/{event.sequence}"
        assert each.key == event.fingerprint.encode()
        assert msgspec.json.decode(each.value)["startsAt"] == event.starts_at


def test_the_monitor_needs_no_client_library() -> None:
    """It is pure: neither Kafka, Faust nor Redis is loaded with it."""
    clients = {"aiokafka", "confluent_kafka", "faust", "redis"}
    code = f"import sys, streams.monitor; print(sorted({clients!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
