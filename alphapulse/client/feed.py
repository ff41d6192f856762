"""A client's side of the stream's protocol without I/O: messages in, events and books out."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from alphapulse.client.books import Books
from alphapulse.client.consolidated import ConsolidatedBook
from alphapulse.client.desk import Desk
from alphapulse.client.events import Disconnected, StreamEvent
from alphapulse.client.json_feed import JsonFeed
from alphapulse.client.keeping import KeptBook
from alphapulse.client.messages import (
    FULL,
    RECORDS,
    EpochMessage,
    Subscribed,
    Unsubscribed,
    decode_event,
    decode_head,
)
from alphapulse.client.record_feed import RecordFeed
from alphapulse.errors import ProtocolError, RecordError


class Kind(Enum):
    """What a client's queue holds."""

    TEXT = auto()
    """A JSON message."""
    RECORD = auto()
    """A binary message."""
    NOTE = auto()
    """An event that the client itself made."""


Entry = tuple[Kind, bytes | StreamEvent]


class Feed:
    """Takes a connection's messages in order."""

    def __init__(self) -> None:
        self._desk = Desk()
        self._json = JsonFeed(self._desk)
        self._records = RecordFeed(self._desk)

    @property
    def wanted(self) -> bool:
        """Whether there are books of which a snapshot is to be asked for."""
        return bool(self._desk.wanted)

    def take_wanted(self) -> list[tuple[str, str]]:
        """These books, as (exchange, symbol); asking for them is the caller's."""
        wanted = self._desk.wanted[:]
        self._desk.wanted.clear()
        return wanted

    @property
    def books(self) -> Books[KeptBook]:
        """Books of single exchanges, by (exchange, symbol)."""
        return self._desk.books

    @property
    def consolidated(self) -> Mapping[str, ConsolidatedBook]:
        """Books across venues, by symbol."""
        return self._desk.consolidated

    def take(self, entry: Entry) -> list[StreamEvent]:
        """Events of a queue's entry, in order; the books are as of the last of them.

        Raises
        ------
        ProtocolError
            a message that no server of this protocol sends
        """
        kind, data = entry
        if not isinstance(data, bytes):
            if isinstance(data, Disconnected):
                self._desk.suspend()
                self._json.disconnected()
            return [data]
        try:
            return self._records.take(data) if kind is Kind.RECORD else self._text(data)
        except (msgspec.DecodeError, KeyError, ValueError, RecordError) as error:
            raise ProtocolError(f"{type(error).__name__}: {error}", data) from error

    def _text(self, data: bytes) -> list[StreamEvent]:
        try:
            message = decode_event(data)
        except msgspec.ValidationError:
            # What a newer server says besides is none of ours; a known type has to be right.
            if decode_head(data).type in _KNOWN:
                raise
            return []
        if isinstance(message, Subscribed):
            self._subscribed(message)
        elif isinstance(message, Unsubscribed):
            if "orderbook" in message.channels:
                self._desk.unsubscribed(message.exchanges, message.symbols)
        elif isinstance(message, EpochMessage):
            self._new_epoch(message.exchange, message.epoch)
        else:
            return self._json.take(message)
        return []

    def _subscribed(self, message: Subscribed) -> None:
        resumed = {exchange for exchange, how in message.resumed.items() if how == RECORDS}
        for exchange, epoch in message.epochs.items():
            # Records that were missed are of the epoch in which the connection was lost, until
            # the server says that the next one begins.
            if exchange not in resumed and self._records.begin(exchange, epoch):
                self._desk.forget_trades(exchange)
        if "trades" in message.channels:
            self._desk.resumed_trades(resumed)
        if "orderbook" in message.channels:
            goes_on = message.depth == FULL and message.conflate_ms is None
            self._desk.subscribed(message.exchanges, message.symbols, resumed if goes_on else set())

    def _new_epoch(self, exchange: str, epoch: int) -> None:
        if self._records.begin(exchange, epoch):
            self._desk.forget_trades(exchange)
            self._desk.restarted(exchange, epoch)


_KNOWN = frozenset(
    {
        *("trade", "orderbook_snapshot", "orderbook_delta", "state", "gap", "bbo", "arbitrage"),
        *("epoch", "subscribed", "unsubscribed"),
    }
)
