from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alphapulse.errors import RequestError
from alphapulse.stream.requests import (
    CHANNELS,
    FULL,
    Look,
    Ping,
    Request,
    ResumePoint,
    Snapshot,
    Subscribe,
    Unsubscribe,
    parse_query,
    parse_request,
)


def parse(**fields: Any) -> Request:
    return parse_request(json.dumps(fields).encode(), 100)


def test_what_is_left_out_means_all() -> None:
    assert parse(type="subscribe", channels=["state", "trades"]) == Subscribe(
        ("trades", "state"), None, None, Look(100)
    )
    assert parse(type="subscribe", channels="trades", exchanges="*", symbols=["*"]) == Subscribe(
        ("trades",), None, None, Look(100)
    )
    assert parse(type="unsubscribe") == Unsubscribe(CHANNELS, None, None)
    assert parse(type="snapshot", channels=["orderbook"]) == Snapshot(None, None)
    assert parse(type="ping") == Ping()


def test_names_are_unified() -> None:
    assert parse(
        type="subscribe",
        channels=["orderbook"],
        exchanges=["Kraken"],
        symbols=["btc/usd", "BTC-USD", "xdg-eur"],
        depth=10,
    ) == Subscribe(
        ("orderbook",), frozenset({"kraken"}), frozenset({"BTC-USD", "DOGE-EUR"}), Look(10)
    )


def test_depth() -> None:
    subscribe = parse(type="subscribe", channels=["orderbook"], depth="full", format="json")
    assert isinstance(subscribe, Subscribe)
    assert subscribe.look == Look(FULL)


BAD = [
    ({"type": "subscribe"}, "bad_request", "channels"),
    ({"type": "subscribe", "channels": []}, "bad_request", "channels is empty"),
    ({"type": "subscribe", "channels": ["bars"]}, "bad_request", "trades, orderbook, state, bbo"),
    ({"type": "subscribe", "channels": 1}, "bad_request", "`$.channels`"),
    ({"type": "subscribe", "channels": ["trades"], "symbols": []}, "bad_request", "symbols"),
    ({"type": "subscribe", "channels": ["trades"], "symbols": [1]}, "bad_request", "symbols[0]"),
    ({"type": "subscribe", "channels": ["trades"], "exchanges": {}}, "bad_request", "exchanges"),
    ({"type": "subscribe", "channels": ["trades"], "depth": 0}, "bad_request", "depth"),
    ({"type": "subscribe", "channels": ["trades"], "depth": 1.5}, "bad_request", "depth"),
    ({"type": "subscribe", "channels": ["trades"], "depth": True}, "bad_request", "depth"),
    ({"type": "subscribe", "channels": ["trades"], "depth": "all"}, "bad_request", '"full"'),
    ({"type": "subscribe", "channels": ["trades"], "depth": 10**30}, "bad_request", "depth"),
    ({"type": "subscribe", "channels": ["trades"], "format": "xml"}, "bad_request", "format"),
    ({"type": "subscribe", "channels": ["trades"], "symbol": "A-B"}, "bad_request", "`symbol`"),
    ({"type": "subscribe", "channels": ["trades"], "exchange": "a"}, "bad_request", "`exchanges`?"),
    ({"type": "ping", "xyz": 1}, "bad_request", "`xyz`"),
    (
        {"type": "subscribe", "channels": ["trades"], "symbols": "BTCUSD"},
        "unknown_symbol",
        "BTCUSD",
    ),
    ({"type": "subscribe", "channels": ["trades"], "conflate_ms": 0}, "bad_request", "1 to 60000"),
    ({"type": "subscribe", "channels": ["trades"], "conflate_ms": 60001}, "bad_request", "60000"),
    ({"type": "subscribe", "channels": ["bbo"], "format": "binary"}, "unsupported", "bbo"),
    (
        {"type": "subscribe", "channels": ["orderbook"], "exchanges": "all", "format": "binary"},
        "unsupported",
        '"all"',
    ),
    ({"type": "subscribe", "channels": ["trades"], "resume": []}, "bad_request", '"epoch"'),
    (
        {"type": "subscribe", "channels": ["trades"], "resume": {"kraken": {"epoch": 1}}},
        "bad_request",
        "sequence",
    ),
    (
        {
            "type": "subscribe",
            "channels": ["trades"],
            "exchanges": ["coinbase"],
            "resume": {"kraken": {"epoch": 1, "sequence": 1}},
        },
        "bad_request",
        "'kraken'",
    ),
    (
        {
            "type": "subscribe",
            "channels": ["orderbook"],
            "resume": {"all": {"epoch": 1, "sequence": 1}},
        },
        "bad_request",
        "'all'",
    ),
    ({"type": "snapshot", "channels": ["trades"]}, "bad_request", "only orderbook"),
    (
        {"type": "unsubscribe", "depth": 5},
        "bad_request",
        "takes type, channels, exchanges, symbols",
    ),
    ({"type": "unsubscribe", "chanels": "trades"}, "bad_request", "did you mean `channels`?"),
    ({"type": "ping", "id": 1}, "bad_request", "ping takes type"),
    (
        {"type": "subscribe", "channels": ["trades", "orderbook"], "exchanges": ["*", "ALL"]},
        "unsupported",
        "one after the other",
    ),
    ({"type": "hello"}, "bad_request", "subscribe, unsubscribe, snapshot or ping"),
    ({"channels": ["trades"]}, "bad_request", "type"),
    ({}, "bad_request", "type"),
]


