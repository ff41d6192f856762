"""One symbol's book across venues, as the stream's exchange ``all`` sends it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from alphapulse.client.events import (
    OVERALL,
    ConsolidatedDelta,
    ConsolidatedLevel,
    ConsolidatedSnapshot,
    Source,
)
from alphapulse.errors import BookError, BookNotLive
from alphapulse.model import Action, BookSide, BookState, Reason


class ConsolidatedBook:
    """Who quotes what at each level, as of the last event that was taken from the client.

    What it shows raises `BookNotLive` unless `live` is true.
    """

    exchange = OVERALL

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.epoch = 0
        """Of the stream server."""
        self.state = BookState.SYNCING
        self.reason = Reason.STARTED
        self.asked = False
        """Whether the server was asked for a snapshot that hasn't come yet."""
        self._sources: Mapping[str, Source] = {}
        self._version = 0
        self._sides: dict[BookSide, dict[Decimal, ConsolidatedLevel]] = {
            side: {} for side in BookSide
        }

    def __repr__(self) -> str:
        return f"<ConsolidatedBook {self.symbol} {self.state.text}>"

    @property
    def live(self) -> bool:
        """Whether the book is known to be right."""
        return self.state is BookState.LIVE

    @property
    def version(self) -> int:
        """Of the latest event. Raises `BookNotLive`."""
        self._check()
        return self._version

    @property
    def sources(self) -> Mapping[str, Source]:
        """The venues that took part at the latest snapshot. Raises `BookNotLive`."""
        self._check()
        return self._sources

    @property
    def best_bid(self) -> ConsolidatedLevel | None:
        """Highest bid of all venues. Raises `BookNotLive`."""
        self._check()
        return max(self._sides[BookSide.BID].values(), default=None)

    @property
    def best_ask(self) -> ConsolidatedLevel | None:
        """Lowest ask of all venues. Raises `BookNotLive`."""
        self._check()
        return min(self._sides[BookSide.ASK].values(), default=None)

    def bids(self, limit: int = 0) -> list[ConsolidatedLevel]:
        """Bids, highest first; `limit` 0 for all. Raises `BookNotLive`."""
        return self._sorted(BookSide.BID, limit)

    def asks(self, limit: int = 0) -> list[ConsolidatedLevel]:
        """Asks, lowest first; `limit` 0 for all. Raises `BookNotLive`."""
        return self._sorted(BookSide.ASK, limit)

    def load(self, snapshot: ConsolidatedSnapshot) -> None:
        """Replace the book."""
        for side, levels in zip(BookSide, (snapshot.bids, snapshot.asks), strict=True):
            self._sides[side] = {level.price: level for level in levels}
        self._version = snapshot.version
        self._sources = snapshot.sources
        self.epoch = snapshot.epoch
        self.asked = False
        self.tell(BookState.LIVE, snapshot.reason)

    def apply(self, delta: ConsolidatedDelta) -> None:
        """Take a delta.

        Raises
        ------
        BookError
            it doesn't continue this book, which then waits for a snapshot
        """
        if not self.live or delta.prev_version != self._version:
            held = self._version if self.live else "none"
            self.tell(BookState.INVALID, Reason.GAP)
            raise BookError(f"a delta that follows version {delta.prev_version}, not {held}")
        for change in delta.changes:
            levels = self._sides[change.side]
            if change.action is Action.REMOVE:
                levels.pop(change.price, None)
            else:
                levels[change.price] = ConsolidatedLevel(
                    change.price, change.size, change.exchanges
                )
        self._version = delta.version

    def tell(self, state: BookState, reason: Reason) -> None:
        """Somebody who knows says what the book is."""
        self.state, self.reason = state, reason
        if state is not BookState.LIVE:
            for levels in self._sides.values():
                levels.clear()

    def _sorted(self, side: BookSide, limit: int) -> list[ConsolidatedLevel]:
        self._check()
        levels = self._sides[side]
        prices = sorted(levels, reverse=side is BookSide.BID)
        return [levels[price] for price in (prices[:limit] if limit else prices)]

    def _check(self) -> None:
        if not self.live:
            raise BookNotLive(OVERALL, self.symbol, self.state.text, self.reason.text)
