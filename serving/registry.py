"""Which versions are loaded, and the swap from one champion to the next under load.

A swap loads and warms the new session first and then replaces one reference: a request uses what it found when it
began. A version that cannot be loaded leaves the old one serving, as Triton does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from prometheus_client import Histogram

from serving.engine import LoadedModel, UnusableModel
from serving.metrics import ServeMetrics
from serving.repository import CorruptVersion, Repository
from streams.errors import DriftlineError, StateMismatch
from streams.events import ModelState

CHAMPION = "champion"
SHADOW = "shadow"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version ready to answer, with the histogram of its inference times."""

    engine: LoadedModel
    seconds: Histogram


@dataclass(frozen=True, slots=True)
class Served:
    """One model as it is served: the champion answers when no version is named.

    ``shadow`` is asked the same rows for comparison; None for none, or for one that could not be loaded.
    """

    revision: int
    champion: int
    versions: Mapping[int, Loaded]
    shadow: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the repository index."""

    model: str
    version: int
    ready: bool
    reason: str


class ModelRegistry:
    """The served models. Reading never blocks; changes come one at a time, from any thread but the event loop's."""

    def __init__(self, repository: Repository, metrics: ServeMetrics, threads: int = 1) -> None:
        self._repository = repository
        self._metrics = metrics
        self._threads = threads
        self._served: dict[str, Served] = {}
        self._unloaded: set[str] = set()
        self._changing = threading.Lock()

    def models(self) -> list[str]:
        """Names of the models that are served."""
        return sorted(self._served)

    def served(self, model: str) -> Served | None:
        """A model as it is served now."""
        return self._served.get(model)

    def find(self, model: str, version: int | None = None) -> Loaded | None:
        """The champion, or one loaded version; None for what is not loaded."""
        served = self._served.get(model)
        if served is None:
            return None
        return served.versions.get(served.champion if version is None else version)

    def beside(self, loaded: Loaded) -> Loaded | None:
        """The shadow that is asked the rows which ``loaded`` answers; None unless that is the champion and has one."""
        served = self._served.get(loaded.engine.model)
        if served is None or served.shadow is None or served.champion != loaded.engine.version:
            return None
        return served.versions.get(served.shadow)

    def apply(self, state: ModelState) -> bool:
        """Serve what ``state`` says, unless a state of its revision or a higher one is served → whether it changed.

        Raises a :class:`DriftlineError` if the champion cannot be loaded; what was served goes on.
        """
        with self._changing:
            served = self._served.get(state.model)
            if state.model in self._unloaded or (served and served.revision >= state.revision):
                return False
            return self._apply(state, served)

    def load(self, model: str) -> None:
        """Read a model's state in the repository again and serve it. Raises as :meth:`apply`."""
        state = self._repository.state(model)
        with self._changing:
            served = self._served.get(model)
            self._unloaded.discard(model)
            if state is not None and (served is None or served.revision <= state.revision):
                self._apply(state, served)

    def unload(self, model: str) -> bool:
        """Stop serving a model until :meth:`load` → whether it was served."""
        with self._changing:
            served = self._served.pop(model, None)
            if served is None:
                return False
            self._unloaded.add(model)
            self._retire(model, served)
            log.info("model unloaded", model=model)
            return True

    def index(self) -> list[Listed]:
        """Every version of the repository and whether it is loaded."""
        lines = []
        for model in self._repository.models():
            loaded = served.versions if (served := self._served.get(model)) else {}
            reason = "unloaded" if model in self._unloaded else "no alias names it"
            versions = self._repository.versions(model)
            lines += [Listed(model, v, v in loaded, "" if v in loaded else reason) for v in versions]
        return lines

    def _apply(self, state: ModelState, served: Served | None) -> bool:
        aliases = {alias: _number(state, version) for alias, version in state.aliases.items()}
        champion = aliases.get(CHAMPION)
        if champion is None:
            if served is not None:
                del self._served[state.model]
                self._retire(state.model, served)
            return served is not None
        before = dict(served.versions) if served else {}
        after = {champion: before.get(champion) or self._load(state.model, champion)}
        for alias, version in aliases.items():
            if alias == SHADOW and version == aliases.get("challenger"):
                continue  # it was tried already
            try:
                after[version] = after.get(version) or before.get(version) or self._load(state.model, version)
            except DriftlineError as error:  # only the champion must be there
                log.warning("version not loaded", model=state.model, version=version, alias=alias, error=str(error))
        shadow = _comparable(after[champion], after.get(aliases.get(SHADOW, champion)))
        self._served[state.model] = Served(state.revision, champion, after, shadow)
        if shadow is not None and (served is None or served.shadow != shadow):
            log.info("shadow answers too", model=state.model, version=shadow, champion=champion)
        self._metrics.serves(state.model, champion, served.champion if served else None)
        for version in before.keys() - after.keys():
            self._metrics.retires(state.model, version)
        if served is None or served.champion != champion:
            log.info("champion serves", model=state.model, version=champion, revision=state.revision)
        return True

    def _load(self, model: str, version: int) -> Loaded:
        try:
            manifest = self._repository.manifest(model, version)
            engine = LoadedModel(self._repository.load(model, version), manifest, self._threads)
            engine.warm_up()
        except UnusableModel as error:
            self._metrics.reloads.labels("failed").inc()
            raise CorruptVersion(
                f"{self._repository.uri(model, version)} is not served: {error}", "promote another version"
            ) from None
        except DriftlineError:
            self._metrics.reloads.labels("failed").inc()
            raise
        self._metrics.reloads.labels("loaded").inc()
        return Loaded(engine, self._metrics.timer(model, version))

    def _retire(self, model: str, served: Served) -> None:
        self._metrics.stops_serving(model, served.champion)
        for version in served.versions:
            self._metrics.retires(model, version)


def _comparable(champion: Loaded, shadow: Loaded | None) -> int | None:
    """The number of a shadow that can be asked the champion's rows."""
    if shadow is None or shadow.engine.version == champion.engine.version:
        return None
    ours, theirs = champion.engine.manifest, shadow.engine.manifest
    if (ours.task, ours.classes, ours.signature.features) == (theirs.task, theirs.classes, theirs.signature.features):
        return theirs.version
    log.warning("shadow not asked: it takes other rows, or answers otherwise", model=ours.model, version=theirs.version)
    return None


def _number(state: ModelState, version: str) -> int:
    try:
        return int(version)
    except ValueError:
        raise StateMismatch(
            f"the state {state.revision} of {state.model} names the version {version!r}, which is not a number",
            "versions in the repository are whole numbers",
        ) from None
