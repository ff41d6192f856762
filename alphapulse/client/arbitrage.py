"""Opportunities between venues, live: from this machine's rings, or from a stream client's books.

The engine, its terms and what it tells are those of `alphapulse.arbitrage`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Protocol

from alphapulse.arbitrage import (
    Engine,
    Event,
    Nearest,
    Opportunity,
    Quote,
    Status,
    Terms,
    encode_event,
    encode_opportunity,
)
from alphapulse.client.ring_quotes import RingQuotes
from alphapulse.clock import monotonic_ns, wall_ns
from alphapulse.config import ArbitrageSettings
from alphapulse.delta import LevelStage
from alphapulse.errors import RingError
from alphapulse.log import get_logger
from alphapulse.model import Instrument
from alphapulse.shm import DEFAULT_PREFIX, RingReader, list_rings
from alphapulse.symbols import normalize_symbol

__all__ = [
    "ArbitrageDetector",
    "BookArbitrage",
    "Engine",
    "Event",
    "Nearest",
    "Opportunity",
    "Status",
    "Terms",
    "encode_event",
    "encode_opportunity",
]

LOOK_NS = 1_000_000_000
"""How often rings are looked for, and whether they have writers."""
TICK_SECONDS = 0.25
"""The longest wait for news: venues that show no sign of life are noticed without any."""
IN_STEP_RECORDS = 256
"""A ring in which no more has come while the others were read counts as read."""
MAX_ROUNDS = 4

log = get_logger(__name__)


class ArbitrageDetector:
    """Follows the rings of a prefix and finds the opportunities between their venues.

    ::

        with ArbitrageDetector(Terms({"kraken": Decimal(26), "coinbase": Decimal(40)})) as detector:
            for event in detector:          # or: async for event in detector
                print(event.status, event.opportunity.net_bps)

    Events come without end. Between two of them books are followed only while the next is asked
    for; what comes in the meantime is caught up with, and what opened and closed within it isn't
    told. Not for use by several threads, nor in both ways of iterating at a time.

    Parameters
    ----------
    terms : fees and limits; those of the default settings where None
    prefix : of the rings
    symbols : only these, all where None
    """

    def __init__(
        self,
        terms: Terms | None = None,
        *,
        prefix: str = DEFAULT_PREFIX,
        symbols: Iterable[str] | None = None,
    ) -> None:
        self.engine = Engine(terms or Terms.from_settings(ArbitrageSettings()))
        self.rings: dict[str, RingQuotes] = {}
        """The rings that are read, by venue."""
        self._prefix = prefix
        self._symbols = None if symbols is None else frozenset(map(normalize_symbol, symbols))
        self._stage = LevelStage()
        self._look_at_ns = 0
        self._waiting: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    def poll(self) -> Sequence[Event]:
        """Take in what the rings have by now; what has opened, changed and closed. Never waits."""
        if self._closed:
            raise RingError("the detector is closed")
        now_ns = monotonic_ns()
        if now_ns >= self._look_at_ns:
            self._look_at_ns = now_ns + LOOK_NS
            self._look()
        # All rings before anything is compared, and again if that took long: a book ahead of
        # the other would cross it where there was no crossing.
        for _ in range(MAX_ROUNDS):
            if sum(self._advance(venue) for venue in list(self.rings)) <= IN_STEP_RECORDS:
                break
        for ring in self.rings.values():
            ring.tell()
        return self.engine.evaluate(wall_ns())

    def opportunities(
        self, *, symbol: str | None = None, min_bps: Decimal | None = None
    ) -> list[Opportunity]:
        """What is open as of the last event or `poll`; see `Engine.opportunities`."""
        return self.engine.opportunities(wall_ns(), symbol=symbol, min_bps=min_bps)

    def nearest(self) -> list[Nearest]:
        """How far each symbol is from an opportunity; see `Engine.nearest`."""
        return self.engine.nearest()

    def __iter__(self) -> Iterator[Event]:
        with asyncio.Runner() as runner:
            while not self._closed:
                events = self.poll()
                yield from events
                if not events:
                    runner.run(self._news())

    async def __aiter__(self) -> AsyncIterator[Event]:
        while not self._closed:
            events = self.poll()
            for event in events:
                yield event
            if events:
                await asyncio.sleep(0)  # others of the loop have their turn
            else:
                await self._news()

    async def _news(self) -> None:
        """Wait until a ring has something, or it is time to look after them."""
        for venue, ring in self.rings.items():
            if venue not in self._waiting:
                task = asyncio.create_task(ring.reader.ready(), name=f"ring-{venue}")
                self._waiting[venue] = task
        if not self._waiting:
            await asyncio.sleep(TICK_SECONDS)
            return
        await asyncio.wait(
            self._waiting.values(), timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        for venue, task in list(self._waiting.items()):
            if task.done():
                del self._waiting[venue]
                if task.exception() is not None:
                    log.debug("waiting for a ring ended", exchange=venue, problem=task.exception())

    def _look(self) -> None:
        for ring in self.rings.values():
            ring.check()
        for info in list_rings(prefix=self._prefix):
            if info.venue not in self.rings and info.alive and not info.problem:
                try:
                    reader = RingReader(info.venue, prefix=self._prefix)
                except (RingError, PermissionError) as error:
                    log.warning("ring can't be read", exchange=info.venue, problem=str(error))
                    continue
                if not self.engine.terms.knows(info.venue):
                    log.warning("no fee is known, so it isn't considered", exchange=info.venue)
                ring = RingQuotes(reader, self.engine, self._symbols, self._stage)
                self.rings[info.venue] = ring

    def _advance(self, venue: str) -> int:
        try:
            return self.rings[venue].advance()
        except RingError as error:
            log.warning("ring given up", exchange=venue, problem=str(error))
            self._release(venue)
            return 0

    def _release(self, venue: str) -> None:
        self.rings.pop(venue).close()
        task = self._waiting.pop(venue, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """Leave the rings. May be called again."""
        self._closed = True
        for venue in list(self.rings):
            self._release(venue)

    def __enter__(self) -> ArbitrageDetector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ClientBook(Protocol):
    """What is needed of a stream client's book; `alphapulse.client.LocalBook` is one."""

    @property
    def live(self) -> bool:
        """Whether the book may be shown; the rest may be asked only then."""
        ...

    @property
    def version(self) -> int:
        """Of the latest change."""
        ...

    @property
    def instrument(self) -> Instrument:
        """What the integers are scaled by."""
        ...

    @property
    def exchange_ns(self) -> int:
        """The venue's time of the latest change."""
        ...

    @property
    def received_ns(self) -> int:
        """Our time of it."""
        ...

    def scaled_bids(self, limit: int) -> Sequence[tuple[int, int]]:
        """At most `limit` bids, highest price first."""
        ...

    def scaled_asks(self, limit: int) -> Sequence[tuple[int, int]]:
        """At most `limit` asks, lowest price first."""
        ...


