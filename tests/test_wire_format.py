"""docs/wire-format.md is right: what its tables say is read out of records byte by byte."""

from __future__ import annotations

import re
import zlib
from typing import Any

import pytest

from alphapulse.clock import NO_TIME
from alphapulse.delta import HEADER_SIZE, Encoder
from alphapulse.model import BookState, Channel, IdKind, Reason, RecordFlag, RecordType, Side
from alphapulse.shm import ring_id
from tests.support import ROOT

PAGE = (ROOT / "docs" / "wire-format.md").read_text()


def section(title: str) -> str:
    """Text of the section whose heading is the title."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/wire-format.md has no section {title!r}"
    return found[1]


def fields(title: str) -> dict[str, tuple[int, int, bool]]:
    """(offset, size, signed) of each fixed field that a section's table names."""
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \| (.*?) \|$", section(title), re.MULTILINE)
    assert rows, f"section {title!r} has no table of offsets"
    return {
        name: (int(offset), int(size), note.lstrip().startswith("i"))
        for offset, size, name, note in rows
    }


def read(record: bytes, table: dict[str, tuple[int, int, bool]]) -> dict[str, int]:
    return {
        name: int.from_bytes(record[offset : offset + size], "little", signed=signed)
        for name, (offset, size, signed) in table.items()
    }


TIMES: dict[str, Any] = {"exchange_ns": -5, "received_ns": 1_700_000_000_000_000_001}


def stamped(encoder: Encoder) -> bytes:
    return bytes(encoder.stamp(2**40 + 7, 513, 1_700_000_000_000_000_002))


def test_header() -> None:
    record = stamped(Encoder().state(77, BookState.LIVE, Reason.RESYNCED, flags=1, **TIMES))
    table = fields("Header, 40 bytes")
    assert max(offset + size for offset, size, _ in table.values()) == HEADER_SIZE == 40
    assert read(record, table) == {
        "length": len(record),
        "type": RecordType.STATE,
        "flags": RecordFlag.REPEAT,
        "instrument": 77,
        "route": (513 << 48) | (2**40 + 7),
        "exchange_ns": -5,
        "received_ns": 1_700_000_000_000_000_001,
        "published_ns": 1_700_000_000_000_000_002,
    }


def test_an_unknown_time_is_the_least_integer() -> None:
    record = stamped(Encoder().heartbeat())
    assert read(record, fields("Header, 40 bytes"))["exchange_ns"] == -(2**63) == NO_TIME


def test_instrument() -> None:
    names = ("kraken", "BTC-USD", "BTC/USD", "BTC", "USD")
    record = stamped(Encoder().instrument(1, 2, 8, 5, 10, *names, **TIMES))
    table = fields("1 instrument")
    assert read(record, table) == {
        "price_exponent": 2,
        "size_exponent": 8,
        "price_increment": 5,
        "size_increment": 10,
    }
    texts = record[64:]
    for name in names:
        length, texts = texts[0], texts[1:]
        assert texts[:length].decode() == name
        texts = texts[length:]
    assert texts == b""


@pytest.mark.parametrize("trade_id", [2**64 - 1, 0])
def test_trade(trade_id: int) -> None:
    record = stamped(
        Encoder().trade(1, 294302, 18967538, Side.SELL, trade_id, IdKind.AGGREGATE, 3, **TIMES)
    )
    assert read(record, fields("4 trade")) | {"trade_id": trade_id} == {
        "price": 294302,
        "size": 18967538,
        "trade_id": trade_id,
        "matches": 3,
        "side": 2,
        "id_kind": 1,
    }
    assert int.from_bytes(record[56:64], "little") == trade_id
    assert len(record) == 72


def test_trade_with_a_text_id() -> None:
    record = stamped(Encoder().trade(1, 1, 1, Side.BUY, "a-b", IdKind.TEXT, **TIMES))
    assert record[56:64] == bytes(8)
    assert record[72:] == b"\x03a-b"


def test_state() -> None:
    record = stamped(Encoder().state(1, BookState.INVALID, Reason.CHECKSUM, **TIMES))
    assert read(record, fields("5 state")) == {"state": 3, "reason": 6}
    assert record[42:] == bytes(6)


def test_gap() -> None:
    record = stamped(Encoder().gap(1, Channel.TRADES, Reason.GAP, 5, None, 2, since_ns=9, **TIMES))
    assert read(record, fields("6 gap")) == {
        "channel": 1,
        "reason": 5,
        "known": 0b101,
        "first": 5,
        "last": 0,
        "count": 2,
        "since_ns": 9,
    }


def test_heartbeat_has_no_body() -> None:
    assert len(stamped(Encoder().heartbeat(**TIMES))) == HEADER_SIZE


def test_record_types_are_those_of_the_model() -> None:
    told = re.findall(r"^### (\d+) (\w+)$", PAGE, re.MULTILINE)
    assert {int(number): name for number, name in told} == {
        kind.value: kind.name.lower() for kind in RecordType
    }


def test_reasons_are_those_of_the_model() -> None:
    told = re.findall(r"\b(\d+) ([a-z]+)\b", section("Reasons"))
    assert {int(number): name for number, name in told} == {
        reason.value: reason.text for reason in Reason
    }


def test_states_channels_and_sides_are_those_of_the_model() -> None:
    for enumeration, title in ((BookState, "5 state"), (Channel, "6 gap")):
        told = dict(re.findall(r"\b(\d) ([a-z]+)\b", section(title)))
        for member in enumeration:
            assert told[str(member.value)] == member.name.lower()


def test_ring_ids() -> None:
    told = re.findall(r"(\d) `(coinbase|kraken|binance_us)`", PAGE)
    assert {name: int(number) for number, name in told} == {
        name: ring_id(name) for name in ("coinbase", "kraken", "binance_us")
    }
    assert ring_id("elsewhere") == 32768 + (zlib.crc32(b"elsewhere") & 0x7FFF)
