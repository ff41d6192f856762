from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from alphapulse.clock import monotonic_ns
from alphapulse.model import BookSide, BookState, Reason
from alphapulse.shm import RingReader
from alphapulse.stream.client import POLICY_VIOLATION, WRITE_BYTES, Client, Limits
from alphapulse.stream.hub import Hub
from alphapulse.stream.requests import Look
from tests.streaming import Consumer, Exchange, Inbox, feed, request

BID, ASK = BookSide
SECOND = 1_000_000_000
LIMITS = Limits(queue_bytes=20_000, behind_ns=10 * SECOND, subscriptions=100)


class Stage:
    """A hub, an exchange, a slow client and one that isn't."""

    def __init__(self, prefix: str) -> None:
        self.exchange = Exchange(prefix, symbols=("BTC-USD", "ETH-USD"), size_bytes=1 << 24)
        self.hub = Hub(["kraken"], LIMITS)
        self.reader = RingReader("kraken", prefix=prefix)
        self.feed()
        self.slow, self.inbox = self.join("orderbook", "trades")
        self.fast, self.other = self.join("orderbook", "trades")

    def join(self, *channels: str, **fields: object) -> tuple[Client, Inbox]:
        inbox = Inbox(Consumer([self.exchange], 100))
        client = self.hub.connect(inbox)
        self.hub.request(client, request(type="subscribe", channels=channels, **fields))
        self.hub.flush()
        return client, inbox

    def feed(self) -> None:
        feed(self.hub, self.reader)

    def changes(self, count: int, symbol: str = "BTC-USD") -> None:
        version = self.exchange.versions[symbol]
        for number in range(count):
            self.exchange.change(symbol, (BID, 100 + number % 7, version * 1000 + number + 1))
        self.feed()

    def go_on(self) -> None:
        self.inbox.paused = False
        self.slow.resume(monotonic_ns())
        self.hub.flush()

    def kinds(self, start: int = 0) -> list[str]:
        return [event["type"] for event in self.inbox.consumer.events[start:]]

    def close(self) -> None:
        self.reader.close()
        self.exchange.writer.close()


@pytest.fixture
def stage(ring_prefix: str) -> Iterator[Stage]:
    stage = Stage(ring_prefix)
    yield stage
    stage.close()


def test_what_waits_is_sent_in_order_when_there_is_room(stage: Stage) -> None:
    stage.inbox.paused = True
    before = stage.inbox.writes
    stage.changes(20)
    assert stage.kinds(3) == []
    assert stage.slow.waiting_bytes > 0
    stage.go_on()
    assert stage.inbox.writes == before + 1
    assert stage.kinds(3) == ["orderbook_delta"] * 20
    assert stage.slow.waiting_bytes == 0


def test_too_many_bytes_replace_the_deltas_by_one_snapshot_a_book(stage: Stage) -> None:
    stage.inbox.paused = True
    trade = stage.exchange.trade("ETH-USD")
    stage.changes(500)
    stage.changes(3, "ETH-USD")
    stage.changes(500)
    assert stage.slow.waiting_bytes <= LIMITS.queue_bytes
    stage.go_on()
    told = stage.inbox.consumer
    assert [event["data"]["trade_id"] for event in told.of("trade")] == [trade]
    snapshots = [event["data"] for event in told.of("orderbook_snapshot")[2:]]
    assert {data["symbol"] for data in snapshots} >= {"BTC-USD"}
    assert len(snapshots) <= 2
    assert {data["reason"] for data in snapshots} == {"lapped"}
    for symbol in ("BTC-USD", "ETH-USD"):
        assert told.current("kraken", symbol, stage.exchange.versions[symbol])
    stage.changes(3)
    assert told.current("kraken", "BTC-USD", stage.exchange.versions["BTC-USD"])
    assert stage.slow.take_conflations() == len(snapshots)
    assert len(stage.other.consumer.of("orderbook_delta")) == 1006


def test_deltas_that_wait_for_half_the_time_are_replaced(stage: Stage) -> None:
    stage.inbox.paused = True
    stage.changes(5)
    now_ns = monotonic_ns()
    stage.slow.check(now_ns + 4 * SECOND)
    assert stage.slow.waiting_bytes > 0
    stage.slow.check(now_ns + 6 * SECOND)
    assert stage.slow.waiting_bytes == 0
    stage.go_on()
    assert stage.kinds(3) == ["orderbook_snapshot"]


