"""The newest trades of the symbols that are asked for, in memory: most requests want no others.

Redis is asked each time for what has been added since, in one round trip; requests that come while
one is under way share the next. Late trades are added at a stream's end, too, so that nothing is
missed; entries are only ever taken away at its beginning.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from operator import attrgetter
from typing import Any

import redis.asyncio
import redis.exceptions

from alphapulse.history import TradeRow, at_most
from alphapulse.store.entries import Entry, Keys, trade_of
from alphapulse.store.recent import KEPT
from alphapulse.store.redis_link import Link, Request
from alphapulse.store.redis_reader import PAGE, StreamReader, done

ATTEMPTS = 2
"""The connection may have been lost since it was last used, and is then made again."""

_order = attrgetter("order_key")


class NewestTrades:
    """The ends of a store's streams of trades.

    Parameters
    ----------
    pool : makes the connection on which new entries are asked for; of RESP 2
    client : reads the rest
    prefix : first part of all keys' names
    """

    def __init__(
        self, pool: redis.asyncio.ConnectionPool, client: redis.asyncio.Redis, prefix: str
    ) -> None:
        self._pool = pool
        self._client = client
        self._prefix = prefix
        self._link: Link | None = None
        self._using = asyncio.Lock()
        self._series: dict[tuple[str, str], _End] = {}
        self._coming: dict[tuple[str, str], asyncio.Task[list[TradeRow]]] = {}

    async def read(self, exchange: str, symbol: str, limit: int) -> list[TradeRow]:
        """The newest trades in order, as of now.

        Parameters
        ----------
        exchange, symbol : whose
        limit : how many, `KEPT` at most

        Raises
        ------
        redis.exceptions.RedisError
            Redis failed
        """
        key = exchange, symbol
        task = self._coming.get(key)
        if task is None:
            task = self._coming[key] = asyncio.create_task(self._update(key))
            task.add_done_callback(_look)
        rows = await asyncio.shield(task)
        return at_most(limit, rows, newest=True)

    async def close(self) -> None:
        """Close the connection."""
        for task in list(self._coming.values()):
            task.cancel()
        if self._link is not None:
            await self._link.close()

    async def _update(self, key: tuple[str, str]) -> list[TradeRow]:
        async with self._using:
            # Who asks from here on may want what this round doesn't bring any more.
            del self._coming[key]
            end = self._series.pop(key, None)
            if end is None or not await self._follow(end):
                end = await self._begin(*key)
                if end is None:
                    return []
            self._series[key] = end
            return end.rows

    async def _begin(self, exchange: str, symbol: str) -> _End | None:
        """Read a stream's end; None if there is no such stream, or none any more."""
        keys = Keys(self._prefix, exchange)
        name = keys.trades(symbol)
        newest: list[Entry] = await done(self._client.xrevrange(name, count=1))
        if not newest:
            return None
        # What is added from here on is asked for again, and may be among the rows already.
        reader = StreamReader(self._client, keys, exchange, symbol)
        rows = await reader.read(None, None, KEPT, newest=True)
        end = _End(exchange, symbol, name, newest[0][0], rows)
        return end if await self._follow(end) else None

    async def _follow(self, end: _End) -> bool:
        """Take in what has been added. False if the stream isn't the one that it was."""
        while True:
            request = Request()
            request.add("XRANGE", end.name, end.last, "+", "COUNT", PAGE)
            request.add("XLEN", end.name)
            entries, length = await self._ask(request)
            if not entries or entries[0][0] != end.last:
                return False
            end.take(entries[1:], length)
            if len(entries) < PAGE:
                return True

    async def _ask(self, request: Request) -> list[Any]:
        data = request.take()
        for attempt in range(ATTEMPTS):
            if self._link is not None and self._link.closed:
                await self._link.close()
                self._link = None
            if self._link is None:
                self._link = await Link.open(self._pool)
            try:
                self._link.send(data)
                return await self._link.answers(request.count)
            except redis.exceptions.ConnectionError:
                if attempt == ATTEMPTS - 1:
                    raise
            except BaseException:
                # Answers that nobody has waited for would be taken for the next ones.
                await self._link.close()
                self._link = None
                raise
        raise AssertionError("the last attempt returns or raises")


class _End:
    """The newest trades of one stream.

    Parameters
    ----------
    exchange, symbol, name : of the stream
    last : id of its last entry that is known
    rows : in order, those of that entry and of all before it among them
    """

    def __init__(
        self, exchange: str, symbol: str, name: str, last: bytes, rows: list[TradeRow]
    ) -> None:
        self.name = name
        self.last = last
        self.rows = rows
        """In order, `KEPT` at most; never changed, only replaced."""
        self._exchange = exchange
        self._symbol = symbol
        self._known = {(row.id_kind, row.trade_id) for row in rows}

    def take(self, entries: list[tuple[bytes, list[bytes]]], length: int) -> None:
        """Take in entries.

        Parameters
        ----------
        entries : those after the last one
        length : of the stream
        """
        rows = self.rows
        for _, words in entries:
            fields = dict(zip(words[::2], words[1::2], strict=True))
            row = trade_of(fields, self._exchange, self._symbol)
            if (row.id_kind, row.trade_id) in self._known:
                continue
            if rows is self.rows:
                rows = list(rows)
            if rows and _order(row) < _order(rows[-1]):
                insort(rows, row, key=_order)
            else:
                rows.append(row)
        # Only what came while the rows were first read can come twice.
        self._known.clear()
        if entries:
            self.last = entries[-1][0]
        most = min(KEPT, length)
        self.rows = rows if len(rows) <= most else rows[len(rows) - most :]


def _look(task: asyncio.Task[list[TradeRow]]) -> None:
    """Those who wait are told of a failure; there may be none left."""
    if not task.cancelled():
        task.exception()
