"""Names of keys in Redis, and rows to and from stream entries; the format is in docs/store.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from alphapulse.clock import NO_TIME
from alphapulse.fixed import parse_decimal, split_decimal
from alphapulse.history import FillStatus, GapFill, GapRow, StateRow, TradeRow
from alphapulse.model import BookState, Channel, IdKind, Reason, Side

NS_PER_MS = 1_000_000

_SIDES = {side.text: side for side in Side}
_KINDS = {kind.text: kind for kind in IdKind}
_CHANNELS = {channel.text: channel for channel in Channel}
_REASONS = {reason.text: reason for reason in Reason}
_STATES = {state.text: state for state in BookState}

Entry = tuple[bytes, Mapping[bytes, bytes]]


class EntryId(NamedTuple):
    """Id of a stream entry; its first part is a time in milliseconds since the epoch."""

    ms: int
    number: int


def parse_entry_id(text: bytes) -> EntryId:
    """An id as Redis writes it."""
    ms, _, number = text.partition(b"-")
    return EntryId(int(ms), int(number))


class Keys:
    """Names of one venue's keys. The braces make a Redis cluster keep them on one node.

    Parameters
    ----------
    prefix : ``ring.prefix`` of the settings
    exchange : the venue
    """

    def __init__(self, prefix: str, exchange: str) -> None:
        self._base = f"{prefix}:{{{exchange}}}"
        self.series = f"{self._base}:series"
        self.position = f"{self._base}:position"
        self.commits = f"{self._base}:commits"
        self.gaps = f"{self._base}:gaps"
        self.gap_times = f"{self._base}:gap_times"
        self.fills = f"{self._base}:fills"
        self.marks = f"{self._base}:marks"

    def trades(self, symbol: str) -> str:
        return f"{self._base}:trades:{symbol}"

    def late(self, symbol: str) -> str:
        return f"{self._base}:late:{symbol}"

    def texts(self, symbol: str) -> str:
        return f"{self._base}:texts:{symbol}"

    def book(self, symbol: str) -> str:
        return f"{self._base}:book:{symbol}"

    def books(self, symbol: str) -> str:
        return f"{self._base}:books:{symbol}"

    def states(self, symbol: str) -> str:
        return f"{self._base}:states:{symbol}"

    def buckets(self, interval: str, symbol: str) -> str:
        return f"{self._base}:bars:{interval}:{symbol}"

    def bars(self, interval: str, symbol: str, bucket: int) -> str:
        return f"{self._base}:bars:{interval}:{symbol}:{bucket}"


class _Fill(msgspec.Struct):
    status: FillStatus
    filled_ns: int
    filled: int


def trade_of(fields: Mapping[bytes, bytes], exchange: str, symbol: str) -> TradeRow:
    """Trade of an entry's fields, which `TradePacker` wrote."""
    received = fields[b"received_ns"]
    price, price_exponent = _scaled(fields[b"price"])
    size, size_exponent = _scaled(fields[b"volume"])
    return TradeRow(
        exchange=exchange,
        symbol=symbol,
        trade_id=fields[b"trade_id"].decode(),
        id_kind=_KINDS[fields[b"id_kind"].decode()],
        timestamp_ns=int(fields[b"timestamp_ns"]),
        received_ns=int(received) if received else NO_TIME,
        price=price,
        price_exponent=price_exponent,
        size=size,
        size_exponent=size_exponent,
        side=_SIDES[fields[b"side"].decode()],
        matches=int(fields[b"matches"]),
        filled=b"filled" in fields,
    )


def gap_fields(gap: GapRow) -> dict[str, str | int]:
    """Fields of a gap's entry; what is unknown is empty."""
    return {
        "symbol": gap.symbol or "",
        "channel": gap.channel.text,
        "reason": gap.reason.text,
        "first": _optional(gap.first),
        "last": _optional(gap.last),
        "count": _optional(gap.count),
        "epoch": _optional(gap.epoch),
        "since_ns": "" if gap.since_ns == NO_TIME else gap.since_ns,
        "received_ns": gap.received_ns,
    }


def gap_of(entry: Entry, fill: bytes | None, exchange: str) -> GapRow:
    """Gap of an entry, and of what ``fills`` says of it."""
    entry_id, fields = entry
    since = fields[b"since_ns"]
    gap = GapRow(
        exchange=exchange,
        symbol=fields[b"symbol"].decode() or None,
        channel=_CHANNELS[fields[b"channel"].decode()],
        reason=_REASONS[fields[b"reason"].decode()],
        first=_integer(fields[b"first"]),
        last=_integer(fields[b"last"]),
        count=_integer(fields[b"count"]),
        since_ns=int(since) if since else NO_TIME,
        received_ns=int(fields[b"received_ns"]),
        epoch=_integer(fields.get(b"epoch", b"")),
        id=entry_id.decode(),
    )
    if fill is None:
        return gap
    found = msgspec.json.decode(fill, type=_Fill)
    return replace(gap, status=found.status, filled_ns=found.filled_ns, filled=found.filled)


def fill_text(fill: GapFill) -> bytes:
    """What ``fills`` says of a gap."""
    return msgspec.json.encode(_Fill(fill.status, fill.filled_ns, fill.filled))


def state_fields(row: StateRow) -> dict[str, str | int]:
    """Fields of the entry of a change of state."""
    return {
        "state": row.state.text,
        "reason": row.reason.text,
        "timestamp_ns": row.timestamp_ns,
        "received_ns": row.received_ns,
    }


def state_of(fields: Mapping[bytes, bytes], exchange: str, symbol: str) -> StateRow:
    """Change of state of an entry's fields."""
    return StateRow(
        exchange=exchange,
        symbol=symbol,
        state=_STATES[fields[b"state"].decode()],
        reason=_REASONS[fields[b"reason"].decode()],
        timestamp_ns=int(fields[b"timestamp_ns"]),
        received_ns=int(fields[b"received_ns"]),
    )


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Fields and values of an answer of RESP 2, where they follow each other."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _scaled(text: bytes) -> tuple[int, int]:
    exponent = max(split_decimal(text.decode())[1], 0)
    return parse_decimal(text.decode(), exponent), exponent


def _optional(value: int | None) -> int | str:
    return "" if value is None else value


def _integer(text: bytes) -> int | None:
    return int(text) if text else None
