"""From when on rows are new to a version, by the log's time, whatever the clock of the host that made it says."""

from pathlib import Path

import msgspec
import pytest

from retrain.collecting import AHEAD_MS, made_ms
from retrain.runs import RunStore
from retrain.tables import Table
from serving.repository import Repository
from tests.unit.retrain.loop import SETTINGS, Loop
from tests.unit.retrain.rows import (
    PROBLEM,
    SECOND_MS,
    START_MS,
    MemoryAnnouncer,
    MemoryLog,
    concept,
    dataset,
    features,
)


def ahead_by(ms: int, folder: Path) -> Loop:
    """A loop whose first version was made of a file on a host whose clock is ahead of the log's."""
    loop = Loop(Repository(str(folder)), RunStore(str(folder)), MemoryLog(), MemoryAnnouncer(), START_MS + ms)
    rows = features(500, seed=3)
    table = Table(PROBLEM, dataset(rows, concept(rows, changed=False)))
    loop.administration.register(table, SETTINGS, mode="auto", trained_from={"file": "loans.csv"})
    loop.now_ms = START_MS
    return loop


def test_a_host_whose_clock_is_ahead_holds_no_run_up(tmp_path: Path) -> None:
    """Two hours: what the version itself predicted came after it was made."""
    loop = ahead_by(2 * 3_600_000, tmp_path)
    loop.live(changed=True)
    run = loop.finish(loop.alerted())
    assert (run.state, run.tested_rows) == ("promoted", 400)


@pytest.mark.parametrize(
    ("ahead_ms", "expected_ms"),
    [
        (2 * 3_600_000, START_MS),
        (100 * SECOND_MS, START_MS + 100 * SECOND_MS),
        (AHEAD_MS + 100 * SECOND_MS, START_MS + 100 * SECOND_MS),
    ],
)
def test_a_version_counts_from_its_first_row_if_the_log_has_none_since_it_was_made(
    ahead_ms: int, expected_ms: int, tmp_path: Path
) -> None:
    """Rows of within a day; where rows are newer than the version its own clock is believed."""
    loop = ahead_by(ahead_ms, tmp_path)
    loop.live(changed=False)
    manifest = loop.repository.manifest("loans", 1)
    assert made_ms(loop.log, manifest, lambda: None) == expected_ms


def test_rows_of_another_version_say_nothing_of_when_one_was_made(tmp_path: Path) -> None:
    """Nor of another model; a version that was made of the log has the log's time."""
    loop = ahead_by(2 * 3_600_000, tmp_path)
    loop.live(changed=False)
    manifest = msgspec.structs.replace(loop.repository.manifest("loans", 1), version=2)
    created_ms = START_MS + 2 * 3_600_000
    assert made_ms(loop.log, manifest, lambda: None) == created_ms
    assert made_ms(loop.log, msgspec.structs.replace(manifest, version=1, model="m"), lambda: None) == created_ms
    of_the_log = msgspec.structs.replace(manifest, trained_from={"to_ms": START_MS + 7})
    assert made_ms(loop.log, of_the_log, lambda: None) == START_MS + 8
