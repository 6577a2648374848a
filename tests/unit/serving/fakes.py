"""A sender that keeps records instead of sending them; it passes the same contract suite as the real producer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from streams.codec import Headers
from streams.errors import RestartMe
from streams.log import Delivery


@dataclass(frozen=True)
class Sent:
    """One record as it was sent."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers


class RecordingSender:
    """Acknowledges from a thread of its own, as a producer does; can hold acknowledgements back, and fail."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._waiting: list[tuple[str, Callable[[Delivery], None] | None]] = []
        self._offset = -1
        self._failure: str | None = None
        self._changed = threading.Condition()
        self._held = False
        self._closed = False
        self._thread = threading.Thread(target=self._acknowledge, daemon=True)
        self._thread.start()

    def _acknowledge(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._waiting and not self._held))
                if self._closed and (self._held or not self._waiting):
                    return
                topic, delivered = self._waiting[0]
                self._offset += 1
            if delivered is not None:
                delivered(Delivery(topic, 0, self._offset, 0))
            with self._changed:
                del self._waiting[0]
                self._changed.notify_all()

    def hold(self, held: bool) -> None:
        """Acknowledge nothing, like a broker that is away; or go on."""
        with self._changed:
            self._held = held
            self._changed.notify_all()

    def fail(self) -> None:
        """A delivery fails."""
        self._failure = "predictions: message timed out"

    def send(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None = None,
        headers: Headers | None = None,
        partition: int | None = None,
        delivered: Callable[[Delivery], None] | None = None,
    ) -> None:
        """Keep one record."""
        self.check()
        with self._changed:
            self.sent.append(Sent(topic, key, value, headers or ()))
            self._waiting.append((topic, delivered))
            self._changed.notify_all()

    def check(self) -> None:
        """Raise if a delivery failed."""
        if self._failure:
            raise RestartMe(f"a record could not be delivered: {self._failure}")

    def waiting(self) -> int:
        """Records not yet acknowledged."""
        with self._changed:
            return len(self._waiting)

    def flush(self, timeout_s: float = 60.0) -> None:
        """Wait for the acknowledgements."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout_s)
            left = len(self._waiting)
        self.check()
        if left:
            raise RestartMe(f"{left} records are not acknowledged after {timeout_s:g} s")

    def close(self, timeout_s: float = 10.0) -> None:
        """Flush and stop."""
        try:
            self.flush(timeout_s)
        finally:
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            self._thread.join()
