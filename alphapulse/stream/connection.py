"""One client's WebSocket connection: frames to requests, and the client's queue to the socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import picows

from alphapulse.clock import monotonic_ns
from alphapulse.config import StreamSettings
from alphapulse.errors import RequestError
from alphapulse.stream.client import Client, Item, Kind
from alphapulse.stream.frames import pong_frame
from alphapulse.stream.hub import Hub
from alphapulse.stream.requests import Request, parse_query, parse_request

HIGH_WATER_BYTES = 64 * 1024
"""An encrypted connection takes no more while this much waits in its transport; the rest stays in
the client's queue, where it can be conflated. Of others the rest of one frame waits there."""

SEND_BUFFER_BYTES = 256 * 1024
"""The kernel's buffer. Left to itself it grows to megabytes, all of it older than the book."""

LINGER_SECONDS = 5.0
"""How long a client has to read a close frame and answer it."""

_Kinds = picows.WSMsgType
_Codes = picows.WSCloseCode


class Connection(picows.WSListener):
    """The socket's side of a client.

    Parameters
    ----------
    hub : what it connects to
    settings : section ``stream``
    query : of the address, a subscription
    opened, ended : called when the handshake is done, and when the socket is closed
    """

    def __init__(
        self,
        hub: Hub,
        settings: StreamSettings,
        query: str,
        opened: Callable[[Connection], None],
        ended: Callable[[Connection], None],
    ) -> None:
        self.paused = False
        self._hub = hub
        self._settings = settings
        self._query = query
        self._opened = opened
        self._ended = ended
        self._transport: picows.WSTransport | None = None
        self._client: Client | None = None
        self._pieces: list[bytes] | None = None
        self._pieces_bytes = 0
        self._pieces_kind = _Kinds.TEXT

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Join the hub, and subscribe to what the address says."""
        self._transport = transport
        below = transport.underlying_transport
        connected = below.get_extra_info("socket")
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._client = self._hub.connect(self)
        if transport.is_secure:
            below.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        else:
            # It is paused exactly while its transport holds something back, so that what the
            # client writes to the socket itself never gets into the middle of a frame.
            below.set_write_buffer_limits(high=0)
            self._client.use_socket(connected.fileno(), transport)
        self._opened(self)
        if self._query:
            self._serve(lambda: parse_query(self._query, self._settings.depth))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Take a frame from the client."""
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise _protocol_error("no extension was agreed on")
        if kind in (_Kinds.TEXT, _Kinds.BINARY, _Kinds.CONTINUATION):
            self._data(kind, frame)
        elif kind == _Kinds.PING and self._client is not None:
            pong = pong_frame(frame.get_payload_as_bytes())
            self._client.send(Item(pong, Kind.EVENT, None, monotonic_ns()))
            self._hub.flush()
        elif kind == _Kinds.CLOSE:
            # An empty close frame, as browsers send it, has no code to be sent back.
            code = frame.get_close_code()
            transport.send_close(_Codes.OK if code is _Codes.NO_INFO else code)
            transport.disconnect()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        """Leave the hub."""
        if self._client is not None:
            self._hub.disconnect(self._client)
            self._client = None  # each refers to the other
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

    def end(self, code: int, reason: str) -> None:
        """Close the client."""
        if self._client is not None:
            self._client.close(code, reason)

    def _data(self, kind: picows.WSMsgType, frame: picows.WSFrame) -> None:
        """Put a message together from its frames, keeping no more of it than is allowed."""
        if (kind == _Kinds.CONTINUATION) is (self._pieces is None):
            raise _protocol_error("a message's frames don't follow each other")
        if self._pieces is None:
            self._pieces, self._pieces_bytes, self._pieces_kind = [], 0, kind
        self._pieces_bytes += frame.payload_size
        if self._pieces_bytes <= self._settings.max_request_bytes:
            self._pieces.append(frame.get_payload_as_bytes())
        if frame.fin:
            pieces, self._pieces = self._pieces, None
            self._serve(lambda: self._parse(b"".join(pieces)))

    def _parse(self, payload: bytes) -> Request:
        limit = self._settings.max_request_bytes
        if self._pieces_bytes > limit:
            raise RequestError("too_large", f"a request may have {limit} bytes")
        if self._pieces_kind != _Kinds.TEXT:
            raise RequestError("malformed", "requests are text messages")
        return parse_request(payload, self._settings.depth)

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


def _protocol_error(problem: str) -> picows.WSProtocolError:
    return picows.WSProtocolError(_Codes.PROTOCOL_ERROR, problem)
