"""Trades, heartbeats and counted messages: the native path does what the long way does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapulse.capture import read_capture
from alphapulse.delta import LARGEST_JUMP
from alphapulse.model import Event, IdKind, Trade
from tests.bothways import DIALECTS, SYMBOLS, Both, two_instruments
from tests.feeding import gaps, trade_ids

BOOKS = {"advanced": "ETH-USD"}
"""Under which name a venue answers for the second symbol, where it isn't its own."""

Frames: TypeAlias = Callable[[], Iterator[bytes]]


class Market:
    """Writes frames as a venue would."""

    def __init__(self, both: Both) -> None:
        self.both = both
        self.dialect = both.dialect
        self.message = 100

    def _symbol(self, which: int) -> str:
        return SYMBOLS[self.dialect][0] if which == 0 else BOOKS.get(
            self.dialect, SYMBOLS[self.dialect][1]
        )  # fmt: skip

    def trades(self, *rows: dict[str, Any], kind: str = "update", step: int = 1) -> list[bytes]:
        """Frames with these trades: one frame where the venue sends several together.

        Parameters
        ----------
        rows : ``id``, and where it matters ``which``, ``price``, ``size``, ``side``, ``aggregate``
        kind : ``snapshot`` for those sent on subscribing, where the venue sends such
        step : by how much the connection's count of messages grows
        """
        written = [self._row(**row) for row in rows]
        if self.dialect == "kraken":
            data = ",".join(written)
            return [f'{{"channel":"trade","type":"{kind}","data":[{data}]}}'.encode()]
        if self.dialect == "advanced":
            events = f'[{{"type":"{kind}","trades":[{",".join(written)}]}}]'
            return [self._counted("market_trades", events, step)]
        return [text.encode() for text in written]

    def _counted(self, channel: str, events: str, step: int) -> bytes:
        self.message += step
        return (
            f'{{"channel":"{channel}","client_id":"","timestamp":"2021-04-17T16:49:02.557535Z",'
            f'"sequence_num":{self.message},"events":{events}}}'
        ).encode()

    def _row(
        self,
        id: int,  # noqa: A002 (as the rows have it)
        which: int = 0,
        price: str = "1.50",
        size: str = "0.25",
        side: str = "buy",
        second: int = 2,
        aggregate: bool = False,
    ) -> str:
        symbol = self._symbol(which)
        time = f"2021-04-17T16:49:{second:02}.557535Z"
        if self.dialect == "kraken":
            return (
                f'{{"symbol":"{symbol}","side":"{side}","price":{price},"qty":{size},'
                f'"ord_type":"limit","trade_id":{id},"timestamp":"{time}"}}'
            )
        if self.dialect == "coinbase":
            return (
                f'{{"type":"match","trade_id":{id},"maker_order_id":"2a0d","side":"{side}",'
                f'"size":"{size}","price":"{price}","product_id":"{symbol}","time":"{time}"}}'
            )
        if self.dialect == "advanced":
            return (
                f'{{"trade_id":"{id}","product_id":"{symbol}","price":"{price}",'
                f'"size":"{size}","side":"{side.upper()}","time":"{time}"}}'
            )
        maker = "true" if side == "sell" else "false"
        times = f'"T":{1633998288000 + second},"m":{maker},"M":true'
        if aggregate:
            fields = f'"a":{id},"p":"{price}","q":"{size}","f":{2 * id},"l":{2 * id + 1}'
            event = f'{{"e":"aggTrade","E":1633998288468,"s":"{symbol}",{fields},{times}}}'
        else:
            fields = f'"t":{id},"p":"{price}","q":"{size}","b":7,"a":8'
            event = f'{{"e":"trade","E":1633998288468,"s":"{symbol}",{fields},{times}}}'
        return f'{{"stream":"{symbol.lower()}@trade","data":{event}}}'

    def heartbeat(self, last_trade_id: int = 0, which: int = 0, step: int = 1) -> bytes:
        """A sign of life, as the venue has it."""
        if self.dialect == "kraken":
            return b'{"channel":"heartbeat"}'
        if self.dialect == "advanced":
            return self._counted("heartbeats", '[{"heartbeat_counter":"7"}]', step)
        return json.dumps(
            {
                "type": "heartbeat",
                "sequence": 90,
                "last_trade_id": last_trade_id,
                "product_id": self._symbol(which),
                "time": "2021-04-17T16:49:02.557535Z",
            }
        ).encode()

    def last_match(self, last_trade_id: int, which: int = 0) -> bytes:
        """What Coinbase sends of the last trade on subscribing."""
        product = self._symbol(which)
        return json.dumps(
            {"type": "last_match", "trade_id": last_trade_id, "product_id": product}
        ).encode()

    def send(self, *rows: dict[str, Any], **options: Any) -> list[Event]:
        """Send these trades both ways."""
        return self.both.send(*self.trades(*rows, **options))


