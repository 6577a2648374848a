"""What publishing relies on of a sender; the fake here, the real producer in tests/integration."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from serving.publisher import Sender
from tests.unit.serving.fakes import RecordingSender
from tests.unit.serving.waiting import eventually


class SenderContract:
    """Every sender passes these."""

    topic = "predictions"

    def test_delivered_is_called_once_a_record_in_another_thread(self, sender: Sender) -> None:
        """An acknowledgement comes by itself, without a flush, and not from the thread that sends."""
        threads: list[int] = []
        for i in range(100):
            sender.send(
                self.topic, b"{}", key=str(i).encode(), delivered=lambda _: threads.append(threading.get_ident())
            )
        eventually(lambda: len(threads) >= 100, "all are acknowledged")
        assert len(threads) == 100
        assert threading.get_ident() not in threads

    def test_flush_waits_for_every_acknowledgement(self, sender: Sender) -> None:
        """After a flush nothing waits."""
        for i in range(100):
            sender.send(self.topic, b"{}", key=str(i).encode(), headers=[("ce_id", b"1")])
        sender.flush()
        assert sender.waiting() == 0
        sender.check()


class TestRecordingSender(SenderContract):
    """The fake."""

    @pytest.fixture
    def sender(self) -> Iterator[Sender]:
        made = RecordingSender()
        yield made
        made.close()
