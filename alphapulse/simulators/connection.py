"""One client's WebSocket connection, as the venue sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from alphapulse.clock import monotonic_ns

if TYPE_CHECKING:
    from alphapulse.simulators.base import VenueSimulator

FLUSH_BYTES = 256 * 1024
"""Frames wait for each other until they make up that much, or their batch ends."""

WRITE_BUFFER_BYTES = 1024 * 1024
"""Above this much that the client hasn't taken, the connection counts as not writable."""

GOODBYE_SECONDS = 1.0
"""How long the answer to a close frame is waited for."""

_TEXT = 0x81
_SMALL_HEADERS = [bytes((_TEXT, size)) for size in range(126)]


class Connection(WSListener):
    """A client's connection.

    Frames are collected and written together: `send` only appends, `flush` writes.

    Parameters
    ----------
    simulator : the venue
    target : path and query that the client asked for
    """

    def __init__(self, simulator: VenueSimulator, target: str) -> None:
        parts = urlsplit(target)
        self.path = parts.path
        self.query = parse_qs(parts.query)
        self.topics: set[tuple[str, str]] = set()
        """(channel, venue symbol) that the client is subscribed to."""
        self.silent = False
        """Drops everything that is sent from now on."""
        self.writable = asyncio.Event()
        """Set while the client takes what it is sent."""
        self.writable.set()
        self.opened_ns = monotonic_ns()
        self.sent_ns = self.opened_ns
        """When something was last sent, monotonic."""
        self.frames_sent = 0
        self.sequence = 0
        """Counts frames, for venues that number them per connection."""
        self.timers: list[asyncio.TimerHandle] = []
        """Cancelled when the connection ends."""
        self._simulator = simulator
        self._transport: WSTransport | None = None
        self._out = bytearray()
        self._parts: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether frames can still reach the client."""
        transport = self._transport
        return transport is not None and not (
            transport.is_disconnected or transport.is_close_frame_sent
        )

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self._transport = transport
        transport.underlying_transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._simulator.connected(self)
        self.flush()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Implement `WSListener`."""
        if frame.msg_type == WSMsgType.CLOSE:
            self.flush()
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            self._simulator.control_frame(self)
            self.flush()
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.PONG:
            self._simulator.control_frame(self, pong=True)
        else:
            self._parts.append(frame.get_payload_as_bytes())
            if frame.fin:
                message = b"".join(self._parts)
                self._parts.clear()
                self._simulator.received(self, message)
                self._simulator.flush()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self._out.clear()
        self.writable.set()
        for timer in self.timers:
            timer.cancel()
        self._simulator.disconnected(self)

    def pause_writing(self) -> None:
        """Implement `WSListener`."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """Implement `WSListener`."""
        self.writable.set()

    def send(self, payload: bytes) -> None:
        """Add a text frame to what the next `flush` writes."""
        if self.silent:
            return
        size = len(payload)
        out = self._out
        if not out:
            self._simulator.unflushed.append(self)
        if size < 126:
            out += _SMALL_HEADERS[size]
        elif size < 65536:
            out += b"\x81\x7e" + size.to_bytes(2, "big")
        else:
            out += b"\x81\x7f" + size.to_bytes(8, "big")
        out += payload
        self.frames_sent += 1
        if len(out) > FLUSH_BYTES and not self._simulator.holding:
            self.flush()

    def flush(self) -> None:
        """Write what was sent, in one piece."""
        transport = self._transport
        if not self._out or transport is None or self._simulator.holding:
            return
        data, self._out = self._out, bytearray()
        self.sent_ns = monotonic_ns()
        if self.is_open:
            transport.underlying_transport.write(data)

    async def release(self) -> None:
        """Write what was held back, piece by piece as the client takes it."""
        data, self._out = bytes(self._out), bytearray()
        for start in range(0, len(data), FLUSH_BYTES):
            if self._transport is not None and self.is_open:
                self._transport.underlying_transport.write(data[start : start + FLUSH_BYTES])
                await self.writable.wait()

    def waiting_bytes(self) -> int:
        """How much the client hasn't taken yet."""
        transport = self._transport
        if transport is None or transport.is_disconnected:
            return 0
        return transport.underlying_transport.get_write_buffer_size()

    def ping(self) -> None:
        """Send a ping frame."""
        if self._transport is not None and not self.silent:
            self.flush()
            self._transport.send_ping(b"")

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye with a close frame; the connection ends when the client has answered.

        Raises
        ------
        ValueError
            the code is none of those that `WSCloseCode` lists
        """
        transport = self._transport
        if transport is not None and self.is_open:
            self.flush()
            transport.send_close(WSCloseCode(code), reason.encode())
            loop = asyncio.get_running_loop()
            self.timers.append(loop.call_later(GOODBYE_SECONDS, transport.disconnect))

    def abort(self) -> None:
        """End the connection without a close frame, as a broken network does."""
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        if self._transport is not None:
            await self._transport.wait_disconnected()
