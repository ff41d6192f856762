"""Reading a Redis stream of trades in the order of their own times."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import redis.asyncio

from alphapulse.history import OrderKey, TradeRow, at_most, in_order, narrowed
from alphapulse.store.entries import NS_PER_MS, Entry, Keys, parse_entry_id, trade_of

PAGE = 5000
"""Entries read at once."""


class StreamReader:
    """Reads the trades of one symbol.

    An entry's id tells the trade's time, save for late ones: their ids are later than they are,
    and they are found by the sorted set of the late ones.

    Parameters
    ----------
    client : connected to Redis
    keys : names of the venue's keys
    exchange, symbol : go into the rows
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, exchange: str, symbol: str) -> None:
        self._client = client
        self._keys = keys
        self._exchange = exchange
        self._symbol = symbol

    async def read(
        self,
        start_ns: int | None,
        end_ns: int | None,
        limit: int | None,
        newest: bool,
        beyond: OrderKey | None = None,
    ) -> list[TradeRow]:
        """See `History.read_trades`."""
        start_ns, end_ns = narrowed(start_ns, end_ns, beyond, newest)
        low = None if start_ns is None else max(start_ns // NS_PER_MS, 0)
        high = None if end_ns is None else end_ns // NS_PER_MS
        if high is not None and high < 0:
            low, high = 0, 0

        def wanted(row: TradeRow) -> bool:
            if beyond is not None and not (
                row.order_key < beyond if newest else row.order_key > beyond
            ):
                return False
            after = start_ns is None or row.timestamp_ns >= start_ns
            return after and (end_ns is None or row.timestamp_ns <= end_ns)

        rows, edge = await self._in_time(low, high, limit, newest, wanted)
        if edge is not None:
            low, high = (edge, high) if newest else (low, edge)
        rows += [row for row in await self._late(start_ns, low, high) if wanted(row)]
        return at_most(limit, in_order(rows), newest)

    async def _in_time(
        self,
        low: int | None,
        high: int | None,
        limit: int | None,
        newest: bool,
        wanted: Callable[[TradeRow], bool],
    ) -> tuple[list[TradeRow], int | None]:
        """Trades that came in time, and the millisecond at which reading stopped, if it did.

        More than `limit` may be given: the last millisecond is read whole, since ids within one
        are in the order of arrival.
        """
        first = "-" if low is None else str(low)
        last = "+" if high is None else str(high)
        key = self._keys.trades(self._symbol)
        rows: list[TradeRow] = []
        edge: int | None = None
        count = PAGE if limit is None else min(limit + 1, PAGE)
        while True:
            if newest:
                entries: list[Entry] = await done(
                    self._client.xrevrange(key, last, first, count=count)
                )
            else:
                entries = await done(self._client.xrange(key, first, last, count=count))
            for text, fields in entries:
                ms = parse_entry_id(text).ms
                if edge is not None and ms != edge:
                    return rows, edge
                row = trade_of(fields, self._exchange, self._symbol)
                if row.timestamp_ns // NS_PER_MS == ms and wanted(row):
                    rows.append(row)
                    if limit is not None and len(rows) >= limit:
                        edge = ms
            if len(entries) < count:
                return rows, edge
            after = f"({entries[-1][0].decode()}"
            first, last = (first, after) if newest else (after, last)
            count = PAGE

    async def _late(
        self, start_ns: int | None, low: int | None, high: int | None
    ) -> list[TradeRow]:
        lowest = "-inf" if low is None or (start_ns is not None and start_ns < 0) else low
        highest = "+inf" if high is None else high
        ids = await done(self._client.zrangebyscore(self._keys.late(self._symbol), lowest, highest))
        if not ids:
            return []
        key = self._keys.trades(self._symbol)
        async with self._client.pipeline(transaction=False) as pipe:
            for entry_id in ids:
                pipe.xrange(key, entry_id, entry_id)
            answers: list[list[Entry]] = await pipe.execute()
        return [
            trade_of(fields, self._exchange, self._symbol)
            for entries in answers
            for _, fields in entries
        ]


async def done(answer: Awaitable[Any] | Any) -> Any:
    """Redis's answer; the client's types leave open whether a call has to be awaited."""
    return await answer