class BookArbitrage:
    """Finds the opportunities between books that somebody else keeps.

    With a stream's client, whose server tells of venues that show no sign of life::

        found = BookArbitrage(client.books, terms)
        async for _ in client:
            if not client.waiting_bytes:        # in step: books of different times don't compare
                for event in found.evaluate():
                    ...

    Parameters
    ----------
    books : by (exchange, symbol); may grow
    terms : fees and limits; those of the default settings where None
    """

    def __init__(
        self, books: Mapping[tuple[str, str], ClientBook], terms: Terms | None = None
    ) -> None:
        self.engine = Engine(terms or Terms.from_settings(ArbitrageSettings()))
        self._books = books
        self._quotes: dict[tuple[str, str], tuple[Quote, ClientBook, Instrument]] = {}

    def evaluate(self) -> Sequence[Event]:
        """What has opened, changed and closed since the last time."""
        now_ns = wall_ns()
        for (exchange, symbol), book in self._books.items():
            quote, known, scale = self._quotes.get((exchange, symbol), (None, None, None))
            if not book.live:
                if quote is not None:
                    quote.lose()
                continue
            instrument = book.instrument
            if quote is None or known is not book or scale is not instrument:
                exponents = instrument.price_exponent, instrument.size_exponent
                quote = self.engine.quote(exchange, symbol, _Levels(book), *exponents)
                self._quotes[exchange, symbol] = quote, book, instrument
            self.engine.venue(exchange).seen_ns = now_ns
            if not quote.live or quote.version != book.version:
                timely = quote.live
                quote.update(book.version, book.exchange_ns, book.received_ns, timely=timely)
        return self.engine.evaluate(now_ns)

    def opportunities(
        self, *, symbol: str | None = None, min_bps: Decimal | None = None
    ) -> list[Opportunity]:
        """What was open at the last `evaluate`; see `Engine.opportunities`."""
        return self.engine.opportunities(wall_ns(), symbol=symbol, min_bps=min_bps)


class _Levels:
    """A client's book as the engine's levels."""

    def __init__(self, book: ClientBook) -> None:
        self._book = book
        self.bids = book.scaled_bids
        self.asks = book.scaled_asks

    def best(self) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
        """Best bid and best ask."""
        return next(iter(self.bids(1)), None), next(iter(self.asks(1)), None)
