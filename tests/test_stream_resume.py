"""Going on where a client was: what it has missed, exactly once, and then the live flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.delta import decode_header
from alphapulse.errors import RequestError
from alphapulse.model import BookSide, BookState, Reason, RecordFlag, RecordType
from alphapulse.shm import RingReader
from alphapulse.stream.client import Client
from alphapulse.stream.hub import Hub
from alphapulse.stream.resume import PORTION
from tests.stream_consumers import RecordConsumer
from tests.stream_stage import LIMITS, BookStage, reopened
from tests.streaming import Consumer, Exchange, Inbox, feed, request

BID, ASK = BookSide


@pytest.fixture
def stage(ring_prefix: str) -> Iterator[BookStage]:
    with BookStage(ring_prefix, symbols=("BTC-USD", "ETH-USD")) as stage:
        yield stage


def again(
    stage: BookStage,
    consumer: Consumer | RecordConsumer,
    sequence: int,
    epoch: int | None = None,
    **fields: Any,
) -> Client:
    """The client connects once more, with what it remembers."""
    client = stage.hub.connect(Inbox(consumer))
    point = {"epoch": stage.exchange.epoch if epoch is None else epoch, "sequence": sequence}
    stage.ask(client, type="subscribe", resume={"kraken": point}, **fields)
    return client


def sequences(events: list[dict[str, Any]]) -> list[int]:
    return [int(event["data"]["sequence"]) for event in events if "data" in event]


def answer(consumer: Consumer | RecordConsumer) -> dict[str, Any]:
    texts = consumer.events if isinstance(consumer, Consumer) else consumer.texts
    last: dict[str, Any] = [each for each in texts if each["type"] == "subscribed"][-1]
    return last


WHOLE: dict[str, Any] = {"channels": ["trades", "orderbook", "state"], "depth": "full"}


def test_a_json_client_gets_what_it_missed_and_then_the_live_flow(stage: BookStage) -> None:
    exchange = stage.exchange
    client, consumer = stage.texts(**WHOLE)
    exchange.change("BTC-USD", (BID, 100, 5))
    stage.feed()
    stage.hub.disconnect(client)
    seen = exchange.writer.sequence
    begun = len(consumer.events)
    for size in range(1, 2 * PORTION):
        exchange.change("BTC-USD", (BID, 100, 5 + size))
        exchange.trade("ETH-USD")
    exchange.repeat("ETH-USD")
    stage.feed()
    again(stage, consumer, seen, **WHOLE)
    assert answer(consumer)["resumed"] == {"kraken": "records"}
    exchange.change("BTC-USD", (BID, 100, 3))
    stage.feed()
    missed = sequences(consumer.events[begun:])
    assert missed == [*range(seen + 1, exchange.writer.sequence - 1), exchange.writer.sequence]
    assert consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])


def test_a_binary_client_gets_the_rings_own_bytes(stage: BookStage) -> None:
    exchange = stage.exchange
    client, consumer = stage.records(**WHOLE)
    exchange.change("BTC-USD", (BID, 100, 5))
    stage.feed()
    stage.hub.disconnect(client)
    seen = exchange.writer.sequence
    exchange.change("BTC-USD", (BID, 101, 5))
    exchange.trade("BTC-USD")
    exchange.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    exchange.reset("BTC-USD", {70: 1}, {80: 1}, Reason.RESYNCED)
    exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    exchange.list("SOL-USD")
    exchange.change("SOL-USD", (BID, 100, 5))
    stage.feed()
    begun = len(consumer.records)
    again(stage, consumer, seen, format="binary", **WHOLE)
    assert answer(consumer)["resumed"] == {"kraken": "records"}
    exchange.change("BTC-USD", (ASK, 80, 3))
    stage.feed()
    own = [decode_header(record) for record in consumer.records[begun:]]
    own = [header for header in own if not header.flags & RecordFlag.MADE]
    assert {header.type for header in own if header.sequence <= seen} == {RecordType.INSTRUMENT}
    own = [header for header in own if header.sequence > seen]
    assert [header.sequence for header in own] == [*range(seen + 1, exchange.writer.sequence + 1)]
    made = [decode_header(record) for record in consumer.records[begun:]]
    assert {header.type for header in made if header.flags} == {RecordType.INSTRUMENT}
    assert consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])
    assert consumer.current("kraken", "SOL-USD", exchange.versions["SOL-USD"])


@pytest.mark.parametrize("form", ["texts", "records"])
def test_whole_books_keep_the_order_of_the_ring(stage: BookStage, form: str) -> None:
    """Whichever event a client saw last, it has all before: so it can resume."""
    exchange = stage.exchange
    _, consumer = getattr(stage, form)(**WHOLE)
    begun = len(consumer.events)
    exchange.state("BTC-USD", BookState.STALE, Reason.GAP)
    exchange.reset("BTC-USD", {70: 1}, {80: 1}, Reason.RESYNCED)
    exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    exchange.change("ETH-USD", (BID, 100, 5))
    exchange.trade("ETH-USD")
    stage.feed()
    if isinstance(consumer, Consumer):
        told = [event["data"]["sequence"] for event in consumer.events[begun:]]
    else:
        told = [event.sequence for event in consumer.events[begun:]]
    assert told == [*range(exchange.writer.sequence - 4, exchange.writer.sequence + 1)]


def test_nothing_missed_is_nothing_sent(stage: BookStage) -> None:
    client, consumer = stage.texts(**WHOLE)
    stage.hub.disconnect(client)
    before = len(consumer.events)
    again(stage, consumer, stage.exchange.writer.sequence, **WHOLE)
    assert [event["type"] for event in consumer.events[before:]] == ["subscribed"]
    stage.exchange.change("BTC-USD", (BID, 100, 5))
    stage.feed()
    assert consumer.current("kraken", "BTC-USD", 2)


def test_a_client_ahead_of_the_stream_waits_for_it(stage: BookStage) -> None:
    client, consumer = stage.texts(**WHOLE)
    stage.hub.disconnect(client)
    exchange = stage.exchange
    exchange.change("BTC-USD", (BID, 100, 5))
    exchange.change("BTC-USD", (BID, 100, 6))
    consumer.books["kraken", "BTC-USD"] = _book({100: 6})
    consumer.versions["kraken", "BTC-USD"] = 3
    before = len(consumer.events)
    again(stage, consumer, exchange.writer.sequence, **WHOLE)
    stage.feed()
    assert [event["type"] for event in consumer.events[before:]] == ["subscribed"]
    exchange.change("BTC-USD", (BID, 100, 7))
    stage.feed()
    assert consumer.current("kraken", "BTC-USD", 4)


def _book(bids: dict[int, int]) -> dict[str, dict[Decimal, Decimal]]:
    """A client's book of some scaled bids."""
    return {
        "bids": {Decimal(price) / 100: Decimal(size) / 10_000 for price, size in bids.items()},
        "asks": {},
    }


