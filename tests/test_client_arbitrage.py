"""Opportunities found live: from real rings, and between a client's books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.client.arbitrage import (
    ArbitrageDetector,
    BookArbitrage,
    Event,
    Status,
    Terms,
)
from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.errors import RingError
from alphapulse.model import BookState, Instrument, Reason
from tests.trading import CHEAP_ASKS, DEAR_BIDS, PATIENCE_SECONDS, Venue, cross

FEES = {"kraken": Decimal(26), "coinbase": Decimal("2.5")}


@pytest.fixture
def kraken(ring_prefix: str) -> Iterator[Venue]:
    with Venue(ring_prefix, "kraken", "BTC-USD", "ETH-USD") as venue:
        yield venue


@pytest.fixture
def coinbase(ring_prefix: str) -> Iterator[Venue]:
    with Venue(ring_prefix, "coinbase", "BTC-USD", "ETH-USD") as venue:
        yield venue


@pytest.fixture
def detector(ring_prefix: str) -> Iterator[ArbitrageDetector]:
    with ArbitrageDetector(Terms(FEES, max_age_ns=10**12), prefix=ring_prefix) as detector:
        yield detector


def told(events: Any) -> list[tuple[str, str | None]]:
    return [(event.status.value, event.reason) for event in events]


def test_a_crossing_in_rings(kraken: Venue, coinbase: Venue, detector: ArbitrageDetector) -> None:
    cross(kraken, coinbase)
    (event,) = detector.poll()
    found = event.opportunity
    assert event.status is Status.OPENED
    assert (found.buy_exchange, found.sell_exchange) == ("kraken", "coinbase")
    # 1.5 at 100 and 0.9 at 100.1 against 2 at 102 and 0.4 at 101.5.
    assert (found.volume, found.buy_amount, found.sell_amount) == (
        Decimal("2.4"),
        Decimal("240.09"),
        Decimal("244.6"),
    )
    assert found.profit == Decimal("3.824616"), "0.624234 and 0.06115 are the fees"
    assert [item.profit for item in detector.opportunities()] == [found.profit]
    assert told(detector.poll()) == []
    kraken.change("BTC-USD", {}, {"100": "0"})
    (event,) = detector.poll()
    assert (event.status, event.opportunity.buy_best) == (Status.CHANGED, Decimal("100.1"))
    coinbase.state("BTC-USD", BookState.INVALID, Reason.CROSSED)
    assert told(detector.poll()) == [("closed", "not_live")]
    coinbase.book("BTC-USD", DEAR_BIDS, {"103": "1"})
    assert told(detector.poll()) == [("opened", None)]
    coinbase.define("BTC-USD", price_exponent=5, size_exponent=6)
    coinbase.book("BTC-USD", {"102.00001": "0.000001"}, {})
    (event,) = detector.poll()
    assert event.opportunity.volume == Decimal("0.000001")


def test_only_what_is_there_at_the_end_counts(
    kraken: Venue, coinbase: Venue, detector: ArbitrageDetector
) -> None:
    cross(kraken, coinbase)
    coinbase.change("BTC-USD", {"102": "0", "101.5": "0", "100.5": "0.0001"}, {})
    kraken.change("BTC-USD", {}, {"100": "0", "100.1": "0"})
    assert told(detector.poll()) == []
    for number in range(2000):
        coinbase.change("BTC-USD", {"102": str(number + 1)}, {})
        kraken.change("BTC-USD", {}, {"103": str(number + 1)})
    coinbase.change("BTC-USD", {"102": "0"}, {})
    assert told(detector.poll()) == []


def test_symbols_may_be_chosen(kraken: Venue, coinbase: Venue, ring_prefix: str) -> None:
    for symbol in ("BTC-USD", "ETH-USD"):
        cross(kraken, coinbase, symbol)
    with ArbitrageDetector(Terms(FEES), prefix=ring_prefix, symbols=["eth/usd"]) as detector:
        (event,) = detector.poll()
        assert event.opportunity.symbol == "ETH-USD"
        assert [pair.symbol for pair in detector.nearest()] == ["ETH-USD"]


def test_a_lapped_detector_has_the_right_books(ring_prefix: str) -> None:
    with (
        Venue(ring_prefix, "kraken", size_bytes=1 << 14) as kraken,
        Venue(ring_prefix, "coinbase") as coinbase,
        ArbitrageDetector(Terms(FEES), prefix=ring_prefix) as detector,
    ):
        cross(kraken, coinbase)
        assert told(detector.poll()) == [("opened", None)]
        for number in range(1000):
            kraken.trade("BTC-USD", number)
        kraken.book("BTC-USD", {}, {"101": "1"})
        (event,) = detector.poll()
        assert (event.status, event.opportunity.volume) == (Status.CHANGED, Decimal(1))


def test_a_dead_collector_ends_it_and_its_successor_begins_anew(
    coinbase: Venue, ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alphapulse.client.arbitrage.LOOK_NS", 0)
    with ArbitrageDetector(Terms(FEES, max_age_ns=10**12), prefix=ring_prefix) as detector:
        with Venue(ring_prefix, "kraken") as kraken:
            cross(kraken, coinbase)
            assert told(detector.poll()) == [("opened", None)]
        assert told(detector.poll()) == [("closed", "not_live")]
        with Venue(ring_prefix, "kraken") as kraken:
            kraken.book("BTC-USD", {}, CHEAP_ASKS)
            until = time.monotonic() + PATIENCE_SECONDS
            while not (events := detector.poll()):
                assert time.monotonic() < until
            assert told(events) == [("opened", None)]


def test_a_venue_without_a_sign_of_life_ends_it(
    kraken: Venue, coinbase: Venue, ring_prefix: str
) -> None:
    with ArbitrageDetector(Terms(FEES, max_age_ns=50_000_000), prefix=ring_prefix) as detector:
        cross(kraken, coinbase)
        assert told(detector.poll()) == [("opened", None)]
        seen_ns = detector.engine.venue("kraken").seen_ns
        until = time.monotonic() + PATIENCE_SECONDS
        while not (events := detector.poll()):
            coinbase.writer.beat()
            assert time.monotonic() < until
        assert told(events) == [("closed", "stale")]
        assert wall_ns() - seen_ns > 50_000_000
        kraken.writer.beat()
        coinbase.writer.beat()
        assert told(detector.poll()) == [("opened", None)]


def test_blocking_iteration(kraken: Venue, coinbase: Venue, detector: ArbitrageDetector) -> None:
    with closing(iter(detector)) as events:  # type: ignore[type-var]
        cross(kraken, coinbase)
        assert next(events).status is Status.OPENED
        kraken.change("BTC-USD", {}, {"100": "0"})
        assert next(events).status is Status.CHANGED


async def test_asynchronous_iteration_waits_for_rings_to_come(ring_prefix: str) -> None:
    events: asyncio.Queue[Event] = asyncio.Queue()
    with ArbitrageDetector(Terms(FEES), prefix=ring_prefix) as detector:

        async def follow() -> None:
            async for event in detector:
                events.put_nowait(event)

        task = asyncio.create_task(follow())
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                with (
                    Venue(ring_prefix, "kraken") as kraken,
                    Venue(ring_prefix, "coinbase") as coinbase,
                ):
                    cross(kraken, coinbase)
                    assert (await events.get()).status is Status.OPENED
                    coinbase.change("BTC-USD", {"102": "0.1"}, {})
                    assert (await events.get()).status is Status.CHANGED
                assert (await events.get()).status is Status.CLOSED
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def test_a_closed_detector_says_so(detector: ArbitrageDetector) -> None:
    detector.close()
    with pytest.raises(RingError, match="closed"):
        detector.poll()


class FakeBook:
    """A client's book."""

    def __init__(self, exchange: str, bids: Any, asks: Any, price_exponent: int = 2) -> None:
        self.live = True
        self.version = 1
        self.exchange_ns = NO_TIME
        self.received_ns = wall_ns()
        self.instrument = Instrument(
            id=1,
            exchange=exchange,
            symbol="BTC-USD",
            venue_symbol="BTCUSD",
            base="BTC",
            quote="USD",
            price_exponent=price_exponent,
            size_exponent=0,
        )
        self.sides = bids, asks

    def scaled_bids(self, limit: int) -> Any:
        return self.sides[0][:limit]

    def scaled_asks(self, limit: int) -> Any:
        return self.sides[1][:limit]


def test_books_that_somebody_else_keeps() -> None:
    kraken = FakeBook("kraken", [], [(10000, 3), (10010, 1)])
    coinbase = FakeBook("coinbase", [(10200, 1)], [])
    books = {("kraken", "BTC-USD"): kraken}
    finder = BookArbitrage(books, Terms(FEES))
    assert told(finder.evaluate()) == []
    books["coinbase", "BTC-USD"] = coinbase
    assert told(finder.evaluate()) == [("opened", None)]
    assert told(finder.evaluate()) == []
    coinbase.sides, coinbase.version = ([(10200, 2)], []), 2
    assert told(finder.evaluate()) == [("changed", None)]
    assert finder.opportunities()[0].volume == 2
    kraken.live = False
    assert told(finder.evaluate()) == [("closed", "not_live")]
    books["kraken", "BTC-USD"] = FakeBook("kraken", [], [(100_000, 1)], price_exponent=3)
    assert told(finder.evaluate()) == [("opened", None)]