def test_a_client_that_stays_behind_is_closed(stage: Stage) -> None:
    stage.inbox.paused = True
    stage.changes(5)
    stage.slow.check(monotonic_ns() + 11 * SECOND)
    assert stage.inbox.closed == (POLICY_VIOLATION, "too far behind")
    stage.hub.check()
    assert list(stage.hub.clients) == [stage.fast]
    stage.changes(5)
    assert stage.inbox.consumer.versions["kraken", "BTC-USD"] == 1
    assert stage.other.consumer.versions["kraken", "BTC-USD"] == 11


def test_a_client_that_takes_something_now_and_then_may_be_behind(stage: Stage) -> None:
    stage.exchange.reset("BTC-USD", {10**9 + price: 10**9 for price in range(40_000)}, {})
    stage.feed()
    client, inbox = stage.join("orderbook", symbols="BTC-USD")
    inbox.consumer.depth = None
    inbox.full_at = inbox.bytes + 1
    stage.hub.request(client, request(type="subscribe", channels="orderbook", depth="full"))
    stage.hub.flush()
    now_ns = monotonic_ns()
    parts = []
    while inbox.paused:
        now_ns += 9 * SECOND
        client.check(now_ns)
        assert inbox.closed is None
        inbox.full_at, inbox.paused = inbox.bytes + 1, False
        client.resume(now_ns)
        client.flush(now_ns)
        parts = inbox.consumer.of("orderbook_snapshot")
        if len(parts) > 1 and parts[-1]["data"]["part"] == parts[-1]["data"]["parts"]:
            inbox.full_at = None
    assert len(parts) > 3
    assert inbox.writes > 3
    assert inbox.consumer.current("kraken", "BTC-USD", 2)


def test_what_can_not_be_conflated_is_bounded_too(stage: Stage) -> None:
    stage.inbox.paused = True
    for _ in range(200):
        stage.exchange.trade("BTC-USD")
    stage.feed()
    assert stage.slow.waiting_bytes == 0
    assert stage.inbox.closed == (POLICY_VIOLATION, "too far behind")
    assert list(stage.hub.clients) == [stage.fast]
    assert len(stage.other.consumer.of("trade")) == 200


def test_a_burst_larger_than_the_queue_is_no_reason_while_the_connection_takes_it(
    stage: Stage,
) -> None:
    for _ in range(400):
        stage.exchange.trade("BTC-USD")
    stage.feed()
    assert len(stage.inbox.consumer.of("trade")) == 400
    assert stage.inbox.closed is None


def test_a_pending_snapshot_is_not_replaced(stage: Stage) -> None:
    stage.exchange.reset("BTC-USD", {10**9 + price: 10**9 for price in range(40_000)}, {})
    stage.feed()
    stage.inbox.full_at = stage.inbox.bytes + 1
    stage.inbox.consumer.depth = None
    stage.hub.request(
        stage.slow, request(type="subscribe", channels="orderbook", depth="full", symbols="BTC-USD")
    )
    stage.hub.flush()
    told = len(stage.inbox.consumer.of("orderbook_snapshot"))
    stage.changes(100)
    assert stage.slow.take_conflations() == 1
    assert len(stage.inbox.consumer.of("orderbook_snapshot")) == told
    stage.inbox.full_at = None
    stage.go_on()
    parts = [event["data"] for event in stage.inbox.consumer.of("orderbook_snapshot")[3:]]
    assert [part["version"] for part in parts if part["part"] == part["parts"]] == [2, 102]
    assert stage.inbox.consumer.current("kraken", "BTC-USD", 102)


def test_a_book_is_not_called_live_before_the_snapshot_that_makes_it_so(stage: Stage) -> None:
    stage.inbox.paused = True
    stage.exchange.state("BTC-USD", BookState.INVALID, Reason.CHECKSUM)
    stage.exchange.reset("BTC-USD", {100: 1}, {}, Reason.RESYNCED)
    stage.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    stage.changes(500)
    stage.go_on()
    assert stage.kinds(3) == ["state", "orderbook_snapshot", "state"]
    assert [event["data"]["state"] for event in stage.inbox.consumer.of("state")] == [
        "invalid",
        "live",
    ]


def test_a_book_that_fails_while_its_snapshot_is_owed_is_told_not_shown(stage: Stage) -> None:
    stage.inbox.paused = True
    stage.changes(500)
    stage.exchange.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    stage.feed()
    stage.go_on()
    assert stage.kinds(3) == ["state"]
    stage.exchange.reset("BTC-USD", {100: 1}, {}, Reason.RESYNCED)
    stage.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    stage.feed()
    assert stage.kinds(3) == ["state", "orderbook_snapshot", "state"]


def test_no_snapshot_is_owed_of_a_book_that_is_not_live_any_more(stage: Stage) -> None:
    stage.inbox.paused = True
    stage.changes(5)
    stage.exchange.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    stage.feed()
    stage.slow.check(monotonic_ns() + 6 * SECOND)
    stage.go_on()
    assert stage.kinds(3) == ["state"]


