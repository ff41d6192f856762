"""The arbitrage engine, told of the live books."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from alphapulse.api.market import LiveMarkets, LiveView, Ring
from alphapulse.arbitrage import Engine, Opportunity, Terms
from alphapulse.clock import wall_ns

EVALUATE_SECONDS = 0.1
"""How often crossings are looked for while nobody asks: how exactly their duration is known."""


class Crossings:
    """Follows the books of all rings together; an asynchronous context manager.

    Parameters
    ----------
    terms : fees and limits
    markets : the rings
    """

    def __init__(self, terms: Terms, markets: LiveMarkets) -> None:
        self._engine = Engine(terms)
        self._markets = markets
        self._rings: dict[str, Ring] = {}
        self._known: dict[tuple[str, str], LiveView] = {}
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Crossings:
        self._task = asyncio.create_task(self._run(), name="crossings")
        return self

    async def __aexit__(self, *error: object) -> None:
        self.failed.cancel()
        await asyncio.gather(self.failed, return_exceptions=True)

    @property
    def failed(self) -> asyncio.Task[None]:
        """Ends only if looking for crossings has failed for good."""
        if self._task is None:
            raise RuntimeError("crossings aren't being looked for")
        return self._task

    async def catch_up(self) -> None:
        """Take in what is in the rings by now, all of them before their books are compared."""
        await self._markets.catch_up()
        for venue, ring in self._markets.rings.items():
            self._tell(venue, ring)
        self._engine.evaluate(wall_ns())

    def opportunities(self, symbol: str | None, min_bps: Decimal | None) -> list[Opportunity]:
        """What was open when it was caught up with last; see `Engine.opportunities`."""
        return self._engine.opportunities(wall_ns(), symbol=symbol, min_bps=min_bps)

    async def _run(self) -> None:
        while True:
            await self.catch_up()
            await asyncio.sleep(EVALUATE_SECONDS)

    def _tell(self, exchange: str, ring: Ring) -> None:
        venue = self._engine.venue(exchange)
        if self._rings.get(exchange) is not ring:
            self._rings[exchange] = ring
            venue.lose()
        venue.seen_ns = ring.seen_ns()
        for symbol in ring.take_changed():
            live = ring.live_view(symbol)
            quote = venue.quotes.get(symbol)
            if live is None:
                if quote is not None:
                    quote.lose()
                continue
            view, instrument, _ = live
            known = self._known.get((exchange, symbol))
            if quote is None or known is None or known[:2] != (view, instrument):
                exponents = instrument.price_exponent, instrument.size_exponent
                quote = self._engine.quote(exchange, symbol, view.book, *exponents)
                self._known[exchange, symbol] = live
            quote.update(view.version, view.exchange_ns, view.received_ns, timely=live.timely)
        if not ring.reader.writer_alive:
            venue.lose()
