"""WebSocket servers as one writes them with other libraries: ``python -m ... NAME PIPE``.

Each reads lines from the pipe (number of a symbol, tab, JSON text) and sends the text as a message
to all clients that have subscribed to the symbol; it says on stdout at which port it listens.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import uvloop

from alphapulse.process import gc_tuned

_SYMBOL = re.compile(r'"A(\d+)-USD"')
_SUBSCRIBED = '{"type":"subscribed"}'


def subscribed_to(request: str | bytes) -> list[int]:
    """Numbers of the symbols in a subscription."""
    text = request if isinstance(request, str) else request.decode()
    return [int(number) for number in _SYMBOL.findall(text)]


class _Lines(asyncio.Protocol):
    """Calls ``deliver(symbol, text)`` with each line of the pipe."""

    def __init__(self, deliver: Callable[[int, bytes], None]) -> None:
        self._deliver = deliver
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            number, _, text = line.partition(b"\t")
            self._deliver(int(number), text)


async def _events(pipe: int, deliver: Callable[[int, bytes], None]) -> None:
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: _Lines(deliver), os.fdopen(pipe, "rb", buffering=0))


async def _ended() -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


async def _websockets(pipe: int) -> None:
    from websockets.asyncio.server import ServerConnection, broadcast, serve

    groups: defaultdict[int, set[ServerConnection]] = defaultdict(set)

    async def handle(connection: ServerConnection) -> None:
        mine = subscribed_to(await connection.recv())
        for number in mine:
            groups[number].add(connection)
        await connection.send(_SUBSCRIBED)
        try:
            await connection.wait_closed()
        finally:
            for number in mine:
                groups[number].discard(connection)

    def deliver(number: int, text: bytes) -> None:
        broadcast(groups[number], text.decode())

    async with serve(handle, "127.0.0.1", 0, compression=None, backlog=1024) as server:
        await _events(pipe, deliver)
        print(server.sockets[0].getsockname()[1], flush=True)
        await _ended()


async def _picows(pipe: int) -> None:
    import picows

    groups: defaultdict[int, set[picows.WSTransport]] = defaultdict(set)

    class Listener(picows.WSListener):
        mine: list[int] = []  # noqa: RUF012 - replaced, never changed

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()
            elif frame.msg_type == picows.WSMsgType.TEXT:
                self.mine = subscribed_to(frame.get_payload_as_bytes())
                for number in self.mine:
                    groups[number].add(transport)
                transport.send(picows.WSMsgType.TEXT, _SUBSCRIBED.encode())

        def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
            for number in self.mine:
                groups[number].discard(transport)

    def deliver(number: int, text: bytes) -> None:
        for transport in groups[number]:
            transport.send(picows.WSMsgType.TEXT, text)

    server = await picows.ws_create_server(lambda _: Listener(), "127.0.0.1", 0, backlog=1024)
    await _events(pipe, deliver)
    print(server.sockets[0].getsockname()[1], flush=True)
    await _ended()


async def _starlette(pipe: int) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    groups: defaultdict[int, set[WebSocket]] = defaultdict(set)
    events: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        mine = subscribed_to(await websocket.receive_text())
        for number in mine:
            groups[number].add(websocket)
        await websocket.send_text(_SUBSCRIBED)
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            for number in mine:
                groups[number].discard(websocket)

    async def deliver() -> None:
        # One after the other costs less than half of what `gather` does.
        while True:
            number, text = await events.get()
            for websocket in list(groups[number]):
                try:
                    await websocket.send_text(text)
                except (RuntimeError, WebSocketDisconnect):
                    groups[number].discard(websocket)

    config = uvicorn.Config(
        Starlette(routes=[WebSocketRoute("/ws", endpoint)]),
        log_level="error",
        ws_per_message_deflate=False,
        lifespan="off",
    )
    delivering = asyncio.create_task(deliver())
    await _events(pipe, lambda number, text: events.put_nowait((number, text.decode())))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(listening.getsockname()[1], flush=True)
        await uvicorn.Server(config).serve(sockets=[listening])
    delivering.cancel()


SERVERS: dict[str, Callable[[int], Any]] = {
    "websockets": _websockets,
    "picows": _picows,
    "starlette": _starlette,
}


def main() -> None:
    """Serve until told to stop."""
    name, pipe = sys.argv[1:]
    with gc_tuned():
        uvloop.run(SERVERS[name](int(pipe)))


if __name__ == "__main__":
    main()
