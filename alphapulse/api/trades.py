"""``/trades``, ``/ohlcv``, ``/exchanges``, ``/symbols`` and ``/summary``: the history."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

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
from alphapulse.api.parameters import Parameters, path_symbol
from alphapulse.history import INTERVALS_NS, BarRow, SeriesSummary, TradeRow

DEFAULT_EXCHANGE = "coinbase"
DEFAULT_LIMIT = 100


def json_response(body: msgspec.Struct) -> Response:
    """An answer with this body."""
    return Response(msgspec.json.encode(body), media_type="application/json")


async def trades(context: Context, request: Request) -> Response:
    """Trades by (timestamp, trade_id): the first from ``start_time`` on, else the newest."""
    query = Parameters(request, "exchange", "start_time", "end_time", "limit")
    start, end = query.span()
    return await _trades(context, request, query, start, end, recent=False)


async def recent_trades(context: Context, request: Request) -> Response:
    """The newest trades, newest first."""
    query = Parameters(request, "exchange", "limit")
    return await _trades(context, request, query, None, None, recent=True)


async def ohlcv(context: Context, request: Request) -> Response:
    """Bars: the first that begin at ``start_time`` or later, else the newest; oldest first."""
    query = Parameters(request, "exchange", "interval", "start_time", "end_time", "limit")
    symbol = path_symbol(request)
    exchange = query.text("exchange", DEFAULT_EXCHANGE)
    interval = query.choice("interval", "1m", INTERVALS_NS)
    start, end = query.span()
    limit = query.count("limit", DEFAULT_LIMIT, context.settings.api.max_limit)
    await context.check_exchange(exchange)
    await context.check_symbol(symbol, exchange)
    rows = await context.history.read_bars(
        exchange, symbol, INTERVALS_NS[interval], start, end, limit, newest=start is None
    )
    return json_response(
        BarsBody(
            data=[_bar_item(row) for row in rows],
            symbol=symbol,
            exchange=exchange,
            interval=interval,
            count=len(rows),
            processing_time_ms=elapsed_ms(request),
        )
    )


async def exchanges(context: Context, request: Request) -> Response:
    """Exchanges that are collected or have history."""
    Parameters(request)
    found = await context.exchanges()
    return json_response(ExchangesBody(exchanges=found, count=len(found)))


async def symbols(context: Context, request: Request) -> Response:
    """Symbols that are collected or have history, of all exchanges or of one."""
    Parameters(request)
    exchange: str | None = request.path_params.get("exchange")
    if exchange is not None:
        await context.check_exchange(exchange)
    found = await context.symbols(exchange)
    return json_response(SymbolsBody(symbols=found, exchange=exchange, count=len(found)))


async def summary(context: Context, request: Request) -> Response:
    """What the store holds."""
    Parameters(request)
    return json_response(_summary_body(await context.history.summarise()))


async def _trades(
    context: Context,
    request: Request,
    query: Parameters,
    start: int | None,
    end: int | None,
    *,
    recent: bool,
) -> Response:
    symbol = path_symbol(request)
    exchange = query.text("exchange", DEFAULT_EXCHANGE)
    limit = query.count("limit", DEFAULT_LIMIT, context.settings.api.max_limit)
    await context.check_exchange(exchange)
    await context.check_symbol(symbol, exchange)
    rows = await context.history.read_trades(
        exchange, symbol, start, end, limit, newest=start is None
    )
    if recent:
        rows.reverse()
    return json_response(
        TradesBody(
            data=[_trade_item(row) for row in rows],
            symbol=symbol,
            exchange=exchange,
            count=len(rows),
            processing_time_ms=elapsed_ms(request),
        )
    )


def _trade_item(row: TradeRow) -> TradeItem:
    return TradeItem(
        timestamp=seconds(row.timestamp_ns),
        symbol=row.symbol,
        exchange=row.exchange,
        price=number(row.price, row.price_exponent),
        volume=number(row.size, row.size_exponent),
        side=row.side.text,
        trade_id=row.trade_id,
    )


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


def _summary_body(series: list[SeriesSummary]) -> SummaryBody:
    by_exchange: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    for row in series:
        by_exchange.setdefault(row.exchange, []).append(row.symbol)
        counts[row.symbol] = counts.get(row.symbol, 0) + row.trades
    return SummaryBody(
        total_symbols=len(counts),
        total_exchanges=len(by_exchange),
        total_records=sum(counts.values()),
        date_range=DateRange(
            start=seconds(min((row.first_ns for row in series), default=None)),
            end=seconds(max((row.last_ns for row in series), default=None)),
        ),
        symbols_by_exchange=by_exchange,
        record_count_by_symbol=counts,
    )