def test_a_whole_book_that_lost_changes_is_stale_until_its_snapshot(stage: Stage) -> None:
    client, inbox = stage.join("orderbook", "trades", symbols="BTC-USD", depth="full")
    inbox.consumer.depth = None
    inbox.paused = True
    stage.changes(5)
    trade = stage.exchange.trade("BTC-USD")
    stage.changes(5)
    client.check(monotonic_ns() + 6 * SECOND)
    stage.changes(1)
    inbox.paused = False
    client.resume(monotonic_ns())
    stage.hub.flush()
    told = [event["data"] for event in inbox.consumer.events[2:]]
    assert [(data["state"], data["reason"], data["sequence"]) for data in (told[0], told[3])] == [
        ("stale", "lapped", 0),
        ("live", "lapped", 0),
    ]
    assert told[1]["trade_id"] == trade
    assert (told[2]["version"], told[2]["reason"]) == (12, "lapped")
    assert client.take_conflations() == 1


def test_a_state_that_was_held_back_is_told_whatever_the_client_asks_for(stage: Stage) -> None:
    client, inbox = stage.join("orderbook", "state", symbols="BTC-USD", depth="full")
    inbox.consumer.depth = None
    inbox.paused = True
    stage.changes(5)
    client.check(monotonic_ns() + 6 * SECOND)
    stage.hub.request(client, request(type="subscribe", channels=["orderbook"], depth=100))
    inbox.consumer.depth = 100
    inbox.paused = False
    client.resume(monotonic_ns())
    stage.hub.flush()
    assert inbox.consumer.states["kraken", "BTC-USD"] == "live"
    assert [event["type"] for event in inbox.consumer.events[-3:]].count("state") == 1
    inbox.paused = True
    stage.hub.request(client, request(type="subscribe", channels=["orderbook"], depth="full"))
    inbox.paused = False
    client.resume(monotonic_ns())
    stage.hub.flush()
    inbox.consumer.depth = None
    inbox.paused = True
    stage.changes(5)
    client.check(monotonic_ns() + 6 * SECOND)
    stage.hub.request(client, request(type="unsubscribe", channels=["orderbook"]))
    inbox.paused = False
    client.resume(monotonic_ns())
    stage.hub.flush()
    assert [event["type"] for event in inbox.consumer.events[-3:]] == [
        "state",
        "state",
        "unsubscribed",
    ]
    assert inbox.consumer.states["kraken", "BTC-USD"] == "live"


def test_much_goes_out_in_several_writes(stage: Stage) -> None:
    stage.inbox.paused = True
    stage.exchange.reset("BTC-USD", {10**9 + price: 10**9 for price in range(50_000)}, {})
    stage.exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    stage.feed()
    before, size = stage.inbox.writes, stage.inbox.bytes
    stage.inbox.consumer.depth = None
    stage.hub.request(stage.slow, request(type="subscribe", channels="orderbook", depth="full"))
    stage.go_on()
    writes = stage.inbox.writes - before
    assert writes >= (stage.inbox.bytes - size) // (2 * WRITE_BYTES)
    assert writes > 1


def test_others_have_their_turn_between_a_clients_snapshots(ring_prefix: str) -> None:
    calls: list[Callable[[], None]] = []
    hub = Hub(["kraken"], LIMITS, calls.append)
    symbols = [f"A{number}-USD" for number in range(5)]
    with (
        Exchange(ring_prefix, symbols=symbols, size_bytes=1 << 24) as exchange,
        RingReader("kraken", prefix=ring_prefix) as reader,
    ):
        for symbol in symbols:
            exchange.reset(symbol, {10**9 + price: 10**9 for price in range(25_000)}, {})
        feed(hub, reader)
        inbox = Inbox(Consumer([exchange]))
        client = hub.connect(inbox)
        hub.request(client, request(type="subscribe", channels="orderbook", depth="full"))
        turns = 0
        hub.flush()
        while calls:
            turns += 1
            assert len(inbox.consumer.books) <= turns
            calls.pop()()
            assert len(calls) <= 1
        assert len(inbox.consumer.books) == len(symbols)


def test_a_client_that_left_gets_nothing(stage: Stage) -> None:
    stage.hub.disconnect(stage.slow)
    stage.hub.disconnect(stage.slow)
    before = stage.inbox.bytes
    stage.changes(3)
    assert stage.inbox.bytes == before
    market = stage.hub.venue("kraken").markets["BTC-USD"]
    assert list(market.traders.json) == [stage.fast]
    assert list(market.views[Look(100)].clients) == [stage.fast]
