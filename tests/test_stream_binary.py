"""Binary clients: the ring's own bytes, and the records that are made for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from alphapulse.delta import decode_header
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookState,
    Channel,
    Reason,
    RecordFlag,
    RecordType,
)
from alphapulse.shm import RingReader
from tests.stream_consumers import RecordConsumer
from tests.stream_stage import BookStage

BID, ASK = BookSide


@pytest.fixture
def stage(ring_prefix: str) -> Iterator[BookStage]:
    with BookStage(ring_prefix, symbols=("BTC-USD", "ETH-USD")) as stage:
        yield stage


def types(consumer: RecordConsumer) -> list[RecordType]:
    return [RecordType(decode_header(record).type) for record in consumer.records]


def raw(stage: BookStage, start: int) -> list[bytes]:
    """The records as a reader of the ring gets them, from a sequence on."""
    with RingReader("kraken", prefix=stage.prefix, start="oldest") as reader:
        return [bytes(each.data) for each in reader.read(100_000) if each.sequence >= start]


def test_trades_deltas_snapshots_states_and_gaps_are_the_rings_own_bytes(stage: BookStage) -> None:
    _, consumer = stage.records(channels=["trades", "orderbook", "state"], symbols="BTC-USD")
    seen = len(consumer.records)
    begin = stage.exchange.writer.sequence + 1
    exchange = stage.exchange
    exchange.change("BTC-USD", (BID, 100, 5), (ASK, 101, 7))
    exchange.trade("BTC-USD")
    exchange.gap("BTC-USD", Channel.TRADES, 2)
    exchange.gap("BTC-USD", Channel.ORDERBOOK)
    exchange.gap(None, Channel.RING, 9)
    exchange.reset("BTC-USD", {90: 1}, {95: 1}, Reason.RESYNCED)
    exchange.change("BTC-USD", (BID, 91, 5))
    exchange.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    exchange.reset("BTC-USD", {90: 1}, {95: 1}, Reason.RESYNCED)
    exchange.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    exchange.change("BTC-USD", (ASK, 95, 5))
    stage.feed()
    assert consumer.records[seen:] == raw(stage, begin)
    assert consumer.current("kraken", "BTC-USD", exchange.versions["BTC-USD"])


def test_a_newcomer_gets_the_instrument_and_a_snapshot_that_is_marked_as_made(
    stage: BookStage,
) -> None:
    stage.exchange.change("BTC-USD", (BID, 100, 5), (ASK, 101, 7))
    stage.exchange.repeat("ETH-USD")
    stage.feed()
    _, consumer = stage.records(channels=["orderbook", "trades"], symbols="BTC-USD")
    answer = consumer.texts[0]
    assert (answer["format"], answer["depth"]) == ("binary", "full")
    assert answer["sequences"] == {"kraken": stage.exchange.writer.sequence}
    assert types(consumer) == [RecordType.INSTRUMENT, RecordType.SNAPSHOT]
    for record in consumer.records:
        assert decode_header(record).flags == RecordFlag.MADE
    change = stage.exchange.writer.sequence - 1
    snapshot = decode_header(consumer.records[1])
    assert snapshot.sequence == change
    assert snapshot.received_ns > snapshot.exchange_ns > 0
    assert consumer.current("kraken", "BTC-USD", 2)


def test_instruments_come_before_anything_else_of_them_and_once(stage: BookStage) -> None:
    client, consumer = stage.records(channels=["trades"], symbols="BTC-USD")
    assert types(consumer) == [RecordType.INSTRUMENT]
    stage.ask(client, type="subscribe", channels=["orderbook"], format="binary", symbols="BTC-USD")
    assert types(consumer)[1:] == [RecordType.SNAPSHOT]
    _, every = stage.records(channels=["state"])
    assert types(every) == [RecordType.INSTRUMENT, RecordType.STATE] * 2
    stage.exchange.list("SOL-USD")
    stage.feed()
    assert types(every)[4:] == [RecordType.INSTRUMENT, RecordType.STATE]
    assert decode_header(every.records[4]).flags == 0


def test_an_instrument_with_other_places_is_announced_before_its_records(stage: BookStage) -> None:
    _, consumer = stage.records(channels=["orderbook", "trades"], symbols="BTC-USD")
    stage.exchange.rescale("BTC-USD", 4)
    stage.exchange.trade("BTC-USD")
    stage.exchange.reset("BTC-USD", {12345: 1}, {}, Reason.RESCALED)
    stage.feed()
    assert types(consumer)[2:] == [RecordType.INSTRUMENT, RecordType.TRADE, RecordType.SNAPSHOT]
    assert consumer.current("kraken", "BTC-USD", 2)


def test_views_get_made_deltas_that_follow_each_other(stage: BookStage) -> None:
    exchange = stage.exchange
    exchange.change("BTC-USD", *((BID, price, 1) for price in (10, 11, 12)))
    stage.feed()
    _, consumer = stage.records(channels=["orderbook"], symbols="BTC-USD", depth=2)
    exchange.change("BTC-USD", (BID, 10, 2))
    exchange.change("BTC-USD", (BID, 12, 0))
    exchange.change("BTC-USD", (BID, 13, 4))
    stage.feed()
    kinds = types(consumer)
    assert kinds[2:] == [RecordType.DELTA, RecordType.DELTA]
    for record in consumer.records[2:]:
        assert decode_header(record).flags == RecordFlag.MADE
    versions = [
        (event.prev_version, event.version)
        for event in consumer.events
        if isinstance(event, BookDelta)
    ]
    assert versions == [(2, 4), (4, 5)]
    assert consumer.current("kraken", "BTC-USD", 5)


def test_states_that_the_stream_makes_are_records(stage: BookStage) -> None:
    _, consumer = stage.records(channels=["orderbook"], symbols="BTC-USD")
    stage.hub.venue("kraken").lost()
    stage.hub.flush()
    header = decode_header(consumer.records[-1])
    assert (header.type, header.flags) == (RecordType.STATE, RecordFlag.MADE)
    assert header.sequence == stage.exchange.writer.sequence
    assert consumer.states["kraken", "BTC-USD"] == "stale"


def test_a_new_epoch_is_told_before_its_records(stage: BookStage) -> None:
    _, consumer = stage.records(channels=["orderbook", "trades"], symbols="BTC-USD")
    stage.exchange.succeed()
    stage.exchange.change("BTC-USD", (BID, 70, 5))
    stage.feed()
    assert consumer.texts[1] == {
        "type": "epoch",
        "exchange": "kraken",
        "epoch": stage.exchange.epoch,
    }
    assert types(consumer)[2:] == [
        RecordType.STATE,
        RecordType.INSTRUMENT,
        RecordType.SNAPSHOT,
        RecordType.STATE,
        RecordType.DELTA,
    ]
    assert consumer.states["kraken", "BTC-USD"] == "live"
    assert consumer.current("kraken", "BTC-USD", 2)


def test_a_lapped_stream_tells_the_gap_as_a_record(ring_prefix: str) -> None:
    with BookStage(ring_prefix, symbols=("BTC-USD",), size_bytes=1 << 14) as stage:
        _, consumer = stage.records(channels=["orderbook"])
        for number in range(2000):
            stage.exchange.change("BTC-USD", (BID, 100, number + 1))
            if number % 10 == 0:
                stage.exchange.repeat("BTC-USD")
        stage.feed()
        gap = next(record for record in consumer.records if record[4] == RecordType.GAP)
        assert decode_header(gap).flags == RecordFlag.MADE
        assert consumer.current("kraken", "BTC-USD", 2001)


def test_a_slow_client_gets_a_made_snapshot(stage: BookStage) -> None:
    client, consumer = stage.records(channels=["orderbook"], symbols="BTC-USD")
    inbox: Any = client.sink
    inbox.paused = True
    for size in range(1, 30):
        stage.exchange.change("BTC-USD", (BID, 100, size))
        if size == 15:
            stage.exchange.reset("BTC-USD", {7: 7}, {}, Reason.RESYNCED)
    stage.feed()
    stage.conflate(client)
    inbox.paused = False
    stage.resume(client)
    state = RecordType.STATE
    assert types(consumer)[2:] == [state, state, RecordType.SNAPSHOT, state]
    for record in consumer.records[2:]:
        assert decode_header(record).flags == RecordFlag.MADE
    assert consumer.current("kraken", "BTC-USD", stage.exchange.versions["BTC-USD"])


def test_formats_may_differ_by_channel(stage: BookStage) -> None:
    client, consumer = stage.records(channels=["orderbook"], symbols="BTC-USD")
    stage.ask(client, type="subscribe", channels=["trades"], format="json", symbols="BTC-USD")
    before = len(consumer.records)
    stage.exchange.trade("BTC-USD")
    stage.exchange.change("BTC-USD", (BID, 100, 5))
    stage.feed()
    assert [text["type"] for text in consumer.texts] == ["subscribed", "subscribed", "trade"]
    assert types(consumer)[before:] == [RecordType.DELTA]
