"""What a person does to the model repository: registers, freezes, approves, rejects, promotes, rolls back, and more.

Each change is made in the repository first and published then; a failure between the two is made good by `driftline
retrain` within minutes, or by whoever asks for the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from retrain.announce import Announcer, catch_up, described
from retrain.approvals import approval_of, offer_of
from retrain.lifecycle import Run, move
from retrain.promotion import Blocked, admitted, barred, dismissed, promoted, returned
from retrain.registration import card_of, manifest_of
from retrain.run import Challenger, Stage, challenge
from retrain.runs import RunStore
from retrain.tables import Table
from retrain.training import Refused
from serving.history import Change
from serving.manifest import Manifest
from serving.repository import Repository
from streams.errors import MissingInput, WrongSetting
from streams.events import Mode, ModelEvent, ModelEventKind, ModelState, Profile, rfc3339
from streams.settings import RetrainSettings


@dataclass(frozen=True, slots=True)
class Administration:
    """Changes to models by hand, each on record with who, when and why.

    ``announcer`` None changes without telling anybody (a repository prepared offline). ``by`` is who acts; ``say``
    gets what they should know beside the result. ``runs`` are those of the loop, None where there is none.
    """

    repository: Repository
    announcer: Announcer | None
    now_ms: Callable[[], int]
    by: str = "somebody"
    say: Callable[[str], None] = lambda _: None
    runs: RunStore | None = None

    def register(
        self,
        table: Table,
        settings: RetrainSettings,
        *,
        mode: Mode | None = None,
        trained_from: dict[str, Any],
        stage: Callable[[Stage], None] = lambda _: None,
    ) -> tuple[Manifest, ModelState]:
        """Train, export, verify and register a version; the champion if the model has none.

        Raises :class:`WrongSetting` if no model comes of the table, or if it answers something else than its model.
        """
        model = table.problem.model
        self._require_alike(table)
        version = self.repository.reserve_version(model)
        try:
            challenger = challenge(table.rows, table.problem, version=version, settings=settings, stage=stage)
        except Refused as error:
            raise WrongSetting(f"no model comes of these rows: {error}", "check the table and --task") from None
        manifest = self._write(table, challenger, version, trained_from)
        return manifest, self._enter(manifest, mode)

    def _require_alike(self, table: Table) -> None:
        state = self.repository.state(table.problem.model)
        if state is None:
            return
        classes = list(table.problem.classes) or None
        if state.task != table.problem.task or (state.classes or None) != classes:
            raise WrongSetting(
                f"the model {state.model} is {state.task} with classes {state.classes}, the table is"
                f" {table.problem.task} with {classes}",
                "choose another --model, or --task and --label",
            )

    def _write(self, table: Table, challenger: Challenger, version: int, source: dict[str, Any]) -> Manifest:
        manifest = manifest_of(
            challenger,
            table.problem,
            version,
            created_at=rfc3339(self.now_ms()),
            trained_from={**source, "rows": len(table.rows), "data_sha256": challenger.data_sha256},
            trigger={},
            parent=None,
        )
        card = card_of(manifest, challenger)
        self.repository.write_version(table.problem.model, version, challenger.onnx, manifest, card)
        return manifest

    def _enter(self, manifest: Manifest, mode: Mode | None) -> ModelState:
        model, version = manifest.model, str(manifest.version)
        profile = self._profile(manifest)

        def update(state: ModelState) -> ModelState:
            aliases = state.aliases if "champion" in state.aliases else {**state.aliases, "champion": version}
            baselines = {**state.baselines, version: manifest.baseline} if manifest.baseline else state.baselines
            return msgspec.structs.replace(
                state,
                aliases=aliases,
                baselines=baselines,
                profiles={**state.profiles, version: profile},
                mode=mode or state.mode,
            )

        if self.repository.state(model) is None:
            first = update(
                ModelState(
                    model,
                    revision=1,
                    task=manifest.task,
                    classes=manifest.classes or None,
                    positive=manifest.positive,
                )
            )
            state = self.repository.create_state(model, first, self._why("registered", version, None))
        else:
            state = self._change(model, update, "registered", version)
        alias = "champion" if state.aliases.get("champion") == version else None
        self._tell("registered", state, version=version, alias=alias)
        return state

    def freeze(self, model: str, frozen: bool, reason: str | None = None) -> ModelState:
        """Stop the promotions of a model, or allow them again."""
        what = "freeze" if frozen else "unfreeze"
        state = self._change(model, lambda s: msgspec.structs.replace(s, frozen=frozen), what, reason=reason)
        self._tell("registered", state, detail=what, reason=reason)
        return state

    def freeze_all(self, frozen: bool, reason: str | None = None) -> list[str]:
        """Stop the promotions of all models, or allow them again → the models there are.

        Each model's state gets a new revision too: a promotion that looked before the freeze was written finds its
        revision taken, looks again, and is refused.
        """
        what = "freeze-all" if frozen else "unfreeze-all"
        self.repository.freeze_all(frozen)
        models = [model for model in self.repository.models() if self.repository.state(model) is not None]
        for model in models:
            state = self._change(model, lambda s: s, what, reason=reason)
            self._tell("registered", state, detail=what, reason=reason)
        return models

    def frozen(self) -> list[str]:
        """The models whose promotions are stopped, each by its own freeze or by that of all."""
        every = self.repository.all_frozen()
        states = ((model, self.repository.state(model)) for model in self.repository.models())
        return [model for model, state in states if state is not None and (every or state.frozen)]

    def set_mode(self, model: str, mode: Mode, reason: str | None = None) -> ModelState:
        """Set what the loop may do to a model."""
        state = self._change(model, lambda s: msgspec.structs.replace(s, mode=mode), f"mode {mode}", reason=reason)
        self._tell("registered", state, detail="mode", reason=reason)
        return state

    def approve(
        self, model: str, version: int | None = None, reason: str | None = None, *, force: bool = False
    ) -> ModelState:
        """Promote the challenger; ``version`` guards against approving another than the one that was looked at.

        Raises :class:`WrongSetting` unless ``force`` if another version serves than the one that it has beaten.
        """
        if "challenger" not in self._state(model).aliases:
            return self._again(model, "approved", _no_challenger(model))
        challenger = self._challenger(model, version)
        run = None if self.runs is None else offer_of(self.runs.of(model), challenger)
        beaten = self.repository.manifest(model, challenger).parent if run is None else run.champion

        def require(state: ModelState) -> None:
            if state.aliases.get("challenger") != str(challenger):
                raise Blocked(f"version {challenger} is no longer the challenger")
            champion = state.aliases.get("champion")
            if not force and beaten is not None and champion != str(beaten):
                raise Blocked(
                    f"it was better than version {beaten}, but version {champion} serves now;"
                    " --force promotes it all the same"
                )

        return self._promote(model, challenger, "approved", reason, require, run)

    def reject(self, model: str, version: int | None = None, reason: str | None = None) -> ModelState:
        """Send the challenger away; ``version`` guards as for :meth:`approve`.

        A run that waits for it ends, and no other proposes it again.
        """
        if "challenger" not in self._state(model).aliases:
            return self._again(model, "rejected", _no_challenger(model))
        challenger = str(self._challenger(model, version))

        def update(state: ModelState) -> ModelState:
            if state.aliases.get("challenger") != challenger:
                raise Blocked(f"version {challenger} is no longer the challenger")
            return barred(dismissed(state, challenger), challenger)

        try:
            state = self._change(model, update, "rejected", challenger, reason)
        except Blocked as error:
            raise WrongSetting(f"nothing is rejected: {error}", f"see `driftline models show {model}`") from None
        self._tell("rejected", state, version=challenger, detail="by hand", reason=reason)
        return state

    def promote(self, model: str, version: int, reason: str | None = None) -> ModelState:
        """Make any complete version the champion."""
        self._require_version(model, version)
        if self._state(model).aliases.get("champion") == str(version):
            return self._again(model, None, _serves_already(model, str(version)))
        return self._promote(model, version, "promoted", reason)

    def rollback(self, model: str, to: int | None = None, reason: str | None = None) -> ModelState:
        """Make the previous version the champion again, or the one that is named. No freeze stops it.

        The loop does not undo it: it never promotes again what was taken back, and nothing at all for a while.
        """
        aliases = self._state(model).aliases
        champion, target = aliases.get("champion"), aliases.get("previous") if to is None else str(to)
        if champion is None or target is None:
            nothing = WrongSetting(
                f"{model} has no previous version", f"name one: `driftline models rollback {model} --to VERSION`"
            )
            return self._again(model, "rolledback", nothing)
        if champion == target:
            return self._again(model, None, _serves_already(model, target))
        manifest = self._require_version(model, int(target))
        self.repository.load(model, manifest.version)  # a version that cannot be loaded must not become the champion
        profile = self._profile(manifest)

        def update(state: ModelState) -> ModelState:
            if state.aliases.get("champion") != champion:
                raise Blocked(f"version {state.aliases.get('champion')} has become the champion")
            return barred(admitted(returned(state, target, manifest.baseline, profile), target), champion)

        try:
            state = self._change(model, update, "rolledback", champion, reason)
        except Blocked as error:
            raise WrongSetting(f"{model} is not rolled back: {error}", f"see `driftline models show {model}`") from None
        self._tell("rolledback", state, version=champion, detail=f"by hand, to version {target}", reason=reason)
        return state

    def _again(self, model: str, what: str | None, nothing: WrongSetting) -> ModelState:
        """Answer a request that leaves nothing to do: its publication may have failed the first time.

        Publishes the state if that was so. Raises ``nothing`` if it was not, or if the newest change is not ``what``.
        """
        if self.announcer is None:
            raise nothing
        published = self.announcer.last_states()
        if not catch_up(self.repository, self.announcer, model, published, rfc3339(self.now_ms())):
            raise nothing
        state, change = self._state(model), next(self.repository.newest(model)).change
        self.say(f"revision {state.revision} of {model} had not been published: it is now")
        if what is not None and (change is None or change.what != what):
            raise nothing
        return state

    def _challenger(self, model: str, version: int | None) -> int:
        challenger = self._state(model).aliases.get("challenger")
        if challenger is None:
            raise _no_challenger(model)
        if version is not None and challenger != str(version):
            raise WrongSetting(f"the challenger of {model} is version {challenger}, not {version}", "look again")
        return int(challenger)

    def _require_version(self, model: str, version: int) -> Manifest:
        self._state(model)
        if version not in self.repository.versions(model):
            raise MissingInput(f"{model} has no version {version}", f"see `driftline models show {model}`")
        return self.repository.manifest(model, version)

    def _promote(
        self,
        model: str,
        version: int,
        what: str,
        reason: str | None,
        require: Callable[[ModelState], None] = lambda _: None,
        run: Run | None = None,
    ) -> ModelState:
        """``require`` raises :class:`Blocked` on a state that must not be changed; ``run`` is what proposed it."""
        manifest = self.repository.manifest(model, version)
        self.repository.load(model, version)  # a version that cannot be loaded must not become the champion
        profile = self._profile(manifest)

        def update(state: ModelState) -> ModelState:
            require(state)
            changed = promoted(
                state,
                str(version),
                all_frozen=self.repository.all_frozen(),
                baseline=manifest.baseline,
                profile=profile,
            )
            return admitted(changed, str(version))

        try:
            state = self._change(model, update, what, str(version), reason)
        except Blocked as error:
            raise WrongSetting(
                f"version {version} of {model} is not promoted: {error}", f"see `driftline models show {model}`"
            ) from None
        if self.runs is not None and run is not None and run.state == "recommended":  # one that waits sees it itself
            self.runs.save(move(run, "promoted", self.now_ms(), **approval_of(run, state)))
        self._tell("promoted", state, version=str(version), alias="champion", detail="by hand", reason=reason)
        return state

    def _profile(self, manifest: Manifest) -> Profile:
        model, version = manifest.model, manifest.version
        return Profile(self.repository.uri(model, version), self.repository.manifest_hash(model, version))

    def _state(self, model: str) -> ModelState:
        state = self.repository.state(model)
        if state is None:
            raise MissingInput(f"there is no model {model}", "`driftline models list` shows what there is")
        return state

    def _change(
        self,
        model: str,
        update: Callable[[ModelState], ModelState],
        what: str,
        version: str | None = None,
        reason: str | None = None,
    ) -> ModelState:
        self._state(model)
        return self.repository.change(model, update, self._why(what, version, reason))

    def _why(self, what: str, version: str | None, reason: str | None) -> Change:
        return Change(self.by, rfc3339(self.now_ms()), what, version, reason)

    def _tell(
        self,
        kind: ModelEventKind,
        state: ModelState,
        version: str | None = None,
        alias: str | None = None,
        detail: str | None = None,
        reason: str | None = None,
    ) -> None:
        if self.announcer is None:
            return
        at = rfc3339(self.now_ms())
        event = ModelEvent(
            kind, state=state, version=version, alias=alias, at=at, by=self.by, detail=detail, reason=reason
        )
        self.announcer.publish(described(self.repository, event))


def _serves_already(model: str, version: str) -> WrongSetting:
    return WrongSetting(f"version {version} of {model} serves already", f"see `driftline models show {model}`")


def _no_challenger(model: str) -> WrongSetting:
    return WrongSetting(f"{model} has no challenger", f"see `driftline models show {model}`")
