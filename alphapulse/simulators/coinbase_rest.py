"""Coinbase Exchange's public REST, which both dialects of its feed share: products, books, trades.

Knowledge of the protocol: Coinbase's API documentation (docs.cdp.coinbase.com/exchange).
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alphapulse.clock import wall_ns
from alphapulse.fixed import format_decimal
from alphapulse.simulators.base import VenueSimulator
from alphapulse.simulators.book import VenueBook
from alphapulse.simulators.connection import Connection
from alphapulse.simulators.limits import TokenBucket
from alphapulse.simulators.specs import PairSpec
from alphapulse.simulators.text import fixed_text, iso_text
from alphapulse.simulators.web import json_response

MAX_REST_TRADES = 1000
SUBSCRIBE_TIMEOUT_SECONDS = 5.0


class _RecordedProduct(msgspec.Struct):
    id: str
    base_currency: str
    quote_currency: str


class CoinbaseRest(VenueSimulator):
    """The REST half of Coinbase, and the rules that both dialects' connections follow."""

    exchange: ClassVar[str] = "coinbase"
    metadata_path: ClassVar[str] = "/products"

    subscribe_timeout_seconds = SUBSCRIBE_TIMEOUT_SECONDS

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.rest_bucket = TokenBucket(10.0, 15.0)
        self.message_bucket = TokenBucket(100.0, 100.0)
        """Client messages of all connections together, since they come from one address."""

    def name_symbol(self, spec: PairSpec) -> str:
        """Implement `VenueSimulator`."""
        return spec.symbol

    def list_recorded(self, body: bytes) -> None:
        """Implement `VenueSimulator`."""
        for product in msgspec.json.decode(body, type=list[_RecordedProduct]):
            self.symbols[f"{product.base_currency}-{product.quote_currency}"] = product.id

    def greet(self, connection: Connection) -> None:
        """Implement `VenueSimulator`: a client that doesn't subscribe in time is dropped."""
        self.later(connection, self.subscribe_timeout_seconds, self._close_idler)

    def _close_idler(self, connection: Connection) -> None:
        if not connection.topics:
            self.counts["idlers"] += 1
            self.send_error(connection, "No subscribe message within 5 seconds")
            connection.close(1008, "no subscribe message")

    def send_error(self, connection: Connection, message: str, reason: str = "") -> None:
        """Send an error frame, which leaves the connection open."""
        fields = {"type": "error", "message": message}
        if reason:
            fields["reason"] = reason
        connection.send(msgspec.json.encode(fields))

    def over_rate(self, connection: Connection) -> bool:
        """Whether the client sends too much; it is told so and dropped then."""
        if self.message_bucket.take():
            return False
        self.send_error(connection, "rate limit exceeded")
        connection.close(1008, "rate limit exceeded")
        return True

    def routes(self) -> list[Route]:
        """Implement `VenueSimulator`."""
        return [
            Route("/time", self.rest(self._rest_time)),
            Route("/products", self.rest(self._rest_products)),
            Route("/products/{product}", self.rest(self._rest_product)),
            Route("/products/{product}/book", self.rest(self._rest_book)),
            Route("/products/{product}/trades", self.rest(self._rest_trades)),
        ]

    def products(self) -> list[dict[str, Any]]:
        """What ``/products`` lists."""
        return [self._product(book) for book in self.books.values()]

    def _product(self, book: VenueBook) -> dict[str, Any]:
        spec = book.spec
        return {
            "id": book.venue_symbol,
            "base_currency": spec.base,
            "quote_currency": spec.quote,
            "quote_increment": format_decimal(spec.tick, spec.price_exponent),
            "base_increment": format_decimal(spec.lot, spec.size_exponent),
            "display_name": f"{spec.base}/{spec.quote}",
            "min_market_funds": "1",
            "margin_enabled": False,
            "post_only": False,
            "limit_only": False,
            "cancel_only": False,
            "trading_disabled": self.status != "online",
            "status": "online",
            "status_message": "",
        }

    async def _rest_time(self, _: Request) -> Response:
        now = wall_ns()
        return json_response(
            f'{{"iso":"{iso_text(now)}","epoch":{fixed_text(now // 1_000_000, 3)}}}'.encode()
        )

    async def _rest_products(self, request: Request) -> Response:
        return await self.recorded(request) or json_response(self.products())

    async def _rest_product(self, request: Request) -> Response:
        recorded = await self.recorded(request)
        if recorded is not None:
            return recorded
        book = self.books.get(request.path_params["product"])
        return _not_found() if book is None else json_response(self._product(book))

    async def _rest_book(self, request: Request) -> Response:
        recorded = await self.recorded(request)
        if recorded is not None:
            return recorded
        book = self.books.get(request.path_params["product"])
        if book is None:
            return _not_found()
        level = request.query_params.get("level", "1")
        if level not in {"1", "2"}:
            return json_response({"message": "Invalid level"}, 400)
        depth = 1 if level == "1" else None
        price, size = book.spec.price_exponent, book.spec.size_exponent
        bids, asks = (
            ",".join(
                f'["{fixed_text(p, price)}","{fixed_text(s, size)}",1]' for p, s in side.top(depth)
            )
            for side in (book.bids, book.asks)
        )
        return json_response(
            f'{{"bids":[{bids}],"asks":[{asks}],"sequence":{book.sequence},"auction_mode":false,'
            f'"auction":null,"time":"{iso_text(wall_ns())}"}}'.encode()
        )

    async def _rest_trades(self, request: Request) -> Response:
        recorded = await self.recorded(request)
        if recorded is not None:
            return recorded
        book = self.books.get(request.path_params["product"])
        if book is None:
            return _not_found()
        query = request.query_params
        before, after, limit = (query.get(name, "") for name in ("before", "after", "limit"))
        if not all(text.isdigit() for text in (before, after, limit) if text):
            return json_response({"message": "Invalid cursor or limit"}, 400)
        fills = book.fills_before(int(after)) if after else list(book.fills)
        if before:
            fills = [fill for fill in fills if fill.trade_id > int(before)]
        # The newest of what is asked for, newest first; `before` doesn't page towards newer ones.
        fills = fills[-min(int(limit or MAX_REST_TRADES), MAX_REST_TRADES) or None :][::-1]
        price, size = book.spec.price_exponent, book.spec.size_exponent
        rows = ",".join(
            f'{{"time":"{iso_text(f.t_ns)}","trade_id":{f.trade_id},'
            f'"price":"{fixed_text(f.price, price)}","size":"{fixed_text(f.size, size)}",'
            f'"side":"{"sell" if f.buy else "buy"}"}}'
            for f in fills
        )
        headers = {}
        if fills:
            headers = {"CB-BEFORE": str(fills[0].trade_id), "CB-AFTER": str(fills[-1].trade_id)}
        return json_response(f"[{rows}]".encode(), headers=headers)


def _not_found() -> Response:
    return json_response({"message": "NotFound"}, 404)
