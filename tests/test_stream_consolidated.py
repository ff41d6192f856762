"""The book of all exchanges together, and the best prices, against plain sums of plain books."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.clock import monotonic_ns
from alphapulse.model import BookSide, BookState, Reason
from alphapulse.shm import RingReader
from alphapulse.stream.client import Client
from alphapulse.stream.hub import Hub
from tests.stream_consumers import ConsolidatedConsumer, consolidated
from tests.stream_stage import LIMITS
from tests.streaming import Exchange, Inbox, feed, request

BID, ASK = BookSide
PLACES = {"binance_us": (2, 5), "coinbase": (1, 8), "kraken": (3, 4)}
"""Of prices and sizes: each exchange has its own."""


class Market:
    """Three exchanges that list the same symbol, and a hub that reads them."""

    def __init__(self, prefix: str, symbols: tuple[str, ...] = ("BTC-USD",)) -> None:
        self.exchanges = {
            name: Exchange(prefix, name, symbols, places=places) for name, places in PLACES.items()
        }
        self.live = dict.fromkeys(PLACES, True)
        self.ahead_ns = 0
        self.hub = Hub(PLACES, LIMITS)
        self.readers = [RingReader(name, prefix=prefix) for name in PLACES]
        self.feed()

    def feed(self) -> None:
        for reader in self.readers:
            feed(self.hub, reader)

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        for exchange in self.exchanges.values():
            exchange.writer.close()

    def client(self, **fields: Any) -> tuple[Client, ConsolidatedConsumer]:
        depth = fields.get("depth")
        consumer = ConsolidatedConsumer(depth if isinstance(depth, int) else None)
        client = self.hub.connect(Inbox(consumer))
        self.ask(client, **fields)
        return client, consumer

    def ask(self, client: Client, **fields: Any) -> None:
        self.hub.request(client, request(**{"type": "subscribe", **fields}))
        self.hub.flush()

    def pass_time(self, milliseconds: int) -> None:
        """Do what is due by then, and go on from there."""
        self.ahead_ns += milliseconds * 1_000_000
        self.hub.desk.timetable.run(monotonic_ns() + self.ahead_ns)
        self.hub.flush()

    def change(self, name: str, *levels: tuple[BookSide, Decimal, Decimal]) -> None:
        """Change a book by levels that aren't scaled."""
        price_places, size_places = PLACES[name]
        self.exchanges[name].change(
            "BTC-USD",
            *(
                (side, int(price.scaleb(price_places)), int(size.scaleb(size_places)))
                for side, price, size in levels
            ),
        )

    def state(self, name: str, *, live: bool) -> None:
        exchange = self.exchanges[name]
        if live:
            exchange.reset("BTC-USD", *exchange.books["BTC-USD"], Reason.RESYNCED)
            exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
        else:
            exchange.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
        self.live[name] = live

    def sum(self, depth: int | None = None) -> dict[str, Any]:
        return consolidated(
            {
                name: (exchange.instruments["BTC-USD"], exchange.books["BTC-USD"])
                for name, exchange in self.exchanges.items()
                if self.live[name]
            },
            depth,
        )


@pytest.fixture
def market(ring_prefix: str) -> Iterator[Market]:
    market = Market(ring_prefix)
    yield market
    market.close()


def one(text: str) -> Decimal:
    return Decimal(text)


def bbo(consumer: ConsolidatedConsumer, exchange: str) -> list[dict[str, Any]]:
    return [
        event["data"]
        for event in consumer.events
        if event["type"] == "bbo" and event["data"]["exchange"] == exchange
    ]


ALL: dict[str, Any] = {"channels": ["orderbook"], "exchanges": ["all"]}


def test_a_level_tells_the_total_and_who_quotes_it(market: Market) -> None:
    market.change("kraken", (BID, one("100.5"), one("0.5")), (ASK, one("101"), one("2")))
    market.change("coinbase", (BID, one("100.5"), one("1.00000001")))
    market.feed()
    _, consumer = market.client(**ALL)
    answer, snapshot = consumer.events
    assert answer["exchanges"] == ["all"]
    assert set(answer["epochs"]) == {*PLACES, "all"}
    data = snapshot["data"]
    who = {"kraken": one("0.5"), "coinbase": one("1.00000001")}
    assert data["exchange"] == "all"
    assert data["epoch"] == answer["epochs"]["all"]
    assert data["bids"] == [[one("100.5"), one("1.50000001"), who]]
    assert data["asks"] == [[one("101"), one("2"), {"kraken": one("2")}]]
    assert data["sources"]["kraken"] == {
        "version": 2,
        "epoch": market.exchanges["kraken"].epoch,
        "state": "live",
    }
    for name in ("kraken", "coinbase"):
        market.change(name, (BID, one("100.5"), one("0")))
        market.feed()
    first, second = (event["data"] for event in consumer.events[2:])
    assert first["source"] == "kraken"
    assert first["changes"] == [
        {
            "side": "bid",
            "price": one("100.5"),
            "volume": one("1.00000001"),
            "action": "update",
            "exchanges": {"coinbase": one("1.00000001")},
        }
    ]
    assert second["prev_version"] == first["version"] == data["version"] + 1
    (gone,) = second["changes"]
    assert (gone["action"], gone["volume"], gone["exchanges"]) == ("remove", 0, {})


