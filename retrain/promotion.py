"""How a model's state changes: pure functions on the state, refused with the reason that a person is told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

import msgspec

from retrain.lifecycle import Run, looks_in_vain, promotions
from serving.history import LOOP, Revision
from streams.events import Baseline, ModelState, Profile, milliseconds, rfc3339

WEEK_MS = 7 * 86_400_000
STRICTER, MAX_STRICTER = 4, 4
"""After a second rollback in a row a promotion needs a quarter of the significance, and so on up to four times."""
LOOKS = 20
"""Runs in a row that nobody asked for and nobody won: with the whole significance each."""


class Blocked(Exception):
    """A change that must not be made now. ``str()`` is the reason."""


def with_candidate(
    state: ModelState, version: str, baseline: Baseline, profile: Profile | None, *, shadow: bool = False
) -> ModelState:
    """The state once ``version`` is the challenger; with ``shadow`` it answers beside the champion too."""
    profiles = state.profiles if profile is None else {**state.profiles, version: profile}
    aliases = {**without_shadow(state).aliases, "challenger": version}
    return msgspec.structs.replace(
        state,
        aliases={**aliases, "shadow": version} if shadow else aliases,
        baselines={**state.baselines, version: baseline},
        profiles=profiles,
    )


def without_shadow(state: ModelState) -> ModelState:
    """The state once nothing answers beside the champion."""
    return msgspec.structs.replace(state, aliases={a: v for a, v in state.aliases.items() if a != "shadow"})


def promoted(
    state: ModelState,
    version: str,
    *,
    all_frozen: bool,
    baseline: Baseline | None = None,
    profile: Profile | None = None,
) -> ModelState:
    """The state once ``version`` is the champion; the old one becomes ``previous``.

    Raises :class:`Blocked` while this model or all of them are frozen.
    """
    if state.frozen or all_frozen:
        raise Blocked("frozen")
    aliases = dict(without_shadow(state).aliases)
    champion = aliases.get("champion")
    if champion is not None and champion != version:
        aliases["previous"] = champion
    aliases["champion"] = version
    if aliases.get("challenger") == version:
        del aliases["challenger"]
    baselines = state.baselines if baseline is None else {**state.baselines, version: baseline}
    profiles = state.profiles if profile is None else {**state.profiles, version: profile}
    return msgspec.structs.replace(state, aliases=aliases, baselines=baselines, profiles=profiles)


def automatic(
    state: ModelState, version: str, champion: str, *, all_frozen: bool, recent: int, limit: int
) -> ModelState:
    """A promotion that no person asked for: ``recent`` automatic ones were made within a week.

    Raises :class:`Blocked` with the reason: frozen, another champion than was beaten, another mode, too many. Only the
    challenger is promoted: what was promoted once, and taken back by a person before the run knew, is none any more.
    """
    if state.mode != "auto":
        raise Blocked(f"the mode is {state.mode}")
    if state.aliases.get("challenger") != version:
        raise Blocked(f"version {version} is no longer the challenger")
    if version in state.barred:
        raise Blocked(f"a person has taken version {version} back")
    if state.aliases.get("champion") != champion:
        raise Blocked(f"version {champion}, which it was compared with, is no longer the champion")
    allowed = limit if state.max_promotions_per_week is None else state.max_promotions_per_week
    if recent >= allowed:
        raise Blocked(f"{recent} promotions within a week, at most {allowed} are allowed")
    return promoted(state, version, all_frozen=all_frozen)


def dismissed(state: ModelState, version: str) -> ModelState:
    """The state once ``version`` is no challenger any more; what only a challenger needs goes away."""
    gone = (("challenger", version), ("shadow", version))
    aliases = {alias: v for alias, v in state.aliases.items() if (alias, v) not in gone}
    if version in aliases.values():
        return msgspec.structs.replace(state, aliases=aliases)
    return msgspec.structs.replace(
        state,
        aliases=aliases,
        baselines={v: b for v, b in state.baselines.items() if v != version},
        profiles={v: p for v, p in state.profiles.items() if v != version},
    )


def rolled_back(state: ModelState, version: str, to: str) -> ModelState:
    """The state once ``to`` serves again in the place of ``version``, which did worse. There is no ``previous`` then:
    the way back must not lead to ``version``.

    Neither a freeze nor the weekly maximum stops it: they stop what is new, and this takes something new away. Raises
    :class:`Blocked` if another version serves, or the mode is one in which the loop changes nothing.
    """
    champion = state.aliases.get("champion")
    if champion != version:
        raise Blocked(f"version {champion} took its place")
    if state.mode in ("observe", "recommend"):
        raise Blocked(
            f"the mode is {state.mode}: `driftline models rollback {state.model}` makes version {to} the champion again"
        )
    return returned(state, to)


def returned(
    state: ModelState, to: str, baseline: Baseline | None = None, profile: Profile | None = None
) -> ModelState:
    """The state once the older version ``to`` serves again; without a ``previous``."""
    aliases = {
        alias: v
        for alias, v in state.aliases.items()
        if alias not in ("previous", "shadow") and (alias, v) != ("challenger", to)
    }
    baselines = state.baselines if baseline is None else {**state.baselines, to: baseline}
    profiles = state.profiles if profile is None else {**state.profiles, to: profile}
    return msgspec.structs.replace(state, aliases={**aliases, "champion": to}, baselines=baselines, profiles=profiles)


def barred(state: ModelState, version: str) -> ModelState:
    """The state once a person has said no to ``version``: only a person makes it serve again."""
    return msgspec.structs.replace(state, barred=sorted({*state.barred, version}))


def admitted(state: ModelState, version: str) -> ModelState:
    """The state once a person has chosen ``version``."""
    return msgspec.structs.replace(state, barred=[v for v in state.barred if v != version])


def cooldown_end_ms(runs: Iterable[Run], cooldown_s: float) -> int:
    """Until when (epoch ms) no alert leads to an automatic promotion, because one was rolled back; 0 for no cooldown.

    The old champion serves again, and what raised the alarm about it, often labels that were wrong, may do so again.
    """
    in_a_row = rollbacks_in_a_row(runs)
    return in_a_row[-1].updated_ms + int(cooldown_s * 1000) if in_a_row else 0


def rolled_back_by_hand_ms(newest: Iterable[Revision], since_ms: int) -> int | None:
    """When a person last took a version back, if that was after ``since_ms``; the states come newest first."""
    for revision in newest:
        change = revision.change
        if change is None:
            continue
        at_ms = milliseconds(dt.datetime.fromisoformat(change.at))
        if at_ms <= since_ms:
            return None
        if change.what == "rolledback" and change.by != LOOP:
            return at_ms
    return None


def rollbacks_in_a_row(runs: Iterable[Run]) -> list[Run]:
    """The runs whose versions were rolled back since the last promotion that was confirmed, oldest first."""
    found: list[Run] = []
    for run in sorted(runs, key=lambda r: (r.updated_ms, r.episode)):
        if run.state == "confirmed":
            found = []
        elif run.state == "rolled_back":
            found.append(run)
    return found


def rigour(runs: Iterable[Run]) -> int:
    """By what the significance is divided: what seemed better and was not, twice in a row, needs more of a proof."""
    return int(STRICTER ** min(MAX_STRICTER, max(0, len(rollbacks_in_a_row(runs)) - 1)))


def weariness(runs: Sequence[Run]) -> float:
    """By what a run that nobody asked for divides its significance.

    A champion that serves for long is looked at without end, and each look may promote what is no better. From the
    twentieth in vain on the significance falls with the square of their number: its sum is bounded.
    """
    return float(max(1.0, looks_in_vain(runs) / LOOKS) ** 2)


def cooldown_reason(end_ms: int) -> str:
    """What a person is told of it."""
    return f"a version was rolled back: no automatic promotion before {rfc3339(end_ms)}"


def shadows_of(run: Run, runs: Iterable[Run], limit: int) -> list[str]:
    """The versions to compare a promoted one with: the one it replaced, and what that one had replaced if it was never
    confirmed, and so on; at most ``limit``, nearest first.

    A bad stretch of labels can promote one version after the other, each better than the one before: only the version
    from before the stretch shows what that did.
    """
    by_version = promotions(runs)
    found: list[str] = []
    at: Run | None = run
    while at is not None and len(found) < limit:
        if at.champion in found or at.champion == str(run.version):
            break
        found.append(at.champion)
        before = by_version.get(at.champion)
        earlier = before is not None and (before.promoted_ms or 0) < (at.promoted_ms or 0)
        at = before if earlier and before is not None and before.state not in ("confirmed", "rolled_back") else None
    return found
