"""A replay of a live run gives its alerts again, to the byte, whatever happened to it; and says when it does not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from streams.codec import encode, headers
from streams.errors import MissingInput
from streams.events import MODEL_EVENT_TYPE, ModelEvent, ModelState
from streams.metrics import WorkerMetrics
from streams.records import MonitorCut, Take
from streams.replay.check import CheckReport
from streams.replay.compare import Compared
from streams.replay.history import read_history
from streams.replay.joined import Joined, inputs, joined
from streams.replay.policies import policies
from streams.replay.run import Run, replay
from streams.replay.sources import Question, of_inputs, of_summaries
from streams.replay.verify import verify
from streams.settings import MonitorSettings, Settings
from tests.simulation.traffic import Act, long
from tests.simulation.verdict import Finished, findings
from tests.simulation.worker import Worker, begin, play
from tests.simulation.world import SETTINGS, TOPICS, World
from tests.support.memory.log import MemoryLog, MemoryReader
from tests.support.memory.wire import Wire


def checked(world: World, settings: Settings = SETTINGS) -> CheckReport:
    """What ``driftline replay --check`` finds on the topics of a world; the log and the store are as they were."""
    before = world.changes
    report = verify(settings, MemoryLog(world.broker))
    assert world.changes == before
    return report


def published(world: World) -> set[bytes | None]:
    """The ids of the alerts in the topic."""
    return {dict(record.headers)["ce_id"] for log in world.broker.topics[TOPICS.alerts] for record in log}


def same(report: CheckReport, world: World) -> None:
    """Nothing differs, and it was not nothing that was compared."""
    assert (report.differences, report.notes, report.limits) == ([], [], [])
    assert report.identical
    assert report.replayed == report.published == len(published(world)) > 0


@pytest.mark.parametrize("name", ["long_run", "wide_run", "short_run"])
def test_an_undisturbed_run_is_reproduced(name: str, request: pytest.FixtureRequest) -> None:
    """With one partition of the monitor and with two."""
    run: Finished = request.getfixturevalue(name)
    same(checked(run.world), run.world)


def promote(world: World, version: str, revision: int) -> None:
    """Publish that a version of ``fraud`` is champion now."""
    record = world.broker.topics[TOPICS.model_events][0][0]
    state = msgspec.json.decode(record.value or b"", type=ModelEvent).state
    state = msgspec.structs.replace(state, revision=revision, aliases={"champion": version})
    kind = headers(MODEL_EVENT_TYPE.format(what="promoted"), "test")
    world.broker.append(TOPICS.model_events, 0, b"fraud", encode(ModelEvent("promoted", state)), kind)


def run_with(
    acts: Iterable[Act], between: Callable[[World, int, list[Worker]], None], monitors: int = 1, workers: int = 1
) -> tuple[World, list[Worker]]:
    """Play to the end, with something that happens every few steps: ``between`` is given the number of the pause."""
    world = World(acts, monitors)
    found = [Worker(world, Wire()) for _ in range(workers)]
    share(world, found)
    for pause in range(400):
        play(found, 1)
        if world.is_over and world.act >= 0 and all(each.has_finished_the_act for each in found):
            return world, found
        between(world, pause, found)
    raise AssertionError("the run does not end")


def share(world: World, workers: list[Worker]) -> None:
    """Deal the partitions to the workers."""
    inputs, summaries = world.everything
    for number, worker in enumerate(workers):
        worker.take(inputs[number :: len(workers)], summaries[number :: len(workers)])


@pytest.mark.parametrize("workers", [1, 2])
def test_promotions_take_effect_where_they_did(workers: int) -> None:
    """A promotion resolves what its champion set off; one back starts its detectors afresh. Both are in the alerts."""

    def between(world: World, pause: int, found: list[Worker]) -> None:
        firing = len(published(world))
        models = found[0].models.catalog.get("fraud")
        if firing and models is not None and models.revision == 1:
            promote(world, "2", 2)
        elif models is not None and models.revision == 2 and pause % 2:
            promote(world, "1", 3)
        for worker in found:
            worker.models.refresh()

    world, _ = run_with(long(), between, monitors=workers, workers=workers)
    values = [record.value or b"" for log in world.broker.topics[TOPICS.alerts] for record in log]
    assert any(b"is champion no longer" in value for value in values), "a promotion resolved an alert"
    same(checked(world), world)


def test_a_catch_up_after_a_stop_is_reproduced() -> None:
    """Everything is in the log when the worker starts."""
    world = World(long())
    while not world.is_over:
        world.go_on()
    workers = [begin(world)]
    play(workers)
    assert findings(world, workers).violations == []
    same(checked(world), world)


def test_a_crash_is_reproduced() -> None:
    """A worker is lost again and again, without a word, and another one takes over."""

    def between(world: World, pause: int, found: list[Worker]) -> None:
        if pause % 4 == 3:
            found[:] = [begin(world)]

    world, _ = run_with(long(), between)
    epochs = {msgspec.json.decode(r.value or b"")["epoch"] for r in world.broker.topics[TOPICS.monitor_checkpoints][0]}
    assert len(epochs) > 3
    same(checked(world), world)


def changed(**monitor: Any) -> Settings:
    """The settings of the simulation with others for the monitor."""
    return SETTINGS.model_copy(update={"monitor": MonitorSettings(**{**SETTINGS.monitor.model_dump(), **monitor})})


def test_settings_that_changed_on_the_way_are_those_of_the_cuts(
    long_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is started again with others while an alert is open: the cuts record both."""
    other = changed(clean_minutes=4, repeat_minutes=1, detectors=["page_hinkley"])
    restarted: list[int] = []

    def between(world: World, pause: int, found: list[Worker]) -> None:
        if published(world) and not restarted:
            restarted.append(pause)
            monkeypatch.setattr("tests.simulation.worker.SETTINGS", other)
            found[:] = [begin(world)]

    world, _ = run_with(long(), between)
    assert restarted
    report = checked(world)
    assert published(world) != published(long_run.world), "the change made a difference"
    same(report, world)


