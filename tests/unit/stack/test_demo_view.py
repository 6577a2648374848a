"""What the demo shows."""

import io
from pathlib import Path

from rich.console import Console

from stack.demo import Accuracies, DemoReport, Fired, Progress, Scenario, Version, generate
from stack.demo_view import accuracies, plot, render, rolling, sparkline, timeline

REPORT = DemoReport(
    drift_row=300,
    alert_row=360,
    promoted_row=500,
    swapped_row=510,
    accuracy=Accuracies(before=0.97, drifted=0.5, recovered=None, static=0.48, loop=0.8),
    alerts=[Fired(360, "firing", "ConceptDriftDetected", "Model loan has been wrong more often")],
    versions=[Version("1", "serving", 0), Version("2", "promoted", 500, reason="better")],
    conserved=True,
    violations=[],
    rows=1_000,
    seconds=60.0,
)


def test_rolling_is_the_share_of_the_last_rows() -> None:
    """The share is over the rows there are until the window is full, then over the window."""
    assert rolling([True, False, True, True], 2) == [1.0, 0.5, 0.5, 1.0]


def test_sparkline_keeps_to_its_columns_and_scale() -> None:
    """Values at or below .4 are the lowest bar, 1 is the highest, and the line is no wider than asked."""
    assert sparkline([0.0, 0.4, 1.0], 10) == "▁▁█"
    assert len(sparkline([0.9] * 1_000, 50)) == 50
    assert sparkline([], 50) == ""


def test_timeline_tells_events_in_order_with_their_distance_from_the_drift() -> None:
    """Rows are sorted, and each says how far after the drift it was."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(timeline(REPORT))
    lines = console.export_text().splitlines()
    rows = [line.split()[0] for line in lines if line.strip()[:1].isdigit()]
    assert rows == ["0", "300", "360", "500"]
    assert any("+60" in line and "firing" in line for line in lines)


def test_an_accuracy_that_was_not_reached_is_a_dash() -> None:
    """Without a promotion there is no recovered accuracy, and none is made up."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(accuracies(REPORT))
    text = console.export_text()
    assert "–" in next(line for line in text.splitlines() if "promoted version" in line)
    assert "0.480" in text


def test_the_live_view_renders_at_every_stage() -> None:
    """Before the first row, in the middle and after the drift."""
    progress = Progress(Scenario(before_rows=3, after_rows=3))
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(progress))
    progress.correct += [True, False, True, True]
    progress.served_by += ["1"] * 4
    progress.alerts += REPORT.alerts
    progress.versions += REPORT.versions
    console.print(render(progress))
    text = console.export_text()
    assert "row 0 of 6" in text
    assert "row 4 of 6" in text
    assert "changed 1 rows ago" in text
    assert "wrong more often" in text


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    """The picture is written where asked, folders included."""
    progress = Progress(Scenario())
    progress.correct += [row % 3 > 0 for row in range(1_000)]
    path = tmp_path / "pictures" / "demo.png"
    plot(REPORT, progress, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_generated_stream_is_the_same_each_time_and_its_concept_matters() -> None:
    """Same seed, same rows; another concept gives the same applicants other labels."""
    first, again = list(generate(0, 300, 0.0, 7)), list(generate(0, 300, 0.0, 7))
    other = list(generate(2, 300, 0.0, 7))
    assert first == again
    assert [features for features, _ in first] == [features for features, _ in other]
    differing = sum(a != b for (_, a), (_, b) in zip(first, other, strict=True))
    assert differing > 60
