"""A client's queue in plain Python, the oracle of the native one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from alphapulse.model import Reason

WRITE_BYTES = 256 * 1024
POLICY_VIOLATION = 1008
BEHIND = "too far behind"

EVENT, DELTA, SNAPSHOT = range(3)


class Sink(Protocol):
    """A client's connection."""

    paused: bool

    def write(self, data: bytes) -> None: ...

    def close(self, code: int, reason: str) -> None: ...


class Lapse(Protocol):
    """What tells that a book's changes are left out, and that it is live again."""

    def stale(self) -> Item: ...

    def live(self) -> Item: ...


class View(Protocol):
    """A book at some depth."""

    @property
    def lapse(self) -> Lapse | None: ...

    def serves(self, client: Outbox) -> bool: ...

    def snapshot(self, reason: Reason) -> list[Item]: ...


class Item(NamedTuple):
    """A frame."""

    frame: bytes
    kind: int
    view: View | None
    at_ns: int
    lapse: Lapse | None = None


class Outbox:
    """What waits for one client."""

    def __init__(
        self, sink: Sink, queue_bytes: int, behind_ns: int, ready: list[Outbox], now_ns: int
    ) -> None:
        self.closed = False
        self.conflations = 0
        self._sink = sink
        self._limit = queue_bytes
        self._behind_ns = behind_ns
        self._ready = ready
        self._queue: deque[Item] = deque()
        self._owed: dict[View, Reason] = {}
        self._held: dict[View, Item] = {}
        self._paid_bytes = 0
        self._moved_ns = now_ns

    @property
    def waiting_bytes(self) -> int:
        return sum(len(item.frame) for item in self._queue if item.kind != SNAPSHOT)

    def send(self, item: Item) -> None:
        if self.closed or self.waiting_bytes > self._limit:
            return
        self._queue.append(item)
        if self.waiting_bytes > self._limit:
            self._relieve(item.at_ns)
        self._list()

    def deliver(self, item: Item) -> None:
        """As a group does it."""
        if item.kind != DELTA or item.view not in self._owed:
            self.send(item)

    def send_state(self, item: Item, view: View | None, live: bool) -> None:
        if view is not None:
            if live and view in self._owed:
                self._held[view] = item
                return
            if not live:
                self.forget(view)
        self.send(item)

    def owe(self, view: View, reason: Reason) -> None:
        if not self.closed:
            self._owed.setdefault(view, reason)
            self._list()

    def present(self, items: list[Item], view: View, reason: Reason) -> None:
        if self.closed or view in self._owed:
            return
        if not self._sink.paused:
            for item in items:
                self.send(item)
            return
        self.owe(view, reason)
        if view.lapse is not None:
            self.send(view.lapse.stale())
            self._held[view] = view.lapse.live()

    def forget(self, view: View) -> bool:
        self._owed.pop(view, None)
        return self._held.pop(view, None) is not None

    def flush(self, now_ns: int) -> None:
        if self.waiting_bytes > self._limit:
            self.close(POLICY_VIOLATION, BEHIND)
        self._drain(now_ns)

    def resume(self, now_ns: int) -> None:
        self._moved_ns = now_ns
        self._list()

    def check(self, now_ns: int) -> None:
        if self.closed or not self._sink.paused:
            return
        age_ns = now_ns - self._oldest_ns(now_ns)
        if any(item.kind == DELTA for item in self._queue) and age_ns > self._behind_ns // 2:
            self._conflate()
            age_ns = now_ns - self._oldest_ns(now_ns)
        if max(age_ns, now_ns - self._moved_ns) > self._behind_ns:
            self.close(POLICY_VIOLATION, BEHIND)

    def close(self, code: int, reason: str) -> None:
        if not self.closed:
            self.closed = True
            self._queue.clear()
            self._owed.clear()
            self._held.clear()
            self._sink.close(code, reason)

    def _list(self) -> None:
        if self not in self._ready:
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
        if not self._sink.paused:
            self._drain(now_ns)
        if self.waiting_bytes > self._limit:
            self._conflate()

    def _take(self) -> Iterator[bytes]:
        size = 0
        while size < WRITE_BYTES and (self._queue or self._pay()):
            item = self._queue.popleft()
            size += len(item.frame)
            yield item.frame

    def _pay(self) -> bool:
        while self._owed and self._paid_bytes < WRITE_BYTES:
            view, reason = next(iter(self._owed.items()))
            live = self._held.get(view)
            self.forget(view)
            if not view.serves(self):
                continue
            items = view.snapshot(reason)
            self._paid_bytes += sum(len(item.frame) for item in items)
            self._queue.extend(items)
            if live is not None:
                self._queue.append(live)
            return True
        return False

    def _conflate(self) -> None:
        kept: deque[Item] = deque()
        stale: set[View | None] = set()
        for item in self._queue:
            if item.kind != DELTA:
                kept.append(item)
                if item.kind == SNAPSHOT:
                    stale.discard(item.view)
                continue
            assert item.view is not None
            if item.view.serves(self):
                if item.view not in self._owed:
                    self._owed[item.view] = Reason.LAPPED
                    self.conflations += 1
                if item.view.lapse is not None and item.view not in self._held:
                    self._held[item.view] = item.view.lapse.live()
            if item.lapse is not None and item.view not in stale:
                stale.add(item.view)
                kept.append(item.lapse.stale())
        self._queue = kept

    def _oldest_ns(self, now_ns: int) -> int:
        return next((item.at_ns for item in self._queue if item.kind != SNAPSHOT), now_ns)