def test_a_setting_that_no_cut_records_is_said_to_be_taken_from_the_command(long_run: Finished) -> None:
    """Cuts of an older release: the replay takes the settings of the command, and shows what comes of others."""
    world = long_run.world.copy()
    cuts = world.broker.topics[TOPICS.monitor_checkpoints][0]
    for at, record in enumerate(cuts):
        found = msgspec.json.decode(record.value or b"", type=Take | MonitorCut)
        if isinstance(found, MonitorCut):
            bare = msgspec.structs.replace(found, settings=msgspec.UNSET)
            cuts[at] = type(record)(
                record.topic, record.partition, record.offset, record.at_ms, record.key, msgspec.json.encode(bare), ()
            )
    report = checked(world)
    assert report.identical
    assert any("settings" in limit for limit in report.limits)
    report = checked(world, changed(clean_minutes=5))
    assert not report.identical
    assert {each.kind for each in report.differences} <= {"differs", "only published", "only replayed"}
    assert report.differences


class Shortened(MemoryLog):
    """A way to the broker after retention: the first half of two topics is gone."""

    def reader(
        self,
        topic: str,
        start: Mapping[int, int] | None = None,
        partitions: Collection[int] | None = None,
        tail: int | None = None,
    ) -> MemoryReader:
        """A reader whose earliest records are those in the middle."""
        if topic in (TOPICS.summaries, TOPICS.checkpoints) and start is None:
            with super().reader(topic, None, partitions) as whole:
                start = {p: end // 2 for p, end in whole.ends().items()}
        return super().reader(topic, start, partitions, tail)


@pytest.mark.parametrize("name", ["long_run", "wide_run"])
def test_a_log_without_its_beginning_is_said_to_be_so(name: str, request: pytest.FixtureRequest) -> None:
    """What is left is replayed to its end; what was before is not known, and differences are not hidden."""
    world = request.getfixturevalue(name).world
    report = verify(SETTINGS, Shortened(world.broker))
    assert any("the topics begin at 2023-" in limit for limit in report.limits)
    assert not any("the log has what is needed" in note for note in report.notes)
    assert not report.identical
    assert report.differences
    assert report.replayed <= report.published
    source = of_summaries(SETTINGS, question(), lambda _: None, lambda _: None, Shortened(world.broker))
    assert any("the topics begin at 2023-" in limit for limit in source.report.limits)
    assert 0 < source.report.outcomes < compared(of_summaries, world, question()).report.outcomes


def tampered(world: World, change: Callable[[list[Any]], None]) -> World:
    """A copy of a world whose topic of alerts was changed."""
    other = world.copy()
    change(other.broker.topics[TOPICS.alerts][0])
    return other


def test_an_alert_that_is_missing_is_found(long_run: Finished) -> None:
    """The newest one was lost."""
    report = checked(tampered(long_run.world, lambda log: log.pop()))
    assert not report.identical
    assert [each.kind for each in report.differences] == ["only replayed"]
    assert "of fraud" in report.differences[0].summary


def test_an_alert_that_was_published_without_cause_is_found(long_run: Finished) -> None:
    """Another id at the end of the topic."""

    def change(log: list[Any]) -> None:
        last = log[-1]
        fields = [(name, b"another/2023/1" if name == "ce_id" else value) for name, value in last.headers]
        log.append(type(last)(last.topic, 0, len(log), last.at_ms, last.key, last.value, tuple(fields)))

    report = checked(tampered(long_run.world, change))
    assert [(each.id, each.kind) for each in report.differences] == [("another/2023/1", "only published")]


def test_a_value_that_differs_is_shown_by_its_path(long_run: Finished) -> None:
    """The statistic of an alert."""

    def change(log: list[Any]) -> None:
        at, found = 0, log[0]
        alert = msgspec.json.decode(found.value)
        alert["drift"]["statistic"] += 1
        log[at] = type(found)(
            found.topic, 0, found.offset, found.at_ms, found.key, msgspec.json.encode(alert), found.headers
        )

    report = checked(tampered(long_run.world, change))
    assert [each.kind for each in report.differences] == ["differs"]
    assert list(report.differences[0].fields) == ["drift.statistic"]
    published_value, replayed_value = report.differences[0].fields["drift.statistic"]
    assert published_value == replayed_value + 1


def test_numbers_of_the_cuts_are_compared_where_the_alerts_are_gone(long_run: Finished) -> None:
    """A cut that counts one alert more than come out: so a topic that was compacted away hides nothing."""
    world = long_run.world.copy()
    cuts = world.broker.topics[TOPICS.monitor_checkpoints][0]
    last = msgspec.json.decode(cuts[-1].value or b"", type=MonitorCut)
    more = msgspec.structs.replace(last, sequence=last.sequence + 1, alert_sequence=last.alert_sequence + 1)
    world.broker.append(TOPICS.monitor_checkpoints, 0, b"0", msgspec.json.encode(more))
    report = checked(world)
    assert not report.identical
    alerts = last.alert_sequence
    assert any(f"{alerts + 1} alerts were published, {alerts} come out" in note for note in report.notes)


def test_a_log_whose_end_is_missing_is_said_to_be_short(long_run: Finished) -> None:
    """The summaries and cuts end before what the monitor's cuts speak of."""
    world = long_run.world.copy()
    for log in world.broker.topics[TOPICS.checkpoints]:
        del log[len(log) // 2 :]
    report = checked(world)
    assert not report.identical
    assert any("the log has what is needed up to" in note for note in report.notes)


def test_topics_without_a_monitor_are_an_error() -> None:
    """One line that says what to check."""
    with pytest.raises(MissingInput, match="no cut of a monitor"):
        checked(World(long()))


def test_a_rebuilt_state_is_reproduced(long_run: Finished) -> None:
    """The store is emptied in the middle: the monitor is rebuilt from the log, and goes on to the same alerts."""
    emptied: list[int] = []

    def between(world: World, pause: int, found: list[Worker]) -> None:
        if published(world) and not emptied:
            emptied.append(pause)
            world.store = type(world.store)()
            found[:] = [begin(world, metrics=WorkerMetrics(CollectorRegistry()))]

    world, _ = run_with(long(), between)
    assert emptied
    report = checked(world)
    same(report, world)
    assert published(world) == published(long_run.world)


def test_the_catalog_is_read_once_whoever_publishes(long_run: Finished) -> None:
    """A model event behind the newest cut changes nothing."""
    world = long_run.world.copy()
    state = ModelState("fraud", 9, "binary", [0, 1], positive=1, aliases={"champion": "9"})
    kind = headers(MODEL_EVENT_TYPE.format(what="promoted"), "test")
    world.broker.append(TOPICS.model_events, 0, b"fraud", encode(ModelEvent("promoted", state)), kind)
    same(checked(world), world)


def question(**changes: str) -> Question:
    """The current settings beside others."""
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return Question(policies(SETTINGS, (), given, joins=True))


def compared(source: Callable[..., Compared], world: World, asked: Question) -> Compared:
    """What a source gives; the log and the store are as they were."""
    before = world.changes
    found = source(SETTINGS, asked, lambda _: None, lambda _: None, MemoryLog(world.broker))
    assert world.changes == before
    return found


@pytest.mark.parametrize("source", [of_summaries, of_inputs])
@pytest.mark.parametrize("name", ["long_run", "wide_run"])
def test_other_settings_are_compared_with_the_current_ones(
    name: str, source: Callable[..., Compared], request: pytest.FixtureRequest
) -> None:
    """The current ones alert as the live run did; a policy that never resolves has fewer records."""
    run: Finished = request.getfixturevalue(name)
    current, other = compared(source, run.world, question(monitor__clean_minutes="1000")).report.policies
    assert (current.policy, other.policy) == ("current", "monitor.clean_minutes=1000")
    assert current.alerts == len(published(run.world))
    assert other.alerts < current.alerts
    assert {each.resolved_s for each in other.episodes} == {None}
    assert None not in {each.resolved_s for each in current.episodes}


@pytest.mark.parametrize("name", ["long_run", "wide_run", "short_run"])
def test_inputs_joined_again_give_the_published_alerts(name: str, request: pytest.FixtureRequest) -> None:
    """To the byte, from predictions and outcomes alone: wherever checkpoints fall, the effects are those of the log."""
    run: Finished = request.getfixturevalue(name)
    broker = MemoryLog(run.world.broker)
    course = read_history(broker, TOPICS).course
    again = Run("again", course, SETTINGS)
    joins = Joined(SETTINGS, course.input_partitions, len(course.plans), course.model_events)
    replay(course, joined(joins, inputs(broker, TOPICS, joins), until_ms=course.end_ms), [again], lambda _: None)
    found = [record for log in run.world.broker.topics[TOPICS.alerts] for record in log]
    expected = {(record.key, dict(record.headers)["ce_id"], record.value) for record in found}
    assert {(alert.key, dict(alert.headers)["ce_id"], alert.value) for alert in again.alerts} == expected


def test_another_horizon_joins_other_pairs(long_run: Finished) -> None:
    """With a short one many outcomes are too late, and the windows of the alerts count fewer."""
    current, short = compared(of_inputs, long_run.world, question(worker__horizon_s="6")).report.policies
    assert current.alarms > 0
    assert short.alarms > 0
    assert [each.summary for each in short.episodes] != [each.summary for each in current.episodes]


def test_one_model_alone_is_as_it_is_among_others(long_run: Finished) -> None:
    """Its outcomes and its alarms; the others are left out."""
    asked = question()
    every = compared(of_summaries, long_run.world, asked)
    one = compared(of_summaries, long_run.world, Question(asked.policies, model="fraud"))
    assert one.report.models == ["fraud"]
    assert every.report.models == ["fraud", "price"]
    assert one.report.outcomes == int(every.outcomes["fraud"][0].outcomes.sum())
    assert one.report.policies[0].episodes == [e for e in every.report.policies[0].episodes if e.model == "fraud"]
    joined_again = compared(of_inputs, long_run.world, Question(asked.policies, model="fraud"))
    assert joined_again.report.policies[0].episodes == one.report.policies[0].episodes
    with pytest.raises(MissingInput, match=r"no outcome of model 'nobody'.*fraud, price"):
        compared(of_summaries, long_run.world, Question(asked.policies, model="nobody"))
