"""The queue between a connection and its reader is bounded, and ends in order."""

from __future__ import annotations

import asyncio

import pytest

from alphapulse.client.events import Disconnected
from alphapulse.client.feed import Kind
from alphapulse.client.inbox import ENTRY_BYTES, TAKE_BYTES, Inbox
from alphapulse.errors import ClientClosed

MESSAGE = bytes(1000 - ENTRY_BYTES)


class Socket:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pause(self) -> None:
        self.asked.append("pause")

    def go_on(self) -> None:
        self.asked.append("go on")


async def test_a_full_one_pauses_and_goes_on_at_half() -> None:
    inbox, socket = Inbox(1_000_000), Socket()
    inbox.attach(socket)
    for _ in range(999):
        inbox.put(Kind.TEXT, MESSAGE)
    assert socket.asked == []
    inbox.put(Kind.TEXT, MESSAGE)
    assert socket.asked == ["pause"]
    assert inbox.was_paused
    assert inbox.waiting_bytes == 1_000_000
    taken = 0
    while inbox.paused:
        assert inbox.waiting_bytes > 500_000
        entries = await inbox.take()
        assert len(entries) <= TAKE_BYTES // 1000 + 1
        taken += len(entries)
    assert inbox.waiting_bytes == 1_000_000 - taken * 1000 <= 500_000
    assert socket.asked == ["pause", "go on"]
    inbox.attach(Socket())
    assert not inbox.was_paused


async def test_an_awaited_answer_may_lie_behind_as_much_again() -> None:
    inbox, socket = Inbox(10_000), Socket()
    inbox.attach(socket)
    for _ in range(10):
        inbox.put(Kind.TEXT, MESSAGE)
    inbox.await_answer(1)
    assert socket.asked == ["pause", "go on"]
    for _ in range(10):
        inbox.put(Kind.TEXT, MESSAGE)
    assert socket.asked == ["pause", "go on", "pause"], "twice as much is the limit"
    inbox.await_answer(-1)
    assert inbox.paused
    await inbox.take()
    assert socket.asked == ["pause", "go on"] * 2


async def test_it_ends_when_all_was_taken() -> None:
    inbox = Inbox(1000)
    inbox.put(Kind.RECORD, b"1")
    inbox.note(Disconnected(reason="gone", code=None, received_ns=0))
    inbox.end(ClientClosed("first"))
    inbox.end(ClientClosed("second"))
    assert [kind for kind, _ in await inbox.take()] == [Kind.RECORD, Kind.NOTE]
    assert inbox.waiting_bytes == 0
    for _ in range(2):
        with pytest.raises(ClientClosed, match="first"):
            await inbox.take()


async def test_waiting_can_be_cancelled_without_loss() -> None:
    inbox = Inbox(1000)
    waiting = asyncio.create_task(inbox.take())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    inbox.put(Kind.TEXT, b"{}")
    assert await inbox.take() == [(Kind.TEXT, b"{}")]
