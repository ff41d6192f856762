"""Bars in Redis: hashes of some hundred bars each, and the trades that aren't in them as yet.

Stored bars cover a stream of trades up to a mark, which is written with them in one transaction. A
reader merges them with the trades beyond the mark, read in one transaction with them. So bars may
be stored as seldom as is convenient, and whoever goes on after a writer's death reads the trades
beyond the mark again: none counts twice.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
import redis.asyncio

from alphapulse.clock import NS_PER_SECOND
from alphapulse.fixed import format_decimal
from alphapulse.history import INTERVALS_NS, OrderKey, TradeRow, at_most
from alphapulse.store.bars import BarTail, Part, parts_of, regrouped, source_of, span_of_bars
from alphapulse.store.entries import Entry, Keys, pairs, trade_of
from alphapulse.store.redis_link import Link, Request
from alphapulse.store.redis_reader import done

BUCKET_SECONDS = {"1s": 600, "1m": 43_200, "1h": 2_592_000, "1d": 62_208_000}
"""Time that one hash covers: 600 to 720 bars."""
MOST_PARTS = 2000
"""Seconds with trades that are held until bars are stored."""
PAGE = 1000
"""Entries read at once."""
BUCKETS_AT_ONCE = 8
"""Hashes read in one transaction."""

Parts = dict[tuple[str, str], list[Part]]
"""By symbol and interval."""


class _Bar(msgspec.Struct):
    """A bar as it is stored; when it begins is the name of the hash's field."""

    open: str
    high: str
    low: str
    close: str
    volume: str
    trades: int
    price_exponent: int
    size_exponent: int
    first: OrderKey
    last: OrderKey


class BarWriter:
    """Stores the bars of one venue's trades.

    Parameters
    ----------
    keys : names of the venue's keys
    exchange : the venue
    ages_seconds : how long bars are kept, by interval; for ever without
    """

    def __init__(self, keys: Keys, exchange: str, ages_seconds: Mapping[str, int]) -> None:
        self._keys = keys
        self._exchange = exchange
        self._ages_seconds = ages_seconds
        self._tail = BarTail()

    @property
    def pending(self) -> int:
        """Seconds with trades that no stored bar has."""
        return len(self._tail)

    def symbols(self) -> list[str]:
        """Those of the pending trades, the one that has waited longest first."""
        return self._tail.symbols()

    def take(self, rows: Iterable[TradeRow]) -> None:
        """Take in trades that were appended behind the marks."""
        self._tail.add(rows)

    def clear(self) -> None:
        """Forget all trades: they are taken in again."""
        self._tail.clear()

    async def prepare(self, link: Link, symbols: Iterable[str]) -> Parts:
        """Bars of these symbols as they are to be stored: those that are there with what they lack.

        They are taken to be stored from here on.
        """
        parts = self._tail.take_out(symbols)
        request = Request()
        for (symbol, interval), of_bars in parts.items():
            for bucket, bars in _by_bucket(of_bars, interval).items():
                key = self._keys.bars(interval, symbol, bucket)
                request.add("HMGET", key, *(_field(part) for part in bars))
        answers = iter(await link.ask(request)) if request.count else iter(())
        for (_, interval), of_bars in parts.items():
            for bars in _by_bucket(of_bars, interval).values():
                for part, text in zip(bars, next(answers), strict=True):
                    if text is not None:
                        part.merge(_load(text, part.begin_ns))
        return parts

    def add(self, request: Request, parts: Parts, marks: Mapping[str, str]) -> None:
        """Add the commands that store bars.

        Parameters
        ----------
        request : of a transaction
        parts : from `prepare`
        marks : by symbol the id of the last entry that was taken in
        """
        for (symbol, interval), of_bars in parts.items():
            buckets = _by_bucket(of_bars, interval)
            for bucket, bars in buckets.items():
                key = self._keys.bars(interval, symbol, bucket)
                fields = [text for part in bars for text in (_field(part), _dump(part))]
                request.add("HSET", key, *fields)
                if age := self._ages_seconds.get(interval):
                    request.add("EXPIREAT", key, str(bucket + BUCKET_SECONDS[interval] + age))
            members = [str(bucket) for bucket in buckets for _ in ("score", "member")]
            request.add("ZADD", self._keys.buckets(interval, symbol), *members)
        for symbol in {symbol for symbol, _ in parts}:
            request.add("HSET", self._keys.marks, symbol, marks[symbol])


async def beyond_marks(
    link: Link, keys: Keys, exchange: str, symbols: Iterable[str]
) -> AsyncIterator[list[TradeRow]]:
    """All trades that no stored bar has, page by page."""
    request = Request()
    request.add("HGETALL", keys.marks)
    [answer] = await link.ask(request)
    marks = pairs(answer)
    for symbol in symbols:
        start = _after(marks.get(symbol.encode()))
        while start:
            request = Request()
            request.add("XRANGE", keys.trades(symbol), start, "+", "COUNT", str(PAGE))
            [entries] = await link.ask(request)
            yield [trade_of(pairs(fields), exchange, symbol) for _, fields in entries]
            start = _after(entries[-1][0]) if len(entries) == PAGE else ""