@pytest.fixture(params=DIALECTS)
def market(request: pytest.FixtureRequest, ring_prefix: str) -> Iterator[Market]:
    both = Both(ring_prefix, request.param, two_instruments(request.param))
    try:
        made = Market(both)
        if made.dialect == "advanced":
            # The first message that is counted only says where the count begins.
            both.send(made.heartbeat())
        yield made
    finally:
        both.close()


@pytest.fixture
def kraken(ring_prefix: str) -> Iterator[Market]:
    both = Both(ring_prefix, "kraken", two_instruments("kraken"))
    yield Market(both)
    both.close()


def test_plain_trades_are_taken(market: Market) -> None:
    found = []
    for number in (7, 8, 9):
        found += market.send({"id": number, "side": "buy" if number % 2 else "sell"})
    assert trade_ids(found) == [7, 8, 9]
    assert market.both.taken == 3
    assert {(trade.price, trade.size) for trade in found if isinstance(trade, Trade)} == {
        (150, 2500)
    }
    assert len({trade.side for trade in found if isinstance(trade, Trade)}) == 2


def test_each_symbol_has_ids_of_its_own(market: Market) -> None:
    found = market.send({"id": 7}) + market.send({"id": 70, "which": 1})
    found += market.send({"id": 8}) + market.send({"id": 71, "which": 1})
    assert trade_ids(found) == [7, 70, 8, 71]
    assert market.both.taken == 4


def test_a_jump_goes_the_long_way_only_where_ids_are_contiguous(market: Market) -> None:
    market.send({"id": 7})
    taken = market.both.taken
    found = market.send({"id": 10})
    contiguous = market.dialect in ("coinbase", "binance_us")
    assert market.both.taken == taken + (not contiguous)
    assert [(gap.first, gap.last) for gap in gaps(found)] == [(8, 9)] * contiguous
    market.send({"id": 11})
    assert market.both.taken == taken + 1 + (not contiguous)


def test_repeated_and_late_trades_come_out_the_same(market: Market) -> None:
    found = []
    for number in (7, 7, 10, 8, 8, 9, 6, 11):
        found += market.send({"id": number})
    contiguous = market.dialect in ("coinbase", "binance_us")
    assert trade_ids(found) == ([7, 10, 8, 9, 11] if contiguous else [7, 10, 11])


def test_after_a_reconnect_only_the_next_id_is_plain(market: Market) -> None:
    market.send({"id": 7})
    market.both.reconnect()
    market.both.send(market.heartbeat(7))
    taken = market.both.taken
    assert trade_ids(market.send({"id": 8})) == [8]
    assert market.both.taken == taken + 1
    market.both.reconnect()
    market.both.send(market.heartbeat(8))
    taken = market.both.taken
    found = market.send({"id": 12})
    assert market.both.taken == taken
    assert [(gap.first, gap.last) for gap in gaps(found)] == [(9, 11)]


def test_several_trades_of_a_frame_are_taken_together(market: Market) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 7},
        {"id": 70, "which": 1},
        {"id": 8},
        {"id": 9, "side": "sell"},
    ]
    found = market.send(*rows)
    ids = [7, 8, 9, 70] if market.dialect == "advanced" else [7, 70, 8, 9]
    assert trade_ids(found) == ids
    assert market.both.taken == len(market.trades(*rows))


def test_one_odd_trade_among_several_sends_the_frame_the_long_way(kraken: Market) -> None:
    found = kraken.send({"id": 7}, {"id": 8, "price": "0"}, {"id": 9})
    assert trade_ids(found) == [7, 9]
    assert kraken.both.taken == 0
    assert trade_ids(kraken.send({"id": 10}, {"id": 10}, {"id": 11})) == [10, 11]
    assert kraken.both.taken == 0


def test_a_frame_with_very_many_trades_goes_the_long_way(kraken: Market) -> None:
    assert len(trade_ids(kraken.send(*({"id": number} for number in range(1, 33))))) == 32
    taken = kraken.both.taken
    assert len(trade_ids(kraken.send(*({"id": number} for number in range(33, 64))))) == 31
    assert kraken.both.taken == taken + 1


