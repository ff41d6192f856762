"""Which books are kept: live ones only, and how often, of what a real ring gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from alphapulse.config import StoreSettings
from alphapulse.history import BookRow
from alphapulse.model import BookState, Reason
from alphapulse.shm import RingReader
from alphapulse.store.kept_books import KeptBooks
from alphapulse.store.taking import Taking
from tests.trading import Venue


class Desk:
    """What a writer with these settings would keep of a venue's books."""

    def __init__(self, venue: Venue, prefix: str, interval_seconds: float) -> None:
        settings = StoreSettings(book_interval_seconds=interval_seconds, book_levels=2)
        self.reader = RingReader(venue.exchange, prefix=prefix, start="oldest")
        self.taking = Taking(venue.exchange, settings, 0)

    def look(self) -> list[BookRow]:
        """The books that are kept now."""
        found: list[BookRow] = []
        while not (collected := self.taking.collect(self.reader, 0)).empty or collected.books:
            found += collected.books
        return found


@pytest.fixture
def venue(ring_prefix: str) -> Iterator[Venue]:
    with Venue(ring_prefix, "kraken", "BTC-USD", "ETH-USD") as venue:
        yield venue


def prices(book: BookRow) -> list[int]:
    return [level.price for level in (*book.bids, *book.asks)]


def test_a_book_is_kept_once_it_is_live(venue: Venue, ring_prefix: str) -> None:
    desk = Desk(venue, ring_prefix, 60)
    levels = {"100.01": "1", "100.02": "2", "100.03": "3"}
    venue.load("BTC-USD", levels, {"100.05": "1"})
    assert desk.look() == []
    venue.state("BTC-USD", BookState.LIVE, Reason.SUBSCRIBED)
    [book] = desk.look()
    assert prices(book) == [10003, 10002, 10005]
    venue.book("BTC-USD", levels, {"100.06": "1"})
    assert desk.look() == [], "the interval isn't over"
    desk.reader.close()


@pytest.mark.parametrize("interval_seconds", [0, 1e-9])
def test_a_book_that_ceased_to_be_live_is_not_kept(
    venue: Venue, ring_prefix: str, interval_seconds: float
) -> None:
    desk = Desk(venue, ring_prefix, interval_seconds)
    venue.book("BTC-USD", {"100.01": "1"}, {"100.02": "1"})
    venue.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    venue.book("ETH-USD", {"10": "1"}, {"11": "1"})
    assert [book.symbol for book in desk.look()] == ["ETH-USD"]
    venue.load("BTC-USD", {"100.03": "1"}, {"100.04": "1"})
    assert desk.look() == []
    venue.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    [book] = desk.look()
    assert prices(book) == [10003, 10004]
    desk.reader.close()


def test_short_intervals_follow_the_changes(venue: Venue, ring_prefix: str) -> None:
    desk = Desk(venue, ring_prefix, 1e-9)
    venue.book("BTC-USD", {"100.01": "1"}, {"100.02": "1"})
    assert len(desk.look()) == 1
    assert desk.look() == [], "nothing has changed"
    for price in ("100.03", "100.04"):
        venue.change("BTC-USD", {}, {price: "5"})
    [book] = desk.look()
    assert (prices(book), book.version) == ([10001, 10002, 10003], 3)
    desk.reader.close()


def test_after_a_loss_it_takes_news_of_a_book_to_keep_it(venue: Venue, ring_prefix: str) -> None:
    kept = KeptBooks("kraken", 0, 10)
    reader = RingReader("kraken", prefix=ring_prefix, start="oldest")
    venue.book("BTC-USD", {"100.01": "1"}, {"100.02": "1"})
    batch = reader.read()
    for record in batch:
        if record.type in kept.types:
            kept.take(record, reader.instruments)
    kept.tell("BTC-USD", BookState.LIVE)
    kept.lose()
    assert kept.next() is None
    reader.close()
