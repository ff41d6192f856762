"""``/trades``, ``/ohlcv``, ``/exchanges``, ``/symbols`` and ``/summary``: the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar, cast

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api._items import bars_json, trade_json, trades_json
from alphapulse.api.answers import (
    essence_of,
    json_response,
    tag_of,
    tagged,
    tagged_json,
    timed,
)
from alphapulse.api.arrow import bars_table, trades_table
from alphapulse.api.bodies import (
    BarItem,
    BarsBody,
    DateRange,
    ExchangesBody,
    SummaryBody,
    SymbolsBody,
    TradeItem,
    TradesBody,
    number,
    seconds,
)
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.formats import CSV, FORMAT, JSON, TABLE_FORMATS, Format, accepted, csv_of
from alphapulse.api.items import Answer
from alphapulse.api.pages import (
    Cursor,
    cursor_of,
    next_link,
    page_headers,
    page_of,
    series_of,
)
from alphapulse.api.parameters import Choice, Count, Exchange, Parameters, path_symbol
from alphapulse.history import ALL, INTERVALS_NS, BarRow, OrderKey, TradeRow, summary_of
from alphapulse.model import IdKind

R = TypeVar("R")

_ID_KINDS: dict[IdKind, Literal["aggregate", "text"] | None] = {
    IdKind.TRADE: None,
    IdKind.AGGREGATE: "aggregate",
    IdKind.TEXT: "text",
}

DEFAULT_EXCHANGE = "coinbase"

EXCHANGE = Exchange("exchange", "Whose trades are meant.", default=DEFAULT_EXCHANGE)
BARS_EXCHANGE = Exchange(
    "exchange",
    "Whose trades; `all` makes one bar of all exchanges' trades.",
    default=DEFAULT_EXCHANGE,
    others=(ALL,),
)
LIMIT = Count("limit", "Most rows of a page.", default=100)
INTERVAL = Choice("interval", "Length of a bar.", INTERVALS_NS, default="1m")


async def trades(context: Context, request: Request, query: Parameters) -> Response:
    """Trades by (timestamp, trade_id): the first from `start_time` on, else the newest."""
    start, end = query.span()
    return await _trades(context, request, query, start, end, recent=False)


async def recent_trades(context: Context, request: Request, query: Parameters) -> Response:
    """The newest trades, newest first."""
    return await _trades(context, request, query, None, None, recent=True)


async def ohlcv(context: Context, request: Request, query: Parameters) -> Response:
    """Bars: the first that begin at `start_time` or later, else the newest; oldest first."""
    symbol, exchange = path_symbol(request), query[BARS_EXCHANGE]
    interval, limit, form = query[INTERVAL], query[LIMIT], _format(request, query)
    start, end = query.span()
    newest = start is None
    series = series_of("bars", exchange, symbol, interval, newest)
    cursor = cursor_of(query, series)
    if exchange == ALL:
        await context.check_symbol(symbol, None)
    else:
        await context.check_exchange(exchange)
        await context.check_symbol(symbol, exchange)
    interval_ns = INTERVALS_NS[interval]
    if cursor is not None:
        begin = cursor.key[0]
        start, end = (start, begin - 1) if newest else (begin + interval_ns, end)
    rows = await context.history.read_bars(
        exchange, symbol, interval_ns, start, end, limit + 1, newest=newest
    )
    rows, last = page_of(rows, limit, newest)
    link = None
    if last is not None:
        link = next_link(request, f"/ohlcv/{symbol}", Cursor(series, (last.timestamp_ns, 0, "")))
    if form is not JSON:
        return _table(request, form, rows, link, BarItem, _bar_item, bars_table)
    body = BarsBody(
        data=cast("list[BarItem]", bar_items_json(rows)),  # encoded already
        symbol=symbol,
        exchange=exchange,
        interval=interval,
        count=len(rows),
        next=link,
        processing_time_ms=elapsed_ms(request),
    )
    return tagged_json(request, body, page_headers(link))


async def exchanges(context: Context, request: Request, query: Parameters) -> Response:
    """Exchanges that are collected or have history."""
    found = await context.exchanges()
    return tagged_json(request, ExchangesBody(exchanges=found, count=len(found)))


async def symbols(context: Context, request: Request, query: Parameters) -> Response:
    """Symbols that are collected or have history, of all exchanges or of one."""
    exchange: str | None = request.path_params.get("exchange")
    if exchange is not None:
        await context.check_exchange(exchange)
    found = await context.symbols(exchange)
    return tagged_json(request, SymbolsBody(symbols=found, exchange=exchange, count=len(found)))


async def summary(context: Context, request: Request, query: Parameters) -> Response:
    """What the store holds."""
    summed = summary_of(await context.history.summarise())
    body = SummaryBody(
        total_symbols=len(summed.trades_by_symbol),
        total_exchanges=len(summed.symbols_by_exchange),
        total_records=summed.trades,
        date_range=DateRange(start=seconds(summed.first_ns), end=seconds(summed.last_ns)),
        symbols_by_exchange=summed.symbols_by_exchange,
        record_count_by_symbol=summed.trades_by_symbol,
    )
    return json_response(body)


async def _trades(
    context: Context,
    request: Request,
    query: Parameters,
    start: int | None,
    end: int | None,
    *,
    recent: bool,
) -> Response:
    symbol, exchange = path_symbol(request), query[EXCHANGE]
    limit, form = query[LIMIT], _format(request, query)
    newest = start is None
    series = series_of("trades", exchange, symbol, newest)
    cursor = cursor_of(query, series)
    await context.check_exchange(exchange)
    await context.check_symbol(symbol, exchange)
    beyond: OrderKey | None = None if cursor is None else cursor.key
    found = await context.history.read_trades(
        exchange, symbol, start, end, limit + 1, newest=newest, beyond=beyond
    )
    rows, last = page_of(found, limit, newest)
    after = None if last is None else Cursor(series, last.order_key)
    if recent:
        rows.reverse()
    path = f"/trades/{symbol}/recent" if recent else f"/trades/{symbol}"
    if form is JSON and newest and cursor is None:
        return _newest_json(context, request, path, exchange, symbol, rows, after)
    link = after and next_link(request, path, after)
    if form is not JSON:
        return _table(request, form, rows, link, TradeItem, _trade_item, trades_table)
    body = _trades_body(trade_items_json(rows, symbol, exchange), len(rows), symbol, exchange, link)
    body.processing_time_ms = elapsed_ms(request)
    return tagged_json(request, body, page_headers(link))


def _newest_json(
    context: Context,
    request: Request,
    path: str,
    exchange: str,
    symbol: str,
    rows: list[TradeRow],
    after: Cursor | None,
) -> Response:
    """The page that most requests are for: much of it is as it was the last time."""
    key = path, after is None, exchange, request.scope["query_string"]
    answer = context.answers.find(key, rows)
    if answer is None:
        items = context.answers.items(key, rows, trade_writer(symbol, exchange))
        link = after and next_link(request, path, after)
        body = _trades_body(items, len(rows), symbol, exchange, link)
        essence = essence_of(msgspec.json.encode(body))
        answer = Answer(rows, items, essence, tag_of(essence), link)
        context.answers.keep(key, answer)
    content = timed(answer.essence, elapsed_ms(request))
    return tagged(
        request, content, JSON.media_type, tag=answer.tag, headers=page_headers(answer.link)
    )


def _trades_body(
    items: Raw | list[Raw], count: int, symbol: str, exchange: str, link: str | None
) -> TradesBody:
    """The body of items that are encoded already, but for its time."""
    return TradesBody(
        data=cast("list[TradeItem]", items),
        symbol=symbol,
        exchange=exchange,
        count=count,
        next=link,
        processing_time_ms=0.0,
    )


def _format(request: Request, query: Parameters) -> Format:
    name = query[FORMAT]
    return TABLE_FORMATS[name] if name else accepted(request, tuple(TABLE_FORMATS.values()))


def _table(
    request: Request,
    form: Format,
    rows: Sequence[R],
    link: str | None,
    item_type: type[msgspec.Struct],
    item_of: Callable[[R], msgspec.Struct],
    arrow_of: Callable[[Sequence[R]], bytes],
) -> Response:
    content = csv_of(item_type, [item_of(row) for row in rows]) if form is CSV else arrow_of(rows)
    return tagged(request, content, form.media_type, headers=page_headers(link))


def _trade_item(row: TradeRow) -> TradeItem:
    return TradeItem(
        timestamp=seconds(row.timestamp_ns),
        symbol=row.symbol,
        exchange=row.exchange,
        price=number(row.price, row.price_exponent),
        volume=number(row.size, row.size_exponent),
        side=row.side.text,
        trade_id=row.trade_id,
        id_kind=_ID_KINDS[row.id_kind],
    )


def trade_writer(symbol: str, exchange: str) -> Callable[[TradeRow], Raw]:
    """What writes these trades as `TradeItem` in JSON, one at a time.

    Parameters
    ----------
    symbol, exchange : of all trades
    """
    names = _names(symbol, exchange)

    def write(row: TradeRow) -> Raw:
        return trade_json(row, names) if row.id_kind is IdKind.TRADE else Raw(_encoded_trade(row))

    return write


def trade_items_json(rows: list[TradeRow], symbol: str, exchange: str) -> Raw:
    """Trades as an array of `TradeItem` in JSON; see `trade_writer`."""
    return trades_json(rows, _names(symbol, exchange), _encoded_trade)


def bar_items_json(rows: list[BarRow]) -> Raw:
    """Bars as an array of `BarItem` in JSON."""
    return bars_json(rows, _encoded_bar)


def _names(symbol: str, exchange: str) -> bytes:
    return b'"symbol":%b,"exchange":%b' % tuple(map(msgspec.json.encode, (symbol, exchange)))


def _encoded_trade(row: TradeRow) -> bytes:
    return msgspec.json.encode(_trade_item(row))


def _encoded_bar(row: BarRow) -> bytes:
    return msgspec.json.encode(_bar_item(row))


def _bar_item(row: BarRow) -> BarItem:
    return BarItem(
        timestamp=seconds(row.timestamp_ns),
        open=number(row.open, row.price_exponent),
        high=number(row.high, row.price_exponent),
        low=number(row.low, row.price_exponent),
        close=number(row.close, row.price_exponent),
        volume=number(row.volume, row.size_exponent),
        trades=row.trades,
    )
