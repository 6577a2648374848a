"""The runs of every model, beside its versions: one small file an episode, replaced whole at each step."""

from __future__ import annotations

import msgspec

from retrain.lifecycle import FORMAT, PROMOTED, Run
from serving.storage import open_storage
from streams.errors import StateMismatch

MAX_RUN_BYTES = 4 * 1024 * 1024


class RunStore:
    """Runs in ``<root>/<model>/runs/<episode>.json``. Thread-safe for different runs."""

    def __init__(self, url: str) -> None:
        self._storage = open_storage(url)
        self._ended: dict[tuple[str, str], Run] = {}

    def create(self, run: Run) -> bool:
        """Record a new run; False if its episode has one already."""
        try:
            self._storage.create(_path(run.model, run.episode), _encode(run))
        except FileExistsError:
            return False
        return True

    def save(self, run: Run) -> None:
        """Replace a run by its next step."""
        self._storage.replace(_path(run.model, run.episode), _encode(run))

    def load(self, model: str, episode: str) -> Run:
        """A run as it was last saved. Raises :class:`StateMismatch` for a file that cannot be read."""
        if (known := self._ended.get((model, episode))) is not None:
            return known
        path = _path(model, episode)
        try:
            run = msgspec.json.decode(self._storage.read(path, MAX_RUN_BYTES), type=Run)
            if run.format > FORMAT:
                raise ValueError(f"its format {run.format} is newer than this program's ({FORMAT})")
        except ValueError as error:
            raise StateMismatch(f"{self._storage.uri(path)} cannot be read: {error}", "restore or remove it") from None
        if run.ended:
            self._ended[model, episode] = run  # it never changes again: listing stays cheap
        return run

    def of(self, model: str) -> list[Run]:
        """Every run of a model, oldest first."""
        names = [n for n in self._storage.names(f"{model}/runs") if n.endswith(".json") and not n.startswith(".")]
        runs = [self.load(model, name.removesuffix(".json")) for name in names]
        return sorted(runs, key=lambda run: (run.triggered_ms, run.episode))

    def promoted_since(self, model: str, since_ms: int) -> int:
        """How many runs of a model led to a promotion since then, whatever became of it."""
        return sum(run.state in PROMOTED and (run.promoted_ms or run.updated_ms) >= since_ms for run in self.of(model))


def _path(model: str, episode: str) -> str:
    return f"{model}/runs/{episode}.json"


def _encode(run: Run) -> bytes:
    return msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n"
