"""Names, partitions and retention of the topics; a broker is asked in the integration tests."""

from __future__ import annotations

from streams.settings import KafkaSettings, Settings, WorkerSettings
from streams.topics import DAY_MS, INPUT_ALIGNED, NAMES, SUMMARY_ALIGNED, Topics, specs


def test_names_are_prefixed_and_use_dashes() -> None:
    """A deployment shares a broker with others by its prefix alone."""
    topics = Topics("acme.")
    assert (topics.predictions, topics.model_events) == ("acme.predictions", "acme.model-events")
    assert Topics().dead_letters == "dead-letters"


def test_every_topic_has_one_spec() -> None:
    """And those that share partition numbers have the same count."""
    settings = Settings(kafka=KafkaSettings(topic_prefix="x-", partitions=7))
    found = {spec.name: spec for spec in specs(settings)}
    topics = Topics("x-")
    assert found.keys() == {getattr(topics, name) for name in NAMES}
    assert len(specs(settings)) == len(NAMES)
    for name in (*INPUT_ALIGNED, *SUMMARY_ALIGNED):
        assert found[getattr(topics, name)].partitions == 7
    assert found[topics.alerts].partitions == found[topics.model_events].partitions == 1


def test_time_is_the_brokers_and_model_events_stay_for_ever() -> None:
    """Alerts are compacted, model events are not: each of them is history."""
    found = {spec.name: spec.config for spec in specs(Settings())}
    assert {config["message.timestamp.type"] for config in found.values()} == {"LogAppendTime"}
    assert (found["model-events"]["retention.ms"], found["model-events"]["cleanup.policy"]) == ("-1", "delete")
    assert "compact" in found["alerts"]["cleanup.policy"]


def test_inputs_are_kept_longer_than_the_horizon() -> None:
    """A prediction must still be there when its outcome may come, and for training after it."""
    found = {spec.name: spec.config for spec in specs(Settings(worker=WorkerSettings(horizon_s=90 * 86_400)))}
    for name in ("predictions", "outcomes", "checkpoints", "labelled"):
        assert int(found[name]["retention.ms"]) >= (90 + 30) * DAY_MS


def test_a_dead_letter_may_be_larger_than_any_input() -> None:
    """It carries the original bytes and headers that say why."""
    found = {spec.name: spec.config for spec in specs(Settings())}
    largest = max(int(found[name]["max.message.bytes"]) for name in ("predictions", "outcomes"))
    assert int(found["dead-letters"]["max.message.bytes"]) > largest
