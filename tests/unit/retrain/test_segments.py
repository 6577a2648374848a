"""Metrics by the events' segment, and the gate that none may surely lose more than allowed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from retrain.comparison import MetricName
from retrain.contest import Contest, contest
from retrain.dataset import Dataset
from retrain.registration import card_of, manifest_of
from retrain.segments import SIGNIFICANCE, Errors, require_no_loser, segments_of
from retrain.training import Refused
from serving import manifest as manifests
from serving.manifest import Slice
from tests.unit.retrain.loop import SETTINGS, new_loop
from tests.unit.retrain.rows import PROBLEM, concept, dataset, features
from tests.unit.retrain.test_contest import archived, champion, held, mixed
from tests.unit.retrain.test_run import PROBLEMS


def judged(old: Errors, new: Errors, names: list[str], metric: MetricName = "accuracy", allowed: float = 0.05) -> None:
    """The gate."""
    require_no_loser(segments_of(names, old, new, metric), metric, allowed)


def wrong(rows: int, share: float, seed: int = 0) -> Errors:
    """Errors of that share, anywhere."""
    return (np.random.default_rng(seed).random(rows) < share).astype(np.float64)


def test_a_segment_that_surely_loses_stops_a_challenger() -> None:
    """Right on all of the north, where the champion was wrong on half; wrong on a fifth of the south more."""
    names = ["north"] * 300 + ["south"] * 300
    old = np.r_[wrong(300, 0.5), np.zeros(300)]
    new = np.r_[np.zeros(300), wrong(300, 0.2)]
    assert new.mean() < old.mean()
    with pytest.raises(Refused, match=r"south loses 0\.\d+ on 300 rows \(p = .*\), at most 0\.05 is allowed"):
        judged(old, new, names)
    judged(old, new, names, allowed=0.5)


def test_what_may_be_chance_stops_nobody() -> None:
    """Ten points on 50 rows, five of them: no test can tell it from luck."""
    old, new = np.zeros(50), np.zeros(50)
    old[:20] = 1
    new[5:30] = 1
    judged(old, new, ["small"] * 50)
    with pytest.raises(Refused, match="large loses"):
        judged(np.tile(old, 40), np.tile(new, 40), ["large"] * 2_000)


def test_many_segments_of_an_equal_challenger_seldom_stop_it() -> None:
    """Of 200 challengers that are no worse for any of 20 segments, about one in twenty is stopped, not most of them."""
    names = [f"s{i % 20:02}" for i in range(2_000)]
    stopped = 0
    for seed in range(200):
        try:
            judged(wrong(2_000, 0.2, seed), wrong(2_000, 0.2, 10_000 + seed), names)
        except Refused:
            stopped += 1
    assert stopped <= 20


def test_few_rows_and_rows_without_a_segment_are_none() -> None:
    """Nine rows say nothing; "" is no name; and no names at all are no segments."""
    names = ["few"] * 9 + [""] * 100 + ["enough"] * 10
    (only,) = segments_of(names, np.zeros(119), np.ones(119), "accuracy")
    assert (only.name, only.rows, only.champion, only.challenger) == ("enough", 10, 0.0, 1.0)
    assert segments_of([], np.zeros(119), np.ones(119), "accuracy") == []
    with pytest.raises(ValueError, match="names for"):
        segments_of(names, np.zeros(10), np.zeros(10), "accuracy")


@pytest.mark.parametrize("metric", ["accuracy", "mae"])
def test_a_small_segment_is_judged_by_an_exact_test(metric: MetricName) -> None:
    """Of ten rows five lost and none gained are no chance (1 in 32), four may be (1 in 16)."""
    for lost, stopped in ((4, False), (5, True)):
        old = np.full(10, 0.2 if metric == "mae" else 0.0)
        new = np.r_[np.ones(lost), old[lost:]]
        (south,) = segments_of(["south"] * 10, old, new, metric)
        assert south.p_value == pytest.approx(0.5**lost)
        assert south.gain_p_value == 1.0
        if stopped:
            with pytest.raises(Refused, match="south loses"):
                judged(old, new, ["south"] * 10, metric)
        else:
            judged(old, new, ["south"] * 10, metric)


@pytest.mark.parametrize("differ", [5, 6, 10, 13, 25, 49])
def test_the_test_of_a_small_segment_keeps_its_level(differ: int) -> None:
    """Exactly: of all ways in which rows that differ fall out by chance, at most one in twenty is a loss."""
    rows = max(differ, 10)
    refused = 0.0
    for lost in range(differ + 1):
        old, new = np.zeros(rows), np.zeros(rows)
        new[:lost] = 1
        old[lost:differ] = 1
        (found,) = segments_of(["south"] * rows, old, new, "accuracy")
        refused += math.comb(differ, lost) / 2**differ * (found.p_value < SIGNIFICANCE)
    assert refused <= SIGNIFICANCE


def test_numbers_are_compared_by_their_mean_error() -> None:
    """Half as much again as the champion's is a loss of 0.5."""
    rng = np.random.default_rng(1)
    old = rng.random(200)
    with pytest.raises(Refused, match=r"all loses 0\.(49|50)"):
        judged(old, 1.5 * old + rng.normal(0, 0.01, 200), ["all"] * 200, "mae", 0.3)
    judged(old, 1.5 * old, ["all"] * 200, "mae", 0.6)


def segmented() -> Dataset:
    """The changed concept; where it did not change, in the south, the champion is right and a challenger is not."""
    rows = mixed(0)
    south = np.random.default_rng(3).random(600) < 0.3
    kept = champion("binary")(rows.features)
    return replace(
        rows,
        target=np.where(south, kept, rows.target),
        segments=tuple("south" if each else "north" for each in south),
    )


