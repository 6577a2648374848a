"""Who changed a model's state, when and why: written in one piece with the state that it led to, and never again."""

from __future__ import annotations

import msgspec

from streams.events import ModelState

LOOP = "driftline retrain"
"""Who acts when no person did."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change: ``by`` a person (user@host) or the loop, ``at`` in RFC 3339, ``what`` a verb such as ``promoted``.

    ``version`` is the one that it is about; ``reason`` is in words, of a person or of a comparison.
    """

    by: str
    at: str
    what: str
    version: str | None = None
    reason: str | None = None


class Revision(ModelState, omit_defaults=True):
    """A model's state with the change that led to it; None for one that nobody explained."""

    change: Change | None = None

    @classmethod
    def of(cls, state: ModelState, change: Change | None) -> Revision:
        """``state`` as it is kept."""
        return cls(**{name: getattr(state, name) for name in ModelState.__struct_fields__}, change=change)
