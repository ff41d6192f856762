from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapulse.clock import monotonic_ns
from alphapulse.errors import RequestError
from alphapulse.model import BookSide, BookState, Channel, Reason
from alphapulse.shm import RingReader
from alphapulse.stream.client import Client, Limits
from alphapulse.stream.hub import Hub
from tests.streaming import Consumer, Exchange, Inbox, feed, request

BID, ASK = BookSide
LIMITS = Limits(queue_bytes=1 << 20, behind_ns=10_000_000_000, subscriptions=100)


class Stage:
    """A hub that reads one exchange's ring, and its clients."""

    def __init__(self, prefix: str, **options: Any) -> None:
        self.exchange = Exchange(prefix, **options)
        self.hub = Hub(["coinbase", "kraken"], LIMITS)
        self.reader = RingReader("kraken", prefix=prefix)
        self.feed()

    def feed(self) -> None:
        feed(self.hub, self.reader)

    def client(self, **fields: Any) -> tuple[Client, Inbox]:
        """A client, subscribed if fields of a subscription are given."""
        depth = fields.get("depth")
        inbox = Inbox(Consumer([self.exchange], depth if isinstance(depth, int) else None))
        client = self.hub.connect(inbox)
        if fields:
            self.ask(client, type="subscribe", **fields)
        return client, inbox

    def ask(self, client: Client, **fields: Any) -> None:
        self.hub.request(client, request(**fields))
        self.hub.flush()

    def close(self) -> None:
        self.reader.close()
        self.exchange.writer.close()


@pytest.fixture
def stage(ring_prefix: str) -> Iterator[Stage]:
    stage = Stage(ring_prefix, symbols=("BTC-USD", "ETH-USD"))
    yield stage
    stage.close()


def kinds(inbox: Inbox) -> list[str]:
    return [event["type"] for event in inbox.consumer.events]


def test_a_subscription_begins_with_the_answer_and_a_snapshot(stage: Stage) -> None:
    stage.exchange.change("BTC-USD", (BID, 10050, 12345), (ASK, 10060, 20000))
    stage.feed()
    _, inbox = stage.client(channels=["orderbook"], symbols=["btc/usd"], exchanges=["kraken"])
    answer, snapshot = inbox.consumer.events
    assert answer == {
        "type": "subscribed",
        "channels": ["orderbook"],
        "exchanges": ["kraken"],
        "symbols": ["BTC-USD"],
        "format": "json",
        "depth": 100,
        "epochs": {"kraken": stage.exchange.epoch},
        "sequences": {"kraken": stage.exchange.writer.sequence},
        "waiting": [],
    }
    data = snapshot["data"]
    assert (data["exchange"], data["symbol"]) == ("kraken", "BTC-USD")
    assert data["reason"] == "subscribed"
    assert data["version"] == 2
    assert data["epoch"] == stage.exchange.epoch
    assert str(data["bids"]) == "[[Decimal('100.5'), Decimal('1.2345')]]"
    stage.exchange.change("BTC-USD", (BID, 10050, 0))
    stage.feed()
    assert kinds(inbox)[2:] == ["orderbook_delta"]
    assert inbox.consumer.current("kraken", "BTC-USD", 3)


def test_what_is_due_at_once_goes_out_in_one_write(stage: Stage) -> None:
    _, inbox = stage.client(channels=["orderbook", "trades"])
    before = inbox.writes
    for size in range(1, 50):
        stage.exchange.change("BTC-USD", (BID, 100, size))
        stage.exchange.trade("ETH-USD")
    stage.feed()
    assert inbox.writes == before + 1
    assert len(inbox.consumer.of("trade")) == len(inbox.consumer.of("orderbook_delta")) == 49


levels = st.tuples(
    st.sampled_from(BookSide), st.integers(0, 14), st.sampled_from([0, 0, 1, 2, 30000])
)
steps = st.lists(
    st.one_of(
        st.lists(levels, min_size=1, max_size=6),
        st.sampled_from(
            [
                *("reset", "repeat", "stale", "flush", "flush", "join", "rejoin", "again"),
                *("fill", "conflate"),
            ]
        ),
    ),
    min_size=1,
    max_size=40,
)


