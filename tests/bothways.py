"""A venue's feed twice, with the native path and without: both must come to the same."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from alphapulse.collectors.binance_us import BinanceUs
from alphapulse.collectors.coinbase import Coinbase
from alphapulse.collectors.kraken import Kraken
from alphapulse.config import CoinbaseSettings, KrakenSettings, VenuesSettings
from alphapulse.model import Event, Instrument
from tests.feeding import FeedOnRing
from tests.support import make_instrument

CLASSES = {"kraken": Kraken, "coinbase": Coinbase, "advanced": Coinbase, "binance_us": BinanceUs}
DIALECTS = tuple(CLASSES)
SYMBOLS = {
    "kraken": ("BTC/USD", "ETH/USD"),
    "coinbase": ("BTC-USD", "ETH-USD"),
    "advanced": ("BTC-USD", "ETH-USDC"),
    "binance_us": ("BTCUSD", "ETHUSD"),
}
"""Venue symbols of both instruments."""


class Both:
    """The same dialect of a venue twice: once with the native path, once without."""

    def __init__(
        self, prefix: str, dialect: str, listed: list[Instrument], depth: int = 10
    ) -> None:
        self.dialect = dialect
        venue = "coinbase" if dialect == "advanced" else dialect
        chosen = VenuesSettings(
            kraken=KrakenSettings(depth=depth),  # type: ignore[arg-type]
            coinbase=CoinbaseSettings(feed="advanced" if dialect == "advanced" else "exchange"),
        )
        self.fast = FeedOnRing(f"{prefix}-fast", venue, listed, chosen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CLASSES[dialect], "plain_frames", ())
            self.slow = FeedOnRing(f"{prefix}-slow", venue, listed, chosen)

    def close(self) -> None:
        self.fast.close()
        self.slow.close()

    def send(self, *frames: bytes | dict[str, Any]) -> list[Event]:
        """Send to both and compare all that can be seen of them."""
        found, expected = self.fast.send(*frames), self.slow.send(*frames)
        self.compare(found, expected)
        return found

    def reconnect(self) -> None:
        """Go on with both over a new connection."""
        for each in (self.fast, self.slow):
            each.channel = each.venue.channel(list(each.channel.symbols.values()))
            each.feed.opened(each.channel, each.now_ns)
        self.compare(self.fast.events(), self.slow.events())

    def compare(self, found: list[Event], expected: list[Event]) -> None:
        """Compare what both have done and all that decides what they will do."""
        assert list(map(_without_times, found)) == list(map(_without_times, expected))
        ours, theirs = self.fast.feed, self.slow.feed
        assert self.fast.complaints == self.slow.complaints
        assert ours.wanted == theirs.wanted
        assert ours.counts == theirs.counts
        assert ours.published_trades() == theirs.published_trades()
        assert ours.publisher.tallies == theirs.publisher.tallies
        assert _message(self.fast) == _message(self.slow)
        for symbol, book in theirs.books.items():
            tracker = ours.books[symbol].tracker
            assert tracker.version == book.tracker.version
            assert tracker.book.digest() == book.tracker.book.digest()
            assert tracker.exchange_ns == book.tracker.exchange_ns
            assert _known(ours.trades[symbol]) == _known(theirs.trades[symbol])

    @property
    def taken(self) -> int:
        """How many frames went the native way."""
        assert self.slow.feed._fast.frames == 0
        return self.fast.feed._fast.frames


def two_instruments(dialect: str) -> list[Instrument]:
    """BTC-USD and another one."""
    venue = "coinbase" if dialect == "advanced" else dialect
    first, second = SYMBOLS[dialect]
    other = "ETH-USDC" if dialect == "advanced" else "ETH-USD"
    return [make_instrument(venue, "BTC-USD", first), make_instrument(venue, other, second)]


def _message(on_ring: FeedOnRing) -> int | None:
    connection = on_ring.channel.connection
    return connection.last_message if connection is not None else None


def _known(log: Any) -> tuple[object, ...]:
    return (
        log.kind,
        log.last_id,
        log.last_ns,
        log.last_exchange_ns,
        log.promised_id,
        log.resumed,
        log.bridged,
        log.heard,
        log.published,
        log._missing,
    )


def _without_times(event: Event) -> Event:
    return msgspec.structs.replace(event, published_ns=0) if hasattr(event, "flags") else event
