"""Events as JSON, as the stream sends them and `alphapulse normalize` prints them.

Prices and volumes are JSON numbers with the exact decimal digits: no exponent, no float noise,
trailing zeros and a bare point left out. An unknown time is null. Texts are built by hand because
a JSON library would take the numbers through floats.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from alphapulse.clock import NO_TIME, wall_ns
from alphapulse.model import (
    BookDelta,
    BookSnapshot,
    Event,
    Gap,
    Instrument,
    Overrun,
    Reason,
    StateChange,
    Trade,
)
from alphapulse.stream._text import decimal_text, delta_json, level_texts, times_text

PART_BYTES = 250_000
"""Most bytes of a snapshot's message; a larger book is sent in parts."""

_HEAD_BYTES = 5_000
"""Room for what a part holds besides levels; names are at most 255 bytes before quoting."""

_QUOTE = msgspec.json.Encoder().encode
_COMMA = ",".join

Levels = Iterable[tuple[int, int]]
"""Scaled (price, size), best first."""


class Times(NamedTuple):
    """When something happened: nanoseconds since the epoch, and the place in the ring."""

    exchange_ns: int
    received_ns: int
    sequence: int


def quote(text: str) -> str:
    """A JSON string."""
    return _QUOTE(text).decode()


def encode_time(time_ns: int) -> str:
    """JSON of a time in nanoseconds; null where unknown."""
    return "null" if time_ns == NO_TIME else str(time_ns)


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
        f'{{"type":"trade","data":{{{encode_names(instrument)}'
        f',"price":{decimal_text(trade.price, instrument.price_exponent)}'
        f',"volume":{decimal_text(trade.size, instrument.size_exponent)}'
        f',"side":"{trade.side.text}","trade_id":{quote(trade.trade_id)}'
        f',"id_kind":"{trade.id_kind.text}"'
        f"{times_text(trade.exchange_ns, trade.received_ns, trade.sequence)}}}}}"
    )


def encode_snapshot(snapshot: BookSnapshot, epoch: int) -> str:
    """JSON of a whole book."""
    times = Times(snapshot.exchange_ns, snapshot.received_ns, snapshot.sequence)
    head = snapshot_head(snapshot.instrument, snapshot.version, snapshot.reason, times, epoch)
    return (
        f"{head}"
        f',"bids":{encode_levels(snapshot.bids, snapshot.instrument)}'
        f',"asks":{encode_levels(snapshot.asks, snapshot.instrument)}}}}}'
    )


def snapshot_head(
    instrument: Instrument, version: int, reason: Reason, times: Times, epoch: int
) -> str:
    """JSON of a snapshot as far as its levels."""
    return (
        f'{{"type":"orderbook_snapshot","data":{{{encode_names(instrument)}'
        f',"version":{version},"reason":"{reason.text}"{encode_times(times)},"epoch":{epoch}'
    )


def encode_parts(
    head: str, bids: Levels, asks: Levels, instrument: Instrument, *, marked: bool
) -> list[str]:
    """JSON of a book in messages of at most `PART_BYTES`; together they hold each level once.

    Parameters
    ----------
    head : of `snapshot_head`
    bids, asks : scaled, best first
    marked : say ``part`` and ``parts`` even where there is one part only
    """
    return join_parts(head, _levels(bids, instrument), _levels(asks, instrument), marked=marked)


def join_parts(head: str, bids: Iterable[str], asks: Iterable[str], *, marked: bool) -> list[str]:
    """The same of levels that are JSON already."""
    room = PART_BYTES - _HEAD_BYTES
    parts: list[tuple[list[str], list[str]]] = [([], [])]
    used = 0
    for side, levels in enumerate((bids, asks)):
        for text in levels:
            used += len(text) + 1
            if used > room:
                parts.append(([], []))
                used = len(text) + 1
            parts[-1][side].append(text)
    count = len(parts)
    texts = []
    for number, (some_bids, some_asks) in enumerate(parts, start=1):
        mark = f',"part":{number},"parts":{count}' if marked or count > 1 else ""
        sides = f',"bids":[{_COMMA(some_bids)}],"asks":[{_COMMA(some_asks)}]'
        texts.append(f"{head}{mark}{sides}}}}}")
    return texts


def encode_delta(delta: BookDelta) -> str:
    """JSON of a book's net difference."""
    times = Times(delta.exchange_ns, delta.received_ns, delta.sequence)
    return encode_changes(delta.instrument, delta.version, delta.prev_version, times, delta.changes)


def encode_changes(
    instrument: Instrument,
    version: int,
    prev_version: int,
    times: Times,
    changes: Iterable[tuple[int, int, int, int]],
) -> str:
    """JSON of a net difference given as (side, price, size, action), numbered as in the model."""
    names = encode_names(instrument).encode()
    places = instrument.price_exponent, instrument.size_exponent
    return delta_json(names, version, prev_version, times, changes, *places).decode()


def encode_state(state: StateChange) -> str:
    """JSON of a book's new state."""
    times = Times(state.exchange_ns, state.received_ns, state.sequence)
    return (
        f'{{"type":"state","data":{{{encode_names(state.instrument)}'
        f',"state":"{state.state.text}","reason":"{state.reason.text}"'
        f"{encode_times(times)}}}}}"
    )


def encode_gap(gap: Gap) -> str:
    """JSON of a loss."""
    symbol = quote(gap.instrument.symbol) if gap.instrument else "null"
    bounds = gap.first, gap.last, gap.count
    first, last, count = ("null" if bound is None else bound for bound in bounds)
    return (
        f'{{"type":"gap","data":{{"exchange":{quote(gap.exchange)},"symbol":{symbol}'
        f',"channel":"{gap.channel.text}","first":{first},"last":{last},"count":{count}'
        f',"reason":"{gap.reason.text}","received_ns":{encode_time(gap.received_ns)}'
        f',"since_ns":{encode_time(gap.since_ns)}}}}}'
    )


def encode_overrun(overrun: Overrun) -> str:
    """JSON of records that a reader of the ring was not given; the time is now."""
    return encode_gap(overrun.as_gap(wall_ns()))


def encode_levels(levels: Levels, instrument: Instrument) -> str:
    """JSON of levels as [[price, volume], ...]."""
    return f"[{_COMMA(_levels(levels, instrument))}]"


def _levels(levels: Levels, instrument: Instrument) -> list[str]:
    return level_texts(levels, instrument.price_exponent, instrument.size_exponent)


def encode_names(instrument: Instrument) -> str:
    """The first members of an event's data."""
    return f'"exchange":{quote(instrument.exchange)},"symbol":{quote(instrument.symbol)}'


def encode_times(times: Times) -> str:
    """Members that say when something happened; begins with a comma."""
    return times_text(*times)