class BarReader:
    """Reads the bars of one symbol.

    Parameters
    ----------
    client : connected to Redis
    keys : names of the venue's keys
    exchange, symbol : of the trades
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, exchange: str, symbol: str) -> None:
        self._client = client
        self._keys = keys
        self._exchange = exchange
        self._symbol = symbol
        self._mark: bytes | None = None

    async def read(
        self,
        interval_ns: int,
        start_ns: int | None,
        end_ns: int | None,
        limit: int | None,
        newest: bool,
    ) -> list[Part]:
        """See `Store.read_parts`. Each page is of one moment."""
        interval = source_of(interval_ns)
        bucket_ns = BUCKET_SECONDS[interval] * NS_PER_SECOND
        start, end = span_of_bars(interval_ns, start_ns, end_ns)
        left = await self._buckets(interval, start, end)
        found: list[Part] = []
        while True:
            # A page reaches to the edge of its last hash, the last page to the end of the span.
            if newest:
                rest, page = left[:-BUCKETS_AT_ONCE], left[-BUCKETS_AT_ONCE:]
                edge = page[0] * NS_PER_SECOND if rest else start
                parts = await self._page(interval, page, edge, end)
            else:
                page, rest = left[:BUCKETS_AT_ONCE], left[BUCKETS_AT_ONCE:]
                edge = page[-1] * NS_PER_SECOND + bucket_ns - 1 if rest else end
                parts = await self._page(interval, page, start, edge)
            if parts is None:
                left = await self._buckets(interval, start, end)
                continue
            left = rest
            if edge is not None:
                start, end = (start, edge - 1) if newest else (edge + 1, end)
            found += parts
            bars = regrouped(found, interval_ns)
            # The bar at the edge may lack what the next page has.
            if not left or (limit is not None and len(bars) > limit):
                break
        return at_most(limit, bars, newest)

    async def _buckets(self, interval: str, start: int | None, end: int | None) -> list[int]:
        length = BUCKET_SECONDS[interval]
        low = "-inf" if start is None else start // NS_PER_SECOND // length * length
        high = "+inf" if end is None else end // NS_PER_SECOND
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrangebyscore(self._keys.buckets(interval, self._symbol), low, high)
            pipe.hget(self._keys.marks, self._symbol)
            names, self._mark = await pipe.execute()
        return [int(name) for name in names]

    async def _page(
        self, interval: str, buckets: list[int], start: int | None, end: int | None
    ) -> list[Part] | None:
        """Parts of these hashes and of the trades beyond the mark, within the span.

        None if bars were stored since the mark was read: there may be other hashes, and other
        trades are beyond it.
        """
        mark, entries, hashes = await self._read(interval, buckets)
        if mark != self._mark:
            return None
        parts = [
            _load(text, int(begin) * NS_PER_SECOND)
            for bars in hashes
            for begin, text in bars.items()
        ]
        rows = [trade_of(fields, self._exchange, self._symbol) for _, fields in entries]
        parts += parts_of(rows, INTERVALS_NS[interval])
        return [
            part
            for part in parts
            if (start is None or part.begin_ns >= start) and (end is None or part.begin_ns <= end)
        ]

    async def _read(
        self, interval: str, buckets: list[int]
    ) -> tuple[bytes | None, list[Entry], list[dict[bytes, bytes]]]:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hget(self._keys.marks, self._symbol)
            pipe.xrange(self._keys.trades(self._symbol), _after(self._mark))
            for bucket in buckets:
                pipe.hgetall(self._keys.bars(interval, self._symbol, bucket))
            mark, entries, *hashes = await done(pipe.execute())
        return mark, entries, hashes


def _after(mark: bytes | None) -> str:
    """Where a range begins that follows an entry; everything where there is none."""
    return "-" if mark is None else f"({mark.decode()}"


def _by_bucket(parts: Iterable[Part], interval: str) -> dict[int, list[Part]]:
    found: dict[int, list[Part]] = {}
    for part in parts:
        seconds = part.begin_ns // NS_PER_SECOND
        bucket = seconds - seconds % BUCKET_SECONDS[interval]
        found.setdefault(bucket, []).append(part)
    return found


def _field(part: Part) -> str:
    return str(part.begin_ns // NS_PER_SECOND)


def _dump(part: Part) -> bytes:
    def price(value: int) -> str:
        return format_decimal(value, part.price_exponent)

    bar = _Bar(
        open=price(part.open),
        high=price(part.high),
        low=price(part.low),
        close=price(part.close),
        volume=format_decimal(part.volume, part.size_exponent),
        trades=part.trades,
        price_exponent=part.price_exponent,
        size_exponent=part.size_exponent,
        first=part.first,
        last=part.last,
    )
    return msgspec.json.encode(bar)


def _load(text: Any, begin_ns: int) -> Part:
    bar = msgspec.json.decode(text, type=_Bar)
    return Part(
        begin_ns=begin_ns,
        price_exponent=bar.price_exponent,
        size_exponent=bar.size_exponent,
        first=bar.first,
        last=bar.last,
        open=_scaled(bar.open, bar.price_exponent),
        high=_scaled(bar.high, bar.price_exponent),
        low=_scaled(bar.low, bar.price_exponent),
        close=_scaled(bar.close, bar.price_exponent),
        volume=_scaled(bar.volume, bar.size_exponent),
        trades=bar.trades,
    )


def _scaled(text: str, exponent: int) -> int:
    """The integer of what `format_decimal` gave, of whatever size: a sum may exceed int64."""
    whole, _, fraction = text.partition(".")
    return int(whole + fraction.ljust(exponent, "0"))
