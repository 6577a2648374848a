"""A table of labelled predictions as the two inputs: a CSV file (also .gz), read in pieces, no broker needed.

Columns: ``prediction`` and ``outcome``, or the last column as the outcome; optionally ``time`` (RFC 3339 or epoch
seconds, when the prediction was made), ``model``, ``version``, ``segment``, ``delay`` (seconds until the outcome).
Other columns are ignored. Without ``time`` the rows are ``rate`` a second. Whole numbers, truth values and texts are
classes, fractions are not.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from streams.errors import MissingInput, WrongSetting
from streams.replay.joined import Raw
from streams.replay.run import Progress

ROWS = 50_000
"""Rows that are read at a time."""
START_S = 1_700_000_040
"""Stream time of the first row where the table has none: a whole minute."""
DEFAULTS = {"model": "csv", "version": "1"}
MARGIN_MS = 60_000
"""Stream time goes on so long behind the last row: the minute of that is judged."""


class Table:
    """The rows of a file as records of partition 0 of both inputs."""

    def __init__(self, file: Path, rate: float) -> None:
        self.file = file
        self.rows = 0
        self.last_ms = 0
        self._rate = rate
        self._newest_ms = -(1 << 61)
        self._offsets = [0, 0]
        self._waiting: list[tuple[int, int, bytes]] = []
        """Outcomes that are later than the rows read so far: time, row, value."""

    def records(self, progress: Progress = lambda _: None) -> Iterator[Raw]:
        """The records, in order of their times. ``progress`` is told how much of the file has been read.

        Raises :class:`MissingInput` without the file, :class:`WrongSetting` for a table that lacks a column, steps
        back in time, or has a value that is none.
        """
        texts = {"model": str, "version": str, "segment": str}
        try:
            size = max(1, self.file.stat().st_size)
            with self.file.open("rb") as raw:
                packed: Literal["gzip"] | None = "gzip" if self.file.suffix == ".gz" else None
                with pd.read_csv(raw, chunksize=ROWS, dtype=texts, compression=packed) as pieces:
                    for piece in pieces:
                        yield from self._records(piece)
                        progress(min(1.0, raw.tell() / size))
        except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, EOFError) as error:
            raise WrongSetting(f"{self.file} is not a CSV file: {str(error).strip()}", "a header and rows") from None
        except OSError as error:
            raise MissingInput(f"{self.file} cannot be read: {error.strerror or error}", "check --csv") from None
        yield from self._due(None)

    def _records(self, piece: pd.DataFrame) -> Sequence[Raw]:
        outcome = "outcome" if "outcome" in piece.columns else str(piece.columns[-1])
        if "prediction" not in piece.columns or outcome == "prediction":
            raise WrongSetting(
                f"{self.file} has no columns prediction and outcome, but {', '.join(map(str, piece.columns[:12]))}",
                "name them so; the outcome may be the last column",
            )
        for name in ("prediction", outcome):
            empty = piece[name].isna()
            if empty.any():
                raise WrongSetting(
                    f"{self.file}: row {self.rows + int(np.argmax(empty.to_numpy())) + 1} has no {name}",
                    "leave out rows without an outcome, and write every prediction",
                )
        at_ms = self._times(piece)
        delays_ms = self._delays(piece)
        made: list[Raw] = []
        columns = {n: piece[n].tolist() for n in ("model", "version", "segment") if n in piece.columns}
        said, true = piece["prediction"].tolist(), piece[outcome].tolist()
        for row, at in enumerate(at_ms.tolist()):
            made.extend(self._due(at))
            identity = f"{self.rows + row}"
            event: dict[str, Any] = {"prediction_id": identity, **DEFAULTS, "prediction": said[row]}
            for name, values in columns.items():
                if isinstance(values[row], str):  # an empty cell is none
                    event[name] = values[row]
            made.append(self._raw(0, at, msgspec.json.encode(event)))
            value = msgspec.json.encode({"prediction_id": identity, "outcome": true[row]})
            heapq.heappush(self._waiting, (at + int(delays_ms[row]), self.rows + row, value))
        self.rows += len(piece)
        made.extend(self._due(self.last_ms))
        return made

    def _due(self, until_ms: int | None) -> list[Raw]:
        """The outcomes before a time, or all."""
        due: list[Raw] = []
        while self._waiting and (until_ms is None or self._waiting[0][0] < until_ms):
            at_ms, _, value = heapq.heappop(self._waiting)
            due.append(self._raw(1, at_ms, value))
        return due

    def _raw(self, side: int, at_ms: int, value: bytes) -> Raw:
        offset = self._offsets[side]
        self._offsets[side] += 1
        self.last_ms = max(self.last_ms, at_ms)
        return Raw(side, 0, offset, at_ms, value)

    def _times(self, piece: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
        if "time" not in piece.columns:
            return START_S * 1000 + (np.arange(self.rows, self.rows + len(piece)) * (1000 / self._rate)).astype(
                np.int64
            )
        column = piece["time"]
        try:
            if pd.api.types.is_numeric_dtype(column):
                at_ms = (column.to_numpy(np.float64) * 1000).round().astype(np.int64)
            else:
                parsed = pd.to_datetime(column, utc=True, format="ISO8601")
                at_ms = parsed.to_numpy("datetime64[ms]").astype(np.int64)
        except (ValueError, TypeError) as error:
            raise WrongSetting(f"{self.file}: a time is none ({error})", "RFC 3339 or epoch seconds") from None
        back = np.flatnonzero(np.diff(at_ms, prepend=self._newest_ms) < 0)
        if len(back):
            raise WrongSetting(
                f"{self.file}: row {self.rows + int(back[0]) + 1} is earlier than the row before it", "sort it by time"
            )
        self._newest_ms = int(at_ms[-1])
        return at_ms

    def _delays(self, piece: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
        if "delay" not in piece.columns:
            return np.zeros(len(piece), np.int64)
        try:
            delays = piece["delay"].to_numpy(np.float64)
        except (ValueError, TypeError):
            delays = np.array([np.nan])
        if not (delays >= 0).all():
            raise WrongSetting(f"{self.file}: a delay is no number of seconds, 0 or more", "mend the column delay")
        return (delays * 1000).astype(np.int64)
