"""Binance.US's public REST: instruments, depth snapshots, trades, and the weight of requests.

Knowledge of the protocol: Binance.US's API documentation (docs.binance.us).
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alphapulse.clock import NS_PER_SECOND, monotonic_ns, wall_ns
from alphapulse.simulators.base import VenueSimulator
from alphapulse.simulators.book import Fill, VenueBook
from alphapulse.simulators.limits import RollingBudget
from alphapulse.simulators.specs import PairSpec
from alphapulse.simulators.text import fixed_text
from alphapulse.simulators.web import Handler, json_response

WEIGHT_A_MINUTE = 1200
MAX_DEPTH = 5000
MAX_TRADES = 1000
DEFAULT_TRADES = 500
REFUSALS_BEFORE_BAN = 10
"""Requests sent in spite of a 429, after which the address is banned."""
BAN_SECONDS = 120
PLACES = 8
"""Decimal places of all prices and quantities, whatever the steps."""
NS_PER_MILLISECOND = 1_000_000

Levels = list[tuple[int, int]]


class _RecordedSymbol(msgspec.Struct):
    symbol: str
    baseAsset: str  # noqa: N815, the venue's name
    quoteAsset: str  # noqa: N815, the venue's name


class _RecordedInfo(msgspec.Struct):
    symbols: list[_RecordedSymbol]


def wide(value: int, exponent: int) -> str:
    """Decimal text with eight places."""
    return fixed_text(value * 10 ** (PLACES - exponent), PLACES)


def order_of(fills: list[Fill]) -> list[list[Fill]]:
    """Matches grouped by the taker's order, as aggregate trades."""
    orders: list[list[Fill]] = []
    for fill in fills:
        if orders and orders[-1][0].order == fill.order:
            orders[-1].append(fill)
        else:
            orders.append([fill])
    return orders


