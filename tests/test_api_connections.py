"""What is written in one go is sent in one go, and nothing is lost on closing."""

from __future__ import annotations

import asyncio
from typing import Any

from alphapulse.api.connections import MOST_HELD_BYTES, Joining


class Recorder(asyncio.Transport):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__({"peername": "somebody"})
        self.told: list[Any] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.told.append(bytes(data))

    def is_closing(self) -> bool:
        return "closed" in self.told or "aborted" in self.told

    def close(self) -> None:
        self.told.append("closed")

    def abort(self) -> None:
        self.told.append("aborted")

    def pause_reading(self) -> None:
        self.told.append("paused")

    def resume_reading(self) -> None:
        self.told.append("resumed")


def joined() -> tuple[Joining, list[Any]]:
    recorder = Recorder()
    return Joining(recorder, asyncio.get_running_loop()), recorder.told


async def test_what_is_written_together_is_sent_together() -> None:
    transport, told = joined()
    transport.write(b"head")
    transport.writelines([b"bo", b"dy"])
    assert told == []
    await asyncio.sleep(0)
    assert told == [b"headbody"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert told == [b"headbody", b"next"]
    await asyncio.sleep(0)
    assert told == [b"headbody", b"next"]


async def test_closing_sends_what_is_held_and_aborting_drops_it() -> None:
    transport, told = joined()
    transport.write(b"last")
    transport.close()
    await asyncio.sleep(0)
    assert told == [b"last", "closed"]
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert told == [b"last", "closed"]
    transport, told = joined()
    transport.write(b"nothing")
    transport.abort()
    await asyncio.sleep(0)
    assert told == ["aborted"]


async def test_little_is_held() -> None:
    transport, told = joined()
    transport.write(b"x")
    transport.write(b"y" * MOST_HELD_BYTES)
    assert [len(data) for data in told] == [MOST_HELD_BYTES + 1]
    await asyncio.sleep(0)
    assert len(told) == 1


async def test_the_rest_is_the_transports_own() -> None:
    transport, told = joined()
    transport.pause_reading()
    transport.resume_reading()
    assert told == ["paused", "resumed"]
    assert transport.get_extra_info("peername") == "somebody"
    assert not transport.is_closing()