class Rehearsal:
    """One book, and clients of several depths that come and go on a random plan."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.exchange = stage.exchange
        self.clients: list[tuple[Client, Inbox]] = []
        self.live = True

    def join(self, depth: int | str) -> None:
        self.stage.feed()
        self.clients.append(self.stage.client(channels=["orderbook", "state"], depth=depth))

    def change(self, levels: list[tuple[BookSide, int, int]]) -> None:
        # A venue's book isn't crossed, and a change set has each price once.
        last = {(side, price): size for side, price, size in levels}
        if self.live:
            self.exchange.change(
                "BTC-USD",
                *(
                    (side, 100 - price if side is BID else 101 + price, size)
                    for (side, price), size in last.items()
                ),
            )

    def reset(self) -> None:
        bids, asks = self.exchange.books["BTC-USD"]
        self.exchange.reset("BTC-USD", dict(list(bids.items())[1:]), asks, Reason.RESYNCED)
        if not self.live:
            self.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
        self.live = True

    def repeat(self) -> None:
        if self.live:
            self.exchange.repeat("BTC-USD")

    def stale(self) -> None:
        if self.live:
            self.exchange.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
        self.live = False

    def flush(self) -> None:
        self.stage.feed()

    def rejoin(self) -> None:
        client, inbox = self.clients[0]
        depth = inbox.consumer.depth or "full"
        self.stage.ask(client, type="subscribe", channels=["orderbook"], depth=depth)

    def again(self) -> None:
        self.stage.hub.check()
        self.stage.ask(self.clients[-1][0], type="snapshot")

    def fill(self) -> None:
        """The connection takes no more, until the end."""
        self.clients[-1][1].paused = True

    def conflate(self) -> None:
        client, _ = self.clients[-1]
        client.check(monotonic_ns() + LIMITS.behind_ns * 3 // 4)

    def check(self) -> None:
        self.stage.feed()
        version = self.exchange.versions["BTC-USD"]
        for client, inbox in self.clients:
            inbox.paused = False
            client.resume(monotonic_ns())
            self.stage.hub.flush()
            state = inbox.consumer.states["kraken", "BTC-USD"]
            assert state == ("live" if self.live else "stale")
            assert not self.live or inbox.consumer.current("kraken", "BTC-USD", version)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, depths=st.lists(st.sampled_from([1, 2, 3, 5, 100, "full"]), min_size=1))
def test_views_of_any_depth_follow_the_book(
    ring_prefix: str, steps: list[Any], depths: list[int | str]
) -> None:
    stage = Stage(ring_prefix, symbols=("BTC-USD",), size_bytes=1 << 16)
    rehearsal = Rehearsal(stage)
    try:
        rehearsal.join(depths.pop())
        for step in steps:
            if isinstance(step, list):
                rehearsal.change(step)
            elif step != "join":
                getattr(rehearsal, step)()
            elif depths:
                rehearsal.join(depths.pop())
        rehearsal.check()
    finally:
        stage.close()


def test_a_view_is_silent_where_it_does_not_change(stage: Stage) -> None:
    stage.exchange.change("BTC-USD", *((BID, price, 1) for price in (10, 11, 12)))
    stage.feed()
    _, top = stage.client(channels=["orderbook"], symbols="BTC-USD", depth=1)
    _, full = stage.client(channels=["orderbook"], symbols="BTC-USD", depth="full")
    stage.exchange.change("BTC-USD", (BID, 11, 2))
    stage.feed()
    assert kinds(top) == ["subscribed", "orderbook_snapshot"]
    assert kinds(full)[-1] == "orderbook_delta"
    # A level that leaves the view makes room for the one behind it.
    stage.exchange.change("BTC-USD", (BID, 12, 0))
    stage.feed()
    delta = top.consumer.of("orderbook_delta")[0]["data"]
    assert (delta["version"], delta["prev_version"]) == (4, 2)
    actions = {change["price"] * 100: change["action"] for change in delta["changes"]}
    assert actions == {12: "remove", 11: "add"}
    _, late = stage.client(channels=["orderbook"], symbols="BTC-USD", depth=1)
    stage.exchange.change("BTC-USD", (BID, 10, 7))
    stage.exchange.change("BTC-USD", (BID, 13, 7))
    stage.feed()
    assert late.consumer.of("orderbook_delta")[0]["data"]["prev_version"] == 4


def test_repeats_are_not_told(stage: Stage) -> None:
    _, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD")
    stage.exchange.repeat("BTC-USD")
    stage.feed()
    assert kinds(inbox) == ["subscribed", "orderbook_snapshot"]


def test_each_state_is_told_once_to_subscribers_of_book_or_state(stage: Stage) -> None:
    _, both = stage.client(channels=["orderbook", "state"], symbols="BTC-USD")
    _, book = stage.client(channels=["orderbook"], symbols="BTC-USD")
    _, state = stage.client(channels=["state"], symbols="BTC-USD")
    _, trades = stage.client(channels=["trades"], symbols="BTC-USD")
    assert kinds(both) == ["subscribed", "orderbook_snapshot", "state"]
    assert kinds(book) == ["subscribed", "orderbook_snapshot"]
    assert kinds(state) == ["subscribed", "state"]
    stage.exchange.state("BTC-USD", BookState.INVALID, Reason.CHECKSUM)
    stage.feed()
    for inbox in (both, book, state):
        assert kinds(inbox)[-1] == "state"
        last = inbox.consumer.events[-1]["data"]
        assert (last["state"], last["reason"]) == ("invalid", "checksum")
    assert len(kinds(both)) == 4
    assert kinds(trades) == ["subscribed"]


def test_a_book_that_is_not_live_is_told_and_comes_when_it_is(stage: Stage) -> None:
    stage.exchange.state("BTC-USD", BookState.STALE, Reason.SILENT)
    stage.feed()
    client, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD")
    assert kinds(inbox) == ["subscribed", "state"]
    assert inbox.consumer.events[-1]["data"]["reason"] == "silent"
    stage.ask(client, type="snapshot")
    assert kinds(inbox) == ["subscribed", "state", "state"]
    stage.exchange.reset("BTC-USD", {100: 1}, {}, Reason.RESYNCED)
    stage.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    stage.feed()
    assert kinds(inbox)[3:] == ["orderbook_snapshot", "state"]
    assert inbox.consumer.events[3]["data"]["reason"] == "resynced"
    assert inbox.consumer.events[4]["data"]["state"] == "live"


def test_a_ring_without_a_writer_makes_its_books_stale(stage: Stage) -> None:
    _, inbox = stage.client(channels=["orderbook"])
    stage.hub.venue("kraken").lost()
    stage.hub.flush()
    states = [event["data"] for event in inbox.consumer.of("state")]
    assert [(data["symbol"], data["state"], data["reason"]) for data in states] == [
        ("BTC-USD", "stale", "disconnected"),
        ("ETH-USD", "stale", "disconnected"),
    ]
    _, late = stage.client(channels=["orderbook"], symbols="BTC-USD")
    assert kinds(late) == ["subscribed", "state"]


def test_a_silent_writer_makes_books_stale_until_it_goes_on(stage: Stage) -> None:
    stage.exchange.change("BTC-USD", (BID, 100, 1))
    stage.feed()
    _, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD")
    venue = stage.hub.venue("kraken")
    venue.suspend()
    venue.suspend()
    stage.hub.flush()
    assert kinds(inbox)[2:] == ["state"]
    assert inbox.consumer.events[-1]["data"]["reason"] == "silent"
    stage.exchange.change("BTC-USD", (BID, 101, 1))
    stage.feed()
    assert kinds(inbox)[3:] == ["orderbook_snapshot", "state"]
    assert inbox.consumer.current("kraken", "BTC-USD", 3)


def test_a_new_epoch_is_a_new_beginning(stage: Stage, ring_prefix: str) -> None:
    _, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD")
    first = stage.exchange
    first.change("BTC-USD", (BID, 100, 1))
    first.writer.enlarge(1 << 21)
    stage.feed()
    assert inbox.consumer.versions["kraken", "BTC-USD"] == 2
    first.instruments.clear()
    first.versions["BTC-USD"] = 0
    first.list("BTC-USD")
    stage.feed()
    assert kinds(inbox)[3:] == ["state", "orderbook_snapshot", "state"]
    stale, snapshot, live = (
        event["data"] for event in inbox.consumer.events[3:] if "data" in event
    )
    assert (stale["state"], stale["reason"]) == ("stale", "restarted")
    assert snapshot["epoch"] == first.epoch
    assert live["state"] == "live"
    assert inbox.consumer.current("kraken", "BTC-USD", 1)


def test_a_lapped_reader_tells_the_gap_and_sends_the_books_again(ring_prefix: str) -> None:
    stage = Stage(ring_prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 14)
    try:
        _, book = stage.client(channels=["orderbook"], symbols="BTC-USD")
        _, trades = stage.client(channels=["trades"], symbols="ETH-USD")
        _, other = stage.client(channels=["trades"], exchanges="coinbase")
        for number in range(2000):
            stage.exchange.change("BTC-USD", (BID, 100, number + 1))
            if number % 10 == 0:
                stage.exchange.repeat("BTC-USD")
                stage.exchange.repeat("ETH-USD")
        stage.feed()
        for inbox in (book, trades):
            (gap,) = inbox.consumer.of("gap")
            assert gap["data"]["channel"] == "ring"
            assert gap["data"]["reason"] == "lapped"
            assert gap["data"]["count"] > 1000
        assert not other.consumer.of("gap")
        assert kinds(book)[2:6] == ["gap", "state", "orderbook_snapshot", "state"]
        assert book.consumer.current("kraken", "BTC-USD", 2001)
        assert book.consumer.states["kraken", "BTC-USD"] == "live"
    finally:
        stage.close()


def test_gaps_reach_those_concerned(stage: Stage) -> None:
    _, btc_trades = stage.client(channels=["trades"], symbols="BTC-USD")
    _, eth_trades = stage.client(channels=["trades"], symbols="ETH-USD")
    _, btc_book = stage.client(channels=["orderbook"], symbols="BTC-USD")
    every = (btc_trades, eth_trades, btc_book)

    def gaps() -> list[int]:
        return [len(inbox.consumer.of("gap")) for inbox in every]

    stage.exchange.gap("BTC-USD", Channel.TRADES, 3)
    stage.feed()
    assert gaps() == [1, 0, 0]
    assert btc_trades.consumer.of("gap")[0]["data"]["count"] == 3
    stage.exchange.gap("BTC-USD", Channel.ORDERBOOK)
    stage.feed()
    assert gaps() == [1, 0, 1]
    stage.exchange.gap(None, Channel.RING, 9)
    stage.feed()
    assert gaps() == [2, 1, 2]
    assert btc_book.consumer.of("gap")[-1]["data"]["symbol"] is None
    stage.exchange.gap(None, Channel.TRADES)
    stage.feed()
    assert gaps() == [3, 2, 2]


def test_a_later_subscription_replaces_the_earlier_one(stage: Stage) -> None:
    stage.exchange.change("BTC-USD", *((BID, price, 1) for price in range(1, 9)))
    stage.feed()
    client, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD", depth=8)
    inbox.consumer.depth = 2
    stage.ask(client, type="subscribe", channels=["orderbook"], depth=2)
    stage.exchange.change("BTC-USD", (BID, 9, 1))
    stage.feed()
    assert kinds(inbox)[2:] == [
        "subscribed",
        "orderbook_snapshot",
        "orderbook_snapshot",
        "orderbook_delta",
    ]
    assert len(stage.hub.venue("kraken").markets["BTC-USD"].views) == 1


def test_unsubscribing_ends_it_for_what_is_named(stage: Stage) -> None:
    client, inbox = stage.client(channels=["orderbook", "trades"])
    stage.ask(client, type="unsubscribe", symbols=["BTC-USD"])
    assert inbox.consumer.events[-1] == {
        "type": "unsubscribed",
        "channels": ["trades", "orderbook", "state", "bbo", "arbitrage"],
        "exchanges": ["*"],
        "symbols": ["BTC-USD"],
    }
    for symbol in ("BTC-USD", "ETH-USD"):
        stage.exchange.trade(symbol)
        stage.exchange.change(symbol, (BID, 100, 1))
    stage.feed()
    last = inbox.consumer.events[-2:]
    assert [(event["type"], event["data"]["symbol"]) for event in last] == [
        ("trade", "ETH-USD"),
        ("orderbook_delta", "ETH-USD"),
    ]
    assert not stage.hub.venue("kraken").markets["BTC-USD"].views


def test_instruments_that_appear_later_belong_to_all(stage: Stage) -> None:
    _, every = stage.client(channels=["orderbook", "state"])
    _, named = stage.client(channels=["orderbook"], symbols="BTC-USD")
    stage.exchange.list("SOL-USD")
    stage.feed()
    new = [event for event in every.consumer.events[5:] if event["data"]["symbol"] == "SOL-USD"]
    assert [event["type"] for event in new] == ["orderbook_snapshot", "state"]
    assert kinds(named) == ["subscribed", "orderbook_snapshot"]


def test_a_symbol_of_a_ring_that_is_not_there_yet_may_be_subscribed_to(ring_prefix: str) -> None:
    hub = Hub(["kraken"], LIMITS)
    inbox = Inbox(Consumer())
    client = hub.connect(inbox)
    hub.request(client, request(type="subscribe", channels=["orderbook"], symbols=["BTC-USD"]))
    hub.flush()
    assert inbox.consumer.events[0]["waiting"] == ["kraken"]
    assert inbox.consumer.events[0]["epochs"] == {}
    with (
        Exchange(ring_prefix, symbols=("BTC-USD", "ETH-USD")) as exchange,
        RingReader("kraken", prefix=ring_prefix) as reader,
    ):
        inbox.consumer.exchanges["kraken"] = exchange
        feed(hub, reader)
        assert kinds(inbox) == ["subscribed", "orderbook_snapshot", "state"]


@pytest.mark.parametrize(
    ("fields", "code", "named"),
    [
        ({"type": "subscribe", "channels": ["trades"], "exchanges": ["mars"]}, "exchange", "mars"),
        ({"type": "unsubscribe", "exchanges": ["mars"]}, "exchange", "mars"),
        (
            {"type": "subscribe", "channels": "trades", "exchanges": "kraken", "symbols": "X-Y"},
            "symbol",
            "X-Y",
        ),
    ],
)
def test_unknown_names_are_refused_by_name(
    stage: Stage, fields: dict[str, Any], code: str, named: str
) -> None:
    client, inbox = stage.client()
    with pytest.raises(RequestError) as error:
        stage.ask(client, **fields)
    assert error.value.code == f"unknown_{code}"
    assert repr(named) in error.value.message
    stage.hub.refuse(client, error.value)
    stage.hub.flush()
    assert inbox.consumer.events[-1]["code"] == f"unknown_{code}"
    stage.exchange.trade("BTC-USD")
    stage.feed()
    assert kinds(inbox) == ["error"]


def test_a_snapshot_needs_a_subscription(stage: Stage) -> None:
    client, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD")
    with pytest.raises(RequestError, match="subscribe to orderbook first"):
        stage.ask(client, type="snapshot", symbols=["ETH-USD"])
    stage.ask(client, type="snapshot", symbols=["BTC-USD"])
    assert inbox.consumer.events[-1]["data"]["reason"] == "requested"


def test_a_book_of_several_parts(stage: Stage) -> None:
    stage.exchange.reset(
        "BTC-USD",
        {10**12 + price: 10**9 + price for price in range(9000)},
        {10**13 + price: 10**9 + price for price in range(9000)},
    )
    stage.feed()
    _, inbox = stage.client(channels=["orderbook"], symbols="BTC-USD", depth="full")
    parts = inbox.consumer.of("orderbook_snapshot")
    assert len(parts) > 1
    assert inbox.consumer.current("kraken", "BTC-USD", 2)
    stage.exchange.change("BTC-USD", (ASK, 10**13, 0))
    stage.feed()
    assert inbox.consumer.current("kraken", "BTC-USD", 3)
