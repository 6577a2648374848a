"""One trial: a deployment under traffic and a supervisor, something that breaks, and the verdict afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from streams.audit import AuditReport
from streams.audit_log import audit
from streams.events import Alert
from tests.faults.oracle import Expected, Window, differences, expected
from tests.faults.traffic import BINARY, REGRESSION, Shape, Traffic
from tests.support.driftline import Driftline, eventually
from tests.support.kafka import KafkaBroker
from tests.support.redis import RedisServer
from tests.support.supervisor import Supervisor

SETTINGS: dict[str, str | int | float] = {
    "monitor__for_minutes": 60,
    "monitor__burn_rates": "[]",
    "monitor__clean_minutes": 1,
    "monitor__outcomes_missing_minutes": 100_000,
    "worker__dedupe_rows": 5_000_000,
}
KILLED, UNAVAILABLE, RESTART_ME = -9, 69, 75
"""How a worker may end: by SIGKILL, because a server does not answer, because it gave up on purpose."""
MINUTE_MS = 60_000
CATCH_UP_S = 240.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was checked, in numbers."""

    pairs: int
    alerts: int
    takes: int
    ignored: int
    codes: Counter[int]

    def __str__(self) -> str:
        ends = ", ".join(f"{code}: {n}" for code, n in sorted(self.codes.items())) or "none"
        return (
            f"{self.pairs} pairs exactly once, {self.alerts} alerts as undisturbed, {self.takes} takes,"
            f" {self.ignored} zombie cuts ignored, workers ended by themselves or by a signal: {ends}"
        )


class Trial:
    """Servers and a name space; ``driftline`` is the deployment that is broken, with both models declared."""

    def __init__(
        self, broker: KafkaBroker, store: RedisServer, name: str, folder: Path, **changes: str | int | float
    ) -> None:
        self.broker = broker
        self.store = store
        self._folder = folder
        self._changes = SETTINGS | changes
        self.driftline = Driftline(broker, store, name, folder, **self._changes)

    def prepare(self) -> Driftline:
        """The topics, and what is known of the models."""
        self.driftline.create_topics()
        for model in (BINARY, REGRESSION):
            self.driftline.announce(model)
        return self.driftline

    def traffic(self, shape: Shape | None = None, **config: str | int | float | bool) -> Traffic:
        """Traffic into the deployment."""
        return Traffic(self.driftline, shape or Shape(), **config)

    def joined_more(self, pairs: int, what: str, bound_s: float = CATCH_UP_S) -> int:
        """Wait until so many more pairs have been joined → how many are."""
        before = self.driftline.stored_counters().joined
        return eventually(
            lambda: (joined := self.driftline.stored_counters().joined) >= before + pairs and joined, what, bound_s
        )

    def verify(
        self, supervisor: Supervisor, traffic: Traffic, allowed: Collection[int] = (), *, recorded: bool = True
    ) -> Verdict:
        """End the traffic, let everything be joined, and hold what Driftline says against the topics.

        ``allowed`` are the exit codes that the fault may have caused; ``recorded`` replays the log on one undisturbed
        worker (not a log with holes, which cannot be copied offset by offset).
        """
        traffic.end()
        wanted = expected(self.driftline)
        report = self._audited(supervisor, wanted)
        pairs = self.driftline.pairs()
        assert sorted(pairs ^ wanted.pairs, key=repr)[:10] == []
        eventually(lambda: self.driftline.watermark_ms() > wanted.last_ms, "the monitor has seen everything")
        windows_equal(self.driftline, wanted)
        assert set(supervisor.end()) == {0}
        surprising = [each for each in supervisor.ended if each.code not in allowed]
        assert surprising == []
        alerts = alerts_until(self.driftline, wanted.last_ms)
        if recorded:
            self._replay(wanted, alerts)
        return Verdict(
            pairs=wanted.counters.joined,
            alerts=len(alerts),
            takes=sum(each.takes for each in report.partitions),
            ignored=sum(each.ignored_cuts for each in report.partitions),
            codes=supervisor.codes(),
        )

    def _audited(self, supervisor: Supervisor, wanted: Expected) -> AuditReport:
        """Everything is joined, the law holds, and the counters are those of the oracle."""

        def complete() -> bool:
            assert supervisor.given_up() == []
            return self.driftline.stored_counters() == wanted.counters

        try:
            eventually(complete, "every record has its fate", CATCH_UP_S)
        except AssertionError as error:
            stored = differences(self.driftline.stored_counters(), wanted.counters)
            tails = "\n".join(worker.tail(8) for worker in supervisor.workers)
            raise AssertionError(f"{error}; found and wanted: {stored}; {supervisor.ended}\n{tails}") from None
        report = audit(self.driftline.settings, follow_to_end=True)
        assert report.violations == []
        assert report.conserved
        assert report.lag == {"predictions": 0, "outcomes": 0}
        assert differences(report.totals.counters, wanted.counters) == {}
        assert (report.totals.pending, report.totals.waiting) == (wanted.unanswered, wanted.unmatched)
        return report

    def _replay(self, wanted: Expected, alerts: dict[str, Alert]) -> None:
        """The same log, read by one worker in peace, gives the same pairs and alerts."""
        changes = self._changes | {"kafka__accept_create_time": "true"}
        with Driftline(self.broker, self.store, f"{self.driftline.name}r", self._folder, **changes) as peaceful:
            peaceful.take_log_of(self.driftline)
            worker = peaceful.worker()
            eventually(lambda: peaceful.watermark_ms() > wanted.last_ms, "the replay has seen everything", CATCH_UP_S)
            assert sorted(peaceful.pairs() ^ wanted.pairs, key=repr)[:10] == []
            assert worker.terminate() == 0, worker.tail()
            replayed = alerts_until(peaceful, wanted.last_ms)
            ends_ms = self.driftline.watermark_ms(), peaceful.watermark_ms()
        require_same(alerts, replayed, ends_ms)