@pytest.mark.parametrize(("fields", "code", "named"), BAD)
def test_wrong_requests_are_refused_naming_the_field(
    fields: dict[str, Any], code: str, named: str
) -> None:
    with pytest.raises(RequestError) as error:
        parse(**fields)
    assert error.value.code == code
    assert named in error.value.message


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b'{"type":"ping"} {}', "malformed"),
        (b'{"type":NaN}', "malformed"),
        (b"\xff\xfe", "malformed"),
        (b'{"type":"subscribe","channels":["\xff"]}', "malformed"),
        (b'{"type":"subscribe","channels":["trades"],"symbols":["\\ud800-A"]}', "malformed"),
        (b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b',"type":"ping"}', "malformed"),
        (b"[]", "bad_request"),
        (b"null", "bad_request"),
        (b"17", "bad_request"),
    ],
)
def test_what_is_no_request(payload: bytes, code: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_request(payload, 100)
    assert error.value.code == code


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields = st.sampled_from(
    ["type", "channels", "exchanges", "symbols", "depth", "format", "conflate_ms", "resume"]
)
types = st.sampled_from(["subscribe", "unsubscribe", "snapshot", "ping"])


@given(
    st.binary()
    | st.builds(
        lambda values, kind: json.dumps({**values, "type": kind}).encode(),
        st.dictionaries(fields, json_values),
        types,
    )
)
@example(b'{"type":"subscribe","channels":["trades"],"symbols":["--"]}')
@example(b'{"type":"ping","a":1')
@example(b'{"type":"ping","a":1,"type":5}')
@example(b'{"a":1,"type":"ping","type":"x"}')
@example(b'{"type":"ping","a":' + b"[" * 20_000)
def test_any_bytes_are_a_request_or_refused(payload: bytes) -> None:
    with suppress(RequestError):
        parse_request(payload, 100)


def test_a_query_subscribes() -> None:
    assert parse_query("", 100) is None
    assert parse_query("channels=trades&symbols=BTC-USD", 100) == Subscribe(
        ("trades",), None, frozenset({"BTC-USD"}), Look(100)
    )
    assert parse_query(
        "channels=trades,%20orderbook&channels=state&symbols=btc%2Fusd&exchanges=kraken&depth=5",
        100,
    ) == Subscribe(
        ("trades", "orderbook", "state"), frozenset({"kraken"}), frozenset({"BTC-USD"}), Look(5)
    )
    resumed = parse_query(
        "channels=trades&format=binary&conflate_ms=20"
        "&resume=%7B%22Kraken%22:%7B%22epoch%22:7,%22sequence%22:9%7D%7D",
        100,
    )
    assert resumed == Subscribe(
        ("trades",), None, None, Look(FULL, "binary", 20), {"kraken": ResumePoint(7, 9)}, True
    )
    full = parse_query("channels=orderbook&depth=full&symbols=*", 100)
    assert full == Subscribe(("orderbook",), None, None, Look(FULL))


@pytest.mark.parametrize(
    ("query", "code", "named"),
    [
        ("channels=bars", "bad_request", "trades, orderbook, state, bbo"),
        ("symbols=BTC-USD", "bad_request", "channels"),
        ("channels=trades&depth=0", "bad_request", "depth"),
        ("channels=trades&depth=5&depth=6", "bad_request", "depth is given twice"),
        ("channels=trades&token=secret", "bad_request", "`token`"),
        ("channels=trades&symbols=%ff", "malformed", "UTF-8"),
        ("channels=trades&symbols=BTCUSD", "unknown_symbol", "BTCUSD"),
        ("channels=trades&conflate_ms=0", "bad_request", "conflate_ms"),
        ("channels=trades&resume={", "bad_request", "resume"),
        ("channels=trades&resume=5", "bad_request", "resume"),
        ("a=b&" * 2000, "malformed", "query"),
    ],
)
def test_a_wrong_query_is_refused(query: str, code: str, named: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_query(query, 100)
    assert error.value.code == code
    assert named in error.value.message
