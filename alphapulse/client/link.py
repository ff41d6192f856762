"""One WebSocket connection to a stream server: bytes in, requests out, life. No meaning."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import NamedTuple

from picows import (
    WSCloseCode,
    WSError,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSProtocolError,
    WSTransport,
    ws_connect,
)

from alphapulse.client.feed import Kind
from alphapulse.errors import ConnectionFailed, HandshakeRefused


class LinkOptions(NamedTuple):
    """How to connect; times in seconds."""

    url: str
    token: str | None
    ssl_context: ssl.SSLContext | None
    connect_seconds: float
    ping_seconds: float
    """A connection that is silent for so long is probed by a ping."""
    pong_seconds: float
    """How long the server has to answer it."""
    max_message_bytes: int


class Loss(NamedTuple):
    """Why a connection ended."""

    reason: str
    code: int | None


class Link(WSListener):
    """One connection.

    Parameters
    ----------
    options : how to connect
    receive : called with each message

    Attributes
    ----------
    lost : done as soon as the connection is of no use any more
    """

    def __init__(self, options: LinkOptions, receive: Callable[[Kind, bytes], None]) -> None:
        self._options = options
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Loss] = self._loop.create_future()
        self._transport: WSTransport | None = None
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._pieces_kind = Kind.TEXT
        self._paused = False
        self._heard_at = self._loop.time()
        self._pinged_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(cls, options: LinkOptions, receive: Callable[[Kind, bytes], None]) -> Link:
        """Open a connection.

        Raises
        ------
        HandshakeRefused
            the server answered with another HTTP status than 101
        ConnectionFailed
            there is no connection
        """
        link = cls(options, receive)
        headers = {"Authorization": f"Bearer {options.token}"} if options.token else None
        try:
            async with asyncio.timeout(options.connect_seconds):
                await ws_connect(
                    lambda: link,
                    options.url,
                    ssl_context=options.ssl_context,
                    extra_headers=headers,
                    max_frame_size=options.max_message_bytes,
                    max_redirects=0,
                    websocket_handshake_timeout=options.connect_seconds,
                    logger_name="alphapulse",
                )
        except TimeoutError:
            link.abort("it took too long to open")
            problem = f"nothing within {options.connect_seconds:g} s"
            raise ConnectionFailed(options.url, problem) from None
        except WSHandshakeError as error:
            raise _refused(options.url, error) from error
        except (OSError, WSError, ValueError) as error:
            problem = str(error) or type(error).__name__
            raise ConnectionFailed(options.url, problem) from error
        except asyncio.CancelledError:
            link.abort("connecting was interrupted")
            raise
        if link._transport is None:
            raise ConnectionFailed(options.url, "it was closed during the handshake")
        return link

    # What picows calls

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self._transport = transport
        if self.lost.done():
            transport.disconnect(graceful=False)
        else:
            self._timer = self._loop.call_later(self._options.ping_seconds, self._look)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Implement `WSListener`."""
        if self.lost.done():
            return
        self._heard_at = self._loop.time()
        self._pinged_at = None
        kind = frame.msg_type
        if kind is WSMsgType.TEXT and frame.fin:
            self._receive(Kind.TEXT, frame.get_payload_as_bytes())
        elif kind is WSMsgType.BINARY and frame.fin:
            self._receive(Kind.RECORD, frame.get_payload_as_bytes())
        elif kind is WSMsgType.CLOSE:
            self._closed_by_server(transport, frame)
        elif kind in (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION):
            self._piece(kind, frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Implement `WSListener`."""
        self._lose("the connection broke", None)

    def pause_writing(self) -> None:
        """Implement `WSListener`: requests are few and small."""

    def resume_writing(self) -> None:
        """Implement `WSListener`."""

    # What the session calls

    def send(self, data: bytes) -> None:
        """Send a text message, if the connection is open."""
        if self._transport is not None and not self.lost.done():
            self._transport.send(WSMsgType.TEXT, data)

    def pause(self) -> None:
        """Stop reading the socket."""
        if self._transport is not None and not self.lost.done():
            self._paused = True
            self._transport.underlying_transport.pause_reading()

    def go_on(self) -> None:
        """Read the socket again."""
        if self._transport is not None and not self.lost.done():
            self._paused = False
            self._heard_at = self._loop.time()
            self._transport.underlying_transport.resume_reading()

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        self._lose(reason, None)
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)

    async def close(self) -> None:
        """Say goodbye, and end the connection."""
        transport = self._transport
        if transport is not None and not self.lost.done():
            self._lose("closed", None)
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        if transport is not None:
            try:
                await transport.wait_disconnected()
            except WSError:
                return  # how a connection ends that isn't wanted any more says nothing

    def _lose(self, reason: str, code: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost.done():
            self.lost.set_result(Loss(reason, code))

    def _closed_by_server(self, transport: WSTransport, frame: WSFrame) -> None:
        code = frame.get_close_code()
        text = frame.get_close_message()
        words = text.decode("utf-8", "replace") if text else "the server closed the connection"
        self._lose(words, None if code is WSCloseCode.NO_INFO else code.value)
        transport.send_close(WSCloseCode.OK if code is WSCloseCode.NO_INFO else code)
        transport.disconnect()

    def _piece(self, kind: WSMsgType, frame: WSFrame) -> None:
        """Put a message together that came in fragments; the limit is the whole message's."""
        if kind is not WSMsgType.CONTINUATION:
            self._pieces_kind = Kind.TEXT if kind is WSMsgType.TEXT else Kind.RECORD
        self._pieces_bytes += frame.payload_size
        if self._pieces_bytes > self._options.max_message_bytes:
            raise WSProtocolError(WSCloseCode.MESSAGE_TOO_BIG, "a message in fragments is too long")
        self._pieces.append(frame.get_payload_as_bytes())
        if frame.fin:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._pieces_bytes = 0
            self._receive(self._pieces_kind, data)

    def _look(self) -> None:
        """Probe a silent connection; while it isn't read, its silence is ours."""
        options = self._options
        now = self._loop.time()
        pause = options.ping_seconds
        if self._paused:
            self._heard_at = now
            self._pinged_at = None
        elif self._pinged_at is not None:
            pause = self._pinged_at + options.pong_seconds - now
            if pause <= 0:
                self.abort(f"nothing for {now - self._heard_at:.1f} s, nor an answer to a ping")
                return
        elif now - self._heard_at >= options.ping_seconds:
            assert self._transport is not None
            self._pinged_at = now
            self._transport.send_ping()
            pause = options.pong_seconds
        else:
            pause = self._heard_at + options.ping_seconds - now
        self._timer = self._loop.call_later(max(pause, 0.001), self._look)


def _refused(url: str, error: WSHandshakeError) -> ConnectionFailed:
    if error.response is None:
        return ConnectionFailed(url, str(error) or "the answer is no WebSocket handshake")
    body = (error.raw_body or b"").decode("utf-8", "replace").strip()
    return HandshakeRefused(url, int(error.response.status), body[:200])
