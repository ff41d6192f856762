"""Kraken's public REST: trades, pairs, status.

Knowledge of the protocol: Kraken's API documentation (docs.kraken.com/api).
"""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from alphapulse.clock import NS_PER_SECOND, wall_ns
from alphapulse.fixed import format_decimal
from alphapulse.simulators.base import VenueSimulator
from alphapulse.simulators.limits import TokenBucket
from alphapulse.simulators.specs import PairSpec
from alphapulse.simulators.text import fixed_text, iso_text
from alphapulse.simulators.web import json_response

REST_TRADES = 1000

_REST_ASSETS = {"BTC": "XBT", "DOGE": "XDG"}
"""REST's names of assets that v2 names otherwise."""
_LEGACY_ASSETS = frozenset(("XBT", "XDG", "ETH", "LTC", "XRP", "XLM", "XMR", "ZEC", "ETC"))
"""Assets whose REST pairs bear an X and a Z: XXBTZUSD."""


class KrakenRest(VenueSimulator):
    """The REST half of Kraken."""

    exchange: ClassVar[str] = "kraken"

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.rest_bucket = TokenBucket(1.0, 5.0)

    def name_symbol(self, spec: PairSpec) -> str:
        """Implement `VenueSimulator`."""
        return f"{spec.base}/{spec.quote}"

    def routes(self) -> list[Route]:
        """Implement `VenueSimulator`."""
        return [
            Route("/0/public/Trades", self.rest(self._rest_trades)),
            Route("/0/public/AssetPairs", self.rest(self._rest_pairs)),
            Route("/0/public/SystemStatus", self.rest(self._rest_status)),
        ]

    def rest_over_budget(self) -> Response:
        """Implement `VenueSimulator`: the venue's errors come with status 200."""
        return json_response({"error": ["EAPI:Rate limit exceeded"]})

    async def _rest_status(self, _: Request) -> Response:
        status = {"status": self.status, "timestamp": iso_text(wall_ns(), 3)}
        return json_response({"error": [], "result": status})

    async def _rest_pairs(self, request: Request) -> Response:
        recorded = await self.recorded(request)
        if recorded is not None:
            return recorded
        result = {}
        for book in self.books.values():
            spec = book.spec
            base, quote, key = _rest_names(spec)
            result[key] = {
                "altname": f"{base}{quote}",
                "wsname": f"{base}/{quote}",
                "base": base,
                "quote": quote,
                "pair_decimals": spec.price_exponent,
                "lot_decimals": spec.size_exponent,
                "tick_size": format_decimal(spec.tick, spec.price_exponent),
                "status": "online",
            }
        return json_response({"error": [], "result": result})

    async def _rest_trades(self, request: Request) -> Response:
        recorded = await self.recorded(request)
        if recorded is not None:
            return recorded
        pair = request.query_params.get("pair", "")
        since = request.query_params.get("since", "")
        count = request.query_params.get("count", str(REST_TRADES))
        book = next((b for b in self.books.values() if pair in _pair_names(b.spec)), None)
        if book is None:
            return json_response({"error": ["EQuery:Unknown asset pair"]})
        if (since and not since.isdigit()) or not count.isdigit():
            return json_response({"error": ["EGeneral:Invalid arguments"]})
        # Seconds are accepted too; nanoseconds have 19 digits.
        since_ns = int(since or 0) * (1 if len(since) > 12 else NS_PER_SECOND)
        limit = min(int(count), REST_TRADES)
        fills = book.fills_after(since_ns)[:limit] if since else list(book.fills)[-limit:]
        rows = ",".join(
            f'["{fixed_text(f.price, book.spec.price_exponent)}",'
            f'"{fixed_text(f.size, book.spec.size_exponent)}",{fixed_text(f.t_ns, 9)},'
            f'"{"b" if f.buy else "s"}","m","",{f.trade_id}]'
            for f in fills
        )
        last = fills[-1].t_ns if fills else since_ns
        key = _rest_names(book.spec)[2]
        return json_response(
            f'{{"error":[],"result":{{"{key}":[{rows}],"last":"{last}"}}}}'.encode()
        )


def _rest_names(spec: PairSpec) -> tuple[str, str, str]:
    """Base, quote and key of a pair in REST."""
    base = _REST_ASSETS.get(spec.base, spec.base)
    quote = _REST_ASSETS.get(spec.quote, spec.quote)
    legacy = base in _LEGACY_ASSETS and quote in {"USD", "EUR", "GBP"}
    return base, quote, f"X{base}Z{quote}" if legacy else f"{base}{quote}"


def _pair_names(spec: PairSpec) -> set[str]:
    base, quote, key = _rest_names(spec)
    both = {spec.base, base}
    return {key} | {f"{b}{separator}{quote}" for b in both for separator in ("", "/")}
