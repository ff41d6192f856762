"""``/gaps``: what the history lacks, and what has become of it."""

from __future__ import annotations

from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.answers import json_response
from alphapulse.api.bodies import Number, OptionalNumber, seconds
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.pages import (
    Cursor,
    cursor_of,
    next_link,
    page_headers,
    page_of,
    series_of,
)
from alphapulse.api.parameters import Count, Exchange, Parameters, Symbol
from alphapulse.history import FillStatus, GapRow, at_most
from alphapulse.model import Channel

ChannelName = Literal["trades", "orderbook", "ring"]

_CHANNELS: dict[Channel, ChannelName] = {
    Channel.TRADES: "trades",
    Channel.ORDERBOOK: "orderbook",
    Channel.RING: "ring",
}

EXCHANGE = Exchange("exchange", "Only gaps of this exchange.")
SYMBOL = Symbol("symbol", "Only gaps that concern this symbol.")
LIMIT = Count("limit", "Most gaps of a page.", default=100)


class GapItem(msgspec.Struct, kw_only=True):
    """Something that was lost; its bounds are inclusive, null where unknown."""

    exchange: str
    symbol: str | None
    """Null where all of the exchange's symbols may be concerned."""
    channel: ChannelName
    reason: str
    first: int | None
    """A trade's id, the exchange's sequence number, or a ring's, by `channel`."""
    last: int | None
    count: int | None
    epoch: int | None
    """The ring's, where the bounds are a ring's."""
    since: OptionalNumber
    """From when on something may be missing."""
    timestamp: Number
    """When the loss was seen."""
    status: FillStatus
    """`filled`: all of the trades are there; `partial`: some, and the exchange gives no more."""
    filled: int
    """Trades that were written to fill it."""
    filled_time: OptionalNumber
    """When the status was found; null while it is open."""


class GapsBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Body of ``/gaps``."""

    data: list[GapItem]
    exchange: str | None
    symbol: str | None
    count: int
    next: str | None = None
    """Where the next page is, if there is one."""
    processing_time_ms: float


async def gaps(context: Context, request: Request, query: Parameters) -> Response:
    """Losses by the time when they were seen: the first from `start_time` on, else the newest."""
    exchange, symbol, limit = query[EXCHANGE], query[SYMBOL], query[LIMIT]
    start, end = query.span()
    if exchange:
        await context.check_exchange(exchange)
    if symbol is not None:
        await context.check_symbol(symbol, exchange or None)
    newest = start is None
    series = series_of("gaps", exchange, symbol, newest)
    cursor = cursor_of(query, series)
    beyond = None if cursor is None else cursor.key
    rows: list[GapRow] = []
    for name in [exchange] if exchange else await context.exchanges():
        rows += await context.history.read_gaps(
            name, start, end, limit + 1, symbol=symbol, newest=newest, beyond=beyond
        )
    rows.sort(key=lambda row: row.order_key)
    page, last = page_of(at_most(limit + 1, rows, newest), limit, newest)
    link = None
    if last is not None:
        link = next_link(request, "/gaps", Cursor(series, last.order_key))
    body = GapsBody(
        data=[_item(row) for row in page],
        exchange=exchange or None,
        symbol=symbol,
        count=len(page),
        next=link,
        processing_time_ms=elapsed_ms(request),
    )
    return json_response(body, headers=page_headers(link))


def _item(row: GapRow) -> GapItem:
    return GapItem(
        exchange=row.exchange,
        symbol=row.symbol,
        channel=_CHANNELS[row.channel],
        reason=row.reason.text,
        first=row.first,
        last=row.last,
        count=row.count,
        epoch=row.epoch,
        since=seconds(row.since_ns),
        timestamp=seconds(row.received_ns),
        status=row.status,
        filled=row.filled,
        filled_time=seconds(row.filled_ns),
    )