def test_trades_in_the_order_of_their_ids_where_the_venue_has_none(ring_prefix: str) -> None:
    both = Both(ring_prefix, "advanced", two_instruments("advanced"))
    try:
        market = Market(both)
        both.send(market.heartbeat())
        assert trade_ids(market.send({"id": 9}, {"id": 7}, {"id": 8})) == [7, 8, 9]
        assert both.taken == 1
    finally:
        both.close()


def test_of_two_kinds_of_ids_the_first_counts(ring_prefix: str) -> None:
    both = Both(ring_prefix, "binance_us", two_instruments("binance_us"))
    try:
        market = Market(both)
        found = market.send({"id": 5, "aggregate": True})
        # What is dropped isn't even looked at.
        found += market.send({"id": 500}) + market.send({"id": 9, "price": "1.23456"})
        found += market.send({"id": 6, "aggregate": True}) + market.send({"id": 1, "which": 1})
        trades = [event for event in found if isinstance(event, Trade)]
        assert [(trade.trade_id, trade.id_kind, trade.matches) for trade in trades] == [
            ("5", IdKind.AGGREGATE, 2),
            ("6", IdKind.AGGREGATE, 2),
            ("1", IdKind.TRADE, 1),
        ]
        assert both.taken == 5
    finally:
        both.close()


def test_heartbeats_are_taken_unless_they_tell_a_loss(ring_prefix: str) -> None:
    both = Both(ring_prefix, "coinbase", two_instruments("coinbase"))
    try:
        market = Market(both)
        both.send(market.heartbeat(6))
        market.send({"id": 7})
        both.send(market.heartbeat(7))
        # Ahead of its trade, and then the trade doesn't come.
        both.send(market.heartbeat(9))
        assert both.taken == 4
        found = both.send(market.heartbeat(9))
        assert [(gap.first, gap.last) for gap in gaps(found)] == [(8, 9)]
        both.send(market.heartbeat(9 + LARGEST_JUMP + 1))
        both.send(market.last_match(12))
        assert both.taken == 4
        both.send(market.heartbeat(12))
        assert both.taken == 5
    finally:
        both.close()


