"""Names of keys in Redis, and rows to and from stream entries; the format is in docs/store.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from alphapulse.clock import NO_TIME
from alphapulse.fixed import format_decimal, parse_decimal, split_decimal
from alphapulse.history import GapRow, TradeRow
from alphapulse.model import Channel, IdKind, Reason, Side

NS_PER_MS = 1_000_000

_SIDES = {side.text: side for side in Side}
_KINDS = {kind.text: kind for kind in IdKind}
_CHANNELS = {channel.text: channel for channel in Channel}
_REASONS = {reason.text: reason for reason in Reason}

Entry = tuple[bytes, Mapping[bytes, bytes]]


class EntryId(NamedTuple):
    """Id of a stream entry; its first part is a time in milliseconds since the epoch."""

    ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"

    def next(self, timestamp_ns: int) -> EntryId:
        """Id of a trade's entry after this one: its own time, unless this one's is later."""
        ms = timestamp_ns // NS_PER_MS
        return EntryId(ms, 0) if ms > self.ms else EntryId(self.ms, self.number + 1)


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

    def trades(self, symbol: str) -> str:
        return f"{self._base}:trades:{symbol}"

    def late(self, symbol: str) -> str:
        return f"{self._base}:late:{symbol}"

    def texts(self, symbol: str) -> str:
        return f"{self._base}:texts:{symbol}"

    def book(self, symbol: str) -> str:
        return f"{self._base}:book:{symbol}"


def trade_fields(row: TradeRow) -> dict[Any, Any]:
    """Fields of a trade's entry."""
    return {
        "trade_id": row.trade_id,
        "id_kind": row.id_kind.text,
        "timestamp_ns": row.timestamp_ns,
        "received_ns": "" if row.received_ns == NO_TIME else row.received_ns,
        "price": format_decimal(row.price, row.price_exponent),
        "volume": format_decimal(row.size, row.size_exponent),
        "side": row.side.text,
        "matches": row.matches,
    }


def trade_of(fields: Mapping[bytes, bytes], exchange: str, symbol: str) -> TradeRow:
    """Trade of an entry's fields."""
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
    )


def gap_fields(gap: GapRow) -> dict[Any, Any]:
    """Fields of a gap's entry; what is unknown is empty."""
    return {
        "symbol": gap.symbol or "",
        "channel": gap.channel.text,
        "reason": gap.reason.text,
        "first": _optional(gap.first),
        "last": _optional(gap.last),
        "count": _optional(gap.count),
        "since_ns": "" if gap.since_ns == NO_TIME else gap.since_ns,
        "received_ns": gap.received_ns,
    }


def gap_of(fields: Mapping[bytes, bytes], exchange: str) -> GapRow:
    """Gap of an entry's fields."""
    since = fields[b"since_ns"]
    return GapRow(
        exchange=exchange,
        symbol=fields[b"symbol"].decode() or None,
        channel=_CHANNELS[fields[b"channel"].decode()],
        reason=_REASONS[fields[b"reason"].decode()],
        first=_integer(fields[b"first"]),
        last=_integer(fields[b"last"]),
        count=_integer(fields[b"count"]),
        since_ns=int(since) if since else NO_TIME,
        received_ns=int(fields[b"received_ns"]),
    )


def _scaled(text: bytes) -> tuple[int, int]:
    exponent = max(split_decimal(text.decode())[1], 0)
    return parse_decimal(text.decode(), exponent), exponent


def _optional(value: int | None) -> int | str:
    return "" if value is None else value


def _integer(text: bytes) -> int | None:
    return int(text) if text else None
