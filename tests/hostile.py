"""Clients that mean a server no good: each a coroutine that returns what became of it.

They speak WebSocket by hand, since no library would send what they send.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import os
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

ENDED = "ended"
"""The server has ended the connection without a word."""

_ENDS = (ConnectionError, asyncio.IncompleteReadError)
_RECEIVE_BUFFER = 4096
"""Of those that don't read: it shouldn't take long until they are full."""


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, reserved: int = 0
) -> bytes:
    """A client's frame, or what passes for one."""
    first = opcode | 0x80 * fin | reserved << 4
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", first, size | 0x80 * masked)
    elif size < 65536:
        head = struct.pack(">BBH", first, 126 | 0x80 * masked, size)
    else:
        head = struct.pack(">BBQ", first, 127 | 0x80 * masked, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    mask = (key * (size // 4 + 1))[:size]
    word = int.from_bytes(payload, "little") ^ int.from_bytes(mask, "little")
    return head + key + word.to_bytes(size, "little")


def request(**fields: Any) -> bytes:
    """A request in a frame."""
    return frame(TEXT, json.dumps(fields).encode())


class Door:
    """Where the server listens, and when those who only wait may leave.

    Parameters
    ----------
    port : of the server
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        """That were made."""
        self.leave = asyncio.Event()

    def handshake(self, **headers: str) -> bytes:
        """What a client says first."""
        lines = {
            "Host": f"127.0.0.1:{self.port}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Version": "13",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        return f"GET /ws HTTP/1.1\r\n{text}\r\n".encode()


class Peer:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes; that the server has had enough of them is no error."""
        with suppress(*_ENDS):
            if not self._writer.is_closing():
                self._writer.write(data)
                await self._writer.drain()

    def reset(self) -> None:
        """End the connection as a machine does that has lost its power."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()

    async def status(self) -> str:
        """The HTTP status that the handshake is answered with."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except _ENDS:
            return ENDED
        return head.split()[1].decode()

    async def message(self) -> tuple[int, bytes]:
        """The next frame: its opcode and payload."""
        first, size = await self._reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack(">H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", await self._reader.readexactly(8))
        return first & 15, await self._reader.readexactly(size)

    async def until(self, *answers: str) -> str:
        """Read on until a message of these types, the server's close code, or its end.

        Parameters
        ----------
        answers : a JSON message's ``type``, or ``error`` and its code: ``error malformed``
        """
        try:
            while True:
                opcode, payload = await self.message()
                if opcode == CLOSE:
                    return str(int.from_bytes(payload[:2], "big"))
                if opcode == TEXT:
                    event = json.loads(payload)
                    kind = f"{event['type']} {event.get('code', '')}".rstrip()
                    if kind in answers:
                        return kind
        except _ENDS:
            return ENDED

    async def end(self) -> str:
        """Read on until the server's close code, or its end."""
        return await self.until()


@asynccontextmanager
async def connected(door: Door, *, receive_buffer: int | None = None) -> AsyncIterator[Peer]:
    """A connection without a handshake."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", door.port))
    door.connections += 1
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def upgraded(
    door: Door, *, receive_buffer: int | None = None, **headers: str
) -> AsyncIterator[Peer]:
    """A connection after its handshake."""
    async with connected(door, receive_buffer=receive_buffer) as peer:
        await peer.send(door.handshake(**headers))
        status = await peer.status()
        if status != "101":
            raise ConnectionRefusedError(status)
        yield peer


async def half_open(door: Door) -> str:
    """Connects and says nothing."""
    async with connected(door) as peer:
        return await peer.status()


async def slow_handshake(door: Door) -> str:
    """Sends its handshake byte by byte, and never the last."""
    async with connected(door) as peer:
        data = door.handshake()
        ended = asyncio.create_task(peer.status())
        for at in range(len(data) - 1):
            await peer.send(data[at : at + 1])
            await asyncio.wait({ended}, timeout=0.05)
            if ended.done():
                break
        return await ended


async def endless_headers(door: Door) -> str:
    """Sends a handshake that doesn't end."""
    async with connected(door) as peer:
        await peer.send(door.handshake()[:-2])
        for number in range(64):
            await peer.send(b"X-%d: " % number + b"x" * 8000 + b"\r\n")
        return await peer.status()


async def no_http(door: Door) -> str:
    """Speaks no HTTP."""
    async with connected(door) as peer:
        await peer.send(os.urandom(200) + b"\r\n\r\n")
        return await peer.status()


async def foreign_page(door: Door) -> str:
    """Is a page from elsewhere."""
    async with connected(door) as peer:
        await peer.send(door.handshake(Origin="https://example.org"))
        return await peer.status()


async def huge_frame(door: Door) -> str:
    """Announces a frame of 2^40 bytes."""
    async with upgraded(door) as peer:
        await peer.send(struct.pack(">BBQ", 0x80 | TEXT, 0x80 | 127, 1 << 40) + bytes(4096))
        return await peer.end()


async def large_request(door: Door) -> str:
    """Sends a request twice as large as is allowed."""
    async with upgraded(door) as peer:
        await peer.send(request(type="ping", padding="x" * (128 * 1024)))
        return await peer.until("error too_large")


async def no_text(door: Door) -> str:
    """Sends what is no UTF-8."""
    async with upgraded(door) as peer:
        await peer.send(frame(TEXT, b'{"type":"\xc3\x28\xff"}'))
        return await peer.until("error malformed")


async def nested(door: Door) -> str:
    """Sends JSON that is nested deeper than a stack goes."""
    async with upgraded(door) as peer:
        await peer.send(frame(TEXT, b'{"type":"ping","symbols":' + b"[" * 60_000))
        return await peer.until("error malformed", "error bad_request")


async def unmasked(door: Door) -> str:
    """Doesn't mask its frames."""
    async with upgraded(door) as peer:
        await peer.send(frame(TEXT, b'{"type":"ping"}', masked=False))
        return await peer.end()


async def reserved(door: Door) -> str:
    """Uses what isn't agreed on: bits, opcodes, long or divided control frames."""
    endings = []
    for data in (
        frame(TEXT, b"{}", reserved=2),
        frame(3, b"{}"),
        frame(PING, bytes(200)),
        frame(PING, b"", fin=False),
        frame(CONTINUATION, b"{}"),
    ):
        async with upgraded(door) as peer:
            await peer.send(data)
            endings.append(await peer.end())
    return " ".join(sorted(set(endings)))


async def fragments(door: Door) -> str:
    """Sends a message in thousands of fragments, empty ones among them, that never ends."""
    async with upgraded(door) as peer:
        await peer.send(frame(TEXT, b"[", fin=False))
        piece = frame(CONTINUATION, b"1,", fin=False) + frame(CONTINUATION, b"", fin=False)
        for _ in range(20):
            await peer.send(piece * 100)
        await peer.send(frame(CONTINUATION, b"1]"))
        return await peer.until("error malformed", "error bad_request", "error too_large")


async def subscribe_storm(door: Door) -> str:
    """Subscribes and unsubscribes over and over, to what there is and what there isn't."""
    async with upgraded(door) as peer:
        for number in range(150):
            await peer.send(
                request(type="subscribe", channels=["orderbook"], depth=number + 1)
                + request(type="subscribe", channels=["trades"], symbols=[f"NO{number}-USD"])
                + request(type="unsubscribe")
            )
        await peer.send(request(type="ping"))
        return await peer.until("pong")


async def ping_flood(door: Door) -> str:
    """Sends pings, and reads no pong before it is done."""
    async with upgraded(door, receive_buffer=_RECEIVE_BUFFER) as peer:
        for _ in range(20):
            await peer.send(frame(PING, bytes(125)) * 100)
        await peer.send(request(type="ping"))
        return await peer.until("pong")


async def bomb(door: Door) -> str:
    """Sends 16 MiB in a few KiB, where compression is agreed on, and where it isn't."""
    async with upgraded(door, Sec_WebSocket_Extensions="permessage-deflate") as peer:
        await peer.send(frame(TEXT, _packed(), reserved=4))
        return await peer.until("error too_large")


@functools.cache
def _packed() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(b" " * (16 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def power_loss(door: Door) -> str:
    """Subscribes to everything and is gone, within a frame."""
    async with upgraded(door) as peer:
        await peer.send(request(type="subscribe", channels=["orderbook", "trades"], depth="full"))
        await peer.send(frame(TEXT, bytes(1000))[:500])
        await peer.message()
        peer.reset()
    return ENDED


async def never_reads(door: Door) -> str:
    """Subscribes to everything and reads nothing; leaves when it is told to."""
    async with upgraded(door, receive_buffer=_RECEIVE_BUFFER) as peer:
        await peer.send(
            request(type="subscribe", channels=["orderbook", "trades", "state"], depth="full")
        )
        await door.leave.wait()
    return ENDED


Attack = Callable[[Door], Awaitable[str]]

ATTACKS: Mapping[Attack, frozenset[str]] = {
    half_open: frozenset({ENDED, "408"}),
    slow_handshake: frozenset({ENDED, "408"}),
    endless_headers: frozenset({ENDED, "400", "431"}),
    no_http: frozenset({ENDED, "400"}),
    foreign_page: frozenset({"403"}),
    huge_frame: frozenset({"1009", ENDED}),
    large_request: frozenset({"error too_large"}),
    no_text: frozenset({"error malformed"}),
    nested: frozenset({"error malformed", "error bad_request"}),
    unmasked: frozenset({"1002", ENDED}),
    reserved: frozenset({"1002", ENDED, f"1002 {ENDED}"}),
    fragments: frozenset(
        {"error malformed", "error bad_request", "error too_large", "1008", ENDED}
    ),
    subscribe_storm: frozenset({"pong", "1008", ENDED}),
    ping_flood: frozenset({"pong", "1008", ENDED}),
    bomb: frozenset({"1002", "1009", "error too_large", ENDED}),
    power_loss: frozenset({ENDED}),
    never_reads: frozenset({ENDED}),
}
"""Each with the ends that it may come to."""


async def attack(door: Door, one: Attack) -> None:
    """Carry out an attack, which has to end as it may."""
    outcome = await one(door)
    expected = ATTACKS[one]
    name = getattr(one, "__name__", repr(one))
    assert outcome in expected, f"{name}: {outcome}, not {sorted(expected)}"
