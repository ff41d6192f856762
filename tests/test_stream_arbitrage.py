"""Channel ``arbitrage``: who is told of which crossing, and when."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from alphapulse.arbitrage import Terms
from alphapulse.clock import wall_ns
from alphapulse.errors import RequestError
from alphapulse.model import BookSide, BookState, Reason
from alphapulse.shm import RingReader
from alphapulse.stream.arbitrage import Arbitrage
from alphapulse.stream.client import Client, Limits
from alphapulse.stream.hub import Hub
from tests.streaming import Consumer, Exchange, Inbox, feed, request

BID, ASK = BookSide
LIMITS = Limits(queue_bytes=1 << 20, behind_ns=10_000_000_000, subscriptions=100)
TERMS = Terms(dict.fromkeys(("kraken", "coinbase"), Decimal(10)))
ARBITRAGE = {"channels": ["arbitrage"]}


class Stage:
    """A hub that reads two exchanges' rings, and its clients."""

    def __init__(self, prefix: str) -> None:
        symbols = ("BTC-USD", "ETH-USD")
        self.kraken = Exchange(prefix, "kraken", symbols)
        self.coinbase = Exchange(prefix, "coinbase", symbols)
        self.hub = Hub(["coinbase", "kraken"], LIMITS, terms=TERMS)
        self.readers = [RingReader(name, prefix=prefix) for name in ("kraken", "coinbase")]
        self.feed()

    def feed(self) -> None:
        """All rings are read before anything is said."""
        self.hub.behind = True
        for reader in self.readers:
            feed(self.hub, reader)
        self.hub.behind = False
        self.hub.flush()

    def cross(self, symbol: str = "BTC-USD") -> None:
        self.kraken.change(symbol, (ASK, 10000, 5000), (ASK, 10010, 5000))
        self.coinbase.change(symbol, (BID, 10100, 7000))
        self.feed()

    def client(self, **fields: Any) -> tuple[Client, Inbox]:
        inbox = Inbox(Consumer([self.kraken, self.coinbase]))
        client = self.hub.connect(inbox)
        if fields:
            self.ask(client, type="subscribe", **fields)
        return client, inbox

    def ask(self, client: Client, **fields: Any) -> None:
        self.hub.request(client, request(**fields))
        self.hub.flush()

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        self.kraken.writer.close()
        self.coinbase.writer.close()


@pytest.fixture
def stage(ring_prefix: str) -> Iterator[Stage]:
    stage = Stage(ring_prefix)
    yield stage
    stage.close()


def told(inbox: Inbox) -> list[dict[str, Any]]:
    """What was said of crossings since the last call."""
    events = [event["data"] for event in inbox.consumer.of("arbitrage")]
    inbox.consumer.events.clear()
    return events


def brief(inbox: Inbox) -> list[tuple[str, str]]:
    return [(data["status"], data["symbol"]) for data in told(inbox)]


def test_a_crossing_opens_changes_and_closes(stage: Stage) -> None:
    _, inbox = stage.client(**ARBITRAGE)
    stage.cross()
    (opened,) = told(inbox)
    assert (opened["buy_exchange"], opened["sell_exchange"]) == ("kraken", "coinbase")
    # 0.5 at 100 and 0.2 at 100.1 against 0.7 at 101, and 10 basis points at each venue.
    assert (opened["volume"], opened["buy_amount"]) == (Decimal("0.7"), Decimal("70.02"))
    assert opened["profit"] == Decimal("0.53928")
    assert (opened["status"], opened["reason"]) == ("opened", None)
    stage.kraken.change("BTC-USD", (ASK, 10005, 1000))
    stage.feed()
    (changed,) = told(inbox)
    assert (changed["status"], changed["opened_ns"]) == ("changed", opened["opened_ns"])
    stage.kraken.change("BTC-USD", (ASK, 10200, 1000))
    stage.feed()
    assert told(inbox) == []
    stage.coinbase.state("BTC-USD", BookState.STALE, Reason.DISCONNECTED)
    stage.feed()
    (closed,) = told(inbox)
    assert (closed["status"], closed["reason"]) == ("closed", "not_live")
    assert closed["volume"] == changed["volume"]
    stage.coinbase.reset("BTC-USD", {10100: 1}, {})
    stage.coinbase.state("BTC-USD", BookState.LIVE, Reason.RESYNCED)
    stage.feed()
    assert brief(inbox) == [("opened", "BTC-USD")]


def test_a_newcomer_is_told_what_is_open_and_since_when(stage: Stage) -> None:
    _, early = stage.client(**ARBITRAGE)
    stage.cross()
    stage.cross("ETH-USD")
    first = told(early)
    _, late = stage.client(**ARBITRAGE)
    found = told(late)
    assert [data["status"] for data in found] == ["opened", "opened"]
    assert {data["opened_ns"] for data in found} == {data["opened_ns"] for data in first}
    assert told(early) == []


