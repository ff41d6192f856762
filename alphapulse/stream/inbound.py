"""What one client sends: frames in, messages out, neither too many nor too large."""

from __future__ import annotations

from typing import NamedTuple

from alphapulse.errors import AlphaPulseError
from alphapulse.stream.deflate import TooMuch, inflate

PROTOCOL_ERROR = 1002
INVALID_PAYLOAD = 1007
TOO_BIG = 1009
"""Close codes of RFC 6455, section 7.4.1."""

FRAME_ROOM = 4
"""A message of up to so many times the largest request is read, and answered with an error; a
larger one ends the connection."""

_SECOND_NS = 1_000_000_000


class Fault(AlphaPulseError):
    """Something that ends the connection.

    Parameters
    ----------
    code : of the close frame
    reason : its text
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Allowance:
    """How many frames a client may send: so many at once, and as many again each second.

    Parameters
    ----------
    per_second : above 0
    """

    __slots__ = ("_at_ns", "_left", "_most", "_per_ns", "_refused")

    def __init__(self, per_second: float) -> None:
        self._per_ns = per_second / _SECOND_NS
        self._most = max(per_second, 1.0)
        self._left = self._most
        self._at_ns = 0
        self._refused = 0

    def take(self, now_ns: int) -> bool:
        """Whether a frame that comes now is within the allowance."""
        self._left = min(self._left + (now_ns - self._at_ns) * self._per_ns, self._most)
        self._at_ns = now_ns
        if self._left >= 1:
            self._left -= 1
            self._refused = 0 if self._left >= self._most / 2 else self._refused
            return True
        self._refused += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether as many were refused as may come at once: the client doesn't listen."""
        return self._refused > self._most


class Frame(NamedTuple):
    """A data frame as it came, unmasked."""

    kind: int
    """Opcode; 0 for one that continues a message."""
    payload: bytes
    final: bool
    compressed: bool


class Message(NamedTuple):
    """A whole message."""

    kind: int
    payload: bytes | None
    """None if it is larger than allowed."""
    refused: bool
    """Whether one of its frames was beyond the client's allowance."""


class Inbound:
    """Puts messages together from their frames, keeping no more of one than is allowed.

    Parameters
    ----------
    limit : bytes of the largest message
    compressed : whether the client may compress messages
    """

    __slots__ = ("_begun", "_compressed", "_limit", "_pieces", "_refused", "_size")

    def __init__(self, limit: int, *, compressed: bool) -> None:
        self._limit = limit
        self._compressed = compressed
        self._begun: Frame | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._refused = False

    def take(self, frame: Frame, *, allowed: bool) -> Message | None:
        """The message that ends with this frame, if one does.

        Parameters
        ----------
        frame : the next one
        allowed : whether it is within the client's allowance

        Raises
        ------
        Fault
            the client doesn't keep to the protocol, or its message is far too large
        """
        if (frame.kind == 0) is (self._begun is None):
            raise Fault(PROTOCOL_ERROR, "a message's frames don't follow each other")
        if frame.compressed and (self._begun is not None or not self._compressed):
            raise Fault(PROTOCOL_ERROR, "no extension was agreed on that this frame uses")
        if self._begun is None:
            self._begun, self._size, self._refused = frame, 0, False
        self._size += len(frame.payload)
        self._refused |= not allowed
        if self._size > self._limit * FRAME_ROOM:
            raise Fault(TOO_BIG, f"a message may have {self._limit} bytes")
        if self._size <= self._limit:
            self._pieces.append(frame.payload)
        return self._ended() if frame.final else None

    def _ended(self) -> Message:
        begun, pieces = self._begun, self._pieces
        assert begun is not None, "a message was begun"
        self._begun, self._pieces = None, []
        if self._size > self._limit:
            return Message(begun.kind, None, self._refused)
        payload = b"".join(pieces)
        if begun.compressed and not self._refused:
            try:
                payload = inflate(payload, self._limit)
            except TooMuch as error:
                raise Fault(TOO_BIG, f"the message inflates to {error}") from None
            except ValueError:
                raise Fault(INVALID_PAYLOAD, "the message can't be inflated") from None
        return Message(begun.kind, payload, self._refused)
