"""The native path does exactly what the long way does, or nothing."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alphapulse.capture import read_capture
from alphapulse.clock import wall_ns
from alphapulse.delta import NOT_PLAIN, TAKEN, FastPath
from tests.bothways import DIALECTS, SYMBOLS, Both
from tests.feeding import deltas
from tests.support import make_instrument


def snapshot(venue: str) -> list[dict[str, Any]]:
    """Frames that make the book of BTC-USD live, where frames do."""
    if venue == "kraken":
        pair = {
            "symbol": "BTC/USD",
            "base": "BTC",
            "quote": "USD",
            "price_precision": 2,
            "qty_precision": 4,
        }
        level = {"symbol": "BTC/USD", "bids": [], "asks": [], "checksum": 0}
        return [
            {"channel": "instrument", "type": "snapshot", "data": {"pairs": [pair]}},
            {"channel": "book", "type": "snapshot", "data": [level]},
        ]
    if venue == "advanced":
        sided = [
            {"side": "bid", "price_level": "1.00", "new_quantity": "1"},
            {"side": "offer", "price_level": "1.10", "new_quantity": "1"},
        ]
        event = {"type": "snapshot", "product_id": "BTC-USD", "updates": sided}
        return [{"channel": "l2_data", "sequence_num": 100, "events": [event]}]
    if venue == "coinbase":
        levels = {"bids": [["1.00", "1"]], "asks": [["1.10", "1"]]}
        return [{"type": "snapshot", "product_id": "BTC-USD", **levels}]
    return []


@pytest.fixture(params=DIALECTS)
def both(request: pytest.FixtureRequest, ring_prefix: str) -> Iterator[Both]:
    venue = request.param
    exchange = "coinbase" if venue == "advanced" else venue
    made = Both(ring_prefix, venue, [make_instrument(exchange, "BTC-USD", SYMBOLS[venue][0])])
    try:
        made.send(*snapshot(venue))
        if venue == "binance_us":
            for each in (made.fast, made.slow):
                body = b'{"lastUpdateId":100,"bids":[["1.00","1"]],"asks":[["1.10","1"]]}'
                book = each.feed.books["BTCUSD"]
                assert each.feed.rest_snapshot(book.instrument, body, each.now_ns)
                each.feed.wanted.clear()
                each.events()
        yield made
    finally:
        made.close()


def update(venue: str, price: str = "1.00", size: str = "2", number: int = 101) -> str:
    """A plain update of one bid."""
    if venue == "kraken":
        digits = f"{price}{size}0000".replace(".", "").lstrip("0")
        crc = zlib.crc32(digits.encode()) if size != "0" else 0
        return (
            '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD",'
            f'"bids":[{{"price":{price},"qty":{size}}}],"asks":[],"checksum":{crc},'
            '"timestamp":"2021-04-17T16:49:23.327760Z"}]}'
        )
    if venue == "coinbase":
        return (
            f'{{"type":"l2update","product_id":"BTC-USD","changes":[["buy","{price}","{size}"]],'
            '"time":"2021-04-17T16:49:23.327760Z"}'
        )
    if venue == "advanced":
        return (
            '{"channel":"l2_data","client_id":"","timestamp":"2021-04-17T16:49:23.327760Z",'
            f'"sequence_num":{number},"events":[{{"type":"update","product_id":"BTC-USD",'
            '"updates":[{"side":"bid","event_time":"2021-04-17T16:49:23Z",'
            f'"price_level":"{price}","new_quantity":"{size}"}}]}}]}}'
        )
    return (
        '{"stream":"btcusd@depth@100ms","data":{"e":"depthUpdate","E":1618678163327,'
        f'"s":"BTCUSD","U":{number},"u":{number},"b":[["{price}","{size}"]],"a":[]}}}}'
    )


def test_plain_updates_are_taken(both: Both) -> None:
    found = both.send(
        update(both.dialect, "1.00", "2").encode(), update(both.dialect, "1.00", "3", 102).encode()
    )
    assert len(deltas(found)) == 2
    assert both.taken == 2
    assert {delta.exchange_ns // 10**9 for delta in deltas(found)} == {1618678163}


def test_an_update_without_effect_is_taken_and_no_record(both: Both) -> None:
    found = both.send(
        update(both.dialect, "1.00", "2").encode(), update(both.dialect, "1.00", "2", 102).encode()
    )
    assert len(deltas(found)) == 1
    assert both.taken == 2


def test_a_crossed_book_publishes_nothing(both: Both) -> None:
    found = both.send(update(both.dialect, "1.20", "2").encode())
    # Kraken's book has no asks here.
    assert len(deltas(found)) == (1 if both.dialect == "kraken" else 0)
    assert both.taken == 1


def test_a_wrong_checksum_publishes_nothing(ring_prefix: str) -> None:
    made = Both(ring_prefix, "kraken", [make_instrument("kraken", "BTC-USD", "BTC/USD")])
    try:
        made.send(*snapshot("kraken"))
        frame = update("kraken").replace('"checksum":', '"checksum":1')
        assert deltas(made.send(frame.encode())) == []
        assert made.taken == 1
        assert made.fast.feed.counts.checksums_bad == 1
    finally:
        made.close()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"2"', '"NaN"'),
        ('"2"', '"-2"'),
        ('"2"', '"1e400"'),
        ('"2"', '"0.00001"'),
        ("1.00", "0"),
        ("1.00", "1.001"),
        ("BTC", "ETH"),
        ("BTC", "\\u0042TC"),
        ("2021-04-17", "2021-02-30"),
        ("2021-04-17", "1970-01-01"),
        ("2021-04-17", "9999-01-01"),
        ("23.327760Z", "23Z"),
        ("23.327760Z", "23.1234567890Z"),
        ("23.327760Z", "60Z"),
        ("1618678163327", "1618678163327123"),
        ("1618678163327", "0"),
        ("1618678163327", "-1"),
        ("1618678163327", "1e3"),
        ('"U":101', '"U":102'),
        ('"u":101', '"u":100'),
        ('"u":101', '"u":9999999999999999999'),
        ('"U":101', '"U":"101"'),
        ("}", "} "),
        ("{", " {"),
        ("}", ",}"),
        (":", " : "),
        (',"changes"', ',"other":{"changes":[1,[2]]},"changes"'),
        ('"type":', '"type":"l2update","type":'),
        ('"checksum":', '"checksum":1,"checksum":'),
        ('"channel":"book"', '"channel":"trade"'),
        ("update", "snapshot"),
        ("buy", "hold"),
        ('[{"symbol"', '[{"symbol":"X"},{"symbol"'),
        ("[", "[["),
        ('"', "'"),
    ],
)
def test_whatever_is_odd_comes_out_the_same(both: Both, old: str, new: str) -> None:
    both.send(update(both.dialect).replace(old, new).encode())
    both.send(update(both.dialect, "1.00", "3", 102).encode())


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_frames_come_out_the_same(both: Both, data: st.DataObject) -> None:
    frame = bytearray(update(both.dialect, number=data.draw(st.integers(90, 120))).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        if not frame:
            break
        at = data.draw(st.integers(0, len(frame) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "delete"]))
        if kind == "set":
            frame[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            frame[at:at] = data.draw(st.binary(min_size=1, max_size=4))
        elif kind == "delete":
            del frame[at]
        else:
            del frame[max(at, 1) :]
    both.send(bytes(frame))


@pytest.mark.parametrize(
    ("name", "venue", "depth"),
    [
        ("kraken", "kraken", 1000),
        ("kraken-btcusd-depth10", "kraken", 10),
        ("coinbase", "coinbase", 1000),
    ],
)
def test_recorded_traffic_comes_out_the_same_and_goes_the_native_way(
    captures: Path, ring_prefix: str, name: str, venue: str, depth: int
) -> None:
    frames = list(read_capture(captures / f"{name}.jsonl"))
    made = Both(ring_prefix, venue, [], depth)
    try:
        for each in (made.fast, made.slow):
            each.feed._symbols = None
            if frames[0].src == "rest":
                each.feed.rest_metadata(frames[0].raw, each.now_ns)
        live = [frame.raw for frame in frames if frame.src == "ws"]
        for start in range(0, len(live), 100):
            made.send(*live[start : start + 100])
        heads = (
            b'{"channel":"book","type":"update"',
            b'{"channel":"trade"',
            b'{"channel":"heartbeat"',
            b'{"type":"l2update"',
            b'{"type":"match"',
        )
        assert made.taken == sum(raw.startswith(heads) for raw in live)
    finally:
        made.close()


def test_a_book_that_is_not_live_is_left_alone(both: Both) -> None:
    for each in (both.fast, both.slow):
        for book in each.feed.books.values():
            book.malformed(each.now_ns)
        each.events()
    taken = both.taken
    both.send(update(both.dialect).encode())
    assert both.taken == taken


def test_what_a_path_has_not_heard_of_is_not_plain(both: Both) -> None:
    feed, symbol = both.fast.feed, SYMBOLS[both.dialect][0]
    path = FastPath(both.fast.venue.plain_frames, both.fast.writer)
    frame = update(both.dialect).encode()
    connection = both.fast.channel.connection
    assert path.take(frame, 1, connection) == NOT_PLAIN
    tracker = feed.books[symbol].tracker
    path.follow(symbol, tracker, feed.trades[symbol])
    assert path.take(memoryview(frame), 1, connection) == TAKEN
    assert path.culprit is tracker
    assert json.loads(frame)


def test_a_frame_that_is_timed_goes_the_same_way(both: Both) -> None:
    frame = update(both.dialect).encode()
    times = []
    for each in (both.fast, both.slow):
        begun_ns = wall_ns()
        timed = each.feed.receive_timed(each.channel, frame, each.now_ns)
        assert begun_ns <= timed.decoded_ns <= wall_ns()
        times.append(list(timed.exchange_ns))
    both.compare(both.fast.events(), both.slow.events())
    assert both.taken == 1
    assert times[0] == times[1]
    assert times[0][0] // 10**9 == 1618678163


def test_messages_that_are_counted_need_their_connection(both: Both) -> None:
    frame = update(both.dialect).encode()
    expected = NOT_PLAIN if both.dialect == "advanced" else TAKEN
    assert both.fast.feed._fast.take(frame, 1) == expected


def test_more_layouts_than_there_is_room_for_are_refused(both: Both) -> None:
    with pytest.raises(ValueError, match="at most 6 layouts"):
        FastPath([*both.fast.venue.plain_frames] * 4, both.fast.writer)
