"""The extension permessage-deflate (RFC 7692), without context from message to message.

Each message is compressed on its own, so that its frame serves all clients, and one that a client
has sent is inflated no further than is allowed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from alphapulse.stream.frames import data_frame, payload_of

EXTENSION = "permessage-deflate"
AGREED = f"{EXTENSION}; server_no_context_takeover; client_no_context_takeover"
"""The answer to an offer that is accepted."""

LEAST_BYTES = 128
"""Shorter messages aren't worth it."""

_TAIL = b"\x00\x00\xff\xff"
_WINDOW_BITS = 15
_LEVEL = 1
_CONTROL = 0x08
_ALLOWED: dict[str, set[str | None]] = {
    "server_no_context_takeover": {None},
    "client_no_context_takeover": {None},
    "client_max_window_bits": {None, *map(str, range(8, 16))},
    "server_max_window_bits": {str(_WINDOW_BITS)},
}


class TooMuch(ValueError):
    """A message that is larger, inflated, than it may be."""


class Deflater:
    """Makes compressed frames of plain ones."""

    def __init__(self) -> None:
        self._stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, -_WINDOW_BITS)

    def __call__(self, frame: bytes) -> bytes:
        """The frame for clients that agreed to compression; the same where that is no gain."""
        payload = payload_of(frame)
        if frame[0] & _CONTROL or len(payload) < LEAST_BYTES:
            return frame
        # A full flush forgets what was before: the next message refers to nothing in this one.
        packed = self._stream.compress(payload) + self._stream.flush(zlib.Z_FULL_FLUSH)
        packed = packed.removesuffix(_TAIL)
        return (
            data_frame(frame[0], packed, compressed=True) if len(packed) < len(payload) else frame
        )


def inflate(payload: bytes, limit: int) -> bytes:
    """A client's message as it was.

    Raises
    ------
    TooMuch
        it has more than `limit` bytes
    ValueError
        it isn't compressed rightly
    """
    stream = zlib.decompressobj(-_WINDOW_BITS)
    try:
        plain = stream.decompress(payload + _TAIL, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(plain) > limit:
        raise TooMuch(f"more than {limit} bytes")
    return plain


def accepts(offers: Sequence[str]) -> bool:
    """Whether one of the values of Sec-WebSocket-Extensions is an offer that can be accepted."""
    return any(_acceptable(offer) for offer in ",".join(offers).split(","))


def _acceptable(offer: str) -> bool:
    name, *parameters = (part.strip() for part in offer.split(";"))
    seen = set()
    for parameter in parameters:
        key, equals, value = (part.strip() for part in parameter.partition("="))
        if key in seen or (value.strip('"') if equals else None) not in _ALLOWED.get(key, ()):
            return False
        seen.add(key)
    return name == EXTENSION
