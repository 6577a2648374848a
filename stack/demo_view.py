"""What the demo shows: a live view of accuracy, alerts and versions, a timeline at the end, and a plot."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stack.demo import DemoReport, Progress

BARS = "▁▂▃▄▅▆▇█"
SPARK_COLUMNS = 72
WINDOW_ROWS = 250
REFRESH_S = 0.25
LINE_EVERY_S = 5.0


def rolling(correct: Sequence[bool], window: int) -> list[float]:
    """Share of right predictions over the last ``window`` rows, at each row."""
    shares: list[float] = []
    right = 0
    for row, flag in enumerate(correct):
        right += flag
        if row >= window:
            right -= correct[row - window]
        shares.append(right / min(row + 1, window))
    return shares


def sparkline(values: Sequence[float], columns: int) -> str:
    """Values in [0, 1] as one line of bars; the scale is from .4 to 1, where accuracies live."""
    if not values:
        return ""
    step = max(1, len(values) // columns)
    picked = values[::step][-columns:]
    return "".join(BARS[min(7, max(0, int((v - 0.4) / 0.6 * 8)))] for v in picked)


@contextmanager
def watching(console: Console, progress: Progress) -> Iterator[None]:
    """Show the progress while inside: live on a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        with _Lines(console, progress):
            yield
        return
    with Live(
        get_renderable=lambda: render(progress), console=console, refresh_per_second=1 / REFRESH_S, transient=True
    ):
        yield


def render(progress: Progress) -> RenderableType:
    """The live view."""
    s = progress.scenario
    total = s.before_rows + s.after_rows
    shares = rolling(progress.correct[-20_000:], WINDOW_ROWS)
    now = f"{shares[-1]:.3f}" if shares else "–"
    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    head.add_row(Text(f"{s.model}: {progress.stage}", style="bold"), f"row {progress.row} of {total}")
    drift = Text("the concept changes at row " + str(s.before_rows), style="dim")
    if progress.row > s.before_rows:
        drift = Text(f"the concept changed {progress.row - s.before_rows} rows ago", style="yellow")
    events = Table.grid(padding=(0, 2))
    for alert in progress.alerts[-4:]:
        style = "red" if alert.status == "firing" else "green"
        events.add_row(f"row {alert.row}", Text(alert.status, style=style), alert.summary)
    for version in progress.versions[-6:]:
        events.add_row(f"row {version.row}", Text(version.what, style="cyan"), _version_text(version.version, version))
    bar = Table.grid(expand=True)
    bar.add_row(ProgressBar(total=total, completed=progress.row))
    body: list[RenderableType] = [
        head,
        bar,
        drift,
        Text(f"accuracy, last {WINDOW_ROWS} rows: {now}"),
        Text(sparkline(shares, SPARK_COLUMNS), style="bright_blue"),
        events,
    ]
    if not progress.correct:
        body.append(Text("\n".join(progress.lines[-8:]), style="dim"))
    return Panel(Group(*body), title="Driftline demo")


def _version_text(name: str, version: object) -> str:
    reason = getattr(version, "reason", None)
    return f"version {name}" + (f": {reason}" if reason else "")


class _Lines:
    """A line when something happens, and one every few seconds, for a log that is not a terminal."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-lines", daemon=True)
        self._said = [0, 0, 0]

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._new()

    def _run(self) -> None:
        next_s = time.monotonic() + LINE_EVERY_S
        while not self._stop.wait(REFRESH_S):
            self._new()
            if time.monotonic() >= next_s and self._progress.correct:
                next_s = time.monotonic() + LINE_EVERY_S
                share = rolling(self._progress.correct[-WINDOW_ROWS:], WINDOW_ROWS)[-1]
                self._say(f"row {self._progress.row}  accuracy {share:.3f}")

    def _new(self) -> None:
        p = self._progress
        for line in p.lines[self._said[0] :]:
            self._say(line)
        for alert in p.alerts[self._said[1] :]:
            self._say(f"row {alert.row}  {alert.status}: {alert.summary}")
        for version in p.versions[self._said[2] :]:
            self._say(f"row {version.row}  {version.what}: {_version_text(version.version, version)}")
        self._said = [len(p.lines), len(p.alerts), len(p.versions)]

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def timeline(report: DemoReport) -> Table:
    """What happened, in order, with the distance from the drift."""
    table = Table(title="What happened", box=None, title_justify="left")
    table.add_column("row", justify="right")
    table.add_column("after the drift", justify="right")
    table.add_column("what")
    events: list[tuple[int, str]] = [(report.drift_row, "the concept changes (nobody is told)")]
    events += [(a.row, f"alert {a.status}: {a.summary}") for a in report.alerts]
    for version in report.versions:
        text = {
            "registered": "registered",
            "candidate": f"challenger trained, parity checked on {version.parity_rows or '?'} rows",
            "promoted": "promoted",
            "rejected": f"rejected: {version.reason}",
            "serving": "serving",
        }.get(version.what, version.what)
        events.append((version.row, f"version {version.version}: {text}"))
    for row, what in sorted(events, key=lambda e: e[0]):
        after = row - report.drift_row
        table.add_row(str(row), f"{after:+d}" if row else "", what)
    return table


def accuracies(report: DemoReport) -> Table:
    """The accuracies before, during and after."""
    table = Table(title="Accuracy", box=None, title_justify="left")
    table.add_column("when")
    table.add_column("share right", justify="right")
    a = report.accuracy
    for name, value in (
        ("before the drift", a.before),
        ("from the drift to the swap", a.drifted),
        ("last rows, promoted version", a.recovered),
        ("after the drift, had nothing been done", a.static),
        ("after the drift, as served", a.loop),
    ):
        table.add_row(name, "–" if value is None else f"{value:.3f}")
    return table


def plot(report: DemoReport, progress: Progress, path: Path) -> None:
    """Accuracy by row with drift, alert and swap marked, as PNG. Raises ``ModuleNotFoundError`` without matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.5), dpi=120)
    axes.plot(rolling(progress.correct, WINDOW_ROWS), color="#1f5fa8", linewidth=1.5, label="as served")
    marks = [
        (report.drift_row, "#b8860b", "concept changes"),
        (report.alert_row, "#c0392b", "alert"),
        (report.swapped_row, "#1e8449", "new version serves"),
    ]
    for row, color, name in marks:
        if row is not None:
            axes.axvline(row, color=color, linestyle="--", linewidth=1.3, label=f"{name} (row {row})")
    axes.axhline(report.accuracy.static, color="gray", linestyle=":", label="after the drift, had nothing been done")
    axes.set_xlabel("row")
    axes.set_ylabel(f"accuracy over the last {WINDOW_ROWS} rows")
    axes.set_ylim(0.3, 1.02)
    axes.set_xlim(0, max(1, report.rows))
    axes.legend(loc="lower right", fontsize=8)
    axes.set_title("Driftline: an abrupt concept change, noticed and mended")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
