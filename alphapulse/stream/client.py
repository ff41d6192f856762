"""What waits for one client, and what becomes of it when the client is slow.

A client in step gets each event as it comes. Where its connection takes no more, events wait; when
too many bytes wait, or for too long, its pending deltas are dropped and their books are owed
instead: one snapshot each, made when the connection takes data again, so that it is current and
takes no memory until then. A client that stays behind is closed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from alphapulse.model import Reason
from alphapulse.stream.subscriptions import Subscriptions

if TYPE_CHECKING:
    from alphapulse.stream.market import Market
    from alphapulse.stream.views import View

WRITE_BYTES = 256 * 1024
"""About how much goes out in one write."""

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
"""Close codes of RFC 6455, section 7.4.1."""

BEHIND = "too far behind"


class Sink(Protocol):
    """A client's connection."""

    paused: bool
    """Whether it takes no more for now; the client is told by `Client.resume` when it does."""

    def write(self, data: bytes) -> None:
        """Send some frames."""

    def close(self, code: int, reason: str) -> None:
        """Send a close frame, and end the connection soon, whether it was read or not."""


class Kind(Enum):
    """What may happen to a waiting frame."""

    EVENT = auto()
    """Sent, whatever happens."""
    DELTA = auto()
    """Dropped if the client is behind; a snapshot takes its place."""
    SNAPSHOT = auto()
    """Sent, and doesn't count as waiting too long while the client takes any data at all."""


class Item(NamedTuple):
    """A frame, shared by all clients that get it."""

    frame: bytes
    kind: Kind
    view: View | None
    """The book view of a delta or snapshot."""
    at_ns: int
    """Monotonic time at which it was made."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How far behind a client may be."""

    queue_bytes: int
    """Events and deltas that may wait; a snapshot, of which one waits at a time, comes on top."""
    behind_ns: int
    """How long anything may wait; deltas are dropped after half of it."""
    subscriptions: int


