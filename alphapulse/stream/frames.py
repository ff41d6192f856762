"""WebSocket frames as a server sends them (RFC 6455, section 5.2).

A server's frames aren't masked, so one frame serves all clients: it is built once, and several of
them, one after the other, go out in one write.
"""

from __future__ import annotations

import struct

_TEXT = 0x81
_BINARY = 0x82
_PONG = 0x8A
_COMPRESSED = 0x40

_MEDIUM = struct.Struct(">BBH")
_LARGE = struct.Struct(">BBQ")


def text_frame(text: str | bytes) -> bytes:
    """A whole text message, encoded already or not."""
    return data_frame(_TEXT, text if isinstance(text, bytes) else text.encode())


def binary_frame(payload: bytes) -> bytes:
    """A whole binary message."""
    return data_frame(_BINARY, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping with this payload of at most 125 bytes."""
    return data_frame(_PONG, payload)


def data_frame(first: int, payload: bytes, *, compressed: bool = False) -> bytes:
    """A frame.

    Parameters
    ----------
    first : its first byte: that it is final, and what it is
    payload : as it is sent
    compressed : whether it has to be inflated; marks the frame so
    """
    first |= _COMPRESSED if compressed else 0
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return _MEDIUM.pack(first, 126, size) + payload
    return _LARGE.pack(first, 127, size) + payload


def payload_of(frame: bytes) -> bytes:
    """What a frame made here holds."""
    return frame[{126: _MEDIUM.size, 127: _LARGE.size}.get(frame[1], 2) :]
