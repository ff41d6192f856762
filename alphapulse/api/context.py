"""What the handlers work with: the settings, the history, the live books, and what is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from starlette.requests import Request

from alphapulse.api.crossings import Crossings
from alphapulse.api.items import AnswerCache
from alphapulse.api.market import LiveMarkets
from alphapulse.api.parameters import Limits
from alphapulse.api.problems import Problem, bad
from alphapulse.arbitrage import Terms
from alphapulse.clock import wall_ns
from alphapulse.config import Settings
from alphapulse.history import BookRow, History, SeriesSummary
from alphapulse.repository import MarketDataRepository
from alphapulse.shm import Position

if TYPE_CHECKING:
    from alphapulse.api.endpoints import Endpoint

STARTED = "alphapulse.started"
"""Key of the scope under which the time of a request's arrival is."""


class Backend(History, MarketDataRepository, Protocol):
    """A store, as the server is given one."""

    async def save_book(self, book: BookRow) -> None:
        """Keep a book."""
        ...

    async def position(self, exchange: str) -> Position | None:
        """Where its writer goes on in a venue's ring, None if it has taken nothing of it."""
        ...


class Context:
    """Shared by all handlers.

    Parameters
    ----------
    settings : all of them
    history : where trades are
    markets : where live books are
    written : tells whether the history is being written; None where nobody is to write it
    """

    def __init__(
        self,
        settings: Settings,
        history: Backend,
        markets: LiveMarkets,
        written: Callable[[], bool] | None = None,
    ) -> None:
        self.settings = settings
        self.history = history
        self.markets = markets
        self.written = written
        self.started_ns = wall_ns()
        self._venues = settings.venues.enabled()
        self.answers = AnswerCache()
        self.limits = Limits(settings.api.max_limit)
        self.endpoints: Sequence[Endpoint] = ()
        """What is served; `create_app` sets it."""
        self.crossings = Crossings(Terms.from_settings(settings.arbitrage), markets)

    async def exchanges(self) -> list[str]:
        """Those that are collected, have a ring, or have history; sorted."""
        stored = {series.exchange for series in await self.history.summarise()}
        return sorted(stored | self._current())

    async def symbols(self, exchange: str | None = None) -> list[str]:
        """Symbols that have a ring or history, of one exchange or of all; sorted."""
        found = {
            series.symbol
            for series in await self.history.summarise()
            if exchange in (None, series.exchange)
        }
        for venue, ring in self.markets.rings.items():
            if exchange in (None, venue):
                found |= ring.symbols().keys()
        return sorted(found)

    async def check_exchange(self, exchange: str) -> None:
        """Raise `Problem` for an exchange of which nothing can be known."""
        if exchange in self._venues or exchange in self.markets.rings:
            return
        if exchange not in await self.exchanges():
            known = ", ".join(await self.exchanges()) or "none as yet"
            raise bad("exchange", f"{exchange!r} is unknown; there are: {known}")

    async def check_symbol(self, symbol: str, exchange: str | None) -> None:
        """Raise `Problem` for a symbol of which nothing can be known.

        Parameters
        ----------
        symbol : unified
        exchange : a known one, None for any
        """
        if self._collects(symbol, exchange):
            return
        stored: list[SeriesSummary] = await self.history.summarise()
        if any(row.symbol == symbol and exchange in (None, row.exchange) for row in stored):
            return
        raise Problem(
            HTTPStatus.NOT_FOUND,
            f"symbol: nothing is known of {symbol} at {exchange or 'any exchange'}",
            "symbol",
        )

    def _current(self) -> set[str]:
        return self._venues.keys() | self.markets.rings.keys()

    def _collects(self, symbol: str, exchange: str | None) -> bool:
        if exchange is None:
            return any(self._collects(symbol, each) for each in self._current())
        venue, ring = self._venues.get(exchange), self.markets.rings.get(exchange)
        return (venue is not None and symbol in venue.symbols) or (
            ring is not None and symbol in ring.symbols()
        )


def elapsed_ms(request: Request) -> float:
    """Time since the request arrived, in milliseconds, rounded to the microsecond."""
    started: float = request.scope[STARTED]
    return round((time.perf_counter() - started) * 1000, 3)