def test_only_live_books_take_part(market: Market) -> None:
    for name in PLACES:
        market.change(name, (BID, one("100"), one("1")))
    market.feed()
    _, consumer = market.client(**ALL, depth=5)
    market.state("kraken", live=False)
    market.feed()
    assert consumer.books["BTC-USD"] == market.sum(5)
    assert consumer.sources["BTC-USD"]["kraken"]["state"] == "stale"
    assert consumer.events[-1]["data"]["reason"] == "disconnected"
    for name in ("coinbase", "binance_us"):
        market.state(name, live=False)
    market.feed()
    assert consumer.states["BTC-USD"] == "stale"
    _, late = market.client(**ALL)
    assert [event["type"] for event in late.events] == ["subscribed", "state"]
    market.state("coinbase", live=True)
    market.feed()
    for each in (consumer, late):
        assert each.states["BTC-USD"] == "live"
        assert each.books["BTC-USD"] == market.sum(each.depth)
        assert [event["type"] for event in each.events[-2:]] == ["orderbook_snapshot", "state"]


def test_the_book_of_all_stands_beside_those_of_each(market: Market) -> None:
    client, consumer = market.client(
        channels=["orderbook", "trades"], exchanges=["all", "kraken"], symbols="BTC-USD"
    )
    books = [event["data"]["exchange"] for event in consumer.events[1:]]
    assert sorted(books) == ["all", "kraken"]
    market.exchanges["coinbase"].trade("BTC-USD")
    market.feed()
    assert consumer.events[-1]["data"]["exchange"] == "coinbase"
    market.ask(client, channels=["orderbook"])
    count = len(consumer.events)
    market.change("kraken", (BID, one("100"), one("1")))
    market.feed()
    told = {event["data"]["exchange"] for event in consumer.events[count:]}
    assert told == {"all", "kraken"}
    market.ask(client, type="unsubscribe", exchanges=["all"], channels=["orderbook"])
    count = len(consumer.events)
    market.change("kraken", (BID, one("100"), one("2")))
    market.feed()
    assert [event["data"]["exchange"] for event in consumer.events[count:]] == ["kraken"]
    market.ask(client, type="unsubscribe")
    assert not client.views
    assert not market.hub.desk.pools["BTC-USD"].views


def test_a_snapshot_of_the_consolidated_book_on_request(market: Market) -> None:
    client, consumer = market.client(**ALL)
    market.change("kraken", (BID, one("100"), one("1")))
    market.feed()
    market.ask(client, type="snapshot", exchanges=["all"])
    assert consumer.events[-1]["data"]["reason"] == "requested"
    assert consumer.books["BTC-USD"] == market.sum()


def test_the_best_prices_of_each_and_of_all(market: Market) -> None:
    _, consumer = market.client(channels=["bbo"])
    assert [len(bbo(consumer, name)) for name in (*PLACES, "all")] == [1, 1, 1, 1]
    first = bbo(consumer, "all")[0]
    assert (first["bid"], first["ask"], first["state"]) == (None, None, "live")
    market.change("kraken", (BID, one("100.5"), one("1")), (ASK, one("101"), one("3")))
    market.feed()
    market.change("coinbase", (BID, one("100.5"), one("2")), (ASK, one("102"), one("3")))
    market.change("coinbase", (BID, one("99"), one("2")))
    market.feed()
    every = bbo(consumer, "all")
    assert [(each["bid"], each["ask"]) for each in every[1:]] == [
        ([one("100.5"), 1, "kraken"], [101, 3, "kraken"]),
        ([one("100.5"), 3, ["coinbase", "kraken"]], [101, 3, "kraken"]),
    ]
    assert len(bbo(consumer, "coinbase")) == 2
    kraken = bbo(consumer, "kraken")[-1]
    assert (kraken["bid"], kraken["ask"]) == ([one("100.5"), 1], [101, 3])
    assert kraken["received_ns"] == kraken["timestamp_ns"] + 1
    market.state("kraken", live=False)
    market.feed()
    kraken = bbo(consumer, "kraken")[-1]
    assert (kraken["bid"], kraken["ask"], kraken["state"]) == (None, None, "stale")
    assert bbo(consumer, "all")[-1]["bid"] == [one("100.5"), 2, "coinbase"]


