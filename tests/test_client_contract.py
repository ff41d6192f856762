"""What every client does, whatever it is connected by: one suite over all of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.client import StreamEvent
from alphapulse.errors import BookNotLive, ClientClosed, RequestError
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
    BookState,
    Channel,
    Gap,
    IdKind,
    Reason,
    Side,
    StateChange,
    Trade,
)
from tests.clients import KINDS, Checker, Driver, driven
from tests.streaming import Exchange

BID, ASK = BookSide


@pytest.fixture
def exchange(ring_prefix: str) -> Iterator[Exchange]:
    with Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 22) as exchange:
        exchange.reset("BTC-USD", {10012: 5, 10000: 10}, {10111: 3, 10200: 70000})
        yield exchange


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(kind: str, exchange: Exchange, ring_prefix: str) -> Iterator[Driver]:
    with driven(kind, ring_prefix) as driver:
        yield driver


def is_state(state: BookState) -> Any:
    """Whether an event tells this state."""
    return lambda event: isinstance(event, StateChange) and event.state is state


def is_trade(event: StreamEvent) -> bool:
    return isinstance(event, Trade)


def test_trades_are_typed_and_exact(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe("trades", "kraken", "btc/usd")
    exchange.trade("ETH-USD", 1, 1)
    ids = [exchange.trade("BTC-USD", 2943020, 1896), exchange.trade("BTC-USD", 10000, 70000)]
    trades = [driver.next(), driver.next()]
    assert all(isinstance(trade, Trade) for trade in trades)
    for trade, trade_id, price, size in zip(
        trades, ids, ("29430.2", "100"), ("0.1896", "7"), strict=True
    ):
        assert isinstance(trade, Trade)
        assert (trade.exchange, trade.symbol) == ("kraken", "BTC-USD")
        assert trade.exact_price == Decimal(price)
        assert trade.exact_size == Decimal(size)
        assert (trade.side, trade.trade_id, trade.id_kind) == (Side.BUY, trade_id, IdKind.TRADE)
        assert trade.received_ns == trade.exchange_ns + 1
        assert trade.exchange_ns > 0
    first, second = trades
    assert isinstance(first, Trade)
    assert isinstance(second, Trade)
    assert second.sequence == first.sequence + 1 == exchange.writer.sequence


@pytest.mark.parametrize("depth", ["full", 2])
def test_a_book_equals_the_exchanges_at_every_event(
    driver: Driver, exchange: Exchange, depth: Any
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    driver.subscribe(["orderbook"], ["kraken"], ["BTC-USD"], depth=depth)
    checker = Checker(driver, exchange, depth=None if depth == "full" else depth)
    first = checker.until(lambda event: isinstance(event, BookSnapshot))
    assert isinstance(first, BookSnapshot)
    assert first.reason is Reason.SUBSCRIBED
    for _ in range(200):
        side = rng.choice((BID, ASK))
        price = 10000 + rng.randrange(8) * (-1 if side is BID else 1) + (side is ASK) * 20
        exchange.change("BTC-USD", (side, price, rng.randrange(4) * 1234))
        if rng.random() < 0.05:
            exchange.repeat("BTC-USD")
    exchange.change("BTC-USD", (BID, 10019, 1 + rng.randrange(100)))
    checker.version("BTC-USD", exchange.versions["BTC-USD"])
    assert checker.kinds().count("BookSnapshot") == 1
    deltas = [event for event in checker.events if isinstance(event, BookDelta)]
    assert all(a.version == b.prev_version for a, b in itertools.pairwise(deltas))
    assert deltas[0].prev_version == first.version


def test_a_delta_tells_its_changes(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe("orderbook", symbols="BTC-USD", depth="full")
    checker = Checker(driver, exchange)
    checker.until(lambda event: isinstance(event, BookSnapshot))
    exchange.change("BTC-USD", (BID, 10013, 7), (BID, 10000, 0), (ASK, 10111, 4))
    delta = checker.until(lambda event: isinstance(event, BookDelta))
    assert isinstance(delta, BookDelta)
    told = [
        (
            change.side.text,
            delta.instrument.price(change.price),
            delta.instrument.size(change.size),
            change.action.text,
        )
        for change in delta.changes
    ]
    assert told == [
        ("bid", Decimal("100.13"), Decimal("0.0007"), "add"),
        ("bid", Decimal("100"), Decimal(0), "remove"),
        ("ask", Decimal("101.11"), Decimal("0.0004"), "update"),
    ]
    book = driver.books["kraken", "BTC-USD"]
    assert book.spread == Decimal("0.98")
    assert book.mid == Decimal("100.62")
    assert [level.price for level in book.bids(1)] == [Decimal("100.13")]


def test_a_book_that_is_not_live_is_not_shown(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe(["orderbook", "state"], symbols="BTC-USD", depth="full")
    checker = Checker(driver, exchange)
    checker.until(lambda event: isinstance(event, BookSnapshot))
    book = driver.books["kraken", "BTC-USD"]
    exchange.state("BTC-USD", BookState.INVALID, Reason.CHECKSUM)
    checker.until(is_state(BookState.INVALID))
    assert (book.state, book.reason) == (BookState.INVALID, Reason.CHECKSUM)
    assert not driver.books.live
    with pytest.raises(BookNotLive, match=r"kraken BTC-USD is invalid \(checksum\)") as caught:
        book.bids()
    assert (caught.value.state, caught.value.reason) == ("invalid", "checksum")
    for property_name in ("best_bid", "best_ask", "mid", "spread", "version", "instrument"):
        with pytest.raises(BookNotLive):
            getattr(book, property_name)
    exchange.reset("BTC-USD", {9999: 1}, {}, Reason.RESYNCED)
    exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    checker.until(is_state(BookState.LIVE))
    assert [level.price for level in driver.books["kraken", "BTC-USD"].bids()] == [Decimal("99.99")]


def test_a_book_that_was_not_live_at_first_is_told_of(driver: Driver, exchange: Exchange) -> None:
    exchange.state("ETH-USD", BookState.STALE, Reason.DISCONNECTED)
    driver.subscribe("trades", symbols="BTC-USD")
    exchange.trade("BTC-USD")
    Checker(driver, exchange).until(is_trade)
    driver.subscribe("orderbook", symbols="ETH-USD")
    event = driver.next()
    assert isinstance(event, StateChange)
    assert (event.symbol, event.state) == ("ETH-USD", BookState.STALE)
    with pytest.raises(BookNotLive):
        driver.books["kraken", "ETH-USD"].asks()


def test_an_unknown_book_is_named(driver: Driver, exchange: Exchange) -> None:
    with pytest.raises(KeyError, match="no book of"):
        driver.books["kraken", "DOGE-USD"]


def test_unsubscribing_ends_it(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe(["trades", "orderbook"], "kraken", depth="full")
    checker = Checker(driver, exchange)
    checker.until(lambda event: isinstance(event, BookSnapshot) and event.symbol == "BTC-USD")
    driver.unsubscribe("orderbook", "kraken", "BTC-USD")
    exchange.change("BTC-USD", (BID, 10012, 6))
    exchange.trade("BTC-USD")
    checker.until(is_trade)
    assert "BookDelta" not in checker.kinds()
    assert ("kraken", "BTC-USD") not in driver.books
    driver.unsubscribe()
    exchange.trade("BTC-USD")
    driver.subscribe("state", symbols="ETH-USD")
    event = driver.next()
    assert isinstance(event, StateChange), "a trade came after unsubscribing"


def test_a_later_subscription_replaces_the_depth(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe("orderbook", symbols="BTC-USD", depth="full")
    Checker(driver, exchange).until(lambda event: isinstance(event, BookSnapshot))
    driver.subscribe("orderbook", symbols="BTC-USD", depth=1)
    checker = Checker(driver, exchange, depth=1)
    again = checker.until(lambda event: isinstance(event, BookSnapshot))
    assert isinstance(again, BookSnapshot)
    assert len(again.bids) == len(again.asks) == 1
    exchange.change("BTC-USD", (BID, 10000, 11))
    exchange.change("BTC-USD", (BID, 10012, 0))
    delta = checker.until(lambda event: isinstance(event, BookDelta))
    assert isinstance(delta, BookDelta)
    assert delta.prev_version == again.version == delta.version - 2


def test_a_snapshot_can_be_asked_for(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe("orderbook", symbols="BTC-USD", depth="full")
    checker = Checker(driver, exchange)
    checker.until(lambda event: isinstance(event, BookSnapshot))
    driver.snapshot(symbols="BTC-USD")
    again = checker.until(lambda event: isinstance(event, BookSnapshot))
    assert isinstance(again, BookSnapshot)
    assert again.reason is Reason.REQUESTED
    with pytest.raises(RequestError) as caught:
        driver.snapshot(symbols="ETH-USD")
    assert caught.value.code == "not_subscribed"
    exchange.change("BTC-USD", (BID, 10012, 8))
    checker.version("BTC-USD", exchange.versions["BTC-USD"])


@pytest.mark.parametrize(
    ("arguments", "options", "code"),
    [
        (("trades", "mtgox"), {}, "unknown_exchange"),
        (("trades", "kraken", "LUNA-USD"), {}, "unknown_symbol"),
        (("trades", None, "BTCUSD"), {}, "unknown_symbol"),
        (("fills",), {}, "bad_request"),
        (("orderbook",), {"depth": 0}, "bad_request"),
    ],
)
def test_what_is_refused_has_the_protocols_code(
    driver: Driver, exchange: Exchange, arguments: Any, options: Any, code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        driver.subscribe(*arguments, **options)
    assert caught.value.code == code
    driver.subscribe("trades")
    exchange.trade("BTC-USD")
    assert isinstance(driver.next(), Trade)


def test_gaps_are_told(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe("trades", symbols="BTC-USD")
    exchange.gap("BTC-USD", Channel.TRADES, count=17)
    exchange.gap("ETH-USD", Channel.TRADES, count=18)
    exchange.gap(None, Channel.RING)
    first, second = driver.next(), driver.next()
    assert isinstance(first, Gap)
    assert (first.symbol, first.channel, first.count) == ("BTC-USD", Channel.TRADES, 17)
    assert first.reason is Reason.GAP
    assert isinstance(second, Gap)
    assert (second.symbol, second.channel, second.count) == (None, Channel.RING, None)


def test_what_appears_later_belongs_to_all(driver: Driver, exchange: Exchange) -> None:
    driver.subscribe(["orderbook", "trades"], depth="full")
    checker = Checker(driver, exchange)
    exchange.list("SOL-USD")
    exchange.change("SOL-USD", (ASK, 100, 7))
    exchange.trade("SOL-USD")
    version = exchange.versions["SOL-USD"]
    seen: set[str] = set()
    while len(seen) < 2:
        event = checker.take()
        if isinstance(event, Trade):
            assert event.symbol == "SOL-USD"
            seen.add("trade")
        elif isinstance(event, BookSnapshot | BookDelta) and event.symbol == "SOL-USD":
            seen |= {"book"} if event.version == version else set()
    best = driver.books["kraken", "SOL-USD"].best_ask
    assert best is not None
    assert best.size == Decimal("0.0007")


def test_a_collector_that_ends_and_comes_again(
    driver: Driver, exchange: Exchange, ring_prefix: str
) -> None:
    driver.subscribe(["orderbook", "state"], symbols="BTC-USD", depth="full")
    checker = Checker(driver, exchange)
    checker.until(lambda event: isinstance(event, BookSnapshot))
    exchange.writer.close()
    stale = checker.until(is_state(BookState.STALE))
    assert isinstance(stale, StateChange)
    assert stale.reason is Reason.DISCONNECTED
    with Exchange(ring_prefix, symbols=("BTC-USD",)) as successor:
        checker.exchanges[successor.exchange, successor.epoch] = successor
        successor.reset("BTC-USD", {1: 1}, {2: 2})
        successor.change("BTC-USD", (BID, 1, 2))
        checker.version("BTC-USD", successor.versions["BTC-USD"])
        assert driver.books["kraken", "BTC-USD"].epoch == successor.epoch > exchange.epoch


def test_a_closed_client_says_so(driver: Driver, exchange: Exchange, kind: str) -> None:
    if kind.startswith("blocking"):
        driver.close()
        with pytest.raises(ClientClosed):
            driver.next()
        with pytest.raises(ClientClosed):
            driver.subscribe("trades")
        return
    client: Any = driver
    client.run(client.client.close())
    with pytest.raises(ClientClosed):
        driver.next()
    with pytest.raises(ClientClosed):
        driver.subscribe("trades")
