"""``/orderbook``: live books, one venue's or all venues' together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from operator import attrgetter

from starlette.requests import Request
from starlette.responses import Response

from alphapulse.api.answers import json_response
from alphapulse.api.bodies import BookBody, PriceLevel, VenueBook, number, seconds
from alphapulse.api.context import Context, elapsed_ms
from alphapulse.api.market import LiveBook
from alphapulse.api.parameters import Count, Exchange, Moment, Parameters, path_symbol
from alphapulse.api.problems import Problem
from alphapulse.api.trades import DEFAULT_EXCHANGE
from alphapulse.history import ALL, BookRow
from alphapulse.model import BookState, Instrument, Level, Reason

STORED = "stored"
"""State of a book that is kept, of the past."""

EXCHANGE = Exchange(
    "exchange", "Whose book; `all` adds up all venues'.", default=DEFAULT_EXCHANGE, others=(ALL,)
)
VENUE = Exchange("exchange", "Whose book.", default=DEFAULT_EXCHANGE)
DEPTH = Count("depth", "Most levels a side.", default=50)
TIMESTAMP = Moment(
    "timestamp", "Instead of the live book the newest one kept that isn't younger than this."
)

# The state of books of which none is live: the one nearest to being live.
_NEAREST = (BookState.LIVE, BookState.SYNCING, BookState.STALE, BookState.INVALID)


async def orderbook(context: Context, request: Request, query: Parameters) -> Response:
    """The live book, or with `timestamp` one kept; without levels where it isn't live."""
    symbol = path_symbol(request)
    exchange, depth, at_ns = query[EXCHANGE], query[DEPTH], query[TIMESTAMP]
    if at_ns is not None:
        return await _kept_book(context, request, symbol, exchange, depth, at_ns)
    if exchange == ALL:
        await context.check_symbol(symbol, None)
        await context.markets.catch_up()
        return json_response(_consolidated(context, request, symbol, depth))
    book = await live_book(context, symbol, exchange, depth)
    return json_response(
        BookBody(
            symbol=symbol,
            exchange=exchange,
            version=book.version,
            state=book.state.text,
            reason=None if book.reason is None else book.reason.text,
            timestamp=seconds(book.exchange_ns),
            bids=_levels(book.bids, book.instrument),
            asks=_levels(book.asks, book.instrument),
            processing_time_ms=elapsed_ms(request),
        )
    )


async def live_book(context: Context, symbol: str, exchange: str, depth: int) -> LiveBook:
    """One venue's book as of now. Raises `Problem` where nothing is known of it."""
    await context.check_exchange(exchange)
    await context.check_symbol(symbol, exchange)
    await context.markets.catch_up(exchange)
    return _book_of(context, exchange, symbol, depth)


def stored_body(request: Request, book: BookRow, depth: int) -> BookBody:
    """The answer with a book that is kept."""
    return BookBody(
        symbol=book.symbol,
        exchange=book.exchange,
        version=book.version,
        state=STORED,
        reason=None,
        timestamp=seconds(book.timestamp_ns),
        bids=_levels(book.bids[:depth], book),
        asks=_levels(book.asks[:depth], book),
        processing_time_ms=elapsed_ms(request),
    )


async def _kept_book(
    context: Context, request: Request, symbol: str, exchange: str, depth: int, at_ns: int
) -> Response:
    # Books are kept venue by venue: there is none of all of them.
    book = await context.history.read_book(exchange, symbol, at_ns)
    if book is None:
        if exchange != ALL:
            await context.check_exchange(exchange)
        await context.check_symbol(symbol, None if exchange == ALL else exchange)
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"timestamp: no book of {symbol} at {exchange} is kept that isn't younger",
            TIMESTAMP.name,
        )
    return json_response(stored_body(request, book, depth))


def _book_of(context: Context, exchange: str, symbol: str, depth: int) -> LiveBook:
    ring = context.markets.rings.get(exchange)
    if ring is None or symbol not in ring.symbols():
        reason = Reason.STOPPED if ring is None or ring.problem() else Reason.STARTED
        state = BookState.STALE if reason is Reason.STOPPED else BookState.SYNCING
        return LiveBook(exchange, state, reason, None)
    return ring.book(symbol, depth)


def _consolidated(context: Context, request: Request, symbol: str, depth: int) -> BookBody:
    venues = context.settings.venues.enabled()
    names = {name for name, venue in venues.items() if symbol in venue.symbols}
    names |= {name for name, ring in context.markets.rings.items() if symbol in ring.symbols()}
    books = [_book_of(context, name, symbol, depth) for name in sorted(names)]
    live = [book for book in books if book.state is BookState.LIVE]
    states = {book.state for book in books}
    times = [book.exchange_ns for book in live if book.exchange_ns is not None]
    return BookBody(
        symbol=symbol,
        exchange=ALL,
        version=None,
        state=next((state for state in _NEAREST if state in states), BookState.STALE).text,
        reason=None,
        timestamp=seconds(max(times, default=None)),
        bids=_sum(live, attrgetter("bids"), depth, best_high=True),
        asks=_sum(live, attrgetter("asks"), depth, best_high=False),
        exchanges={
            book.exchange: VenueBook(
                version=book.version,
                state=book.state.text,
                reason=None if book.reason is None else book.reason.text,
                timestamp=seconds(book.exchange_ns),
            )
            for book in books
        },
        processing_time_ms=elapsed_ms(request),
    )


def _levels(levels: Iterable[Level], scale: Instrument | BookRow | None) -> list[PriceLevel]:
    if scale is None:
        return []
    price_exponent, size_exponent = scale.price_exponent, scale.size_exponent
    return [
        (number(level.price, price_exponent), number(level.size, size_exponent)) for level in levels
    ]


def _sum(
    books: Iterable[LiveBook],
    side: Callable[[LiveBook], Sequence[Level]],
    depth: int,
    *,
    best_high: bool,
) -> list[PriceLevel]:
    """The best levels of all books together; sizes at the same price are added up."""
    scaled = [(book.instrument, side(book)) for book in books if book.instrument is not None]
    price_exponent = max((instrument.price_exponent for instrument, _ in scaled), default=0)
    size_exponent = max((instrument.size_exponent for instrument, _ in scaled), default=0)
    sizes: dict[int, int] = {}
    for instrument, levels in scaled:
        price_factor = 10 ** (price_exponent - instrument.price_exponent)
        size_factor = 10 ** (size_exponent - instrument.size_exponent)
        for level in levels:
            price = level.price * price_factor
            sizes[price] = sizes.get(price, 0) + level.size * size_factor
    best = sorted(sizes, reverse=best_high)[:depth]
    return [(number(price, price_exponent), number(sizes[price], size_exponent)) for price in best]
