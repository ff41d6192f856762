"""Compares books whose updates bear no sequence with the venue's REST book.

The REST book is of some moment between our request and its answer, and our updates come late by a
batch or two, so single differences mean nothing. A level that was the same in our book before and
after must be the same at REST; one that isn't is a suspect, and guilty only if it stays unchanged
with us until a second comparison contradicts it too: an update that was merely late would have
changed it by then.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import msgspec

from alphapulse.clock import wall_ns
from alphapulse.collectors.context import Context
from alphapulse.collectors.sync import SyncedBook
from alphapulse.config import CoinbaseSettings
from alphapulse.delta import Book, LevelStage
from alphapulse.errors import AlphaPulseError, VenueError
from alphapulse.log import get_logger
from alphapulse.model import BookSide, BookState, Reason

log = get_logger(__name__)

RECHECK_SECONDS = 5.0
"""From a comparison that found a suspect to the one that decides."""

WATCHES = 25
"""How often suspects are looked at in between."""


class Levels(NamedTuple):
    """A book's sizes by price, scaled."""

    bids: dict[int, int]
    asks: dict[int, int]

    @classmethod
    def of(cls, book: Book) -> Levels:
        """Copy of a book."""
        return cls(dict(book.bids()), dict(book.asks()))


Suspects = dict[tuple[BookSide, int], int]
"""Our size, 0 for none, by side and price."""


def contradictions(before: Levels, after: Levels, rest: Levels) -> Suspects:
    """Levels that didn't change with us while the venue answered, yet aren't so in its answer.

    Only the prices that the answer covers are compared.

    Parameters
    ----------
    before, after : our book just before the request and just after the answer
    rest : the answer
    """
    found: Suspects = {}
    for side, ours, later, theirs in (
        (BookSide.BID, before.bids, after.bids, rest.bids),
        (BookSide.ASK, before.asks, after.asks, rest.asks),
    ):
        if not theirs:
            continue
        covered = range(min(theirs), max(theirs) + 1)
        for price, size in (ours.items() & later.items()) - theirs.items():
            # Better than the venue's best is covered too: it says that there is nothing.
            if price in covered or (price > covered[-1]) == (side is BookSide.BID):
                found[side, price] = size
        for price in theirs.keys() - ours.keys() - later.keys():
            found[side, price] = 0
    return found


def still(suspects: Suspects, book: Book) -> Suspects:
    """Those suspects that are in the book as they were."""
    return {key: size for key, size in suspects.items() if book.size_at(*key) == size}


def common(first: Suspects, second: Suspects) -> Suspects:
    """Levels that two comparisons contradict in the same way."""
    return dict(first.items() & second.items())


class Auditor:
    """Compares each book with REST in turn.

    Parameters
    ----------
    context : what the venue's connections share
    seconds : how often each book is compared
    """

    def __init__(self, context: Context, seconds: float) -> None:
        self._context = context
        self._feed = context.feed
        self._seconds = seconds
        self._recheck = min(RECHECK_SECONDS, seconds / 4)
        self._stage = LevelStage()

    @classmethod
    def of(cls, context: Context) -> Auditor | None:
        """The auditor that the venue's settings ask for, if any."""
        settings = context.settings
        if not isinstance(settings, CoinbaseSettings) or settings.feed != "exchange":
            return None
        seconds = settings.rest_check_seconds
        return cls(context, seconds) if seconds and context.venue.books else None

    async def run(self) -> None:
        """Compare until cancelled, evenly spread over time."""
        while True:
            symbols = list(self._feed.books)
            for symbol in symbols:
                await asyncio.sleep(self._seconds / len(symbols))
                try:
                    await self._audit(symbol)
                except VenueError as error:
                    self._context.complaints.add("no audit", symbol, problem=error.problem)
            if not symbols:
                await asyncio.sleep(self._recheck)

    async def _audit(self, symbol: str) -> None:
        book = self._feed.books[symbol]
        first = await self._compare(symbol, book)
        for _ in range(WATCHES):
            if not first:
                return
            await asyncio.sleep(self._recheck / WATCHES)
            first = still(first, book.tracker.book)
        guilty = common(first, await self._compare(symbol, book)) if first else None
        if not guilty or book.state is not BookState.LIVE:
            return
        instrument = book.instrument
        (side, price), size = min(guilty.items())
        self._context.complaints.add(
            "book contradicts REST",
            symbol,
            levels=len(guilty),
            example=f"{side.text} {instrument.price(price):f}: we have {instrument.size(size):f}",
        )
        self._feed.fail([symbol], BookState.INVALID, Reason.MISMATCH, wall_ns())
        self._context.touch()

    async def _compare(self, symbol: str, book: SyncedBook) -> Suspects:
        """One comparison; nothing where there is nothing that can be compared."""
        request = self._context.venue.snapshot_request(book.instrument)
        if request is None or book.state is not BookState.LIVE:
            return {}
        instrument = book.instrument
        await self._context.rest.wait_turn(request)
        before = Levels.of(book.tracker.book)
        answer = await self._context.rest.ask(request)
        if book.state is not BookState.LIVE or book.instrument is not instrument:
            return {}
        after = Levels.of(book.tracker.book)
        rest = Book()
        try:
            self._stage.clear()
            for layout, side, raw in self._context.venue.parse_snapshot(
                instrument, answer.body
            ).parts:
                exponents = instrument.price_exponent, instrument.size_exponent
                self._stage.parse(raw, layout, side, *exponents)
            rest.load(self._stage)
        except (msgspec.MsgspecError, AlphaPulseError, ValueError, RecursionError) as error:
            self._context.complaints.add("REST book can't be used", symbol, problem=str(error))
            return {}
        finally:
            self._stage.clear()
        return contradictions(before, after, Levels.of(rest))