class Client:
    """One connection: its subscriptions and its queue.

    Parameters
    ----------
    sink : the connection
    limits : how far behind it may be
    ready : list of clients to flush; this client adds itself when it has something to send
    now_ns : monotonic time
    """

    def __init__(self, sink: Sink, limits: Limits, ready: list[Client], now_ns: int) -> None:
        self.subscriptions = Subscriptions(limits.subscriptions)
        self.views: dict[Market, View] = {}
        """The books subscribed to, each at one depth."""
        self.markets: dict[Market, None] = {}
        """All that the client gets anything of."""
        self.closed = False
        self._sink = sink
        self._limits = limits
        self._ready = ready
        self._listed = False
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._deltas = 0
        self._owed: dict[View, Reason] = {}
        self._held: dict[View, Item] = {}
        self._paid_bytes = 0
        self._moved_ns = now_ns
        self._conflations = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes of events and deltas that wait."""
        return self._bytes

    def send(self, item: Item) -> None:
        """Queue a frame; it goes out with the next flush."""
        if self.closed or self._bytes > self._limits.queue_bytes:
            return
        self._queue.append(item)
        if item.kind is not Kind.SNAPSHOT:
            self._bytes += len(item.frame)
            if item.kind is Kind.DELTA:
                self._deltas += 1
            if self._bytes > self._limits.queue_bytes:
                self._relieve(item.at_ns)
        self._list()

    def send_delta(self, item: Item, view: View) -> None:
        """Queue a delta, unless a snapshot to come includes it."""
        if view not in self._owed:
            self.send(item)

    def send_state(self, item: Item, view: View | None, live: bool) -> None:
        """Queue a book's new state; that it is live waits for the snapshot that makes it so."""
        if view is not None:
            if live and view in self._owed:
                self._held[view] = item
                return
            if not live:
                self.forget(view)
        self.send(item)

    def owe(self, view: View, reason: Reason) -> None:
        """Send a snapshot of a live book as soon as the connection takes it."""
        if not self.closed:
            self._owed.setdefault(view, reason)
            self._list()

    def forget(self, view: View) -> None:
        """Owe no snapshot of a book that isn't live any more or not wanted."""
        self._owed.pop(view, None)
        self._held.pop(view, None)

    def flush(self, now_ns: int) -> None:
        """Hand over to the connection as much as it takes.

        Of snapshots that are owed, which take time to make, about one write's worth: the client
        then is ready for another flush, and others have their turn in between.
        """
        self._listed = False
        if self._bytes > self._limits.queue_bytes:
            self.close(POLICY_VIOLATION, BEHIND)
        self._drain(now_ns)

    def resume(self, now_ns: int) -> None:
        """The connection takes data again; what waits goes out with the next flush."""
        self._moved_ns = now_ns
        self._list()

    def check(self, now_ns: int) -> None:
        """Conflate or close the client if it has been behind for too long."""
        if self.closed or not self._sink.paused:
            return
        age_ns = now_ns - self._oldest_ns(now_ns)
        if self._deltas and age_ns > self._limits.behind_ns // 2:
            self._conflate()
            age_ns = now_ns - self._oldest_ns(now_ns)
        if max(age_ns, now_ns - self._moved_ns) > self._limits.behind_ns:
            self.close(POLICY_VIOLATION, BEHIND)

    def take_conflations(self) -> int:
        """Books whose pending deltas were replaced by a snapshot since the last call."""
        count, self._conflations = self._conflations, 0
        return count

    def close(self, code: int, reason: str) -> None:
        """Drop what waits and end the connection."""
        if not self.closed:
            self.closed = True
            self._queue.clear()
            self._bytes = self._deltas = 0
            self._owed.clear()
            self._held.clear()
            self._sink.close(code, reason)

    def _list(self) -> None:
        if not self._listed:
            self._listed = True
            self._ready.append(self)

    def _drain(self, now_ns: int) -> None:
        self._paid_bytes = 0
        while not self._sink.paused and not self.closed:
            data = b"".join(self._take())
            if not data:
                break
            self._sink.write(data)
            self._moved_ns = now_ns
        if self._owed and not self._sink.paused:
            self._list()

    def _relieve(self, now_ns: int) -> None:
        """Make room; where deltas aren't what fills the queue, the next flush closes the client."""
        if not self._sink.paused:
            self._drain(now_ns)
        if self._bytes > self._limits.queue_bytes:
            self._conflate()

    def _take(self) -> Iterator[bytes]:
        """Frames for one write; snapshots that are owed are made when nothing else waits."""
        size = 0
        while size < WRITE_BYTES and (self._queue or self._pay()):
            item = self._queue.popleft()
            size += len(item.frame)
            if item.kind is not Kind.SNAPSHOT:
                self._bytes -= len(item.frame)
                if item.kind is Kind.DELTA:
                    self._deltas -= 1
            yield item.frame

    def _pay(self) -> bool:
        """Queue the snapshot that has been owed for longest; False if none is, or for this time."""
        if not self._owed or self._paid_bytes >= WRITE_BYTES:
            return False
        view, reason = next(iter(self._owed.items()))
        del self._owed[view]
        items = view.snapshot(reason)
        self._paid_bytes += sum(len(item.frame) for item in items)
        self._queue.extend(items)
        held = self._held.pop(view, None)
        if held is not None:
            self.send(held)
        return True

    def _conflate(self) -> None:
        """Drop the pending deltas and owe their books a snapshot each."""
        kept: deque[Item] = deque()
        for item in self._queue:
            if item.kind is Kind.DELTA and item.view is not None:
                self._bytes -= len(item.frame)
                if item.view not in self._owed and item.view.serves(self):
                    self._owed[item.view] = Reason.LAPPED
                    self._conflations += 1
            else:
                kept.append(item)
        self._queue = kept
        self._deltas = 0

    def _oldest_ns(self, now_ns: int) -> int:
        """When the oldest of the waiting events and deltas was made."""
        for item in self._queue:
            if item.kind is not Kind.SNAPSHOT:
                return item.at_ns
        return now_ns
