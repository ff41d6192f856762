"""Kraken's protocol: each rule that its documentation states, frame by frame."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alphapulse.clock import NO_TIME
from alphapulse.collectors.events import (
    Acknowledged,
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    Instruments,
    Malformed,
    StatusEvent,
    TradeEvent,
    VenueComplaint,
    VenueStatus,
)
from alphapulse.collectors.kraken import (
    REQUESTS_REMEMBERED,
    SYMBOLS_PER_REQUEST,
    Kraken,
    KrakenChannel,
)
from alphapulse.collectors.venue import RestAnswer, TradeSpan
from alphapulse.config import KrakenSettings
from alphapulse.errors import RateLimited
from alphapulse.model import BookSide, Side
from tests.support import make_instrument

PAIR = (
    '{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_precision":8,'
    '"qty_increment":1e-08,"price_precision":1,"price_increment":0.1,"qty_min":0.00005}'
)
BTC_USD = make_instrument(price_exponent=1, size_exponent=8, price_increment=1, size_increment=1)


def make_venue(**settings: Any) -> Kraken:
    return Kraken(KrakenSettings(**settings))


def make_channel(*symbols: str, **settings: Any) -> KrakenChannel:
    instruments = [make_instrument(symbol=symbol.replace("/", "-")) for symbol in symbols]
    return make_venue(**settings).channel(instruments)


def frame(channel: str, kind: str, data: str) -> bytes:
    return f'{{"channel":"{channel}","type":"{kind}","data":{data}}}'.encode()


def test_instrument_exponents_come_from_precision_even_in_exponent_notation() -> None:
    venue = make_venue()
    data = f'{{"assets":[],"pairs":[{PAIR}]}}'
    [event] = venue.channel([]).receive(frame("instrument", "snapshot", data))
    assert event == Instruments([BTC_USD])
    assert venue.checksum_digits(BTC_USD) == (1, 8)


def test_old_asset_names_are_unified() -> None:
    pair = PAIR.replace("BTC/USD", "XBT/XDG").replace('"BTC"', '"XBT"').replace('"USD"', '"XDG"')
    [event] = make_channel().receive(frame("instrument", "snapshot", f'{{"pairs":[{pair}]}}'))
    assert isinstance(event, Instruments)
    assert event.instruments[0].symbol == "BTC-DOGE"
    assert event.instruments[0].venue_symbol == "XBT/XDG"


def test_rest_takes_the_old_asset_names() -> None:
    span = TradeSpan(5, None, 1_700_000_000_000_000_000, 1_800_000_000_000_000_000)
    request = make_venue().trades_request(BTC_USD, span)
    assert request is not None
    # What is listed is later than `since`: this way the last known trade is among it.
    assert request.path.startswith("/0/public/Trades?pair=XBT/USD&since=1699999999999999999&")


def test_book_update_keeps_the_digits_of_each_level() -> None:
    data = (
        '[{"symbol":"BTC/USD","bids":[{"price":29430.20,"qty":0.10000000}],"asks":[],'
        '"checksum":4294967295,"timestamp":"2023-07-30T15:30:13.371864Z"}]'
    )
    [event] = make_channel("BTC/USD").receive(frame("book", "update", data))
    assert isinstance(event, BookUpdateEvent)
    assert event.venue_symbol == "BTC/USD"
    assert event.checksum == 4294967295
    assert event.exchange_ns == 1690731013371864000
    bids, asks = event.parts
    assert bids.side is BookSide.BID
    assert bytes(bids.raw) == b'[{"price":29430.20,"qty":0.10000000}]'
    assert asks.side is BookSide.ASK
    assert bytes(asks.raw) == b"[]"


def test_every_entry_of_data_counts() -> None:
    entries = ",".join(
        f'{{"symbol":"{symbol}","bids":[],"asks":[],"checksum":1}}' for symbol in ("A/B", "C/D")
    )
    found = make_channel("A/B", "C/D").receive(frame("book", "snapshot", f"[{entries}]"))
    assert [type(event) for event in found] == [BookSnapshotEvent, BookSnapshotEvent]
    assert [event.venue_symbol for event in found] == ["A/B", "C/D"]  # type: ignore[union-attr]
    assert all(event.exchange_ns == NO_TIME for event in found)  # type: ignore[union-attr]


def test_trade_side_is_the_takers_and_digits_are_kept() -> None:
    data = (
        '[{"symbol":"BTC/USD","side":"sell","price":4136.40,"qty":0.23374249,"ord_type":"limit",'
        '"trade_id":7,"timestamp":"2021-04-17T16:49:02.557535Z"}]'
    )
    [event] = make_channel("BTC/USD").receive(frame("trade", "update", data))
    assert event == TradeEvent(
        "BTC/USD",
        "4136.40",
        "0.23374249",
        Side.SELL,
        7,
        1618678142557535000,
        contiguous=False,
    )


def test_trades_sent_on_subscribing_are_recent_and_come_in_the_order_of_their_ids() -> None:
    entries = ",".join(
        f'{{"symbol":"BTC/USD","side":"buy","price":1,"qty":1,"trade_id":{number},'
        '"timestamp":"2021-04-17T16:49:02Z"}'
        for number in (9, 8, 10)
    )
    found = make_channel("BTC/USD").receive(frame("trade", "snapshot", f"[{entries}]"))
    assert [(event.trade_id, event.recent) for event in found] == [  # type: ignore[union-attr]
        (8, True),
        (9, True),
        (10, True),
    ]


@pytest.mark.parametrize(
    ("system", "status"),
    [
        ("online", VenueStatus.ONLINE),
        ("maintenance", VenueStatus.MAINTENANCE),
        ("cancel_only", VenueStatus.RESTRICTED),
        ("post_only", VenueStatus.RESTRICTED),
    ],
)
def test_status_with_a_connection_id_beyond_2_to_the_53(system: str, status: VenueStatus) -> None:
    data = f'[{{"system":"{system}","connection_id":15113583034416118705,"version":"2.0.10"}}]'
    assert make_channel().receive(frame("status", "update", data)) == [StatusEvent(status, system)]


def test_heartbeat_and_unknown_channels_are_signs_of_life() -> None:
    channel = make_channel("BTC/USD")
    assert channel.receive(b'{"channel":"heartbeat"}') == [Alive()]
    assert channel.receive(b'{"channel":"ohlc","type":"update","data":[]}') == [Alive()]
    assert channel.receive(b'{"method":"pong","req_id":1}') == [Alive()]


def test_subscriptions_are_batched_and_always_say_snapshot_and_depth() -> None:
    symbols = [f"A{number}/USD" for number in range(SYMBOLS_PER_REQUEST + 1)]
    channel = make_channel(*symbols, depth=500)
    requests = [json.loads(message) for message in channel.open(0)]
    assert [request["params"]["channel"] for request in requests] == ["book", "trade"] * 2
    assert all(request["params"]["snapshot"] is True for request in requests)
    assert [request["params"].get("depth") for request in requests] == [500, None] * 2
    asked = [symbol for request in requests[::2] for symbol in request["params"]["symbol"]]
    assert asked == symbols
    assert len({request["req_id"] for request in requests}) == 4
    assert channel.awaited == {(name, symbol) for name in ("book", "trade") for symbol in symbols}


def test_only_the_chosen_channels_are_subscribed_to() -> None:
    channel = make_channel("BTC/USD", channels=("trades",))
    [request] = [json.loads(message) for message in channel.open(0)]
    assert request["params"]["channel"] == "trade"


def test_without_symbols_a_connection_carries_the_instruments() -> None:
    [request] = [json.loads(message) for message in make_channel().open(0)]
    assert request == {"method": "subscribe", "params": {"channel": "instrument"}}


def test_each_symbol_is_acknowledged_by_itself() -> None:
    channel = make_channel("BTC/USD", "ETH/USD", channels=("orderbook",))
    [request] = [json.loads(message) for message in channel.open(0)]
    reply = {
        "method": "subscribe",
        "success": True,
        "result": {"channel": "book", "symbol": "BTC/USD", "depth": 1000, "snapshot": True},
        "req_id": request["req_id"],
    }
    found = channel.receive(json.dumps(reply).encode())
    assert found == [Acknowledged("book", "BTC/USD")]
    assert channel.awaited == {("book", "ETH/USD")}


def test_a_refusal_concerns_its_symbol_only() -> None:
    channel = make_channel("BTC/USD", "NO/PE")
    book = json.loads(channel.open(0)[0])
    reply = {
        "error": "Currency pair not supported NO/PE",
        "method": "subscribe",
        "req_id": book["req_id"],
        "success": False,
        "symbol": "NO/PE",
    }
    found = channel.receive(json.dumps(reply).encode())
    assert found == [Acknowledged("book", "NO/PE", "Currency pair not supported NO/PE")]
    assert ("book", "BTC/USD") in channel.awaited
    assert ("book", "NO/PE") not in channel.awaited


def test_a_refusal_without_a_symbol_concerns_its_whole_request() -> None:
    channel = make_channel("BTC/USD", "ETH/USD")
    trade = json.loads(channel.open(0)[1])
    reply = {"error": "Channel not supported", "method": "subscribe", "success": False}
    found = channel.receive(json.dumps({**reply, "req_id": trade["req_id"]}).encode())
    assert found == [
        Acknowledged("trade", "BTC/USD", "Channel not supported"),
        Acknowledged("trade", "ETH/USD", "Channel not supported"),
    ]


@pytest.mark.parametrize("named", ["", ',"req_id":1', ',"req_id":1,"symbol":"BTC/USD"'])
@pytest.mark.parametrize("method", ["", ',"method":"subscribe"', ',"method":"unsubscribe"'])
def test_asking_too_fast_is_no_refusal(named: str, method: str) -> None:
    channel = make_channel("BTC/USD", "ETH/USD")
    channel.open(0)
    awaited = set(channel.awaited)
    answer = f'{{"error":"Exceeded msg rate","success":false{method}{named}}}'
    assert channel.receive(answer.encode()) == [VenueComplaint("Exceeded msg rate")]
    assert channel.awaited == awaited


def test_a_refusal_that_nothing_is_known_about_is_passed_on() -> None:
    answer = b'{"method":"subscribe","error":"No","success":false,"req_id":99}'
    assert make_channel("BTC/USD").receive(answer) == [VenueComplaint("No")]


def test_few_requests_are_remembered() -> None:
    channel = make_channel("BTC/USD", "ETH/USD")
    for number in range(3 * REQUESTS_REMEMBERED):
        channel.resubscribe("BTC/USD", 0)
        if number % 3 == 0:
            channel.subscribe({("book", "ETH/USD")}, 0)
    assert len(channel._requests) <= REQUESTS_REMEMBERED


def test_resubscribing_concerns_the_symbols_book_only() -> None:
    channel = make_channel("BTC/USD", "ETH/USD", depth=100)
    channel.open(0)
    off, on = (json.loads(message) for message in channel.resubscribe("BTC/USD", 0))
    assert (off["method"], on["method"]) == ("unsubscribe", "subscribe")
    assert off["params"] == {"channel": "book", "symbol": ["BTC/USD"], "depth": 100}
    assert on["params"]["symbol"] == ["BTC/USD"]
    assert on["params"]["snapshot"] is True


@pytest.mark.parametrize(
    ("data", "book"),
    [
        (b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"pri', True),
        (b'{"channel":"book","type":"oops","data":[{"symbol":"BTC/USD"}]}', True),
        (
            b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","checksum":"x"}]}',
            True,
        ),
        (
            b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"hold",'
            b'"price":1,"qty":1,"trade_id":1,"timestamp":"2021-04-17T16:49:02Z"}]}',
            False,
        ),
        (
            b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
            b'"price":NaN,"qty":1,"trade_id":1,"timestamp":"2021-04-17T16:49:02Z"}]}',
            False,
        ),
        (
            b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy",'
            b'"price":[],"qty":1,"trade_id":1,"timestamp":"2021-04-17T16:49:02Z"}]}',
            False,
        ),
    ],
)
def test_a_malformed_frame_names_its_symbol(data: bytes, book: bool) -> None:
    [event] = make_channel("BTC/USD").receive(data)
    assert isinstance(event, Malformed)
    assert event.venue_symbol == "BTC/USD"
    assert event.book is book
    assert event.problem


def test_rest_trades_page_through_the_last_time() -> None:
    venue = make_venue()
    span = TradeSpan(61044951, 61044955, 0, 0)
    request = venue.trades_request(BTC_USD, span)
    assert request is not None
    row = '["30243.40","0.34507674","1688669597.8277369","b","m","",61044952]'
    body = f'{{"error":[],"result":{{"XXBTZUSD":[{row}],"last":"1688671969993150842"}}}}'
    page = venue.parse_trades(BTC_USD, span, request, RestAnswer(body.encode(), {}))
    assert page.more is None
    traded = ("30243.40", "0.34507674", Side.BUY, 61044952, 1688669597827736900)
    assert page.trades == [TradeEvent("BTC/USD", *traded, contiguous=False)]
    full = f'{{"error":[],"result":{{"XXBTZUSD":[{",".join([row] * 1000)}],"last":"77"}}}}'
    answer = RestAnswer(full.encode(), {})
    more = venue.parse_trades(BTC_USD, span, request, answer).more
    assert more is not None
    assert "since=77&" in more.path
    near = span._replace(before_id=61044953)
    assert venue.parse_trades(BTC_USD, near, request, answer).more is None


def test_a_rest_error_is_an_error() -> None:
    venue = make_venue()
    span = TradeSpan(0, 10, 0, 0)
    request = venue.trades_request(BTC_USD, span)
    assert request is not None
    unknown = RestAnswer(b'{"error":["EQuery:Unknown asset pair"]}', {})
    with pytest.raises(ValueError, match="EQuery"):
        venue.parse_trades(BTC_USD, span, request, unknown)
    for complaint in ("EAPI:Rate limit exceeded", "EGeneral:Too many requests"):
        body = f'{{"error":["{complaint}"]}}'.encode()
        with pytest.raises(RateLimited):
            venue.parse_trades(BTC_USD, span, request, RestAnswer(body, {}))
