"""The record of one run: each step is persisted before the next, and what it did to its model is published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from retrain.announce import Announcer, described
from retrain.lifecycle import Run, RunState, move
from retrain.promotion import Blocked
from retrain.runs import RunStore
from serving.history import LOOP, Change
from serving.repository import Repository
from streams.errors import Unavailable
from streams.events import ModelEvent, ModelEventKind, ModelState, rfc3339


class RunRecord:
    """One run as one process takes it on. ``check`` is called before each step and raises to abort."""

    def __init__(
        self,
        repository: Repository,
        runs: RunStore,
        announcer: Announcer,
        now_ms: Callable[[], int],
        run: Run,
        check: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._runs = runs
        self._announcer = announcer
        self._now_ms = now_ms
        self._check = check
        self._log = structlog.get_logger("retrain").bind(model=run.model, episode=run.episode)
        self.run = run

    def state(self) -> ModelState:
        """The state of the run's model. Raises :class:`Unavailable` for one that was taken away."""
        state = self._repository.state(self.run.model)
        if state is None:
            raise Unavailable(f"the model {self.run.model} is no longer in the repository", "restore it")
        return state

    def require_champion(self, state: ModelState) -> None:
        """Raise :class:`Blocked` if another version serves than the one that the run is to replace."""
        if state.aliases.get("champion") != self.run.champion:
            raise Blocked(f"version {self.run.champion}, which the run is about, is no longer the champion")

    def move(self, state: RunState, **known: Any) -> None:
        """Take a step; ``known`` are fields learnt by it."""
        self._check()
        moved = move(self.run, state, self._now_ms(), **known)
        self._runs.save(moved)
        self.run = moved
        self._log.info("run", state=state, version=moved.version, reason=moved.reason)

    def keep(self, **known: Any) -> None:
        """Persist what was learnt within a step."""
        kept = msgspec.structs.replace(self.run, step=self.run.step + 1, **known)
        self._runs.save(kept)
        self.run = kept

    def change(self, update: Callable[[ModelState], ModelState], what: str, reason: str | None = None) -> ModelState:
        """Change the model's state, on record as ``what`` the loop did to the run's version.

        Raises :class:`Superseded` if the run is another process's by now. Whoever takes it over after that look, and
        changes the state first, takes the revision: then there is another look.
        """
        version = None if self.run.version is None else str(self.run.version)
        why = Change(LOOP, rfc3339(self._now_ms()), what, version, reason)

        def ours(state: ModelState) -> ModelState:
            self._runs.require_newest(self.run)
            return update(state)

        return self._repository.change(self.run.model, ours, why)

    def tell(self, kind: ModelEventKind, state: ModelState, alias: str | None = None, **more: str | None) -> None:
        """Publish what happened to the model; ``more`` may hold ``reason`` and ``detail``.

        Raises :class:`Superseded` if the run is another process's by now, which then says so itself.
        """
        self._runs.require_newest(self.run)
        run = self.run
        written = run.better is not None
        event = ModelEvent(
            kind,
            state=state,
            version=str(run.version) if written else None,
            alias=alias,
            trigger=run.trigger,
            at=rfc3339(self._now_ms()),
            by=LOOP,
            reason=more.get("reason"),
            detail=more.get("detail"),
        )
        self._announcer.publish(described(self._repository, event))
