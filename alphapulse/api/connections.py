"""HTTP connections whose answers are written at once, those to what is no HTTP included.

uvicorn writes an answer's head and its body one after the other, and the event loop sends each
without waiting: two system calls, and two times that the client is woken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from alphapulse.api.problems import MEDIA_TYPE, Problem

MOST_HELD_BYTES = 65536
"""Beyond this what was written is sent without waiting for more."""


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, with a transport that joins what is written."""
        super().connection_made(Joining(transport, self.loop))

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses, and close."""
        content = Problem(HTTPStatus.BAD_REQUEST, msg).content()
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        # A request to become a WebSocket is answered as if it weren't one.
        self.logger.debug("Unsupported upgrade request.")


class Joining(asyncio.Transport):
    """Holds what is written until the event loop comes by, and writes it in one piece.

    Parameters
    ----------
    transport : where to
    loop : the event loop
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._held: list[bytes | bytearray | memoryview] = []
        self._bytes = 0
        # What doesn't write is the transport's own.
        self.get_extra_info: Callable[..., Any] = transport.get_extra_info
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send this, soon."""
        if not self._held:
            self._loop.call_soon(self._flush)
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > MOST_HELD_BYTES:
            self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send these, soon."""
        for data in list_of_data:
            self.write(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give the connection to another protocol."""
        self._transport.set_protocol(protocol)

    def close(self) -> None:
        """Close it when all is sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._held.clear()
        self._transport.abort()

    def _flush(self) -> None:
        if self._held and not self._transport.is_closing():
            self._transport.write(b"".join(self._held))
        self._held.clear()
        self._bytes = 0
