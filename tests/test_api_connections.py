"""Writes are joined and none is lost on closing; what is no HTTP gets a problem, too."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from alphapulse.api.connections import MOST_HELD_BYTES, Joining
from tests.serving import api_settings, kept, serving


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


async def test_what_is_no_http_is_answered_with_a_problem(ring_prefix: str, tmp_path: Path) -> None:
    settings = api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))
    async with kept(settings) as store, serving(settings, store) as api:
        for request in (b"FOO /health HTTP/1.1", b"get /health HTTP/1.1", b"\0", b"PRI * HTTP/2.0"):
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(request + b"\r\nHost: localhost\r\n\r\n")
            # To the end: the connection is closed.
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
            lines = head.lower().split(b"\r\n")
            assert lines[0] == b"http/1.1 400 bad request", request
            assert b"content-type: application/problem+json" in lines
            assert b"content-length: %d" % len(body) in lines
            problem = json.loads(body)
            assert (problem["type"], problem["status"]) == ("about:blank", 400)
            assert problem["title"] == "Bad Request"


async def test_a_websocket_is_answered_as_any_request(
    ring_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = api_settings(ring_prefix, path=str(tmp_path / "history.duckdb"))
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    async with kept(settings) as store, serving(settings, store) as api:
        with caplog.at_level(logging.WARNING):
            assert (await api.http.get("/health/live", headers=upgrade)).status_code == 200
    # The library's would advise to install one of its own.
    assert not [each for each in caplog.records if "install" in each.getMessage()]
