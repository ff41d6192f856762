"""One connection to Redis, on which a transaction's answers are taken all at once.

redis-py connects, authenticates and chooses the database; from then on its transport is used
without it. The library takes a few coroutines for each answer, and a transaction has one answer for
each of its commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import hiredis
import redis.asyncio
import redis.exceptions

ANSWER_TIMEOUT_SECONDS = 10.0
"""Longest wait for an answer."""

WATCH_SECONDS = 1.0
"""How often that is looked at."""

_MORE = object()
"""What the parser gives where an answer isn't there as a whole."""


class Request:
    """Commands to be sent together."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.count = 0
        """How many commands there are, and so how many answers."""

    def add(self, *command: str | bytes | int) -> None:
        """Add a command by its words."""
        # The types of hiredis know commands of one word only.
        self.pieces.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        self.count += 1

    def add_packed(self, commands: Iterable[bytes], count: int) -> None:
        """Add commands as they are sent."""
        self.pieces += commands
        self.count += count

    def take(self) -> bytes:
        """What hasn't been taken as yet, to be sent."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


class Link(asyncio.Protocol):
    """A connection; made by `open`. For one task at a time."""

    def __init__(self, connection: redis.asyncio.Connection, transport: Any) -> None:
        self._connection = connection
        self._transport = transport
        self._parser = hiredis.Reader(replyError=self._refused, notEnoughData=_MORE)
        self._error: Exception | None = None
        self._answers: list[Any] = []
        self._wanted = 0
        self._queued: tuple[bytes, int] | None = None
        """What the next data begins with unless something is wrong; how many answers that is."""
        self._waiter: asyncio.Future[None] | None = None
        self._overdue_at = 0.0
        self._watch = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._look)
        self._lost: Exception | None = None

    @classmethod
    async def open(cls, pool: redis.asyncio.ConnectionPool) -> Link:
        """Connect.

        Parameters
        ----------
        pool : tells where to; has to be of RESP 2, in which nothing comes unasked

        Raises
        ------
        redis.exceptions.RedisError
            Redis can't be reached, or refuses
        """
        connection = pool.make_connection()
        await connection.connect()
        transport = connection._writer.transport
        link = cls(connection, transport)
        transport.set_protocol(link)
        return link

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._lost is not None

    def send(self, data: bytes) -> None:
        """Send commands; `answers` gives what Redis answers."""
        self._transport.write(data)

    async def answers(self, count: int) -> list[Any]:
        """The next answers, in order.

        Raises
        ------
        redis.exceptions.ResponseError
            one of them, or of what they contain, is an error: the first
        redis.exceptions.ConnectionError
            the connection was lost, or there was no answer in `ANSWER_TIMEOUT_SECONDS`
        """
        if len(self._answers) < count:
            if self._lost is not None:
                raise self._lost
            loop = asyncio.get_running_loop()
            self._wanted = count
            self._overdue_at = loop.time() + ANSWER_TIMEOUT_SECONDS
            self._waiter = loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        found = self._answers[:count]
        del self._answers[:count]
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return found

    async def executed(self, count: int, last: int) -> list[Any]:
        """The last answers to commands of which the first is ``MULTI``; raises as `answers` does.

        Parameters
        ----------
        count : how many commands were sent
        last : how many answers are wanted: that of ``EXEC`` and those behind it
        """
        self._queued = b"+OK\r\n" + b"+QUEUED\r\n" * (count - last - 1), count - last
        answers = await self.answers(count)
        return answers[-last:]

    async def ask(self, request: Request) -> list[Any]:
        """Send commands and give their answers; raises as `answers` does."""
        self.send(request.take())
        return await self.answers(request.count)

    async def close(self) -> None:
        """End the connection. May be called twice."""
        self._watch.cancel()
        self._transport.abort()
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        answers = self._answers
        if self._queued is not None:
            expected, count = self._queued
            self._queued = None
            if data.startswith(expected):
                # Most of what comes says only that a command was understood.
                answers += [None] * count
                data = data[len(expected) :]
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not _MORE:
            answers.append(answer)
        if len(answers) >= self._wanted and self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._fail(redis.exceptions.ConnectionError(f"connection lost ({error or 'closed'})"))

    def _refused(self, text: str) -> Exception:
        error = redis.exceptions.ResponseError(text)
        self._error = self._error or error
        return error

    def _look(self) -> None:
        """Give up where an answer is overdue."""
        loop = asyncio.get_running_loop()
        if self._waiter is not None and loop.time() > self._overdue_at:
            text = f"no answer in {ANSWER_TIMEOUT_SECONDS:g} seconds"
            self._fail(redis.exceptions.TimeoutError(text))
            self._transport.abort()
        elif self._lost is None:
            self._watch = loop.call_later(WATCH_SECONDS, self._look)

    def _fail(self, error: Exception) -> None:
        self._lost = self._lost or error
        if self._waiter and not self._waiter.done():
            self._waiter.set_exception(self._lost)