@pytest.mark.parametrize("look", [{"depth": 5}, {"depth": "full", "conflate_ms": 1}])
def test_views_begin_with_a_snapshot_and_trades_are_told(
    stage: BookStage, look: dict[str, Any]
) -> None:
    exchange = stage.exchange
    seen = exchange.writer.sequence
    ids = [exchange.trade("BTC-USD") for _ in range(3)]
    exchange.change("BTC-USD", (BID, 100, 5))
    stage.feed()
    consumer = Consumer([exchange], 5)
    channels = ["trades", "orderbook"]
    again(stage, consumer, seen, channels=channels, symbols="BTC-USD", **look)
    assert answer(consumer)["resumed"] == {"kraken": "records"}
    assert [event["type"] for event in consumer.events[1:]] == [
        *["trade"] * 3,
        "orderbook_snapshot",
    ]
    assert [event["data"]["trade_id"] for event in consumer.of("trade")] == ids


@pytest.mark.parametrize("format_", ["json", "binary"])
def test_what_the_ring_does_not_hold_is_a_gap_and_a_snapshot(
    ring_prefix: str, format_: str
) -> None:
    with BookStage(ring_prefix, symbols=("BTC-USD",), size_bytes=1 << 14) as stage:
        exchange = stage.exchange
        for number in range(1000):
            exchange.change("BTC-USD", (BID, 100, number + 1))
            stage.feed()
        consumer: Any = (Consumer if format_ == "json" else RecordConsumer)([exchange])
        again(stage, consumer, 5, format=format_, **WHOLE)
        assert answer(consumer)["resumed"] == {"kraken": "snapshot"}
        last = exchange.writer.sequence
        if format_ == "json":
            (gap,) = consumer.of("gap")
            assert gap["data"]["reason"] == "lapped"
            told = [gap["data"][name] for name in ("channel", "first", "last", "count")]
            assert told == ["ring", 6, last, last - 5]
        else:
            (gap,) = [each for each in consumer.events if type(each).__name__ == "Gap"]
            assert (gap.first, gap.last, gap.count) == (6, last, last - 5)
        assert consumer.current("kraken", "BTC-USD", 1001)
        exchange.change("BTC-USD", (BID, 100, 3))
        stage.feed()
        assert consumer.current("kraken", "BTC-USD", 1002)


