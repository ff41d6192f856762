"""What may be stored through this server, if the settings allow it: trades, and books."""

from __future__ import annotations

import re
from decimal import Decimal
from http import HTTPStatus
from typing import Literal, get_args, get_origin

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.answers import json_response
from alphapulse.api.bodies import (
    MOST_SECONDS,
    MOST_VALUE,
    BookBody,
    GivenTrade,
    GivenTrades,
    SavedBody,
)
from alphapulse.api.books import VENUE, live_book, stored_body
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.formats import JSON
from alphapulse.api.headers import header_values
from alphapulse.api.parameters import SYMBOL_PATTERN, Count, Name, Parameters, path_symbol
from alphapulse.api.problems import Problem, bad
from alphapulse.clock import NO_TIME
from alphapulse.errors import RequestError
from alphapulse.history import BookRow
from alphapulse.model import BookState
from alphapulse.repository import MOST_SYMBOL_LENGTH

MAX_TRADES_BYTES = 1 << 20
"""Of a request with trades."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?", re.ASCII)

_FIELD = re.compile(r"at `\$\.data\[\d+\]\.(\w+)`$")
"""Where a trade's field is at fault, as msgspec's messages end."""
_CHOICES = {
    field.name: " or ".join(get_args(type_))
    for field in msgspec.structs.fields(GivenTrade)
    for type_ in (field.type, *get_args(field.type))
    if get_origin(type_) is Literal
}
"""What fields of a trade may be that have few values."""

EXCHANGE = Name("exchange", "Whose trades these are; it may be one that isn't collected.")
DEPTH = Count("depth", "Most levels a side that are kept.", default=100)


async def save_trades(context: Context, request: Request, query: Parameters) -> Response:
    """Store the trades that aren't there yet, all of them or, on an error, none."""
    exchange, symbol = query[EXCHANGE], path_symbol(request)
    if len(symbol) > MOST_SYMBOL_LENGTH or not re.fullmatch(SYMBOL_PATTERN, symbol):
        raise bad("symbol", f"{symbol!r} is none like BTC-USD")
    given = await _given(request)
    try:
        answer = await context.history.save_trades(map(_plain, given.data), symbol, exchange)
    except RequestError as error:
        raise bad("data", error.message) from None
    return json_response(SavedBody(**answer, processing_time_ms=elapsed_ms(request)))


async def save_book(context: Context, request: Request, query: Parameters) -> Response:
    """Keep the live book as it is now; ``/orderbook`` gives it by its time."""
    symbol, exchange = path_symbol(request), query[VENUE]
    book = await live_book(context, symbol, exchange, query[DEPTH])
    if book.state is not BookState.LIVE or book.instrument is None or book.version is None:
        reason = "" if book.reason is None else f", {book.reason.text}"
        raise Problem(
            HTTPStatus.CONFLICT, f"the book of {symbol} at {exchange} is {book.state.text}{reason}"
        )
    known = book.exchange_ns not in (None, NO_TIME)
    row = BookRow(
        exchange=exchange,
        symbol=symbol,
        version=book.version,
        timestamp_ns=(book.exchange_ns if known else book.received_ns) or 0,
        price_exponent=book.instrument.price_exponent,
        size_exponent=book.instrument.size_exponent,
        bids=book.bids,
        asks=book.asks,
    )
    await context.history.save_book(row)
    body: BookBody = stored_body(request, row, query[DEPTH])
    return json_response(body)


async def _given(request: Request) -> GivenTrades:
    kinds = [
        value.partition(";")[0].strip() for value in header_values(request.scope, b"content-type")
    ]
    if [kind.lower() for kind in kinds] != [JSON.media_type]:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Type: only {JSON.media_type} is taken",
            "Content-Type",
        )
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_TRADES_BYTES:
            raise Problem(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"body: longer than {MAX_TRADES_BYTES} B; send fewer trades at once",
                "body",
            )
    try:
        return msgspec.json.decode(content, type=GivenTrades)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad("body", _with_choices(str(error))) from None


def _with_choices(problem: str) -> str:
    """A problem with a body; if it is with a field of few values, these are added."""
    found = _FIELD.search(problem)
    choices = _CHOICES.get(found[1]) if found else None
    return f"{problem}; use {choices}" if choices else problem


def _plain(trade: GivenTrade) -> dict[str, str | None]:
    return {
        "timestamp": _text(trade.timestamp, MOST_SECONDS),
        "price": _text(trade.price, MOST_VALUE),
        "volume": _text(trade.volume, MOST_VALUE),
        "side": trade.side,
        "trade_id": trade.trade_id,
        "id_kind": trade.id_kind,
    }


def _text(value: Raw, most: int) -> str:
    """A number as it was written, as a JSON number or in a text; it may also be another text."""
    text = bytes(value).decode()
    if text.startswith('"'):
        text = msgspec.json.decode(value, type=str)
    if _NUMBER.fullmatch(text) and not 0 <= Decimal(text) <= most:
        raise bad("data", f"{text} is no number from 0 to {most}")
    return text