def test_best_prices_of_one_exchange_by_name(market: Market) -> None:
    client, consumer = market.client(channels=["bbo"], exchanges=["kraken"])
    _, every = market.client(channels=["bbo"], exchanges=["all"])
    market.change("kraken", (BID, one("100"), one("1")))
    market.change("coinbase", (BID, one("90"), one("1")))
    market.feed()
    assert {event["data"]["exchange"] for event in consumer.events[1:]} == {"kraken"}
    assert [each["bid"] for each in bbo(every, "all")][-1] == [100, 1, "kraken"]
    market.ask(client, type="unsubscribe", channels=["bbo"])
    count = len(consumer.events)
    market.change("kraken", (BID, one("100"), one("2")))
    market.feed()
    assert len(consumer.events) == count


def test_best_prices_every_so_often(market: Market) -> None:
    _, consumer = market.client(channels=["bbo"], exchanges=["kraken"], conflate_ms=60_000)
    for size in range(1, 9):
        market.change("kraken", (BID, one("100"), Decimal(size)))
        market.feed()
    assert len(bbo(consumer, "kraken")) == 1
    market.pass_time(61_000)
    assert [each["bid"] for each in bbo(consumer, "kraken")] == [None, [100, 8]]
    market.change("kraken", (BID, one("100"), one("9")))
    market.change("kraken", (BID, one("100"), one("8")))
    market.feed()
    market.pass_time(61_000)
    assert len(bbo(consumer, "kraken")) == 2
    market.state("kraken", live=False)
    market.feed()
    assert bbo(consumer, "kraken")[-1]["state"] == "stale"


def test_a_slow_client_gets_the_latest_best_prices(market: Market) -> None:
    client, consumer = market.client(channels=["bbo"], exchanges=["kraken"])
    inbox: Any = client.sink
    inbox.paused = True
    for size in range(1, 9):
        market.change("kraken", (BID, one("100"), Decimal(size)))
    market.feed()
    client.check(monotonic_ns() + LIMITS.behind_ns * 3 // 4)
    inbox.paused = False
    client.resume(monotonic_ns())
    market.hub.flush()
    assert [each["bid"] for each in bbo(consumer, "kraken")] == [None, [100, 8]]


def best(market: Market, exchange: str) -> tuple[Any, Any]:
    """What the books say."""
    if exchange != "all":
        if not market.live[exchange]:
            return None, None
        instrument = market.exchanges[exchange].instruments["BTC-USD"]
        bids, asks = market.exchanges[exchange].books["BTC-USD"]
        top = [max(bids) if bids else None, min(asks) if asks else None]
        return tuple(
            None if price is None else [instrument.price(price), instrument.size(side[price])]
            for price, side in zip(top, (bids, asks), strict=True)
        )  # type: ignore[return-value]
    found: list[list[Any] | None] = []
    for side in market.sum(1).values():
        for price, who in side.items():
            names = sorted(who)
            found.append([price, sum(who.values()), names[0] if len(names) == 1 else names])
        if not side:
            found.append(None)
    return found[0], found[1]


@pytest.mark.parametrize("seed", range(6))
def test_random_markets_equal_the_sum_of_their_books(ring_prefix: str, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    market = Market(ring_prefix)
    try:
        clients = [
            market.client(**ALL, depth=1),
            market.client(**ALL, depth=3),
            market.client(**ALL, depth="full"),
            market.client(**ALL, depth=4, conflate_ms=50),
            market.client(**ALL, depth="full", conflate_ms=50),
        ]
        _, quotes = market.client(channels=["bbo"])
        for _ in range(800):
            name = chance.choice(list(PLACES))
            if chance.random() < 0.03:
                market.state(name, live=not market.live[name])
            elif market.live[name]:
                levels = {}
                for _ in range(chance.randint(1, 4)):
                    side = chance.choice((BID, ASK))
                    price = Decimal(chance.randint(1, 12) + (0 if side is BID else 8)) / 2
                    levels[side, price] = Decimal(chance.choice((0, 0, 1, 2, 3))) / 10
                market.change(name, *((*key, size) for key, size in levels.items()))
            if chance.random() < 0.5:
                market.feed()
                for _, consumer in clients[:3]:
                    if any(market.live.values()):
                        assert consumer.books["BTC-USD"] == market.sum(consumer.depth)
                for exchange in (*PLACES, "all"):
                    told = bbo(quotes, exchange)[-1]
                    assert (told["bid"], told["ask"]) == best(market, exchange)
            if chance.random() < 0.1:
                # Newcomers to a view that has something to tell still, and follow it from there.
                late = [market.client(**ALL, depth=each, conflate_ms=50) for each in (4, "full")]
                market.feed()
                market.pass_time(100)
                for _, consumer in (*clients, *late):
                    if any(market.live.values()):
                        assert consumer.books["BTC-USD"] == market.sum(consumer.depth)
                for client, _ in late:
                    market.hub.disconnect(client)
        for exchange in (*PLACES, "all"):
            events = [(each["bid"], each["ask"], each["state"]) for each in bbo(quotes, exchange)]
            assert all(one != next_ for one, next_ in itertools.pairwise(events))
            assert len(events) > 8
    finally:
        market.close()
