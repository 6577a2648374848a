"""How a model's state changes: pure functions on the state, refused with the reason that a person is told."""

from __future__ import annotations

import msgspec

from streams.events import Baseline, ModelState, Profile

WEEK_MS = 7 * 86_400_000


class Blocked(Exception):
    """A change that must not be made now. ``str()`` is the reason."""


def with_candidate(state: ModelState, version: str, baseline: Baseline, profile: Profile | None) -> ModelState:
    """The state once ``version`` is the challenger."""
    profiles = state.profiles if profile is None else {**state.profiles, version: profile}
    return msgspec.structs.replace(
        state,
        aliases={**state.aliases, "challenger": version},
        baselines={**state.baselines, version: baseline},
        profiles=profiles,
    )


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
    aliases = dict(state.aliases)
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

    Raises :class:`Blocked` with the reason: frozen, another champion than was beaten, another mode, too many.
    """
    if state.mode != "auto":
        raise Blocked(f"the mode is {state.mode}")
    if state.aliases.get("champion") != champion:
        raise Blocked(f"version {champion}, which it was compared with, is no longer the champion")
    allowed = limit if state.max_promotions_per_week is None else state.max_promotions_per_week
    if recent >= allowed:
        raise Blocked(f"{recent} promotions within a week, at most {allowed} are allowed")
    return promoted(state, version, all_frozen=all_frozen)


def dismissed(state: ModelState, version: str) -> ModelState:
    """The state once ``version`` is no challenger any more; what only a challenger needs goes away."""
    aliases = {alias: v for alias, v in state.aliases.items() if (alias, v) != ("challenger", version)}
    if version in aliases.values():
        return msgspec.structs.replace(state, aliases=aliases)
    return msgspec.structs.replace(
        state,
        aliases=aliases,
        baselines={v: b for v, b in state.baselines.items() if v != version},
        profiles={v: p for v, p in state.profiles.items() if v != version},
    )
