"""One client as the hub sees it: what it wants, and what waits for it.

A client in step gets each event as it comes. Where its connection takes no more, events wait; when
too many bytes wait, or for too long, its pending deltas are dropped and their books are owed
instead: one snapshot each, made when the connection takes data again, so that it is current and
takes no memory until then. A client that stays behind is closed. The queue that does this is
native, as is the delivery of one frame to a `Group` of clients.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from alphapulse.stream._fanout import (
    BEHIND,
    POLICY_VIOLATION,
    WRITE_BYTES,
    Item,
    Outbox,
    Ready,
    check_all,
)
from alphapulse.stream._groups import Group
from alphapulse.stream.subscriptions import Subscriptions

if TYPE_CHECKING:
    from alphapulse.stream.consolidated import ConsolidatedView
    from alphapulse.stream.desk import Source
    from alphapulse.stream.views import View

__all__ = [
    "BEHIND",
    "GOING_AWAY",
    "POLICY_VIOLATION",
    "WRITE_BYTES",
    "Client",
    "Group",
    "Item",
    "Kind",
    "Limits",
    "Ready",
    "Sink",
    "check_all",
]

GOING_AWAY = 1001
"""Close code of RFC 6455, section 7.4.1."""


class Sink(Protocol):
    """A client's connection."""

    paused: bool
    """Whether it takes no more for now; the client is told by `Client.resume` when it does."""

    def write(self, data: bytes) -> None:
        """Send some frames, the first of which may be the rest of one."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection soon, whether it was read or not."""


class Kind(IntEnum):
    """What may happen to a waiting frame; numbered as in the native queue."""

    EVENT = 0
    """Sent, whatever happens."""
    DELTA = 1
    """Dropped if the client is behind; a snapshot takes its place."""
    SNAPSHOT = 2
    """Sent, and doesn't count as waiting too long while the client takes any data at all."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How far behind a client may be."""

    queue_bytes: int
    """Events and deltas that may wait; a snapshot, of which one waits at a time, comes on top."""
    behind_ns: int
    """How long anything may wait; deltas are dropped after half of it."""
    subscriptions: int


class Client(Outbox):
    """One connection: its subscriptions and its queue.

    Parameters
    ----------
    sink : the connection
    limits : how far behind it may be
    ready : the clients to flush; this one adds itself when it has something to send
    now_ns : monotonic time
    compressed : whether messages are to be compressed
    """

    __slots__ = ("markets", "subscriptions", "views")

    def __init__(
        self,
        sink: Sink,
        limits: Limits,
        ready: Ready[Client],
        now_ns: int,
        *,
        compressed: bool = False,
    ) -> None:
        super().__init__(sink, limits.queue_bytes, limits.behind_ns, ready, now_ns, compressed)
        self.subscriptions = Subscriptions(limits.subscriptions)
        self.views: dict[Source, View | ConsolidatedView] = {}
        """The books subscribed to, each at one depth."""
        self.markets: dict[Source, None] = {}
        """All that the client gets anything of."""
