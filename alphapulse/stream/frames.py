"""WebSocket frames as a server sends them (RFC 6455, section 5.2).

A server's frames aren't masked, so one frame serves all clients: it is built once, and several of
them, one after the other, go out in one write.
"""

from __future__ import annotations

import struct

_TEXT = 0x81
_PONG = 0x8A

_MEDIUM = struct.Struct(">BBH")
_LARGE = struct.Struct(">BBQ")


def text_frame(text: str) -> bytes:
    """A whole text message."""
    return _frame(_TEXT, text.encode())


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload of at most 125 bytes."""
    return _frame(_PONG, payload)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return _MEDIUM.pack(first, 126, size) + payload
    return _LARGE.pack(first, 127, size) + payload