def test_crossings_are_looked_for_without_subscribers(stage: Stage) -> None:
    stage.cross()
    # As the server does several times a second.
    stage.hub.desk.arbitrage.advance(1 << 62, behind=False)
    before_ns = wall_ns()
    _, inbox = stage.client(**ARBITRAGE)
    (opened,) = told(inbox)
    assert opened["opened_ns"] < before_ns


def test_symbols_choose(stage: Stage) -> None:
    client, inbox = stage.client(**ARBITRAGE, symbols=["eth/usd"])
    stage.cross()
    stage.cross("ETH-USD")
    assert brief(inbox) == [("opened", "ETH-USD")]
    stage.ask(client, type="subscribe", **ARBITRAGE, exchanges=["all"])
    assert brief(inbox) == [("opened", "BTC-USD"), ("opened", "ETH-USD")]
    stage.ask(client, type="unsubscribe", channels=["arbitrage"], symbols=["ETH-USD"])
    stage.ask(client, type="unsubscribe", exchanges=["kraken"])
    for symbol in ("BTC-USD", "ETH-USD"):
        stage.kraken.change(symbol, (ASK, 10000, 0))
    stage.feed()
    assert brief(inbox) == [("changed", "BTC-USD")]
    stage.ask(client, type="unsubscribe")
    stage.kraken.change("BTC-USD", (ASK, 10010, 0))
    stage.feed()
    assert brief(inbox) == []


def test_a_client_that_left_is_forgotten(stage: Stage) -> None:
    client, _ = stage.client(**ARBITRAGE)
    assert len(stage.hub.desk.arbitrage.watched) == 2
    stage.hub.disconnect(client)
    assert not stage.hub.desk.arbitrage.watched
    stage.cross()


def test_books_of_different_times_are_not_compared(stage: Stage) -> None:
    _, inbox = stage.client(**ARBITRAGE)
    stage.kraken.change("BTC-USD", (ASK, 10000, 1))
    stage.feed()
    stage.kraken.change("BTC-USD", (ASK, 10000, 0))
    stage.coinbase.change("BTC-USD", (BID, 10100, 1))
    # Coinbase's bid came after Kraken's ask had gone, but is read first.
    stage.hub.behind = True
    feed(stage.hub, stage.readers[1])
    assert told(inbox) == []
    stage.feed()
    assert told(inbox) == []


def test_a_server_that_never_catches_up_compares_nevertheless(stage: Stage) -> None:
    _, inbox = stage.client(**ARBITRAGE)
    stage.hub.behind = True
    stage.kraken.change("BTC-USD", (ASK, 10000, 1))
    stage.coinbase.change("BTC-USD", (BID, 10100, 1))
    for reader in stage.readers:
        feed(stage.hub, reader)
    assert told(inbox) == []
    stage.hub.desk.arbitrage.advance(1 << 62, behind=True)
    stage.hub.flush()
    assert brief(inbox) == [("opened", "BTC-USD")]


def test_a_ring_without_a_writer_ends_it(stage: Stage) -> None:
    _, inbox = stage.client(**ARBITRAGE)
    stage.cross()
    told(inbox)
    stage.hub.venue("kraken").lost()
    stage.hub.flush()
    (closed,) = told(inbox)
    assert (closed["status"], closed["reason"]) == ("closed", "not_live")


def test_new_exponents_keep_the_figures_right(stage: Stage) -> None:
    _, inbox = stage.client(**ARBITRAGE)
    stage.cross()
    told(inbox)
    stage.kraken.state("BTC-USD", BookState.INVALID, Reason.RESCALED)
    stage.kraken.rescale("BTC-USD", 4)
    stage.kraken.reset("BTC-USD", {}, {999_999: 1}, Reason.RESCALED)
    stage.kraken.state("BTC-USD", BookState.LIVE, Reason.RESCALED)
    stage.feed()
    assert told(inbox)[-1]["buy_best"] == Decimal("99.9999")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"exchanges": ["kraken"]}, "arbitrage is between all exchanges"),
        ({"format": "binary"}, "channel arbitrage has no records"),
        ({"symbols": ["DOGE-USD"]}, "no symbol 'DOGE-USD'"),
    ],
)
def test_what_makes_no_sense_is_refused(stage: Stage, fields: dict[str, Any], said: str) -> None:
    client, _ = stage.client()
    with pytest.raises(RequestError, match=said):
        stage.ask(client, type="subscribe", **ARBITRAGE, **fields)


def test_the_engine_knows_no_venue_before_its_first_record() -> None:
    arbitrage = Arbitrage(TERMS, {})
    arbitrage.advance(0, behind=False)
    assert not arbitrage.engine.venues
