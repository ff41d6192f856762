"""What all clients have: iteration over events, books, and how they are opened and closed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Generic, Literal, Protocol, Self, TypeVar

from alphapulse.client.books import Books, LocalBook
from alphapulse.client.collected import DEFAULT_LIMIT, Collected
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.events import StreamEvent
from alphapulse.client.messages import Format, Subscribed
from alphapulse.client.subscribing import Names
from alphapulse.errors import ClientClosed, ClientError

EVENTS_IN_A_ROW = 256
"""So many events are given before others of the event loop have their turn."""

E_contra = TypeVar("E_contra", contravariant=True)
E = TypeVar("E")


class Meaning(Protocol[E_contra]):
    """Turns what arrives into events and books."""

    @property
    def books(self) -> Books[LocalBook]:
        """Books of single exchanges, by (exchange, symbol)."""

    @property
    def consolidated(self) -> Mapping[str, ConsolidatedBook]:
        """Books across venues, by symbol."""

    def take(self, entry: E_contra) -> Iterable[StreamEvent]:
        """Events of what arrived; when one is given, the books are as of it."""


class Client(ABC, Generic[E]):
    """Base of the clients: events by ``async for``, books beside them.

    Parameters
    ----------
    meaning : turns what `take` gives into events
    """

    def __init__(self, meaning: Meaning[E]) -> None:
        self._meaning = meaning
        self._entries: deque[E] = deque()
        self._events: deque[StreamEvent] = deque()
        self._decoded: Iterator[StreamEvent] = iter(())
        self._given = 0
        self._taking = False
        self._opened = False

    @property
    def books(self) -> Books[LocalBook]:
        """The books that were told of, by (exchange, symbol), live or not."""
        return self._meaning.books

    @property
    def consolidated(self) -> Mapping[str, ConsolidatedBook]:
        """The books across venues (exchange ``all``), by symbol."""
        return self._meaning.consolidated

    async def open(self) -> Self:
        """Open the client; ``async with`` does it."""
        if self._opened:
            raise ClientError("the client was opened before; make a new one")
        self._opened = True
        await self._open()
        return self

    @abstractmethod
    async def close(self) -> None:
        """Close the client. May be called again."""

    @abstractmethod
    async def subscribe(
        self,
        channels: str | Iterable[str],
        exchanges: Names = None,
        symbols: Names = None,
        *,
        depth: int | Literal["full"] | None = None,
        conflate_ms: int | None = None,
        format: Format | None = None,  # noqa: A002  the protocol's own word
    ) -> list[Subscribed]:
        """Subscribe to some channels of some exchanges and symbols."""

    @abstractmethod
    async def unsubscribe(
        self,
        channels: str | Iterable[str] | None = None,
        exchanges: Names = None,
        symbols: Names = None,
    ) -> None:
        """Take subscriptions back, or a part of them; None for all."""

    @abstractmethod
    async def snapshot(self, exchanges: Names = None, symbols: Names = None) -> None:
        """Have subscribed books told once more, with reason ``requested``."""

    @abstractmethod
    async def _open(self) -> None: ...

    @abstractmethod
    async def take(self) -> Sequence[E]:
        """What arrived next, for `decode`; waits for it. Iterating does this."""

    def decode(self, entry: E) -> Iterable[StreamEvent]:
        """Events of what `take` gave, in order; the books follow. Iterating does this."""
        return self._meaning.take(entry)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        self._given += 1
        if self._given % EVENTS_IN_A_ROW == 0:
            # What waits needs no waiting for; the connection has to be read all the same.
            await asyncio.sleep(0)
        event = self.next_waiting()
        if event is not None:
            return event
        self._check_opened()
        if self._taking:
            raise ClientError("the client is being iterated over already")
        self._taking = True
        try:
            while event is None:
                self._entries.extend(await self.take())
                event = self.next_waiting()
        finally:
            self._taking = False
        return event

    def next_waiting(self) -> StreamEvent | None:
        """The next event of what `take` gave; None where there is none without waiting."""
        if self._events:
            return self._events.popleft()
        while True:
            for event in self._decoded:
                return event
            if not self._entries:
                return None
            self._decoded = iter(self.decode(self._entries.popleft()))

    def hold(self, entries: Iterable[E]) -> None:
        """Keep what `take` gave for `next_waiting`."""
        self._entries.extend(entries)

    async def follow(self) -> None:
        """Take events and drop them, for the sake of the books, until cancelled or closed."""
        try:
            async for _ in self:
                pass
        except ClientClosed:
            return

    async def collect(
        self,
        count: int | None = None,
        *,
        seconds: float | None = None,
        until: Callable[[StreamEvent], bool] | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Collected:
        """Take events and keep them: for so many events, or seconds, or until one that fits.

        Parameters
        ----------
        limit : events that are kept at most; older ones are dropped
        """
        collected = Collected(limit)
        if count is None and seconds is None and until is None:
            raise ValueError("collect what? Give count, seconds or until")
        try:
            async with asyncio.timeout(seconds):
                while count is None or len(collected) + collected.dropped < count:
                    event = await anext(self)
                    collected.append(event)
                    if until is not None and until(event):
                        break
        except TimeoutError:
            return collected
        return collected

    def _check_opened(self) -> None:
        if not self._opened:
            raise ClientClosed("the client isn't open; use `async with` or `await client.open()`")
