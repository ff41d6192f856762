"""Books as text: JSON with exact decimal numbers, for any program that reads the store."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from alphapulse.fixed import format_decimal, parse_decimal
from alphapulse.history import BookRow
from alphapulse.model import Level


class _Document(msgspec.Struct):
    exchange: str
    symbol: str
    version: int
    timestamp_ns: int
    price_exponent: int
    size_exponent: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


def dump_book(book: BookRow) -> str:
    """JSON of a book; levels are ``["price", "size"]``, best first."""
    document = _Document(
        exchange=book.exchange,
        symbol=book.symbol,
        version=book.version,
        timestamp_ns=book.timestamp_ns,
        price_exponent=book.price_exponent,
        size_exponent=book.size_exponent,
        bids=_texts(book.bids, book),
        asks=_texts(book.asks, book),
    )
    return msgspec.json.encode(document).decode()


def load_book(text: str | bytes) -> BookRow:
    """Back from what `dump_book` gave."""
    document = msgspec.json.decode(text, type=_Document)
    return BookRow(
        exchange=document.exchange,
        symbol=document.symbol,
        version=document.version,
        timestamp_ns=document.timestamp_ns,
        price_exponent=document.price_exponent,
        size_exponent=document.size_exponent,
        bids=_levels(document.bids, document),
        asks=_levels(document.asks, document),
    )


def _texts(levels: Iterable[Level], book: BookRow) -> list[tuple[str, str]]:
    return [
        (
            format_decimal(level.price, book.price_exponent),
            format_decimal(level.size, book.size_exponent),
        )
        for level in levels
    ]


def _levels(texts: Iterable[tuple[str, str]], document: _Document) -> tuple[Level, ...]:
    return tuple(
        Level(
            parse_decimal(price, document.price_exponent),
            parse_decimal(size, document.size_exponent),
        )
        for price, size in texts
    )
