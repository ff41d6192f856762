"""Binance.US's protocol: each rule that its documentation states, frame by frame."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alphapulse.collectors.binance_us import BinanceUs, BinanceUsChannel, epoch_ns
from alphapulse.collectors.events import (
    Alive,
    BookUpdateEvent,
    Instruments,
    Malformed,
    TradeEvent,
    VenueComplaint,
)
from alphapulse.collectors.venue import Budget, RestAnswer, TradeSpan
from alphapulse.config import BinanceUsSettings
from alphapulse.model import BookSide, IdKind, Instrument, Side

INFO = {
    "rateLimits": [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
    ],
    "symbols": [
        {
            "symbol": "BTCUSDT",
            "baseAsset": "BTC",
            "quoteAsset": "USDT",
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
            ],
        }
    ],
}


def make_venue(**settings: Any) -> BinanceUs:
    return BinanceUs(BinanceUsSettings(**settings))


def instrument() -> Instrument:
    [event] = make_venue().parse_metadata(json.dumps(INFO).encode())
    assert isinstance(event, Instruments)
    [found] = event.instruments
    return found


def make_channel(**settings: Any) -> BinanceUsChannel:
    return make_venue(**settings).channel([instrument()])


def test_scales_come_from_filters_and_the_split_from_metadata() -> None:
    found = instrument()
    assert (found.symbol, found.venue_symbol) == ("BTC-USDT", "BTCUSDT")
    assert (found.price_exponent, found.size_exponent) == (2, 5)


def test_the_weight_budget_is_read_from_exchange_info() -> None:
    budget = make_venue().parse_budget(json.dumps(INFO).encode())
    assert budget == Budget(1000, 60, 200)


@pytest.mark.parametrize(
    "stated", [{"limit": 0}, {"limit": -1}, {"limit": 10**400}, {"intervalNum": 0}]
)
def test_a_weight_budget_that_cant_be_is_left_alone(stated: dict[str, int]) -> None:
    limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "limit": 1200, **stated}
    body = json.dumps({"rateLimits": [limit], "symbols": []}).encode()
    assert make_venue().parse_budget(body) is None


@pytest.mark.parametrize(("kind", "stream"), [("trade", "trade"), ("agg", "aggTrade")])
def test_streams_are_named_in_the_url_in_lower_case(kind: str, stream: str) -> None:
    channel = make_channel(trades=kind, ws_url="wss://stream.example:9443")
    assert channel.url == (
        f"wss://stream.example:9443/stream?streams=btcusdt@depth@100ms/btcusdt@{stream}"
    )
    assert channel.open(0) == []


def test_a_connection_takes_no_more_than_1024_streams() -> None:
    groups = make_venue(symbols_per_connection=10_000).plan([instrument()] * 1025)
    assert [len(group) for group in groups] == [512, 512, 1]


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_depth_update_has_both_ends_of_its_ids(wrapped: bool) -> None:
    data = (
        '{"e":"depthUpdate","E":1633998275094,"s":"BTCUSDT","U":100,"u":103,'
        '"b":[["13.75700000","107.84000000"]],"a":[]}'
    )
    text = f'{{"stream":"btcusdt@depth@100ms","data":{data}}}' if wrapped else data
    [event] = make_channel().receive(text.encode())
    assert isinstance(event, BookUpdateEvent)
    assert (event.first_id, event.last_id) == (100, 103)
    assert event.exchange_ns == 1633998275094000000
    assert [part.side for part in event.parts] == [BookSide.BID, BookSide.ASK]


@pytest.mark.parametrize(("maker", "side"), [("true", Side.SELL), ("false", Side.BUY)])
def test_the_taker_sold_where_the_buyer_is_the_maker(maker: str, side: Side) -> None:
    [event] = make_channel().receive(
        f'{{"stream":"btcusdt@trade","data":{{"e":"trade","E":1,"s":"BTCUSDT","t":12,"p":"0.10",'
        f'"q":"100","b":88,"a":50,"T":1633998288467,"m":{maker},"M":true}}}}'.encode()
    )
    assert event == TradeEvent("BTCUSDT", "0.10", "100", side, 12, 1633998288467000000)


def test_an_aggregated_trade_says_how_many_matches_it_stands_for() -> None:
    [event] = make_channel().receive(
        b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1,"s":"BTCUSDT","a":7,"p":"1",'
        b'"q":"2","f":100,"l":104,"T":1633998288467,"m":true}}'
    )
    assert isinstance(event, TradeEvent)
    assert (event.trade_id, event.id_kind, event.matches) == (7, IdKind.AGGREGATE, 5)


def test_milliseconds_and_microseconds_are_told_apart() -> None:
    assert epoch_ns(1633998288467) == 1633998288467000000
    assert epoch_ns(1633998288467001) == 1633998288467001000


@pytest.mark.parametrize(
    "data",
    [
        b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"1"}}',
        b'{"stream":"btcusdt@kline_1m","data":{"e":"kline","s":"BTCUSDT","k":{}}}',
        b'{"result":null,"id":1}',
    ],
)
def test_other_streams_and_answers_are_signs_of_life(data: bytes) -> None:
    assert make_channel().receive(data) == [Alive()]


def test_errors_are_passed_on_in_the_venues_words() -> None:
    found = make_channel().receive(b'{"error":{"code":2,"msg":"Invalid request"},"id":1}')
    assert found == [VenueComplaint("Invalid request")]


@pytest.mark.parametrize(
    "data",
    [
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","s":"BTCUSDT","U":1,"u":',
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","s":"BTCUSDT","U":9,"u":8,'
        b'"b":[],"a":[]}}',
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":',
    ],
)
def test_a_malformed_update_names_its_symbol(data: bytes) -> None:
    [event] = make_channel().receive(data)
    assert isinstance(event, Malformed)
    assert (event.venue_symbol, event.book) == ("BTCUSDT", True)


@pytest.mark.parametrize(("limit", "weight"), [(100, 1), (500, 5), (1000, 10), (5000, 50)])
def test_snapshots_cost_by_their_limit(limit: int, weight: int) -> None:
    request = make_venue(snapshot_limit=limit).snapshot_request(instrument())
    assert request is not None
    assert request.path == f"/api/v3/depth?symbol=BTCUSDT&limit={limit}"
    assert request.weight == weight


def test_a_snapshot_says_how_far_it_goes() -> None:
    body = b'{"lastUpdateId":160,"bids":[["1","2"]],"asks":[]}'
    event = make_venue(snapshot_limit=500).parse_snapshot(instrument(), body)
    assert (event.last_id, event.limit) == (160, 500)


SPAN = TradeSpan(5, 2000, 1_000_000_000, 2_000_000_000)


def singles(*numbers: int) -> RestAnswer:
    rows = [
        {"id": number, "price": "1", "qty": "2", "time": 1001, "isBuyerMaker": True}
        for number in numbers
    ]
    return RestAnswer(json.dumps(rows).encode(), {})


def aggregates(*numbers: int) -> RestAnswer:
    """Of two matches each: 10 is of 20 and 21."""
    rows = [
        {"a": n, "p": "1", "q": "1", "f": 2 * n, "l": 2 * n + 1, "T": 1001, "m": False}
        for n in numbers
    ]
    return RestAnswer(json.dumps(rows).encode(), {})


def test_single_trades_are_asked_for_by_id_with_a_key() -> None:
    venue = make_venue(api_key="k")
    request = venue.trades_request(instrument(), SPAN)
    assert request is not None
    assert request.path == "/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=6"
    assert (request.weight, request.headers) == (5, {"X-MBX-APIKEY": "k"})
    page = venue.parse_trades(instrument(), SPAN, request, singles(*range(6, 1006)))
    assert (page.trades[0].trade_id, page.trades[0].side) == (6, Side.SELL)
    assert page.more is not None
    assert page.more.path == "/api/v3/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=1006"
    last = venue.parse_trades(instrument(), SPAN, page.more, singles(*range(1006, 2006)))
    assert last.more is None


def test_an_aggregate_tells_the_id_to_begin_with() -> None:
    venue, span = make_venue(api_key="k"), SPAN._replace(after_id=None)
    request = venue.trades_request(instrument(), span)
    assert request is not None
    assert request.path == "/api/v3/aggTrades?symbol=BTCUSDT&limit=1&startTime=1000"
    page = venue.parse_trades(instrument(), span, request, aggregates(9))
    assert page.trades == []
    assert page.more is not None
    assert page.more.path.endswith("/historicalTrades?symbol=BTCUSDT&limit=1000&fromId=18")
    assert venue.parse_trades(instrument(), span, request, aggregates()) == ([], None)


def test_without_a_key_what_the_latest_trades_do_not_reach_comes_as_aggregates() -> None:
    venue = make_venue()
    request = venue.trades_request(instrument(), SPAN)
    assert request is not None
    assert request.path == "/api/v3/trades?symbol=BTCUSDT&limit=1000"
    assert venue.parse_trades(instrument(), SPAN, request, singles(6, 7)).more is None
    rows = [
        {"id": number, "price": price, "qty": "2", "time": 1001, "isBuyerMaker": True}
        for number, price in ((7, "1"), (8, "1"), (9, "1.01"))
    ]
    answer = RestAnswer(json.dumps(rows).encode(), {})
    found, older = venue.parse_trades(instrument(), SPAN, request, answer)
    assert [trade.trade_id for trade in found] == [9], "6 may be of the same order as 7 and 8"
    assert older is not None
    assert older.path == "/api/v3/aggTrades?symbol=BTCUSDT&limit=1000&startTime=1000"
    page = venue.parse_trades(instrument(), SPAN, older, aggregates(*[9] * 1000))
    trade = page.trades[0]
    assert (trade.id_kind, trade.trade_id) == (IdKind.AGGREGATE, 9)
    assert (trade.first_match, trade.matches) == (18, 2)
    assert page.more is not None
    assert page.more.path == "/api/v3/aggTrades?symbol=BTCUSDT&limit=1000&fromId=10"
    end = venue.parse_trades(instrument(), SPAN, older, aggregates(*[999] * 1000))
    assert end.more is None


def test_aggregates_are_asked_for_where_ids_count_them() -> None:
    venue = make_venue(trades="agg", api_key="k")
    assert venue.trade_ids is IdKind.AGGREGATE
    span = SPAN._replace(id_kind=IdKind.AGGREGATE)
    request = venue.trades_request(instrument(), span)
    assert request is not None
    assert request.path == "/api/v3/aggTrades?symbol=BTCUSDT&limit=1000&fromId=6"
    request = venue.trades_request(instrument(), span._replace(after_id=None))
    assert request is not None
    assert request.path == "/api/v3/aggTrades?symbol=BTCUSDT&limit=1000&startTime=1000"
    mixed = make_venue(api_key="k").trades_request(instrument(), SPAN._replace(aggregated=True))
    assert mixed is not None
    assert "/aggTrades?" in mixed.path, "matches that aggregates stand for come no other way"