def windows_equal(driftline: Driftline, wanted: Expected) -> None:
    """The windows of a day hold every pair with its newest outcome."""

    def told() -> dict[tuple[str, str], Window]:
        return {
            (model, version["version"]): _window(version["windows"]["24h"])
            for model, status in driftline.status().items()
            for version in status["versions"]
        }

    def same() -> bool:
        found = told()
        return found.keys() == wanted.windows.keys() and all(
            (found[key].n, found[key].right) == (window.n, window.right)
            and found[key].absolute == pytest.approx(window.absolute, rel=1e-9)
            for key, window in wanted.windows.items()
        )

    try:
        eventually(same, "the windows are those of the oracle", 30.0)
    except AssertionError as error:
        raise AssertionError(f"{error}: found {told()}, wanted {dict(wanted.windows)}") from None


def _window(measures: Mapping[str, float]) -> Window:
    n = int(measures["n"])
    if "mae" in measures:
        return Window(n, absolute=n * measures["mae"])
    return Window(n, right=round(n * measures["accuracy"]))


def alerts_until(driftline: Driftline, last_ms: int) -> dict[str, Alert]:
    """Alerts of the time of the log: what comes after its end depends on when the workers were stopped."""
    return {identity: alert for identity, alert in driftline.alerts().items() if _at_ms(alert) <= last_ms}


def require_same(live: dict[str, Alert], replayed: dict[str, Alert], ends_ms: tuple[int, int]) -> None:
    """The alerts of two deployments whose monitors had come so far when they were stopped.

    Only one may have come to the end of a minute behind the log, at which severity may rise, the four rates are looked
    at and what was held is told: updates of an episode that fires, which carry the time of its first detection.
    """
    further = [live, replayed][ends_ms[1] > ends_ms[0]]
    minutes = {end_ms // MINUTE_MS for end_ms in ends_ms}
    more = {i for i in live.keys() ^ replayed.keys() if len(minutes) > 1 and i in further and _updates(further[i])}
    found = [{i: alert for i, alert in each.items() if i not in more} for each in (replayed, live)]
    assert sorted(found[0]) == sorted(found[1]), ends_ms
    assert found[0] == found[1]


def _updates(alert: Alert) -> bool:
    return alert.status == "firing" and alert.sequence > 1


def _at_ms(alert: Alert) -> float:
    found = alert.drift.detected_at if alert.drift is not None else None
    at = alert.ends_at if alert.status == "resolved" else found or alert.starts_at
    return datetime.fromisoformat(at).timestamp() * 1000
