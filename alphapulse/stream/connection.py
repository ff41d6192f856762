"""One client's WebSocket connection: frames to requests, and the client's queue to the socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import picows

from alphapulse import metrics
from alphapulse.clock import monotonic_ns
from alphapulse.config import StreamSettings
from alphapulse.errors import RequestError
from alphapulse.stream.client import BEHIND, GOING_AWAY, POLICY_VIOLATION, Client, Item, Kind
from alphapulse.stream.frames import pong_frame
from alphapulse.stream.hub import Hub
from alphapulse.stream.inbound import PROTOCOL_ERROR, Allowance, Fault, Frame, Inbound, Message
from alphapulse.stream.requests import Request, parse_query, parse_request

if TYPE_CHECKING:
    from picows.picows import WSCloseHandshake

HIGH_WATER_BYTES = 64 * 1024
"""An encrypted connection takes no more while this much waits in its transport; the rest stays in
the client's queue, where it can be conflated. Of others the rest of one frame waits there."""

SEND_BUFFER_BYTES = 256 * 1024
"""The kernel's buffer. Left to itself it grows to megabytes, all of it older than the book."""

LINGER_SECONDS = 5.0
"""How long a client has to read a close frame and answer it."""

TOO_MANY = "too many requests"
ENDING = "the server ends"

_Kinds = picows.WSMsgType
_Codes = picows.WSCloseCode
_DATA = (_Kinds.TEXT, _Kinds.BINARY, _Kinds.CONTINUATION)
_TEXT = _Kinds.TEXT.value

_REASONS = {BEHIND: "behind", TOO_MANY: "too_many_requests", ENDING: "ending"}
_CODES = {
    _Codes.GOING_AWAY: "silent",
    _Codes.MESSAGE_TOO_BIG: "too_large",
    _Codes.INTERNAL_ERROR: "error",
}
"""What the metric calls the close frames that are sent; others are for faults in the protocol."""
_LOST, _LEFT, _PROTOCOL = "lost", "left", "protocol"
CLOSE_REASONS = (_LOST, _LEFT, *_REASONS.values(), *_CODES.values(), _PROTOCOL)
"""All that the metric tells apart."""


