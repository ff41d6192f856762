"""A venue's feed: what goes where, and that one symbol's trouble is no other's."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from alphapulse.collectors.events import VenueStatus
from alphapulse.collectors.feed import Feed
from alphapulse.collectors.registry import VENUES, make_venue
from alphapulse.config import CoinbaseSettings, VenuesSettings
from alphapulse.errors import ConfigError
from alphapulse.model import BookState, Channel, InstrumentDefined, Reason
from alphapulse.shm import RingReader, RingWriter
from tests import feeding
from tests.feeding import (
    NOW_NS,
    FeedOnRing,
    Rebuilt,
    deltas,
    gaps,
    snapshots,
    states,
    trade_ids,
)
from tests.support import make_instrument

INVALID, LIVE = BookState.INVALID, BookState.LIVE


def kraken_pair(symbol: str, price_precision: int, qty_precision: int = 8) -> dict[str, Any]:
    base, quote = symbol.split("/")
    return {
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "price_precision": price_precision,
        "qty_precision": qty_precision,
        "price_increment": 10**-price_precision,
        "qty_increment": 10**-qty_precision,
    }


def kraken_book(kind: str, checksum: int, bids: str, asks: str = "[]") -> bytes:
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"BTC/USD","bids":{bids},'
        f'"asks":{asks},"checksum":{checksum}}}]}}'
    ).encode()


@pytest.fixture
def kraken(ring_prefix: str) -> Iterator[FeedOnRing]:
    listed = [make_instrument("kraken", "BTC-USD", "BTC/USD", price_exponent=1, size_exponent=8)]
    with FeedOnRing(ring_prefix, "kraken", listed) as on_ring:
        pairs = [kraken_pair("BTC/USD", 1)]
        on_ring.send({"channel": "instrument", "type": "snapshot", "data": {"pairs": pairs}})
        yield on_ring


@pytest.fixture
def coinbase(ring_prefix: str) -> Iterator[FeedOnRing]:
    listed = [make_instrument("coinbase", name, name) for name in ("BTC-USD", "ETH-USD")]
    with FeedOnRing(ring_prefix, "coinbase", listed) as on_ring:
        yield on_ring


def crc(digits: str) -> int:
    return zlib.crc32(digits.encode())


class TestKrakenChecksum:
    BIDS = '[{"price":29430.2,"qty":0.10000000}]'

    def live(self, on_ring: FeedOnRing) -> None:
        found = on_ring.send(kraken_book("snapshot", crc("29430210000000"), self.BIDS))
        assert states(found) == [("BTC-USD", LIVE, Reason.SUBSCRIBED)]

    def test_a_matching_one_publishes(self, kraken: FeedOnRing) -> None:
        self.live(kraken)
        frame = kraken_book("update", crc("29430220000000"), self.BIDS.replace("0.1", "0.2"))
        assert len(deltas(kraken.send(frame))) == 1
        assert kraken.feed.counts.checksums_ok == 2

    def test_a_differing_one_publishes_no_delta_and_wants_a_resubscription(
        self, kraken: FeedOnRing
    ) -> None:
        self.live(kraken)
        found = kraken.send(kraken_book("update", 1, self.BIDS.replace("0.1", "0.2")))
        assert deltas(found) == []
        assert states(found) == [("BTC-USD", INVALID, Reason.CHECKSUM)]
        assert kraken.feed.wanted == {"BTC/USD": Reason.CHECKSUM}
        assert kraken.feed.counts.checksums_bad == 1
        kraken.feed.resyncing("BTC/USD", kraken.now_ns)
        assert states(kraken.events()) == [("BTC-USD", BookState.SYNCING, Reason.CHECKSUM)]
        self_healed = kraken.send(kraken_book("snapshot", crc("29430210000000"), self.BIDS))
        assert states(self_healed) == [("BTC-USD", LIVE, Reason.RESYNCED)]

    def test_it_uses_the_venues_precision_whatever_the_instruments(
        self, kraken: FeedOnRing
    ) -> None:
        self.live(kraken)
        pairs = [kraken_pair("BTC/USD", 2)]
        found = kraken.send({"channel": "instrument", "type": "update", "data": {"pairs": pairs}})
        assert [made.reason for made in snapshots(found)] == [Reason.RESCALED]
        frame = kraken_book(
            "update", crc("294302020000000"), '[{"price":29430.20,"qty":0.20000000}]'
        )
        assert len(deltas(kraken.send(frame))) == 1
        pairs = [kraken_pair("BTC/USD", 1)]
        kraken.send({"channel": "instrument", "type": "update", "data": {"pairs": pairs}})
        frame = kraken_book("update", crc("29430230000000"), self.BIDS.replace("0.1", "0.3"))
        assert len(deltas(kraken.send(frame))) == 1
        assert kraken.feed.counts.checksums_bad == 0

    def test_an_update_without_one_proves_nothing(self, kraken: FeedOnRing) -> None:
        self.live(kraken)
        frame = (
            b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[],"asks":[]}]}'
        )
        assert states(kraken.send(frame)) == [("BTC-USD", INVALID, Reason.MALFORMED)]

    def test_more_digits_than_the_venues_precision_are_malformed(self, kraken: FeedOnRing) -> None:
        self.live(kraken)
        frame = kraken_book("update", 1, '[{"price":29430.21,"qty":1}]')
        assert states(kraken.send(frame)) == [("BTC-USD", INVALID, Reason.MALFORMED)]
        assert kraken.feed.books["BTC/USD"].instrument.price_exponent == 1

    def test_one_bad_entry_of_a_frame_spoils_no_other(self, kraken: FeedOnRing) -> None:
        def trade(price: str, number: int) -> str:
            return (
                f'{{"symbol":"BTC/USD","side":"buy","price":{price},"qty":1,"trade_id":{number},'
                '"timestamp":"2021-04-17T16:49:02Z"}'
            )

        data = ",".join([trade("[]", 1), trade("5.0", 2)])
        found = kraken.send(f'{{"channel":"trade","type":"update","data":[{data}]}}'.encode())
        assert trade_ids(found) == [2]
        assert [symbol for symbol, _ in kraken.complaints] == ["BTC/USD"]
        assert states(found) == []


def test_unknown_symbols_are_reported_and_harm_nothing(coinbase: FeedOnRing) -> None:
    frame = {"type": "l2update", "product_id": "NO-PE", "changes": [["buy", "1", "1"]]}
    assert coinbase.send(frame) == []
    [(symbol, problem)] = coinbase.complaints
    assert symbol == "NO-PE"
    assert "NO-PE" in problem


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"nan",
        b'{"type":null}',
        b'{"type":"match"}',
        b'{"type":"l2update","changes":"x"}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
)
def test_garbage_is_counted_and_nothing_else_suffers(coinbase: FeedOnRing, frame: bytes) -> None:
    coinbase.send(
        {"type": "snapshot", "product_id": "BTC-USD", "bids": [["1.00", "1"]], "asks": []}
    )
    assert coinbase.send(frame) == []
    assert coinbase.feed.counts.malformed == 1
    assert len(coinbase.complaints) == 1
    update = {"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", "1.00", "2"]]}
    assert len(deltas(coinbase.send(update))) == 1


def test_a_frame_of_50_mb_is_counted_by_its_symbol(coinbase: FeedOnRing) -> None:
    changes = b'["buy","1.00","1"],' * 2_700_000
    frame = b'{"type":"l2update","product_id":"BTC-USD","changes":[' + changes + b"]}"
    assert len(frame) > 50_000_000
    assert states(coinbase.send(frame)) == [("BTC-USD", INVALID, Reason.MALFORMED)]
    assert coinbase.complaints[0][0] == "BTC-USD"
    assert len(coinbase.complaints[0][1]) < 1000


def test_a_frame_of_more_levels_than_a_market_has_is_malformed(coinbase: FeedOnRing) -> None:
    changes = b'["buy","1.00","1"],' * 2_700_000
    frame = (
        b'{"type":"snapshot","product_id":"BTC-USD","asks":[],"bids":['
        + changes.replace(b'"buy",', b"")
        + b'["1.00","1"]]}'
    )
    assert states(coinbase.send(frame)) == [("BTC-USD", INVALID, Reason.MALFORMED)]
    assert len(coinbase.complaints[0][1]) < 1000


def test_a_lost_trade_is_a_gap(coinbase: FeedOnRing) -> None:
    def match(number: int) -> dict[str, Any]:
        return {
            "type": "match",
            "trade_id": number,
            "side": "buy",
            "size": "1",
            "price": "1",
            "product_id": "BTC-USD",
            "time": "2021-04-17T16:43:37.089723Z",
        }

    found = coinbase.send(match(1), match(2), match(4))
    assert trade_ids(found) == [1, 2, 4]
    [gap] = gaps(found)
    assert (gap.channel, gap.first, gap.last, gap.count) == (Channel.TRADES, 3, 3, 1)
    assert gap.instrument is not None
    assert gap.instrument.symbol == "BTC-USD"


def test_a_connections_lost_messages_concern_all_its_books_and_trades(ring_prefix: str) -> None:
    listed = [make_instrument("coinbase", name, name) for name in ("BTC-USD", "ETH-USD")]
    settings = VenuesSettings(coinbase=CoinbaseSettings(feed="advanced"))
    with FeedOnRing(ring_prefix, "coinbase", listed, settings) as on_ring:
        books: list[dict[str, Any]] = [
            {"type": "snapshot", "product_id": name, "updates": []}
            for name in ("BTC-USD", "ETH-USD")
        ]
        found = on_ring.send({"channel": "l2_data", "sequence_num": 0, "events": books})
        assert [state for _, state, _ in states(found)] == [LIVE, LIVE]
        found = on_ring.send({"channel": "heartbeats", "sequence_num": 2, "events": []})
        assert states(found) == [
            ("BTC-USD", INVALID, Reason.GAP),
            ("ETH-USD", INVALID, Reason.GAP),
        ]
        assert [(gap.channel, gap.count) for gap in gaps(found)] == [(Channel.TRADES, None)] * 2
        assert set(on_ring.feed.wanted) == {"BTC-USD", "ETH-USD"}


def test_an_unusable_message_of_one_symbol_is_no_break_of_the_connection(
    ring_prefix: str,
) -> None:
    listed = [make_instrument("coinbase", name, name) for name in ("BTC-USD", "ETH-USD")]
    settings = VenuesSettings(coinbase=CoinbaseSettings(feed="advanced"))
    with FeedOnRing(ring_prefix, "coinbase", listed, settings) as on_ring:
        books: list[dict[str, Any]] = [
            {"type": "snapshot", "product_id": name, "updates": []}
            for name in ("BTC-USD", "ETH-USD")
        ]
        on_ring.send({"channel": "l2_data", "sequence_num": 0, "events": books})
        cut = b'{"channel":"l2_data","sequence_num":1,"events":[{"type":"update","product_id":"BTC-'
        on_ring.send(cut + b'USD","updates":[{"side')
        wrong = {"type": "update", "product_id": "BTC-USD"}
        on_ring.send({"channel": "l2_data", "sequence_num": 2, "events": [wrong]})
        found = on_ring.send({"channel": "heartbeats", "sequence_num": 3, "events": []})
        assert found == []
        assert on_ring.feed.books["ETH-USD"].state is LIVE
        assert on_ring.feed.books["BTC-USD"].state is INVALID
        # Lost and unusable at once: the loss is told all the same.
        bad_time = {"channel": "l2_data", "sequence_num": 5, "events": [], "timestamp": "never"}
        found = on_ring.send(bad_time)
        assert ("ETH-USD", INVALID, Reason.GAP) in states(found)


def test_a_trade_with_more_digits_is_not_lost(coinbase: FeedOnRing) -> None:
    match = {
        "type": "match",
        "trade_id": 1,
        "side": "buy",
        "size": "0.00001",
        "price": "100.12345678",
        "product_id": "BTC-USD",
        "time": "9999-04-17T16:43:37.089723Z",
    }
    found = coinbase.send(match)
    assert trade_ids(found) == [1]
    instrument = coinbase.feed.books["BTC-USD"].instrument
    assert (instrument.price_exponent, instrument.size_exponent) == (8, 5)
    assert trade_ids(coinbase.send({**match, "trade_id": 2, "price": "1.5"})) == [2]


def test_a_heartbeat_of_an_unknown_product_is_nothing_to_remember(coinbase: FeedOnRing) -> None:
    coinbase.send({"type": "heartbeat", "product_id": "FOO-USD", "last_trade_id": 1})
    assert coinbase.feed.silent_symbols(coinbase.now_ns + 10**12) == []


def test_in_maintenance_silence_is_no_stall(coinbase: FeedOnRing) -> None:
    coinbase.send({"type": "snapshot", "product_id": "BTC-USD", "bids": [], "asks": []})
    coinbase.feed.status = VenueStatus.MAINTENANCE
    assert coinbase.feed.silent_symbols(coinbase.now_ns + 10**12) == []


def test_news_of_one_instrument_that_cant_be_used_spoils_no_other(coinbase: FeedOnRing) -> None:
    coinbase.send(
        {"type": "snapshot", "product_id": "BTC-USD", "bids": [["1e15", "1"]], "asks": []}
    )
    news = [
        make_instrument("coinbase", "BTC-USD", "BTC-USD", price_exponent=18),
        make_instrument("coinbase", "NEW-USD", "NEW-USD"),
    ]
    coinbase.feed.define(news, coinbase.now_ns)
    assert "NEW-USD" in coinbase.feed.instruments
    assert [symbol for symbol, _ in coinbase.complaints] == ["BTC-USD"]
    update = {"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", "1.00", "2"]]}
    assert len(deltas(coinbase.send(update))) == 1


def test_symbols_fall_silent_one_by_one(coinbase: FeedOnRing) -> None:
    for symbol in ("BTC-USD", "ETH-USD"):
        coinbase.send({"type": "snapshot", "product_id": symbol, "bids": [], "asks": []})
    assert coinbase.feed.silent_symbols(1000.0) == []
    coinbase.send({"type": "heartbeat", "product_id": "BTC-USD", "last_trade_id": 1})
    assert coinbase.feed.silent_symbols(1005.0) == []
    assert coinbase.feed.silent_symbols(1011.0) == ["ETH-USD"]
    coinbase.feed.fail(["ETH-USD"], BookState.STALE, Reason.SILENT, NOW_NS)
    assert states(coinbase.events()) == [("ETH-USD", BookState.STALE, Reason.SILENT)]
    assert coinbase.feed.silent_symbols(1011.0) == []
    assert coinbase.feed.silent_symbols(1016.0) == ["BTC-USD"]


@pytest.mark.parametrize("step_seconds", [11, -3600])
def test_a_step_of_the_wall_clock_makes_no_symbol_silent_or_loud(
    coinbase: FeedOnRing, step_seconds: int
) -> None:
    coinbase.send({"type": "snapshot", "product_id": "BTC-USD", "bids": [], "asks": []})
    assert coinbase.feed.silent_symbols(1000.0) == []
    coinbase.now_ns += step_seconds * 1_000_000_000
    coinbase.send({"type": "heartbeat", "product_id": "ETH-USD", "last_trade_id": 1})
    assert coinbase.feed.silent_symbols(1009.0) == []
    assert coinbase.feed.silent_symbols(1011.0) == ["BTC-USD"]


def test_whatever_comes_about_a_symbol_is_its_sign_of_life(coinbase: FeedOnRing) -> None:
    def silent_after(now: float, **frame: Any) -> bool:
        coinbase.send({"product_id": "BTC-USD", **frame})
        return "BTC-USD" in coinbase.feed.silent_symbols(now)

    bids = [["9.00", "1"]]
    assert not silent_after(1000.0, type="snapshot", bids=bids, asks=[])
    assert not silent_after(1009.0, type="l2update", changes=[["buy", "8.00", "2"]])
    match = {"side": "buy", "price": "9.00", "size": "1", "time": "2026-01-01T00:00:00Z"}
    assert not silent_after(1018.0, type="match", trade_id=1, **match)
    assert not silent_after(1027.0, type="heartbeat", last_trade_id=1)
    assert not silent_after(1036.0, type="l2update", changes=[["buy", "8.00", "3"]])
    assert silent_after(1047.0, type="subscriptions", channels=[])


def test_a_successor_tells_what_its_predecessors_end_cost(ring_prefix: str) -> None:
    venue = make_venue("coinbase", VenuesSettings())
    listed = [make_instrument("coinbase", "BTC-USD", "BTC-USD")]
    first = RingWriter("coinbase", prefix=ring_prefix, size_bytes=1 << 20)
    feed = Feed(venue, first, symbols={"BTC-USD"}, complain=lambda *_: None)
    feed.started(NOW_NS)
    feed.define(listed, NOW_NS)
    last = first.sequence
    first.enlarge(1 << 21)
    feed.started(NOW_NS)
    with RingReader("coinbase", prefix=ring_prefix, start="oldest") as reader:
        [gap] = gaps(reader.read().events())
    assert (gap.channel, gap.reason) == (Channel.RING, Reason.RESTARTED)
    assert gap.first is not None
    assert gap.first >= last
    assert (gap.last, gap.count) == (None, None)
    first.close()


def test_a_ring_too_small_for_a_book_is_enlarged_and_told_all_over(ring_prefix: str) -> None:
    listed = [make_instrument("coinbase", name, name) for name in ("BTC-USD", "ETH-USD")]
    with FeedOnRing(ring_prefix, "coinbase", listed) as on_ring:
        small = {"type": "snapshot", "product_id": "ETH-USD", "bids": [["1.00", "1"]], "asks": []}
        on_ring.send(small)
        bids = [[f"{price / 100:.2f}", "12345.6789"] for price in range(100_000, 200_000)]
        big = {"type": "snapshot", "product_id": "BTC-USD", "bids": bids, "asks": []}
        epoch = on_ring.writer.epoch
        found = on_ring.send(big)
        assert on_ring.writer.epoch > epoch
        defined = [event.instrument for event in found if isinstance(event, InstrumentDefined)]
        assert {made.symbol for made in defined} == {"BTC-USD", "ETH-USD"}
        made = {event.instrument.symbol: event for event in snapshots(found)}
        assert len(made["BTC-USD"].bids) == 100_000
        assert made["ETH-USD"].repeat
        assert ("BTC-USD", LIVE, Reason.SUBSCRIBED) in states(found)


def test_a_delta_too_large_for_the_ring_is_part_of_the_snapshots_of_the_next(
    ring_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeding, "RING_BYTES", 1 << 14)
    listed = [make_instrument("coinbase", "BTC-USD", "BTC-USD")]
    with FeedOnRing(ring_prefix, "coinbase", listed) as on_ring:
        small = {"type": "snapshot", "product_id": "BTC-USD", "bids": [["1.00", "1"]], "asks": []}
        rebuilt = Rebuilt()
        rebuilt.take(on_ring.send(small))
        changes = [["sell", f"{price / 100:.2f}", "12345.6789"] for price in range(200, 900)]
        rebuilt.take(
            on_ring.send({"type": "l2update", "product_id": "BTC-USD", "changes": changes})
        )
        last = {"type": "l2update", "product_id": "BTC-USD", "changes": [["buy", "1.00", "2"]]}
        rebuilt.take(on_ring.send(last))
        assert len(rebuilt.books["BTC-USD"][1]) == 700
        assert rebuilt.books["BTC-USD"][0] == {100: 20000}


def test_every_venue_of_the_registry_is_made_and_bears_its_name() -> None:
    for name in VENUES:
        assert make_venue(name, VenuesSettings()).name == name
    with pytest.raises(ConfigError, match="no such venue"):
        make_venue("nowhere", VenuesSettings())


def test_metadata_that_cant_be_used_is_counted(coinbase: FeedOnRing) -> None:
    assert not coinbase.feed.rest_metadata(b"{", NOW_NS)
    assert not coinbase.feed.rest_metadata(json.dumps({"a": 1}).encode(), NOW_NS)
    assert coinbase.feed.counts.malformed == 2


def test_rest_answers_nested_too_deep_are_counted(coinbase: FeedOnRing) -> None:
    instrument = coinbase.feed.books["BTC-USD"].instrument
    nested = b"[" * 100_000
    assert not coinbase.feed.rest_metadata(nested, coinbase.now_ns)
    assert not coinbase.feed.rest_snapshot(instrument, b'{"bids":' + nested, coinbase.now_ns)
    assert coinbase.feed.counts.malformed == 2