@pytest.mark.parametrize("epoch", [0, 1, 2**53 - 1])
def test_an_unknown_epoch_is_a_gap_and_a_snapshot(stage: BookStage, epoch: int) -> None:
    consumer = Consumer([stage.exchange])
    again(stage, consumer, 5, epoch, **WHOLE)
    assert answer(consumer)["resumed"] == {"kraken": "snapshot"}
    (gap,) = consumer.of("gap")
    assert gap["data"]["reason"] == "restarted"
    assert (gap["data"]["first"], gap["data"]["last"]) == (6, None)
    assert consumer.current("kraken", "BTC-USD", 1)


def test_a_sequence_that_was_not_written_yet_is_answered_by_a_snapshot(stage: BookStage) -> None:
    consumer = Consumer([stage.exchange])
    again(stage, consumer, 10**9, **WHOLE)
    stage.feed()
    stage.exchange.change("BTC-USD", (BID, 100, 3))
    stage.feed()
    assert consumer.current("kraken", "BTC-USD", 2)


@pytest.mark.parametrize("format_", ["json", "binary"])
def test_the_ring_before_is_read_to_its_end_while_it_is_kept(
    stage: BookStage, format_: str
) -> None:
    exchange = stage.exchange
    client, consumer = (stage.texts if format_ == "json" else stage.records)(**WHOLE)
    stage.hub.disconnect(client)
    epoch, seen = exchange.epoch, exchange.writer.sequence
    exchange.change("BTC-USD", (BID, 100, 5))
    exchange.trade("ETH-USD")
    exchange.succeed()
    exchange.change("BTC-USD", (BID, 50, 5))
    stage.feed()
    again(stage, consumer, seen, epoch, format=format_, **WHOLE)
    assert answer(consumer)["resumed"] == {"kraken": "records"}
    exchange.trade("BTC-USD")
    exchange.change("BTC-USD", (BID, 50, 6))
    stage.feed()
    assert consumer.current("kraken", "BTC-USD", 3)
    assert consumer.states["kraken", "BTC-USD"] == "live"
    if isinstance(consumer, Consumer):
        assert len(consumer.of("trade")) == 2
        assert [each["epoch"] for each in consumer.of("epoch")] == [epoch, exchange.epoch]


def test_a_client_that_saw_a_ring_end_is_told_the_next_epoch(stage: BookStage) -> None:
    exchange = stage.exchange
    client, consumer = stage.texts(**WHOLE)
    stage.hub.disconnect(client)
    epoch, seen = exchange.epoch, exchange.writer.sequence
    exchange.succeed()
    stage.feed()
    begun = len(consumer.events)
    again(stage, consumer, seen, epoch, **WHOLE)
    told = [event["type"] for event in consumer.events[begun:]]
    assert told.index("epoch") < told.index("orderbook_snapshot")
    assert [each["epoch"] for each in consumer.of("epoch")] == [exchange.epoch]
    assert consumer.current("kraken", "BTC-USD", 1)


def test_a_slow_client_is_given_the_past_as_it_takes_it(stage: BookStage) -> None:
    exchange = stage.exchange
    client, consumer = stage.texts(**WHOLE)
    stage.hub.disconnect(client)
    seen = exchange.writer.sequence
    for size in range(1, 3000):
        exchange.change("BTC-USD", (BID, 100, size))
    stage.feed()
    inbox = Inbox(consumer)
    inbox.full_at = 50_000
    client = stage.hub.connect(inbox)
    point = {"epoch": exchange.epoch, "sequence": seen}
    stage.ask(client, type="subscribe", resume={"kraken": point}, **WHOLE)
    assert inbox.paused
    assert client.waiting_bytes < LIMITS.queue_bytes // 2
    exchange.change("BTC-USD", (BID, 100, 1))
    stage.feed()
    while inbox.paused:
        inbox.paused = False
        inbox.full_at = inbox.bytes + 50_000
        stage.resume(client)
    assert consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])
    assert sequences(consumer.events)[-1] == exchange.writer.sequence


