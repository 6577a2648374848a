"""Bounds so small that a few rows reach them: splits, windows, compaction and ceilings."""

from __future__ import annotations

import pytest

from streams import join, partition, rows, stored, summarise, timeline


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Let splits, compaction and ceilings happen within a few rows."""
    patch.setattr(summarise, "SUMMARY_ROWS", 3)
    patch.setattr(join, "CEILING_OFFSETS", 3)
    patch.setattr(timeline, "WINDOW_ROWS", 5)
    patch.setattr(rows, "MINIMUM_ROWS", 2)
    patch.setattr(stored, "BLOB_ROWS", 2)
    patch.setattr(partition, "COMPLETE_EVERY_MS", 20_000)
    patch.setattr(stored, "COMPACT_ROWS", 2)
    patch.setattr(stored, "COMPACT_FACTOR", 1)