@pytest.mark.parametrize("step", [0, 2, -5, LARGEST_JUMP * 2])
def test_a_message_out_of_the_count_goes_the_long_way(ring_prefix: str, step: int) -> None:
    both = Both(ring_prefix, "advanced", two_instruments("advanced"))
    try:
        market = Market(both)
        both.send(market.heartbeat())
        market.send({"id": 7})
        both.send(market.heartbeat())
        assert both.taken == 2
        market.send({"id": 8}, step=step)
        both.send(market.heartbeat(step=step))
        assert both.taken == 2
        market.send({"id": 9})
    finally:
        both.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1.50", "1.505"),
        ("1.50", "1.500000"),
        ("1.50", "0"),
        ("1.50", "-1.5"),
        ("1.50", "15e-1"),
        ("1.50", "1e400"),
        ("1.50", ""),
        ("1.50", "NaN"),
        ("1.50", "99999999999999999999"),
        ("1.50", '"1.50"'),
        ('"1.50"', "1.50"),
        ("0.25", "0.00001"),
        ("0.25", "0.0"),
        ("0.25", "0x1"),
        ('"8"', "8"),
        (":8,", ':"8",'),
        (":8,", ":8.0,"),
        (":8,", ":08,"),
        (":8,", ":-8,"),
        (":8,", ":9223372036854775807,"),
        (":8,", ":99999999999999999999,"),
        (":8,", ":1234567890123456789,"),
        ('"8"', '"08"'),
        ('"8"', '""'),
        ('"8"', '"8 "'),
        ('"8"', '"9999999999999999999"'),
        ("buy", "hold"),
        ("BUY", "buy"),
        ("false", "null"),
        ("false", "0"),
        ("false", "falsely"),
        ('"buy"', "true"),
        ("BTC", "XRP"),
        ("BTC", "\\u0042TC"),
        ("BTC", "BTC\x00"),
        ("BTC", "B\u00d6C"),
        ("2021-04-17", "2021-02-30"),
        ("2021-04-17", "0001-01-01"),
        ("02.557535Z", "02Z"),
        ("02.557535Z", "02.Z"),
        ("02.557535Z", "02.557535"),
        ("02.557535Z", "02.557535+01:00"),
        ("02.557535Z", "60.5Z"),
        ('"T":1633998288002', '"T":0'),
        ('"T":1633998288002', '"T":1633998288002001'),
        ('"T":1633998288002', '"T":9223372036854775000'),
        ('"f":16', '"f":18'),
        ('"f":16', '"f":-9'),
        ('"l":17', '"l":99999999'),
        ('"update"', '"snapshot"'),
        ('"update"', '"other"'),
        ('"price"', '"prices"'),
        ('"p"', '"P"'),
        ('"size":', '"size":"1","size":'),
        ('"q":', '"q":"1","q":'),
        ("{", '{"more":{"price":[1,{"p":2}]},'),
        ("{", " { "),
        ("}", "\n}"),
        ("}", ",}"),
        (":", "\t:  "),
        ("[{", "[{},{"),
        ("[{", "[[{"),
        ("}]", "},{}]"),
        ("}]", "},]"),
        ("}]", "}"),
        ("}", "}}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("aggregate", [False, True])
def test_whatever_is_odd_comes_out_the_same(
    market: Market, old: str, new: str, aggregate: bool
) -> None:
    market.send({"id": 7, "aggregate": aggregate})
    for frame in market.trades({"id": 8, "aggregate": aggregate}):
        market.both.send(frame.decode().replace(old, new).encode())
    market.send({"id": 9, "aggregate": aggregate})
    market.send({"id": 9, "which": 1, "aggregate": aggregate})


row = st.fixed_dictionaries(
    {
        "id": st.integers(1, 14),
        "which": st.sampled_from([0, 0, 0, 1]),
        "price": st.sampled_from(["1.50"] * 8 + ["1.505", "0", "1e2", "1e30"]),
        "size": st.sampled_from(["0.25"] * 8 + ["0.00001", "-1", "7"]),
        "side": st.sampled_from(["buy", "sell"]),
        "second": st.integers(0, 59),
        "aggregate": st.sampled_from([False, False, False, True]),
    }
)


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_sequence_comes_out_the_same(market: Market, data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 10))
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(
            st.sampled_from(["next", "next", "next", "rows", "recent", "beat", "last", "new"])
        )
        step = data.draw(st.sampled_from([1] * 10 + [0, 2, -1]))
        if kind == "next":
            number += data.draw(st.sampled_from([1, 1, 1, 0, 2, -1]))
            market.send({"id": number}, step=step)
        elif kind == "rows":
            market.send(*data.draw(st.lists(row, min_size=1, max_size=4)), step=step)
        elif kind == "recent":
            rows = data.draw(st.lists(row, min_size=1, max_size=4))
            market.send(*rows, kind="snapshot", step=step)
        elif kind == "beat":
            market.both.send(market.heartbeat(number + data.draw(st.integers(-1, 2)), step=step))
        elif kind == "last" and market.dialect == "coinbase":
            market.both.send(market.last_match(number + data.draw(st.integers(-1, 2))))
        elif kind == "new":
            market.both.reconnect()


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_frames_come_out_the_same(market: Market, data: st.DataObject) -> None:
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    for whole in [*market.trades(*rows), market.heartbeat(data.draw(st.integers(0, 20)))]:
        frame = bytearray(whole)
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(frame) - 1))
            kind = data.draw(st.sampled_from(["set", "cut", "insert", "delete"]))
            if kind == "set":
                frame[at] = data.draw(st.integers(0, 255))
            elif kind == "insert":
                frame[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            elif kind == "delete" and len(frame) > 1:
                del frame[at]
            else:
                del frame[max(at, 1) :]
        market.both.send(bytes(frame))


def test_recorded_traffic_with_rest_snapshots_comes_out_the_same(
    captures: Path, ring_prefix: str
) -> None:
    both = Both(ring_prefix, "binance_us", [])
    try:
        for each in (both.fast, both.slow):
            each.feed._symbols = None
        trades = 0
        for frame in read_capture(captures / "binance_us.jsonl"):
            if frame.src == "ws":
                both.send(frame.raw)
                trades += b"@aggTrade" in frame.raw[:60]
                continue
            url = urlsplit(frame.url or "")
            for each in (both.fast, both.slow):
                if "exchangeInfo" in url.path:
                    each.feed.rest_metadata(frame.raw, each.now_ns)
                else:
                    symbol = parse_qs(url.query)["symbol"][0]
                    instrument = each.feed.instruments.by_venue_symbol(symbol)
                    assert each.feed.rest_snapshot(instrument, frame.raw, each.now_ns)
            both.compare(both.fast.events(), both.slow.events())
        assert sum(both.fast.feed.published_trades().values()) == trades
        assert both.taken > 200
    finally:
        both.close()
