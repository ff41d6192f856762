"""Coinbase's two protocols: each rule that their documentation states, frame by frame."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from alphapulse.clock import NO_TIME
from alphapulse.collectors.coinbase import Coinbase
from alphapulse.collectors.events import (
    Acknowledged,
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    Instruments,
    Malformed,
    SequenceBreak,
    TradeEvent,
    TradeMark,
    VenueComplaint,
)
from alphapulse.collectors.venue import Channel, RestAnswer, TradeSpan
from alphapulse.config import CoinbaseSettings
from alphapulse.errors import ConfigError
from alphapulse.model import Instrument, Side
from tests.support import make_instrument

KEYS = {
    "api_key": "the-key",
    "api_secret": base64.b64encode(b"the-secret").decode(),
    "api_passphrase": "the-passphrase",
}
PRODUCTS = (
    b'[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","quote_increment":"0.01",'
    b'"base_increment":"0.00000001","status":"online"}]'
)


def make_venue(**settings: Any) -> Coinbase:
    return Coinbase(CoinbaseSettings(**settings))


def make_channel(*symbols: str, **settings: Any) -> Channel:
    return make_venue(**settings).channel([make_product(symbol) for symbol in symbols])


def make_product(symbol: str) -> Instrument:
    return make_instrument("coinbase", symbol, symbol, size_exponent=8)


def test_instruments_have_the_exponents_of_their_increments() -> None:
    [event] = make_venue().parse_metadata(PRODUCTS)
    assert isinstance(event, Instruments)
    [instrument] = event.instruments
    assert (instrument.price_exponent, instrument.size_exponent) == (2, 8)
    assert (instrument.price_increment, instrument.size_increment) == (1, 1)
    assert instrument.symbol == "BTC-USD"


def test_an_entry_that_cant_be_used_is_named_and_spoils_no_other() -> None:
    body = PRODUCTS[:-1] + b',{"id":"BAD-USD","quote_increment":"x"}]'
    instruments, malformed = make_venue().parse_metadata(body)
    assert isinstance(instruments, Instruments)
    assert [found.symbol for found in instruments.instruments] == ["BTC-USD"]
    assert isinstance(malformed, Malformed)
    assert "BAD-USD" in malformed.problem


def test_the_batched_channel_is_used_without_keys() -> None:
    channel = make_channel("BTC-USD", "ETH-USD")
    [request] = [json.loads(message) for message in channel.open(0)]
    assert request["type"] == "subscribe"
    assert request["product_ids"] == ["BTC-USD", "ETH-USD"]
    assert sorted(request["channels"]) == ["heartbeat", "level2_batch", "matches"]
    assert "signature" not in request


def test_level2_is_used_and_signed_with_keys() -> None:
    channel = make_channel("BTC-USD", **KEYS)
    [request] = [json.loads(message) for message in channel.open(1_700_000_000_123_456_789)]
    assert "level2" in request["channels"]
    assert (request["key"], request["passphrase"]) == ("the-key", "the-passphrase")
    assert request["timestamp"] == "1700000000"
    expected = hmac.new(b"the-secret", b"1700000000GET/users/self/verify", hashlib.sha256)
    assert request["signature"] == base64.b64encode(expected.digest()).decode()


def test_half_a_set_of_keys_is_refused() -> None:
    with pytest.raises(ConfigError, match="go together"):
        make_venue(api_key="the-key")


def test_a_secret_that_is_no_base64_is_refused() -> None:
    with pytest.raises(ConfigError, match="base64") as caught:
        make_venue(**{**KEYS, "api_secret": "the secret"})
    assert caught.value.key == "venues.coinbase.api_secret"
    assert "the secret" not in str(caught.value)


def test_snapshot_and_update() -> None:
    channel = make_channel("BTC-USD")
    [snapshot] = channel.receive(
        b'{"type":"snapshot","product_id":"BTC-USD","bids":[["1.00","2"]],"asks":[]}'
    )
    assert isinstance(snapshot, BookSnapshotEvent)
    assert snapshot.exchange_ns == NO_TIME
    assert [bytes(part.raw) for part in snapshot.parts] == [b'[["1.00","2"]]', b"[]"]
    [update] = channel.receive(
        b'{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1.00","0.00000000"]],'
        b'"time":"2021-04-17T16:44:07.846371Z"}'
    )
    assert isinstance(update, BookUpdateEvent)
    assert update.exchange_ns == 1618677847846371000
    [part] = update.parts
    assert part.side is None
    assert bytes(part.raw) == b'[["buy","1.00","0.00000000"]]'


def test_a_zero_time_is_unknown() -> None:
    [update] = make_channel("BTC-USD").receive(
        b'{"type":"l2update","product_id":"BTC-USD","changes":[],"time":"0001-01-01T00:00:00Z"}'
    )
    assert update.exchange_ns == NO_TIME  # type: ignore[union-attr]


@pytest.mark.parametrize(("maker", "taker"), [("buy", Side.SELL), ("sell", Side.BUY)])
def test_the_side_of_a_match_is_the_makers(maker: str, taker: Side) -> None:
    [trade] = make_channel("BTC-USD").receive(
        f'{{"type":"match","trade_id":10,"maker_order_id":"a","taker_order_id":"b",'
        f'"side":"{maker}","size":"0.5000","price":"100.10","product_id":"BTC-USD",'
        f'"sequence":50,"time":"2021-04-17T16:43:37.089723Z"}}'.encode()
    )
    assert trade == TradeEvent("BTC-USD", "100.10", "0.5000", taker, 10, 1618677817089723000)


def test_last_match_is_no_trade_but_marks_the_last_one() -> None:
    [mark] = make_channel("BTC-USD").receive(
        b'{"type":"last_match","trade_id":10,"side":"buy","size":"1","price":"1",'
        b'"product_id":"BTC-USD","time":"2021-04-17T16:43:37Z"}'
    )
    assert mark == TradeMark("BTC-USD", 10, settled=True)


def test_a_heartbeat_is_life_of_its_product_and_tells_the_last_trade() -> None:
    found = make_channel("BTC-USD").receive(
        b'{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD",'
        b'"time":"2014-11-07T08:19:28.464459Z"}'
    )
    assert found == [Alive("BTC-USD"), TradeMark("BTC-USD", 20, settled=False)]


def test_unknown_types_are_ignored() -> None:
    channel = make_channel("BTC-USD")
    assert channel.receive(b'{"type":"ticker","product_id":"BTC-USD"}') == [Alive()]
    assert channel.receive(b'{"type":"brand_new","surprise":[1,{}]}') == [Alive()]


def test_acknowledgements_are_checked_product_by_product() -> None:
    channel = make_channel("BTC-USD", "ETH-USD")
    channel.open(0)
    found = channel.receive(
        b'{"type":"subscriptions","channels":[{"name":"level2_50","product_ids":["BTC-USD"]},'
        b'{"name":"matches","product_ids":["BTC-USD","ETH-USD"]},'
        b'{"name":"heartbeat","product_ids":["BTC-USD","ETH-USD"]}]}'
    )
    assert Acknowledged("level2_batch", "BTC-USD") in found
    assert channel.awaited == {("level2_batch", "ETH-USD")}


def test_an_error_that_names_a_product_refuses_that_product_only() -> None:
    channel = make_channel("BTC-USD", "NO-PE")
    channel.open(0)
    found = channel.receive(
        b'{"type":"error","message":"Failed to subscribe","reason":"NO-PE is not a valid product"}'
    )
    text = "Failed to subscribe: NO-PE is not a valid product"
    assert Acknowledged("level2_batch", "NO-PE", text) in found
    assert {symbol for _, symbol in channel.awaited} == {"BTC-USD"}
    assert channel.receive(b'{"type":"error","message":"ErrSlowConsume"}') == [
        VenueComplaint("ErrSlowConsume")
    ]


def test_products_are_spread_over_connections() -> None:
    instruments = [make_product(f"A{number}-USD") for number in range(40)]
    exchange = make_venue(symbols_per_connection=15).plan(instruments)
    assert [len(group) for group in exchange] == [15, 15, 10]
    advanced = make_venue(feed="advanced", symbols_per_connection=30).plan(instruments)
    assert [len(group) for group in advanced] == [16, 16, 8]


@pytest.mark.parametrize(
    ("data", "book"),
    [
        (b'{"type":"l2update","product_id":"BTC-USD","changes":[["buy","1', True),
        (b'{"type":"snapshot","product_id":"BTC-USD","bids":[]}', True),
        (b'{"type":"match","product_id":"BTC-USD","trade_id":"x"}', False),
        (b'{"type":"l2update","product_id":"BTC-USD","changes":NaN}', True),
    ],
)
def test_a_malformed_frame_names_its_symbol(data: bytes, book: bool) -> None:
    [event] = make_channel("BTC-USD").receive(data)
    assert isinstance(event, Malformed)
    assert (event.venue_symbol, event.book) == ("BTC-USD", book)


def test_rest_trades_page_backwards_by_cursor_with_the_takers_side() -> None:
    venue, instrument = make_venue(), make_product("BTC-USD")
    span = TradeSpan(69, 73, 0, 0)
    request = venue.trades_request(instrument, span)
    assert request is not None
    assert request.path == "/products/BTC-USD/trades?limit=1000&after=73"
    rows = [
        {
            "time": "2021-04-17T16:43:37Z",
            "trade_id": number,
            "price": "10.00",
            "size": "0.01",
            "side": "buy",
        }
        for number in (72, 71)
    ]
    answer = RestAnswer(json.dumps(rows).encode(), {"CB-AFTER": "71"})
    page = venue.parse_trades(instrument, span, request, answer)
    assert [(trade.trade_id, trade.side) for trade in page.trades] == [
        (71, Side.SELL),
        (72, Side.SELL),
    ]
    assert page.more is None
    full = RestAnswer(json.dumps(rows * 500).encode(), {"cb-after": "71"})
    more = venue.parse_trades(instrument, span, request, full).more
    assert more is not None
    assert more.path == "/products/BTC-USD/trades?limit=1000&after=71"
    near = span._replace(after_id=70)
    assert venue.parse_trades(instrument, near, request, full).more is None


def test_rest_trades_of_an_open_span_begin_with_the_newest() -> None:
    request = make_venue().trades_request(make_product("BTC-USD"), TradeSpan(69, None, 0, 0))
    assert request is not None
    assert request.path == "/products/BTC-USD/trades?limit=1000"


class TestAdvanced:
    """`feed = "advanced"`."""

    @staticmethod
    def channel(*symbols: str, **settings: Any) -> Channel:
        return make_channel(*symbols, feed="advanced", **settings)

    @staticmethod
    def l2(sequence: int, *events: str) -> bytes:
        return (
            f'{{"channel":"l2_data","client_id":"","timestamp":"2023-02-09T20:32:50.714964855Z",'
            f'"sequence_num":{sequence},"events":[{",".join(events)}]}}'
        ).encode()

    def test_one_channel_per_message_and_always_heartbeats(self) -> None:
        requests = [json.loads(message) for message in self.channel("BTC-USD").open(0)]
        assert [request["channel"] for request in requests] == [
            "heartbeats",
            "level2",
            "market_trades",
        ]
        assert requests[1]["product_ids"] == ["BTC-USD"]

    def test_all_events_of_a_message_count(self) -> None:
        one = '{"type":"snapshot","product_id":"BTC-USD","updates":[]}'
        two = (
            '{"type":"update","product_id":"ETH-USD","updates":[{"side":"offer",'
            '"event_time":"1970-01-01T00:00:00Z","price_level":"1","new_quantity":"0"}]}'
        )
        found = self.channel("BTC-USD", "ETH-USD").receive(self.l2(0, one, two))
        assert [type(event) for event in found] == [BookSnapshotEvent, BookUpdateEvent]
        assert found[1].exchange_ns == 1675974770714964855  # type: ignore[union-attr]

    def test_a_jump_of_the_sequence_breaks_the_connection(self) -> None:
        channel = self.channel("BTC-USD")
        assert channel.receive(self.l2(7)) == [Alive()]
        assert channel.receive(
            b'{"channel":"heartbeats","sequence_num":8,"events":[{"heartbeat_counter":"3"}]}'
        ) == [Alive()]
        assert channel.receive(
            b'{"channel":"heartbeats","sequence_num":11,"events":[{"heartbeat_counter":4}]}'
        ) == [SequenceBreak(9, 10)]
        assert channel.receive(self.l2(12)) == [Alive()]

    def test_a_usdc_product_may_answer_as_its_usd_twin(self) -> None:
        event = '{"type":"update","product_id":"BTC-USD","updates":[]}'
        [found] = self.channel("BTC-USDC").receive(self.l2(0, event))
        assert found.venue_symbol == "BTC-USDC"  # type: ignore[union-attr]
        [found] = self.channel("BTC-USDC", "BTC-USD").receive(self.l2(0, event))
        assert found.venue_symbol == "BTC-USD"  # type: ignore[union-attr]

    @pytest.mark.parametrize(("setting", "side"), [("maker", Side.BUY), ("taker", Side.SELL)])
    def test_trades_are_in_order_and_sides_follow_the_setting(
        self, setting: str, side: Side
    ) -> None:
        trades = ",".join(
            f'{{"trade_id":"{number}","product_id":"BTC-USD","price":"1","size":"2",'
            f'"side":"SELL","time":"2019-08-14T20:42:27.265Z"}}'
            for number in (12, 11)
        )
        found = self.channel("BTC-USD", advanced_side=setting).receive(
            f'{{"channel":"market_trades","sequence_num":0,'
            f'"events":[{{"type":"snapshot","trades":[{trades}]}}]}}'.encode()
        )
        assert [event.trade_id for event in found] == [11, 12]  # type: ignore[union-attr]
        assert all(event.side is side for event in found)  # type: ignore[union-attr]
        assert all(event.recent for event in found)  # type: ignore[union-attr]

    def test_subscriptions_acknowledge(self) -> None:
        channel = self.channel("BTC-USD")
        channel.open(0)
        found = channel.receive(
            b'{"channel":"subscriptions","sequence_num":0,'
            b'"events":[{"subscriptions":{"level2":["BTC-USD"],"heartbeats":["heartbeats"]}}]}'
        )
        assert found == [Acknowledged("level2", "BTC-USD")]
        assert channel.awaited == {("market_trades", "BTC-USD")}

    def test_errors(self) -> None:
        found = self.channel("BTC-USD").receive(b'{"type":"error","message":"rate limit"}')
        assert found == [VenueComplaint("rate limit")]

    def test_malformed(self) -> None:
        [event] = self.channel("BTC-USD").receive(
            b'{"channel":"l2_data","sequence_num":0,"events":[{"type":"update",'
            b'"product_id":"BTC-USD"}]}'
        )
        assert isinstance(event, Malformed)
        assert (event.venue_symbol, event.book) == ("BTC-USD", True)
