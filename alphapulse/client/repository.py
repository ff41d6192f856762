"""`MarketDataRepository` over the REST API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from alphapulse.client.answers import (
    BarItem,
    BarsAnswer,
    BookAnswer,
    ExchangesAnswer,
    GapItem,
    GapsAnswer,
    GivenTrades,
    HealthAnswer,
    SavedAnswer,
    SummaryAnswer,
    SymbolsAnswer,
    TradeItem,
    TradesAnswer,
    given,
)
from alphapulse.client.rest import Rest
from alphapulse.errors import RequestError, StoreError
from alphapulse.fixed import INT64_MAX, format_decimal
from alphapulse.history import BookRow, GapRow
from alphapulse.repository import (
    BookSnapshot,
    DataSummary,
    MarketTrade,
    OhlcvBar,
    interval_ns_of,
    nanoseconds_of,
    rows_to_save,
    symbol_of,
)

Item = TypeVar("Item", TradeItem, BarItem, GapItem)

TIMEOUT_SECONDS = 10.0
RETRY_SECONDS = 15.0
PAGE_ROWS = 5000
BOOK_DEPTH = 1000
ROWS_A_REQUEST = 2000
"""Trades that are sent at once; each request is stored whole or not at all."""
LATEST = format_decimal(INT64_MAX, 9)
"""A time that no book is younger than."""


class _Page(Protocol[Item]):
    data: list[Item]
    next: str | None


class HttpRepository:
    """Market data of a REST server.

    What it gives is what the stores themselves give: nothing, and no error, for exchanges and
    symbols of which nothing is known. A GET that fails is tried again for a while; what is sent to
    be stored is sent once. All methods raise `StoreError` where there is no answer, and
    `RequestError` where the server refuses; without a writable server (``api.writable``) it
    refuses `save_trades`.

    Parameters
    ----------
    url : of the server, for instance ``http://127.0.0.1:3001``
    token : the server's ``api.token``, if it has one
    timeout_seconds : longest wait for one answer
    retry_seconds : how long a request that fails is tried again
    page_rows : rows that are asked for at once, at most the server's ``api.max_limit``
    depth : levels a side of a book, at most the server's ``api.max_limit``

    Raises
    ------
    RequestError
        the URL is none of a REST server
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        page_rows: int = PAGE_ROWS,
        depth: int = BOOK_DEPTH,
    ) -> None:
        self._rest = Rest(url, token, timeout_seconds, retry_seconds)
        self._page_rows = page_rows
        self._depth = depth

    async def save_trades(
        self, trades: Iterable[Mapping[str, Any] | Any], symbol: str, exchange: str
    ) -> dict[str, Any]:
        """See `MarketDataRepository`; `ROWS_A_REQUEST` trades are stored at once."""
        symbol = symbol_of(symbol)
        items = [given(row) for row in rows_to_save(trades, symbol, exchange)]
        saved = duplicates = 0
        for begin in range(0, len(items), ROWS_A_REQUEST):
            body = msgspec.json.encode(GivenTrades(items[begin : begin + ROWS_A_REQUEST]))
            answer = await self._rest.post(
                f"/trades/{quote(symbol)}", SavedAnswer, {"exchange": exchange}, body
            )
            saved += answer.saved
            duplicates += answer.duplicates
        return {"success": True, "saved": saved, "duplicates": duplicates}

    async def get_trades(
        self,
        symbol: str,
        exchange: str,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        limit: int | None = None,
        *,
        exact: bool = False,
    ) -> list[MarketTrade]:
        """See `MarketDataRepository`."""
        path = f"/trades/{quote(symbol_of(symbol))}"
        query = {"exchange": exchange}
        rows = await self._rows(path, TradesAnswer, query, start_time, end_time, limit)
        return [row.result(exact) for row in rows]

    async def get_ohlcv(
        self,
        symbol: str,
        exchange: str,
        interval: str = "1m",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        *,
        exact: bool = False,
    ) -> list[OhlcvBar]:
        """See `MarketDataRepository`."""
        interval_ns_of(interval)
        path = f"/ohlcv/{quote(symbol_of(symbol))}"
        query = {"exchange": exchange, "interval": interval}
        rows = await self._rows(path, BarsAnswer, query, start_time, end_time, None)
        return [row.result(exact) for row in rows]

    async def get_orderbook_snapshot(
        self,
        symbol: str,
        exchange: str,
        timestamp: datetime | None = None,
        *,
        exact: bool = False,
    ) -> BookSnapshot | None:
        """See `MarketDataRepository`.

        Without a time it is the live book, or, where that isn't live, the newest one kept.
        """
        path = f"/orderbook/{quote(symbol_of(symbol))}"
        query = {"exchange": exchange, "depth": str(self._depth)}
        time_text = _seconds(timestamp)
        if time_text is None:
            live = await self._rest.get(path, BookAnswer, query)
            found = None if live is None else live.result(exact)
            if found is not None:
                return found
            time_text = LATEST
        kept = await self._rest.get(path, BookAnswer, {**query, "timestamp": time_text})
        return None if kept is None else kept.result(exact)

    async def read_book(self, exchange: str, symbol: str, at_ns: int) -> BookRow | None:
        """The newest book kept that isn't younger than that, with `depth` levels, exactly."""
        path = f"/orderbook/{quote(symbol_of(symbol))}"
        query = {"exchange": exchange, "depth": str(self._depth)}
        query["timestamp"] = format_decimal(at_ns, 9)
        kept = await self._rest.get(path, BookAnswer, query)
        return None if kept is None else kept.row()

    async def get_exchanges(self) -> list[str]:
        """Exchanges of which there is something, or that are collected."""
        answer = await self._rest.get("/exchanges", ExchangesAnswer)
        return [] if answer is None else answer.exchanges

    async def get_symbols(self, exchange: str) -> list[str]:
        """See `MarketDataRepository`; those that are collected are among them from the start."""
        answer = await self._rest.get(f"/symbols/{quote(exchange, safe='')}", SymbolsAnswer)
        return [] if answer is None else answer.symbols

    async def get_data_summary(self) -> DataSummary:
        """See `MarketDataRepository`."""
        answer = await self._rest.get("/summary", SummaryAnswer)
        if answer is None:
            raise StoreError(f"{self._rest.url} has no summary")
        return answer.result()

    async def read_gaps(self) -> list[GapRow]:
        """What the history lacks or lacked, of all exchanges, by the time when it was seen."""
        query = {"start_time": "0", "limit": str(self._page_rows)}
        found: list[GapRow] = []
        async for page in self._pages("/gaps", GapsAnswer, query):
            try:
                found += [item.result() for item in page]
            except KeyError as error:
                raise StoreError(
                    f"{self._rest.url} tells of a gap of unknown kind: {error}"
                ) from None
        return found

    async def health_check(self) -> dict[str, Any]:
        """See `MarketDataRepository`: whether the server answers, and its store."""
        try:
            answer = await self._rest.get("/health", HealthAnswer)
        except (StoreError, RequestError) as error:
            return {"status": "failed", "problem": str(error)}
        if answer is None:
            return {"status": "failed", "problem": f"{self._rest.url} doesn't tell"}
        store = answer.components.store
        return {"status": store.status} | ({"problem": store.problem} if store.problem else {})

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        await self._rest.close()

    async def _rows(
        self,
        path: str,
        kind: type[_Page[Item]],
        query: dict[str, str],
        start_time: datetime | None,
        end_time: datetime | None,
        limit: int | None,
    ) -> list[Item]:
        """Rows of a span, oldest first: the first ones, or the newest ones without a start."""
        start, end = nanoseconds_of(start_time), nanoseconds_of(end_time)
        if start is not None and end is not None and start > end:
            return []
        if limit is not None and limit < 1:
            return []
        newest = start_time is None
        bounds = {"start_time": _seconds(start_time), "end_time": _seconds(end_time)}
        rows = self._page_rows if limit is None else min(limit, self._page_rows)
        asked = {name: text for name, text in bounds.items() if text is not None}
        pages: list[list[Item]] = []
        count = 0
        async for page in self._pages(path, kind, {**query, **asked, "limit": str(rows)}):
            pages.append(page)
            count += len(page)
            if limit is not None and count >= limit:
                break
        found = [row for page in (reversed(pages) if newest else pages) for row in page]
        if limit is None:
            return found
        return found[-limit:] if newest else found[:limit]

    async def _pages(
        self, path: str, kind: type[_Page[Item]], query: Mapping[str, str]
    ) -> AsyncIterator[list[Item]]:
        page = await self._rest.get(path, kind, query)
        while page is not None:
            yield page.data
            if page.next is None:
                return
            page = await self._rest.get(page.next, kind)


def _seconds(moment: datetime | None) -> str | None:
    time_ns = nanoseconds_of(moment)
    if time_ns is None:
        return None
    return format_decimal(min(max(time_ns, -INT64_MAX), INT64_MAX), 9)
