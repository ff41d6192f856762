"""Events as JSON, as the stream sends them and `alphapulse normalize` prints them.

Prices and volumes are JSON numbers with the exact decimal digits: no exponent, no float noise,
trailing zeros and a bare point left out. An unknown time is null. Texts are built by hand because
a JSON library would take the numbers through floats.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.fixed import format_decimal
from alphapulse.model import (
    BookDelta,
    BookSide,
    BookSnapshot,
    Change,
    Event,
    Gap,
    Instrument,
    Overrun,
    StateChange,
    Trade,
)

_QUOTE = msgspec.json.Encoder().encode


def quote(text: str) -> str:
    """A JSON string."""
    return _QUOTE(text).decode()


def encode_time(time_ns: int) -> str:
    """JSON of a time in nanoseconds; null where unknown."""
    return "null" if time_ns == NO_TIME else str(time_ns)


def encode_seconds(time_ns: int) -> str:
    """JSON of a time in seconds, exact to the nanosecond; null where unknown."""
    return "null" if time_ns == NO_TIME else format_decimal(time_ns, 9)


def encode_event(event: Event, epoch: int) -> str | None:
    """JSON object of an event; None for those that no stream client is told.

    Parameters
    ----------
    event : from a ring's reader
    epoch : the ring's epoch that the event belongs to
    """
    if isinstance(event, BookDelta):
        return encode_delta(event)
    if isinstance(event, Trade):
        return encode_trade(event)
    if isinstance(event, BookSnapshot):
        return None if event.repeat else encode_snapshot(event, epoch)
    if isinstance(event, StateChange):
        return encode_state(event)
    if isinstance(event, Gap):
        return encode_gap(event)
    if isinstance(event, Overrun):
        return encode_overrun(event)
    return None


def encode_trade(trade: Trade) -> str:
    """JSON of a trade; side is the taker's."""
    instrument = trade.instrument
    return (
        f'{{"type":"trade","data":{{{_names(instrument)}'
        f',"price":{format_decimal(trade.price, instrument.price_exponent)}'
        f',"volume":{format_decimal(trade.size, instrument.size_exponent)}'
        f',"side":"{trade.side.text}","trade_id":{quote(trade.trade_id)}'
        f',"id_kind":"{trade.id_kind.text}"'
        f',"timestamp":{encode_seconds(trade.exchange_ns)}'
        f',"timestamp_ns":{encode_time(trade.exchange_ns)}'
        f',"received_ns":{encode_time(trade.received_ns)},"sequence":{trade.sequence}}}}}'
    )


def encode_snapshot(snapshot: BookSnapshot, epoch: int) -> str:
    """JSON of a whole book."""
    instrument = snapshot.instrument
    return (
        f'{{"type":"orderbook_snapshot","data":{{{_names(instrument)}'
        f',"version":{snapshot.version},"reason":"{snapshot.reason.text}"'
        f"{_times(snapshot.exchange_ns, snapshot.received_ns, snapshot.sequence)}"
        f',"epoch":{epoch}'
        f',"bids":{encode_levels(snapshot.bids, instrument)}'
        f',"asks":{encode_levels(snapshot.asks, instrument)}}}}}'
    )


def encode_delta(delta: BookDelta) -> str:
    """JSON of a book's net difference."""
    instrument = delta.instrument
    changes = ",".join(_change(change, instrument) for change in delta.changes)
    return (
        f'{{"type":"orderbook_delta","data":{{{_names(instrument)}'
        f',"version":{delta.version},"prev_version":{delta.prev_version}'
        f"{_times(delta.exchange_ns, delta.received_ns, delta.sequence)}"
        f',"changes":[{changes}]}}}}'
    )


def encode_state(state: StateChange) -> str:
    """JSON of a book's new state."""
    return (
        f'{{"type":"state","data":{{{_names(state.instrument)}'
        f',"state":"{state.state.text}","reason":"{state.reason.text}"'
        f"{_times(state.exchange_ns, state.received_ns, state.sequence)}}}}}"
    )


def encode_gap(gap: Gap) -> str:
    """JSON of a loss."""
    symbol = quote(gap.instrument.symbol) if gap.instrument else "null"
    return _gap(
        gap.exchange,
        symbol,
        gap.channel.text,
        (gap.first, gap.last, gap.count),
        gap.reason.text,
        gap.received_ns,
        gap.since_ns,
    )


def encode_overrun(overrun: Overrun) -> str:
    """JSON of records that a reader of the ring was not given; the time is now."""
    bounds = (overrun.first, overrun.last, overrun.count)
    return _gap(
        overrun.exchange, "null", "ring", bounds, overrun.reason.text, wall_ns(), NO_TIME
    )


def encode_levels(levels: Iterable[tuple[int, int]], instrument: Instrument) -> str:
    """JSON of levels as [[price, volume], ...]."""
    price_exponent, size_exponent = instrument.price_exponent, instrument.size_exponent
    pairs = (
        f"[{format_decimal(price, price_exponent)},{format_decimal(size, size_exponent)}]"
        for price, size in levels
    )
    return f"[{','.join(pairs)}]"


def _names(instrument: Instrument) -> str:
    return f'"exchange":{quote(instrument.exchange)},"symbol":{quote(instrument.symbol)}'


def _times(exchange_ns: int, received_ns: int, sequence: int) -> str:
    return (
        f',"timestamp":{encode_seconds(exchange_ns)},"timestamp_ns":{encode_time(exchange_ns)}'
        f',"received_ns":{encode_time(received_ns)},"sequence":{sequence}'
    )


def _change(change: Change, instrument: Instrument) -> str:
    side = "bid" if change.side is BookSide.BID else "ask"
    return (
        f'{{"side":"{side}"'
        f',"price":{format_decimal(change.price, instrument.price_exponent)}'
        f',"volume":{format_decimal(change.size, instrument.size_exponent)}'
        f',"action":"{change.action.text}"}}'
    )


def _gap(
    exchange: str,
    symbol: str,
    channel: str,
    bounds: tuple[int | None, int | None, int | None],
    reason: str,
    received_ns: int,
    since_ns: int,
) -> str:
    first, last, count = ("null" if bound is None else bound for bound in bounds)
    return (
        f'{{"type":"gap","data":{{"exchange":{quote(exchange)},"symbol":{symbol}'
        f',"channel":"{channel}","first":{first},"last":{last},"count":{count}'
        f',"reason":"{reason}","received_ns":{encode_time(received_ns)}'
        f',"since_ns":{encode_time(since_ns)}}}}}'
    )
