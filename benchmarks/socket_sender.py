"""A process that acts as Kraken just enough to send prepared frames as fast as they are taken."""

from __future__ import annotations

import asyncio
from multiprocessing.connection import Connection
from typing import NamedTuple

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

CHUNK_BYTES = 64 << 10
"""Bytes handed to the socket at once."""


class Frames(NamedTuple):
    """What is to be sent, each frame as its payload."""

    metadata: list[bytes]
    """The answer to a subscription of instruments."""
    snapshots: list[bytes]
    """The answer to one of books."""
    updates: list[bytes]
    """Sent when told."""


class _Client(WSListener):
    def __init__(self, frames: Frames, receivers: list[_Client]) -> None:
        self.writable = asyncio.Event()
        self.writable.set()
        self.transport: WSTransport
        self._frames = frames
        self._receivers = receivers

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self.transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Implement `WSListener`."""
        if frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
            return
        message = frame.get_payload_as_bytes()
        if b'"instrument"' in message:
            answer = self._frames.metadata
        elif b'"book"' in message and self not in self._receivers:
            answer = self._frames.snapshots
            self._receivers.append(self)
        else:
            return
        for payload in answer:
            transport.send(WSMsgType.TEXT, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self.writable.set()
        if self in self._receivers:
            self._receivers.remove(self)

    def pause_writing(self) -> None:
        """Implement `WSListener`."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Implement `WSListener`."""
        self.writable.set()


def serve(pipe: Connection, frames: Frames) -> None:
    """Serve until the pipe is closed: sends its port, then blasts whenever anything comes in.

    Each blast goes to whoever is subscribed, and is answered by how many those were.
    """
    uvloop.run(_serve(pipe, frames))


async def _serve(pipe: Connection, frames: Frames) -> None:
    receivers: list[_Client] = []

    def accept(_request: WSUpgradeRequest) -> _Client:
        return _Client(frames, receivers)

    stream = b"".join(map(_framed, frames.updates))
    server = await ws_create_server(accept, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pipe.fileno(), told.set)
    try:
        while True:
            await told.wait()
            pipe.recv()
            told.clear()
            to = list(receivers)
            await asyncio.gather(*(_blast(client, stream) for client in to))
            pipe.send(len(to))
    except EOFError:
        return
    finally:
        loop.remove_reader(pipe.fileno())
        server.close()


async def _blast(client: _Client, stream: bytes) -> None:
    view = memoryview(stream)
    write = client.transport.underlying_transport.write
    for at in range(0, len(view), CHUNK_BYTES):
        await client.writable.wait()
        if client.transport.is_disconnected:
            return
        write(view[at : at + CHUNK_BYTES])


def _framed(payload: bytes) -> bytes:
    """A text frame as servers send it: whole and unmasked."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return bytes((0x81, 126)) + size.to_bytes(2, "big") + payload
    return bytes((0x81, 127)) + size.to_bytes(8, "big") + payload