def test_a_contest_is_not_won_at_the_cost_of_a_segment() -> None:
    """Better on the whole, and worse in the south, which the features do not tell: nobody wins, and why is said."""
    with pytest.raises(Refused, match="it treats segments worse than allowed: south loses"):
        held(segmented())
    found = held(segmented(), settings=SETTINGS.model_copy(update={"segment_loss": 1.0}))
    assert found.challenger is not None
    assert found.challenger.segments.keys() == {"north", "south"}


def test_a_version_that_comes_back_is_judged_by_segment_too() -> None:
    """An archived version is no exception; the reason is told beside the others'."""
    rows = segmented()
    right_in_the_north = archived(7, lambda features: mixed(0).target[-len(features) :], 0)
    found = held(rows, archive=[right_in_the_north], trains=False)
    assert found.archived is None
    assert "version 7: it treats segments worse than allowed: south loses" in found.verdict
    allowed = SETTINGS.model_copy(update={"segment_loss": 1.0})
    assert held(rows, archive=[right_in_the_north], trains=False, settings=allowed).archived == 7


def test_a_quick_challenger_is_judged_by_segment_too() -> None:
    """It has 60 test rows, of which 18 are of the south, and loses on half of them."""
    rows, newest = segmented(), slice(400, 600)
    few = replace(
        rows,
        features=rows.features[newest],
        target=rows.target[newest],
        served=rows.served[newest],
        complete_ms=rows.complete_ms[newest],
        segments=rows.segments[newest],
    )
    with pytest.raises(Refused, match=r"segments worse than allowed: south loses 0\.556 on 18 rows"):
        held(few)
    allowed = SETTINGS.model_copy(update={"segment_loss": 1.0})
    assert held(few, settings=allowed).challenger is not None


def lately(south_changed: bool, rows: int = 1_000, changed: int = 120, share: float = 0.08) -> Contest:
    """The concept has changed of late, in the north at least; version 7 knows the new one everywhere."""
    table = features(rows, 5)
    south = np.random.default_rng(1).random(rows) < share
    new = (np.arange(rows) >= rows - changed) & (south_changed | ~south)
    data = dataset(table, np.where(new, concept(table, changed=True), concept(table, changed=False)))
    named = replace(data, segments=tuple("south" if each else "north" for each in south))
    return contest(
        named,
        PROBLEM,
        version=2,
        settings=SETTINGS,
        significance=0.05,
        archive_significance=0.05,
        champion=lambda asked: concept(asked, changed=False),
        fresh=0,
        change=None,
        archive=[archived(7, lambda asked: concept(asked, changed=True))],
        trains=False,
    )


def test_a_segment_is_judged_on_all_rows_and_not_on_those_that_won_alone() -> None:
    """Version 7 wins on the newest 100 rows. They have six of the south, where it is always wrong."""
    found = lately(south_changed=False)
    assert found.archived is None
    assert found.rivals[0].comparison.rows == 100
    assert "version 7: it treats segments worse than allowed: south loses 1.000 on 75 rows" in found.verdict
    assert "the newest 100 rows, by which it won, are too few to say that it does no longer" in found.verdict


def test_what_a_segment_lost_before_a_change_counts_no_more_once_it_surely_gains() -> None:
    """Whoever knows the new concept is wrong about the old one, in every segment."""
    waits = lately(south_changed=True)
    assert waits.archived is None
    assert "south loses 0.840 on 75 rows" in waits.verdict
    assert lately(south_changed=True, share=0.3).archived == 7


def test_manifest_and_card_have_the_metrics_of_each() -> None:
    """Errors beside the champion's, by segment and by group; they survive the file."""
    categories = np.floor(segmented().features[:, 2:] * 2)
    rows = replace(segmented(), features=np.c_[segmented().features[:, :2], categories].astype(np.float32))
    settings = SETTINGS.model_copy(update={"segment_loss": 1.0, "group_loss": 1.0, "groups": ["c"], "test_share": 0.9})
    made = held(rows, settings=settings).challenger
    assert made is not None
    known = {"created_at": "2023-11-14T22:13:20Z", "trained_from": {}, "parent": 1}
    manifest = manifest_of(made, PROBLEMS["binary"], 2, trigger={"kind": "labels"}, **known)  # type: ignore[arg-type]
    south = manifest.segments["south"]
    assert south.champion_error == 0.0
    assert south.error > 0.2
    assert sum(each.rows for each in manifest.segments.values()) == made.test_rows
    assert manifest.groups.keys() == {"c = 0", "c = 1"}
    assert manifests.decode(manifests.encode(manifest)) == manifest
    card = card_of(manifest, made)
    assert f"| segment | south | {south.rows} | {south.error:.4f} | 0.0000 | – | – |" in card
    assert "| group | c = 1 | " in card
    plain = replace(made, segments={"a|b": Slice(60, 0.1)}, groups={})
    assert "| segment | a/b | 60 | 0.1000 | – | – | – |" in card_of(manifest, plain)


def test_segments_come_from_the_predictions(tmp_path: Path) -> None:
    """As producers wrote them: a run of the loop has them in its manifest; rows without one belong to none."""
    loop = new_loop(tmp_path)
    loop.live(changed=True, rows=800)
    for i, event in enumerate(loop.log.partitions[0]):
        if event is not None:
            event.segment = (None, "north", "south")[i % 3]
    run = loop.finish(loop.alerted())
    assert run.state == "promoted", run.reason
    segments = loop.repository.manifest("loans", 2).segments
    assert segments.keys() == {"north", "south"}
    assert [each.rows for each in segments.values()] == [80, 80]
    assert all(each.error < 0.1 and (each.champion_error or 0.0) > 0.9 for each in segments.values())
    assert "| segment | north | 80 |" in loop.repository.card("loans", 2)
