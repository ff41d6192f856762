"""Coinbase's other dialect: Advanced Trade (docs.cdp.coinbase.com/advanced-trade).

One sequence runs over all messages of a connection, so a lost message may concern any of its
books. Idle channels are closed after 60 to 90 s: `heartbeats` is always subscribed to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from alphapulse.clock import NO_TIME
from alphapulse.collectors.events import (
    Alive,
    BookSnapshotEvent,
    BookUpdateEvent,
    LevelPart,
    Malformed,
    SequenceBreak,
    TradeEvent,
    VenueEvent,
)
from alphapulse.collectors.venue import Channel, by_channel, search_text, timestamp_ns
from alphapulse.config import CoinbaseSettings
from alphapulse.delta import ConnectionState, Field, FrameLayout, LevelLayout, Levels
from alphapulse.fixed import INT64_MAX
from alphapulse.model import Instrument, Side

LEVELS = LevelLayout.objects(price="price_level", size="new_quantity", side="side")
LARGEST_JUMP = 1_000_000_000
"""Messages that may be missing on a connection; beyond that the number itself is wrong."""

_SEQUENCE = re.compile(rb'"sequence_num"\s*:\s*(\d+)')
_PRODUCT = re.compile(rb'"product_id"\s*:\s*"([^"]{1,32})"')
_CHANNELS = frozenset({"l2_data", "market_trades", "heartbeats", "subscriptions"})
_CHANNEL_NAMES = {"orderbook": "level2", "trades": "market_trades"}
_SAME = {"BUY": Side.BUY, "SELL": Side.SELL}
_OPPOSITE = {"BUY": Side.SELL, "SELL": Side.BUY}


_PLAIN_BOOK = {
    "type": "update",
    "product_id": Field.SYMBOL,
    "updates": Levels(LEVELS),
}
_PLAIN_TRADE = {
    "trade_id": Field.QUOTED_TRADE_ID,
    "product_id": Field.SYMBOL,
    "price": Field.PRICE,
    "size": Field.SIZE,
    "side": Field.SIDE,
    "time": Field.ISO_TIME,
}


class _BookEvent(msgspec.Struct):
    type: Literal["snapshot", "update"]
    product_id: str
    updates: msgspec.Raw


class _BookFrame(msgspec.Struct, tag_field="channel", tag="l2_data"):
    events: list[_BookEvent]
    sequence_num: int
    timestamp: str | None = None


class _Trade(msgspec.Struct):
    trade_id: str
    product_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    time: str


class _TradesEvent(msgspec.Struct):
    type: Literal["snapshot", "update"]
    trades: list[_Trade]


class _TradesFrame(msgspec.Struct, tag_field="channel", tag="market_trades"):
    events: list[_TradesEvent]
    sequence_num: int


class _HeartbeatFrame(msgspec.Struct, tag_field="channel", tag="heartbeats"):
    sequence_num: int


class _Subscribed(msgspec.Struct):
    subscriptions: dict[str, list[str]]


class _SubscriptionsFrame(msgspec.Struct, tag_field="channel", tag="subscriptions"):
    events: list[_Subscribed]
    sequence_num: int


class _Other(msgspec.Struct):
    channel: str | None = None
    type: str | None = None
    message: str = ""
    reason: str = ""
    sequence_num: int | None = None


_Frame = _BookFrame | _TradesFrame | _HeartbeatFrame | _SubscriptionsFrame
_FRAME = msgspec.json.Decoder(_Frame)
_OTHER = msgspec.json.Decoder(_Other)
_ENCODE = msgspec.json.Encoder().encode


def advanced_frames(told_side: Literal["maker", "taker"]) -> tuple[FrameLayout, ...]:
    """Everyday frames, where the sides of trades are told as the maker's or the taker's."""
    sides = _OPPOSITE if told_side == "maker" else _SAME
    told = {side: text for text, side in sides.items()}
    return (
        FrameLayout(
            {
                "channel": "l2_data",
                "timestamp": Field.ISO_TIME,
                "sequence_num": Field.MESSAGE_ID,
                "events": [_PLAIN_BOOK],
            }
        ),
        FrameLayout(
            {
                "channel": "market_trades",
                "sequence_num": Field.MESSAGE_ID,
                "events": [{"type": "update", "trades": [_PLAIN_TRADE, ...]}],
            },
            buy=told[Side.BUY],
            sell=told[Side.SELL],
            contiguous=False,
            by_id=True,
        ),
        FrameLayout({"channel": "heartbeats", "sequence_num": Field.MESSAGE_ID}),
    )


class AdvancedChannel(Channel):
    """One connection to Advanced Trade."""

    all_or_nothing = True
    connection: ConnectionState

    def __init__(self, settings: CoinbaseSettings, symbols: Sequence[Instrument]) -> None:
        super().__init__(symbols)
        self._settings = settings
        # Sources disagree about whose side it is: hence the setting.
        self._sides = _OPPOSITE if settings.advanced_side == "maker" else _SAME
        # `-USDC` products may be answered as their `-USD` twins.
        self._renamed = {
            name[:-1]: name
            for name in self.symbols
            if name.endswith("C") and name[:-1] not in self.symbols
        }
        self.connection = ConnectionState(self._renamed)

    @property
    def url(self) -> str:
        return self._settings.ws_url

    def open(self, now_ns: int) -> list[bytes]:
        products = list(self.symbols)
        names = [_CHANNEL_NAMES[channel] for channel in self._settings.channels]
        self.awaited.update((name, product) for name in names for product in products)
        requests = [_request("subscribe", name, products) for name in names]
        return [_request("subscribe", "heartbeats", None), *requests]

    def subscribe(self, keys: Collection[tuple[str, str]], now_ns: int) -> list[bytes]:
        self.awaited.update(keys)
        return [
            _request("subscribe", channel, products)
            for channel, products in by_channel(keys).items()
        ]

    def resubscribe(self, venue_symbol: str, now_ns: int) -> list[bytes]:
        self.awaited.add(("level2", venue_symbol))
        return [
            _request(method, "level2", [venue_symbol]) for method in ("unsubscribe", "subscribe")
        ]

    def decode(self, data: bytes | memoryview) -> list[VenueEvent]:
        try:
            frame = _FRAME.decode(data)
        except msgspec.ValidationError as error:
            return self._other(data, error)
        breaks = self._sequenced(frame.sequence_num)
        try:
            return [*breaks, *self._events(frame)] or [Alive()]
        except ValueError as error:
            return [*breaks, self.malformed(data, error)]

    def receive(self, data: bytes | memoryview) -> list[VenueEvent]:
        found = super().receive(data)
        if len(found) == 1 and isinstance(found[0], Malformed):
            # Its place in the sequence is known all the same: the next message is no jump.
            number = search_text(_SEQUENCE, bytes(data[:512]))
            if number is not None and len(number) < 19:
                try:
                    return [*self._sequenced(int(number)), *found]
                except ValueError:
                    # It is the number itself that is wrong.
                    return found
        return found

    def _events(self, frame: _Frame) -> list[VenueEvent]:
        events: list[VenueEvent] = []
        if isinstance(frame, _BookFrame):
            time_ns = timestamp_ns(frame.timestamp) if frame.timestamp else NO_TIME
            events += [self._book(event, time_ns) for event in frame.events]
        elif isinstance(frame, _TradesFrame):
            for event in frame.events:
                events += self._trades(event)
        elif isinstance(frame, _SubscriptionsFrame):
            events += self._acknowledged(frame)
        return events

    def _sequenced(self, number: int) -> list[VenueEvent]:
        """Check the counter, which is taken to run over all channels of a connection.

        That it does is inferred, not documented.
        """
        last = self.connection.last_message
        expected = last + 1 if last >= 0 else number
        if not 0 <= number <= min(expected + LARGEST_JUMP, INT64_MAX):
            raise ValueError(f"{number} can't be a sequence soon after {last}")
        self.connection.last_message = max(number, expected - 1)
        return [SequenceBreak(expected, number - 1)] if number > expected else []

    def _other(self, data: bytes | memoryview, error: Exception) -> list[VenueEvent]:
        other = _OTHER.decode(data)
        if other.channel in _CHANNELS or (other.channel is None and other.type != "error"):
            # A channel that we know, yet not as we know it.
            raise error
        events = self._sequenced(other.sequence_num) if other.sequence_num is not None else []
        if other.type == "error":
            text = ": ".join(part for part in (other.message, other.reason) if part)
            return [*events, *self.refused(text)]
        return events or [Alive()]

    def _book(self, event: _BookEvent, time_ns: int) -> BookSnapshotEvent | BookUpdateEvent:
        kind = BookSnapshotEvent if event.type == "snapshot" else BookUpdateEvent
        part = LevelPart(LEVELS, None, event.updates)
        return kind(self._product(event.product_id), (part,), time_ns)

    def _product(self, product_id: str) -> str:
        """The product as subscribed to."""
        return self._renamed.get(product_id, product_id)

    def _trades(self, event: _TradesEvent) -> list[TradeEvent]:
        """Trades of 250 ms, or recent ones on subscribing; ids ascend, but not always by one."""
        recent = event.type == "snapshot"
        trades = [
            TradeEvent(
                self._product(trade.product_id),
                trade.price,
                trade.size,
                self._sides[trade.side],
                int(trade.trade_id),
                timestamp_ns(trade.time),
                recent=recent,
                contiguous=False,
            )
            for trade in event.trades
        ]
        return sorted(trades, key=lambda trade: trade.trade_id)

    def _acknowledged(self, frame: _SubscriptionsFrame) -> list[VenueEvent]:
        granted = {
            (name, self._product(product))
            for event in frame.events
            for name, products in event.subscriptions.items()
            for product in products
        }
        return self.granted(granted)

    def symbol_of(self, head: bytes) -> str | None:
        product = search_text(_PRODUCT, head)
        return self._product(product) if product else None

    def is_book(self, head: bytes) -> bool:
        return b'"l2_data"' in head


def _request(method: str, channel: str, products: list[str] | None) -> bytes:
    """One channel per message."""
    request: dict[str, object] = {"type": method, "channel": channel}
    if products is not None:
        request["product_ids"] = products
    return _ENCODE(request)