def test_a_client_that_the_ring_overtakes_meanwhile_gets_a_gap_and_a_snapshot(
    ring_prefix: str,
) -> None:
    with BookStage(ring_prefix, symbols=("BTC-USD",), size_bytes=1 << 14) as stage:
        exchange = stage.exchange
        seen = exchange.writer.sequence
        for size in range(1, 100):
            exchange.change("BTC-USD", (BID, 100, size))
        stage.feed()
        consumer = Consumer([exchange])
        inbox = Inbox(consumer)
        inbox.paused = True
        client = stage.hub.connect(inbox)
        point = {"epoch": exchange.epoch, "sequence": seen}
        channels = ["trades", "orderbook"]
        stage.ask(
            client, type="subscribe", resume={"kraken": point}, channels=channels, depth="full"
        )
        for size in range(1, 1000):
            exchange.change("BTC-USD", (BID, 101, size))
            stage.feed()
        consumer.books["kraken", "BTC-USD"] = _book({})
        consumer.versions["kraken", "BTC-USD"] = 1
        consumer._epochs["kraken", "BTC-USD"] = exchange.epoch
        inbox.paused = False
        stage.resume(client)
        assert answer(consumer)["resumed"] == {"kraken": "records"}
        (gap,) = consumer.of("gap")
        assert gap["data"]["last"] == exchange.writer.sequence
        assert consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])


def test_requests_while_the_past_is_being_told(stage: BookStage) -> None:
    exchange = stage.exchange
    seen = exchange.writer.sequence
    for size in range(1, 50):
        exchange.change("BTC-USD", (BID, 100, size))
        exchange.change("ETH-USD", (BID, 100, size))
        exchange.trade("ETH-USD")
    stage.feed()
    consumer = Consumer([exchange])
    for symbol in ("BTC-USD", "ETH-USD"):
        consumer.books["kraken", symbol] = _book({})
        consumer.versions["kraken", symbol] = 1
        consumer._epochs["kraken", symbol] = exchange.epoch
    inbox = Inbox(consumer)
    inbox.paused = True
    client = stage.hub.connect(inbox)
    point = {"epoch": exchange.epoch, "sequence": seen}
    stage.ask(client, type="subscribe", resume={"kraken": point}, **WHOLE)
    stage.ask(client, type="unsubscribe", channels=["trades"])
    stage.ask(client, type="snapshot", symbols=["BTC-USD"])
    stage.ask(client, type="subscribe", channels=["orderbook"], symbols="ETH-USD", depth=3)
    exchange.change("BTC-USD", (BID, 100, 99))
    exchange.trade("ETH-USD")
    stage.feed()
    inbox.paused = False
    stage.resume(client)
    exchange.change("BTC-USD", (BID, 100, 98))
    exchange.change("ETH-USD", (BID, 100, 98))
    stage.feed()
    assert not consumer.of("trade")
    for symbol in ("BTC-USD", "ETH-USD"):
        assert consumer.current("kraken", symbol, exchange.versions[symbol])
    assert len(consumer.of("orderbook_delta")) == 2


def test_a_state_that_the_stream_made_meanwhile_is_told(stage: BookStage) -> None:
    client, consumer = stage.texts(**WHOLE)
    venue = stage.hub.venue("kraken")
    venue.suspend()
    stage.hub.flush()
    assert consumer.states["kraken", "BTC-USD"] == "stale"
    stage.hub.disconnect(client)
    venue.restore()
    stage.hub.flush()
    again(stage, consumer, stage.exchange.writer.sequence, **WHOLE)
    assert consumer.states["kraken", "BTC-USD"] == "live"
    stage.exchange.change("BTC-USD", (BID, 100, 98))
    stage.feed()
    assert consumer.current("kraken", "BTC-USD", 2)


