"""Clients that only receive: what each WebSocket library leaves for everything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any

import uvloop

from alphapulse.process import gc_tuned

SUBSCRIBE = b'{"method":"subscribe","params":{"channel":"book"}}'


class _Count:
    """Counts frames; those that come before the blast are ``first`` in number.

    Tells the parent when they are there, and at the last frame wall and CPU seconds of the rest.
    """

    def __init__(self, pipe: Connection, first: int, total: int) -> None:
        self._pipe = pipe
        self._first = first
        self._last = first + total
        self._seen = 0
        self._begun = (0.0, 0.0)

    def frame(self) -> bool:
        """Count one; True after the last."""
        self._seen = seen = self._seen + 1
        if seen == self._first:
            self._pipe.send(None)
        elif seen == self._first + 1:
            self._begun = (time.perf_counter(), time.process_time())
        elif seen == self._last:
            wall, cpu = self._begun
            self._pipe.send((time.perf_counter() - wall, time.process_time() - cpu))
            return True
        return False


async def _websockets(url: str, count: _Count) -> None:
    from websockets.asyncio.client import connect

    async with connect(url, compression=None, max_size=None) as connection:
        await connection.send(SUBSCRIBE.decode())
        while True:
            await connection.recv(decode=False)
            if count.frame():
                return


async def _aiohttp(url: str, count: _Count) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, compress=0, max_msg_size=0) as connection,
    ):
        await connection.send_str(SUBSCRIBE.decode())
        async for _message in connection:
            if count.frame():
                return


async def _picows(url: str, count: _Count) -> None:
    from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

    class Listener(WSListener):
        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.send(WSMsgType.TEXT, SUBSCRIBE)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            frame.get_payload_as_bytes()
            if count.frame():
                transport.disconnect()

    transport, _ = await ws_connect(Listener, url)
    await transport.wait_disconnected()


CLIENTS: dict[str, Callable[[str, _Count], Coroutine[Any, Any, None]]] = {
    "websockets": _websockets,
    "aiohttp": _aiohttp,
    "picows": _picows,
}
"""By the library's name."""


def receive(name: str, url: str, pipe: Connection, first: int, total: int) -> None:
    """Be one of the clients, in a process of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, gc_tuned():
        runner.run(CLIENTS[name](url, _Count(pipe, first, total)))