class BinanceRest(VenueSimulator):
    """The REST half of Binance.US.

    Parameters
    ----------
    microseconds : write times in microseconds instead of milliseconds
    """

    exchange: ClassVar[str] = "binance_us"
    metadata_path: ClassVar[str] = "/api/v3/exchangeInfo"

    def __init__(self, *arguments: Any, microseconds: bool = False, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.weight = RollingBudget(WEIGHT_A_MINUTE, 60.0)
        self.time_unit_ns = 1_000 if microseconds else NS_PER_MILLISECOND
        self._refusals = 0
        self._banned_until_ns = 0
        self._kept: dict[str, tuple[int, Levels, Levels]] = {}

    def name_symbol(self, spec: PairSpec) -> str:
        """Implement `VenueSimulator`."""
        return f"{spec.base}{spec.quote}"

    def list_recorded(self, body: bytes) -> None:
        """Implement `VenueSimulator`."""
        for listed in msgspec.json.decode(body, type=_RecordedInfo).symbols:
            self.symbols[f"{listed.baseAsset}-{listed.quoteAsset}"] = listed.symbol

    def keep_snapshot(self, symbol: str) -> None:
        """Implement `VenueSimulator`."""
        if self.market is not None:
            book = self.books[symbol]
            bids, asks = book.bids.top(MAX_DEPTH), book.asks.top(MAX_DEPTH)
            self._kept[symbol] = book.update_id, bids, asks

    def routes(self) -> list[Route]:
        """Implement `VenueSimulator`."""
        handlers: dict[str, tuple[Handler, int]] = {
            "ping": (self._ping, 1),
            "time": (self._time, 1),
            "exchangeInfo": (self._exchange_info, 10),
            "depth": (self._depth, 0),
            "trades": (self._trades, 1),
            "historicalTrades": (self._historical_trades, 5),
            "aggTrades": (self._aggregate_trades, 1),
        }
        return [
            Route(f"/api/v3/{name}", self.rest(self._weighed(handler, weight)))
            for name, (handler, weight) in handlers.items()
        ]

    def rest_refusal(self, status: int, retry_after_seconds: float) -> Response:
        """Implement `VenueSimulator`."""
        return json_response(
            {"code": -1003, "msg": "Too much request weight used; current limit is exceeded."},
            status,
            {"Retry-After": str(max(1, round(retry_after_seconds)))},
        )

    def _weighed(self, handler: Handler, weight: int) -> Handler:
        """Count a request's weight: 429 beyond the budget, 418 for those who don't heed it."""

        async def handle(request: Request) -> Response:
            banned_ns = self._banned_until_ns - monotonic_ns()
            if banned_ns > 0:
                return self.rest_refusal(418, banned_ns / NS_PER_SECOND)
            if not self.weight.take(weight or _depth_weight(_number(request, "limit", 100))):
                self._refusals += 1
                if self._refusals > REFUSALS_BEFORE_BAN:
                    self._refusals = 0
                    self._banned_until_ns = monotonic_ns() + BAN_SECONDS * NS_PER_SECOND
                    return self.rest_refusal(418, BAN_SECONDS)
                return self.rest_refusal(429, self.weight.wait_seconds())
            self._refusals = 0
            answer = await self.recorded(request) or await handler(request)
            answer.headers["X-MBX-USED-WEIGHT-1M"] = str(self.weight.used)
            return answer

        return handle

    async def _ping(self, _: Request) -> Response:
        return json_response({})

    async def _time(self, _: Request) -> Response:
        return json_response({"serverTime": wall_ns() // self.time_unit_ns})

    async def _exchange_info(self, request: Request) -> Response:
        wanted = request.query_params.get("symbol")
        if wanted is not None and wanted not in self.books:
            return _bad_symbol()
        books = [self.books[wanted]] if wanted is not None else list(self.books.values())
        limit = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": self.weight.limit,
        }
        return json_response(
            {
                "timezone": "UTC",
                "serverTime": wall_ns() // self.time_unit_ns,
                "rateLimits": [limit],
                "exchangeFilters": [],
                "symbols": [self._symbol_info(book) for book in books],
            }
        )

    def _symbol_info(self, book: VenueBook) -> dict[str, Any]:
        spec = book.spec
        tick, lot = wide(spec.tick, spec.price_exponent), wide(spec.lot, spec.size_exponent)
        return {
            "symbol": book.venue_symbol,
            "status": "TRADING" if self.status == "online" else "BREAK",
            "baseAsset": spec.base,
            "baseAssetPrecision": PLACES,
            "quoteAsset": spec.quote,
            "quotePrecision": PLACES,
            "quoteAssetPrecision": PLACES,
            "orderTypes": ["LIMIT", "MARKET"],
            "isSpotTradingAllowed": True,
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": tick,
                    "maxPrice": "10000000.00000000",
                    "tickSize": tick,
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": lot,
                    "maxQty": "90000000.00000000",
                    "stepSize": lot,
                },
                {"filterType": "MIN_NOTIONAL", "minNotional": "10.00000000"},
            ],
            "permissions": ["SPOT"],
        }

    async def _depth(self, request: Request) -> Response:
        book = self._book_of(request)
        if book is None:
            return _bad_symbol()
        limit = min(_number(request, "limit", 100), MAX_DEPTH)
        if limit < 1:
            return _bad_request("Illegal characters found in parameter 'limit'.")
        symbol = book.venue_symbol
        if self.faults.armed and self.faults.take("stale_snapshot", symbol):
            update_id, bids, asks = self._kept[symbol]
        else:
            update_id, bids, asks = book.update_id, book.bids.top(limit), book.asks.top(limit)
        price, size = book.spec.price_exponent, book.spec.size_exponent
        bids_text, asks_text = (
            ",".join(f'["{wide(p, price)}","{wide(s, size)}"]' for p, s in side[:limit])
            for side in (bids, asks)
        )
        return json_response(
            f'{{"lastUpdateId":{update_id},"bids":[{bids_text}],"asks":[{asks_text}]}}'.encode()
        )

    async def _trades(self, request: Request) -> Response:
        book = self._book_of(request)
        if book is None:
            return _bad_symbol()
        limit = min(_number(request, "limit", DEFAULT_TRADES), MAX_TRADES)
        return self._trade_rows(book, list(book.fills)[-limit:] if limit > 0 else [])

    async def _historical_trades(self, request: Request) -> Response:
        if not request.headers.get("X-MBX-APIKEY"):
            return json_response({"code": -2014, "msg": "API-key format invalid."}, 401)
        book = self._book_of(request)
        if book is None:
            return _bad_symbol()
        limit = min(_number(request, "limit", DEFAULT_TRADES), MAX_TRADES)
        first = _number(request, "fromId", -1)
        fills = book.fills_from(first)[:limit] if first >= 0 else list(book.fills)[-limit:]
        return self._trade_rows(book, fills)

    async def _aggregate_trades(self, request: Request) -> Response:
        book = self._book_of(request)
        if book is None:
            return _bad_symbol()
        limit = min(_number(request, "limit", DEFAULT_TRADES), MAX_TRADES)
        first = _number(request, "fromId", -1)
        unit = self.time_unit_ns
        start, end = (_number(request, name, -1) * unit for name in ("startTime", "endTime"))
        orders = order_of(list(book.fills))
        if first >= 0:
            orders = [order for order in orders if order[0].order >= first]
        if start >= 0:
            orders = [order for order in orders if order[0].t_ns // unit * unit >= start]
        if end >= 0:
            orders = [order for order in orders if order[0].t_ns // unit * unit <= end]
        orders = orders[:limit] if first >= 0 or start >= 0 else orders[-limit:]
        rows = ",".join(f"{{{self.aggregate_fields(book, order)}}}" for order in orders)
        return json_response(f"[{rows}]".encode())

    def aggregate_fields(self, book: VenueBook, order: list[Fill]) -> str:
        """Fields of an aggregate trade that stream and REST share."""
        first = order[0]
        spec = book.spec
        size = sum(fill.size for fill in order)
        return (
            f'"a":{first.order},"p":"{wide(first.price, spec.price_exponent)}",'
            f'"q":"{wide(size, spec.size_exponent)}","f":{first.trade_id},'
            f'"l":{order[-1].trade_id},"T":{first.t_ns // self.time_unit_ns},'
            f'"m":{"false" if first.buy else "true"},"M":true'
        )

    def _trade_rows(self, book: VenueBook, fills: list[Fill]) -> Response:
        price, size = book.spec.price_exponent, book.spec.size_exponent
        rows = ",".join(
            f'{{"id":{f.trade_id},"price":"{wide(f.price, price)}","qty":"{wide(f.size, size)}",'
            f'"time":{f.t_ns // self.time_unit_ns},'
            f'"isBuyerMaker":{"false" if f.buy else "true"},"isBestMatch":true}}'
            for f in fills
        )
        return json_response(f"[{rows}]".encode())

    def _book_of(self, request: Request) -> VenueBook | None:
        return self.books.get(request.query_params.get("symbol", ""))


def _depth_weight(limit: int) -> int:
    return 1 if limit <= 100 else 5 if limit <= 500 else 10 if limit <= 1000 else 50


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    return int(text) if text.isdigit() else 0


def _bad_symbol() -> Response:
    return _bad_request("Invalid symbol.", -1121)


def _bad_request(message: str, code: int = -1100) -> Response:
    return json_response({"code": code, "msg": message}, 400)
