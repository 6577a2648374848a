"""The runs of every model, beside its versions: one small file for each step, made once and never changed.

The file of the highest step is what a run is now. Whoever has lost a run to another process without knowing, because it
was stopped for longer than its lease, finds its next step taken: that is the fence.
"""

from __future__ import annotations

import re

import msgspec

from retrain.lifecycle import FORMAT, PROMOTED, Run
from serving.storage import open_storage
from streams.errors import StateMismatch

STEP_FILE = re.compile(r"([^.]+)\.([0-9]{6,})\.json")
MAX_RUN_BYTES = 4 * 1024 * 1024
KEPT = 200
"""Runs of a model that came to nothing and are remembered."""


class Superseded(Exception):
    """Another process has taken the run further: stop without a further effect."""


class RunStore:
    """Runs in ``<root>/<model>/runs/<episode>.<step>.json``. Thread-safe."""

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self._ended: dict[tuple[str, str], Run] = {}

    def create(self, run: Run) -> bool:
        """Record a new run, at its first step; False if its episode has one already."""
        try:
            self._storage.create(_path(run.model, run.episode, 0), _encode(msgspec.structs.replace(run, step=0)))
        except FileExistsError:
            return False
        return True

    def save(self, run: Run) -> None:
        """Record the next step of a run. Raises :class:`Superseded` if that step was taken already."""
        try:
            self._storage.create(_path(run.model, run.episode, run.step), _encode(run))
        except FileExistsError:
            raise _superseded(run) from None

    def load(self, model: str, episode: str) -> Run:
        """A run as it was last saved. Raises :class:`StateMismatch` for a file that cannot be read."""
        return self._load(model, episode, self._steps(model)[episode])

    def require_newest(self, run: Run) -> None:
        """Raise :class:`Superseded` if the run is at another step by now, or was forgotten."""
        if self._steps(run.model).get(run.episode) != run.step:
            raise _superseded(run)

    def of(self, model: str) -> list[Run]:
        """Every run of a model, oldest first."""
        runs = []
        for episode, step in self._steps(model).items():
            try:
                runs.append(self._load(model, episode, step))
            except FileNotFoundError:
                continue  # another process has just forgotten it
        return sorted(runs, key=lambda run: (run.triggered_ms, run.episode))

    def _steps(self, model: str) -> dict[str, int]:
        """Episode → its highest step."""
        found: dict[str, int] = {}
        for name in self._storage.names(f"{model}/runs"):
            if (match := STEP_FILE.fullmatch(name)) is not None:
                found[match[1]] = max(found.get(match[1], 0), int(match[2]))
        return found

    def _load(self, model: str, episode: str, step: int) -> Run:
        known = self._ended.get((model, episode))
        if known is not None and known.step == step:
            return known
        path = _path(model, episode, step)
        try:
            run = msgspec.json.decode(self._storage.read(path, MAX_RUN_BYTES), type=Run)
            if run.format > FORMAT:
                raise ValueError(f"its format {run.format} is newer than this program's ({FORMAT})")
        except ValueError as error:
            raise StateMismatch(f"{self._storage.uri(path)} cannot be read: {error}", "restore or remove it") from None
        if run.ended:
            self._ended[model, episode] = run  # it hardly ever changes again: listing stays cheap
        return run

    def forget(self, model: str, keep: int = KEPT) -> None:
        """Remove the oldest runs that nobody asked for and that came to nothing, all but the newest ``keep`` of them.

        They come by the minute, and every look at a model reads its runs. One that had a winner stays: its challenger
        may be in the audit trail, which only the run explains.
        """
        idle = [run for run in self.of(model) if run.idle and not run.better]
        for run in idle[: max(0, len(idle) - keep)]:
            for step in range(run.step + 1):  # the last one last: until then it is still the same run
                self._storage.remove(_path(model, run.episode, step))
            self._ended.pop((model, run.episode), None)

    def promoted_since(self, model: str, since_ms: int) -> int:
        """How many runs of a model made a promotion since then that no person approved, whatever became of it."""
        made = (run for run in self.of(model) if run.state in PROMOTED and not run.approved)
        return sum((run.promoted_ms or run.updated_ms) >= since_ms for run in made)


def _superseded(run: Run) -> Superseded:
    return Superseded(f"another process has taken the run {run.episode} of {run.model} further")


def _path(model: str, episode: str, step: int) -> str:
    return f"{model}/runs/{episode}.{step:06d}.json"


def _encode(run: Run) -> bytes:
    return msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n"