class Connection(picows.WSListener):
    """The socket's side of a client.

    Parameters
    ----------
    hub : what it connects to
    settings : section ``stream``
    query : of the address, a subscription
    compressed : whether permessage-deflate was agreed on
    opened, ended : called when the handshake is done, and when the socket is closed
    """

    __slots__ = (
        *("_allowance", "_client", "_compressed", "_ended", "_hub", "_inbound", "_opened"),
        *("_query", "_settings", "_transport", "paused"),
    )

    def __init__(
        self,
        hub: Hub,
        settings: StreamSettings,
        query: str,
        *,
        compressed: bool,
        opened: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self.paused = False
        self._hub = hub
        self._settings = settings
        self._query = query
        self._compressed = compressed
        self._opened = opened
        self._ended = ended
        self._transport: picows.WSTransport | None = None
        self._client: Client | None = None
        self._inbound = Inbound(settings.max_request_bytes, compressed=compressed)
        self._allowance = Allowance(settings.max_requests_per_second)

    @property
    def fd(self) -> int:
        """The socket's file descriptor."""
        assert self._transport is not None, "the connection is open"
        fd: int = self._transport.underlying_transport.get_extra_info("socket").fileno()
        return fd

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Join the hub, and subscribe to what the address says."""
        self._transport = transport
        below = transport.underlying_transport
        below.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES
        )
        self._client = self._hub.connect(self, compressed=self._compressed)
        if transport.is_secure:
            below.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        else:
            # It is paused exactly while its transport holds something back, so that what the
            # client writes to the socket itself never gets into the middle of a frame.
            below.set_write_buffer_limits(high=0)
            self._client.use_socket(self.fd, transport)
        self._opened(self)
        if self._query:
            self._serve(lambda: parse_query(self._query, self._settings.depth))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take a frame from the client."""
        kind = frame.msg_type
        if kind == _Kinds.CLOSE:
            # An empty close frame, as browsers send it, has no code to be sent back.
            code = frame.get_close_code()
            transport.send_close(_Codes.OK if code is _Codes.NO_INFO else code)
            transport.disconnect()
            return
        client = self._client
        if client is None or client.closed:
            return
        allowed = self._allowance.take(monotonic_ns())
        if not allowed:
            metrics.STREAM_RATE_LIMITED.bind().inc()
            if self._allowance.exhausted:
                self._cut_off(transport.underlying_transport)
                return
        if kind in _DATA:
            self._data(kind, frame, allowed=allowed)
        elif kind == _Kinds.PING and allowed:
            pong = pong_frame(frame.get_payload_as_bytes())
            client.send(Item(pong, Kind.EVENT, None, monotonic_ns()))
            self._hub.flush()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Leave the hub."""
        if self._client is not None:
            self._hub.disconnect(self._client)
            self._client = None  # each refers to the other
        metrics.STREAM_CLOSES.bind(reason=_why(transport.close_handshake)).inc()
        self._ended(self)

    def pause_writing(self) -> None:
        """The transport is full."""
        self.paused = True

    def resume_writing(self) -> None:
        """The transport has room again."""
        self.paused = False
        if self._client is not None:
            self._client.resume(monotonic_ns())
            self._hub.flush()

    def write(self, data: bytes) -> None:
        """Send frames; what the socket doesn't take at once waits in the transport."""
        transport = self._transport
        if transport is not None and not transport.is_close_frame_sent:
            transport.underlying_transport.write(data)

    def close(self, code: int, reason: str) -> None:
        """Send a close frame; end the connection when it was answered, or after a while."""
        transport = self._transport
        if transport is None or transport.is_disconnected:
            return
        transport.send_close(_Codes(code), reason)
        asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.disconnect, False)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None and not self._transport.is_disconnected:
            self._transport.disconnect(False)

    def end(self) -> None:
        """Close the client because the server ends."""
        if self._client is not None:
            self._client.close(GOING_AWAY, ENDING)

    def _cut_off(self, below: asyncio.Transport) -> None:
        """Close a client that floods, and hear no more of it, its answer to the close included."""
        if self._client is not None:
            self._client.close(POLICY_VIOLATION, TOO_MANY)
        below.pause_reading()
        if below.can_write_eof():
            below.write_eof()  # the client needn't wait for the answer to be taken

    def _data(self, kind: picows.WSMsgType, frame: picows.WSFrame, *, allowed: bool) -> None:
        """Take a part of a message; serve it when it is whole."""
        try:
            if frame.rsv2 or frame.rsv3:
                raise Fault(PROTOCOL_ERROR, "no extension was agreed on")
            part = Frame(
                kind.value, frame.get_payload_as_bytes(), bool(frame.fin), bool(frame.rsv1)
            )
            message = self._inbound.take(part, allowed=allowed)
        except Fault as fault:
            raise picows.WSProtocolError(_Codes(fault.code), fault.reason) from None
        if message is not None:
            self._serve(lambda: self._parse(message))

    def _parse(self, message: Message) -> Request:
        if message.refused:
            most = self._settings.max_requests_per_second
            raise RequestError(
                "too_many_requests", f"a client may send {most:g} requests a second; slow down"
            )
        if message.payload is None:
            limit = self._settings.max_request_bytes
            raise RequestError("too_large", f"a request may have {limit} bytes")
        if message.kind != _TEXT:
            raise RequestError("malformed", "requests are text messages")
        return parse_request(message.payload, self._settings.depth)

    def _serve(self, parse: Callable[[], Request | None]) -> None:
        client = self._client
        if client is None or client.closed:
            return
        try:
            request = parse()
            if request is not None:
                self._hub.request(client, request)
        except RequestError as error:
            self._hub.refuse(client, error)
        self._hub.flush()


def _why(handshake: WSCloseHandshake | None) -> str:
    """What the metric calls a connection's end."""
    if handshake is None:
        return _LOST
    if handshake.recv_then_sent or handshake.sent is None:
        return _LEFT
    sent = handshake.sent
    return _REASONS.get(sent.reason or "") or _CODES.get(sent.code, _PROTOCOL)