@pytest.mark.parametrize("form", ["texts", "records"])
def test_wherever_a_conflated_clients_connection_breaks_no_old_book_is_called_live(
    ring_prefix: str, form: str
) -> None:
    taken, broken = 0, True
    while broken:
        with BookStage(ring_prefix, symbols=("BTC-USD", "ETH-USD")) as stage:
            broken = breaks_after(stage, taken, form)
        taken += 1
    assert taken > 8


def breaks_after(stage: BookStage, taken: int, form: str) -> bool:
    """Break a conflated client's connection after some messages; whether more were to come.

    One of its books has lost changes, the other one has begun anew, and trades came after that.
    """
    exchange = stage.exchange
    client, consumer = getattr(stage, form)(**WHOLE)
    point = exchange.writer.sequence
    begun = len(consumer.events)
    inbox = client.sink
    assert isinstance(inbox, Inbox)
    inbox.paused = True
    exchange.trade("BTC-USD")
    exchange.change("BTC-USD", (BID, 100, 5))
    exchange.change("BTC-USD", (BID, 100, 6))
    exchange.trade("BTC-USD")
    exchange.reset("ETH-USD", {50: 1}, {}, Reason.RESYNCED)
    exchange.trade("ETH-USD")
    exchange.change("ETH-USD", (BID, 50, 2))
    stage.feed()
    stage.conflate(client)
    exchange.trade("BTC-USD")
    stage.feed()
    inbox.paused, inbox.left = False, taken
    stage.resume(client)
    broken: bool = inbox.left == 0
    stage.hub.disconnect(client)
    if isinstance(consumer, Consumer):
        told = sequences(consumer.events[begun:])
    else:
        told = [event.sequence for event in consumer.events[begun:]]
    stale = {key for key, state in consumer.states.items() if state == "stale"}
    consumer.passed_over |= stale
    client = again(
        stage,
        consumer,
        max([point, *told]),
        format="json" if isinstance(consumer, Consumer) else "binary",
        **WHOLE,
    )
    assert answer(consumer)["resumed"] == {"kraken": "records"}
    for symbol in ("BTC-USD", "ETH-USD"):
        if ("kraken", symbol) in stale:
            stage.ask(client, type="snapshot", symbols=symbol)
        assert consumer.current("kraken", symbol, exchange.versions[symbol])
        exchange.change(symbol, (BID, 40, 4))
    stage.feed()
    for symbol in ("BTC-USD", "ETH-USD"):
        assert consumer.current("kraken", symbol, exchange.versions[symbol])
    return broken


def test_what_was_missed_is_told_without_anything_else_happening(ring_prefix: str) -> None:
    """A client that takes all at once isn't kept waiting for the next event."""
    calls: list[Callable[[], None]] = []
    hub = Hub(["kraken"], LIMITS, calls.append, open_ring=reopened(ring_prefix))
    with (
        Exchange(ring_prefix, size_bytes=1 << 22) as exchange,
        RingReader("kraken", prefix=ring_prefix) as reader,
    ):
        feed(hub, reader)
        seen = exchange.writer.sequence
        for size in range(1, PORTION):
            exchange.change("BTC-USD", *((BID, price, size) for price in range(100, 150)))
        feed(hub, reader)
        consumer = Consumer([exchange])
        consumer.books["kraken", "BTC-USD"] = _book({})
        consumer.versions["kraken", "BTC-USD"] = 1
        consumer._epochs["kraken", "BTC-USD"] = exchange.epoch
        client = hub.connect(Inbox(consumer))
        point = {"epoch": exchange.epoch, "sequence": seen}
        hub.request(client, request(type="subscribe", resume={"kraken": point}, **WHOLE))
        hub.flush()
        while calls:
            calls.pop()()
            assert len(calls) <= 1
        assert consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])


def test_resuming_needs_the_rings(ring_prefix: str) -> None:
    hub = Hub(["kraken"], LIMITS)
    inbox = Inbox(Consumer())
    client = hub.connect(inbox)
    asked = request(
        type="subscribe", channels=["trades"], resume={"kraken": {"epoch": 1, "sequence": 1}}
    )
    with pytest.raises(RequestError, match="resumes nothing"):
        hub.request(client, asked)
    unknown = request(
        type="subscribe", channels=["trades"], resume={"mars": {"epoch": 1, "sequence": 1}}
    )
    with pytest.raises(RequestError, match="mars"):
        hub.request(client, unknown)
