"""What has arrived and waits to be taken: bounded, because a full one stops the reading."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from alphapulse.client.events import StreamEvent
from alphapulse.client.feed import Entry, Kind

ENTRY_BYTES = 120
"""What an entry takes besides its message."""

TAKE_BYTES = 256 * 1024
"""About how much is taken at a time."""


class Source(Protocol):
    """Where messages come from."""

    def pause(self) -> None:
        """Bring no more for now."""

    def go_on(self) -> None:
        """Bring more."""


class Inbox:
    """A queue from a connection to whoever iterates.

    When `limit_bytes` wait, the connection isn't read any more until half of it was taken: the
    server, which then can't send, replaces pending deltas by snapshots. While the answer to a
    request is awaited, which may lie behind events, up to twice as much is read.

    Parameters
    ----------
    limit_bytes : messages and what they take besides
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._entries: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._source: Source | None = None
        self._awaited = 0
        self._news: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self.paused = False
        """Whether the connection isn't read at present."""
        self.was_paused = False
        """Whether that was so since `attach`."""

    @property
    def waiting_bytes(self) -> int:
        """What waits, in bytes."""
        return self._waiting_bytes

    def attach(self, source: Source) -> None:
        """Messages come from here now."""
        self._source = source
        self.paused = self.was_paused = False
        self._balance()

    def put(self, kind: Kind, data: bytes) -> None:
        """A message has arrived."""
        self._entries.append((kind, data))
        self._waiting_bytes += len(data) + ENTRY_BYTES
        if self._waiting_bytes >= self._limit:
            self._balance()
        self._wake()

    def note(self, event: StreamEvent) -> None:
        """Something that the client itself has to say, in its place among the messages."""
        self._entries.append((Kind.NOTE, event))
        self._waiting_bytes += ENTRY_BYTES
        self._wake()

    def end(self, error: BaseException) -> None:
        """Nothing more comes: raise this when all has been taken."""
        if self._error is None:
            self._error = error
        self._wake()

    async def take(self) -> list[Entry]:
        """What waits, or some of it; waits for it where there is nothing.

        Raises
        ------
        BaseException
            that of `end`
        """
        while not self._entries:
            if self._error is not None:
                raise self._error
            self._news = asyncio.get_running_loop().create_future()
            try:
                await self._news
            finally:
                self._news = None
        return self._some()

    def await_answer(self, count: int) -> None:
        """So many more answers are awaited, or fewer."""
        self._awaited += count
        self._balance()

    def _some(self) -> list[Entry]:
        taken: list[Entry] = []
        size = 0
        while self._entries and size < TAKE_BYTES:
            entry = self._entries.popleft()
            taken.append(entry)
            size += ENTRY_BYTES + (len(entry[1]) if isinstance(entry[1], bytes) else 0)
        self._waiting_bytes -= size
        if self.paused:
            self._balance()
        return taken

    def _balance(self) -> None:
        """Stop the reading, or let it go on."""
        if self._source is None:
            return
        limit = self._limit * 2 if self._awaited else self._limit
        if self.paused:
            low = limit - 1 if self._awaited else limit // 2
            if self._waiting_bytes <= low:
                self.paused = False
                self._source.go_on()
        elif self._waiting_bytes >= limit:
            self.paused = self.was_paused = True
            self._source.pause()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
